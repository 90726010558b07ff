r"""Additive sufficient statistics: all that a family in closed form knows of its rows.

With z = (x, y) a row, inputs before outputs, and an origin o stored with them, the statistics are the count n, the
first moments $\sum (z - o)$ and, for Gaussian families, the second moments $\sum (z - o)(z - o)^\top$. They add: a
ragged batch is reduced at once, a stream or a shard is reduced and summed, a bandit's state is updated in place.

Everything is float64, and the origin lies among the rows: raw second moments about zero lose every digit of the scatter
when rows sit far from zero (at an offset of 1e6 the scatter is wrong by 4e-4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from bayesmeta.data.reduction import reduced
from bayesmeta.data.rows import Data
from bayesmeta.describe import Described, plural, unusual
from bayesmeta.doors import Sums, require_rows

if TYPE_CHECKING:  # polars is slow to import, and only tables need it
    from bayesmeta.data.streams import TaskSums
    from bayesmeta.data.tables import TableRows

__all__ = ["Statistics"]


@dataclass(frozen=True, eq=False)
class Statistics(Described, Sums):
    """Count, first and second moments of rows z = (x, y) about `origin`, for a batch of tasks.

    The object is frozen, its tensors are not: `add_at` changes them in place, everything else returns a new object.

    Args:
        count: rows per task; whole unless rows were weighted.
        origin: the point about which moments are taken, inputs then outputs.
        first: sum of z - origin.
        second: sum of (z - origin)(z - origin)^T, or None for families that need sums alone.
        num_inputs: how many leading columns of z are inputs.
    """

    count: Float64[Tensor, "*batch"]
    origin: Float64[Tensor, "*batch k"]
    first: Float64[Tensor, "*batch k"]
    second: Float64[Tensor, "*batch k k"] | None
    num_inputs: int = 0

    @property
    def batch_shape(self) -> torch.Size:
        return self.count.shape

    def _title(self) -> str:
        tasks = plural(self.batch_shape.numel(), "task") if self.batch_shape else "one task"
        outputs = self.first.shape[-1] - self.num_inputs
        of = f"{plural(self.num_inputs, 'input')} and {plural(outputs, 'output')}"
        moments = "first moments" if self.second is None else "first and second moments"
        return f"of {tasks}, {of}, {moments}" + "".join(f", {word}" for word in unusual(self))

    def _parts(self) -> dict[str, Any]:
        return {} if self.count.is_meta else {"count": self.count, "mean": self.mean}

    @property
    def dtype(self) -> torch.dtype:
        """float64, always."""
        return self.count.dtype

    @property
    def device(self) -> torch.device:
        return self.count.device

    @property
    def mean(self) -> Tensor:
        """Mean of z, `(*batch, k)`; the origin where there are no rows."""
        return self.origin + self.first / _divisor(self.count)[..., None]

    @property
    def scatter(self) -> Tensor:
        """Centred sum of squares and products of z, `(*batch, k, k)`."""
        shift = self.first / _divisor(self.count)[..., None].sqrt()
        return torch.addcmul(self._second(), shift[..., :, None], shift[..., None, :], value=-1.0)

    @property
    def raw_second(self) -> Tensor:
        """Sum of z z^T, about zero, `(*batch, k, k)`."""
        mean = self.mean
        return self.scatter + self.count[..., None, None] * mean[..., :, None] * mean[..., None, :]

    @classmethod
    def of(cls, data: "Data | Statistics", *, order: int = 2) -> "Statistics":
        """Reduce the rows of each task; `order` 1 leaves second moments out. Statistics pass through.

        The origin of a task is its mean, so that `first` is near zero and `second` is the centred scatter.
        """
        if isinstance(data, Statistics):
            return data
        require_rows("Statistics.of", data)
        count, (origin, first, second) = reduced(data, order)
        return cls(count, origin, first, second, data.x.shape[-1])

    @classmethod
    def zeros(
        cls,
        batch_shape: Sequence[int],
        num_inputs: int,
        num_outputs: int,
        *,
        order: int = 2,
        device: torch.device | str | None = None,
    ) -> "Statistics":
        """No rows. The first rows added to a task set its origin."""
        count = torch.zeros(tuple(batch_shape), dtype=torch.float64, device=device)
        k = num_inputs + num_outputs
        second = count.new_zeros(*batch_shape, k, k) if order == 2 else None
        return cls(count, count.new_zeros(*batch_shape, k), count.new_zeros(*batch_shape, k), second, num_inputs)

    def __add__(self, other: "Statistics") -> "Statistics":
        """The statistics of the rows of both, about the origin of the side with more rows."""
        sides = [(tuple(s.first.shape), s.num_inputs) for s in (self, other)]
        if sides[0] != sides[1]:
            raise ValueError(
                "both sides must have the same tasks, inputs and outputs; got "
                + " and ".join(f"moments of shape {shape} with {d} inputs" for shape, d in sides)
            )
        keep = (self.count >= other.count)[..., None]
        origin = torch.where(keep, self.origin, other.origin)
        a, b = self.about(origin), other.about(origin)
        second = None if a.second is None or b.second is None else a.second + b.second
        return Statistics(a.count + b.count, origin, a.first + b.first, second, self.num_inputs)

    def mean_from(self, point: Tensor) -> Tensor:
        """Mean of z less `point`, which keeps its digits where both sit far from zero."""
        return (self.origin - point) + self.first / _divisor(self.count)[..., None]

    def about(self, origin: Tensor) -> "Statistics":
        """The same statistics with moments about another origin, broadcast over tasks."""
        shift = self.origin - origin
        moved = self.count[..., None] * shift
        second = self.second
        if second is not None:
            cross = self.first[..., :, None] * shift[..., None, :]
            second = second + cross + cross.mT + moved[..., :, None] * shift[..., None, :]
        origin = origin.expand_as(self.first).clone()
        return Statistics(self.count, origin, self.first + moved, second, self.num_inputs)

    def tasks(self, index: slice) -> "Statistics":
        """Some of the tasks on the first axis, without copies."""
        second = None if self.second is None else self.second[index]
        return Statistics(self.count[index], self.origin[index], self.first[index], second, self.num_inputs)

    def unsqueeze(self) -> "Statistics":
        """The same tasks with one more task axis, of size one, on the right."""
        second = None if self.second is None else self.second.unsqueeze(-3)
        first, origin = self.first.unsqueeze(-2), self.origin.unsqueeze(-2)
        return Statistics(self.count.unsqueeze(-1), origin, first, second, self.num_inputs)

    def sum(self, dim: int = 0) -> "Statistics":
        """Pool tasks along one task axis, about their pooled mean."""
        if not -self.count.ndim <= dim < self.count.ndim:
            raise IndexError(f"task axis {dim} does not exist: batch_shape is {tuple(self.batch_shape)}")
        axis = dim % self.count.ndim
        total = (self.count[..., None] * self.mean).sum(axis, keepdim=True)
        origin = total / _divisor(self.count.sum(axis, keepdim=True))[..., None]
        moved = self.about(origin)
        second = None if moved.second is None else moved.second.sum(axis)
        return Statistics(moved.count.sum(axis), origin.squeeze(axis), moved.first.sum(axis), second, self.num_inputs)

    def pooled(self) -> "Statistics":
        """All rows as those of one task."""
        if not self.batch_shape:
            return self
        k = self.first.shape[-1]
        count, origin, first = self.count.reshape(-1), self.origin.reshape(-1, k), self.first.reshape(-1, k)
        total = count.sum()
        centre = (count[:, None] * origin + first).sum(0) / _divisor(total)
        shift = origin - centre
        moved = count[:, None] * shift
        second = None
        if self.second is not None:
            cross = first.mT @ shift
            second = self.second.reshape(-1, k, k).sum(0) + cross + cross.mT + moved.mT @ shift
        return Statistics(total, centre, (first + moved).sum(0), second, self.num_inputs)

    def standardised(self, centre: Tensor, scale_tril: Tensor) -> "Statistics":
        """The statistics of scale_tril^-1 (z - centre), for families without inputs."""
        origin = torch.linalg.solve_triangular(scale_tril, (self.origin - centre)[..., None], upper=False)[..., 0]
        first = torch.linalg.solve_triangular(scale_tril, self.first[..., None], upper=False)[..., 0]
        half = torch.linalg.solve_triangular(scale_tril, self._second(), upper=False)
        second = torch.linalg.solve_triangular(scale_tril, half.mT, upper=False)
        return Statistics(self.count, origin, first, second)

    def add_at(self, index: Any, data: Data) -> None:
        """Add rows to the tasks named by `index`, in place; nothing else is touched or copied.

        Args:
            index: tensors or whole numbers, one per task axis, as in `count[index]`. No task may be named twice.
            data: rows whose batch_shape is that of `count[index]`.

        Raises:
            ValueError: a task is named twice, and all but the last of its entries would be lost.
        """
        _require_distinct(index)
        new = Statistics.of(data, order=1 if self.second is None else 2)
        empty = (self.count[index] == 0)[..., None]
        origin = torch.where(empty, new.origin, self.origin[index])
        moved = new.about(origin)
        self.origin[index] = origin
        self.count[index] += moved.count
        self.first[index] += moved.first
        if self.second is not None and moved.second is not None:
            self.second[index] += moved.second

    def add_rows(self, index: tuple[Tensor, ...], x: Tensor, y: Tensor) -> None:
        """Add one row to each task that `index` names, in place; a task may be named more than once.

        Args:
            index: whole numbers `(m,)`, one tensor per task axis.
            x: inputs `(m, d)`.
            y: outputs `(m,)` or `(m, k)`, finite.
        """
        if y.shape[0] == 1 and not y.is_cuda:
            self._add_row(
                tuple(int(i) for i in index), np.concatenate([x.numpy()[0], y.numpy().reshape(-1)], dtype=float)
            )
            return
        z = torch.cat([x, y if y.ndim == 2 else y[:, None]], -1).to(self.first)
        empty = self.count[index] == 0
        if bool(empty.any()):
            self.origin[tuple(i[empty] for i in index)] = z[empty]
        shift = z - self.origin[index]
        self.count.index_put_(index, self.count.new_ones(len(z)), accumulate=True)
        self.first.index_put_(index, shift, accumulate=True)
        if self.second is not None:
            self.second.index_put_(index, shift[:, :, None] * shift[:, None, :], accumulate=True)

    def _add_row(self, index: tuple[int, ...], z: np.ndarray) -> None:
        """One row, in NumPy on the same memory: torch takes three times as long for numbers this few."""
        count, first, origin = self.count.numpy(), self.first.numpy(), self.origin.numpy()
        if count[index] == 0:
            origin[index] = z
        shift = z - origin[index]
        count[index] += 1.0
        first[index] += shift
        if self.second is not None:
            self.second.numpy()[index] += shift[:, None] * shift

    def discount(self, factor: float | Tensor, index: Any = ...) -> None:
        """Let the rows of the tasks named by `index` count `factor` times as much as they did, in place."""
        factor = torch.as_tensor(factor, dtype=torch.float64)
        self.count[index] *= factor
        self.first[index] *= factor[..., None]
        if self.second is not None:
            self.second[index] *= factor[..., None, None]

    def __getitem__(self, index: Any) -> "Statistics":
        """Some of the tasks: whole numbers, slices, or tensors of them, one per task axis from the first on."""
        second = None if self.second is None else self.second[index]
        return Statistics(self.count[index], self.origin[index], self.first[index], second, self.num_inputs)

    @classmethod
    def from_parquet(
        cls, paths: str | Path | Sequence[str | Path], *, task: str, target: str, inputs: Sequence[str] | None = None
    ) -> "Statistics":
        """Per-task statistics of a table larger than memory: see `stream_statistics`, which also names tasks."""
        from bayesmeta.data.streams import stream_sums

        return cls.of_sums(stream_sums(paths, task=task, target=target, inputs=inputs))

    @classmethod
    def from_frame(cls, source: Any, *, task: str, target: str, inputs: Sequence[str] | None = None) -> "Statistics":
        """Statistics of a table, however much longer one task is: see `reduce_tasks`, which also names tasks."""
        from bayesmeta.data.tables import read_table_rows

        return cls.of_table(read_table_rows(source, task=task, target=target, inputs=inputs))

    @classmethod
    def of_sums(cls, sums: "TaskSums") -> "Statistics":
        """Statistics of files that were read in a stream."""
        return cls(sums.count, sums.origin, sums.first, sums.second, len(sums.names))

    @classmethod
    def of_table(cls, columns: "TableRows") -> "Statistics":
        """Statistics of a table that was read, about the mean of each task."""
        codes, values, num_tasks = columns.codes, columns.values, len(columns.tasks)

        def summed(rows: Tensor) -> Tensor:
            return rows.new_zeros(num_tasks, *rows.shape[1:]).index_add_(0, codes, rows)

        count = codes.bincount(minlength=num_tasks).double()
        origin = summed(values) / count[:, None]
        centred = values - origin[codes]
        k = values.shape[1]
        second = values.new_empty(num_tasks, k, k)
        for i, j in combinations_with_replacement(range(k), 2):
            second[:, i, j] = second[:, j, i] = summed(centred[:, i] * centred[:, j])
        return cls(count, origin, summed(centred), second, k - 1)

    def _second(self) -> Tensor:
        if self.second is None:
            raise ValueError("this family needs second moments; got statistics of order 1. Use Statistics.of(data)")
        return self.second


def _divisor(count: Tensor) -> Tensor:
    """The count, and one where there are no rows: weighted rows can count less than one."""
    return count.where(count > 0, 1.0)


def _require_distinct(index: Any) -> None:
    parts = [
        torch.as_tensor(p) for p in (index if isinstance(index, tuple) else (index,)) if isinstance(p, Tensor | list)
    ]
    if not any(p.numel() > 1 for p in parts) or parts[0].dtype == torch.bool:
        return
    named = torch.stack(torch.broadcast_tensors(*parts)).reshape(len(parts), -1)
    distinct, times = named.unique(dim=1, return_counts=True)
    if distinct.shape[1] < named.shape[1]:
        twice = distinct[:, times.argmax()].tolist()
        task = twice[0] if len(twice) == 1 else tuple(twice)
        raise ValueError(f"task {task} is named more than once in index; give all its rows in one entry")
