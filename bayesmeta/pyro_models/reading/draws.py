"""Draws of distributions of sites: their own, but where those of torch are not of their density."""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Independent, LKJCholesky

from bayesmeta.random import gamma, randn, seeded

__all__ = ["drawn"]


@torch.no_grad()
def drawn(fn: Any, generator: Generator | None) -> Tensor:
    """A value of `fn`."""
    inner = fn
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if isinstance(inner, LKJCholesky):
        return _correlations(inner.concentration, inner.dim, generator)
    with seeded(generator):
        return fn.sample()


def _correlations(concentration: Tensor, dim: int, generator: Generator | None) -> Tensor:
    """Factors of correlation matrices `(*batch, dim, dim)`, row by row.

    `LKJCholesky.sample` of torch has too large correlations from the third row on, its density is right.

    Source: Lewandowski, Kurowicka and Joe, Generating random correlation matrices based on vines and extended onion
    method (2009), section 3.2.
    """
    factor = concentration.new_zeros(*concentration.shape, dim, dim)
    factor[..., 0, 0] = 1.0
    for k in range(1, dim):
        direction = randn((*concentration.shape, k), like=concentration, generator=generator)
        direction = direction / direction.norm(dim=-1, keepdim=True)
        a = gamma((), torch.full_like(concentration, 0.5 * k), generator=generator)
        b = gamma((), concentration + 0.5 * (dim - 1.0 - k), generator=generator)
        factor[..., k, :k] = (a / (a + b)).sqrt()[..., None] * direction
        factor[..., k, k] = (b / (a + b)).sqrt()
    return factor
