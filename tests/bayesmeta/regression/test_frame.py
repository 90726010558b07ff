"""Frames: maps that undo each other, constants found by span, and warnings where a place decides."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bayesmeta import Data, LinearGaussian, LinearNormalInverseGamma, MatrixNormalInverseWishart, Statistics
from bayesmeta.random import randn
from bayesmeta.regression.frame import Frame
from bayesmeta.warning_kinds import PlacementWarning
from tests.families import F64, seed

FAMILIES = [LinearGaussian, LinearNormalInverseGamma]


def with_constant(number: int, d: int = 3, tasks: int = 12, n: int = 10) -> Tensor:
    x = randn((tasks, n, d), like=F64, generator=seed(number))
    x[..., d // 2] = 1.0
    return x


def one_hot(number: int, d: int = 3, tasks: int = 12, n: int = 10) -> Tensor:
    index = torch.randint(d, (tasks, n), generator=seed(number))
    return torch.nn.functional.one_hot(index, d).double()


def simulated(x: Tensor, number: int) -> Tensor:
    weights = 1.0 + randn((len(x), 1, x.shape[-1]), like=F64, generator=seed(number + 1))
    return (x * weights).sum(-1) + 0.5 * randn(x.shape[:-1], like=F64, generator=seed(number + 2))


@given(number=st.integers(0, 10**6), design=st.sampled_from([with_constant, one_hot]), far=st.sampled_from([0.0, 1e4]))
def test_maps_undo_each_other_and_rows_are_of_order_one(number: int, design, far: float) -> None:
    x = design(number)
    x = x * torch.tensor([1e-3, 1.0, 10.0]) + torch.tensor([far, 0.0, -far])
    data = Data.of(x, simulated(x, number))
    frame = Frame.of(Statistics.of(data))
    assert frame.pivot is not None
    eye = torch.eye(3, dtype=torch.float64)
    # weights of far columns cancel by as many digits as the columns lie far
    torch.testing.assert_close(frame.from_weights @ frame.to_weights, eye, rtol=0, atol=1e-9 * max(far, 1.0))
    torch.testing.assert_close(x @ frame.constant, torch.ones(x.shape[:-1]).double(), rtol=0, atol=1e-9)
    inside = frame.rows(Statistics.of(data)).pooled()
    var = (inside.scatter / inside.count).diagonal()
    pivot = torch.arange(4) == frame.pivot
    torch.testing.assert_close(var, (~pivot).double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(inside.mean, pivot.double(), rtol=0, atol=1e-7)


@pytest.mark.filterwarnings("ignore::bayesmeta.warning_kinds.LimitWarning")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hyperprior_weight", [1.0, 0.0])
def test_one_hot_columns_have_a_constant_in_their_span(family, hyperprior_weight: float) -> None:
    x = one_hot(3)
    y = simulated(x, 3)
    fitted = []
    for place in (0.0, 1e8):
        tasks = Data.of(x, y + place)
        prior = family.initial(tasks).fit(tasks, hyperprior_weight=hyperprior_weight)
        fitted.append((prior.predict(x[0]).mean - place, prior.predict(x[0]).variance, prior.log_evidence(tasks)))
    for a, b in zip(*fitted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=3e-6)


def test_weak_priors_treat_categories_alike() -> None:
    tasks = Data.of(torch.eye(3, dtype=torch.float64).repeat(4, 2, 1), randn((4, 6), like=F64, generator=seed(0)))
    cov = torch.linalg.inv(LinearGaussian.initial(tasks).precision)
    torch.testing.assert_close(cov.diagonal(), cov[0, 0].expand(3), rtol=1e-9, atol=0)
    torch.testing.assert_close(cov[0, 1], cov[1, 2], rtol=1e-9, atol=1e-9)


def test_shared_columns_are_centred_where_only_a_shared_constant_is() -> None:
    """A weight that varies without a varying constant is another model wherever its column lies."""
    x = with_constant(5)
    frame = Frame.of(Statistics.of(Data.of(x + torch.tensor([50.0, 0.0, 50.0]), simulated(x, 5))), fixed=(1, 2))
    assert frame.centre[0] == 0.0
    assert frame.centre[2] != 0.0
    both = Frame.of(Statistics.of(Data.of(x, simulated(x, 5))), fixed=(0, 2))
    assert (both.centre[[0, 2]] != 0.0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_no_constant_and_rows_far_from_zero_warn_once(family) -> None:
    x = randn((12, 10, 1), like=F64, generator=seed(0)) + 100.0
    tasks = Data.of(x, x[..., 0] + randn((12, 10), like=F64, generator=seed(1)))
    with pytest.warns(PlacementWarning, match="column 0 of x lies 10 standard deviations") as caught:
        family.initial(tasks).fit(tasks)
    assert len([w for w in caught if w.category is PlacementWarning]) == 1


def test_float32_keeps_what_its_digits_reach_and_warns_beyond() -> None:
    x = with_constant(7, d=2)
    y = simulated(x, 7)
    expected = LinearGaussian.initial(Data.of(x, y)).fit(Data.of(x, y)).predict(x[0])
    near = Data.of((x + torch.tensor([10.0, 0.0])).float(), y.float())
    found = LinearGaussian.initial(near).fit(near).predict(near.x[0])
    torch.testing.assert_close(found.mean.double(), expected.mean, rtol=0, atol=1e-2)
    far = Data.of((x + torch.tensor([1e4, 0.0])).float(), y.float())
    with pytest.warns(PlacementWarning, match=r"column 0 of x lies .* too far for the digits of float32"):
        assert LinearGaussian.initial(far).fit(far).predict(far.x[0]).variance.isfinite().all()


def test_years_are_as_good_as_ages() -> None:
    """Growth by calendar year: the slope is that of growth by age, and no warning comes."""
    g = seed(9)
    age = torch.arange(8.0, 14.0, dtype=torch.float64).expand(20, 6)
    y = 100.0 + 6.4 * age + 5.0 * randn((20, 1), like=F64, generator=g) + randn((20, 6), like=F64, generator=g)
    slopes = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for column in (age, age + 2000.0):
            tasks = Data.of(torch.stack([torch.ones_like(age), column], -1), y)
            slopes.append(LinearGaussian.initial(tasks).fit(tasks).loc[1].item())
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-8)


def test_several_outputs_move_alone() -> None:
    x = with_constant(11, d=2)
    y = torch.stack([simulated(x, 11), simulated(x, 14)], -1)
    place = torch.tensor([1e6, -3.0], dtype=torch.float64)
    left, right = Data.of(x, y), Data.of(x, y + place)
    a, b = (MatrixNormalInverseWishart.initial(tasks).fit(tasks) for tasks in (left, right))
    torch.testing.assert_close(a.predict(x[0]).mean, b.predict(x[0]).mean - place, rtol=0, atol=1e-6)
    torch.testing.assert_close(a.log_evidence(left), b.log_evidence(right), rtol=0, atol=1e-6)
