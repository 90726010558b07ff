"""The arms that there are: by name, by position, and by a key that no other arm ever has."""

from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bandits.decisions.arms import Arms

__all__ = ["Roster"]


class Roster:
    """The list of arms, each with a name, a position and a key.

    A position changes: where an arm is removed, every later arm moves one place to the left. A key never changes, and
    no later arm gets it again, so what remembers an arm between two calls remembers its key.
    """

    def __init__(self, arms: Arms) -> None:
        self.arms = arms
        self._keys = list(range(len(arms.names)))
        self._next_key = len(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def names(self) -> tuple[Hashable, ...]:
        return self.arms.names

    @property
    def separate(self) -> bool:
        """Whether each arm has a posterior of its own."""
        return self.arms.separate

    def position(self, name: Hashable) -> int:
        """Where an arm is.

        Raises:
            ValueError: there is none of that name.
        """
        try:
            return self.arms.names.index(name)  # a scalar of NumPy is the name that it equals
        except ValueError:
            known = ", ".join(map(repr, self.arms.names[:10])) + (", ..." if len(self) > 10 else "")
            raise ValueError(f"there is no arm {name!r}; there are {known}") from None

    def positions(self, names: list[Hashable]) -> Tensor:
        """The same of several, `(m,)`."""
        return torch.tensor([self.position(name) for name in names], dtype=torch.long)

    def key(self, position: int) -> int:
        return self._keys[position]

    def keys(self, position: Tensor) -> Tensor:
        return torch.tensor(self._keys)[position]

    def positions_of_keys(self, key: np.ndarray) -> np.ndarray:
        """Where arms are now that are still there."""
        if self._next_key == len(self._keys):  # none was removed
            return key
        return np.searchsorted(np.asarray(self._keys), key)

    def others(self, position: int) -> list[int]:
        """Positions of all arms but one."""
        return [i for i in range(len(self)) if i != position]

    def added(self, arms: Arms) -> None:
        """Take the new list of arms: the old one, with one more at its end."""
        self.arms = arms
        self._keys.append(self._next_key)
        self._next_key += 1

    def removed(self, arms: Arms, position: int) -> int:
        """Take the new list of arms, the old one without that at `position`, and return the key of that arm."""
        self.arms = arms
        return self._keys.pop(position)

    def state_dict(self) -> dict[str, Any]:
        return {"keys": list(self._keys), "next_key": self._next_key}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._keys, self._next_key = list(state["keys"]), state["next_key"]
