"""Rows of the entries of a batch, kept as they come."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.online.protocol import Index, State, rows_before

__all__ = ["RowStore"]

FIRST_CAPACITY = 16  # rows


class RowStore:
    """Inputs and outputs of each entry, with room for more than there are."""

    def __init__(self, batch_shape: Sequence[int], device: torch.device | None) -> None:
        self.batch_shape = torch.Size(batch_shape)
        self._count = torch.zeros(self.batch_shape, dtype=torch.long, device=device)
        self._x, self._y = (torch.zeros(*self.batch_shape, *rest, device=device) for rest in ((0, 0), (0,)))

    @property
    def num_inputs(self) -> int:
        """Columns of x; none before the first row."""
        return self._x.shape[-1]

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        """One row to each entry that `index` names; an entry may be named more than once."""
        place = self._count[index] + rows_before(index)
        while int(place.max()) >= self._y.shape[-1]:
            self._grow(x, y)
        self._x[(*index, place)], self._y[(*index, place)] = x, y
        self._count.index_put_(index, torch.ones_like(place), accumulate=True)

    def rows(self, index: Any, num_inputs: int) -> Data:
        """Of the entries that `index` takes from the batch."""
        count = self._count[index]
        most = int(count.max()) if count.numel() else 0
        mask = torch.arange(most, device=count.device) < count[..., None]
        if not most:
            x, y = (torch.zeros(*mask.shape, *rest, device=mask.device) for rest in ((num_inputs,), ()))
            return Data(x, y, mask)
        return Data(self._x[index][..., :most, :], self._y[index][..., :most], mask)

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
