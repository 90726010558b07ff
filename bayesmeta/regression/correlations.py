"""Covariances as standard deviations and what correlates them: the coordinates in which regressions learn weights.

Every standard deviation has the same hyperprior, whatever the order of the columns. Entries of a Cholesky factor would
give later columns more, and the same spread to what ties two weights whether those weights vary much or little.

Source: Barnard, McCulloch and Meng, Modeling covariance matrices in terms of standard deviations and correlations
(2000).
"""

import torch
from torch import Tensor

__all__ = ["LARGEST_TILT", "TOGETHER", "pack_scales", "scale_tril"]

LARGEST_TILT = 1e3  # two weights correlate by 1 - 5e-7 at most
TOGETHER = "one weight follows from others, in all tasks alike"


def scale_tril(log_scale: Tensor, below: Tensor) -> Tensor:
    """Cholesky factor `(*batch, d, d)` whose row i has length exp(log_scale[i]), the standard deviation of entry i.

    Its entries below the diagonal are `below`, row by row, times the diagonal entry of their row: what ties a weight to
    those before it, zero where weights are independent.
    """
    d = log_scale.shape[-1]
    row, column = torch.tril_indices(d, d, -1, device=log_scale.device)
    factor = torch.eye(d).to(log_scale).expand(*log_scale.shape, d).clone()
    factor[..., row, column] = below
    return log_scale.exp()[..., None] * factor / factor.square().sum(-1, keepdim=True).sqrt()


def pack_scales(factor: Tensor) -> Tensor:
    """The inverse of `scale_tril`: log_scale and then below, `(*batch, d (d + 1) / 2)`."""
    d = factor.shape[-1]
    row, column = torch.tril_indices(d, d, -1, device=factor.device)
    tilts = factor / factor.diagonal(dim1=-2, dim2=-1)[..., None]
    return torch.cat([torch.linalg.vector_norm(factor, dim=-1).log(), tilts[..., row, column]], -1)
