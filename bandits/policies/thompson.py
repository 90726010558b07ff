"""Thompson sampling: choose the best arm of one draw.

Where arms share weights (`Joined`, `Crossed`, `Hybrid`, `Numbered`), the draw is of the weights, once per decision, and
so coherent across arms. `MarginalThompson` draws each arm alone, which costs less for correlated arms and is another
policy: it explores arms that are sure to be like the best one.

Source: Thompson, On the likelihood that one unknown probability exceeds another in view of the evidence of two samples
(1933).
"""

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bandits.decisions.policy import Policy
from bandits.prospects.capabilities import is_jointly_normal
from bandits.prospects.lines import best_along_lines
from bandits.prospects.propensity import (
    Propensities,
    best_of_independent,
    of_best,
    of_chosen,
)
from bandits.prospects.prospects import Prospects
from bayesmeta.distributions.axes import with_axis
from bayesmeta.distributions.link_marginals import on_link

__all__ = ["MarginalThompson", "ThompsonSampling"]


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
