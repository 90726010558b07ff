"""Where should the next trial be? What is known when a sampler is asked, and the search for the answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bo.acquisition.search import climb
from bo.acquisition.suggester import StudyState
from bo.space.study_space import OwnSpace, View
from bo.values import Expected, InOwnSpace, Near, Value

__all__ = ["Chances", "Request", "distance"]

NUM_SOBOL = 256
MAX_PENDING = 64  # points that a posterior is conditioned on without a value
NUM_GOOD = 5  # best rows, whose neighbours are candidates
APART, FAR_APART = 0.05, 0.2  # from what runs, in the unit cube, and from what is guessed
SAME = 1e-6
LIKELY = 0.6  # to succeed: on the edge of what is feasible half of the trials are not
LAST_RESORT = 1e9  # how much less is promised where everything is nearer to what runs


class Chances(NamedTuple):
    """The probability that a trial succeeds and meets all constraints, in parts that are multiplied; None where all do.

    Args:
        own: of points of the study's own space.
        known: of points of the known space.
    """

    own: Value | None = None
    known: Value | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """All that a sampler knows when it proposes a point.

    Args:
        view: where to search, and where that lies in the known space.
        evaluated: configurations in terms of the known space.
        y: their objectives.
        unevaluated: configurations that were tried and have no objective: those that failed, and those that run.
        running: those of them that were asked for lately.
        guessed: those of them that other workers are still searching, as far as one can tell.
        maximize: whether more is better.
        generator: of all that is drawn for the answer.
        turns: how the suggestions of other trials were made, see `bo.acquisition.schedule`.
        feasible: which of `evaluated` met all constraints `(n,)`; None where all did.
        chances: that a trial succeeds, and meets all constraints.
        user_attrs: of the study.
    """

    view: View
    evaluated: Float[Tensor, "n p"]
    y: Float[Tensor, " n"]
    unevaluated: Float[Tensor, "m p"]
    running: Float[Tensor, "r p"]
    guessed: Float[Tensor, "g p"]
    maximize: bool
    generator: Generator
    turns: Sequence[str] = ()
    feasible: Tensor | None = None
    chances: Chances = field(default_factory=Chances)
    user_attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> StudyState:
        """What a suggester sees: what was evaluated, and the latest of what has no objective."""
        known = self.view.known
        rows, pending = Data.of(known.encode(self.evaluated), self.y), known.encode(self.unevaluated[-MAX_PENDING:])
        return StudyState(known, rows, pending, self.maximize, self.turns, self.own, self.feasible)

    @cached_property
    def own(self) -> OwnSpace:
        """What was evaluated and what has no objective, in the study's own space."""
        return OwnSpace(self.view.own, self.view.to_own_from(self.evaluated), self._own_unevaluated[-MAX_PENDING:])

    @cached_property
    def _own_unevaluated(self) -> Tensor:
        return self.view.to_own_from(self.unevaluated)

    @property
    def better(self) -> Tensor:
        """The objectives, more being better."""
        return self.y if self.maximize else -self.y

    def climb(self, value: Value, starts: Tensor | None = None) -> Tensor:
        """The best point of `view.space` that was not tried before, `(d,)`.

        It keeps a small distance from what runs. That is believed to come out as expected, which is enough to send the
        next suggestion elsewhere unless a prior is sure where the best is, and sees noise around it.

        Args:
            value: of points of the known space, more being better.
            starts: points of the known space to try as well.
        """
        view = self.view
        taken = torch.cat([self.own.x, self._own_unevaluated])
        running, guessed = view.to_own_from(self.running), view.to_own_from(self.guessed)
        candidates = [view.space.sobol(NUM_SOBOL, generator=self.generator)]
        in_own_space = isinstance(value, InOwnSpace)
        goal = value.value if isinstance(value, InOwnSpace) else value
        if isinstance(goal, Near):
            nearest = (view.from_own if in_own_space else view.from_points)(goal.point[None])
            candidates.append(view.space.snap(nearest))  # the point need not be one of a configuration
        if starts is not None:
            candidates.append(view.from_points(starts))
        good = self.evaluated[self.better.topk(min(NUM_GOOD, len(self.y))).indices]

        def worth(x: Tensor) -> Tensor:
            own = view.to_own(x)
            known = own if in_own_space and self.chances.known is None else view.to_known(x)  # one that nobody asks
            promised = value(own if in_own_space else known)
            if (chance := self._chance(own, known)) is not None:
                promised = _if_it_succeeds(goal, promised, chance)
            if len(running):
                is_apart = (distance(own, running) > APART) & (distance(own, guessed) > FAR_APART)
                promised = promised.where(is_apart, promised - LAST_RESORT)
            return promised.where(distance(own, taken) > SAME, -torch.inf)

        return climb(worth, view.space, torch.cat(candidates), view.from_known(good), generator=self.generator)

    def _chance(self, own: Tensor, known: Tensor) -> Tensor | None:
        """That trials succeed at points, given in both spaces."""
        each = [(self.chances.own, own), (self.chances.known, known)]
        found = [chance(points) for chance, points in each if chance is not None]
        return None if not found else torch.stack(found).prod(0)


def _if_it_succeeds(goal: Value, promised: Tensor, chance: Tensor) -> Tensor:
    """What points promise with the probability that a trial succeeds there."""
    if isinstance(goal, Expected):
        return goal.times(promised, chance)
    return promised.where(chance >= LIKELY, promised - LAST_RESORT)  # other values say no more than what comes first


def distance(points: Float[Tensor, "n d"], others: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """From each point to the nearest of the others, to seven digits; infinite where there is none."""
    if not len(others):
        return points.new_full((len(points),), torch.inf)
    # by products, in a third of the time of cdist
    squared = torch.addmm(others.square().sum(-1), points, others.mT, alpha=-2.0).amin(-1) + points.square().sum(-1)
    return squared.clamp(min=0.0).sqrt()
