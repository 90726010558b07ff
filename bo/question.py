"""Where should the next trial be? What is known when a sampler is asked, and the search for the answer."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.data import Data
from bo.search import Value, climb, masked
from bo.view import View

__all__ = ["Question"]

NUM_SOBOL = 256
NUM_GOOD = 5  # best rows, whose neighbours are candidates


@dataclass(frozen=True, eq=False)
class Question:
    """All that a sampler knows when it proposes a point.

    Args:
        view: where to search, and where that lies in the known space.
        evaluated: configurations in terms of the known space.
        y: their objectives.
        unevaluated: configurations that were tried and have no objective: those that run, and those that failed.
        maximize: whether more is better.
        generator: of all that is drawn for the answer.
    """

    view: View
    evaluated: Float[Tensor, "n p"]
    y: Float[Tensor, " n"]
    unevaluated: Float[Tensor, "m p"]
    maximize: bool
    generator: Generator

    @cached_property
    def rows(self) -> Data:
        """What was evaluated, as points of the known space."""
        return Data.of(self.view.known.encode(self.evaluated), self.y)

    @cached_property
    def pending(self) -> Tensor:
        """What has no objective, as points of the known space `(m, d)`."""
        return self.view.known.encode(self.unevaluated)

    @property
    def better(self) -> Tensor:
        """The objectives, more being better."""
        return self.y if self.maximize else -self.y

    def climb(self, value: Value, starts: Tensor | None = None) -> Tensor:
        """The best point of `view.space` that was not tried before, `(d,)`.

        Args:
            value: of points of the known space, more being better.
            starts: points of the known space to try as well.
        """
        view, taken = self.view, torch.cat([self.rows.x, self.pending])
        candidates = view.space.sobol(NUM_SOBOL, generator=self.generator)
        if starts is not None:
            candidates = torch.cat([candidates, view.from_known(view.known.decode(starts))])
        good = self.evaluated[self.better.topk(min(NUM_GOOD, len(self.y))).indices]

        def worth(x: Tensor) -> Tensor:
            points = view.to_known(x)
            return masked(value(points), points, taken)

        return climb(worth, view.space, candidates, view.from_known(good), generator=self.generator)
