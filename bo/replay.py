"""Replaying tuning methods on finished tables: what each would have tried next, and the regret it had by then.

A `Pool` is a task of which every configuration was evaluated once. A method sees the configurations, and the values of
those it has chosen. No method is told the range of the values, which would leak the optimum.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.data import Data
from bo.prior import TuningPrior
from bo.sampler import acquisition
from bo.scratch import NUM_INITIAL, scratch_acquisition
from bo.search import Value
from bo.space import SearchSpace

__all__ = ["METHODS", "Pool", "greedy_list", "learned", "regret", "scaled_regret"]


@dataclass(frozen=True, eq=False)
class Pool:
    """All evaluated configurations of one task.

    Args:
        space: of the configurations.
        params: the configurations.
        x: the same, encoded by `space`.
        y: the objective, more being better.
    """

    space: SearchSpace
    params: list[dict[str, Any]]
    x: Float[Tensor, "n d"]
    y: Float[Tensor, " n"]


# (pool, number of trials, seed) -> the indices chosen, in order
Method = Callable[[Pool, int, int], list[int]]


def regret(pool: Pool, chosen: list[int]) -> list[float]:
    """Regret of the best so far, after each trial."""
    return scaled_regret(pool, pool.y[chosen].cummax(0).values).tolist()


def scaled_regret(pool: Pool, value: Tensor) -> Tensor:
    """(best - value) / (best - median), with the best and the median of the pool: 0 is the optimum, 1 the median."""
    best = pool.y.max()
    return (best - value) / (best - pool.y.quantile(0.5))


def random_search(pool: Pool, num_trials: int, seed: int) -> list[int]:
    """Configurations in random order."""
    return torch.randperm(len(pool.y), generator=_generator(seed))[:num_trials].tolist()


def gp_from_scratch(pool: Pool, num_trials: int, seed: int) -> list[int]:
    """Five Sobol points, then BoTorch's GP with log expected improvement."""
    chosen: list[int] = []
    for point in pool.space.sobol(NUM_INITIAL, generator=_generator(seed))[:num_trials]:
        chosen.append(_nearest(pool, point, chosen))
    while len(chosen) < num_trials:
        chosen.append(_argmax(scratch_acquisition(pool.x[chosen], pool.y[chosen]), pool, chosen))
    return chosen


def tpe(pool: Pool, num_trials: int, seed: int) -> list[int]:
    """Five Sobol points, then Optuna's TPE; each suggestion is moved to the nearest configuration that is left."""
    import optuna

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(n_startup_trials=NUM_INITIAL, seed=seed)
    )
    initial = pool.space.sobol(NUM_INITIAL, generator=_generator(seed))
    distributions = dict(pool.space.distributions)
    chosen: list[int] = []
    while len(chosen) < num_trials:
        if len(chosen) < NUM_INITIAL:
            point = initial[len(chosen)]
        else:
            trial = study.ask(distributions)
            point = pool.space.to_unit([trial.params])[0]
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        index = _nearest(pool, point, chosen)
        chosen.append(index)
        done = optuna.trial.create_trial(
            params=pool.params[index], distributions=distributions, value=float(pool.y[index])
        )
        study.add_trial(done)
    return chosen


def learned(prior: TuningPrior) -> Method:
    """The method of `MetaSampler`, choosing from the pool. It draws nothing, so all seeds agree."""

    def method(pool: Pool, num_trials: int, seed: int) -> list[int]:
        chosen: list[int] = []
        while len(chosen) < num_trials:
            # the prior's own direction may be to minimise
            y = pool.y[chosen] if prior.direction == "maximize" else -pool.y[chosen]
            chosen.append(_argmax(acquisition(prior, Data.of(pool.x[chosen], y)), pool, chosen))
        return chosen

    return method


def greedy_list(past: list[Pool]) -> Method:
    """A fixed order: each next configuration lowers the mean regret over past tasks of the best so far the most.

    All pools must hold the same configurations in the same order.

    Source: Wistuba et al., Sequential model-free hyperparameter tuning (2015).
    """
    past_regret = torch.stack([scaled_regret(p, p.y) for p in past])

    def method(pool: Pool, num_trials: int, seed: int) -> list[int]:
        chosen: list[int] = []
        best = torch.full((len(past), 1), torch.inf, dtype=past_regret.dtype)
        while len(chosen) < num_trials:
            after = torch.minimum(best, past_regret).mean(0)
            after[chosen] = torch.inf
            chosen.append(int(after.argmin()))
            best = torch.minimum(best, past_regret[:, chosen[-1], None])
        return chosen

    return method


METHODS: dict[str, Method] = {"gp": gp_from_scratch, "tpe": tpe, "random": random_search}


def _generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _nearest(pool: Pool, point: Tensor, chosen: list[int]) -> int:
    distance = (pool.x - point).square().sum(-1)
    distance[chosen] = torch.inf
    return int(distance.argmin())


def _argmax(value: Value, pool: Pool, chosen: list[int]) -> int:
    worth = value(pool.x)
    worth[chosen] = -torch.inf
    return int(worth.argmax())
