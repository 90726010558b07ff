"""Replaying tuning methods on finished tables: what each would have tried next, and the regret it had by then.

A `Pool` is a task of which every configuration was evaluated once. A method sees the configurations, and the values of
those it was given or has chosen. No method is told the range of the values, which would leak the optimum.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bo.priors.tuning_prior import TuningPrior
from bo.replay.pool import Method, Pool
from bo.single_study.baseline import NUM_INITIAL, scratch_acquisition
from bo.values import Value

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["METHODS", "greedy_list", "learned", "optuna_method"]


def random_search(pool: Pool, given: list[int], num_trials: int, seed: int) -> list[int]:
    """Configurations in random order."""
    order = torch.randperm(len(pool.y), generator=_generator(seed)).tolist()
    return [index for index in order if index not in given][:num_trials]


def gp_from_scratch(pool: Pool, given: list[int], num_trials: int, seed: int) -> list[int]:
    """Five points, Sobol's where none are given, then BoTorch's GP with log expected improvement."""
    seen = _opening(pool, given, num_trials, seed)
    while len(seen) < len(given) + num_trials:
        seen.append(_argmax(scratch_acquisition(pool.x[seen], pool.y[seen]), pool, seen))
    return seen[len(given) :]


def optuna_method(make: Callable[[Pool, list[int], int], "BaseSampler"], *, complete: bool) -> Method:
    """Five points, Sobol's where none are given, then an Optuna sampler.

    Each suggestion is moved to the nearest configuration that is left, and the study is told of that one. Where a pool
    leaves much of its space empty that is far away, which is a handicap for samplers that cannot be told of the pool.

    Args:
        make: the sampler from the pool, the rows seen (a list that grows) and a seed.
        complete: whether missing parameters are told at the middle of their range, for samplers that ignore a parameter
            which is not in all trials.
    """

    def method(pool: Pool, given: list[int], num_trials: int, seed: int) -> list[int]:
        import optuna

        seen = _opening(pool, given, num_trials, seed)
        study = optuna.create_study(direction="maximize", sampler=make(pool, seen, seed))
        distributions = dict(pool.space.distributions)

        def tell(index: int) -> None:
            params = pool.space.from_unit(pool.x[index][None])[0] if complete else pool.params[index]
            known = {name: distributions[name] for name in params}
            value = float(pool.y[index])
            study.add_trial(optuna.trial.create_trial(params=params, distributions=known, value=value))

        for index in seen:
            tell(index)
        while len(seen) < len(given) + num_trials:
            trial = study.ask(distributions)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)  # it is another configuration that is evaluated
            seen.append(_nearest(pool, pool.space.to_unit([trial.params])[0], seen))
            tell(seen[-1])
        return seen[len(given) :]

    return method


def tpe(pool: Pool, given: list[int], num_trials: int, seed: int) -> list[int]:
    """Five points, Sobol's where none are given, then Optuna's TPE, moved to the nearest configuration that is left."""
    from optuna.samplers import TPESampler

    method = optuna_method(lambda _, __, seed: TPESampler(n_startup_trials=NUM_INITIAL, seed=seed), complete=False)
    return method(pool, given, num_trials, seed)


def learned(prior: TuningPrior) -> Method:
    """The method of `MetaSampler`, choosing from the pool. It draws nothing, so all seeds agree."""

    def method(pool: Pool, given: list[int], num_trials: int, seed: int) -> list[int]:
        seen, turns = list(given), list[str]()
        while len(seen) < len(given) + num_trials:
            # the prior's own direction may be to minimise
            y = pool.y[seen] if prior.direction == "maximize" else -pool.y[seen]
            turn, value = prior.suggest(Data.of(pool.x[seen], y), turns=turns)
            seen.append(_argmax(value, pool, seen))
            turns.append(turn)
        return seen[len(given) :]

    return method


def greedy_list(past_regret: Float[Tensor, "tasks n"]) -> Method:
    """A fixed order: each next configuration lowers the mean regret over past tasks of the best so far the most.

    When there is nothing left to gain, which is soon with few past tasks, it starts again with what is left.

    Args:
        past_regret: of each configuration of the pool on each past task.

    Source: Wistuba et al., Sequential model-free hyperparameter tuning (2015).
    """

    def method(pool: Pool, given: list[int], num_trials: int, seed: int) -> list[int]:
        chosen: list[int] = []
        nothing = torch.full((len(past_regret), 1), torch.inf, dtype=past_regret.dtype)
        best = nothing
        while len(chosen) < num_trials:
            gains = past_regret < best
            gains[:, given + chosen] = False
            if not bool(gains.any()):
                best = nothing
            after = torch.minimum(best, past_regret).mean(0)
            after[given + chosen] = torch.inf
            chosen.append(int(after.argmin()))
            best = torch.minimum(best, past_regret[:, chosen[-1], None])
        return chosen

    return method


METHODS: dict[str, Method] = {"gp": gp_from_scratch, "tpe": tpe, "random": random_search}


def _generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def _opening(pool: Pool, given: list[int], num_trials: int, seed: int) -> list[int]:
    """The rows given, and Sobol points until there are enough for a first model, or for all trials."""
    seen = list(given)
    num_missing = min(NUM_INITIAL - len(given), num_trials)
    for point in pool.space.sobol(NUM_INITIAL, generator=_generator(seed))[: max(num_missing, 0)]:
        seen.append(_nearest(pool, point, seen))
    return seen


def _nearest(pool: Pool, point: Tensor, taken: list[int]) -> int:
    distance = (pool.x - point).square().sum(-1)
    distance[taken] = torch.inf
    return int(distance.argmin())


def _argmax(value: Value, pool: Pool, taken: list[int]) -> int:
    worth = value(pool.x)
    worth[taken] = -torch.inf
    return int(worth.argmax())
