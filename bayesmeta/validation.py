"""Checks at the doors of the families: what was expected, what came, where, and the way out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.linalg import unravel
from bayesmeta.statistics import Statistics

__all__ = ["new_rows", "require_columns", "require_enough_tasks", "require_positive"]


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
        raise ValueError(f"y must hold {wanted}, shape {(*rows, *event_shape)}; got {tuple(data.y.shape)}")


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


def new_rows(x: Tensor | None, batch_shape: torch.Size) -> int:
    """How many new rows a family without inputs is asked about: one for None, else q of x `(*batch, q, 0)`."""
    if x is None:
        return 1
    if x.ndim < 2 or x.shape[-1]:
        raise ValueError(f"this family has no inputs: x must be None or have shape (..., q, 0); got {tuple(x.shape)}")
    return x.shape[-2]
