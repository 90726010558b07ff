"""Sets of arms: what an oracle returns, checked, and what was chosen."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bandits.decisions.choices import ids_of, rewards_of
from bandits.decisions.numbers import truths_of, whole_numbers_of
from bayesmeta.describe import Described

__all__ = ["SetChoice", "SetChoices", "ids_and_rewards", "sets_of"]

WAYS = "a mask of True and False, or a list of positions for each decision"


@dataclass(frozen=True, eq=False)
class SetChoice:
    """The set of arms that was chosen at one decision.

    Args:
        ids: numbers by which `update` knows the arms of this choice, `(m,)`.
        arm: their positions `(m,)`, in the order in which the oracle named them.
        arms: their names.
        task: of a policy for several tasks.
    """

    ids: Tensor
    arm: Tensor
    arms: tuple[Hashable, ...]
    task: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class SetChoices(Described, Sequence[SetChoice]):
    """Sets of several decisions, in their order.

    Args:
        ids: of all chosen arms, those of the first decision first, `(m,)`.
        arm: position of each `(m,)`.
        decision: of each `(m,)`.
        task: of each decision `(n,)`.
        names: of all arms there are.
    """

    ids: Tensor
    arm: Tensor
    decision: Tensor
    task: Tensor
    names: tuple[Hashable, ...]

    def __len__(self) -> int:
        return len(self.task)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        mine = self.decision == number
        arm = self.arm[mine]
        return SetChoice(self.ids[mine], arm, tuple(self.names[i] for i in arm.tolist()), int(self.task[number]))

    @property
    def sizes(self) -> Tensor:
        """Arms of each set, `(n,)`."""
        return self.decision.bincount(minlength=len(self))

    @property
    def mask(self) -> Tensor:
        """Which arms were chosen, `(n, arms)`."""
        mask = torch.zeros(len(self), len(self.names), dtype=torch.bool)
        mask[self.decision, self.arm] = True
        return mask

    def pick(self, table: Tensor) -> Tensor:
        """Of one number for each arm of each decision `(n, arms)`, those of the chosen arms, as `update` takes them."""
        if table.shape != (len(self), len(self.names)):
            raise ValueError(f"a table must have shape {(len(self), len(self.names))}; got {tuple(table.shape)}")
        return table[self.decision, self.arm]


def sets_of(answer: Any, num: int, num_arms: int) -> tuple[Tensor, Tensor]:
    """Decision and position of each arm that an oracle named, `(m,)` each, in its order.

    Args:
        answer: what the oracle returned for `num` decisions.

    Raises:
        TypeError: it is neither a mask nor positions.
        ValueError: it is of another shape, a set is empty, or it names an arm twice.
        IndexError: there is no such arm.
    """
    if answer is None:
        raise TypeError(f"the oracle must return {WAYS}; got None")
    if isinstance(answer, Tensor):
        if answer.ndim != 2 or len(answer) != num:
            raise ValueError(f"the oracle must return {WAYS}, {num} in all; got shape {tuple(answer.shape)}")
    elif not hasattr(answer, "__len__") or len(answer) != num:
        got = len(answer) if hasattr(answer, "__len__") else type(answer).__name__
        raise ValueError(f"the oracle must return {WAYS}, {num} in all; got {got}")
    position = [_positions(some, i, num_arms) for i, some in enumerate(answer)]
    decision = torch.repeat_interleave(torch.arange(num), torch.tensor([len(some) for some in position]))
    return decision, torch.cat(position)


def ids_and_rewards(choice: Any, rewards: Any) -> tuple[Any, Tensor]:
    """Numbers of chosen arms, and the reward of each.

    Raises:
        ValueError: there are not as many rewards as arms, or one is not finite.
    """
    if isinstance(choice, SetChoices) and isinstance(rewards, list | tuple) and len(rewards) == len(choice):
        each = [rewards_of(some) for some in rewards]
        sizes = torch.tensor([len(some) for some in each])
        wrong = (sizes != choice.sizes).nonzero()
        if len(wrong):
            i = int(wrong[0])
            raise ValueError(f"each chosen arm has one reward; decision {i} has {choice.sizes[i]} and got {sizes[i]}")
        values = torch.cat(each)
    else:
        values = rewards_of(rewards)
    ids = choice.ids.numpy() if isinstance(choice, SetChoice | SetChoices) else ids_of(choice)
    if len(ids) != len(values):
        raise ValueError(f"each chosen arm has one reward; got {len(ids)} arms and {len(values)} rewards")
    return ids, values


def _positions(answer: Any, decision: int, num_arms: int) -> Tensor:
    """Arms of one set, from a mask or from their positions."""
    mask = truths_of(answer)
    if mask is not None:
        if mask.shape != (num_arms,):
            raise ValueError(f"a mask of the oracle must be of {num_arms} arms; got shape {tuple(mask.shape)}")
        position = mask.nonzero()[:, 0]
    else:
        position = whole_numbers_of(answer, "what the oracle returns: positions of arms").reshape(-1)
    if not len(position):
        raise ValueError(f"the oracle chose no arm at decision {decision}; a set needs at least one")
    bad = position[(position < 0) | (position >= num_arms)]
    if len(bad):
        raise IndexError(f"arm {int(bad[0])} of the oracle does not exist: there are {num_arms}, numbered from 0")
    if len(position.unique()) < len(position):
        arm, times = position.unique(return_counts=True)
        hint = " Is it a mask? Then it must be of True and False" if len(position) == num_arms else ""
        raise ValueError(f"the oracle named arm {int(arm[times.argmax()])} twice at decision {decision}.{hint}")
    return position
