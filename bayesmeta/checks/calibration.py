"""Is a posterior as sure as it should be? Simulation-based calibration, with bands that say what chance allows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.stats
import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.describe import Described
from bayesmeta.doors import counted
from bayesmeta.protocol import Functions, Posterior
from bayesmeta.random import seeded

__all__ = ["EcdfCheck", "ecdf_bands", "pit_ecdf", "sbc_ecdf", "sbc_ranks"]

TOLERANCE = 1e-4  # of the search for the pointwise level, relative
PIT_STEPS = 100
TINY = 1e-16  # of Poisson increments: those beyond take no part in the recursion


def _values(functions: Functions, x: Tensor) -> Tensor:
    return functions(x)


@counted(num_tasks=1, num_draws=1)
def sbc_ranks(
    prior: Posterior,
    x: Tensor,
    *,
    num_tasks: int,
    num_draws: int,
    quantity: Callable[[Functions, Tensor], Tensor] = _values,
    generator: Generator | None = None,
) -> Tensor:
    """Ranks of the truth among posterior draws, over tasks simulated from `prior`, all at once.

    Each task draws a function, then rows of it at `x`; the posterior after these rows draws functions again. Where
    `condition` and `sample` are right, the rank of the true quantity is uniform on 0 to `num_draws`.

    Args:
        prior: a prior without batch.
        x: `(n, d)`, the inputs of every task's rows; `(n, 0)` for families without inputs.
        quantity: what is ranked, of a bundle of draws at x: f(x) unless given, and any tensor led by the axis of draws.

    Returns:
        Whole numbers `(num_tasks, ...)`, the rest being the shape of `quantity`: `(n, *event)` for f(x).

    Raises:
        ValueError: the prior has a batch.

    Source: Talts et al., Validating Bayesian inference algorithms with simulation-based calibration (2018).
    """
    if prior.batch_shape:
        raise ValueError(f"sbc_ranks simulates tasks of one prior; got batch_shape {tuple(prior.batch_shape)}")
    truths = prior.sample(num_tasks, generator=generator)
    with seeded(generator):
        y = truths.predict(x).sample()
    tasks = Data.of(x.expand(num_tasks, *x.shape), y, event_dim=len(prior.event_shape))
    draws = prior.condition(tasks).sample(num_draws, generator=generator)
    return (quantity(draws, tasks.x) < quantity(truths, x)).sum(0)


@dataclass(frozen=True, eq=False)
class EcdfCheck(Described):
    """Empirical distributions of ranks or other values, and the band that uniform ones leave seldom.

    Args:
        ecdf: share of values at or below each of k equally probable steps, `(..., k)`, one row per quantity.
        lower: of the band, `(k,)`.
        upper: of the band, `(k,)`.
        level: probability that all of a quantity's ecdf stays inside, if its values are uniform.
        num_values: how many independent values the band is of.
    """

    ecdf: Tensor
    lower: Tensor
    upper: Tensor
    level: float
    num_values: int

    @property
    def uniform(self) -> Tensor:
        """What the ecdf of uniform values is on average, `(k,)`."""
        return torch.arange(1, len(self.lower) + 1, dtype=self.lower.dtype) / len(self.lower)

    @property
    def excess(self) -> Tensor:
        """How far each ecdf goes beyond the band where it does so most, `(...)`; zero inside."""
        return torch.maximum(self.ecdf - self.upper, self.lower - self.ecdf).amax(-1).clamp(min=0.0)

    @property
    def inside(self) -> Tensor:
        """Whether each ecdf stays within the band, `(...)`."""
        return self.excess == 0.0

    def __str__(self) -> str:
        outside, total = int((~self.inside).sum()), self.inside.numel()
        verdict = f"{outside} of {total} outside the {self.level:.0%} band of {self.num_values} uniform values"
        return verdict if not outside else f"{verdict}, by {float(self.excess.max()):.2g} at most"


@counted(num_draws=1)
def sbc_ecdf(ranks: Tensor, num_draws: int, *, level: float = 0.95) -> EcdfCheck:
    """Are ranks uniform? Their empirical distributions against a simultaneous band.

    A posterior that is too narrow puts ranks at both ends, so its ecdf is above the band on the left and below it on
    the right; one that is too wide does the reverse; a shifted one is above or below throughout.

    Args:
        ranks: whole numbers from 0 to `num_draws`, as of `sbc_ranks`: `(num_tasks, ...)`, ranks on the first axis.
        num_draws: the largest rank there is.
        level: of each quantity's band on its own; of several quantities, 1 - level go outside by chance.

    Raises:
        ValueError: ranks are not whole or lie outside 0 to `num_draws`, or there are none.
    """
    if ranks.ndim == 0 or not ranks.numel():
        raise ValueError(f"ranks must be on the first axis, at least one; got shape {tuple(ranks.shape)}")
    whole = ranks.long()
    if bool((whole != ranks).any()) or bool((whole < 0).any()) or bool((whole > num_draws).any()):
        raise ValueError(
            f"ranks must be whole numbers from 0 to num_draws = {num_draws}; "
            f"got values from {float(ranks.min()):g} to {float(ranks.max()):g}"
        )
    lower, upper = ecdf_bands(len(ranks), num_draws, level)
    values = whole.cpu().movedim(0, -1).reshape(-1, len(ranks))
    tallies = torch.zeros(len(values), num_draws + 1, dtype=torch.float64)
    tallies.scatter_add_(1, values, torch.ones_like(values, dtype=torch.float64))
    ecdf = tallies.cumsum(-1).reshape(*ranks.shape[1:], num_draws + 1) / len(ranks)
    return EcdfCheck(ecdf, lower, upper, level, len(ranks))


def pit_ecdf(pit: Tensor, *, level: float = 0.95) -> EcdfCheck:
    r"""Are probability integral transforms uniform? Each task counts once, however many rows it has.

    Rows of a task are alike, so its rows say less than as many independent ones would. The band is of the number of
    independent values whose ecdf varies as much as the mean over tasks does: from the number of tasks, where the rows
    of a task are all alike, to the number of rows.

    Args:
        pit: `(tasks, ...)`, of `randomised_pit`; NaN where there is no row.
        level: probability that the whole ecdf stays inside if predictions are right; approximate with several rows a
            task, because how alike they are is estimated.

    Returns:
        The ecdf at 1%, 2%, ..., 100%.

    Raises:
        ValueError: no task has a row.

    Source: Kish, Survey Sampling (1965), section 5.4, on the effect of clusters on sample size.
    """
    by_task = pit.double().cpu().reshape(len(pit), -1)
    by_task = by_task[~by_task.isnan().all(-1)]
    if not len(by_task):
        raise ValueError(f"pit must have a task with a row; got shape {tuple(pit.shape)}, NaN throughout")
    real = ~by_task.isnan()
    at = torch.arange(1, PIT_STEPS + 1, dtype=torch.float64) / PIT_STEPS
    shares = ((by_task[..., None] <= at) & real[..., None]).double().sum(1) / real.sum(1, keepdim=True)
    ecdf = shares.mean(0)
    num_tasks, num_rows = len(by_task), int(real.sum())
    num_values = num_tasks
    if 1 < num_tasks < num_rows:
        of_one = (ecdf * (1.0 - ecdf)).sum()
        per_task = float(of_one / shares.var(0).sum())  # independent values that a task's rows are worth
        num_values = max(num_tasks, min(num_rows, round(num_tasks * per_task)))
    lower, upper = ecdf_bands(num_values, PIT_STEPS - 1, level)
    return EcdfCheck(ecdf, lower, upper, level, num_values)


def ecdf_bands(num_ranks: int, num_draws: int, level: float = 0.95) -> tuple[Tensor, Tensor]:
    """The band in which the whole empirical distribution of uniform ranks stays with probability `level`.

    Each rank has a binomial interval of one and the same pointwise level, the least for which all hold at once. As
    counts are whole, the probability is that of the narrowest such band with at least `level`. It is computed exactly.

    Args:
        num_ranks: how many ranks the empirical distribution is of.
        num_draws: ranks are uniform on 0, ..., num_draws.
        level: between 0 and 1.

    Returns:
        Least and greatest share of ranks at or below 0, ..., num_draws, both float64 of shape `(num_draws + 1,)`.

    Raises:
        ValueError: `level` is not between 0 and 1, or there are no ranks or draws.

    Source: Sailynoja, Burkner and Vehtari, Graphical test for discrete uniformity and its applications in
    goodness-of-fit evaluation and multiple sample comparison (2022).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, such as 0.95; got {level:g}")
    if num_ranks < 1 or num_draws < 1:
        raise ValueError(f"bands need at least one rank and one draw; got {num_ranks} and {num_draws}")
    lower, upper = (
        torch.from_numpy(np.append(ends, num_ranks) / num_ranks) for ends in _band(num_ranks, num_draws, level)
    )
    return lower, upper


@lru_cache(256)  # many checks are of as many ranks
def _band(num_ranks: int, num_draws: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the band as counts, at every rank but the last."""
    # by Bonferroni, 1 - level shared among the ranks is a small enough error of each
    small, large = math.log((1.0 - level) / num_draws), 0.0
    bounds = _binomial_bounds(num_ranks, num_draws, math.exp(small))
    while large - small > TOLERANCE:
        middle = 0.5 * (small + large)
        tried = _binomial_bounds(num_ranks, num_draws, math.exp(middle))
        if _probability_inside(num_ranks, num_draws, *tried) >= level:
            small, bounds = middle, tried
        else:
            large = middle
    return bounds


def _binomial_bounds(num_ranks: int, num_draws: int, error: float) -> tuple[np.ndarray, np.ndarray]:
    """Ends of central intervals, each missed with probability `error` at most, of the counts at or below each rank.

    The last rank is left out: every rank is at or below it.
    """
    share = np.arange(1, num_draws + 1) / (num_draws + 1)
    ends = (scipy.stats.binom.ppf(tail, num_ranks, share) for tail in (0.5 * error, 1.0 - 0.5 * error))
    lower, upper = (end.astype(np.int64) for end in ends)
    return lower, upper


def _probability_inside(num_ranks: int, num_draws: int, lower: np.ndarray, upper: np.ndarray) -> float:
    """Probability that counts of uniform ranks stay within bounds at every rank but the last.

    Tallies of the ranks are multinomial: independent Poisson counts, given that they sum to `num_ranks`. So the
    probability of each running sum, all sums before it inside, is a convolution from one rank to the next.
    """
    mean = num_ranks / (num_draws + 1)
    most = int(scipy.stats.poisson.isf(TINY, mean)) + 1
    increment = scipy.stats.poisson.pmf(np.arange(most + 1), mean)
    first, density = 0, np.ones(1)  # of running sums first, first + 1, ...
    for low, high in zip(lower, upper, strict=True):
        density = np.convolve(density, increment)[max(low - first, 0) : high - first + 1]
        first = max(first, low)
    last = num_ranks - first - np.arange(len(density))
    ends = scipy.stats.poisson.pmf(last, mean) @ density
    return float(ends / scipy.stats.poisson.pmf(num_ranks, float(num_ranks)))
