"""Distribution of a number of which weighted particles know: near each as much of it as the particle weighs."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.random import categorical

__all__ = ["LOG", "LOGIT", "Link", "WeightedPoints"]


class Link(NamedTuple):
    """An increasing function from the scale of a predictor to that of a number.

    Args:
        number: of a predictor.
        predictor: of a number, the inverse.
        log_slope: logarithm of the derivative of `predictor`, of a number.
    """

    number: Callable[[Tensor], Tensor]
    predictor: Callable[[Tensor], Tensor]
    log_slope: Callable[[Tensor], Tensor]


IDENTITY = Link(lambda eta: eta, lambda value: value, torch.zeros_like)
LOGIT = Link(torch.sigmoid, torch.logit, lambda value: -(value.log() + (-value).log1p()))
# squares of rates are still numbers
LOG = Link(
    lambda eta: eta.exp().clamp(max=0.5 * torch.finfo(eta.dtype).max ** 0.5), torch.log, lambda value: -value.log()
)


class WeightedPoints(Distribution):
    """A number that is a function of a predictor, of which n values are known.

    Mean, variance and draws are those of the n values. For the density, `cdf` and `icdf` the weight of each is spread
    evenly between it and its neighbours on the scale of the predictor, half of the way.

    Args:
        log_weights: normalised `(*batch, n)`.
        predictor: `(*batch, n)`.
        link: from the predictor to the number.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the shape in which torch declares it

    def __init__(self, log_weights: Tensor, predictor: Tensor, link: Link = IDENTITY) -> None:
        self.log_weights, self.predictor = log_weights.expand_as(predictor), predictor
        self._link = link
        super().__init__(predictor.shape[:-1], validate_args=False)

    @property
    def values(self) -> Tensor:
        """Of the number, `(*batch, n)`."""
        return self._link.number(self.predictor)

    @property
    def mean(self) -> Tensor:
        return self.expectation(lambda value: value)

    @property
    def variance(self) -> Tensor:
        mean = self.mean[..., None]
        return self.expectation(lambda value: (value - mean).square())

    def expectation(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Weighted mean of an elementwise function of the values."""
        return (self.log_weights.exp().to(self.predictor) * function(self.values)).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        edges, below = self._rising
        eta, low, high = self._link.predictor(value)[..., None], edges[..., :-1], edges[..., 1:]
        density = below.diff(dim=-1) / (high - low).clamp(min=torch.finfo(edges.dtype).tiny)
        here = density.where((eta >= low) & (eta < high), 0.0).sum(-1)
        return here.log() + self._link.log_slope(value)

    def cdf(self, value: Tensor) -> Tensor:
        edges, below = self._rising
        low, high = edges[..., :-1], edges[..., 1:]
        tiny = torch.finfo(edges.dtype).tiny
        share = ((self._link.predictor(value)[..., None] - low) / (high - low).clamp(min=tiny)).clamp(0.0, 1.0)
        return (share * below.diff(dim=-1)).sum(-1)

    def icdf(self, value: Tensor) -> Tensor:
        edges, below = self._rising
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        edges, below = (part.expand(*shape, -1) for part in (edges, below))
        level = value.to(below).expand(shape)[..., None]
        place = (torch.searchsorted(below.contiguous(), level.contiguous()) - 1).clamp(0, below.shape[-1] - 2)
        start, end = below.gather(-1, place), below.gather(-1, place + 1)
        share = ((level - start) / (end - start).clamp(min=torch.finfo(below.dtype).tiny)).clamp(0.0, 1.0)
        return self._link.number(torch.lerp(edges.gather(-1, place), edges.gather(-1, place + 1), share)[..., 0])

    def link(self) -> "WeightedPoints":
        """On the scale of the predictor."""
        return WeightedPoints(self.log_weights, self.predictor)

    def with_axis(self) -> "WeightedPoints":
        """With one more axis of the batch, of size one, on the right."""
        return WeightedPoints(self.log_weights[..., None, :], self.predictor[..., None, :], self._link)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draws from torch's global stream, as every `Distribution.sample`; see `bayesmeta.random.seeded`."""
        shape = torch.Size(sample_shape)
        index = categorical(shape.numel(), self.log_weights)
        drawn = self.values.expand(shape.numel(), *self.predictor.shape).gather(-1, index[..., None])[..., 0]
        return drawn.reshape(*shape, *self.batch_shape)

    @cached_property
    def _rising(self) -> tuple[Tensor, Tensor]:
        """Edges of the places of the values in rising order, and the weight below each: `(*batch, n + 1)`."""
        value, order = self.predictor.sort(-1)
        weight = self.log_weights.exp().to(value).gather(-1, order)
        half = 0.5 * value.diff(dim=-1)
        before, after = (half[..., :1], half[..., -1:]) if half.shape[-1] else (0.0, 0.0)
        edges = torch.cat([value[..., :1] - before, value[..., :-1] + half, value[..., -1:] + after], -1)
        below = torch.cat([torch.zeros_like(weight[..., :1]), weight.cumsum(-1)], -1)
        return edges, below / below[..., -1:]
