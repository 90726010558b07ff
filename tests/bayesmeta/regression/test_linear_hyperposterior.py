"""The Gaussian hyperposterior against one big normal over the shared mean and all tasks."""

import pytest
import torch

import bayesmeta as bm
from bayesmeta import Data, Statistics
from bayesmeta.random import randn
from bayesmeta.regression.linear_hyperposterior import LinearHyperposterior
from tests.families import F64, _spd, seed

D = 3
PRIOR = bm.LinearGaussian(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), _spd(D, 1), F64 + 0.3)
COV = _spd(D, 2)


def rows(n: int, number: int) -> Data:
    x = randn((n, D), like=F64, generator=seed(number))
    return Data.of(x, randn((n,), like=F64, generator=seed(number + 1)))


def dense(tasks: list[Data]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of the shared mean given y of all tasks, by conditioning one joint normal."""
    x = torch.cat([t.x for t in tasks])
    y = torch.cat([t.y for t in tasks])
    between = torch.linalg.inv(PRIOR.precision)
    cov = x @ COV @ x.mT + torch.block_diag(*(t.x @ between @ t.x.mT for t in tasks))
    cov = cov + PRIOR.noise_var * torch.eye(len(y), dtype=torch.float64)
    gain = torch.linalg.solve(cov, x @ COV).mT
    return PRIOR.loc + gain @ (y - x @ PRIOR.loc), COV - gain @ x @ COV


# one row, so a singular Gram matrix, and more
TASKS = [rows(1, 10), rows(2, 20), rows(9, 30)]


def test_updates_agree_with_one_joint_normal() -> None:
    hyper = LinearHyperposterior(PRIOR, COV)
    for part in (1, None):  # every task again with all of its rows: it replaces
        for name, task in enumerate(TASKS):
            hyper.update(name, task.rows(slice(part)))
    loc, cov = dense(TASKS)
    torch.testing.assert_close(hyper.loc, loc, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(hyper.cov, cov, rtol=1e-10, atol=1e-10)
    same = LinearHyperposterior(PRIOR, COV)
    for name, task in enumerate(TASKS):
        same.update(name, Statistics.of(task))
    torch.testing.assert_close(same.loc, hyper.loc, rtol=1e-12, atol=1e-12)


def test_the_next_task_is_predicted_with_the_shared_mean_integrated_out() -> None:
    hyper = LinearHyperposterior(PRIOR, COV)
    hyper.update("a", TASKS[2])
    marginal = hyper.marginal()
    loc, cov = dense(TASKS[2:])
    torch.testing.assert_close(marginal.loc, loc, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.linalg.inv(marginal.precision), cov + torch.linalg.inv(PRIOR.precision))
    draws = hyper.sample(20_000, generator=seed(0))
    assert draws.batch_shape == (20_000,)
    error = draws.loc.std(0) / 20_000**0.5
    assert ((draws.loc.mean(0) - loc).abs() < 5 * error).all()
    torch.testing.assert_close(draws.loc.mT.cov(), cov, rtol=0.1, atol=0.02)


def test_a_known_shared_mean_is_not_moved() -> None:
    """Where the shared mean is known, tasks teach nothing of it."""
    sure = LinearHyperposterior(PRIOR, 1e-10 * COV)
    sure.update("a", TASKS[2])
    torch.testing.assert_close(sure.loc, PRIOR.loc, rtol=1e-6, atol=1e-6)


def test_bad_input() -> None:
    hyper = LinearHyperposterior(PRIOR, COV)
    with pytest.raises(ValueError, match="statistics must be of one task"):
        hyper.update("a", Data.of(torch.zeros(2, 4, D, dtype=torch.float64), torch.zeros(2, 4, dtype=torch.float64)))
    with pytest.raises(ValueError, match="x must have 3 columns; got 2"):
        hyper.update("a", Data.of(torch.zeros(4, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)))
    with pytest.raises(ValueError, match="cov is not positive definite"):
        LinearHyperposterior(PRIOR, -COV)
    with pytest.raises(ValueError, match="task_prior must have no batch"):
        LinearHyperposterior(PRIOR.condition(Data.of(torch.zeros(2, 1, D), torch.zeros(2, 1))), COV)
