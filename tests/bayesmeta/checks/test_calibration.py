"""Simulation-based calibration: it passes right posteriors, and fails those that are wrong."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from bayesmeta import Data, NormalKnownVariance
from bayesmeta.checks.calibration import (
    _binomial_bounds,
    _probability_inside,
    ecdf_bands,
    pit_ecdf,
    sbc_ecdf,
    sbc_ranks,
)
from bayesmeta.protocol import Functions
from bayesmeta.random import rand, randn
from tests.families import F64, FAMILIES, Family, seed

NUM_TASKS, NUM_DRAWS, NUM_ROWS = 1000, 99, 5


# of the other families each update costs too much for a thousand tasks
CLOSED_FORM = ["beta_bernoulli", "linear_gaussian", "normal_inverse_gamma", "normal_inverse_wishart"]
closed_form = pytest.mark.parametrize("family", [FAMILIES[name] for name in CLOSED_FORM], ids=CLOSED_FORM)


def uniform_pvalue(ranks: Tensor) -> float:
    assert ranks.min() >= 0
    assert ranks.max() <= NUM_DRAWS
    return scipy.stats.chisquare(np.bincount(ranks.numpy() // 10, minlength=10)).pvalue


def spread(functions: Functions, x: Tensor) -> Tensor:
    """The noise of one row: where a task has its own, this is calibrated too."""
    return functions.predict(x).variance


@closed_form
def test_every_family_is_calibrated(family: Family) -> None:
    x = family.draw_x(NUM_ROWS, seed(1))
    ranks = sbc_ranks(family.prior, x, num_tasks=NUM_TASKS, num_draws=NUM_DRAWS, generator=seed(0))
    assert ranks.shape == (NUM_TASKS, NUM_ROWS, *family.prior.event_shape)
    for each in ranks[:, 0].reshape(NUM_TASKS, -1).T:
        assert uniform_pvalue(each) > 1e-6


@pytest.mark.parametrize("name", ["normal_inverse_gamma", "normal_inverse_wishart"])
def test_noise_is_calibrated(name: str) -> None:
    x = FAMILIES[name].draw_x(NUM_ROWS, seed(1))
    ranks = sbc_ranks(
        FAMILIES[name].prior, x, num_tasks=NUM_TASKS, num_draws=NUM_DRAWS, quantity=spread, generator=seed(0)
    )
    for each in ranks[:, 0].reshape(NUM_TASKS, -1).T:
        assert uniform_pvalue(each) > 1e-6


class Overconfident:
    """Counts every row twice."""

    def __init__(self, prior: Any) -> None:
        self.prior = prior

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prior, name)

    def condition(self, data: Data) -> Any:
        return self.prior.condition(data).condition(data)


@closed_form
def test_an_overconfident_posterior_fails(family: Family) -> None:
    x = family.draw_x(NUM_ROWS, seed(1))
    num_tasks = 4 * NUM_TASKS  # of fewer, some look calibrated
    ranks = sbc_ranks(Overconfident(family.prior), x, num_tasks=num_tasks, num_draws=NUM_DRAWS, generator=seed(0))
    assert uniform_pvalue(ranks.reshape(num_tasks, -1)[:, 0]) < 1e-6


def test_a_batch_of_priors_is_refused() -> None:
    prior = FAMILIES["normal_inverse_gamma"].prior
    batch = dataclasses.replace(prior, loc=torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"one prior; got batch_shape \(3,\)"):
        sbc_ranks(batch, F64.new_zeros(2, 0), num_tasks=2, num_draws=2)


# bands


@pytest.mark.parametrize(("num_ranks", "num_draws"), [(1, 1), (3, 2), (4, 3), (6, 3), (2, 9)])
def test_the_probability_inside_matches_enumeration(num_ranks: int, num_draws: int) -> None:
    all_ranks = np.array(list(itertools.product(range(num_draws + 1), repeat=num_ranks)))
    counts = np.stack([(all_ranks <= rank).sum(1) for rank in range(num_draws)], 1)
    for error in (0.01, 0.1, 0.3, 0.9):
        lower, upper = _binomial_bounds(num_ranks, num_draws, error)
        expected = ((counts >= lower) & (counts <= upper)).all(1).mean()
        assert _probability_inside(num_ranks, num_draws, lower, upper) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("num_ranks", "num_draws"), [(200, 49), (20, 199)])
def test_bands_match_arviz(num_ranks: int, num_draws: int) -> None:
    from arviz.stats.ecdf_utils import ecdf_confidence_band

    share = np.arange(1, num_draws + 1) / (num_draws + 1)
    expected = ecdf_confidence_band(num_ranks, share, share, 0.9, method="optimized")
    for ours, theirs in zip(ecdf_bands(num_ranks, num_draws, 0.9), expected, strict=True):
        # their search for the pointwise level ends a little earlier: a count may differ by one
        assert np.abs(ours[:-1].numpy() - theirs).max() <= 1.0 / num_ranks + 1e-12
        assert ours[-1] == 1.0


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_uniform_ranks_stay_inside_as_often_as_they_say(level: float) -> None:
    repeats, num_ranks = 4000, 200
    ranks = torch.randint(0, NUM_DRAWS + 1, (num_ranks, repeats), generator=seed(0))
    check = sbc_ecdf(ranks, NUM_DRAWS, level=level)
    inside = check.inside.double().mean().item()
    assert abs(inside - level) < 5 * (level * (1 - level) / repeats) ** 0.5
    assert check.ecdf.shape == (repeats, NUM_DRAWS + 1)


class Wrong:
    """A posterior whose standard deviation is multiplied, and its mean moved by a share of it."""

    def __init__(self, prior: Any, factor: float, shift: float) -> None:
        self.prior, self.factor, self.shift = prior, factor, shift

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prior, name)

    def condition(self, data: Data) -> Any:
        posterior = self.prior.condition(data)
        loc = posterior.loc + self.shift * posterior.var.sqrt()
        return dataclasses.replace(posterior, loc=loc, var=posterior.var * self.factor**2)


@pytest.mark.parametrize(
    ("factor", "shift", "signs"),
    [(1.0, 0.0, (0, 0)), (1 / 1.3, 0.0, (1, -1)), (1.3, 0.0, (-1, 1)), (1.0, 0.2, (1, 1)), (1.0, -0.2, (-1, -1))],
    ids=["right", "too narrow", "too wide", "too high", "too low"],
)
def test_bands_tell_how_a_posterior_is_wrong(factor: float, shift: float, signs: tuple[int, int]) -> None:
    prior = NormalKnownVariance(F64, F64 + 2.0, F64 + 1.0)
    wrong = Wrong(prior, factor, shift)
    ranks = sbc_ranks(wrong, F64.new_zeros(3, 0), num_tasks=8000, num_draws=NUM_DRAWS, generator=seed(0))[:, 0]
    check = sbc_ecdf(ranks, NUM_DRAWS, level=1.0 - 1e-7)  # a right posterior is outside one time in ten million
    assert bool(check.inside) == (factor == 1.0 and shift == 0.0)
    assert (check.excess > 0).item() == (not check.inside)
    outside = (check.ecdf > check.upper).int() - (check.ecdf < check.lower).int()
    halves = outside.split(len(outside) // 2)
    assert tuple(int(half.sum().sign()) for half in halves) == signs
    assert ("0 of 1 outside" in str(check)) == bool(check.inside)


def test_the_excess_is_the_distance_beyond_the_band() -> None:
    check = sbc_ecdf(torch.zeros(100, dtype=torch.long), 9)
    assert check.excess == 1.0 - check.upper[0]
    assert torch.equal(check.uniform, torch.arange(1, 11) / torch.tensor(10.0, dtype=torch.float64))


def alike(num_tasks: int, num_rows: int, correlation: float, repeats: int) -> Tensor:
    """Uniform transforms whose normal scores are correlated within tasks, `(repeats, num_tasks, num_rows)`."""
    shared = randn((repeats, num_tasks, 1), like=F64, generator=seed(0))
    own = randn((repeats, num_tasks, num_rows), like=F64, generator=seed(1))
    return torch.special.ndtr(correlation**0.5 * shared + (1.0 - correlation) ** 0.5 * own)


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_transforms_that_are_alike_within_tasks_stay_inside(correlation: float) -> None:
    checks = [pit_ecdf(pit, level=0.9) for pit in alike(40, 5, correlation, 150)]
    inside = torch.tensor([bool(check.inside) for check in checks]).double().mean().item()
    assert abs(inside - 0.9) < 5 * (0.9 * 0.1 / len(checks)) ** 0.5
    # one row of the task says as much as five where they are all alike
    num_values = torch.tensor([float(check.num_values) for check in checks]).mean()
    assert (num_values > 150) == (correlation == 0.0)
    assert (num_values < 70) == (correlation == 0.9)


def test_transforms_of_narrow_predictions_go_outside() -> None:
    pit = alike(200, 5, 0.2, 1)[0]
    wide = torch.special.ndtr(2.5 * torch.special.ndtri(pit))
    check = pit_ecdf(wide)
    assert check.excess > 0
    assert check.ecdf[9] > check.upper[9]
    assert check.ecdf[89] < check.lower[89]


def test_every_task_counts_once_in_the_ecdf_of_transforms() -> None:
    pit = torch.tensor([[0.105, torch.nan, torch.nan], [0.305, 0.505, 0.705], [torch.nan] * 3], dtype=torch.float64)
    check = pit_ecdf(pit)
    assert check.ecdf[[9, 10, 30, 50, 70, 99]].tolist() == pytest.approx([0.0, 1 / 2, 4 / 6, 5 / 6, 1.0, 1.0])
    assert 2 <= check.num_values <= 4
    one_row_each = rand((30,), like=F64, generator=seed(0))
    assert pit_ecdf(one_row_each).num_values == 30
    assert torch.equal(pit_ecdf(one_row_each).lower, ecdf_bands(30, 99)[0])
    with pytest.raises(ValueError, match=r"task with a row; got shape \(2, 1\)"):
        pit_ecdf(torch.full((2, 1), torch.nan))


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, float("nan")])
def test_band_levels_lie_between_zero_and_one(level: float) -> None:
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        ecdf_bands(10, 9, level)


def test_ranks_must_be_ranks() -> None:
    with pytest.raises(ValueError, match=r"from 0 to num_draws = 9; got values from 0 to 10"):
        sbc_ecdf(torch.tensor([0, 10]), 9)
    with pytest.raises(ValueError, match=r"whole numbers from 0 to num_draws = 9; got values from 0.5 to 1"):
        sbc_ecdf(torch.tensor([0.5, 1.0]), 9)
    with pytest.raises(ValueError, match=r"at least one; got shape \(0,\)"):
        sbc_ecdf(torch.zeros(0), 9)
    with pytest.raises(ValueError, match="at least one rank and one draw; got 0 and 9"):
        ecdf_bands(0, 9)
