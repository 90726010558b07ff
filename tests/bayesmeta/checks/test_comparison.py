"""Leaving tasks out by importance: held to quadrature and to refits, and able to tell where it cannot be trusted."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bayesmeta import BetaBernoulli, Data, LinearGaussian, NormalKnownVariance
from bayesmeta.checks.comparison import compare, leave_one_task_out, psis_leave_one_task_out
from bayesmeta.random import rand, randn
from tests.families import F64, FAMILIES, seed

NEVER, ALWAYS = math.inf, -math.inf


def rates(lengths: list[int]) -> Data:
    """Tasks whose rates are spread evenly, and ragged."""
    truths = torch.linspace(0.1, 0.6, len(lengths), dtype=torch.float64)
    draws = [(rand((n,), like=F64, generator=seed(i)) < truths[i]).double() for i, n in enumerate(lengths)]
    return Data.pad([(None, y) for y in draws])


def effects(num_tasks: int) -> Data:
    means = randn((num_tasks, 1), like=F64, generator=seed(1))
    return Data.of(None, means + 0.7 * randn((num_tasks, 4), like=F64, generator=seed(2)))


def lines(num_tasks: int) -> Data:
    x, weights = (randn((num_tasks, n, 2), like=F64, generator=seed(n)) for n in (6, 1))
    return Data.of(x, (x * weights).sum(-1) + 0.5 * randn((num_tasks, 6), like=F64, generator=seed(3)))


def by_quadrature(prior: Any, tasks: Data) -> Tensor:
    """log p(rows of a task | all others) by a fine grid over both hyperparameters, the same hyperprior throughout."""
    unknown = prior.hyperparameters(tasks)
    axes = [torch.linspace(s - 9.0, s + 9.0, 151, dtype=torch.float64) for s in unknown.start]
    grid = torch.cartesian_prod(*axes)
    evidence, log_hyperprior = unknown.log_evidence(grid), unknown.log_hyperprior(grid)
    total = evidence.sum(-1) + log_hyperprior
    return total.logsumexp(0) - (total[:, None] - evidence).logsumexp(0)


@pytest.mark.parametrize("number", range(3))
def test_leaving_out_by_importance_matches_quadrature(number: int) -> None:
    tasks = rates([10, 4, 0, 25, 12, 3, 8, 18])
    prior = BetaBernoulli(F64 + 1.0, F64 + 1.0)
    left_out = psis_leave_one_task_out(prior, tasks, num_draws=4000, refit_above=NEVER, generator=seed(number))
    assert not left_out.refitted.any()
    error = (left_out.log_evidence - by_quadrature(prior, tasks)).abs()
    assert (error <= 5 * left_out.error + 1e-12).all()
    assert left_out.error[tasks.count > 0].median() < 0.015, "0.007 in the mean over data sets; 0.0147 is five sd above"
    assert left_out.log_evidence[2] == pytest.approx(0.0, abs=1e-12)  # no rows, nothing to be surprised by


@pytest.mark.parametrize(
    ("prior", "tasks"),
    [
        (BetaBernoulli(F64 + 1.0, F64 + 1.0), rates([10, 4, 25, 12, 3, 8, 18])),
        (LinearGaussian.initial(lines(16)), lines(16)),
        (NormalKnownVariance.initial(effects(9)), effects(9)),
    ],
    ids=lambda p: type(p).__name__,
)
def test_leaving_out_by_importance_matches_refits(prior: Any, tasks: Data) -> None:
    fast = psis_leave_one_task_out(prior, tasks, num_draws=1000, refit_above=NEVER, generator=seed(0))
    exact = psis_leave_one_task_out(prior, tasks, num_draws=1000, refit_above=ALWAYS, generator=seed(1))
    assert exact.refitted.all()
    trusted = fast.pareto_k < 0.7
    assert trusted.double().mean() >= 0.5  # of lines, the median of k is 0.29 with an sd of 0.07 over data sets
    difference = (fast.log_evidence - exact.log_evidence)[trusted].abs()
    assert (difference < 5 * (fast.error.square() + exact.error.square()).sqrt()[trusted]).all()


def test_a_task_that_moves_the_prior_is_refitted_without_it() -> None:
    tasks = effects(12)
    y = tasks.y.clone()
    y[7] += 30.0
    tasks = Data.of(None, y)
    prior = NormalKnownVariance(F64, F64 + 1.0, F64 + 0.5)
    left_out = psis_leave_one_task_out(prior, tasks, num_draws=1000, generator=seed(0))
    assert left_out.refitted.nonzero().tolist() == [[7]]
    assert left_out.pareto_k.argmax() == 7
    # as far out as for a prior that never saw it, where importance alone would think it half expected
    alone = prior.fit(Data.of(None, torch.cat([y[:7], y[8:]]))).log_evidence(Data.of(None, y[7:8]))[0]
    trusting = psis_leave_one_task_out(prior, tasks, num_draws=1000, refit_above=NEVER, generator=seed(0))
    assert alone < left_out.log_evidence[7] < trusting.log_evidence[7] - 1.0


def test_what_it_returns_compares() -> None:
    tasks = effects(12)
    prior = NormalKnownVariance.initial(tasks)
    integrated = psis_leave_one_task_out(prior, tasks, generator=seed(0)).log_evidence
    best, worse = compare({"integrated": integrated, "most probable": leave_one_task_out(prior, tasks)})
    assert {best.name, worse.name} == {"integrated", "most probable"}
    # with a dozen tasks the two agree about most, 0.07 with an sd of 0.014 over data sets; of one far out they may not
    assert worse.difference.by_task.median().abs() < 0.15


def test_what_cannot_be_left_out_is_refused() -> None:
    with pytest.raises(ValueError, match=r"three tasks or more on one axis; got tasks of shape \(2,\)"):
        psis_leave_one_task_out(NormalKnownVariance.initial(effects(2)), effects(2))
    with pytest.raises(ValueError, match="needs a prior with hyperparameters; got GaussianProcess"):
        psis_leave_one_task_out(FAMILIES["gaussian_process"].prior, effects(3))


def test_a_comparison_prints_in_one_line() -> None:
    weak, learned = compare({"learned": torch.tensor([1.0, 3.0]), "weak": torch.tensor([0.0, 2.0])})[::-1]
    assert str(learned) == "learned: 2 +- 1, from the best 0 +- 0"
    assert str(weak) == "weak: 1 +- 1, from the best -1 +- 0"
