"""Cholesky factors that say which task failed, and the few solves that the families share."""

import torch
from torch import Tensor

__all__ = ["cholesky", "log_det", "pack_tril", "solve", "symmetric", "unpack_tril", "unravel"]


def cholesky(matrix: Tensor, name: str) -> Tensor:
    """Lower Cholesky factors of `matrix` `(*batch, d, d)`.

    Raises:
        ValueError: a matrix is not positive definite; the message names it, its task and its least eigenvalue.
    """
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


def unravel(index: int, shape: tuple[int, ...]) -> str:
    """A flat index as people write it: `3`, or `(1, 2)` where tasks have two axes."""
    indices = [int(i) for i in torch.unravel_index(torch.tensor(index), tuple(shape))]
    return str(indices[0]) if len(indices) == 1 else str(tuple(indices))


def log_det(factor: Tensor) -> Tensor:
    """log|A| from the Cholesky factor of A."""
    return 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def solve(factor: Tensor, vector: Tensor) -> Tensor:
    """A^-1 v from the Cholesky factor of A; `vector` is `(*batch, d)`."""
    return torch.cholesky_solve(vector[..., None], factor)[..., 0]


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
