"""Noise of particles: the same for all tasks, or each task's own; and in pairs that cancel."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bayesmeta.random import rand, randn

__all__ = ["ParticleNoise"]


@dataclass(frozen=True)
class ParticleNoise:
    """Standard normal and uniform numbers for the particles of tasks.

    Each particle's noise is normal, and that of the second half is minus that of the first: what is linear in it has no
    error in its mean, and what is unbiased stays so.

    Args:
        num_tasks: 1 for noise that all tasks share: then the posterior of a task does not depend on which others are
            asked for beside it, and the errors of tasks are alike.
        num_particles: n.
        size: numbers of each particle.
        like: of their dtype and device.
        generator: draws them.
    """

    num_tasks: int
    num_particles: int
    size: int
    like: Tensor
    generator: Generator

    def normal(self) -> Tensor:
        """`(num_tasks, n, size)`."""
        half = -(-self.num_particles // 2)
        first = randn((self.num_tasks, half, self.size), like=self.like, generator=self.generator)
        return torch.cat([first, -first], 1)[:, : self.num_particles]

    def uniform(self) -> Tensor:
        """`(num_tasks, 1)`."""
        return rand((self.num_tasks, 1), like=self.like, generator=self.generator)
