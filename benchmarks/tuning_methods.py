"""The methods that the benchmark of tuning compares.

*Baselines* know no past. *Learned* methods are made from the past pools of a task and its search space, and from
nothing else: to compare another one, add a line to `LEARNED`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bayesmeta import Data
from bo import SearchSpace, TuningPrior
from bo.replay import METHODS as BASELINES
from bo.replay import Method, Pool, learned

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


LEARNED: dict[str, Learn] = {"default": default, "permuted": permuted, "negated": negated}
# without given rows these choose the same for every seed, and are run once
DRAW_NOTHING = frozenset({"default", "permuted", "negated"})
ORDER = (*LEARNED, *BASELINES)


def _told(past: Sequence[Pool], space: SearchSpace, targets: Sequence[Tensor]) -> Method:
    tasks = Data.pad([(pool.x, y) for pool, y in zip(past, targets, strict=True)])
    return learned(TuningPrior.fit(space, tasks, "maximize"))
