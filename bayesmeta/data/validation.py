"""Checks at the doors of the families: what was expected, what came, where, and the way out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesmeta.data.rows import Data, describe_rows
from bayesmeta.data.statistics import Statistics
from bayesmeta.numerics.linalg import cholesky, unravel

__all__ = [
    "require_binary",
    "require_columns",
    "require_enough_tasks",
    "require_finite",
    "require_positive",
    "require_positive_definite",
    "require_spread",
    "require_vectors",
]

ROUNDING = 1e-12
VECTORS = ". Where the last axis of y is of outputs, say so by Data.of(None, y, event_dim=1)"


def require_finite(name: str, value: Tensor) -> None:
    """Every entry of a hyperparameter is a finite number."""
    bad = ~value.isfinite()
    if bool(bad.any()):
        index = int(bad.reshape(-1).nonzero()[0])
        raise ValueError(
            f"{name} must be finite; got {value.reshape(-1)[index].item():g} at {unravel(index, value.shape)}"
        )


def require_positive_definite(name: str, matrix: Tensor, dim: int) -> None:
    """Each task's matrix is `(dim, dim)`, symmetric and positive definite."""
    if matrix.shape[-2:] != (dim, dim):
        raise ValueError(
            f"{name} must have shape (..., {dim}, {dim}), as loc has {dim} entries; got {tuple(matrix.shape)}"
        )
    gap = (matrix - matrix.mT).abs()
    if bool((gap > 10.0 * torch.finfo(matrix.dtype).eps * matrix.abs().amax((-2, -1), keepdim=True)).any()):
        raise ValueError(f"{name} must be symmetric; entries differ from their mirror image by up to {gap.max():.2g}")
    cholesky(matrix, name)


def require_positive(name: str, value: Tensor) -> None:
    """Every entry of a hyperparameter is finite and above zero."""
    bad = ~(value.isfinite() & (value > 0))
    if bool(bad.any()):
        index = int(bad.reshape(-1).nonzero()[0])
        where = f" at {unravel(index, value.shape)}" if value.ndim else ""
        raise ValueError(f"{name} must be finite and above zero; got {value.reshape(-1)[index].item():g}{where}")


def require_columns(data: Data | Statistics, *, num_inputs: int, event_shape: Sequence[int]) -> None:
    """Rows have the inputs and outputs that the family models."""
    if isinstance(data, Statistics):
        num_outputs = data.first.shape[-1] - data.num_inputs
        expected = event_shape[0] if event_shape else 1
        if (data.num_inputs, num_outputs) != (num_inputs, expected):
            raise ValueError(
                f"statistics must be of {num_inputs} inputs and {expected} outputs; "
                f"got {data.num_inputs} and {num_outputs}"
            )
        return
    if data.x.shape[-1] != num_inputs:
        hint = ". This family has no inputs: give x=None" if num_inputs == 0 else ""
        raise ValueError(f"x must have {num_inputs} columns; got {data.x.shape[-1]}{hint}")
    if tuple(data.event_shape) != tuple(event_shape):
        wanted = "one number per row" if not event_shape else f"vectors of length {event_shape[0]}"
        rows = tuple(data.mask.shape)
        is_vectors = tuple(data.y.shape[-1:]) == tuple(event_shape) and not num_inputs
        hint = VECTORS if is_vectors else ""
        raise ValueError(f"y must hold {wanted}, shape {(*rows, *event_shape)}; got {tuple(data.y.shape)}{hint}")


def require_vectors(tasks: Data | Statistics) -> None:
    """Rows of y are vectors, for families of which that is all one knows before the first rows."""
    if isinstance(tasks, Data) and not tasks.event_shape:
        raise ValueError(
            f"y must hold vectors, shape (..., n, k); got one number per row, {tuple(tasks.y.shape)}{VECTORS}"
        )


def require_enough_tasks(count: Tensor, batch_shape: torch.Size) -> None:
    """A prior over tasks is learned from at least two tasks with rows, by a prior that is not itself batched."""
    if batch_shape:
        raise ValueError(f"fit learns one prior; self has batch_shape {tuple(batch_shape)}. Use Family.initial(tasks)")
    num_tasks = count.numel()
    num_used = int((count > 0).sum())
    if not num_used:
        raise ValueError(f"fit needs at least one row; got {num_tasks} tasks, all empty")
    if num_used < 2 or count.ndim != 1:
        raise ValueError(
            f"fit needs at least two tasks with rows, on one axis; got {num_used} in shape {tuple(count.shape)}. "
            "One task says nothing of how tasks differ: use condition, or add past tasks"
        )


def require_binary(data: Data | Statistics) -> None:
    """Every real row of y is 0 or 1."""
    if isinstance(data, Statistics):
        bad = (data.mean < -ROUNDING) | (data.mean > 1.0 + ROUNDING)
        if bool(bad.any()):
            raise ValueError(f"y must be 0 or 1; a task has mean {data.mean[bad][0].item():g}")
        return
    bad = (data.y != 0) & (data.y != 1) & data.mask
    if bool(bad.any()):
        value = data.y[bad][0].item()
        raise ValueError(f"y must be 0 or 1 where mask is true; {describe_rows(bad)} with value {value:g}")


def require_spread(stats: Statistics) -> None:
    """Rows differ within tasks: else noise and differences between tasks cannot be told apart.

    In every direction: where all rows of a task agree along one, the evidence of a smaller variance there has no end.
    """
    pooled, within = stats.pooled(), stats.scatter.sum(0)
    width = pooled.scatter.diagonal(dim1=-2, dim2=-1)
    if not bool((width > 0).all()):
        column = int((width <= 0).nonzero()[0])
        raise ValueError(
            f"y must vary to be learned from; column {column} is {pooled.mean[column].item():g} in every row. Drop it"
        )
    spread = width.sqrt()  # one at a time: a product of variances leaves float64 where y is in units of 1e80
    relative = within / spread[:, None] / spread
    least = torch.linalg.eigvalsh(relative).min().item()
    if least < ROUNDING:
        raise ValueError(
            f"fit needs rows that differ within tasks, in every direction of y; got {int(stats.count.sum())} rows in "
            f"{stats.count.numel()} tasks that leave one out (least eigenvalue {least:.2g} of the scatter within "
            "tasks, relative to all rows). Add rows to tasks, or drop outputs that others determine"
        )
