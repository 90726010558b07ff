"""Posteriors that are updated in place: what a policy owns while its tasks run.

A frozen posterior is copied by every update, which is dear where there are thousands of tasks and arms and a row
changes one of them. So here the state is owned: rows are added to the entries of the batch that are named, and the rest
is not touched. The axes of the batch are tasks, or tasks and arms.

Decisions are asked about together, n at a time. Their `x` is `(n, *rest, q, d)`, `rest` being the axes of the batch
after that of tasks, or ones; `task` says to which task each decision belongs: None, decision i belongs to task i; a
whole number, all belong to this one; or `(n,)` of them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.distributions.link_marginals import drawn_on_link
from bayesmeta.protocol import Marginal, Predictive

__all__ = [
    "Begins",
    "DrawsFunctions",
    "Foretells",
    "InPlace",
    "Index",
    "NoMarginalError",
    "Online",
    "State",
    "Task",
    "Weighs",
    "distinct",
    "marginal_of",
    "rows_before",
]

Task = Tensor | int | None
State = dict[str, Any]
Index = tuple[Tensor, ...]


class NoMarginalError(TypeError):
    """The family has no `marginal`: it can be drawn from, and asked for nothing else."""


@runtime_checkable
class Online(Protocol):
    """A posterior that is updated in place."""

    @property
    def batch_shape(self) -> torch.Size:
        """Tasks, or tasks and arms."""
        ...

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        """Add one row to each entry that `index` names; an entry may be named more than once.

        Args:
            index: whole numbers `(m,)`, one tensor per axis of the batch.
            x: inputs `(m, d)`.
            y: outputs `(m,)`.

        Raises:
            ValueError: a row is none that the family can have; nothing was changed.
        """
        ...

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        """f(x), noise-free: one draw of a function for each decision, `(n, *rest, q)`.

        Draws of different entries of `rest` are independent, values at the q rows of one are of the same function.
        """
        ...

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        """p(f(x)), noise-free, at each row alone: of batch_shape `(n, *rest, q)`."""
        ...

    def posterior(self, index: Any = ...) -> Predictive:
        """A frozen copy of the entries that `index` takes from the batch: what happens later does not change it."""
        ...

    def state_dict(self) -> State:
        """All that changes: tensors whose first axes are the batch, and dictionaries of them."""
        ...

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`, for one of the same prior and batch_shape."""
        ...


@runtime_checkable
class Begins(Protocol):
    """A state to which it matters when a task makes its first decision."""

    def begin(self, tasks: Tensor, generator: Generator) -> None:
        """These tasks decide; those that did before are as they were."""
        ...


@runtime_checkable
class Foretells(Protocol):
    """A state that says faster than its frozen posterior how likely a row is."""

    def log_predictive(self, index: Index, x: Tensor, y: Tensor) -> Tensor:
        """log p(y | x) of one row of each of distinct entries, as of `Online.add`, before it is added: `(m,)`."""
        ...


@runtime_checkable
class Weighs(Protocol):
    """A state that keeps an estimate of how likely its rows were."""

    @property
    def log_evidence(self) -> Tensor:
        """log p(rows) of each entry, `batch_shape`."""
        ...


@runtime_checkable
class InPlace(Protocol):
    """A prior that knows a faster way of being updated in place than `OnlineStatistics`."""

    def online(self, batch_shape: Sequence[int]) -> Online: ...


class DrawsFunctions:
    """Mixin of an `Online` whose draws are functions of a frozen posterior."""

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        return self._functions(x, task, generator)(x)[0]

    def draw_on_link(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        """As `draw`, on the scale of the family's link: an increasing function of f, with no end to round to."""
        return drawn_on_link(self._functions(x, task, generator), x)[0]

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Callable[[Tensor], Tensor]:
        """One draw of a function for each decision."""
        raise TypeError("each state says what it draws from")


def marginal_of(posterior: Predictive, x: Tensor) -> Distribution:
    """p(f(x)) at each row.

    Raises:
        NoMarginalError: the family has none.
    """
    if not _is_marginal(posterior):
        raise NoMarginalError(
            f"{type(posterior).__name__} has no marginal(x), which this needs; Thompson sampling needs only draws"
        )
    return posterior.marginal(x)


def _is_marginal(posterior: Predictive) -> TypeGuard[Marginal]:
    """Asked once of each family, for the check of a protocol takes as long as a decision."""
    family = type(posterior)
    if family not in _MARGINAL:
        _MARGINAL[family] = isinstance(posterior, Marginal)
    return _MARGINAL[family]


_MARGINAL: dict[type, bool] = {}


def distinct(index: Index) -> Index:
    """Each entry that `index` names, once."""
    if len(index[0]) == 1:
        return index
    return torch.stack(index).unique(dim=1).unbind(0)


def rows_before(index: Index) -> Tensor:
    """How many rows before it name the same entry, for each row `(m,)`."""
    key = index[0] if len(index) == 1 else torch.stack(index).unique(dim=1, return_inverse=True)[1]
    order = key.argsort(stable=True)
    place = torch.arange(len(key), device=key.device)
    new = torch.ones_like(key, dtype=torch.bool)
    new[1:] = key[order[1:]] != key[order[:-1]]
    turn = torch.empty_like(place)
    turn[order] = place - torch.where(new, place, 0).cummax(0).values
    return turn
