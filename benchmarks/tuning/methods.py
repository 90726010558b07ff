"""The methods that the benchmark of tuning compares.

*Baselines* know no past. *Learned* methods are made from the past pools of a task and its search space, and from
nothing else: to compare another one, add a line to `LEARNED`.

Optuna Hub's MetaLearnTPE is not among them: the hub fetches its code over the network whenever it is loaded.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from optuna.samplers import GPSampler
from torch import Tensor

from bayesmeta import Data, DeepKernel, GaussianProcess, LearnedFeatures, TransformerNeuralProcess
from benchmarks.tuning.lists import mean_rank, zero_shot
from bo import SearchSpace, SharedConfigurations, TuningPrior, fit_family, fit_of, fit_rgpe
from bo.replay.methods import METHODS, learned, optuna_method
from bo.replay.pool import Method, Pool
from bo.single_study.baseline import NUM_INITIAL

__all__ = ["BASELINES", "DRAW_NOTHING", "LEARNED", "ORDER"]

Learn = Callable[[Sequence[Pool], SearchSpace], Method]


def default(past: Sequence[Pool], space: SearchSpace) -> Method:
    """What `bayesmeta fit` would learn from the past tasks."""
    return _told(past, space, [pool.y for pool in past])


def permuted(past: Sequence[Pool], space: SearchSpace) -> Method:
    """The same, from a past that says nothing: its targets are permuted within each task."""
    generator = torch.Generator().manual_seed(0)
    return _told(past, space, [pool.y[torch.randperm(len(pool.y), generator=generator)] for pool in past])


def negated(past: Sequence[Pool], space: SearchSpace) -> Method:
    """The same, from a past that misleads: its targets are negated."""
    return _told(past, space, [-pool.y for pool in past])


def rgpe(past: Sequence[Pool], space: SearchSpace) -> Method:
    """Gaussian processes of past tasks, weighted by how well they rank what the new task has shown."""
    return learned(fit_rgpe(space, _tasks(past), "maximize"))


def joint_gaussian(past: Sequence[Pool], space: SearchSpace) -> Method:
    """A mean and a covariance of the values of past tasks, on the configurations that they share."""
    return _family(past, space, lambda scores: SharedConfigurations.initial(scores).fit(scores))


def pretrained_gp(past: Sequence[Pool], space: SearchSpace) -> Method:
    """A Gaussian process with the mean and the covariance of past functions, without turns."""
    return _family(past, space, lambda scores: GaussianProcess.initial(scores).fit(scores))


def learned_features(past: Sequence[Pool], space: SearchSpace) -> Method:
    """Bayesian linear regression on features that past tasks taught."""
    return _family(past, space, lambda scores: LearnedFeatures.initial(scores).fit(scores, progress=False))


def deep_kernel(past: Sequence[Pool], space: SearchSpace) -> Method:
    """A Gaussian process on features that a deep network learned from past tasks.

    Without given rows it is the same everywhere, so that past tasks choose the first five, as in the source.
    """
    opening = zero_shot(past, space)
    model = _family(past, space, lambda scores: DeepKernel.initial(scores).fit(scores, progress=False))

    def method(pool: Pool, given: list[int], num_trials: int, seed: int) -> list[int]:
        first = [] if given else opening(pool, given, min(NUM_INITIAL, num_trials), seed)
        return first + model(pool, given + first, num_trials - len(first), seed)

    return method


def transformer(past: Sequence[Pool], space: SearchSpace) -> Method:
    """A transformer that learned from simulated objectives, and then from past tasks."""
    return learned(fit_of(TransformerNeuralProcess)(space, _tasks(past), "maximize"))


class PoolGPSampler(GPSampler):
    """Optuna's sampler, with the rows of a pool that are left as the candidates of its acquisition function.

    Searching the whole cube instead, it would keep to corners that are far from every row of HPO-B.
    """

    def __init__(self, pool: Pool, seen: list[int], seed: int) -> None:
        super().__init__(n_startup_trials=NUM_INITIAL, seed=seed)
        self._params = pool.space.from_unit(pool.x)
        self._seen = seen

    def _optimize_acqf(self, acqf: Any, best_params: Any) -> np.ndarray:
        rows = acqf.search_space.get_normalized_params(self._params, self._params)
        worth = acqf.eval_acqf_no_grad(rows)
        worth[self._seen] = -np.inf
        return rows[worth.argmax()]


def gpsampler(pool: Pool, given: list[int], num_trials: int, seed: int) -> list[int]:
    """Five points, Sobol's where none are given, then Optuna's Gaussian process and acquisition function."""
    return optuna_method(PoolGPSampler, complete=True)(pool, given, num_trials, seed)


LEARNED: dict[str, Learn] = {
    "default": default,
    "permuted": permuted,
    "negated": negated,
    "zero_shot": zero_shot,
    "mean_rank": mean_rank,
    "rgpe": rgpe,
    "joint_gaussian": joint_gaussian,
    "pretrained_gp": pretrained_gp,
    "learned_features": learned_features,
    "deep_kernel": deep_kernel,
    "transformer": transformer,
}
BASELINES: dict[str, Method] = {**METHODS, "gpsampler": gpsampler}
# without given rows these choose the same for every seed, and are run once
DRAW_NOTHING = frozenset(LEARNED)
ORDER = (*LEARNED, *BASELINES)


def _told(past: Sequence[Pool], space: SearchSpace, targets: Sequence[Tensor]) -> Method:
    tasks = Data.pad([(pool.x, y) for pool, y in zip(past, targets, strict=True)])
    return learned(TuningPrior.fit(space, tasks, "maximize"))


def _family(past: Sequence[Pool], space: SearchSpace, learn: Callable[[Data], Any]) -> Method:
    return learned(fit_family(space, _tasks(past), "maximize", learn))


def _tasks(past: Sequence[Pool]) -> Data:
    return Data.pad([(pool.x, pool.y) for pool in past])
