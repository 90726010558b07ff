"""The list of configurations that past tasks would try first, where they share what they evaluated.

Benchmarks and grids evaluate the same configurations on every task. Their values then say which few configurations
complement each other, with no surrogate between: the next one is that which lowers the mean over past tasks of the
regret of the best so far the most.

Source: Wistuba, Schilling and Schmidt-Thieme, Sequential model-free hyperparameter tuning (2015).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.fields import TensorFields

__all__ = ["PastRegrets"]

BAD = 0.1  # regret is one from this quantile of a task's values downwards, lest one diverged run make all others equal
SAME = 1e-6  # distance in the unit cube, of what is rounded on its way through a study


@dataclass(frozen=True, eq=False)
class PastRegrets(TensorFields):
    """Regrets of past tasks on the configurations that they share.

    Args:
        points: the configurations.
        regrets: of each on each task, from 0 for the task's best to 1; where a task lacks one, the mean of others.
    """

    points: Float[Tensor, "points d"]
    regrets: Float[Tensor, "points tasks"]

    @classmethod
    def of(cls, tasks: Data) -> "PastRegrets | None":
        """Those of the configurations that half of the tasks have; None if other rows are more than theirs.

        Args:
            tasks: whose targets vary, more being better.
        """
        num_tasks = len(tasks.y)
        x, at = tasks.x[tasks.mask].unique(dim=0, return_inverse=True)
        task = tasks.mask.nonzero()[:, 0]
        # a table of all configurations by all tasks would be huge where none is shared
        once = (at * num_tasks + task).unique()
        shared = (once // num_tasks).bincount(minlength=len(x)) * 2 >= num_tasks
        is_shared = shared[at]
        if 2 * int(is_shared.sum()) < len(at):
            return None
        place = (shared.cumsum(0)[at[is_shared]] - 1, task[is_shared])
        regret = _regrets(tasks)[tasks.mask][is_shared]
        empty = regret.new_zeros(int(shared.sum()), num_tasks)
        total = empty.index_put(place, regret, accumulate=True)
        count = empty.index_put(place, torch.ones_like(regret), accumulate=True)
        known = total / count.clamp(min=1.0)
        others = known.sum(1, keepdim=True) / (count > 0).sum(1, keepdim=True)
        return cls(x[shared], torch.where(count > 0, known, others))

    def first(self, num: int, weights: Float[Tensor, " tasks"] | None = None) -> Float[Tensor, "num d"]:
        """The first of the list, where nothing was tried; fewer if there are fewer."""
        chosen = self.points[:0]
        for _ in range(min(num, len(self.points))):
            chosen = torch.cat([chosen, self.next_point(chosen, weights)[None]])
        return chosen

    def next_point(
        self, tried: Float[Tensor, "n d"], weights: Float[Tensor, " tasks"] | None = None
    ) -> Float[Tensor, " d"]:
        """The configuration that lowers the mean regret the most, or where none does, the best that was not tried.

        Args:
            tried: points that need not be among those of the past.
            weights: of the tasks in the mean, together one; None for all alike.
        """
        if weights is None:
            weights = torch.full_like(self.regrets[0], 1.0 / self.regrets.shape[1])
        exactly = "donot_use_mm_for_euclid_dist"  # the faster way by products confuses configurations that are close
        is_tried = (torch.cdist(self.points, tried.to(self.points), compute_mode=exactly) < SAME).any(-1)
        best = self.regrets[is_tried].amin(0) if bool(is_tried.any()) else torch.ones_like(self.regrets[0])
        gain = (best - self.regrets).clamp(min=0.0) @ weights
        worth = gain if bool(gain.max() > 0.0) else -self.regrets @ weights
        return self.points[worth.masked_fill(is_tried, -torch.inf).argmax()]


def _regrets(tasks: Data) -> Tensor:
    in_order = tasks.y.masked_fill(~tasks.mask, torch.inf).sort(-1).values
    bad = in_order.gather(-1, (BAD * (tasks.count[:, None] - 1)).long())
    best = tasks.y.masked_fill(~tasks.mask, -torch.inf).amax(-1, keepdim=True)
    # where nearly all values are the best there is
    bad = torch.where(bad < best, bad, in_order[:, :1])
    return ((best - tasks.y) / (best - bad)).clamp(max=1.0)
