"""Policies: each a function of what a posterior says of the arms.

Thompson sampling chooses the best arm of one draw. Where arms share weights (`Joined`, `Crossed`, `Hybrid`,
`Numbered`), the draw is of the weights, once per decision, and so coherent across arms. `MarginalThompson` draws each
arm alone, which costs less for correlated arms and is another policy: it explores arms that are sure to be like the
best one.

Sources: Thompson (1933); Russo, Simple Bayesian algorithms for best-arm identification (2020), for top-two; Kaufmann,
Cappé and Garivier, On Bayesian upper confidence bounds for bandit problems (2012); Auer, Cesa-Bianchi and Fischer,
Finite-time analysis of the multiarmed bandit problem (2002), for UCB1; Li et al., A contextual-bandit approach to
personalized news article recommendation (2010), for LinUCB.
"""

import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bandits.decisions.numbers import require_number
from bandits.decisions.policy import Policy
from bandits.decisions.request import Request, one_task
from bandits.policies.averages import Averages
from bandits.prospects.lines import best_along_lines
from bandits.prospects.propensity import (
    Propensities,
    best_of_independent,
    is_jointly_normal,
    of_best,
    of_chosen,
    with_axis,
)
from bandits.prospects.prospects import Prospects
from bayesmeta.distributions.link_marginals import on_link
from bayesmeta.random import rand

__all__ = [
    "UCB1",
    "BayesUCB",
    "EpsilonGreedy",
    "LinUCB",
    "MarginalThompson",
    "ThompsonSampling",
    "TopTwoThompson",
    "UniformlyRandom",
]


class Best(NamedTuple):
    """The arm that is probably the best, and how probable that is."""

    arm: Hashable
    probability: float


class ThompsonSampling(Policy):
    """Choose each arm as often as it is probably the best: the best of one joint draw of all arms.

    Propensities are exact where arms have a posterior each, and for two jointly normal arms; else they are averages
    over draws, with their standard errors, the draw that chose among them: so 1 / propensity is right on average.
    """

    def _choose(self, prospects: Prospects, generator: Generator) -> Tensor:
        return prospects.best(prospects.compared(generator), generator)

    def _decide(self, prospects: Prospects, wanted: bool) -> tuple[Tensor, Propensities | None]:
        if wanted and not prospects.separate and is_jointly_normal(prospects.online):
            return best_along_lines(prospects, prospects.online, self._generator, self._log_generator)
        if not wanted:
            return self._choose(prospects, self._generator), None
        values, marginal = prospects.compared_and_marginal(self._generator)
        arm = prospects.best(values, self._generator)
        at = values.gather(-1, arm[:, None])[:, 0]
        return arm, of_chosen(prospects, arm, self._log_generator, at=at, marginal=marginal)

    def _scores(self, prospects: Prospects) -> Tensor:
        return prospects.draw(self._generator)

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        return of_best(prospects, generator)


class MarginalThompson(Policy):
    """Choose the best of draws of each arm alone, however they are correlated.

    It is Thompson sampling where arms are independent. Where they share weights it is not: draws of like arms differ,
    and the greatest of many is too great, so that arms which are known to be no better are explored.
    """

    def _choose(self, prospects: Prospects, generator: Generator) -> Tensor:
        return prospects.best(self._drawn(prospects, on_link(prospects.marginal()), generator), generator)

    def _scores(self, prospects: Prospects) -> Tensor:
        return self._drawn(prospects, prospects.marginal(), self._generator)

    def _drawn(self, prospects: Prospects, marginal: Distribution, generator: Generator) -> Tensor:
        uniform = torch.rand(marginal.batch_shape, dtype=torch.float64, generator=generator)
        draws = marginal.icdf(uniform.clamp(min=torch.finfo(torch.float64).tiny))
        return prospects.masked(draws[..., 0] if prospects.separate else draws)

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        marginal = prospects.marginal() if prospects.separate else with_axis(prospects.marginal())
        return Propensities(best_of_independent(marginal, prospects.available), None)


class _Explicit(Policy):
    """Choices are drawn from probabilities that are computed first, and logged as they are.

    Where these rest on draws, they are the probabilities given the draws: logs need no more.
    """

    def _decide(self, prospects: Prospects, wanted: bool) -> tuple[Tensor, Propensities | None]:
        propensities = self._probabilities(prospects, self._generator)
        arm = _one_of(propensities.probability, self._generator)
        return arm, propensities.of(arm) if wanted else None


class TopTwoThompson(_Explicit):
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

    def best(self, *, task: Any = None) -> Best:
        """The arm that is probably the best, for arms that need no context.

        Raises:
            IndexError: the task does not exist.
        """
        request = Request(None, 0 if task is None else one_task(self._tasks, task), 1, True)
        probability = of_best(self._prospects(request), self._log_generator).probability[0]
        position = int(probability.argmax())
        return Best(self.arms[position], float(probability[position]))

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        leader = of_best(prospects, generator).probability
        itself = torch.eye(leader.shape[-1], dtype=torch.bool)
        there = torch.ones_like(leader) if prospects.available is None else prospects.available.to(leader)
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


class _Deterministic(_Explicit):
    """Choose the arm of the greatest score; among equal ones, each as often."""

    def _scores(self, prospects: Prospects) -> Tensor:
        raise TypeError("each policy has its scores")

    def _compared(self, prospects: Prospects) -> Tensor:
        """Scores, or what increases with them and rounds less."""
        return self._scores(prospects)

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        scores = self._compared(prospects)
        return Propensities(_each_as_often(scores == scores.amax(-1, keepdim=True)), None)


class BayesUCB(_Deterministic):
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


class LinUCB(_Deterministic):
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


class EpsilonGreedy(_Explicit):
    """Choose the arm of the greatest expected reward, but any arm at random with probability `epsilon`."""

    def __init__(self, prior: Any, arms: Any, *, epsilon: Any = 0.1, **options: Any) -> None:
        self.epsilon = require_number("epsilon", epsilon, 0.0, 1.0)
        super().__init__(prior, arms, **options)

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        mean = prospects.mean()
        there = torch.ones_like(mean, dtype=torch.bool) if prospects.available is None else prospects.available
        greedy = _each_as_often(mean == mean.amax(-1, keepdim=True))
        return Propensities((1.0 - self.epsilon) * greedy + self.epsilon * _each_as_often(there), None)

    def _settings(self) -> dict[str, Any]:
        return {"epsilon": self.epsilon}


class UCB1(_Deterministic):
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


class UniformlyRandom(_Explicit):
    """Choose any arm, each as often: what others are compared with, and what makes logs for their evaluation."""

    def __init__(self, arms: Any, **options: Any) -> None:
        super().__init__(Averages.none(), arms, **options)

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        arms = prospects.pulls.shape[-1]
        there = prospects.available
        there = torch.ones(len(prospects.x), arms, dtype=torch.bool) if there is None else there
        return Propensities(_each_as_often(there), None)


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
