"""Posteriors in place of families that know their rows through sums."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.named_fields import named_tensors, with_fields
from bayesmeta.online.protocol import DrawsFunctions, Index, State, Task, distinct, marginal_of
from bayesmeta.protocol import Additive, Batched, Functions, Posterior, num_arms_of

__all__ = ["OnlineStatistics", "RowStatistics", "Summed", "statistics_from", "statistics_state"]

S = TypeVar("S", bound="Summed")


@runtime_checkable
class Summed(Additive, Batched, Protocol):
    """A family whose posteriors follow from sums over rows, entry by entry of the batch."""

    def expand(self: S, batch_shape: Sequence[int]) -> S:
        """The same for every entry of a larger batch."""
        ...


class OnlineStatistics(DrawsFunctions):
    """Posterior of a family that knows its rows through sums: an update conditions the entries that it names."""

    def __init__(self, prior: Summed, batch_shape: Sequence[int]) -> None:
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

    def posterior(self, index: Any = ...) -> Summed:
        return _copy(self._now[index])

    def discount(self, factor: float | Tensor, index: Any = ...) -> None:
        """Let the rows of some entries count `factor` times as much as they did: the posterior moves to the prior."""
        if not self.rows.are_none:
            self.rows.discount(factor, index)
            self._refresh(index)

    def state_dict(self) -> State:
        return {"statistics": self.rows.state_dict(), "now": named_tensors(self._now)}

    def load_state_dict(self, state: State) -> None:
        self.rows.load_state_dict(state["statistics"])
        for name, value in state["now"].items():
            getattr(self._now, name).copy_(value)

    def _refresh(self, index: Any) -> None:
        for name, value in named_tensors(self.prior[index].condition(self.rows[index])).items():
            getattr(self._now, name)[index] = value

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Functions:
        # whoever asks for draws has a family that can be drawn from
        return cast(Posterior, self._at(task, len(x))).sample(1, generator=generator)

    def _at(self, task: Task, num: int) -> Summed:
        if task is None:
            return self._now
        chosen = self._now[task]
        return chosen.expand((num, *self.batch_shape[1:])) if isinstance(task, int) else chosen


class RowStatistics:
    """Sums over the rows of each entry of a batch, in the form that a family takes, changed in place.

    Args:
        prior: whose `batch_shape` there are entries of; a family that knows arms by number has sums of each arm.
    """

    def __init__(self, prior: Additive) -> None:
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
        """Statistics of some entries, as if they had been discounted."""
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


def _copy(posterior: S) -> S:
    own = {name: v.clone(memory_format=torch.contiguous_format) for name, v in named_tensors(posterior).items()}
    return with_fields(posterior, **own)
