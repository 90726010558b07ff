"""Posteriors that are updated in place: what a policy owns while its tasks run.

A frozen posterior is copied by every update, which is dear where there are thousands of tasks and arms and a row
changes one of them. So here the state is owned: rows are added to the entries of the batch that are named, and the rest
is not touched. The axes of the batch are tasks, or tasks and arms.

Decisions are asked about together, n at a time. Their `x` is `(n, *rest, q, d)`, `rest` being the axes of the batch
after that of tasks, or ones; `task` says to which task each decision belongs: None, decision i belongs to task i; a
whole number, all belong to this one; or `(n,)` of them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.distributions.link_marginals import drawn_on_link
from bayesmeta.protocol import Additive, Predictive, has_marginal, num_arms_of

__all__ = [
    "Begins",
    "DrawsFunctions",
    "InPlace",
    "Index",
    "NoMarginalError",
    "Online",
    "OnlineRows",
    "OnlineStatistics",
    "RowStatistics",
    "State",
    "Task",
    "distinct",
    "marginal_of",
    "online",
    "statistics_from",
    "statistics_state",
    "turn_of",
]

Task = Tensor | int | None
State = dict[str, Any]
Index = tuple[Tensor, ...]

FIRST_CAPACITY = 16  # rows


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

    def posterior(self, index: Any = ...) -> Any:
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
class InPlace(Protocol):
    """A prior that knows a faster way of being updated in place than `OnlineStatistics`."""

    def online(self, batch_shape: Sequence[int]) -> Online: ...


def online(prior: "Predictive | InPlace", batch_shape: Sequence[int]) -> Online:
    """The posterior of `batch_shape` entries before their first row, to be updated in place.

    Args:
        prior: its batch broadcasts to `batch_shape`.
        batch_shape: tasks, or tasks and arms.

    Raises:
        ValueError: it does not.
    """
    if isinstance(prior, InPlace):
        return prior.online(batch_shape)
    if isinstance(prior, Additive):
        return OnlineStatistics(prior, batch_shape)
    return OnlineRows(prior, batch_shape)


class DrawsFunctions:
    """Mixin of an `Online` whose draws are functions of a frozen posterior."""

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        values: Tensor = self._functions(x, task, generator)(x)
        return values[0]

    def draw_on_link(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        """As `draw`, on the scale of the family's link: an increasing function of f, with no end to round to."""
        return drawn_on_link(self._functions(x, task, generator), x)[0]

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Any:
        """One draw of functions for each decision."""
        raise TypeError("each state says what it draws from")


class OnlineStatistics(DrawsFunctions):
    """For families that know their rows through sums: an update conditions the entries that it names."""

    def __init__(self, prior: Any, batch_shape: Sequence[int]) -> None:
        self.prior = prior.expand(batch_shape)
        self.rows = RowStatistics(self.prior)
        self._now = _copy(self.prior)

    @property
    def batch_shape(self) -> torch.Size:
        return self.prior.batch_shape

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        self.rows.add(index, x, y)
        self._refresh(distinct(index))

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return marginal_of(self._at(task, len(x)), x)

    def posterior(self, index: Any = ...) -> Any:
        return _copy(self._now[index])

    def discount(self, factor: float | Tensor, index: Any = ...) -> None:
        """Let the rows of some entries count `factor` times as much as they did: the posterior moves to the prior."""
        if not self.rows.are_none:
            self.rows.discount(factor, index)
            self._refresh(index)

    def state_dict(self) -> State:
        return {"statistics": self.rows.state_dict(), "now": _tensors(self._now)}

    def load_state_dict(self, state: State) -> None:
        self.rows.load_state_dict(state["statistics"])
        for name, value in state["now"].items():
            getattr(self._now, name).copy_(value)

    def _refresh(self, index: Any) -> None:
        for name, value in _tensors(self.prior[index].condition(self.rows[index])).items():
            getattr(self._now, name)[index] = value

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Any:
        return self._at(task, len(x)).sample(1, generator=generator)

    def _at(self, task: Task, num: int) -> Any:
        if task is None:
            return self._now
        chosen = self._now[task]
        return chosen.expand((num, *self.batch_shape[1:])) if isinstance(task, int) else chosen


class RowStatistics:
    """Sums over the rows of each entry of a batch, in the form that a family takes, changed in place.

    Args:
        prior: whose `batch_shape` there are entries of; a family that knows arms by number has sums of each arm.
    """

    def __init__(self, prior: Any) -> None:
        self._prior, self._num_arms = prior, num_arms_of(prior)
        self._statistics: Statistics | None = None  # how many inputs rows have is known from the first

    @property
    def are_none(self) -> bool:
        """Whether there has been no row."""
        return self._statistics is None

    def require(self, x: Tensor, y: Tensor) -> None:
        """Refuse rows that the family cannot have, and make room for others.

        Raises:
            ValueError: a row is none that the family can have.
        """
        new = self._prior.statistics(Data.of(x[:, None], y[:, None]))
        if self._statistics is None:
            by_number, order = self._num_arms is not None, 1 if new.second is None else 2
            shape = (*self._prior.batch_shape, self._num_arms) if by_number else self._prior.batch_shape
            self._statistics = Statistics.zeros(shape, 0 if by_number else x.shape[-1], 1, order=order, device=y.device)

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        """Add one row `(m, d)`, `(m,)` to each entry that is named; an entry may be named more than once."""
        self.require(x, y)
        assert self._statistics is not None
        if self._num_arms is None:
            self._statistics.add_rows(index, x, y)
        else:
            self._statistics.add_rows((*index, x[:, 0].long()), x[:, :0], y)

    def discount(self, factor: float | Tensor, index: Any = ...) -> None:
        """Let the rows of some entries count `factor` times as much as they did."""
        if self._statistics is not None:
            self._statistics.discount(self._per_entry(factor), index)

    def discounted(self, factor: Tensor, index: Any = ...) -> Statistics:
        """Of some entries, as if they had been discounted."""
        assert self._statistics is not None
        chosen = self._statistics[index]
        factor = self._per_entry(factor)
        second = None if chosen.second is None else chosen.second * factor[..., None, None]
        return Statistics(
            chosen.count * factor, chosen.origin, chosen.first * factor[..., None], second, chosen.num_inputs
        )

    def clear(self, index: Any) -> None:
        """Forget the rows of some entries."""
        self.discount(0.0, index)

    def __getitem__(self, index: Any) -> Statistics:
        assert self._statistics is not None
        return self._statistics[index]

    def state_dict(self) -> State | None:
        return statistics_state(self._statistics)

    def load_state_dict(self, state: State | None) -> None:
        self._statistics = statistics_from(state)

    def _per_entry(self, factor: float | Tensor) -> Tensor:
        each = torch.as_tensor(factor, dtype=torch.float64)
        return each if self._num_arms is None or not each.ndim else each[..., None]


class OnlineRows(DrawsFunctions):
    """For families that keep their rows: a decision conditions the prior on all rows of its entries."""

    def __init__(self, prior: Any, batch_shape: Sequence[int]) -> None:
        if prior.batch_shape:
            raise ValueError(
                f"a family that keeps its rows needs one prior for all tasks and arms; got batch_shape "
                f"{tuple(prior.batch_shape)}"
            )
        self.prior = prior
        self.batch_shape = torch.Size(batch_shape)
        self._count = torch.zeros(self.batch_shape, dtype=torch.long)
        self._x, self._y = torch.zeros(*self.batch_shape, 0, 0), torch.zeros(*self.batch_shape, 0)

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

    def posterior(self, index: Any = ...) -> Any:
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

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Any:
        return self._at(x, task).sample(1, generator=generator)

    def _at(self, x: Tensor, task: Task) -> Any:
        index = ... if task is None else torch.full((len(x),), task) if isinstance(task, int) else task
        return self._conditioned(index, x.shape[-1])

    def _conditioned(self, index: Any, num_inputs: int) -> Any:
        count = self._count[index]
        most = int(count.max())
        mask = torch.arange(most) < count[..., None]
        if not most:
            x, y = torch.zeros(*mask.shape, num_inputs), torch.zeros(mask.shape)
            return self.prior.condition(Data(x, y, mask))
        return self.prior.condition(Data(self._x[index][..., :most, :], self._y[index][..., :most], mask))


def marginal_of(posterior: object, x: Tensor) -> Distribution:
    """p(f(x)) at each row.

    Raises:
        NoMarginalError: the family has none.
    """
    if not has_marginal(posterior):
        raise NoMarginalError(
            f"{type(posterior).__name__} has no marginal(x), which this needs; Thompson sampling needs only draws"
        )
    return posterior.marginal(x)


def distinct(index: Index) -> Index:
    """Each entry that `index` names, once."""
    if len(index[0]) == 1:
        return index
    return torch.stack(index).unique(dim=1).unbind(0)


def turn_of(index: Index) -> Tensor:
    """How many rows before it name the same entry, for each row `(m,)`."""
    key = index[0] if len(index) == 1 else torch.stack(index).unique(dim=1, return_inverse=True)[1]
    order = key.argsort(stable=True)
    place = torch.arange(len(key))
    new = torch.ones(len(key), dtype=torch.bool)
    new[1:] = key[order[1:]] != key[order[:-1]]
    turn = torch.empty_like(place)
    turn[order] = place - torch.where(new, place, 0).cummax(0).values
    return turn


def statistics_state(statistics: Statistics | None) -> State | None:
    if statistics is None:
        return None
    state = {"count": statistics.count, "origin": statistics.origin, "first": statistics.first}
    return (
        state
        | ({} if statistics.second is None else {"second": statistics.second})
        | {"num_inputs": statistics.num_inputs}
    )


def statistics_from(state: State | None) -> Statistics | None:
    if state is None:
        return None
    tensors: dict[str, Any] = {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
    return Statistics(**{"second": None} | tensors, num_inputs=state["num_inputs"])


def _tensors(posterior: Any) -> dict[str, Tensor]:
    fields = {field.name: getattr(posterior, field.name) for field in dataclasses.fields(posterior)}
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}


def _copy(posterior: Any) -> Any:
    return posterior._replace(
        **{name: value.clone(memory_format=torch.contiguous_format) for name, value in _tensors(posterior).items()}
    )
