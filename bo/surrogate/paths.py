"""Draws of functions, each evaluated at points of its own, as whoever climbs them needs."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.protocol import Functions, Posterior

__all__ = ["Paths"]

MOST_TOGETHER = 8  # draws are evaluated at the points of all they were drawn with: more together waste more


class Paths:
    """Draws from the posterior of one task with one output.

    Raises:
        TypeError: the posterior has no draws.
        ValueError: it has a batch or vectors of outputs, or there are no draws.
    """

    def __init__(self, posterior: Posterior, num_draws: int, *, generator: Generator | None = None) -> None:
        if not isinstance(posterior, Posterior):
            raise TypeError(f"Thompson sampling needs a posterior with `sample`; got {type(posterior).__name__}")
        if posterior.batch_shape or posterior.event_shape:
            raise ValueError(
                f"Thompson sampling needs the posterior of one task with one output; got batch_shape "
                f"{tuple(posterior.batch_shape)} and event_shape {tuple(posterior.event_shape)}"
            )
        if num_draws < 1:
            raise ValueError(f"there must be one draw or more; got {num_draws}")
        sizes = [min(MOST_TOGETHER, num_draws - start) for start in range(0, num_draws, MOST_TOGETHER)]
        self.bundles: Sequence[Functions] = [posterior.sample(size, generator=generator) for size in sizes]

    def everywhere(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "draws n"]:
        """All draws at all points."""
        return torch.cat([draws(x) for draws in self.bundles])

    def apart(self, x: Float[Tensor, "draws n d"]) -> Float[Tensor, "draws n"]:
        """Each draw at its own points."""
        values = []
        for draws, own in zip(self.bundles, x.split(MOST_TOGETHER), strict=True):
            every = draws(own.flatten(0, 1)).unflatten(-1, own.shape[:2])
            values.append(every.diagonal(dim1=0, dim2=1).mT)
        return torch.cat(values)
