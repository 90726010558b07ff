"""How arithmetic on many small tasks is run: fused where that was asked for, else in pieces that stay in cache.

Such arithmetic is bound by memory: each operation on all tasks at once reads and writes every one of them. In pieces of
a megabyte or two all operations but the first find their operands in cache. The task is the last axis in memory, so
that one instruction serves several tasks.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from bayesmeta.data.statistics import Statistics
from bayesmeta.numerics.fused import MOST_COLUMNS, run_fused
from bayesmeta.numerics.linalg import differentiated, piece_of

__all__ = ["over_tasks"]

P = TypeVar("P", bound=tuple[Tensor, ...])
Out = TypeVar("Out", bound=tuple[Tensor, ...])

PIECE = piece_of(8192)  # tasks
LEAST_TASKS = 2 * PIECE


def over_tasks(
    function: Callable[[P, Statistics], Out],
    prior: P,
    stats: Statistics,
    batch_shape: torch.Size,
    *,
    fusable: bool = True,
) -> Out:
    """`function(prior, stats)`, run as many small tasks allow.

    Args:
        function: pure; it treats each task alone, and returns tensors led by the axis of tasks.
        prior: fields of one prior, or of one per task, led by `batch_shape`.
        stats: of tasks, on one axis for anything to be gained.
        batch_shape: of the prior.
        fusable: whether a compiler can unroll `function`.

    Raises:
        ValueError: what `function` raises.
    """
    tasks = len(stats.count) if stats.count.ndim == 1 else 0
    if tasks < LEAST_TASKS or tuple(batch_shape) not in ((), (tasks,)) or differentiated(*prior, stats.first):
        return function(prior, stats)
    if fusable and stats.first.shape[-1] <= MOST_COLUMNS:
        out: Out | None = run_fused(function, prior, stats)
        # a fused kernel cannot name a task that has no answer: where there is one, the plain function says so
        if out is not None and all(bool(field.sum().isfinite()) for field in out):
            return out
    try:
        return _by_pieces(function, prior, stats, bool(batch_shape))
    except ValueError:
        return function(prior, stats)  # which names the task by its place among all


def _by_pieces(function: Callable[[P, Statistics], Out], prior: P, stats: Statistics, batched: bool) -> Out:
    tasks = len(stats.count)
    whole: Any = None
    for start in range(0, tasks, PIECE):
        at = slice(start, min(start + PIECE, tasks))
        of_these: Any = tuple(field[at] for field in prior) if batched else prior
        part = function(of_these, stats.tasks(at))
        whole = whole or tuple(_room(field, tasks) for field in part)
        for field, piece in zip(whole, part, strict=True):
            field[at] = piece
    out: Out = whole
    return out


def _room(piece: Tensor, tasks: int) -> Tensor:
    """Empty tensor for all tasks, of which `piece` holds a part; the task is the last axis in memory."""
    return piece.new_empty(*piece.shape[1:], tasks).movedim(-1, 0)
