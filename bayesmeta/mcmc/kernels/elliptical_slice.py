"""Elliptical slice sampling: draws from a standard normal prior times any likelihood, with nothing to tune.

Source: Murray, Adams and MacKay, Elliptical slice sampling (2010).
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from bayesmeta.random import rand, randn

__all__ = ["elliptical_slice"]

MAX_SHRINKS = 100  # of a slice: by then it is narrower than rounding, and the chain stays where it is


def elliptical_slice(point: Tensor, log_likelihood: Callable[[Tensor], Tensor], generator: Generator | None) -> Tensor:
    """One step of each chain, `(chains, d)`, which leaves the posterior under a standard normal prior unchanged.

    Args:
        point: where the chains are, `(chains, d)`.
        log_likelihood: of points `(chains, d)`, shape `(chains,)`.
        generator: draws directions, levels and angles.
    """
    other = randn(point.shape, like=point, generator=generator)
    level = log_likelihood(point) + rand((len(point),), like=point, generator=generator).log()
    high = 2.0 * math.pi * rand((len(point),), like=point, generator=generator)
    low, angle, new = high - 2.0 * math.pi, high, point
    waiting = torch.ones_like(level, dtype=torch.bool)
    for _ in range(MAX_SHRINKS):
        proposed = point * angle.cos()[:, None] + other * angle.sin()[:, None]
        accepted = waiting & (log_likelihood(proposed) > level)
        new = torch.where(accepted[:, None], proposed, new)
        waiting = waiting & ~accepted
        if not bool(waiting.any()):
            break
        # the bracket keeps the angle zero, where the chain is: so it shrinks towards a point that is accepted
        low, high = torch.where(angle < 0, angle, low), torch.where(angle < 0, high, angle)
        angle = low + (high - low) * rand((len(point),), like=point, generator=generator)
    return new
