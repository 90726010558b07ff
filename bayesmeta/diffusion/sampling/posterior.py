"""Posteriors of tasks, some at a time, by the particle filter or by another sampler."""

from collections.abc import Callable

from torch import Generator

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.gaussians import Sampler, WeightedGaussians, joined
from bayesmeta.diffusion.sampling.noise import ParticleNoise, SharedNoise
from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.diffusion.sampling.particle_filter import Layer, filtered
from bayesmeta.diffusion.sampling.tempering import RowsOf, tempered
from bayesmeta.diffusion.sampling.twists import Twist
from bayesmeta.numerics.linalg import symmetric

__all__ = ["posterior_of", "weighted"]


def weighted(
    chain: Chain,
    rows: Observations,
    noise: ParticleNoise,
    *,
    start: Layer | None = None,
    keep: Callable[[Layer], None] | None = None,
) -> WeightedGaussians:
    """Particles of the filter, each with what the rows say of theta given the lowest level.

    Args:
        start: where particles begin; None is the highest level.
        keep: is given the particles half way, if there are any.
    """
    found = filtered(chain, rows, noise, start=start)
    if keep is not None and found.middle is not None:
        keep(found.middle)
    last = Twist(rows, chain.residual(0))
    cov = symmetric(last.cov_given())
    return WeightedGaussians(last.given(found.mean), cov, found.log_weights, found.log_evidence, found.num_ancestors)


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
        if generator is None:
            return sampler(chain, rows, SharedNoise.of(chain, num, rows.y))
        return sampler(chain, rows, ParticleNoise(len(rows.y), num, len(chain.root), rows.y, generator))

    found = joined([some(rows(slice(i, i + piece))) for i in range(0, max(num_tasks, 1), piece)])  # also of no tasks
    return tempered(found, rows, some, piece)
