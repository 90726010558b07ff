"""Policies that compute the probability of each arm first, and draw the choice from these."""

from typing import Any

from torch import Generator, Tensor

from bandits.decisions.numbers import require_number
from bandits.decisions.policy import Policy
from bandits.policies.averages import Averages
from bandits.prospects.propensity import Propensities
from bandits.prospects.prospects import Prospects
from bayesmeta.random import rand

__all__ = ["Deterministic", "EpsilonGreedy", "Explicit", "UniformlyRandom"]


class Explicit(Policy):
    """Choices are drawn from probabilities that are computed first, and logged as they are.

    Where these rest on draws, they are the probabilities given the draws: logs need no more.
    """

    def _decide(self, prospects: Prospects, wanted: bool) -> tuple[Tensor, Propensities | None]:
        propensities = self._probabilities(prospects, self._generator)
        arm = _one_of(propensities.probability, self._generator)
        return arm, propensities.of(arm) if wanted else None


class Deterministic(Explicit):
    """Choose the arm of the greatest score; among equal ones, each as often."""

    def _scores(self, prospects: Prospects) -> Tensor:
        raise TypeError("each policy has its scores")

    def _compared(self, prospects: Prospects) -> Tensor:
        """Scores, or what increases with them and rounds less."""
        return self._scores(prospects)

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        scores = self._compared(prospects)
        return Propensities(_each_as_often(scores == scores.amax(-1, keepdim=True)), None)


class EpsilonGreedy(Explicit):
    """Choose the arm of the greatest expected reward, but any arm at random with probability `epsilon`."""

    def __init__(self, prior: Any, arms: Any, *, epsilon: Any = 0.1, **options: Any) -> None:
        self.epsilon = require_number("epsilon", epsilon, 0.0, 1.0)
        super().__init__(prior, arms, **options)

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        mean = prospects.mean()
        greedy = _each_as_often(mean == mean.amax(-1, keepdim=True))
        return Propensities((1.0 - self.epsilon) * greedy + self.epsilon * _each_as_often(prospects.there), None)

    def _settings(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon}


class UniformlyRandom(Explicit):
    """Choose any arm, each as often: what others are compared with, and what makes logs for their evaluation."""

    def __init__(self, arms: Any, **options: Any) -> None:
        super().__init__(Averages.none(), arms, **options)

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        return Propensities(_each_as_often(prospects.there), None)


def _each_as_often(which: Tensor) -> Tensor:
    """One probability of each decision, shared by those of its arms `(n, arms)`; in float64, as logs keep it."""
    return which.double() / which.sum(-1, keepdim=True)


def _one_of(probability: Tensor, generator: Generator) -> Tensor:
    """Positions drawn with these probabilities `(n, arms)`."""
    below = probability.cumsum(-1)
    if bool(below[:, -1].isnan().any()):
        raise ValueError("the arms' probabilities are not numbers: rewards or contexts are too large. Scale them")
    uniform = rand((len(probability), 1), like=below, generator=generator) * below[:, -1:]
    return (below <= uniform).sum(-1).clamp(max=probability.shape[-1] - 1)
