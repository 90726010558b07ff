"""Rewards that drift: rows count less with age, so that what is not looked at goes back to the prior.

Source: Raj and Kalyani, Taming non-stationary bandits: a Bayesian approach (2017), who let the prior fade too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bandits.beliefs.wrapped import ByPosterior, ExpandableSums, Wrapped, entries, turns
from bayesmeta.online.protocol import Index, State, Task
from bayesmeta.online.sums import RowStatistics

__all__ = ["Forgetting"]


@dataclass(frozen=True, eq=False)
class Forgetting(Wrapped):
    """A task whose arms drift: each row counts `factor` times as much for every later row of its task.

    The prior does not fade: an arm that is not tried for long is again as uncertain as a new one, and no more.

    Args:
        prior: of a task that does not change, with additive statistics.
        factor: above 0, at most 1; about 1 / (1 - factor) rows count.

    Raises:
        ValueError: `factor` is out of its range.
    """

    prior: ExpandableSums
    factor: float

    def __post_init__(self) -> None:
        if not 0.0 < self.factor <= 1.0:
            raise ValueError(f"factor must be above 0, and at most 1; got {self.factor}")

    def online(self, batch_shape: Sequence[int]) -> "OnlineForgetting":
        return OnlineForgetting(self, batch_shape)


class OnlineForgetting(ByPosterior):
    """Statistics of each entry, and the time of its task at which they were last discounted."""

    def __init__(self, prior: Forgetting, batch_shape: Sequence[int]) -> None:
        self._factor, self._prior = prior.factor, prior.prior.expand(batch_shape)
        self.batch_shape = torch.Size(batch_shape)
        self._rows = RowStatistics(self._prior)
        self._clock = torch.zeros(self.batch_shape[0], dtype=torch.long)
        self._last = torch.zeros(self.batch_shape, dtype=torch.long)

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        self._rows.require(x, y)
        for turn in turns(index[0]):
            entry = tuple(part[turn] for part in index)
            self._clock[entry[0]] += 1
            now = self._clock[entry[0]]
            self._rows.discount(self._factor ** (now - self._last[entry]).double(), entry)
            self._rows.add(entry, x[turn], y[turn])
            self._last[entry] = now

    def posterior(self, index: Any = ...) -> Any:
        if self._rows.are_none:
            return self._prior[index]
        clock = self._clock.reshape(-1, *[1] * (len(self.batch_shape) - 1)).expand(self.batch_shape)
        age = (clock[index] - self._last[index]).double()
        return self._prior[index].condition(self._rows.discounted(self._factor**age, index))

    def state_dict(self) -> State:
        return {"rows": self._rows.state_dict(), "last": self._last, "whole": {"clock": self._clock}}

    def load_state_dict(self, state: State) -> None:
        self._rows.load_state_dict(state["rows"])
        self._last, self._clock = state["last"].clone(), state["whole"]["clock"].clone()

    def _at(self, x: Tensor, task: Task) -> Any:
        return self.posterior(entries(task, len(x)))
