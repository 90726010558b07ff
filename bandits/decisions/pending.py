"""Choices whose reward has not come: what an update needs of each, found by its number.

A ring of the latest choices in plain arrays: a choice costs a few writes, and memory does not grow with their number.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesmeta.doors import require_count

__all__ = ["Pending"]

FIRST_CAPACITY = 1024
OPEN, DONE, GONE = 1, 2, 3  # gone: its arm was removed


class Pending:
    """Task, arm and row of each of the latest choices, and whether it has had its reward.

    Args:
        capacity: choices that are remembered at most, the latest; rewards of older ones are refused.
    """

    def __init__(self, capacity: Any) -> None:
        self.capacity = capacity = require_count("max_pending", capacity)
        self.next_id = 0
        size = min(capacity, FIRST_CAPACITY)
        self._state = np.zeros(size, np.uint8)
        self._task, self._arm = np.zeros(size, np.int64), np.zeros(size, np.int64)
        self._x: np.ndarray | None = None  # as wide as the first row

    def begin(self, task: Tensor | int, arm: Tensor | int, x: Tensor) -> int:
        """The first of the numbers that new choices get.

        Args:
            task: of each `(n,)`, or a whole number, as is `arm`; then x is one row.
            x: rows `(n, d)`.
        """
        num = 1 if isinstance(arm, int) else len(arm)
        if num > len(self._state):
            self._grow(num)
        rows = x.numpy()
        if self._x is None:
            self._x = np.zeros((len(self._state), rows.shape[-1]), rows.dtype)
        first = self.next_id
        self._make_room(first, num)
        size = len(self._state)
        places: Any = first % size if isinstance(arm, int) else np.arange(first, first + num) % size
        self._state[places] = OPEN
        self._task[places], self._arm[places], self._x[places] = task, arm, rows
        self.next_id = first + num
        return first

    def places(self, ids: np.ndarray) -> np.ndarray:
        """Where these choices are.

        Raises:
            ValueError: one was never made, has had its reward, is named twice, was forgotten, or its arm was removed.
        """
        size = len(self._state)
        if len(ids) == 1:
            id = int(ids[0])
            if not (0 <= id < self.next_id) or id < self.next_id - size or self._state[id % size] != OPEN:
                raise ValueError(self._reason(id))
            return ids % size
        bad = (ids < max(0, self.next_id - size)) | (ids >= self.next_id)
        places = ids % size
        bad |= self._state[places] != OPEN
        if bad.any():
            raise ValueError(self._reason(int(ids[bad.argmax()])))
        distinct, times = np.unique(ids, return_counts=True)
        if len(distinct) < len(ids):
            raise ValueError(f"choice {distinct[times.argmax()]} is given two rewards; each has one")
        return places

    def rows(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Task, arm and row of each."""
        assert self._x is not None
        return self._task[places], self._arm[places], torch.from_numpy(self._x[places])

    def end(self, places: np.ndarray) -> None:
        """They have their reward now."""
        self._state[places] = DONE

    def forget_arm(self, arm: int) -> None:
        self._state[(self._arm == arm) & (self._state == OPEN)] = GONE

    def is_open(self, id: int) -> bool:
        size = len(self._state)
        return max(0, self.next_id - size) <= id < self.next_id and self._state[id % size] == OPEN

    @property
    def num_open(self) -> int:
        return int((self._state == OPEN).sum())

    def state_dict(self) -> dict[str, Any]:
        arrays = {"state": self._state, "task": self._task, "arm": self._arm, "x": self._x}
        state: dict[str, Any] = {"next_id": self.next_id, "capacity": self.capacity}
        for name, array in arrays.items():
            state[name] = None if array is None else torch.from_numpy(np.array(array))
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state["state"].numpy().copy()
        self._task = state["task"].numpy().copy()
        self._arm = state["arm"].numpy().copy()
        self._x = None if state["x"] is None else state["x"].numpy().copy()
        self.next_id, self.capacity = state["next_id"], state["capacity"]

    def _reason(self, id: int) -> str:
        size = len(self._state)
        if not 0 <= id < self.next_id:
            return f"choice {id} was never made: {self.next_id} were, numbered from 0"
        if id < self.next_id - size:
            return f"choice {id} is too old: only the latest {size} are remembered. Try a larger max_pending"
        if self._state[id % size] == GONE:
            return f"choice {id} was of an arm that was removed since"
        return f"choice {id} has had its reward"

    def _make_room(self, first: int, num: int) -> None:
        """Open choices are overwritten only where `capacity` is reached."""
        size = len(self._state)
        if size >= self.capacity or first + num <= size:
            return
        overwritten = np.arange(first, first + num) % size
        if (self._state[overwritten] == OPEN).any():
            self._grow(2 * size)

    def _grow(self, least: int) -> None:
        old = len(self._state)
        if least > self.capacity:
            least = self.capacity if self.capacity > old else least  # one batch is remembered whole
        size = max(old, least)
        ids = np.arange(max(0, self.next_id - old), self.next_id)
        for name in ("_state", "_task", "_arm", "_x"):
            value = getattr(self, name)
            if value is not None:
                grown = np.zeros((size, *value.shape[1:]), value.dtype)
                grown[ids % size] = value[ids % old]
                setattr(self, name, grown)
