"""Noise of particles: the same for all tasks, or each task's own; and in pairs that cancel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.random import rand, randn

__all__ = ["FirstNoise", "ParticleNoise", "SharedNoise", "StepNoise", "fixed_noise"]

MOST = 2**21  # numbers that are kept for another time


class FirstNoise(NamedTuple):
    """Of the highest level.

    Args:
        theta: a draw of N(0, C) `(#b, n, k)`.
        rows: standard normal, of which rows take theirs `(#b, n, k)`.
        u: another draw of N(0, C).
    """

    theta: Tensor
    rows: Tensor
    u: Tensor


class StepNoise(NamedTuple):
    """Of a step down.

    Args:
        start: uniform `(#b, 1)`, by which particles are resampled.
        theta: a draw of N(0, T) at the level that is left `(#b, n, k)`.
        rows: standard normal, of which rows take theirs `(#b, n, k)`.
        u: of u below, theta given.
    """

    start: Tensor
    theta: Tensor
    rows: Tensor
    u: Tensor


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

    def first(self, chain: Chain) -> FirstNoise:
        """Of the highest level of a chain."""
        return FirstNoise(self.normal() @ chain.root.mT, self.normal(), self.normal() @ chain.root.mT)

    def step(self, chain: Chain, level: int) -> StepNoise:
        """From a level to the one below."""
        start, sd = self.uniform(), chain.step(level).var ** 0.5
        theta, rows = self.normal() @ chain.residual_roots[level].mT, self.normal()
        return StepNoise(start, theta, rows, sd * (self.normal() @ chain.root.mT))


@dataclass(frozen=True)
class SharedNoise(ParticleNoise):
    """The same for all tasks and at all times: what a chain makes of it is kept with the chain."""

    @classmethod
    def of(cls, chain: Chain, num_particles: int, like: Tensor) -> "SharedNoise":
        return cls(1, num_particles, len(chain.root), like, fixed_noise(like.device, -1))

    def first(self, chain: Chain) -> FirstNoise:
        kept: FirstNoise = self._kept(chain, chain.num_levels, lambda own: own.first(chain))
        return kept

    def step(self, chain: Chain, level: int) -> StepNoise:
        kept: StepNoise = self._kept(chain, level, lambda own: own.step(chain, level))
        return kept

    def _kept(self, chain: Chain, level: int, make: Callable[[ParticleNoise], Any]) -> Any:
        """By a generator of its own for each level, the one above the highest for the first particles."""
        key = (self.num_particles, level)
        if key in chain.kept:
            return chain.kept[key]
        found = make(ParticleNoise(1, self.num_particles, self.size, self.like, fixed_noise(self.like.device, level)))
        if 3 * self.num_particles * self.size * chain.num_levels <= MOST:
            chain.kept[key] = found
        return found


def fixed_noise(device: torch.device, level: int) -> Generator:
    """The noise of every posterior at a level, -1 for what belongs to none: the same rows have the same noise."""
    return Generator(device=device).manual_seed(level + 1)
