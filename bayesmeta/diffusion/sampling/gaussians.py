"""What is known of theta after rows: Gaussians of one covariance, one for each particle, and their weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Generator, Tensor

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.diffusion.sampling.particle_filter import effective_size
from bayesmeta.numerics.linalg import cholesky, positive
from bayesmeta.random import categorical, randn

__all__ = ["Sampler", "WeightedGaussians", "drawn", "joined"]


@dataclass(frozen=True)
class WeightedGaussians:
    """A mixture for each task.

    Args:
        mean: `(b, n, k)`.
        cov: `(b, k, k)`.
        log_weights: normalised `(b, n)`.
        log_evidence: of the rows `(b,)`; not a number where the sampler does not estimate it.
        num_ancestors: how many of the first particles are left `(b,)`.
    """

    mean: Tensor
    cov: Tensor
    log_weights: Tensor
    log_evidence: Tensor
    num_ancestors: Tensor

    @classmethod
    def equal(cls, mean: Tensor, cov: Tensor) -> "WeightedGaussians":
        """Of particles that were never weighted or resampled."""
        b, num, _ = mean.shape
        log_weights = mean.new_full((b, num), -math.log(num))
        return cls(mean, cov, log_weights, mean.new_full((b,), math.nan), torch.full((b,), num, device=mean.device))

    @property
    def ess(self) -> Tensor:
        """As many equally weighted particles would say as much of a mean, `(b,)`."""
        return effective_size(self.log_weights)

    def some(self, tasks: Tensor) -> "WeightedGaussians":
        """Of some of the tasks, by their numbers or whether they are."""
        return WeightedGaussians(**{name: part[tasks] for name, part in self._parts()})

    def with_tasks(self, index: Tensor, other: "WeightedGaussians") -> "WeightedGaussians":
        """With those of `other` in the place of some tasks, whose evidence stays: none where it is no number."""
        parts = {name: part.index_copy(0, index, getattr(other, name)) for name, part in self._parts()}
        evidence = self.log_evidence.nan_to_num(-math.inf, math.inf, -math.inf)
        parts["log_evidence"] = self.log_evidence.index_copy(0, index, evidence[index])
        return WeightedGaussians(**parts)

    def draw(self, num: int, generator: Generator | None) -> Tensor:
        """Draws of theta `(num, b, k)`."""
        return drawn(self.mean, self.root, self.log_weights, num, generator)

    @cached_property
    def root(self) -> Tensor:
        """Of the covariance, `(b, k, k)`; zero where particles are draws of theta."""
        if not bool(self.cov.any()):
            return self.cov
        return cholesky(positive(self.cov), "covariance of a particle")

    def _parts(self) -> list[tuple[str, Tensor]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


Sampler = Callable[[Chain, Observations, ParticleNoise], WeightedGaussians]


def joined(each: Sequence[WeightedGaussians]) -> WeightedGaussians:
    """Of the tasks of all."""
    names = [field.name for field in fields(WeightedGaussians)]
    return WeightedGaussians(**{name: torch.cat([getattr(one, name) for one in each]) for name in names})


def drawn(mean: Tensor, root: Tensor, log_weights: Tensor, num: int, generator: Generator | None) -> Tensor:
    """Draws `(num, *batch, k)` from Gaussians of one covariance: mean `(*batch, n, k)`, its root `(*batch, k, k)`."""
    chosen = categorical(num, log_weights, generator=generator)
    every = mean.expand(num, *mean.shape)
    own = every.gather(-2, chosen[..., None, None].expand(*chosen.shape, 1, every.shape[-1]))[..., 0, :]
    noise = randn(own.shape, like=own, generator=generator)
    return own + (root @ noise[..., None])[..., 0]
