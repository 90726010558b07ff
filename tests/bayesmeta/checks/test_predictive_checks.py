"""Scores, coverage, p-values and comparisons: right for right priors, and able to fail wrong ones."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor

from bayesmeta import BetaBernoulli, Data, GammaPoisson, NormalInverseGamma, NormalKnownVariance
from bayesmeta.checks.comparison import code_length, compare, leave_one_task_out
from bayesmeta.checks.predictive_checks import (
    TaskMean,
    coverage,
    crps,
    log_score,
    prior_predictive_p_values,
    randomised_pit,
)
from bayesmeta.random import seeded
from tests.families import F64, FAMILIES, Family, seed

every = pytest.mark.parametrize("family", list(FAMILIES.values()), ids=list(FAMILIES))
BY_ROWS = "evidence_is_the_sum_of_one_step_predictions"
EXACT = {
    name: f
    for name, f in FAMILIES.items()
    if f.evidence_rtol is None and "mixture" not in name and BY_ROWS not in f.exempt
}
exact = pytest.mark.parametrize("family", list(EXACT.values()), ids=list(EXACT))
SCALAR = [
    BetaBernoulli(F64 + 1.5, F64 + 2.5),
    GammaPoisson(F64 + 3.5, F64 + 1.5),
    NormalInverseGamma(F64 - 0.5, F64 + 0.7, F64 + 4.0, F64 + 3.0),
    NormalKnownVariance(F64, F64 + 2.0, F64 + 1.0),
]
scalar = pytest.mark.parametrize("prior", SCALAR, ids=lambda p: type(p).__name__)


def simulated(prior: Any, tasks: int, n: int) -> Data:
    x = torch.zeros(tasks, n, 0, dtype=torch.float64)
    functions = prior.sample(tasks, generator=seed(1))
    with seeded(seed(2)):
        return Data.of(x, functions.predict(x[0]).sample())


@every
def test_every_family_can_be_checked(family: Family) -> None:
    """Ragged tasks, one of them empty: nothing but protocols is asked for."""
    tasks, held_out = family.tasks([3, 0, 2]), family.tasks([2, 3, 0], 10)
    posterior = family.prior.condition(tasks)
    for mean in (
        log_score(posterior, held_out),
        crps(posterior, held_out, num_draws=20, generator=seed(0)),
        coverage(posterior, held_out, num_draws=20, generator=seed(0)),
    ):
        assert mean.by_task.shape == (3,)
        assert mean.by_task.isnan().tolist() == [False, False, True]
        assert math.isfinite(mean.value)
        assert math.isfinite(mean.standard_error)
    p = prior_predictive_p_values(family.prior, tasks, num_draws=9, generator=seed(0))
    assert p.shape == (3,)
    assert ((p > 0) & (p < 1)).all()
    lengths = code_length(family.prior, tasks)
    assert lengths.shape == (3, 3)
    assert lengths[1].tolist() == [0.0, 0.0, 0.0]


@exact
def test_code_length_is_minus_the_evidence(family: Family) -> None:
    tasks = family.tasks([4, 1, 0, 3])
    evidence = family.prior.log_evidence(tasks)
    torch.testing.assert_close(code_length(family.prior, tasks)[:, -1], -evidence, rtol=1e-8, atol=1e-9)


def test_log_score_is_the_mean_density_of_each_task() -> None:
    prior = SCALAR[3]
    y = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    held_out = Data.pad([(torch.zeros(2, 0), y[:2]), (torch.zeros(1, 0), y[2:])])
    expected = scipy.stats.norm(0, math.sqrt(3.0)).logpdf(y)
    score = log_score(prior.condition(Data.of(None, torch.zeros(2, 0).double())), held_out)
    np.testing.assert_allclose(score.by_task, [expected[:2].mean(), expected[2]], rtol=1e-12)
    assert score.standard_error == pytest.approx(np.std(score.by_task.numpy(), ddof=1) / math.sqrt(2), rel=1e-12)


@pytest.mark.parametrize("y", [-3.0, 0.0, 0.7])
def test_crps_matches_quadrature(y: float) -> None:
    prior = NormalInverseGamma(F64 - 0.5, F64 + 0.7, F64 + 4.0, F64 + 3.0)
    scale = float(prior.predict().scale)
    t = scipy.stats.t(float(prior.predict().df), -0.5, scale)
    exact = (
        scipy.integrate.quad(lambda z: t.cdf(z) ** 2, -np.inf, y)[0]
        + scipy.integrate.quad(lambda z: t.sf(z) ** 2, y, np.inf)[0]
    )
    held_out = Data.of(None, torch.full((400, 1), y).double())
    score = crps(prior, held_out, num_draws=500, generator=seed(0))
    # all tasks hold the same row and draws differ, so the spread between tasks is Monte Carlo error alone
    assert abs(score.value - exact) < 5 * score.standard_error


@scalar
def test_pit_is_uniform_and_intervals_cover(prior: Any) -> None:
    tasks = simulated(prior, 2000, 4)
    past, held_out = Data.of(None, tasks.y[:, :3]), Data.of(None, tasks.y[:, 3:])
    posterior = prior.condition(past)
    pit = randomised_pit(posterior, held_out, num_draws=199, generator=seed(3))
    assert scipy.stats.kstest(pit.flatten().numpy(), "uniform").pvalue > 1e-6
    for level in (0.5, 0.9):
        covered = coverage(posterior, held_out, level=level, num_draws=199, generator=seed(4))
        assert abs(covered.value - level) < 5 * covered.standard_error


def test_coverage_and_pit_fail_predictions_that_are_too_sure() -> None:
    prior = SCALAR[3]
    tasks = simulated(prior, 2000, 1)
    sure = replace(prior, var=F64 + 0.2)
    covered = coverage(sure, tasks, num_draws=199, generator=seed(4))
    assert covered.value < 0.9 - 10 * covered.standard_error
    assert log_score(sure, tasks).value < log_score(prior, tasks).value


@scalar
def test_p_values_are_uniform_for_tasks_of_the_prior(prior: Any) -> None:
    tasks = simulated(prior, 1000, 5)
    p = prior_predictive_p_values(prior, tasks, num_draws=99, generator=seed(5))
    assert scipy.stats.kstest(p.numpy(), "uniform").pvalue > 1e-6


def test_p_values_find_a_task_unlike_the_others() -> None:
    tasks = simulated(SCALAR[3], 20, 5)
    y = tasks.y.clone()
    y[7] += 20.0
    p = prior_predictive_p_values(SCALAR[3], Data.of(None, y), num_draws=999, generator=seed(5))
    assert p[7] <= 0.002
    assert 0.17 < p[torch.arange(20) != 7].mean() < 0.83  # nineteen uniform numbers


def test_p_values_take_any_statistic() -> None:
    def spread(data: Data) -> Tensor:
        return data.y.std(-1)

    tasks = Data.of(None, torch.tensor([[-9.0, 9.0, 9.0, -9.0, 9.0], [0.5, 0.1, -1.0, 1.0, 0.4]]).double())
    p = prior_predictive_p_values(SCALAR[3], tasks, statistic=spread, num_draws=999, generator=seed(0))
    assert p[0] <= 0.002
    assert p[1] > 0.05


def test_leaving_out_is_a_refit_and_never_sees_the_task() -> None:
    tasks = simulated(SCALAR[3], 6, 4)
    prior = NormalKnownVariance(F64, F64 + 1.0, F64 + 1.0)
    scores = leave_one_task_out(prior, tasks)
    others = Data.of(None, tasks.y[1:])
    assert scores[0] == prior.fit(others).log_evidence(Data.of(None, tasks.y[:1]))[0]
    y = tasks.y.clone()
    y[0] += 500.0
    moved = leave_one_task_out(prior, Data.of(None, y))
    assert moved[0] < scores[0] - 100.0  # a prior that had seen it would have grown towards it


def test_the_family_that_drew_the_tasks_compares_best() -> None:
    tasks = simulated(NormalInverseGamma(F64, F64 + 0.5, F64 + 1.0, F64 + 1.0), 25, 10)
    scores = {
        "one noise for all": leave_one_task_out(NormalKnownVariance.initial(tasks), tasks),
        "own noise": leave_one_task_out(NormalInverseGamma.initial(tasks), tasks),
    }
    best, worse = compare(scores)
    assert best.name == "own noise"
    assert best.difference.value == 0.0
    assert worse.difference.value == pytest.approx(worse.score.value - best.score.value, rel=1e-10)
    assert worse.difference.value < -worse.difference.standard_error


def test_a_mean_over_one_task_has_no_standard_error() -> None:
    assert math.isnan(TaskMean(torch.tensor([1.0, math.nan])).standard_error)
    assert str(TaskMean(torch.tensor([1.0, 3.0]))) == "2 +- 1"


# bad input


def test_posteriors_of_other_tasks_are_refused() -> None:
    tasks = simulated(SCALAR[0], 3, 2)
    with pytest.raises(ValueError, match=r"tasks whose rows are held out, \(3,\); got batch_shape \(2,\)"):
        log_score(SCALAR[0].condition(simulated(SCALAR[0], 2, 2)), tasks)


@pytest.mark.parametrize("level", [0.0, 1.0, 90.0, math.nan])
def test_levels_lie_between_zero_and_one(level: float) -> None:
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        coverage(SCALAR[0], simulated(SCALAR[0], 2, 2), level=level)


def test_crps_needs_two_draws() -> None:
    with pytest.raises(ValueError, match="two or more; got num_draws = 1"):
        crps(SCALAR[0], simulated(SCALAR[0], 2, 2), num_draws=1)


def test_p_values_are_about_one_prior() -> None:
    tasks = simulated(SCALAR[0], 2, 2)
    with pytest.raises(ValueError, match=r"one prior; got batch_shape \(2,\)"):
        prior_predictive_p_values(SCALAR[0].condition(tasks), tasks)


def test_leaving_out_takes_three_tasks() -> None:
    with pytest.raises(ValueError, match=r"three tasks or more on one axis; got tasks of shape \(2,\)"):
        leave_one_task_out(SCALAR[0], simulated(SCALAR[0], 2, 2))


def test_scores_of_other_tasks_do_not_compare() -> None:
    with pytest.raises(ValueError, match="same tasks for every prior"):
        compare({"a": torch.zeros(2), "b": torch.zeros(3)})
    with pytest.raises(ValueError, match="same tasks for every prior"):
        compare({})
