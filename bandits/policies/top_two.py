"""Top-two Thompson sampling, which looks for the best arm.

Source: Russo, Simple Bayesian algorithms for best-arm identification (2020).
"""

from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Generator

from bandits.decisions.numbers import require_number
from bandits.decisions.request import one_task
from bandits.policies.explicit import Explicit
from bandits.prospects.propensity import Propensities, of_best
from bandits.prospects.prospects import Prospects

__all__ = ["TopTwoThompson"]


class Best(NamedTuple):
    """The arm that is probably the best, and how probable that is."""

    arm: Hashable
    probability: float


class TopTwoThompson(Explicit):
    """To find the best arm: half of the choices are of an arm that is probably the best, half of a challenger.

    The challenger is drawn as the leader is, given that it is another arm. `best` says which arm it is so far; stop
    when its probability is high enough. Under a prior that is right it may be looked at after every reward: among tasks
    that stop at a probability of .95, at least 95 of 100 have found the best arm.

    Args:
        share: of choices that are of the leader, above 0 and at most 1.
    """

    def __init__(self, prior: Any, arms: Any, *, share: Any = 0.5, **options: Any) -> None:
        self.share = require_number("share", share, 0.0, 1.0, above=True)
        super().__init__(prior, arms, **options)

    def best(self, *, task: Any = None) -> Any:
        """The arm that is probably the best, for arms that need no context.

        Args:
            task: one of the tasks; by default all of them, or the only one.

        Returns:
            A `Best` of one task, or a list of them, one for each.

        Raises:
            IndexError: the task does not exist.
        """
        one = None if task is None else one_task(self._learner.tasks, task)
        request = self._learner.request(None, one, None, None)
        probability, position = of_best(self._prospects(request), self._log_generator).probability.max(-1)
        found = [Best(self.arms[i], p) for i, p in zip(position.tolist(), probability.tolist(), strict=True)]
        return found[0] if request.is_one else found

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        leader = of_best(prospects, generator).probability
        itself = torch.eye(leader.shape[-1], dtype=torch.bool)
        there = prospects.there.to(leader)
        # of challengers (last axis) given the leader; where no other arm has any, each as likely
        challenger = leader[:, None].expand(-1, len(itself), -1).masked_fill(itself, 0.0)
        even = there[:, None].expand_as(challenger).masked_fill(itself, 0.0)
        challenger = torch.where(challenger.sum(-1, keepdim=True) > 0, challenger, even)
        challenger = torch.where(challenger.sum(-1, keepdim=True) > 0, challenger, itself.to(leader))
        challenger = challenger / challenger.sum(-1, keepdim=True)
        mixed = (leader[:, :, None] * challenger).sum(1)
        return Propensities(self.share * leader + (1.0 - self.share) * mixed, None)

    def _settings(self) -> dict[str, Any]:
        return {"share": self.share}
