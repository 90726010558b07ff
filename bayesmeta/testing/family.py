"""What the laws are asked of: a prior, and rows that it can model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.doors import first_tensor

__all__ = ["Family"]


@dataclass(frozen=True)
class Family:
    """A prior without batch, and how to draw inputs and outputs that it can model.

    Args:
        prior: in float64.
        num_inputs: columns of x.
        draw_y: outputs of n rows, of a number and a generator.
        rtol: to which answers in closed form agree.
        num_draws: of the laws about draws.
        evidence_rtol: where predictions or the evidence are approximate.
        farthest_x, farthest_y: standard deviations that x, with a column of ones, and y may lie from zero; 0 where it
            matters where they lie.
        exempt: names of laws that the family does not obey; say beside it why that is right.
        shift: added to every seed, so that a test need not depend on one.
    """

    prior: Any
    num_inputs: int
    draw_y: Callable[[int, Generator], Tensor]
    rtol: float = 1e-10
    num_draws: int = 20_000
    evidence_rtol: float | None = None
    farthest_x: float = 0.0
    farthest_y: float = 0.0
    exempt: frozenset[str] = frozenset()
    shift: int = 0

    def seed(self, number: int) -> Generator:
        """A generator on the CPU, for rows."""
        return Generator().manual_seed(number + self.shift)

    @property
    def device(self) -> torch.device:
        """Of the prior's tensors, where rows go too; the CPU if it has none."""
        found = first_tensor(self.prior)
        return torch.device("cpu") if found is None else found.device

    def generator(self, number: int) -> Generator:
        """A generator on the prior's device, for draws of it."""
        return Generator(device=self.device).manual_seed(number + self.shift)

    def draw_x(self, n: int, generator: Generator) -> Tensor:
        """Inputs of n rows `(n, num_inputs)`, uniform; for subclasses whose inputs are of another kind."""
        return torch.rand(n, self.num_inputs, dtype=torch.float64, generator=generator)

    def inputs(self, n: int, number: int) -> Tensor:
        """Inputs of n rows, on the prior's device."""
        return self.draw_x(n, self.seed(number)).to(self.device)

    def rows(self, n: int, number: int = 0) -> Data:
        """n rows of one task."""
        generator = self.seed(number)
        x, y = self.draw_x(n, generator), self.draw_y(n, generator)
        return Data.of(x.to(self.device), y.to(self.device), event_dim=y.ndim - 1)

    def tasks(self, lengths: list[int], number: int = 0) -> Data:
        """One ragged task per length."""
        rows = [self.rows(n, number + i) for i, n in enumerate(lengths)]
        return Data.pad([(r.x, r.y) for r in rows])
