"""Distribution of a number of which weighted particles know: near each as much of it as the particle weighs."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.random import categorical

__all__ = ["Link", "WeightedPoints"]

# from the scale of a predictor to that of the number and back; both increase
Link = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


class WeightedPoints(Distribution):
    """A number that is a function of a predictor, of which n values are known.

    Mean, variance and draws are those of the n values. For `cdf` and `icdf` the weight of each is spread evenly between
    it and its neighbours on the scale of the predictor, half of the way.

    Args:
        log_weights: normalised `(*batch, n)`.
        predictor: `(*batch, n)`.
        link: from the predictor to the number, and back; None where they are the same.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the shape in which torch declares it

    def __init__(self, log_weights: Tensor, predictor: Tensor, link: Link | None = None) -> None:
        self.log_weights, self.predictor = log_weights.expand_as(predictor), predictor
        self._out, self._back = link or (_same, _same)
        super().__init__(predictor.shape[:-1], validate_args=False)

    @property
    def values(self) -> Tensor:
        """Of the number, `(*batch, n)`."""
        return self._out(self.predictor)

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

    def cdf(self, value: Tensor) -> Tensor:
        edges, below = self._rising
        low, high = edges[..., :-1], edges[..., 1:]
        tiny = torch.finfo(edges.dtype).tiny
        share = ((self._back(value)[..., None] - low) / (high - low).clamp(min=tiny)).clamp(0.0, 1.0)
        return (share * below.diff(dim=-1)).sum(-1)

    def icdf(self, value: Tensor) -> Tensor:
        edges, below = self._rising
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        edges, below = (part.expand(*shape, -1) for part in (edges, below))
        level = value.to(below).expand(shape)[..., None]
        place = (torch.searchsorted(below.contiguous(), level.contiguous()) - 1).clamp(0, below.shape[-1] - 2)
        start, end = below.gather(-1, place), below.gather(-1, place + 1)
        share = ((level - start) / (end - start).clamp(min=torch.finfo(below.dtype).tiny)).clamp(0.0, 1.0)
        return self._out(torch.lerp(edges.gather(-1, place), edges.gather(-1, place + 1), share)[..., 0])

    def link(self) -> "WeightedPoints":
        """On the scale of the predictor."""
        return WeightedPoints(self.log_weights, self.predictor)

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


def _same(value: Tensor) -> Tensor:
    return value
