"""Wrappers that add dynamics, or hypotheses about a whole task, to the prior of one arm."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.fields import TensorFields
from bayesmeta.online.protocol import DrawsFunctions, Task, marginal_of, rows_before
from bayesmeta.protocol import Additive, Expandable, Weighable, num_arms_of

__all__ = [
    "ByPosterior",
    "ExpandableSums",
    "LearnedByTasks",
    "WeighableSums",
    "Wrapped",
    "entries",
    "tasks_of",
    "turns",
]

L = TypeVar("L", bound="LearnedByTasks")
W = TypeVar("W", bound="Wrapped")


@runtime_checkable
class ExpandableSums(Additive, Expandable, Protocol):
    """A prior that a wrapper takes entries of and expands, and whose rows it knows through sums."""


@runtime_checkable
class WeighableSums(ExpandableSums, Weighable, Protocol):
    """One of which it also asks how likely rows are."""


class Wrapped(TensorFields):
    """Mixin of frozen dataclasses around a field `prior`, whose batch and arms they have."""

    prior: Any  # of the kind that the wrapper says

    @property
    def batch_shape(self) -> torch.Size:
        shape: torch.Size = self.prior.batch_shape
        return shape

    @property
    def event_shape(self) -> torch.Size:
        shape: torch.Size = self.prior.event_shape
        return shape

    @property
    def num_arms(self) -> int | None:
        """Of a prior that knows arms by number, else None."""
        return num_arms_of(self.prior)

    def expand(self: W, batch_shape: Sequence[int]) -> W:
        return self.around(self.prior.expand(batch_shape))

    def __getitem__(self: W, index: Any) -> W:
        return self.around(self.prior[index])

    def around(self: W, prior: Expandable) -> W:
        """The same around another prior."""
        return self._replace(prior=prior)


class LearnedByTasks(TensorFields):
    """Mixin of priors that tasks learn from each other, and that so are the same for all of them and their arms."""

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    def running(self: L, how: str) -> L:
        """Itself, which has been told how."""
        return self

    def expand(self: L, batch_shape: Sequence[int]) -> L:
        raise ValueError("arms of tasks that run together learn their priors: they cannot be given one each")


class ByPosterior(DrawsFunctions):
    """Draws and marginals of an `Online` that makes a posterior for each decision."""

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return marginal_of(self._at(x, task), x)

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Any:
        return self._at(x, task).sample(1, generator=generator)

    def _at(self, x: Tensor, task: Task) -> Any:
        """The posterior of each decision, of batch_shape `(n, *rest)`."""
        raise TypeError("each state says what its posterior is")


def entries(task: Task, num: int) -> Any:
    """The index of the batch's first axis that has an entry for each of `num` decisions."""
    if task is None:
        return slice(None)
    return torch.full((num,), task) if isinstance(task, int) else task


def tasks_of(index: Any) -> tuple[Any, tuple[Any, ...]]:
    """An index of tasks, or of tasks and arms, in two: of tasks, whose axis stays, and of what that leaves."""
    first, *rest = index if isinstance(index, tuple) else (index,)
    if isinstance(first, int):
        return slice(first, first + 1), (0, *rest)
    return slice(None) if first is ... else first, (slice(None), *rest)


def turns(task: Tensor) -> Iterator[Tensor]:
    """Positions of rows, in groups that name each task once at most, in the order in which rows of a task came."""
    if len(task) == 1:
        yield torch.zeros(1, dtype=torch.long)
        return
    turn = rows_before((task,))
    for i in range(int(turn.max()) + 1 if len(task) else 0):
        yield (turn == i).nonzero()[:, 0]
