"""Posteriors of tasks, some at a time, by the particle filter or by another sampler."""

import torch
from torch import Generator

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.gaussians import Sampler, WeightedGaussians, joined
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.diffusion.sampling.particle_filter import filtered
from bayesmeta.diffusion.sampling.tempering import RowsOf, tempered
from bayesmeta.diffusion.sampling.twists import Twist
from bayesmeta.numerics.linalg import symmetric

__all__ = ["fixed_noise", "posterior_of", "weighted"]


def weighted(chain: Chain, rows: Observations, noise: ParticleNoise) -> WeightedGaussians:
    """Particles of the filter, each with what the rows say of theta given the lowest level."""
    found = filtered(chain, rows, noise)
    last = Twist(rows, chain.residual(0))
    cov = symmetric(last.cov_given())
    return WeightedGaussians(last.given(found.mean), cov, found.log_weights, found.log_evidence, found.num_ancestors)


def fixed_noise(device: torch.device) -> Generator:
    """The noise of every posterior: the same rows have the same one."""
    return Generator(device=device).manual_seed(0)


def posterior_of(
    chain: Chain,
    rows: RowsOf,
    num_tasks: int,
    num: int,
    *,
    piece: int,
    sampler: Sampler = weighted,
    generator: Generator | None = None,
) -> WeightedGaussians:
    """Of tasks, some at a time, and tempered where hardly a particle explains the rows.

    Args:
        rows: of some tasks, by a slice or by their numbers.
        num: particles of each.
        piece: tasks at a time.
        generator: of noise that each task has for itself; None takes the same noise for all tasks and at all times, so
            that the posterior of a task is a function of its rows.
    """

    def some(rows: Observations) -> WeightedGaussians:
        each, source = (1, fixed_noise(rows.y.device)) if generator is None else (len(rows.y), generator)
        return sampler(chain, rows, ParticleNoise(each, num, len(chain.root), rows.y, source))

    found = joined([some(rows(slice(i, i + piece))) for i in range(0, max(num_tasks, 1), piece)])  # also of no tasks
    return tempered(found, rows, some, piece)
