"""Rows whose one input is the number of an arm: read as numbers, and summed arm by arm."""

import torch
from jaxtyping import Int64
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_columns

__all__ = ["arm_index", "arm_statistics", "per_arm"]


def arm_statistics(data: Data, num_arms: int) -> Statistics:
    """Count, mean and scatter of the rows of each arm of each task, of batch_shape `(*tasks, num_arms)`.

    They add, and `Statistics.add_at((task, arm), rows)` updates them in place. Families without inputs take them as
    those of independent arms.

    Raises:
        IndexError: a row names an arm that does not exist.
        ValueError: `x` does not have one column of whole numbers, or `y` is not one number per row.
    """
    require_columns(data, num_inputs=1, event_shape=())
    arm = arm_index(data.x, num_arms, data.mask)
    y = data.y.double().where(data.mask, 0.0)

    def total(rows: Tensor) -> Tensor:
        return rows.new_zeros(*rows.shape[:-1], num_arms).scatter_add(-1, arm, rows)

    count = total(data.mask.double())
    origin = total(y) / count.clamp(min=1.0)
    centred = (y - origin.gather(-1, arm)).where(data.mask, 0.0)
    return Statistics(count, origin[..., None], total(centred)[..., None], total(centred.square())[..., None, None])


def per_arm(data: Data | Statistics, num_arms: int) -> Statistics:
    """Statistics of each arm; those that are there already pass through."""
    if isinstance(data, Data):
        return arm_statistics(data, num_arms)
    require_columns(data, num_inputs=0, event_shape=())
    if data.batch_shape[-1:] != (num_arms,):
        raise ValueError(
            f"statistics must be of each arm, batch_shape (..., {num_arms}); got {tuple(data.batch_shape)}. "
            f"Use arm_statistics(data, {num_arms})"
        )
    return data


def arm_index(x: Tensor, num_arms: int, mask: Tensor | None = None) -> Int64[Tensor, "*tasks q"]:
    """The one column of x as indices; 0 where the row is not real."""
    column = x[..., 0]
    if mask is not None:
        column = column.where(mask, torch.zeros_like(column))
    arm = column.long()
    whole = arm == column
    if not bool(whole.all()):
        value, where = _first(column, ~whole)
        raise ValueError(f"x must hold whole numbers, the index of the arm; got {value:g} in {where}")
    known = (arm >= 0) & (arm < num_arms)
    if not bool(known.all()):
        value, where = _first(column, ~known)
        there = f"there are {num_arms} arms, numbered 0 to {num_arms - 1}" if num_arms > 1 else "there is one, number 0"
        raise IndexError(f"arm {value:.0f} does not exist: {there}; it is named in {where}")
    return arm


def _first(column: Tensor, bad: Tensor) -> tuple[float, str]:
    """The first bad entry, and where it is."""
    *task, row = bad.nonzero()[0].tolist()
    of_task = f" of task {task[0] if len(task) == 1 else tuple(task)}" if task else ""
    return float(column[(*task, row)]), f"row {row}{of_task}"
