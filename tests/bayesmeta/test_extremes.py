"""Rows at the extremes of float32 and float64: every family answers in finite numbers, or says clearly why not."""

import dataclasses
import math
import re
import warnings
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data, LimitWarning
from bayesmeta.checks.predictive_checks import filled
from bayesmeta.diffusion import TemperedWarning
from bayesmeta.networks import deep_kernel_fit
from bayesmeta.protocol import Evidence, Learnable, Posterior
from bayesmeta.warning_kinds import PlacementWarning
from tests.families import FAMILIES, Family, initial, seed

COUNTS = {
    "gamma_poisson",
    "gamma_poisson_exposure",
    "poisson_gaussian",
    "poisson_exposure_gaussian",
    "diffusion_poisson",
}
CATEGORIES = {"beta_bernoulli", "dirichlet_categorical", "logistic_gaussian", "diffusion_logistic"}
# a design of 1e10 beside a prior of one is singular to the last digit, and rows that do not vary teach no spread
CLEAR = re.compile("not positive definite|fit needs rows that differ|y must vary|bring the columns of x to one scale")
OF_ARMS = {"correlated_arms", "diffusion", "diffusion_on_a_grid"}
KEPT_X = OF_ARMS | {"poisson_exposure_gaussian"}  # x is an index, or a logarithm

# what squares, times rows, must still fit: 1e60 into float64, 1e30 into float32
LARGEST = {torch.float32: 12, torch.float64: 30}
SHAPES = {"ragged": [3, 0, 6, 1], "single rows": [1, 1, 1], "longer": [9, 12, 10]}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """How well a network learns does not matter here."""
    monkeypatch.setattr(deep_kernel_fit, "NUM_STEPS", 20)


@st.composite
def extremes(draw: st.DrawFn) -> dict[str, object]:
    dtype = draw(st.sampled_from([torch.float64, torch.float32]))
    largest = LARGEST[dtype]
    return {
        "dtype": dtype,
        "lengths": draw(st.sampled_from(sorted(SHAPES))),
        "identical": draw(st.booleans()),
        "scale": draw(st.integers(-largest, largest)),
        "x_scale": draw(st.sampled_from([0, 0, -largest // 3, largest // 3])),
        "offset": draw(st.sampled_from([None, None, -3, 6, largest])),
        "number": draw(st.integers(0, 100)),
    }


def rows(name: str, family: Family, case: dict[str, object]) -> Data:
    dtype, scale = case["dtype"], 10.0 ** case["scale"]
    data = family.tasks(SHAPES[case["lengths"]], case["number"])
    x, y = data.x, data.y
    if case["identical"]:
        x, y = x[:, :1].expand_as(x), y[:1, :1].expand_as(y)
    if name in COUNTS:
        y = (y * min(max(scale, 1.0), 1e14)).floor()
    elif name not in CATEGORIES:
        y = y * scale
        if case["offset"] is not None:
            y = y + 10.0 ** case["offset"]
    if name not in KEPT_X:
        x = x * 10.0 ** case["x_scale"]
    return filled(Data(x, y, data.mask)).to(dtype)  # padding, too, is to be predicted


def finite(what: str, values: Iterable[Tensor]) -> None:
    for value in values:
        assert value.isfinite().all(), what


def tensors(prior: object) -> list[Tensor]:
    values = [getattr(prior, field.name) for field in dataclasses.fields(prior)]
    return [value for value in values if isinstance(value, Tensor)]


def answers(prior: object, data: Data) -> None:
    posterior = prior.condition(data)
    finite("fields", tensors(posterior))
    prediction = posterior.predict(data.x)
    finite("log density", [prediction.log_prob(data.y)])
    heavy = isinstance(df := getattr(prediction, "df", None), Tensor) and bool((df <= 2).any())
    if not heavy:  # a Student t has a mean above one degree of freedom, a variance above two
        finite("moments", [prediction.mean, prediction.variance])
    if isinstance(prior, Posterior):
        finite("draws", [posterior.sample(3, generator=seed(0))(data.x)])
    if isinstance(prior, Evidence):
        finite("evidence", [prior.log_evidence(data)])


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=10)
@given(case=extremes())
def test_answers_are_finite(name: str, case: dict[str, object]) -> None:
    data = rows(name, FAMILIES[name], case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PlacementWarning)  # rows too long for the digits of the prior
        warnings.simplefilter("ignore", TemperedWarning)
        try:
            answers(FAMILIES[name].prior.to(case["dtype"]), data)
        except ValueError as error:
            if not CLEAR.search(str(error)):
                raise


@pytest.mark.parametrize("name", [name for name, f in FAMILIES.items() if isinstance(f.prior, Learnable)])
@settings(max_examples=4)
@given(case=extremes())
def test_learned_priors_are_finite(name: str, case: dict[str, object]) -> None:
    data = rows(name, FAMILIES[name], case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimitWarning)
        warnings.simplefilter("ignore", PlacementWarning)
        warnings.simplefilter("ignore", TemperedWarning)
        try:
            prior = initial(FAMILIES[name], data).fit(data)
        except ValueError as error:
            if not CLEAR.search(str(error)):
                raise
            return
        finite("fields", tensors(prior))
        answers(prior, data)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_are_numbers_where_variances_have_next_to_no_degrees_of_freedom(dtype: torch.dtype) -> None:
    """Most of them are beyond all floats."""
    one, eye, tiny = torch.ones((), dtype=dtype), torch.eye(2, dtype=dtype), 4 * torch.finfo(dtype).eps
    regression = torch.zeros(2, dtype=dtype)
    x = torch.ones(3, 2, dtype=dtype)
    for prior, inputs in (
        (bm.NormalInverseGamma(0 * one, one, tiny * one, one), None),
        (bm.NormalInverseWishart(regression, one, (1 + tiny) * one, eye), None),
        (bm.LinearNormalInverseGamma(regression, eye, tiny * one, one), x),
        (bm.MatrixNormalInverseWishart(eye, eye, (1 + tiny) * one, eye), x),
    ):
        draws = prior.sample(100, generator=seed(0))
        finite("draws", [draws(inputs)])
        finite("parameters", [prior.sample_params(100, generator=seed(0))])


@pytest.mark.parametrize("name", ["normal_inverse_gamma", "normal_known_variance", "normal_inverse_wishart",
                                  "gamma_exponential", "correlated_arms", "gaussian_process"])  # fmt: skip
@pytest.mark.parametrize("power", [-150, -90, 90, 150])
def test_units_of_y_at_the_ends_of_float64(name: str, power: int) -> None:
    """A prior learned in units of 10^power says the same, and its squares still fit into float64."""
    family, scale = FAMILIES[name], 10.0**power
    kind = type(family.prior)
    tasks = family.tasks([7, 5, 8, 6, 9])
    scaled = Data(tasks.x, tasks.y * scale, tasks.mask)
    one, other = kind.initial(tasks).fit(tasks), kind.initial(scaled).fit(scaled)
    x = family.draw_x(3, seed(1))
    a, b = one.condition(tasks[0]).predict(x), other.condition(scaled[0]).predict(x)
    torch.testing.assert_close(b.mean / scale, a.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(b.variance.sqrt() / scale, a.variance.sqrt(), rtol=1e-4, atol=1e-4)
    shift = tasks.count * tasks.event_shape.numel() * math.log(scale)
    torch.testing.assert_close(other.log_evidence(scaled) + shift, one.log_evidence(tasks), rtol=1e-4, atol=1e-4)
    finite("draws", [other.sample(3, generator=seed(0))(x)])
