"""Covariances from how predictions respond to one row more."""

import torch
from torch import Tensor

__all__ = ["covariance", "with_diagonal"]

LEAST = 1e-6  # eigenvalue of a matrix of correlations


def covariance(responses: Tensor, stddev: Tensor) -> Tensor:
    """Cov(y_i, y_j) `(..., q, q)`.

    Were (y_i, y_j) normal, the mean of y_j would move by cov_ij / sd_i where y_i is a standard deviation higher.

    Args:
        responses: these moves, i along the last axis but one.
        stddev: of y `(..., q)`.
    """
    found = responses * stddev[..., :, None]
    return 0.5 * (found + found.mT)


def with_diagonal(cov: Tensor, var: Tensor) -> Tensor:
    """A positive definite matrix with these variances and, as far as there is one, these covariances."""
    scale = var.sqrt()
    correlation = cov / (scale[..., :, None] * scale[..., None, :])
    eye = torch.eye(cov.shape[-1]).to(cov)
    off = correlation * (1.0 - eye)
    # the eigenvalues of the rest are at least as far below zero as this; shrunk by so much, with ones it is positive
    lowest = torch.linalg.eigvalsh(off)[..., :1, None].clamp(max=-1e-12)
    share = ((1.0 - LEAST) / -lowest).clamp(max=1.0)
    return (eye + share * off) * scale[..., :, None] * scale[..., None, :]
