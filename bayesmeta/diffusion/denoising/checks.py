"""Checks of what a diffusion prior is made of: its levels, and what is known at each."""

import torch
from torch import Tensor

from bayesmeta.data.validation import require_positive
from bayesmeta.numerics.linalg import cholesky

__all__ = ["require_levels"]


def require_levels(noises: Tensor, gates: Tensor, residual_cov: Tensor, size: int) -> None:
    """Levels rise from above zero; each has gates from 0 to 1 and a covariance of vectors of this size.

    Raises:
        ValueError: they do not, or are not there.
    """
    num = len(noises)
    if not num:
        raise ValueError("noises must be of at least one level; got none. Use DiffusionPrior.initial")
    for name, value, expected in (("gates", gates, (num, size)), ("residual_cov", residual_cov, (num, size, size))):
        if tuple(value.shape) != expected:
            raise ValueError(
                f"{name} must have shape {expected}, for {num} levels and {size} directions; got {tuple(value.shape)}"
            )
    require_positive("noises", noises)
    if bool((noises.diff() <= 0.0).any()):
        raise ValueError(f"noises must rise from level to level; got {noises.tolist()}")
    outside = ~((gates >= 0.0) & (gates <= 1.0))
    if bool(outside.any()):
        level = int(outside.nonzero()[0, 0])
        raise ValueError(f"gates must be from 0 to 1; got {gates[level].tolist()} at level {level}")
    cholesky(residual_cov.to(torch.float64), "residual_cov")
