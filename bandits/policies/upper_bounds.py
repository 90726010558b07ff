"""Policies that choose the arm of the greatest upper bound.

Sources: Kaufmann, Cappé and Garivier, On Bayesian upper confidence bounds for bandit problems (2012); Auer,
Cesa-Bianchi and Fischer, Finite-time analysis of the multiarmed bandit problem (2002), for UCB1; Li et al., A
contextual-bandit approach to personalized news article recommendation (2010), for LinUCB.
"""

import math
from typing import Any

import torch
from torch import Tensor

from bandits.decisions.numbers import require_number
from bandits.policies.averages import Averages
from bandits.policies.explicit import Deterministic
from bandits.prospects.prospects import Prospects

__all__ = ["UCB1", "BayesUCB", "LinUCB"]


class BayesUCB(Deterministic):
    """Choose the arm whose quantile at 1 - 1 / ((t + 1) (log horizon)^power) is the greatest, at decision t.

    Args:
        horizon: decisions of a task, at least 2; with the power of 0 it does not matter.
        power: of its logarithm, not negative; 0 is what its authors use, 5 what they prove.
    """

    def __init__(self, prior: Any, arms: Any, *, horizon: Any = 1000, power: Any = 0.0, **options: Any) -> None:
        self.horizon = require_number("horizon", horizon, 2.0)
        self.power = require_number("power", power, 0.0)
        super().__init__(prior, arms, **options)

    def _scores(self, prospects: Prospects) -> Tensor:
        return prospects.quantile(self._level(prospects))

    def _compared(self, prospects: Prospects) -> Tensor:
        return prospects.quantile(self._level(prospects), on_its_link=True)

    def _level(self, prospects: Prospects) -> Tensor:
        t = prospects.rounds.to(torch.float64) + 1.0
        return 1.0 - 1.0 / ((t + 1.0) * math.log(self.horizon) ** self.power)

    def _settings(self) -> dict[str, Any]:
        return {"horizon": self.horizon, "power": self.power}


class LinUCB(Deterministic):
    """Choose the arm whose expected reward plus `width` standard deviations is the greatest.

    With a `LinearGaussian` prior of mean zero this is LinUCB: disjoint for names of arms, hybrid for `bandits.Hybrid`.

    Args:
        width: alpha of the paper, not negative.
    """

    def __init__(self, prior: Any, arms: Any, *, width: Any = 1.0, **options: Any) -> None:
        self.width = require_number("width", width, 0.0)
        super().__init__(prior, arms, **options)

    def _scores(self, prospects: Prospects) -> Tensor:
        return prospects.upper(self.width)

    def _settings(self) -> dict[str, Any]:
        return {"width": self.width}


class UCB1(Deterministic):
    """The mean of an arm's rewards, which lie between 0 and 1, plus sqrt(2 log t / n); arms without rewards come first.

    t is how many rewards the task has had.

    Args:
        width: what the second term is multiplied by, not negative.
    """

    def __init__(self, arms: Any, *, width: Any = 1.0, **options: Any) -> None:
        self.width = require_number("width", width, 0.0)
        super().__init__(Averages.none(), arms, **options)

    def _scores(self, prospects: Prospects) -> Tensor:
        pulls = prospects.pulls.expand(len(prospects.x), -1).to(torch.float64)
        t = prospects.rewards[:, None].to(pulls).clamp(min=1.0)
        bonus = self.width * (2.0 * t.log() / pulls.clamp(min=1.0)).sqrt()
        mean = prospects.marginal().mean[..., 0].double()
        return prospects.masked(torch.where(pulls > 0, mean + bonus, torch.inf))

    def _settings(self) -> dict[str, Any]:
        return {"width": self.width}
