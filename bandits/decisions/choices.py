"""What a policy chose, and how choices and their rewards are told to it again."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bandits.decisions.numbers import numbers_of
from bandits.prospects.propensity import Propensities
from bayesmeta.describe import Described

__all__ = ["Choice", "Choices", "ids_of", "names_of", "rewards_of"]


@dataclass(frozen=True)
class Choice:
    """What a policy chose.

    Args:
        id: its number, by which `update` knows it.
        arm: the name of the arm.
        task: of a policy for several tasks.
        propensity: the probability that this arm had; None where it was not asked for.
        propensity_error: the standard error of that, None where it is exact.
    """

    id: int
    arm: Hashable
    task: int = 0
    propensity: float | None = None
    propensity_error: float | None = None

    @classmethod
    def of(cls, id: int, arm: Hashable, task: int, propensities: Propensities | None) -> "Choice":
        """With its propensity, the only one of `propensities`."""
        if propensities is None:
            return cls(id, arm, task)
        error = None if propensities.error is None else float(propensities.error[0])
        return cls(id, arm, task, float(propensities.probability[0]), error)


@dataclass(frozen=True, eq=False)
class Choices(Described, Sequence[Choice]):
    """Several choices together, in the order of the decisions.

    Args:
        ids: their numbers `(n,)`.
        arm: position of each arm among `names`, `(n,)`.
        task: of each `(n,)`.
        names: of the arms.
        propensity, propensity_error: as of `Choice`, `(n,)` each.
    """

    ids: Tensor
    arm: Tensor
    task: Tensor
    names: tuple[Hashable, ...]
    propensity: Tensor | None = None
    propensity_error: Tensor | None = None

    @classmethod
    def of(
        cls, first: int, arm: Tensor, task: Tensor, names: tuple[Hashable, ...], propensities: Propensities | None
    ) -> "Choices":
        """Numbered from `first` on, with their propensities `(n,)`."""
        return cls(torch.arange(first, first + len(arm)), arm, task, names, *(propensities or (None, None)))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            parts = [None if v is None else v[index] for v in (self.propensity, self.propensity_error)]
            return Choices(self.ids[index], self.arm[index], self.task[index], self.names, *parts)
        propensity, error = (None if v is None else float(v[index]) for v in (self.propensity, self.propensity_error))
        return Choice(int(self.ids[index]), self.names[int(self.arm[index])], int(self.task[index]), propensity, error)

    @property
    def arms(self) -> list[Hashable]:
        """Names of the chosen arms."""
        return [self.names[i] for i in self.arm.tolist()]


def ids_of(choice: Any) -> np.ndarray:
    if isinstance(choice, Choice):
        return np.array([choice.id])
    if isinstance(choice, Choices):
        return choice.ids.numpy()
    if isinstance(choice, int):
        return np.array([choice])
    if isinstance(choice, Sequence) and choice and isinstance(choice[0], Choice):
        return np.array([one.id for one in choice])
    if hasattr(choice, "to_numpy"):
        choice = choice.to_numpy()
    ids = np.asarray(choice)
    if ids.ndim > 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise TypeError(f"a choice is what choose returned, or its number; got {choice!r}")
    return ids.reshape(-1)


def names_of(arms: Any) -> list[Hashable]:
    """Names of arms from a list, set, array or series of them; a text is one name, not one for each letter.

    Raises:
        TypeError: they are no list.
    """
    if isinstance(arms, str | bytes):
        return [arms]
    names = arms.tolist() if hasattr(arms, "tolist") else arms.to_list() if hasattr(arms, "to_list") else arms
    try:
        return list(names)
    except TypeError:
        raise TypeError(f"arms must be a list of names; got {arms!r}. Try [{arms!r}]") from None


def rewards_of(reward: Any) -> Tensor:
    if isinstance(reward, float | int):
        if not math.isfinite(reward):
            raise ValueError(f"a reward must be finite; got {reward}. Leave choices without a reward out")
        return torch.tensor([reward], dtype=torch.float64)
    rewards = numbers_of(reward, "rewards").reshape(-1)
    if not bool(rewards.isfinite().all()):
        raise ValueError("rewards must be finite; these are not. Leave choices without a reward out")
    return rewards
