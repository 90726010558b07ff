"""Splits that are dealt point by point: each goes to a side by its size and by how well it predicts the point.

Sources: Jain and Neal (2004), for restricted scans from a random start; Dahl, Sequentially-allocated merge-split
sampler for conjugate and nonconjugate Dirichlet process mixture models (2005), for one pass from the anchors alone.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from bayesmeta.motifs.partitions.kernels import Sides
from bayesmeta.motifs.partitions.model import Partitions, Sums
from bayesmeta.random import rand

__all__ = ["Scans"]


@dataclass(frozen=True)
class Scans:
    """Restricted scans, or one pass.

    Args:
        num_launches: scans from random sides, before the one whose probability counts; None for one pass that begins
            with the anchors alone.
    """

    num_launches: int | None = None

    def deal(self, model: Partitions, parts: Sides, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        ends = torch.eye(2).to(parts.points).expand(*parts.is_merged.shape, 2, 2)
        sums = Sums.of(parts.anchors, ends)
        sides: Tensor | None = None
        if self.num_launches is not None:
            sides = rand(parts.sides.shape, like=parts.points, generator=generator) < 0.5
            more = Sums.of(parts.points, _shares(sides, parts.is_there))
            sums = Sums(*(a + b for a, b in zip(sums, more, strict=True)))
            nothing = torch.ones_like(parts.is_merged)
            for _ in range(self.num_launches):
                sides, sums, _ = _scan(model, parts, sides, sums, nothing, generator)
        dealt, _, log_q = _scan(model, parts, sides, sums, parts.is_merged, generator)
        return dealt, log_q


def _shares(sides: Tensor, is_there: Tensor) -> Tensor:
    return one_hot(sides.long(), 2).to(torch.float64) * is_there[..., None]


def _scan(
    model: Partitions, parts: Sides, before: Tensor | None, sums: Sums, draws: Tensor, generator: Generator | None
) -> tuple[Tensor, Sums, Tensor]:
    """Each point to a side given the others that have one: sides, their sums, and log probability.

    Args:
        before: sides that points had, None where none had any.
        draws: where sides are drawn; elsewhere they are those of `parts`.
    """
    num = parts.points.shape[-2]
    uniform = rand(parts.sides.shape, like=parts.points, generator=generator)
    log_q, dealt = uniform.new_zeros(uniform.shape[:-1]), parts.sides.clone()
    for i in range(num):
        point, there = parts.points[..., i, :], parts.is_there[..., i]
        if before is not None:
            sums = sums.shifted(point, -_shares(before[..., i], there))
        score = sums.num.log() + model.log_predictive(sums, point)
        logit = score[..., 1] - score[..., 0]
        side = torch.where(draws, uniform[..., i] < logit.sigmoid(), parts.sides[..., i])
        log_q = log_q + torch.nn.functional.logsigmoid(torch.where(side, logit, -logit)).where(there, 0.0)
        dealt[..., i] = side
        sums = sums.shifted(point, _shares(side, there))
    return dealt, sums, log_q
