"""Count and moments of the rows of each task: how a batch of rows is reduced in little time.

Many small tasks are reduced with tasks as the last axis in memory, others by one product of matrices each.
"""

import torch
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.numerics.fused import run_fused
from bayesmeta.numerics.linalg import differentiated, piece_of

__all__ = ["Moments", "reduced"]

# where it pays to reduce with tasks as the last axis: found by measurement, see docs/performance.md
LEAST_TASKS = 1000
COLUMNS = range(3, 9)
MOST_ROWS = 32
PIECE = 400_000  # numbers that are reduced at once: a few megabytes, so that they stay in cache
ROOM = 4_000_000  # numbers, most never touched: glibc keeps twice the largest block that was freed, see the same page
Moments = tuple[Tensor, Tensor, Tensor | None]  # origin, first and second moments about it


def reduced(data: Data, order: int) -> tuple[Tensor, Moments]:
    """Rows per task, and their moments about the mean of each task, in float64; of order 1 without second ones."""
    padded = not bool(data.mask.all())
    count = data.mask.sum(-1, dtype=torch.float64) if padded else _full_count(data.mask)
    reduce = _reduce_by_task if _suits_batch_last(data) else _reduce_by_product
    return count, reduce(data, count, padded, order)


def _suits_batch_last(data: Data) -> bool:
    """Many small tasks, on one axis, that no gradient is asked of."""
    columns = data.x.shape[-1] + (data.y.shape[-1] if data.event_shape else 1)
    small = columns in COLUMNS and 0 < data.mask.shape[-1] <= MOST_ROWS
    return small and data.mask.ndim == 2 and len(data.mask) >= LEAST_TASKS and not differentiated(data.x, data.y)


def _full_count(mask: Tensor) -> Tensor:
    return torch.full(mask.shape[:-1], mask.shape[-1], dtype=torch.float64, device=mask.device)


def _reduce_by_task(data: Data, count: Tensor, padded: bool, order: int) -> Moments:
    """Moments of many small tasks, tasks as the last axis in memory, in pieces that stay in cache.

    A product of matrices has a cost per task, however small; here each instruction serves many tasks.
    """
    tasks, n = data.mask.shape
    d, y = data.x.shape[-1], data.y if data.event_shape else data.y[..., None]
    k = d + y.shape[-1]
    like = torch.empty(0, dtype=torch.float64, device=y.device)
    origin, first = like.new_empty(k, tasks), like.new_empty(k, tasks)
    second = like.new_empty(k, k, tasks) if order == 2 else None
    step = min(piece_of(max(PIECE // (n * k), LEAST_TASKS)), tasks)
    room = like.new_empty(max(n * k * step, ROOM))  # one for all pieces: new memory costs more than the sums
    for start in range(0, tasks, step):
        at = slice(start, min(start + step, tasks))
        pads = ~data.mask[at].mT[:, None] if padded and not bool(data.mask[at].all()) else None
        x, rows, real = data.x[at], y[at], count[at].clamp(min=1.0)
        into = (origin[:, at], first[:, at], None if second is None else second[..., at])
        fused: Moments | None = run_fused(_moments, x, rows, real, order) if pads is None else None
        if fused is None:
            _moments_in_cache(x, rows, real, pads, room, into)
            continue
        for whole, part in zip(into, fused, strict=True):
            if whole is not None and part is not None:
                whole.copy_(part)
    return origin.mT, first.mT, None if second is None else second.movedim(-1, 0)


def _moments(x: Tensor, y: Tensor, count: Tensor, order: int) -> Moments:
    """Mean, first and second moments about it, tasks last, of rows without pads; unrolled for a compiler to fuse."""
    columns = [z[..., i].mT.double() for z in (x, y) for i in range(z.shape[-1])]
    means = [column.sum(0) / count for column in columns]
    centred = [column - mean for column, mean in zip(columns, means, strict=True)]
    first = torch.stack([column.sum(0) for column in centred])
    if order == 1:
        return torch.stack(means), first, None
    pairs = [[(a * b).sum(0) for b in centred[: i + 1]] for i, a in enumerate(centred)]
    k = range(len(columns))
    second = torch.stack([torch.stack([pairs[max(i, j)][min(i, j)] for j in k]) for i in k])
    return torch.stack(means), first, second


def _moments_in_cache(
    x: Tensor, y: Tensor, count: Tensor, pads: Tensor | None, room: Tensor, into: tuple[Tensor, Tensor, Tensor | None]
) -> None:
    """The same where some rows may be pads `(n, 1, tasks)`; in `room`, and `into` tensors that are there."""
    (tasks, n, d), k = x.shape, x.shape[-1] + y.shape[-1]
    mean, first, second = into
    z = room[: n * k * tasks].view(n, k, tasks)
    _tasks_last(x, z[:, :d])
    _tasks_last(y, z[:, d:])
    if pads is not None:
        z.masked_fill_(pads, 0.0)
    torch.sum(z, 0, out=mean).div_(count)
    z -= mean
    if pads is not None:
        z.masked_fill_(pads, 0.0)
    torch.sum(z, 0, out=first)
    if second is not None:
        torch.mul(z[0][:, None], z[0], out=second)
        for row in z[1:]:
            second.addcmul_(row[:, None], row)


def _tasks_last(rows: Tensor, out: Tensor) -> None:
    """`(tasks, n, d)` into float64 `(n, d, tasks)`."""
    tasks, n, d = rows.shape
    if out.is_contiguous():  # as one matrix torch takes its path for transposes, which goes through both in blocks
        out.view(n * d, tasks).copy_(rows.reshape(tasks, n * d).mT)
    else:
        out.copy_(rows.reshape(tasks, n * d).mT.unflatten(0, (n, d)))


def _reduce_by_product(data: Data, count: Tensor, padded: bool, order: int) -> Moments:
    """Moments by one product of matrices per task."""
    z = _joined(data)
    pads = ~data.mask[..., None, :] if padded else None
    if pads is not None:
        z.masked_fill_(pads, 0.0)
    origin = z.sum(-1) / count.clamp(min=1.0)[..., None]
    centred = z.sub_(origin[..., None])  # `_joined` made z, so it may be overwritten
    if pads is not None:
        centred.masked_fill_(pads, 0.0)
    second = centred @ centred.mT if order == 2 else None
    return origin, centred.sum(-1), second


def _joined(data: Data) -> Tensor:
    """z = (x, y) as a new float64 tensor `(*batch, k, n)`: sums over the last axis are the fast ones."""
    y = data.y.mT if data.event_shape else data.y[..., None, :]
    x = data.x.mT
    z = torch.empty(*y.shape[:-2], x.shape[-2] + y.shape[-2], y.shape[-1], dtype=torch.float64, device=y.device)
    z[..., : x.shape[-2], :] = x
    z[..., x.shape[-2] :, :] = y
    return z
