"""What is known of theta after rows: Gaussians of one covariance, one for each particle, and their weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.diffusion.sampling.particle_filter import effective_size, filtered
from bayesmeta.diffusion.sampling.twists import Twist
from bayesmeta.numerics.linalg import cholesky, positive, symmetric
from bayesmeta.random import categorical, randn

__all__ = ["WeightedGaussians", "posterior_of"]


@dataclass(frozen=True)
class WeightedGaussians:
    """A mixture for each task.

    Args:
        mean: `(b, n, k)`.
        cov: `(b, k, k)`.
        log_weights: normalised `(b, n)`.
        log_evidence: of the rows `(b,)`.
        num_ancestors: how many of the first particles are left `(b,)`.
    """

    mean: Tensor
    cov: Tensor
    log_weights: Tensor
    log_evidence: Tensor
    num_ancestors: Tensor

    @property
    def ess(self) -> Tensor:
        """As many equally weighted particles would say as much of a mean, `(b,)`."""
        return effective_size(self.log_weights)

    def draw(self, num: int, generator: Generator | None) -> Tensor:
        """Draws of theta `(num, b, k)`."""
        index = categorical(num, self.log_weights, generator=generator)
        mean = self.mean.expand(num, *self.mean.shape).gather(2, index[..., None, None].expand(-1, -1, 1, self._size))
        noise = randn((num, *self.cov.shape[:-1]), like=self.mean, generator=generator)
        return mean[:, :, 0] + (self.root @ noise[..., None])[..., 0]

    @cached_property
    def root(self) -> Tensor:
        """Of the covariance, `(b, k, k)`."""
        return cholesky(positive(self.cov), "covariance of a particle")

    @property
    def _size(self) -> int:
        return self.mean.shape[-1]


def posterior_of(
    chain: Chain,
    rows: Callable[[slice], Observations],
    num_tasks: int,
    num: int,
    *,
    piece: int,
    generator: Generator | None = None,
) -> WeightedGaussians:
    """Of tasks, some at a time.

    Args:
        rows: of some tasks.
        num: particles of each.
        piece: tasks at a time.
        generator: of noise that each task has for itself; None takes the same noise for all tasks and at all times, so
            that the posterior of a task is a function of its rows.
    """
    each = [_some(chain, rows(slice(i, i + piece)), num, generator) for i in range(0, num_tasks, piece)]
    parts = ("mean", "cov", "log_weights", "log_evidence", "num_ancestors")
    return WeightedGaussians(*(torch.cat([getattr(one, part) for one in each]) for part in parts))


def _some(chain: Chain, rows: Observations, num: int, generator: Generator | None) -> WeightedGaussians:
    each = 1 if generator is None else len(rows.y)
    generator = generator or Generator(device=rows.y.device).manual_seed(0)
    found = filtered(chain, rows, ParticleNoise(each, num, len(chain.root), rows.y, generator))
    last = Twist(rows, chain.residual(0))
    cov = symmetric(last.cov_given())
    return WeightedGaussians(last.given(found.mean), cov, found.log_weights, found.log_evidence, found.num_ancestors)
