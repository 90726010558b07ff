"""Mode of a hyperposterior: the most probable hyperparameters, and the prior that they make."""

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.fields import LearnedFrom
from bayesmeta.hyperparameters.vector import Hyperparameters
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.numerics.optimise import maximise
from bayesmeta.warning_kinds import LimitWarning, warn

__all__ = ["LimitWarning", "fit_by_mode", "most_probable"]

FLAT = 1e-12  # of the objective, per row: less than this between a limit and the best value found is no difference

F = TypeVar("F", bound="_Family")


@runtime_checkable
class _Family(Protocol):
    """Family that can be fitted by its mode: it says its hyperparameters, if perhaps for rows and not for sums."""

    def hyperparameters(self, tasks: Any) -> Hyperparameters: ...

    def _replace(self: F, **changes: Any) -> F: ...


@with_gradients
def most_probable(
    unknown: Hyperparameters,
    *,
    hyperprior_weight: float = 1.0,
    task_weights: Tensor | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """The vector where the log hyperposterior is greatest.

    Args:
        hyperprior_weight: 1 for the mode of the hyperposterior, 0 for plain empirical Bayes.
        task_weights: of the tasks' evidence, see `Hyperparameters.log_density`.
        start: where the search starts, the hyperprior's centre unless given.

    Raises:
        ValueError: the weight is negative, or the evidence grows without bound.

    Warns:
        LimitWarning: an entry ended at its limit.
    """
    if not 0.0 <= hyperprior_weight < math.inf:
        raise ValueError(f"hyperprior_weight must be zero or more; got {hyperprior_weight:g}")

    def objective(vector: Tensor) -> Tensor:
        density = unknown.log_density(vector, hyperprior_weight=hyperprior_weight, task_weights=task_weights)
        return density / unknown.num_rows

    best = maximise(
        objective, unknown.start if start is None else start, limit=unknown.limit, tolerance=unknown.tolerance
    )
    return _at_limits(unknown, objective, best)


def fit_by_mode(prior: F, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> F:
    """The most probable prior after `tasks`: a family whose body says `fit = fit_by_mode` has a `fit`.

    Args:
        prior: `Family.initial(tasks)`, without a batch: where the search starts, and the centre of the hyperprior.
        tasks: at least two tasks with rows, on one axis.
        hyperprior_weight: 0 for plain empirical Bayes.

    Warns:
        LimitWarning: a hyperparameter ended at its limit.
    """
    unknown = prior.hyperparameters(tasks)
    fitted = cast(F, unknown.build(most_probable(unknown, hyperprior_weight=hyperprior_weight)))
    return fitted._replace(learned_from=LearnedFrom.counts(tasks.count))


def _at_limits(unknown: Hyperparameters, objective: Callable[[Tensor], Tensor], best: Tensor) -> Tensor:
    """Move entries to the limits that they approach: the search stops on the way, where nothing is gained any more."""
    with torch.no_grad():
        best = _together(objective, best, unknown.limit)
        value, moved = objective(best), torch.zeros(len(best), dtype=torch.bool, device=best.device)
        for i, entry in enumerate(unknown.entries):
            if math.isinf(entry.limit) or abs(best[i]) < 0.5 * entry.limit:
                continue
            there = best.clone()
            there[i] = entry.limit if best[i] > 0 else -entry.limit
            if objective(there) >= value - FLAT:
                moved[i] |= bool(there[i] != best[i])
                best, value = there, objective(there)
                text = f"{entry.name} ended at its limit, {float(there[i]):.3g}: {entry.at_limit}"
                warn(text, LimitWarning)
    return _others(objective, best, moved, unknown.limit) if bool(moved.any()) else best


def _together(objective: Callable[[Tensor], Tensor], best: Tensor, limit: Tensor) -> Tensor:
    """Entries that approach their limits side by side, as a Dirichlet's do, moved alike until the first is there."""
    for sign in (1.0, -1.0):
        near = (sign * best >= 0.5 * limit) & limit.isfinite()
        if near.sum() > 1:
            there = torch.where(near, best + sign * (limit - sign * best)[near].min(), best)
            best = there if objective(there) >= objective(best) - FLAT else best
    return best


def _others(objective: Callable[[Tensor], Tensor], best: Tensor, held: Tensor, limit: Tensor) -> Tensor:
    """The best vector with some entries held where they are."""
    if bool(held.all()):
        return best
    found = maximise(lambda rest: objective(best.masked_scatter(~held, rest)), best[~held], limit=limit[~held])
    return best.masked_scatter(~held, found)
