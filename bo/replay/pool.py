"""A task of which every configuration was evaluated once, and the regret of what a method chose there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bo.space.search_space import SearchSpace

__all__ = ["Method", "Pool", "regret", "scaled_regret"]


@dataclass(frozen=True, eq=False)
class Pool:
    """All evaluated configurations of one task.

    Args:
        space: of the configurations.
        params: the configurations; those that a configuration lacks are left out.
        x: the same, encoded by `space`.
        y: the objective, more being better.
    """

    space: SearchSpace
    params: list[dict[str, Any]]
    x: Float[Tensor, "n d"]
    y: Float[Tensor, " n"]


# (pool, rows evaluated before, number of trials, seed) -> the indices chosen after those, in order
Method = Callable[[Pool, list[int], int, int], list[int]]


def regret(pool: Pool, chosen: list[int]) -> list[float]:
    """Regret of the best so far, after each trial."""
    return scaled_regret(pool, pool.y[chosen].cummax(0).values).tolist()


def scaled_regret(pool: Pool, value: Tensor) -> Tensor:
    """(best - value) / (best - median), with the best and the median of the pool: 0 is the optimum, 1 the median."""
    best = pool.y.max()
    return (best - value) / (best - pool.y.quantile(0.5))
