"""Rows of one task, or of many ragged ones. The one place that validates rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from bayesmeta.fields import TensorFields

__all__ = ["Data", "describe_rows"]


@dataclass(frozen=True, eq=False)
class Data(TensorFields):
    """Inputs `x`, outputs `y` and which rows are real, for a batch of tasks.

    The mask is the truth: a padded row may hold anything finite. `Data.pad` takes one (x, y) pair per task, `Data.of`
    takes tensors that need no padding, `Data.from_frame` a table in long form. `+` concatenates rows task by task.

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

    def __post_init__(self) -> None:
        rows = tuple(self.mask.shape)
        if self.x.shape[:-1] != rows:
            raise ValueError(f"x must have shape {(*rows, 'd')}, rows as in mask; got {tuple(self.x.shape)}")
        if self.y.shape[: len(rows)] != rows:
            raise ValueError(f"y must have shape {rows}, one value per row of x; got {tuple(self.y.shape)}")
        if self.y.ndim > len(rows) + 1:
            raise ValueError(f"a row of y must be a number or a vector; got y of shape {tuple(self.y.shape)}")
        if self.task_x is not None and self.task_x.shape[:-1] != rows[:-1]:
            raise ValueError(f"task_x must have shape {(*rows[:-1], 'p')}; got {tuple(self.task_x.shape)}")
        for name, value in (("x", self.x), ("y", self.y)):
            _require_finite(name, value, self.mask)
        if self.task_x is not None and not bool(self.task_x.isfinite().all()):
            bad = ~self.task_x.isfinite().all(-1)
            raise ValueError(f"task_x must be finite; row {bad.nonzero()[0].tolist()} is not")

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
    def of(cls, x: Tensor | None = None, y: Tensor | None = None, *, event_dim: int | None = None) -> "Data":
        """Rows without padding: `x` `(*batch, n, d)` or None, `y` `(*batch, n, *event)`.

        Without `x` the last axis of `y` may be rows or outputs: say which by `event_dim`, 0 (the default) or 1.
        """
        if y is None:
            raise ValueError("Data.of needs y; got None. For no rows give an empty tensor")
        if x is None:
            rows = y.shape[: y.ndim - (event_dim or 0)]
            x = y.new_zeros(*rows, 0)
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

        Tensors, arrays and lists are accepted; x may be one-dimensional for one feature. The dtype is that of y, and
        float64 where y holds whole numbers or Python floats.

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
        xs = torch.nn.utils.rnn.pad_sequence([x for x, _ in pairs], batch_first=True)
        ys = torch.nn.utils.rnn.pad_sequence([y for _, y in pairs], batch_first=True)
        mask = torch.arange(ys.shape[1], device=ys.device) < lengths[:, None]
        extra = None if task_x is None else torch.as_tensor(task_x, dtype=ys.dtype)
        return cls(xs, ys, mask, extra)

    @classmethod
    def from_frame(cls, source: Any, *, task: str, target: str, inputs: Sequence[str] | None = None) -> "Data":
        """A table in long form, one row per observation: see `bayesmeta.frames.read_tasks`, which also names tasks."""
        from bayesmeta.frames import read_tasks

        return read_tasks(source, task=task, target=target, inputs=inputs).data

    def __add__(self, other: "Data") -> "Data":
        """The rows of both, task by task; their batches are broadcast, features of tasks are those of `self`."""
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


def _pair(index: int, x: Any, y: Any, dtype: torch.dtype | None) -> tuple[Tensor, Tensor]:
    target = torch.as_tensor(y)
    if dtype is not None or not target.is_floating_point() or not hasattr(y, "dtype"):
        target = target.to(dtype or torch.float64)
    if target.ndim not in (1, 2):
        raise ValueError(f"y of task {index} must have shape (n,) or (n, k); got {tuple(target.shape)}")
    if x is None:
        return target.new_zeros(len(target), 0), target
    inputs = torch.as_tensor(x).to(target)
    if inputs.ndim == 1:
        inputs = inputs[:, None]
    if inputs.ndim != 2 or len(inputs) != len(target):
        raise ValueError(
            f"x of task {index} must have shape ({len(target)}, d), one row per value of y; got {tuple(inputs.shape)}"
        )
    return inputs, target


def _require_finite(name: str, value: Tensor, mask: Tensor) -> None:
    if bool(value.sum().isfinite()):  # one pass in the common case: what is not finite stays so in a sum
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
