"""Rewards that change: only the latest rows of a task count.

Source: Garivier and Moulines, On upper-confidence bound policies for switching bandit problems (2011).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bandits.beliefs.wrapped import ByPosterior, Wrapped, entries, turns
from bayesmeta.data.rows import Data
from bayesmeta.online.protocol import Index, State, Task
from bayesmeta.protocol import Expandable, Predictive

__all__ = ["SlidingWindow"]


@runtime_checkable
class Conditioned(Expandable, Predictive, Protocol):
    """A prior of any family."""


@dataclass(frozen=True, eq=False)
class SlidingWindow(Wrapped):
    """A task of which the latest `size` rows count, of all its arms together, and no others.

    Args:
        prior: of a task that does not change, of any family.
        size: rows.

    Raises:
        ValueError: `size` is below 1.
    """

    prior: Conditioned
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1 row; got {self.size}")

    def online(self, batch_shape: Sequence[int]) -> "OnlineWindow":
        return OnlineWindow(self, batch_shape)


class OnlineWindow(ByPosterior):
    """A ring of rows for each task, and which of them are of which arm."""

    def __init__(self, prior: SlidingWindow, batch_shape: Sequence[int]) -> None:
        self._size, self._prior = prior.size, prior.prior
        self.batch_shape = torch.Size(batch_shape)
        if self._prior.batch_shape:  # else one prior serves all
            self._prior = self._prior.expand(batch_shape)
        self._clock = torch.zeros(self.batch_shape[0], dtype=torch.long)
        self._of = torch.zeros(*self.batch_shape, prior.size, dtype=torch.bool)
        self._x, self._y = torch.zeros(len(self._clock), prior.size, 0), torch.zeros(len(self._clock), prior.size)

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        # rows of the wrong kind are refused before any is added
        self._prior_of(index).condition(Data.of(x[:, None], y[:, None]))
        if not bool(self._clock.any()):
            self._x = x.new_zeros(*self._y.shape, x.shape[-1])
            self._y = y.new_zeros(self._y.shape)
        for turn in turns(index[0]):
            entry = tuple(part[turn] for part in index)
            place = self._clock[entry[0]] % self._size
            self._of.movedim(-1, 1)[entry[0], place] = False
            self._of[(*entry, place)] = True
            self._x[entry[0], place], self._y[entry[0], place] = x[turn], y[turn]
            self._clock[entry[0]] += 1

    def posterior(self, index: Any = ...) -> Any:
        mask = self._of[index]
        first = index[0] if isinstance(index, tuple) else index
        x, y = self._x[first], self._y[first]
        for _ in range(mask.ndim - y.ndim):
            x, y = x.unsqueeze(-3), y.unsqueeze(-2)
        used = mask.any(tuple(range(mask.ndim - 1))) if mask.ndim > 1 else mask
        x, y, mask = x[..., used, :], y[..., used], mask[..., used]
        return self._prior_of(index).condition(Data(x.expand(*mask.shape, -1), y.expand(mask.shape), mask))

    def state_dict(self) -> State:
        return {"of": self._of, "whole": {"clock": self._clock, "x": self._x, "y": self._y}}

    def load_state_dict(self, state: State) -> None:
        self._of, whole = state["of"].clone(), state["whole"]
        self._clock, self._x, self._y = (whole[name].clone() for name in ("clock", "x", "y"))

    def _at(self, x: Tensor, task: Task) -> Any:
        if not bool(self._clock.any()):
            self._x, self._y = (
                x.new_zeros(*self._y.shape, x.shape[-1]),
                self._y.to(x.dtype if x.is_floating_point() else torch.get_default_dtype()),
            )
        return self.posterior(entries(task, len(x)))

    def _prior_of(self, index: Any) -> Any:
        return self._prior[index] if self._prior.batch_shape else self._prior
