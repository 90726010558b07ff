"""How far draws are from a distribution: of their Gaussian moments, and of all of them."""

import torch
from torch import Tensor

__all__ = ["energy_distance", "gaussian_w2", "moments"]


def moments(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `(*batch, k)` and covariance `(*batch, k, k)` of draws `(n, *batch, k)`."""
    mean = draws.mean(0)
    about = (draws - mean).movedim(0, -2)
    return mean, about.mT @ about / (len(draws) - 1)


def gaussian_w2(mean: Tensor, cov: Tensor, other_mean: Tensor, other_cov: Tensor) -> Tensor:
    r"""Squared Wasserstein distance of two Gaussians, `(*batch,)`.

    $|m - m'|^2 + \operatorname{tr}(C + C' - 2 (C^{1/2} C' C^{1/2})^{1/2})$.

    Source: Givens and Shortt, A class of Wasserstein metrics for probability distributions (1984).
    """
    values, vectors = torch.linalg.eigh(cov)
    root = (vectors * values.clamp(min=0.0).sqrt()[..., None, :]) @ vectors.mT
    shared = torch.linalg.eigvalsh(root @ other_cov @ root).clamp(min=0.0).sqrt().sum(-1)
    traces = (cov + other_cov).diagonal(dim1=-2, dim2=-1).sum(-1)
    return (mean - other_mean).square().sum(-1) + traces - 2.0 * shared


def energy_distance(draws: Tensor, other: Tensor) -> Tensor:
    """Of two sets of draws `(n, *batch, k)`, in units of how far draws of `other` are from each other, `(*batch,)`.

    Source: Székely and Rizzo, Energy statistics: a class of statistics based on distances (2013).
    """
    a, b = draws.movedim(0, -2), other.movedim(0, -2)
    n, m = len(draws), len(other)
    between = torch.cdist(a, b).mean((-2, -1))
    within = torch.cdist(a, a).sum((-2, -1)) / (n * (n - 1)), torch.cdist(b, b).sum((-2, -1)) / (m * (m - 1))
    return (2.0 * between - within[0] - within[1]) / within[1]
