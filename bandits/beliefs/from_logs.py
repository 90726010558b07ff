"""From past bandit tasks to priors: which rows are a task depends on what arms have in common.

- Arms that tasks share, and whose rewards vary together: rows whose input is the number of an arm are what
  `CorrelatedArms` takes.
- Arms that tasks share, each by itself: `prior_of_each_arm` learns one prior per arm.
- Arms that come and go, alike beforehand: `arms_as_tasks` makes a task of every arm of every task.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bandits.beliefs.hypotheses import stacked
from bayesmeta.data.rows import Data
from bayesmeta.doors import counted
from bayesmeta.protocol import Learnable

__all__ = ["arms_as_tasks", "prior_of_each_arm"]


@runtime_checkable
class Starts(Protocol):
    """A class of priors that are learned from tasks."""

    def initial(self, tasks: Data, /) -> Learnable:
        """One to start from."""
        ...


@counted(num_arms=1)
def prior_of_each_arm(family: Starts, tasks: Data, num_arms: int) -> Any:
    """A prior with an entry for each arm, learned from what past tasks showed of it.

    Args:
        family: a class with `initial` and `fit`, such as `BetaBernoulli`.
        tasks: rows whose first input is the number of an arm; others are its context.
        num_arms: arms, numbered from 0.

    Raises:
        ValueError: fewer than two tasks show an arm, so that nothing can be learned of it.
    """
    priors: list[Any] = []
    for arm in range(num_arms):
        mask = _of_arm(tasks, arm)
        shows = mask.any(-1)
        if int(shows.sum()) < 2:
            raise ValueError(
                f"at least two tasks must show arm {arm}; {int(shows.sum())} do. Leave it out, and add it with a prior"
            )
        rows = Data(tasks.x[shows][..., 1:], tasks.y[shows], mask[shows])
        priors.append(family.initial(rows).fit(rows))
    return stacked(priors)


@counted(num_arms=1)
def arms_as_tasks(tasks: Data, num_arms: int) -> Data:
    """Every arm of every task as a task of its own, for one prior that all arms have beforehand.

    Args:
        tasks: rows whose first input is the number of an arm.
    """
    arms = [Data(tasks.x[..., 1:], tasks.y, _of_arm(tasks, arm)) for arm in range(num_arms)]
    x, y, mask = (torch.cat([getattr(arm, name) for arm in arms]) for name in ("x", "y", "mask"))
    shows = mask.any(-1)
    return Data(x[shows], y[shows], mask[shows])


def _of_arm(tasks: Data, arm: int) -> Tensor:
    if not tasks.x.shape[-1]:
        raise ValueError("rows must have the number of an arm as their first input; these have no inputs")
    return tasks.mask & (tasks.x[..., 0] == arm)
