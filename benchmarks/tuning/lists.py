"""Lists of configurations that were good on past tasks, in an order that no value of the new task changes.

Where all tasks have the same configurations, a list is made of the past values. Where they have not, the values of past
tasks are not known on the pool of the new one, and a surrogate of each past task says what they may be: the posterior
mean of a Gaussian process on the normal scores of its rows, all past tasks sharing a kernel that they have taught.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from bayesmeta import Data, GaussianProcess
from bo import SearchSpace, normal_scores
from bo.replay.methods import greedy_list
from bo.replay.pool import Method, Pool

__all__ = ["mean_rank", "past_values", "zero_shot"]

NOISE = 0.1  # of surrogates, beside scores of variance one; left-out rows are predicted as well with a tenth of it


def zero_shot(past: Sequence[Pool], space: SearchSpace) -> Method:
    """A list of configurations that complement each other on past tasks, put together greedily.

    See `bo.replay.methods.greedy_list`; regret is (best - value) / (best - worst) of each past task.
    """

    def make(values: Tensor) -> Method:
        best, worst = values.amax(1, keepdim=True), values.amin(1, keepdim=True)
        return greedy_list((best - values) / (best - worst))

    return _listed(past, make)


def mean_rank(past: Sequence[Pool], space: SearchSpace) -> Method:
    """Configurations by their mean rank over past tasks, the best first."""

    def make(values: Tensor) -> Method:
        scores = normal_scores(values, torch.ones_like(values, dtype=torch.bool))
        order = torch.special.ndtr(scores).mean(0).argsort(descending=True, stable=True).tolist()
        return lambda pool, given, num_trials, seed: [index for index in order if index not in given][:num_trials]

    return _listed(past, make)


def past_values(past: Sequence[Pool], pool: Pool) -> Tensor:
    """What each past task says of the configurations of `pool`, `(tasks, n)`, in units of its own."""
    if all(torch.equal(p.x, pool.x) for p in past):
        return torch.stack([p.y for p in past])
    raw = Data.pad([(p.x, p.y) for p in past])
    tasks = Data(raw.x, normal_scores(raw.y, raw.mask), raw.mask)
    learned = GaussianProcess.initial(tasks).fit(tasks)
    one = torch.ones_like(learned.outputscale)
    surrogate = replace(learned, past=None, outputscale=one, noise_var=NOISE * one, constant=0.0 * one)
    # a task at a time, for padding would cost memory
    each = [Data.of(task.x[task.mask], task.y[task.mask]) for task in (tasks[i] for i in range(len(past)))]
    return torch.stack([surrogate.condition(rows).residual_process_at(pool.x) for rows in each])


def _listed(past: Sequence[Pool], make: Callable[[Tensor], Method]) -> Method:
    """The list of a pool, made once for all its seeds."""
    of_pool = lru_cache(maxsize=1)(lambda pool: make(past_values(past, pool)))
    return lambda pool, given, num_trials, seed: of_pool(pool)(pool, given, num_trials, seed)
