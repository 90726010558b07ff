r"""Gaussian mixtures with an unknown number of components, as posteriors of partitions of their points.

Points come to a component with a probability in proportion to its size, or to a new one in proportion to alpha. In each
dimension of a component

$$ \sigma^{-2} \sim \Gamma(a, b), \quad \mu \mid \sigma \sim N(0, \sigma^2 / \kappa), \quad x \sim N(\mu, \sigma^2), $$

and these parameters are integrated out, so that a position is one label for each point.

Source: Neal, Markov chain sampling methods for Dirichlet process mixture models (2000).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.fields import TensorFields
from bayesmeta.random import gamma, rand, randn

__all__ = ["Partitions", "Sums", "drawn_labels", "random_partitions", "set_partitions"]


class Sums(NamedTuple):
    """Of the points of parts: `num (..., parts)`, `total` and `square (..., parts, d)`."""

    num: Tensor
    total: Tensor
    square: Tensor

    @classmethod
    def of(cls, points: Tensor, shares: Tensor) -> "Sums":
        """Of points `(..., n, d)` with shares `(..., n, parts)` of zero or one."""
        return cls(shares.sum(-2), shares.mT @ points, shares.mT @ points.square())

    def shifted(self, points: Tensor, shares: Tensor) -> "Sums":
        """With one more point `(..., d)` in parts with a share of one, and one less where it is minus one."""
        more = shares[..., None] * points[..., None, :]
        return Sums(self.num + shares, self.total + more, self.square + more * points[..., None, :])


@dataclass(frozen=True, eq=False)
class Partitions(TensorFields):
    """Posteriors of the partitions of the points of tasks.

    Args:
        points: centred `(tasks, n, d)`.
        concentration: alpha `(tasks,)`.
        pseudo_count: kappa.
        shape, rate: a and b.
    """

    points: Float[Tensor, "tasks n d"]
    concentration: Float[Tensor, "tasks"]
    pseudo_count: Float[Tensor, "tasks"]
    shape: Float[Tensor, "tasks"]
    rate: Float[Tensor, "tasks"]

    event_shape: ClassVar[torch.Size] = torch.Size()

    @property
    def batch_shape(self) -> torch.Size:
        return self.concentration.shape

    def log_density(self, position: Tensor) -> Tensor:
        """Log p(partition, points) but for a constant of each task, at labels `(chains, tasks, n)`."""
        labels = position.long()
        shares = torch.nn.functional.one_hot(labels, int(labels.max()) + 1).to(self.points)
        return self.log_parts(Sums.of(self.points, shares)).sum(-1)

    def log_parts(self, sums: Sums) -> Tensor:
        """What each part gives to the log density, `(..., tasks, parts)`, zero where it is empty."""
        size = self.concentration.log()[:, None] + torch.lgamma(sums.num.clamp(min=1.0))
        return (size + self.log_marginal(sums)).where(sums.num > 0, 0.0)

    def log_marginal(self, sums: Sums) -> Tensor:
        """Log density of the points of each part, `(..., tasks, parts)`."""
        kappa, a, b = (value[:, None] for value in (self.pseudo_count, self.shape, self.rate))
        after_a = a + 0.5 * sums.num
        each = torch.lgamma(after_a) - torch.lgamma(a) + a * b.log() - 0.5 * math.log(2.0 * math.pi) * sums.num
        each = each + 0.5 * (kappa / (kappa + sums.num)).log()
        return self.points.shape[-1] * each - after_a * _added(self._rates(sums).log())

    def log_predictive(self, sums: Sums, points: Tensor) -> Tensor:
        """Log density of one more point `(..., tasks, d)` in each part, `(..., tasks, parts)`, but for 2 pi."""
        count = sums.num + self.pseudo_count[:, None]
        rates, mean = self._rates(sums), sums.total / count[..., None]
        more = 0.5 * (count / (count + 1.0))[..., None] * (points[..., None, :] - mean).square()
        after_a = self.shape[:, None] + 0.5 * sums.num
        d = points.shape[-1]
        ratio = self._ratios.expand(*count.shape[:-1], -1).gather(-1, sums.num.long())
        change = (after_a + 0.5) * _added(torch.log1p(more / rates)) + 0.5 * _added(rates.log())
        return d * (ratio + 0.5 * (count / (count + 1.0)).log()) - change

    def _rates(self, sums: Sums) -> Tensor:
        spread = sums.square - sums.total.square() / (sums.num + self.pseudo_count[:, None])[..., None]
        return self.rate[:, None, None] + 0.5 * spread.clamp(min=0.0)

    @cached_property
    def _ratios(self) -> Tensor:
        """log Gamma(a + (m + 1) / 2) - log Gamma(a + m / 2) for m points, `(tasks, n + 1)`."""
        a = self.shape[:, None] + 0.5 * torch.arange(self.points.shape[1] + 1.0).to(self.points)
        return torch.lgamma(a + 0.5) - torch.lgamma(a)


def _added(values: Tensor) -> Tensor:
    """The sum over the last axis, which is short: torch's own is slow there."""
    return sum(values.unbind(-1), start=torch.zeros(()).to(values))


def random_partitions(num: int, num_points: int, dim: int = 2, *, generator: Generator | None = None) -> Partitions:
    """Points of mixtures whose components lie further or less far apart, with what they were drawn from."""
    like = torch.empty(0, dtype=torch.float64)

    def between(low: float, high: float) -> Tensor:
        return low * (high / low) ** rand((num,), like=like, generator=generator)

    concentration, pseudo_count, shape = between(0.5, 2.0), between(0.01, 0.2), between(2.0, 8.0)
    labels = drawn_labels(concentration, num_points, generator=generator)
    points = points_of(labels, pseudo_count, shape, shape, dim, generator=generator)
    return Partitions(points, concentration, pseudo_count, shape, shape)


def drawn_labels(concentration: Tensor, num_points: int, *, generator: Generator | None = None) -> Tensor:
    """Labels `(tasks, num_points)` of points that come one after the other."""
    tasks = len(concentration)
    count = concentration.new_zeros(tasks, num_points)
    labels = torch.zeros(tasks, num_points, dtype=torch.long)
    every = torch.arange(tasks)
    for i in range(num_points):
        uniform = rand((tasks,), like=concentration, generator=generator) * (i + concentration)
        # beyond all points before it lies a new component, whose number is that of those there are
        chosen = (uniform[:, None] >= count.cumsum(-1)).sum(-1)
        labels[:, i] = torch.minimum(chosen, (count > 0).sum(-1))
        count[every, labels[:, i]] += 1.0
    return labels


def points_of(
    labels: Tensor, pseudo_count: Tensor, shape: Tensor, rate: Tensor, dim: int, *, generator: Generator | None = None
) -> Tensor:
    """Draws of points `(tasks, n, d)` with these labels."""
    most = int(labels.max()) + 1
    like = pseudo_count
    precision = gamma((most, dim), shape, generator=generator).movedim(-1, 0) / rate[:, None, None]
    scale = precision.rsqrt()
    loc = scale / pseudo_count.sqrt()[:, None, None] * randn(scale.shape, like=like, generator=generator)
    index = labels[..., None].expand(-1, -1, dim)
    noise = randn(index.shape, like=like, generator=generator)
    return loc.gather(1, index) + scale.gather(1, index) * noise


def set_partitions(num_points: int) -> Tensor:
    """All of them, as labels `(partitions, num_points)` in the order in which parts first come."""
    found = [[0]]
    for _ in range(num_points - 1):
        found = [[*labels, new] for labels in found for new in range(max(labels) + 2)]
    return torch.tensor(found)
