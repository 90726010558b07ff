"""A density in steps with normal tails on both sides, so that every number has some.

Source: the bar distribution of Mueller et al., Transformers can do Bayesian inference (2022), with half-normal ends.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.random import categorical, rand

__all__ = ["Histogram"]

TAIL_MEAN = math.sqrt(2.0 / math.pi)  # of a half-normal distribution of scale one


class Histogram(Distribution):
    """Mass in bins between edges; that of the first and the last lies in half-normal tails beyond all edges.

    Args:
        log_mass: normalised over the last axis `(..., bins + 2)`: the lower tail, bins, the upper tail.
        edges: increasing `(bins + 1,)`.
        tail: scale of the tails, above zero.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the shape in which torch declares it
    has_rsample = False

    def __init__(self, log_mass: Tensor, edges: Tensor, tail: Tensor) -> None:
        self.log_mass, self.edges, self.tail = log_mass, edges, tail
        super().__init__(log_mass.shape[:-1], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return (self.log_mass.exp() * self._places()).sum(-1)

    @property
    def variance(self) -> Tensor:
        within = torch.cat([self._tail_variance(), self.edges.diff().square() / 12.0, self._tail_variance()])
        return (self.log_mass.exp() * (within + (self._places() - self.mean[..., None]).square())).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        value = value.expand(torch.broadcast_shapes(value.shape, self.batch_shape))
        place = torch.searchsorted(self.edges, value.contiguous(), right=True)
        mass = self.log_mass.expand(*value.shape, -1).gather(-1, place[..., None])[..., 0]
        widths = torch.cat([self.edges.new_ones(1), self.edges.diff(), self.edges.new_ones(1)])
        beyond = torch.maximum(self.edges[0] - value, value - self.edges[-1]).clamp(min=0.0) / self.tail
        log_half_normal = math.log(2.0 / math.sqrt(2.0 * math.pi)) - self.tail.log() - 0.5 * beyond.square()
        is_tail = (place == 0) | (place == len(self.edges))
        return mass + torch.where(is_tail, log_half_normal, -widths.log()[place])

    def cdf(self, value: Tensor) -> Tensor:
        value = value.expand(torch.broadcast_shapes(value.shape, self.batch_shape))
        low, high = self.edges[0], self.edges[-1]
        lower = torch.special.erfc((low - value).clamp(min=0.0) / (self.tail * math.sqrt(2.0)))
        upper = torch.special.erf((value - high).clamp(min=0.0) / (self.tail * math.sqrt(2.0)))
        shares = ((value[..., None] - self.edges[:-1]) / self.edges.diff()).clamp(0.0, 1.0)
        covered = torch.cat([lower[..., None], shares, upper[..., None]], -1)
        return (self.log_mass.exp() * covered).sum(-1)

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles; those of zero and one are infinite."""
        mass = self.log_mass.exp()
        below = mass.cumsum(-1)
        value = value.expand(torch.broadcast_shapes(value.shape, self.batch_shape))
        place = (value[..., None] > below).sum(-1).clamp(max=mass.shape[-1] - 1)
        share = mass.expand(*value.shape, -1).gather(-1, place[..., None])[..., 0]
        before = below.expand(*value.shape, -1).gather(-1, place[..., None])[..., 0] - share
        return self._within(place, ((value - before) / share).clamp(0.0, 1.0))

    def sample_with(self, shape: torch.Size, generator: Any = None) -> Tensor:
        """Draws `(*shape, *batch_shape)`."""
        place = categorical(shape.numel(), self.log_mass, generator=generator).reshape(*shape, *self.batch_shape)
        return self._within(place, rand(place.shape, like=self.log_mass, generator=generator))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - as torch has it
        with torch.no_grad():
            return self.sample_with(torch.Size(sample_shape))

    def _within(self, place: Tensor, share: Tensor) -> Tensor:
        """Where in a bin, or a tail, its mass is divided into these shares."""
        last = len(self.edges)
        inner = place.clamp(1, last - 1)
        value = self.edges[inner - 1] + share * self.edges.diff()[inner - 1]
        lower = self.edges[0] - self.tail * math.sqrt(2.0) * torch.special.erfinv(1.0 - share)
        upper = self.edges[-1] + self.tail * math.sqrt(2.0) * torch.special.erfinv(share)
        return torch.where(place == 0, lower, torch.where(place == last, upper, value))

    def _places(self) -> Tensor:
        middles = 0.5 * (self.edges[1:] + self.edges[:-1])
        offset = TAIL_MEAN * self.tail
        return torch.cat([(self.edges[0] - offset)[None], middles, (self.edges[-1] + offset)[None]])

    def _tail_variance(self) -> Tensor:
        return (self.tail.square() * (1.0 - TAIL_MEAN**2))[None]
