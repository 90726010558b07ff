"""Input that is wrong, or says next to nothing: a clear error, or a finite answer within a documented limit."""

import dataclasses
import math
import re
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from bayesmeta import Data, LimitWarning
from bayesmeta.hyperparameters.vector import Hierarchical
from bayesmeta.networks import deep_kernel_fit
from bayesmeta.protocol import Evidence, Learnable
from bayesmeta.warning_kinds import PlacementWarning
from tests.families import FAMILIES, Family

REGRESSIONS = [
    "linear_gaussian",
    "linear_normal_inverse_gamma",
    "logistic_gaussian",
    "matrix_normal_inverse_wishart",
    "poisson_exposure_gaussian",
    "poisson_gaussian",
]
LEARNABLE = [name for name, family in FAMILIES.items() if isinstance(family.prior, Learnable)]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """How well a network learns does not matter here."""
    monkeypatch.setattr(deep_kernel_fit, "NUM_STEPS", 50)


def families(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("family", [FAMILIES[name] for name in names], ids=names)


def spoiled(family: Family, row: int, column: int | None, value: float) -> Data:
    """Two tasks with one row that cannot be: its y, or a column of its x."""
    tasks = family.tasks([4, 5])
    x, y = tasks.x.clone(), tasks.y.clone()
    if column is None:
        y[1, row] = value
    else:
        x[1, row, column] = value
    return Data(x, y, tasks.mask)


def refused(family: Family, data: Data, message: str) -> None:
    """By all that takes rows, with the same words, and the row by its place."""
    for take in (family.prior.condition, family.prior.log_evidence, family.prior.fit):
        with pytest.raises(ValueError, match=message) as caught:
            take(data)
        assert "task 1, row 2" in str(caught.value)


def finite(prior: Any) -> None:
    for field in dataclasses.fields(prior):
        value = getattr(prior, field.name)
        if isinstance(value, Tensor):
            assert value.isfinite().all(), field.name


def finite_answers(family: Family, tasks: Data) -> None:
    posterior = family.prior.condition(tasks)
    prediction = posterior.predict(tasks.x)
    assert prediction.mean.isfinite().all()
    assert (prediction.variance >= 0).all()
    assert prediction.variance.isfinite().all()
    if isinstance(family.prior, Evidence):
        assert family.prior.log_evidence(tasks).isfinite().all()


def fitted(family: Family, tasks: Data, **options: float) -> tuple[Any, list[str]]:
    """The learned prior, and what was said of limits."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LimitWarning)
        warnings.simplefilter("ignore", PlacementWarning)  # few rows may lie close together by chance
        prior = family.prior.fit(tasks, **options)
    return prior, [str(warning.message) for warning in caught]


# rows that a family cannot have


@families("gamma_poisson", "gamma_poisson_exposure", "poisson_gaussian", "poisson_exposure_gaussian")
@pytest.mark.parametrize("value", [-1.0, 0.5])
def test_counts_below_zero_or_not_whole(family: Family, value: float) -> None:
    refused(family, spoiled(family, 2, None, value), "whole number")


@families("beta_bernoulli", "logistic_gaussian")
@pytest.mark.parametrize("value", [-0.1, 0.5, 1.1, 2.0])
def test_probabilities_and_what_lies_outside_zero_to_one(family: Family, value: float) -> None:
    refused(family, spoiled(family, 2, None, value), "y must be 0 or 1")


@families("dirichlet_categorical")
@pytest.mark.parametrize("value", [-1.0, 0.5, 1.0])
def test_rows_that_are_no_category(family: Family, value: float) -> None:
    refused(family, spoiled(family, 2, None, value), "y must be one-hot")


@families("gamma_exponential")
def test_waiting_times_below_zero(family: Family) -> None:
    refused(family, spoiled(family, 2, None, -1.0), "waiting times y must be zero or more")


@families("gamma_poisson_exposure", "normal_known_variances")
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_exposures_and_variances_of_zero(family: Family, value: float) -> None:
    refused(family, spoiled(family, 2, -1, value), "above zero")
    with pytest.raises(ValueError, match="above zero"):
        family.prior.predict(torch.full((1, family.num_inputs), value, dtype=torch.float64))


def test_the_logarithm_of_an_exposure_of_zero() -> None:
    with pytest.raises(ValueError, match="x must be finite where mask is true; 1 row is not, it is in task 1, row 2"):
        spoiled(FAMILIES["poisson_exposure_gaussian"], 2, -1, -math.inf)


# rows that say too little


@families(*REGRESSIONS, "deep_kernel", "gaussian_process", "learned_features", "shared_configurations")
@pytest.mark.parametrize("design", ["columns of zeros", "equal columns", "equal rows"])
def test_singular_designs(family: Family, design: str) -> None:
    tasks = family.tasks([6, 8, 5, 7])
    x = tasks.x.clone()
    if design == "columns of zeros":
        x[..., 0] = 0.0
    elif design == "equal columns":
        x[..., 1] = x[..., 0]
    else:
        x[:] = x[:, :1].clone()
    tasks = Data(x, tasks.y, tasks.mask)
    finite_answers(family, tasks)
    finite(fitted(family, tasks)[0])


@families(*REGRESSIONS, "normal_inverse_wishart", "correlated_arms", "learned_features")
def test_fewer_rows_than_dimensions(family: Family) -> None:
    tasks = family.tasks([1, 2, 1, 1, 2, 1, 2, 1])
    finite_answers(family, tasks)
    finite(fitted(family, tasks)[0])


@families(*LEARNABLE)
def test_one_task(family: Family) -> None:
    for lengths in ([5], [5, 0]):
        with pytest.raises(ValueError, match="at least two tasks with rows"):
            family.prior.fit(family.tasks(lengths))


@families(*LEARNABLE)
def test_no_rows(family: Family) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        family.prior.fit(family.tasks([0, 0, 0]))


@families(*LEARNABLE)
def test_all_tasks_equal(family: Family) -> None:
    tasks = family.rows(24).expand((4,))
    finite(fitted(family, tasks)[0])


@families(*(name for name in LEARNABLE if isinstance(FAMILIES[name].prior, Hierarchical)))
def test_a_search_that_ends_at_its_limit_says_which_and_what_it_means(family: Family) -> None:
    tasks = family.rows(12).expand((6,))
    prior, said = fitted(family, tasks, hyperprior_weight=0.0)
    finite(prior)
    names = family.prior.hyperparameters(tasks).names
    assert said
    for message in said:
        name, meaning = re.fullmatch(r"(\S+) ended at its limit, [-\d.e+]+: (.+)", message).groups()
        assert name in names
        assert len(meaning) > 20


@families("dirichlet_categorical")
def test_a_category_that_no_task_has_keeps_a_share(family: Family) -> None:
    tasks = family.tasks([20, 20, 20])
    kept = tasks.y[..., 2] == 0
    prior, said = fitted(family, Data(tasks.x, tasks.y, kept))
    assert not said
    assert 0.0 < prior.predict().mean[0, 2] < 0.1
    assert prior.log_evidence(tasks).isfinite().all()


# hyperparameters that cannot be


@families("normal_inverse_wishart", "matrix_normal_inverse_wishart")
@pytest.mark.parametrize("below", [0.0, 1.0, 100.0])
def test_df_at_or_below_d_less_one(family: Family, below: float) -> None:
    d = family.prior.scatter.shape[-1]
    with pytest.raises(
        ValueError, match=rf"df - {d - 1}, its excess .* must be finite and above zero; got {0.0 - below:g}"
    ):
        dataclasses.replace(family.prior, df=torch.tensor(d - 1 - below, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("normal_inverse_wishart", "scatter"),
        ("matrix_normal_inverse_wishart", "scatter"),
        *((name, "precision") for name in REGRESSIONS),
    ],
)
def test_matrices_that_are_not_positive_definite_are_named_with_their_task(name: str, field: str) -> None:
    batch = FAMILIES[name].prior.condition(FAMILIES[name].tasks([2, 3, 1]))
    matrix = getattr(batch, field).clone()
    matrix[1, 0, 0] = -1.0
    with pytest.raises(ValueError, match=f"{field} of task 1 is not positive definite .least eigenvalue -"):
        dataclasses.replace(batch, **{field: matrix})


def _positive_fields() -> list[Any]:
    names = {"successes", "failures", "concentration", "shape", "inverse_scale", "var", "noise_var", "rate"}
    names |= {"pseudo_count", "scale"}
    found = []
    for family_name, family in FAMILIES.items():
        for field in dataclasses.fields(family.prior):
            if field.name in names and isinstance(getattr(family.prior, field.name), Tensor):
                found.append(pytest.param(family, field.name, id=f"{family_name} {field.name}"))
    return found


@pytest.mark.parametrize(("family", "field"), _positive_fields())
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_hyperparameters_that_must_be_above_zero(family: Family, field: str, value: float) -> None:
    wrong = torch.full_like(getattr(family.prior, field), value)
    with pytest.raises(ValueError, match=f"^{field} must be finite and above zero; got"):
        dataclasses.replace(family.prior, **{field: wrong})
