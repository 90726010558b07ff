"""Covariances of a Gaussian process, and what is done with their factors: pure functions on tensors.

Another kernel would stand beside `matern52`, and its spectral density in `bayesmeta.gp.paths`.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["append", "matern52", "solve_triangular", "weighted_sum", "whiten", "with_noise"]


def matern52(a: Float[Tensor, "*#batch n d"], b: Float[Tensor, "*#batch m d"], lengthscale: Tensor) -> Tensor:
    """Matern-5/2 correlations `(*batch, n, m)`; `lengthscale` is `(*batch, d)`.

    They are (1 + r + r^2 / 3) exp(-r), r being the square root of five times the distance in lengthscales.

    Differentiable once, also where points coincide: there the gradient is zero.

    Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equation 4.17.
    """
    scaled = lengthscale[..., None, :] / math.sqrt(5.0)
    # distances by differences: the faster way by products loses the digits of close points
    r = torch.cdist(a / scaled, b / scaled, compute_mode="donot_use_mm_for_euclid_dist")
    # in place: for small d these passes over memory are most of the cost
    return (r / 3.0).add_(1.0).mul_(r).add_(1.0).mul_(r.neg().exp_())


def with_noise(cov: Tensor, noise_var: Tensor, mask: Tensor) -> Tensor:
    """`cov` `(*batch, n, n)` plus independent noise; rows and columns of pads become those of the identity."""
    eye = torch.eye(mask.shape[-1], dtype=cov.dtype, device=cov.device)
    both = mask[..., :, None] & mask[..., None, :]
    return torch.where(both, cov + noise_var[..., None, None] * eye, eye)


def weighted_sum(root: Tensor, weights: Tensor) -> Tensor:
    """root' weights, `(*batch, q)`: einsum does not copy a root `(*batch, n, q)` that several weights share."""
    return torch.einsum("...nq,...n->...q", root, weights)


def solve_triangular(factor: Tensor, cross: Tensor) -> Tensor:
    """factor^-1 cross, `(*batch, n, q)`: points of batches that the factor does not have are columns of one solve."""
    num_extra = cross.ndim - factor.ndim
    if num_extra <= 0:
        return torch.linalg.solve_triangular(factor, cross, upper=False)
    extra, q = cross.shape[:num_extra], cross.shape[-1]
    columns = cross.flatten(0, num_extra - 1).movedim(0, -2).flatten(-2)
    solved = torch.linalg.solve_triangular(factor, columns, upper=False)
    return solved.unflatten(-1, (extra.numel(), q)).movedim(-2, 0).unflatten(0, extra)


def whiten(factor: Tensor, centred: Tensor) -> Tensor:
    """factor^-1 centred, without copying a factor that several centred vectors share."""
    batch = torch.broadcast_shapes(factor.shape[:-2], centred.shape[:-1])
    factor = factor.expand(*batch, *factor.shape[-2:])
    return torch.linalg.solve_triangular(factor, centred.expand(*batch, -1)[..., None], upper=False)[..., 0]


def append(factor: Tensor, corner: Tensor, new: Tensor) -> Tensor:
    """The factor of [[A, B], [B', C]] from those of A and of the Schur complement; `corner` is factor^-1 B."""
    batch = torch.broadcast_shapes(factor.shape[:-2], corner.shape[:-2], new.shape[:-2])
    n, m = corner.shape[-2:]
    top = torch.cat([factor.expand(*batch, n, n), factor.new_zeros(*batch, n, m)], -1)
    bottom = torch.cat([corner.mT.expand(*batch, m, n), new.expand(*batch, m, m)], -1)
    return torch.cat([top, bottom], -2)
