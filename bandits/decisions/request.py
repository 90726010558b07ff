"""What a policy is asked: which decisions, in which tasks, with which contexts, among which of the arms."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bandits.decisions.choices import names_of
from bandits.decisions.numbers import numbers_of, truths_of, whole_numbers_of
from bayesmeta.doors import require_count
from bayesmeta.online.protocol import Task

__all__ = ["Request", "TaskNumbers", "one_task"]


class TaskNumbers(NamedTuple):
    """The tasks of a policy: how many, and whether it was made for one alone, which then needs no number."""

    num: int
    is_single: bool


@dataclass(frozen=True, eq=False)
class Request:
    """Decisions that are asked for together.

    Args:
        context: of each `(n, c)`; None where arms need none.
        task: of each `(n,)`, or of all; None for one decision in each task.
        num: how many there are.
        is_one: whether one was asked for alone, without an axis of decisions.
        available: which arms can be chosen `(n, arms)`; None for all.
    """

    context: Tensor | None
    task: Task
    num: int
    is_one: bool
    available: Tensor | None = None

    @classmethod
    def of(
        cls,
        tasks: TaskNumbers,
        context: Any,
        task: Any,
        num: int | None,
    ) -> "Request":
        """What a user gave, checked; among all arms.

        Raises:
            ValueError: a context is not finite, or shapes do not fit.
            IndexError: a task does not exist.
        """
        return cls(*_decisions(tasks, context, task, num))

    @property
    def task_of_each(self) -> Tensor:
        """The task of each decision, `(n,)`."""
        if self.task is None:
            return torch.arange(self.num)
        return self.task if isinstance(self.task, Tensor) else torch.full((self.num,), self.task)

    def among(self, available: Any, arms: Sequence[Hashable], position: Callable[[Hashable], int]) -> "Request":
        """The same among some of the arms, whose names are `arms`, and their places `position`.

        Raises:
            ValueError: no arm is available at some decision.
        """
        return replace(self, available=_mask(available, self.num, arms, position))


def _decisions(tasks: TaskNumbers, context: Any, task: Any, num: int | None) -> tuple[Tensor | None, Task, int, bool]:
    """Contexts `(n, c)`, the task of each, how many there are, and whether one was asked for alone."""
    if context is not None:
        context = numbers_of(context, "contexts")
        if not math.isfinite(context.sum().item()):
            raise ValueError("contexts must be finite; this one is not")
        if context.ndim not in (1, 2):
            raise ValueError(f"a context must have shape (c,), or (n, c) for n decisions; got {tuple(context.shape)}")
    alone = context is None or context.ndim == 1
    rows = context[None] if context is not None and alone else context
    if task is None and not tasks.is_single:
        if (alone and context is not None) or num is not None:
            raise ValueError(f"this policy has {tasks.num} tasks: say which by task")
        if rows is not None and len(rows) != tasks.num:
            raise ValueError(f"there must be a context for each of {tasks.num} tasks; got {len(rows)}")
        return rows, None, tasks.num, False
    index = _task_of_each(task)
    if isinstance(index, int):
        n = len(rows) if rows is not None else 1 if num is None else require_count("num", num)
    else:
        if index.ndim != 1 or (rows is not None and len(rows) != len(index)):
            raise ValueError(f"each decision needs its task; got shape {tuple(index.shape)}")
        alone, n = False, len(index)
    low, high = (index, index) if isinstance(index, int) else (int(index.min()), int(index.max())) if n else (0, 0)
    _require_tasks(tasks, low, high)
    if num is not None and rows is not None and num != len(rows):
        raise ValueError(f"num says {num} decisions; got contexts for {len(rows)}")
    return rows, index, n, alone and num is None


def _task_of_each(task: Any) -> int | Tensor:
    if task is None or isinstance(task, int):
        return task or 0
    index = whole_numbers_of(task, "task")
    return index if index.ndim else int(index)


def one_task(tasks: TaskNumbers, task: Any) -> int:
    """The number of one task.

    Raises:
        IndexError: it does not exist.
    """
    number = whole_numbers_of(task, "task")
    if number.numel() != 1:
        raise ValueError(f"task must be one of the tasks; got shape {tuple(number.shape)}")
    _require_tasks(tasks, int(number), int(number))
    return int(number)


def _require_tasks(tasks: TaskNumbers, low: int, high: int) -> None:
    if low < 0 or high >= tasks.num:
        bad = low if low < 0 else high
        raise IndexError(f"task {bad} does not exist: there are {tasks.num}, numbered from 0")


def _mask(available: Any, n: int, arms: Sequence[Hashable], position: Callable[[Hashable], int]) -> Tensor:
    num_arms = len(arms)
    are_names = isinstance(available, list | tuple) and any(isinstance(name, bool) for name in arms)
    mask = None if are_names else truths_of(available)
    if mask is not None:
        if mask.shape not in ((num_arms,), (n, num_arms)):
            raise ValueError(f"a mask must have shape ({num_arms},) or ({n}, {num_arms}); got {tuple(mask.shape)}")
        mask = mask.expand(n, num_arms)
    else:
        mask = torch.zeros(num_arms, dtype=torch.bool)
        mask[[position(name) for name in names_of(available)]] = True
        mask = mask.expand(n, num_arms)
    if not bool(mask.any(-1).all()):
        raise ValueError(f"no arm is available at decision {int((~mask.any(-1)).nonzero()[0])}; there must be one")
    return mask
