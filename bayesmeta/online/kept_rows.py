"""Posteriors in place of families that keep their rows."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.online.protocol import DrawsFunctions, Index, State, Task, marginal_of
from bayesmeta.protocol import Posterior, Predictive

__all__ = ["OnlineRows"]

FIRST_CAPACITY = 16  # rows


class OnlineRows(DrawsFunctions):
    """Posterior of a family that keeps its rows: a decision conditions the prior on all rows of its entries."""

    def __init__(self, prior: Predictive, batch_shape: Sequence[int]) -> None:
        if prior.batch_shape:
            raise ValueError(
                f"a family that keeps its rows needs one prior for all tasks and arms; got batch_shape "
                f"{tuple(prior.batch_shape)}"
            )
        self.prior = prior
        self.batch_shape = torch.Size(batch_shape)
        device = getattr(prior, "device", None)
        self._count = torch.zeros(self.batch_shape, dtype=torch.long, device=device)
        self._x, self._y = (torch.zeros(*self.batch_shape, *rest, device=device) for rest in ((0, 0), (0,)))

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        self.prior.condition(Data.of(x[:, None], y[:, None]))  # rows of the wrong kind are refused before any is added
        for i in range(len(y)):  # an entry may be named more than once
            entry = tuple(int(part[i]) for part in index)
            place = int(self._count[entry])
            if place == self._y.shape[-1]:
                self._grow(x, y)
            self._x[(*entry, place)], self._y[(*entry, place)] = x[i], y[i]
            self._count[entry] += 1

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return marginal_of(self._at(x, task), x)

    def posterior(self, index: Any = ...) -> Predictive:
        return self._conditioned(index, self._x.shape[-1]) if self._x.shape[-1] else self.prior

    def state_dict(self) -> State:
        return {"count": self._count, "x": self._x, "y": self._y}

    def load_state_dict(self, state: State) -> None:
        self._count, self._x, self._y = (state[name].clone() for name in ("count", "x", "y"))

    def _grow(self, x: Tensor, y: Tensor) -> None:
        old = self._y.shape[-1]
        capacity = max(FIRST_CAPACITY, 2 * old)
        grown_x, grown_y = (
            x.new_zeros(*self.batch_shape, capacity, x.shape[-1]),
            y.new_zeros(*self.batch_shape, capacity),
        )
        if old:
            grown_x[..., :old, :], grown_y[..., :old] = self._x, self._y
        self._x, self._y = grown_x, grown_y

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Callable[[Tensor], Tensor]:
        # whoever asks for draws has a family that can be drawn from
        return cast(Posterior, self._at(x, task)).sample(1, generator=generator)

    def _at(self, x: Tensor, task: Task) -> Predictive:
        index = ... if task is None else torch.full((len(x),), task) if isinstance(task, int) else task
        return self._conditioned(index, x.shape[-1])

    def _conditioned(self, index: Any, num_inputs: int) -> Predictive:
        count = self._count[index]
        most = int(count.max())
        mask = torch.arange(most, device=count.device) < count[..., None]
        if not most:
            x, y = (torch.zeros(*mask.shape, *rest, device=mask.device) for rest in ((num_inputs,), ()))
            return self.prior.condition(Data(x, y, mask))
        return self.prior.condition(Data(self._x[index][..., :most, :], self._y[index][..., :most], mask))
