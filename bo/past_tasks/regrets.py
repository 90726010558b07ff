r"""The list of configurations that past tasks would try first, where they share what they evaluated.

Benchmarks and grids evaluate the same configurations on every task. Their values then say which few configurations
complement each other, with no surrogate between: the next one is that which lowers the mean over past tasks of the
regret of the best so far the most. What was evaluated says which past tasks to listen to: with normal scores z of ranks
among the n configurations tried, task j counts by

$$ \exp\big(-\tfrac{1}{2 s^2} \textstyle\sum_i (z_i - z_{ji})^2\big), $$

as if its ranks were those of the new task but for noise of standard deviation s. Whether any task agrees is asked
in the same way.

Source: Wistuba, Schilling and Schmidt-Thieme, Sequential model-free hyperparameter tuning (2015), for the list.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.fields import TensorFields
from bo.past_tasks.scores import normal_scores

__all__ = ["PastRegrets"]

# regret is one this many times as far below the best as the median is: else a diverged run makes all others equal
WORST = 10.0
NOISE = 0.5  # of normal scores
LEAST_GAIN = 0.01  # of the mean regret of the best so far, which a trial of the list must take away
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

    def likeness(self, x: Float[Tensor, "n d"], y: Float[Tensor, " n"]) -> Float[Tensor, " tasks"]:
        """How much each past task counts after rows of a new one, more being better; equal before two are known."""
        new, past = self._scores(x, y)
        return (-0.5 * ((new - past) / NOISE).square().sum(-1)).softmax(-1)

    def agreement(self, x: Float[Tensor, "n d"], y: Float[Tensor, " n"]) -> float:
        """The probability that some past task ranks these rows as the new one does, from even odds.

        If none does, scores are standard normal.
        """
        new, past = self._scores(x, y)
        each = -0.5 * ((new - past) / NOISE).square().sum(-1) - len(new) * math.log(NOISE)
        some = each.logsumexp(0) - math.log(len(each))
        return float(torch.sigmoid(some + 0.5 * new.square().sum()))

    def next_point(
        self, tried: Float[Tensor, "n d"], weights: Float[Tensor, " tasks"] | None = None
    ) -> Float[Tensor, " d"] | None:
        """The configuration that lowers the mean regret of the best so far the most; None where none is worth a trial.

        Args:
            tried: points that need not be among those of the past.
            weights: of the tasks in the mean, together one; None for all alike.
        """
        if weights is None:
            weights = torch.full_like(self.regrets[0], 1.0 / self.regrets.shape[1])
        is_tried = self._same(tried).any(-1)
        best = self.regrets[is_tried].amin(0) if bool(is_tried.any()) else torch.ones_like(weights)
        gain = ((best - self.regrets).clamp(min=0.0) @ weights).masked_fill(is_tried, 0.0)
        is_worth_it = gain.max() > LEAST_GAIN * (best @ weights)
        return self.points[gain.argmax()] if bool(is_worth_it) else None

    def _scores(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Normal scores of the rows that the past has: of the new task `(n,)`, and of past ones `(tasks, n)`."""
        which, row = self._same(x).nonzero().unbind(-1)
        here = torch.ones(len(row), dtype=torch.bool)
        return normal_scores(y[row], here), normal_scores(
            -self.regrets[which].mT, here.expand(self.regrets.shape[1], -1)
        )

    def _same(self, x: Tensor) -> Tensor:
        """Which of the points are which rows of x: `(points, n)`."""
        exactly = "donot_use_mm_for_euclid_dist"  # the faster way by products confuses configurations that are close
        return torch.cdist(self.points, x.to(self.points), compute_mode=exactly) < SAME


def _regrets(tasks: Data) -> Tensor:
    in_order = tasks.y.masked_fill(~tasks.mask, torch.inf).sort(-1).values
    best = in_order.gather(-1, tasks.count[:, None] - 1)
    median = in_order.gather(-1, (tasks.count[:, None] - 1) // 2)
    limit = best - WORST * (best - median)
    worst = in_order[:, :1].maximum(torch.where(median < best, limit, -torch.inf))
    return ((best - tasks.y) / (best - worst)).clamp(max=1.0)
