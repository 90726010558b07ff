r"""Particles half way down, from where they go on again once there are more rows.

Above the middle a few more rows change little of what particles are, and half of the cost of a posterior is there. What
led a particle to the middle was a proposal, and its weight as a draw from the prior makes up for that; times the twist
of all rows it is a weight for all rows. So the posterior that is drawn from there, and its evidence, are as exact as
those from the highest level, as long as enough particles of the middle have weight.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.gaussians import Sampler, WeightedGaussians, joined
from bayesmeta.diffusion.sampling.noise import SharedNoise
from bayesmeta.diffusion.sampling.particle_filter import Layer, effective_size
from bayesmeta.diffusion.sampling.posterior import posterior_of, weighted
from bayesmeta.diffusion.sampling.tempering import RowsOf, is_poor
from bayesmeta.diffusion.sampling.twists import Twist

__all__ = ["Middle", "looked_at_again"]

LEAST = 0.25  # share of the particles: where fewer are effective in the middle, they come from the highest level


@dataclass(frozen=True)
class Middle:
    """Particles half way down of tasks, each as of when it was looked at from the highest level.

    Args:
        u, mean: see `Layer`, in float32, as a network sees them `(b, n, k)`.
        log_weights: `(b, n)`, no numbers for tasks that were not looked at yet.
        ancestor: `(b, n)`.
    """

    u: Tensor
    mean: Tensor
    log_weights: Tensor
    ancestor: Tensor

    @classmethod
    def nowhere(cls, num_tasks: int, num_particles: int, size: int, like: Tensor) -> "Middle":
        """Of tasks that were not looked at yet."""
        u = torch.zeros(num_tasks, num_particles, size, dtype=torch.float32, device=like.device)
        ancestor = torch.zeros(num_tasks, num_particles, dtype=torch.long, device=like.device)
        return cls(u, torch.zeros_like(u), like.new_full(ancestor.shape, torch.nan), ancestor)

    def layer(self, level: int, some: Tensor) -> Layer:
        """Of tasks by their numbers."""
        log_weights = self.log_weights[some]
        u, mean = (part[some].to(log_weights) for part in (self.u, self.mean))
        return Layer(level, u, mean, log_weights, self.ancestor[some])

    def put(self, some: Tensor, layer: Layer) -> None:
        """Where tasks are now."""
        for field in fields(self):
            kept = getattr(self, field.name)
            kept[some] = getattr(layer, field.name).to(kept)


def looked_at_again(
    chain: Chain,
    rows: RowsOf,
    tasks: Tensor,
    middle: Middle,
    *,
    piece: int,
    around: Callable[[Sampler], Sampler],
) -> WeightedGaussians:
    """As `posterior_of`, from the middle where that will do; the middle of all other tasks is what they now pass.

    Args:
        rows: of some of the tasks, by their places.
        tasks: their numbers in `middle` `(b,)`.
        piece: tasks at a time.
        around: what the sampler of the family makes of the filter.
    """
    places = torch.arange(len(tasks), device=tasks.device)
    return joined([_of_piece(chain, rows, tasks, middle, some, around) for some in places.split(piece)])


def _of_piece(
    chain: Chain, rows: RowsOf, tasks: Tensor, middle: Middle, places: Tensor, around: Callable[[Sampler], Sampler]
) -> WeightedGaussians:
    assert chain.middle is not None
    num, each = middle.u.shape[1], []
    layer, seen = middle.layer(chain.middle, tasks[places]), rows(places)
    log_weights = layer.log_weights + Twist(seen, chain.residual(chain.middle)).log_prob(layer.mean)
    is_warm = effective_size(log_weights.log_softmax(-1)) >= LEAST * num  # false where there are no numbers
    warm, cold = places[is_warm], places[~is_warm]
    if len(warm):
        sampler = around(partial(weighted, start=middle.layer(chain.middle, tasks[warm])))
        found = sampler(chain, rows(warm), SharedNoise.of(chain, num, seen.y))
        is_good = ~is_poor(found)
        warm, cold = warm[is_good], torch.cat([cold, warm[~is_good]])
        each.append(found.some(is_good))
    if len(cold):
        layers: list[Layer] = []
        sampler = around(partial(weighted, keep=layers.append))
        each.append(
            posterior_of(chain, lambda some: rows(cold[some]), len(cold), num, piece=len(cold), sampler=sampler)
        )
        middle.put(tasks[cold], layers[0])  # later ones are of tempered rows
    return joined(each).some(torch.cat([warm, cold]).argsort())
