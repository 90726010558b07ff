"""The families that must pass the laws of `test_laws.py`: adding one is one entry of FAMILIES."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.random import rand, randn

F64 = torch.zeros((), dtype=torch.float64)


def seed(number: int) -> Generator:
    return torch.Generator().manual_seed(number)


@dataclass(frozen=True)
class Family:
    """A prior without batch, and how to draw inputs and outputs that it can model."""

    prior: Any
    num_inputs: int
    draw_y: Callable[[int, Generator], Tensor]
    rtol: float = 1e-10

    def draw_x(self, n: int, generator: Generator) -> Tensor:
        return rand((n, self.num_inputs), like=F64, generator=generator)

    def rows(self, n: int, number: int = 0) -> Data:
        """n rows of one task."""
        generator = seed(number)
        x, y = self.draw_x(n, generator), self.draw_y(n, generator)
        return Data.of(x, y, event_dim=y.ndim - 1)

    def tasks(self, lengths: list[int], number: int = 0) -> Data:
        """One ragged task per length."""
        rows = [self.rows(n, number + i) for i, n in enumerate(lengths)]
        return Data.pad([(r.x, r.y) for r in rows])


def _spd(d: int, number: int) -> Tensor:
    a = randn((d, d), like=F64, generator=seed(number))
    return a @ a.mT + d * torch.eye(d, dtype=torch.float64)


def _linear() -> Family:
    prior = bm.LinearGaussian(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64), _spd(3, 1), F64 + 0.3)
    return Family(prior, 3, lambda n, g: randn((n,), like=F64, generator=g))


FAMILIES: dict[str, Family] = {"linear_gaussian": _linear()}
