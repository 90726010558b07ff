"""Rows of one task, or of many ragged ones. The one place that validates rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from bayesmeta.describe import plural, unusual
from bayesmeta.doors import Rows
from bayesmeta.fields import TensorFields
from bayesmeta.numerics.as_floats import as_floats

if TYPE_CHECKING:  # polars is slow to import, and only tables need it
    from bayesmeta.data.tables import TableRows

__all__ = ["Data", "describe_rows", "require_room"]

LARGEST_PADS = 2e9  # bytes: less is no trouble on any machine
SIDES = ("least", "greatest")  # of the numbers in a column
WASTE = 10.0  # pads in memory for each number that is real, beyond which tasks are not padded


@dataclass(frozen=True, eq=False)
class Data(TensorFields, Rows):
    """Inputs `x`, outputs `y` and which rows are real, for a batch of tasks.

    The mask is the truth: a padded row may hold anything finite. `Data.pad` takes one (x, y) pair per task, `Data.of`
    takes rows that need no padding, `Data.from_frame` a table in long form. `+` concatenates rows task by task.

    Tensors, arrays and lists are taken, whole numbers and booleans too. All parts have the dtype of `y`, which is
    float64 where `y` holds whole numbers or is a list.

    Args:
        x: `(*batch, n, d)`; zero features for families without inputs.
        y: `(*batch, n, *event)`, `event` being `()` or `(k,)`.
        mask: `(*batch, n)`, true where the row is real.
        task_x: features of the tasks, `(*batch, p)`, or None.
    """

    x: Shaped[Tensor, "*batch n d"]
    y: Tensor
    mask: Bool[Tensor, "*batch n"]
    task_x: Shaped[Tensor, "*batch p"] | None = None

    def __init__(self, x: Any, y: Any, mask: Any, task_x: Any = None) -> None:
        y = as_floats("y", y)
        self._take(x=as_floats("x", x, like=y), y=y, mask=_as_mask(mask, y.device))
        self._take(task_x=None if task_x is None else as_floats("task_x", task_x, like=y))
        self._require_shapes()
        for name, value in (("x", self.x), ("y", self.y)):
            _require_finite(name, value, self.mask)
        if self.task_x is not None and not self.task_x.is_meta and not bool(self.task_x.isfinite().all()):
            bad = ~self.task_x.isfinite().all(-1)
            raise ValueError(f"task_x must be finite; row {bad.nonzero()[0].tolist()} is not")

    def _require_shapes(self) -> None:
        rows = tuple(self.mask.shape)
        if self.x.shape[:-1] != rows:
            raise ValueError(f"x must have shape {(*rows, 'd')}, rows as in mask; got {tuple(self.x.shape)}")
        if self.y.shape[: len(rows)] != rows:
            raise ValueError(f"y must have shape {rows}, one value per row of x; got {tuple(self.y.shape)}")
        if self.y.ndim > len(rows) + 1:
            raise ValueError(f"a row of y must be a number or a vector; got y of shape {tuple(self.y.shape)}")
        if self.task_x is not None and self.task_x.shape[:-1] != rows[:-1]:
            raise ValueError(f"task_x must have shape {(*rows[:-1], 'p')}; got {tuple(self.task_x.shape)}")

    def _take(self, **values: Tensor | None) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """How many tasks the first axis has.

        Raises:
            TypeError: this is one task, without an axis of tasks; `count` says how many rows it has.
        """
        if self.mask.ndim == 1:
            raise TypeError("this Data holds one task and has no axis of tasks; data.count is its number of rows")
        return len(self.mask)

    def __bool__(self) -> bool:
        """True, as of any object: emptiness of tasks and of rows are two things."""
        return True

    def _title(self) -> str:
        tasks = "one task" if self.mask.ndim == 1 else plural(self.batch_shape.numel(), "task")
        words = [f"{tasks} of {_lengths(self.count)}", f"x of {plural(self.x.shape[-1], 'column')}"]
        words.append(f"y of {f'vectors of {self.event_shape[0]}' if self.event_shape else 'numbers'}")
        if self.task_x is not None:
            words.append(f"{plural(self.task_x.shape[-1], 'feature')} of tasks")
        return f": {', '.join([*words, *unusual(self)])}"

    def _parts(self) -> dict[str, Any]:
        if self.mask.is_meta or not bool(self.mask.any()):
            return {}
        real = {"x": self.x[self.mask], "y": self.y[self.mask]}
        ranges = {name: (rows.amin(0), rows.amax(0)) for name, rows in real.items() if rows.numel()}
        return {
            f"{side} of {name}": value for name, both in ranges.items() for side, value in zip(SIDES, both, strict=True)
        }

    def _compared(self) -> dict[str, Any]:
        real = self.mask if not self.event_shape else self.mask[..., None]
        y, x = self.y.where(real, 0.0), self.x.where(self.mask[..., None], 0.0)
        return {"x": x, "y": y, "mask": self.mask, "task_x": self.task_x}

    @property
    def batch_shape(self) -> torch.Size:
        return self.mask.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.y.shape[self.mask.ndim :]

    @property
    def count(self) -> Tensor:
        """Real rows per task, `(*batch,)`."""
        return self.mask.sum(-1)

    @classmethod
    def of(
        cls, x: Any = None, y: Any = None, *, event_dim: int | None = None, dtype: torch.dtype | None = None
    ) -> "Data":
        """Rows without padding: `x` `(*batch, n, d)` or None, `y` `(*batch, n, *event)`.

        Without `x` the last axis of `y` may be rows or outputs: say which by `event_dim`, 0 (the default) or 1.
        Tensors, arrays and lists are taken; the dtype is that of `y` as in `pad`, or `dtype`.
        """
        if y is None:
            raise ValueError("Data.of needs y; got None. For no rows give an empty tensor")
        y = as_floats("y", y, dtype=dtype)
        if event_dim not in (None, 0, 1):
            raise ValueError(f"event_dim must be 0, where rows of y are numbers, or 1 for vectors; got {event_dim}")
        if y.ndim < 1 + (event_dim or 0):
            raise ValueError(f"y must have {1 + (event_dim or 0)} axes; got shape {tuple(y.shape)}")
        if x is None:
            rows = y.shape[: y.ndim - (event_dim or 0)]
            x = y.new_zeros(*rows, 0)
        x = as_floats("x", x, like=y)
        if x.ndim < 2:
            raise ValueError(f"x must have shape (..., n, d); got {tuple(x.shape)}. Try x.unsqueeze(-1)")
        mask = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
        if event_dim is not None and y.ndim != mask.ndim + event_dim:
            raise ValueError(f"y must have {mask.ndim + event_dim} axes; got shape {tuple(y.shape)}")
        if event_dim is None and y.shape == (*mask.shape, 1) and y.ndim == mask.ndim + 1 and mask.shape[-1] != 1:
            # (8, 20, 1) is a vector of length one by the letter, and a forgotten squeeze in practice
            raise ValueError(
                f"y must have shape {tuple(mask.shape)}, one value per row of x; got {tuple(y.shape)}. "
                "Try y.squeeze(-1), or event_dim=1 if the outputs are vectors of length one"
            )
        return cls(x, y, mask)

    @classmethod
    def pad(cls, tasks: Iterable[tuple[Any, Any]], *, task_x: Any = None, dtype: torch.dtype | None = None) -> "Data":
        """Ragged tasks as one batch: one (x, y) pair per task, x None for families without inputs.

        Tensors, arrays and lists are accepted; x may be one-dimensional for one feature. The dtype is that of y, the
        widest where tasks differ, and float64 where y holds whole numbers or Python floats.

        Raises:
            ValueError: there is no task, or tasks differ in features or outputs; the message names the task.
        """
        pairs = [_pair(i, x, y, dtype) for i, (x, y) in enumerate(tasks)]
        if not pairs:
            raise ValueError("Data.pad needs at least one (x, y) pair; got none")
        for index, (x, y) in enumerate(pairs):
            for name, value, first in (("x", x, pairs[0][0]), ("y", y, pairs[0][1])):
                if value.shape[1:] != first.shape[1:]:
                    raise ValueError(
                        f"every task must have the same columns; {name} of task {index} has shape "
                        f"{tuple(value.shape)}, that of task 0 {tuple(first.shape)}"
                    )
        lengths = torch.tensor([len(y) for _, y in pairs], device=pairs[0][1].device)
        x, y = pairs[0]
        require_room(lengths, x.shape[1] + (y.shape[1] if y.ndim > 1 else 1), y.element_size())
        widest = reduce(torch.promote_types, {y.dtype for _, y in pairs})
        pairs = [(x.to(widest), y.to(widest)) for x, y in pairs]
        xs = torch.nn.utils.rnn.pad_sequence([x for x, _ in pairs], batch_first=True)
        ys = torch.nn.utils.rnn.pad_sequence([y for _, y in pairs], batch_first=True)
        mask = torch.arange(ys.shape[1], device=ys.device) < lengths[:, None]
        return cls(xs, ys, mask, task_x)

    @classmethod
    def from_frame(cls, source: Any, *, task: str, target: str, inputs: Sequence[str] | None = None) -> "Data":
        """A table in long form, one row per observation: see `read_tasks`, which also names tasks."""
        from bayesmeta.data.tables import read_table_rows

        return cls.of_table(read_table_rows(source, task=task, target=target, inputs=inputs))

    @classmethod
    def of_table(cls, columns: "TableRows") -> "Data":
        """Rows of a table that was read, as padded tasks."""
        codes, values = columns.codes, columns.values
        count = codes.bincount(minlength=len(columns.tasks))
        require_room(count, values.shape[1], values.element_size())
        order = codes.argsort(stable=True)
        place = torch.empty_like(codes)  # of a row within its task
        place[order] = torch.arange(len(codes)) - (count.cumsum(0) - count).repeat_interleave(count)
        z = values.new_zeros(len(columns.tasks), int(count.max()), values.shape[1])
        z[codes, place] = values
        return cls(z[..., :-1], z[..., -1], torch.arange(z.shape[1]) < count[:, None])

    def __add__(self, other: Any) -> "Data":
        """The rows of both, task by task; their batches are broadcast, features of tasks are those of `self`."""
        if not isinstance(other, Data):
            return NotImplemented
        sides = [(d.x.shape[-1], tuple(d.event_shape)) for d in (self, other)]
        if sides[0] != sides[1]:
            raise ValueError(f"both sides must have the same features and event_shape; got {sides[0]} and {sides[1]}")
        try:
            batch = torch.broadcast_shapes(self.batch_shape, other.batch_shape)
        except RuntimeError:
            shapes = f"{tuple(self.batch_shape)} and {tuple(other.batch_shape)}"
            raise ValueError(f"both sides must have the same tasks, or one of them one; got {shapes}") from None
        a, b, rows_axis = self.expand(batch), other.expand(batch), len(batch)
        return replace(
            a,
            x=torch.cat([a.x, b.x], rows_axis),
            y=torch.cat([a.y, b.y], rows_axis),
            mask=torch.cat([a.mask, b.mask], rows_axis),
        )

    def expand(self, batch_shape: Sequence[int]) -> "Data":
        """The same rows for every task of a larger batch, without copies."""
        rows_axis = self.mask.ndim - 1
        x, y, mask = (v.expand(*batch_shape, *v.shape[rows_axis:]) for v in (self.x, self.y, self.mask))
        extra = None if self.task_x is None else self.task_x.expand(*batch_shape, -1)
        return Data(x, y, mask, extra)

    def __getitem__(self, index: Any) -> "Data":
        """Some of the tasks: an index, a slice or a mask over the first task axis."""
        if self.mask.ndim == 1:
            raise IndexError("this Data holds one task and has no axis of tasks to index")
        extra = None if self.task_x is None else self.task_x[index]
        return Data(self.x[index], self.y[index], self.mask[index], extra)

    def rows(self, index: Any) -> "Data":
        """Some of the rows of every task: a slice or an index over the row axis."""
        at = (..., index)
        y = self.y[(*at, slice(None))] if self.event_shape else self.y[at]
        return Data(self.x[(*at, slice(None))], y, self.mask[at], self.task_x)

    def to(self, *args: Any, **kwargs: Any) -> "Data":
        """Dtype or device of `x`, `y` and `task_x`; the mask follows the device only."""
        x, y = self.x.to(*args, **kwargs), self.y.to(*args, **kwargs)
        extra = None if self.task_x is None else self.task_x.to(*args, **kwargs)
        return Data(x, y, self.mask.to(x.device), extra)


def require_room(lengths: Tensor, columns: int, size: int) -> None:
    """Refuse to pad tasks where pads would take most of a lot of memory.

    Args:
        lengths: rows of each task.
        columns: of x and y together.
        size: of a number, in bytes.

    Raises:
        ValueError: padded tasks take more than LARGEST_PADS, and more than WASTE times their rows.
    """
    longest = int(lengths.max()) if len(lengths) else 0
    padded = len(lengths) * longest * columns * size
    if padded > LARGEST_PADS and padded > WASTE * int(lengths.sum()) * columns * size:
        raise ValueError(
            f"padding {len(lengths)} tasks to the {longest} rows of task {int(lengths.argmax())} takes "
            f"{padded / 1e9:.3g} GB, for {int(lengths.sum())} rows in all. Families in closed form need no rows: give "
            "them Statistics.from_frame(table, ...) or Statistics.from_parquet(files, ...), to initial, fit and "
            "condition. For other families keep some of the rows of the longest tasks"
        )


def _lengths(count: Tensor) -> str:
    """How many rows tasks have."""
    if count.is_meta:
        return "rows"
    if not count.numel():
        return "no rows"
    least, most = int(count.min()), int(count.max())
    return plural(most, "row") if least == most else f"{least} to {plural(most, 'row')}, {int(count.sum())} in all"


def _as_mask(mask: Any, device: torch.device) -> Tensor:
    """Booleans; zeros and ones are taken for them."""
    if isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.device == device:
        return mask
    values = mask if isinstance(mask, Tensor) else torch.as_tensor(np.asarray(mask), device=device)
    if values.dtype != torch.bool and not bool(((values == 0) | (values == 1)).all()):
        raise ValueError("mask must be true where a row is real and false elsewhere; it holds other numbers")
    if values.device != device:
        raise ValueError(f"mask is on {values.device} and y on {device}; move it by .to({str(device)!r})")
    return values.bool()


def _pair(index: int, x: Any, y: Any, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    target = as_floats(f"y of task {index}", y, dtype=dtype)
    if target.ndim not in (1, 2):
        raise ValueError(f"y of task {index} must have shape (n,) or (n, k); got {tuple(target.shape)}")
    if x is None:
        return target.new_zeros(len(target), 0), target
    inputs = as_floats(f"x of task {index}", x, like=target)
    if inputs.ndim == 1:
        inputs = inputs[:, None]
    if inputs.ndim != 2 or len(inputs) != len(target):
        raise ValueError(
            f"x of task {index} must have shape ({len(target)}, d), one row per value of y; got {tuple(inputs.shape)}"
        )
    return inputs, target


def _require_finite(name: str, value: Tensor, mask: Tensor) -> None:
    # one pass in the common case: what is not finite stays so in a sum
    if value.is_meta or bool(value.sum().isfinite()):
        return
    flat = value.reshape(*mask.shape, -1) if value.numel() else value
    bad = ~flat.isfinite().all(-1) & mask
    if bool(bad.any()):
        raise ValueError(f"{name} must be finite where mask is true; {describe_rows(bad)}")


def describe_rows(bad: Bool[Tensor, "*batch n"]) -> str:
    """Which rows break a rule, for an error message: `2 rows are not, the first is in task 0, row 2`."""
    num_bad = int(bad.sum())
    *task, row = bad.nonzero()[0].tolist()
    where = f"task {task[0] if len(task) == 1 else tuple(task)}, row {row}" if task else f"row {row}"
    return ("1 row is not, it is" if num_bad == 1 else f"{num_bad} rows are not, the first is") + f" in {where}"
