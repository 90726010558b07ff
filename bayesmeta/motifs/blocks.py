"""Mixtures over blocks of variables that a network gives: independent within a component."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.nn.functional import softplus

from bayesmeta.random import rand, randn

__all__ = ["BernoulliBlocks", "Blocks", "NormalBlocks"]

LEAST_SCALE = 1e-3


@runtime_checkable
class Blocks(Protocol):
    """Distributions of blocks of m values, one for each entry of a batch `(n,)`."""

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Draws `(num_draws, n, m)`."""
        ...

    def log_prob(self, values: Tensor) -> Tensor:
        """Of `(k, n, m)`, shape `(k, n)`."""
        ...


@dataclass(frozen=True)
class BernoulliBlocks:
    """Of zeros and ones.

    Args:
        log_weights: of the components `(n, c)`, normalised.
        logits: of ones `(n, c, m)`.
    """

    log_weights: Tensor
    logits: Tensor

    @classmethod
    def of(cls, said: Tensor, num_values: int) -> "BernoulliBlocks":
        """From what a network says, `(n, c (1 + m))`."""
        parts = said.unflatten(-1, (-1, 1 + num_values))
        return cls(parts[..., 0].log_softmax(-1), parts[..., 1:])

    @cached_property
    def _log_none(self) -> Tensor:
        """Log probability of a component and of zeros alone, `(n, c)`."""
        return self.log_weights - softplus(self.logits).sum(-1)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        logits = _of_component(self.log_weights, self.logits, num_draws, generator)
        return (rand(logits.shape, like=logits, generator=generator) < logits.sigmoid()).to(logits)

    def log_prob(self, values: Tensor) -> Tensor:
        ones = (values.to(self.logits).movedim(0, 1) @ self.logits.mT).movedim(1, 0)
        return (ones + self._log_none).logsumexp(-1)


@dataclass(frozen=True)
class NormalBlocks:
    """Of numbers.

    Args:
        log_weights: of the components `(n, c)`, normalised.
        loc, scale: `(n, c, m)`.
    """

    log_weights: Tensor
    loc: Tensor
    scale: Tensor

    @classmethod
    def of(cls, said: Tensor, num_values: int) -> "NormalBlocks":
        """From what a network says, `(n, c (1 + 2 m))`."""
        log_weights, loc, scale = said.unflatten(-1, (-1, 1 + 2 * num_values)).split([1, num_values, num_values], -1)
        return cls(log_weights[..., 0].log_softmax(-1), loc, LEAST_SCALE + softplus(scale))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        both = torch.cat([self.loc, self.scale], -1)
        loc, scale = _of_component(self.log_weights, both, num_draws, generator).chunk(2, -1)
        return loc + scale * randn(loc.shape, like=loc, generator=generator)

    def log_prob(self, values: Tensor) -> Tensor:
        z = (values.to(self.loc)[:, :, None] - self.loc) / self.scale
        each = -0.5 * z.square() - self.scale.log() - 0.5 * math.log(2.0 * math.pi)
        return (each.sum(-1) + self.log_weights).logsumexp(-1)


def _of_component(log_weights: Tensor, params: Tensor, num_draws: int, generator: Generator | None) -> Tensor:
    """Parameters `(num_draws, n, p)` of components drawn by their weights, from those of all `(n, c, p)`."""
    below = log_weights.exp().cumsum(-1)[..., :-1]
    uniform = rand((num_draws, len(below), 1), like=below, generator=generator)
    chosen = (uniform >= below).sum(-1)
    index = chosen.mT[..., None].expand(-1, -1, params.shape[-1])
    return params.gather(1, index).movedim(1, 0)
