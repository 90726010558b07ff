"""Cholesky factors that say which task failed, and the few solves that the families share."""

import math
from typing import Any

import torch
from torch import Tensor

from bayesmeta.warning_kinds import PlacementWarning, warn

__all__ = [
    "add_outer",
    "cholesky",
    "differentiated",
    "factor_of_sum",
    "log_det",
    "log_det_of",
    "log_det_of_one_plus",
    "pack_tril",
    "piece_of",
    "positive",
    "rounded",
    "solve",
    "symmetric",
    "unpack_tril",
    "unravel",
]

# where it pays to factorise all tasks column by column: found by measurement, see docs/performance.md
LEAST_TASKS = 3000
MOST_COLUMNS = {torch.float32: 20, torch.float64: 12}
PIECE = 2_000_000  # numbers at once, so that they stay in cache


def add_outer(matrix: Tensor, vector: Tensor) -> Tensor:
    """A + v v', as symmetric as A to the last digit: `(*batch, d, d)` from A and v `(*batch, d)`."""
    return torch.addcmul(matrix, vector[..., :, None], vector[..., None, :])


def cholesky(matrix: Tensor, name: str) -> Tensor:
    """Lower Cholesky factors of `matrix` `(*batch, d, d)`.

    Raises:
        ValueError: a matrix is not positive definite; the message names it, its task and its least eigenvalue.
    """
    if _suits_columns(matrix):
        factor = _factor_by_columns(matrix)
        if bool((factor.diagonal(dim1=-2, dim2=-1) > 0).all()):  # false of NaN too
            return factor
    factor, info = torch.linalg.cholesky_ex(matrix)
    if bool(info.any()):
        index = int(info.reshape(-1).nonzero()[0])
        bad = matrix.reshape(-1, *matrix.shape[-2:])[index]
        finite = bool(bad.isfinite().all())
        least = f"least eigenvalue {torch.linalg.eigvalsh(bad).min().item():.2g}" if finite else "it is not finite"
        way_out = "add jitter" if matrix.dtype == torch.float64 else "try float64 or add jitter"
        task = f" of task {unravel(index, matrix.shape[:-2])}" if matrix.ndim > 2 else ""
        raise ValueError(f"{name}{task} is not positive definite ({least}); {way_out}")
    return factor


def _suits_columns(matrix: Tensor) -> bool:
    """Many small matrices, the task as the last axis in memory, that no gradient is asked of."""
    last = matrix.ndim == 3 and matrix.stride(0) == 1 and len(matrix) >= LEAST_TASKS
    return last and matrix.shape[-1] <= MOST_COLUMNS.get(matrix.dtype, 0) and not differentiated(matrix)


def _factor_by_columns(matrix: Tensor) -> Tensor:
    """Cholesky factors column by column, all tasks at once; NaN from the first pivot on that is not positive.

    LAPACK has a cost per matrix, however small; here each instruction serves many tasks.
    """
    tasks, dim = matrix.shape[:2]
    factor = torch.empty(dim, dim, tasks, dtype=matrix.dtype, device=matrix.device)
    step = piece_of(PIECE // max(dim, 1) ** 2)
    for start in range(0, tasks, step):
        out = factor[..., start : start + step]
        out.copy_(matrix[start : start + step].movedim(0, -1))
        for j in range(dim):
            out[:j, j] = 0.0
            column = out[j:, j]
            column /= column[0].sqrt()
            below = column[1:]
            out[j + 1 :, j + 1 :].addcmul_(below[:, None], below[None, :], value=-1.0)
    return factor.movedim(-1, 0)


def factor_of_sum(total: Tensor, name: str, sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A sum of positive definite matrices `(*batch, d, d)`, and its Cholesky factor.

    Where one is larger than another by more than the digits of the dtype hold, rounding leaves neither: then the sum
    is lifted as by `positive`, and a warning says so.

    Args:
        total: of precisions, or of sums of squares.
        name: of the sum, for errors.
        sizes: see `positive`.

    Raises:
        ValueError: entries are not finite, or no sum of positive definite matrices.

    Warns:
        PlacementWarning: digits were lost.
    """
    try:
        return total, cholesky(total, name)
    except ValueError:
        lifted = positive(total, sizes=sizes)
        factor = cholesky(lifted, name)
    digits = -math.log10(torch.finfo(total.dtype).eps) / 2
    warn(
        f"rows of x are so long that next to them the {name} of the weights before them is lost to rounding: "
        f"posteriors are too sure of the weights; divide x by its scale, so that it is within 1e{digits:.0f} of what "
        "the prior expects",
        PlacementWarning,
    )
    return lifted, factor


def positive(matrix: Tensor, dtype: torch.dtype | None = None, *, sizes: Tensor | None = None) -> Tensor:
    """Where rounding to `dtype` took the least eigenvalue of a sum of squares, a last digit more on the diagonal.

    Rounding moves a matrix with a diagonal of ones by dim * eps / 2 at most, and its factors by as much again. What
    has that much to spare is left as it is, so that what passes here is factored by any algorithm.

    Args:
        matrix: symmetric `(*batch, d, d)`.
        dtype: that it was rounded to, by default its own.
        sizes: of the terms that were added up on its diagonal, `(*batch, d)`, where these cancel.
    """
    dim, diagonal = matrix.shape[-1], matrix.detach().diagonal(dim1=-2, dim2=-1)
    digit = dim * torch.finfo(dtype or matrix.dtype).eps * (diagonal if sizes is None else sizes.detach())
    info = torch.linalg.cholesky_ex(matrix.detach() - torch.diag_embed(2.0 * digit)).info
    if not bool(info.any()):
        return matrix
    return matrix + torch.diag_embed((info > 0).to(matrix)[..., None] * 4.0 * digit)


def rounded(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """A positive definite matrix in another dtype, where it is positive definite still: see `positive`."""
    return matrix if matrix.dtype == dtype else positive(matrix.to(dtype))


def piece_of(tasks: int) -> int:
    """About as many tasks, but no multiple of a page: rows that far apart would take turns in one line of the cache."""
    return tasks // 64 * 64 + 8


def differentiated(*tensors: Tensor) -> bool:
    """Whether a gradient is asked of any of them: what works in place must not be used."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def unravel(index: int, shape: tuple[int, ...]) -> str:
    """A flat index as people write it: `3`, or `(1, 2)` where tasks have two axes."""
    indices = [int(i) for i in torch.unravel_index(torch.tensor(index), tuple(shape))]
    return str(indices[0]) if len(indices) == 1 else str(tuple(indices))


def log_det(factor: Tensor) -> Tensor:
    """log|A| from the Cholesky factor of A."""
    return 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def log_det_of_one_plus(matrix: Tensor) -> Tensor:
    """log|I + A| of positive semidefinite A `(*batch, d, d)`, with all digits where A is small; a loop over d."""
    total = torch.zeros_like(matrix[..., 0, 0])
    while matrix.shape[-1]:
        pivot, column = matrix[..., 0, 0], matrix[..., 1:, 0]
        total = total + torch.log1p(pivot.clamp(min=0.0))
        ratio = column / (1.0 + pivot)[..., None]
        matrix = matrix[..., 1:, 1:] - ratio[..., :, None] * column[..., None, :]
    return total


def log_det_of(matrix: Tensor, name: str) -> Tensor:
    """log|A| of A `(*batch, d, d)`; in a fused kernel NaN where A is not positive definite, else as `cholesky`."""
    if not torch.compiler.is_compiling():
        return _LogDet.apply(matrix, name)
    return torch.stack([pivot.log() for pivot in _pivots(matrix)]).sum(0)


class _LogDet(torch.autograd.Function):
    """log|A|, whose gradient is A^-1: by way of the Cholesky factor it takes five times as long."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, name: str) -> Tensor:
        ctx.save_for_backward(matrix)
        ctx.name = name
        return log_det(cholesky(matrix, name))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (matrix,) = ctx.saved_tensors
        inverse, info = torch.linalg.inv_ex(matrix)
        if bool((info != 0).any()):  # a line search may go where a factor has digits and elimination has none
            inverse = torch.cholesky_inverse(cholesky(matrix, ctx.name))
        return gradient[..., None, None] * inverse, None


def _pivots(matrix: Tensor) -> list[Tensor]:
    """Squares of the diagonal of the Cholesky factor, unrolled over the entries for a compiler to fuse."""
    dim = matrix.shape[-1]
    factor: list[list[Tensor]] = [[] for _ in range(dim)]
    pivots = []
    for j in range(dim):
        column = [matrix[..., i, j] for i in range(j, dim)]
        for k in range(j):
            column = [entry - factor[i][k] * factor[j][k] for i, entry in enumerate(column, start=j)]
        pivots.append(column[0])
        for i, entry in enumerate(column, start=j):
            factor[i].append(entry * column[0].rsqrt())
    return pivots


def solve(factor: Tensor, vector: Tensor) -> Tensor:
    """A^-1 v from the Cholesky factor of A; `vector` is `(*batch, d)`."""
    if _suits_columns(factor) and vector.shape == factor.shape[:-1] and not differentiated(vector):
        return _solve_by_columns(factor, vector)
    return torch.cholesky_solve(vector[..., None], factor)[..., 0]


def _solve_by_columns(factor: Tensor, vector: Tensor) -> Tensor:
    """All tasks at once, as `_factor_by_columns`."""
    tasks, dim = vector.shape
    step = piece_of(PIECE // max(dim, 1) ** 2)
    answer = torch.empty(dim, tasks, dtype=vector.dtype, device=vector.device)
    for start in range(0, tasks, step):
        root, out = factor[start : start + step].movedim(0, -1), answer[:, start : start + step]
        out.copy_(vector[start : start + step].mT)
        for j in range(dim):
            out[j] /= root[j, j]
            out[j + 1 :].addcmul_(root[j + 1 :, j], out[j], value=-1.0)
        for j in reversed(range(dim)):
            out[j] /= root[j, j]
            out[:j].addcmul_(root[j, :j], out[j], value=-1.0)
    return answer.mT


def pack_tril(factor: Tensor) -> Tensor:
    """A lower factor with positive diagonal as an unconstrained vector: log diagonal, then the entries below it."""
    dim = factor.shape[-1]
    row, column = torch.tril_indices(dim, dim, -1, device=factor.device)
    return torch.cat([factor.diagonal(dim1=-2, dim2=-1).log(), factor[..., row, column]], -1)


def symmetric(matrix: Tensor) -> Tensor:
    """Rounding differs between a product and its mirror image: make them equal to the last digit."""
    return 0.5 * (matrix + matrix.mT)


def unpack_tril(vector: Tensor, dim: int) -> Tensor:
    """The inverse of `pack_tril`: factors `(..., dim, dim)` from vectors of length dim (dim + 1) / 2."""
    row, column = torch.tril_indices(dim, dim, -1, device=vector.device)
    factor = torch.diag_embed(vector[..., :dim].exp())
    factor[..., row, column] = vector[..., dim:]
    return factor
