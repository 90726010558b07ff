"""How good are predictions of rows that were held out? Log score, CRPS, coverage, and surprise task by task.

Rows of one task are not independent of each other, so every standard error here is clustered by task.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.doors import counted, require_rows
from bayesmeta.protocol import Evidence, Posterior, Predictive
from bayesmeta.random import rand, seeded

__all__ = ["TaskMean", "coverage", "crps", "filled", "log_score", "prior_predictive_p_values", "randomised_pit"]


@dataclass(frozen=True)
class TaskMean:
    """A mean over tasks, each counted once however many rows it has.

    Args:
        by_task: one number per task, shape `(*batch,)`; NaN for tasks without rows, which are left out.
    """

    by_task: Tensor

    @property
    def value(self) -> float:
        return float(self.by_task.nanmean())

    @property
    def standard_error(self) -> float:
        """Standard error of the value, from the spread between tasks; NaN with fewer than two tasks."""
        real = self.by_task[~self.by_task.isnan()]
        return float(real.std() / math.sqrt(len(real))) if len(real) > 1 else math.nan

    def __str__(self) -> str:
        return f"{self.value:.4g} +- {self.standard_error:.2g}"


def log_score(posterior: Predictive, held_out: Data) -> TaskMean:
    """Mean log predictive density of the held-out rows of each task, in nats per row; greater is better.

    Args:
        posterior: with the batch_shape of `held_out`, or none.

    Raises:
        ValueError: the tasks of `posterior` are not those of `held_out`.
    """
    _require_same_tasks(posterior, held_out)
    held_out = filled(held_out)
    return _by_task(posterior.predict(held_out.x).log_prob(held_out.y), held_out.mask)


@counted(num_draws=1)
def crps(
    posterior: Predictive, held_out: Data, *, num_draws: int = 1000, generator: Generator | None = None
) -> TaskMean:
    r"""Continuous ranked probability score $E|Y - y| - \frac12 E|Y - Y'|$ of each task, in units of y; less is better.

    Estimated without bias from draws Y of the prediction; outputs of vectors are averaged.

    Raises:
        ValueError: fewer than two draws, or the tasks of `posterior` are not those of `held_out`.

    Source: Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation (2007), section 4.2.
    """
    if num_draws < 2:
        raise ValueError(f"crps compares draws with each other and needs two or more; got num_draws = {num_draws}")
    draws = _draws(posterior, held_out, num_draws, generator).sort(0).values
    # sum over pairs |Y - Y'| = 2 sum_i (2 i + 1 - num_draws) Y_(i), with i from zero
    order = 2.0 * torch.arange(num_draws, dtype=draws.dtype, device=draws.device) + 1.0 - num_draws
    between = torch.einsum("s,s...->...", order, draws) / (num_draws * (num_draws - 1))
    score = (draws - held_out.y.to(draws)).abs().mean(0) - between
    return _by_task(score.flatten(held_out.mask.ndim).mean(-1) if held_out.event_shape else score, held_out.mask)


@counted(num_draws=1)
def randomised_pit(
    posterior: Predictive, held_out: Data, *, num_draws: int = 999, generator: Generator | None = None
) -> Tensor:
    """Where each held-out y falls in its prediction: uniform on (0, 1) if the prediction is right, discrete or not.

    The rank of y among `num_draws` draws, ties broken at random and jittered to fill the interval.

    Returns:
        `(*batch, n, *event)`; NaN in padding.

    Source: Czado, Gneiting and Held, Predictive model assessment for count data (2009).
    """
    draws = _draws(posterior, held_out, num_draws, generator)
    y = held_out.y.to(draws)
    return _share_below(draws, y, generator).masked_fill(~_rows(held_out), math.nan)


@counted(num_draws=1)
def coverage(
    posterior: Predictive,
    held_out: Data,
    *,
    level: float = 0.9,
    num_draws: int = 999,
    generator: Generator | None = None,
) -> TaskMean:
    """Share of held-out y inside central intervals of their prediction, for each task: `level` if it is right.

    Discrete predictions have intervals with random ends, so that they too can cover exactly `level`.

    Raises:
        ValueError: `level` is not between 0 and 1, or the tasks of `posterior` are not those of `held_out`.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, such as 0.9; got {level:g}")
    pit = randomised_pit(posterior, held_out, num_draws=num_draws, generator=generator)
    inside = ((pit - 0.5).abs() < 0.5 * level).to(pit)
    return _by_task(inside.flatten(held_out.mask.ndim).mean(-1) if held_out.event_shape else inside, held_out.mask)


@counted(num_draws=1)
def prior_predictive_p_values(
    prior: Posterior,
    tasks: Data,
    *,
    statistic: Callable[[Data], Tensor] | None = None,
    num_draws: int = 999,
    generator: Generator | None = None,
) -> Tensor:
    """How surprising each task is to `prior`: two-sided p-values, uniform for tasks that are drawn from it.

    Each task is replicated `num_draws` times at its own inputs.

    Args:
        prior: without a batch.
        statistic: of data with tasks `(num_draws, *batch)`, of that shape; the log evidence under `prior` unless given.

    Returns:
        `(*batch,)`.

    Raises:
        ValueError: the prior has a batch, or has no evidence and no statistic was given.

    Source: Box, Sampling and Bayes' inference in scientific modelling and robustness (1980).
    """
    if prior.batch_shape:
        raise ValueError(f"p-values are about one prior; got batch_shape {tuple(prior.batch_shape)}")
    if statistic is None:
        if not isinstance(prior, Evidence):
            raise ValueError(f"{type(prior).__name__} has no log_evidence; give a statistic of the data")
        statistic = prior.log_evidence
    tasks = filled(tasks)
    nothing = Data(tasks.x[..., :0, :], tasks.y.narrow(tasks.mask.ndim - 1, 0, 0), tasks.mask[..., :0])
    functions = prior.condition(nothing).sample(num_draws, generator=generator)
    with seeded(generator):
        y = functions.predict(tasks.x).sample()
    shape = (num_draws, *tasks.mask.shape)
    replicates = Data(tasks.x.expand(num_draws, *tasks.x.shape), y.to(tasks.y), tasks.mask.expand(shape))
    share = _share_below(statistic(replicates), statistic(tasks), generator)
    return 2.0 * torch.minimum(share, 1.0 - share)


def _share_below(draws: Tensor, value: Tensor, generator: Generator | None) -> Tensor:
    """(rank + U) / (draws + 1), the rank of `value` among `draws` with ties at random: uniform if they are alike."""
    below, ties = (draws < value).sum(0), (draws == value).sum(0)
    return (below + (ties + 1) * rand(below.shape, like=draws, generator=generator)) / (len(draws) + 1)


def _draws(posterior: Predictive, held_out: Data, num_draws: int, generator: Generator | None) -> Tensor:
    _require_same_tasks(posterior, held_out)
    with seeded(generator):
        return posterior.predict(filled(held_out).x).sample(torch.Size([num_draws]))


def filled(data: Data) -> Data:
    """The same rows, with the first real one in padding, which may else lie outside the support."""
    if bool(data.mask.all()) or not bool(data.mask.any()):
        return data
    x = data.x.where(data.mask[..., None], data.x[data.mask][0])
    return replace(data, x=x, y=data.y.where(_rows(data), data.y[data.mask][0]))


def _rows(data: Data) -> Tensor:
    return data.mask.reshape(*data.mask.shape, *(1 for _ in data.event_shape)).expand(data.y.shape)


def _by_task(rows: Tensor, mask: Tensor) -> TaskMean:
    total = rows.masked_fill(~mask, 0.0).double().sum(-1)
    return TaskMean(total / mask.sum(-1).double())  # 0 / 0 is NaN: a task without rows has no score


def _require_same_tasks(posterior: Predictive, held_out: Data) -> None:
    require_rows("a check of predictions", held_out, statistics=False)
    if posterior.batch_shape not in (torch.Size(), held_out.batch_shape):
        raise ValueError(
            f"the posterior must be of the tasks whose rows are held out, {tuple(held_out.batch_shape)}; "
            f"got batch_shape {tuple(posterior.batch_shape)}"
        )
