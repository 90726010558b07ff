"""Distribution of a mixture along any axis of the batch of its components."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.distributions.axes import with_axis
from bayesmeta.distributions.link_marginals import on_link
from bayesmeta.random import categorical

__all__ = ["MixtureDistribution", "pick"]

BISECTIONS = 60


class MixtureDistribution(Distribution):
    """A mixture along one axis of the batch of `components`.

    `torch.distributions.MixtureSameFamily` knows the last axis only, which here is that of the rows.

    Args:
        log_weights: normalised over `axis`, and broadcast against the batch of `components`.
        components: of any family, a mixture too.
        axis: of the hypotheses, counted from the right end of the batch of `components`.

    Raises:
        ValueError: `axis` is not negative.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the shape in which torch declares it

    def __init__(self, log_weights: Tensor, components: Distribution, axis: int) -> None:
        if axis >= 0:
            raise ValueError(f"axis is counted from the right end of the batch and so negative; got {axis}")
        self.log_weights, self.components, self.axis = log_weights, components, axis
        batch = list(components.batch_shape)
        del batch[axis]
        super().__init__(torch.Size(batch), components.event_shape, validate_args=False)

    def expectation(self, function: Callable[[Distribution], Tensor]) -> Tensor:
        """Weighted mean over hypotheses of a function of the components, of the shape of their batch and event."""
        return self._weighted(function(self.components))

    @property
    def mean(self) -> Tensor:
        return self._weighted(self.components.mean)

    @property
    def variance(self) -> Tensor:
        axis = self.axis - len(self.event_shape)
        spread = self.components.mean - self.mean.unsqueeze(axis)
        return self._weighted(self.components.variance + spread.square())

    def log_prob(self, value: Tensor) -> Tensor:
        each = self.components.log_prob(self._beside(value))
        return (self.log_weights.to(each) + each).logsumexp(self.axis)

    def cdf(self, value: Tensor) -> Tensor:
        return self._weighted(self.components.cdf(self._beside(value)))

    def link(self) -> "MixtureDistribution":
        """On the scale of the components' link, where they have one."""
        return MixtureDistribution(self.log_weights, on_link(self.components), self.axis)

    def with_axis(self) -> "MixtureDistribution":
        """With one more axis of the batch, of size one, on the right."""
        return MixtureDistribution(self.log_weights[..., None], with_axis(self.components), self.axis - 1)

    @property
    def num_components(self) -> int:
        """How many hypotheses there are."""
        return self.components.batch_shape[self.axis]

    def icdf(self, value: Tensor) -> Tensor:
        low, high = self.icdf_bounds(value, BISECTIONS)
        return 0.5 * (low + high)

    def icdf_bounds(self, value: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
        """Between which a quantile lies, by bisection between the components' least and greatest one."""
        each = self.components.icdf(self._beside(value))
        low, high = each.amin(self.axis), each.amax(self.axis)
        for _ in range(num_steps):
            middle = 0.5 * (low + high)
            above = self.cdf(middle) > value
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return low, high

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draws from torch's global stream, as every `Distribution.sample`; see `bayesmeta.random.seeded`."""
        shape = torch.Size(sample_shape)
        every = self.components.sample(torch.Size([shape.numel()]))
        log_weights = self.log_weights.expand(self.components.batch_shape).movedim(self.axis, -1)
        index = categorical(shape.numel(), log_weights)
        axis = every.ndim + self.axis - len(self.event_shape)
        return pick(every, index, axis).reshape(*shape, *self.batch_shape, *self.event_shape)

    def _beside(self, value: Tensor) -> Tensor:
        """With an axis for hypotheses; a value of fewer axes than the mixture is that of all."""
        axis = self.axis - len(self.event_shape)
        return value.reshape((*[1] * (-1 - axis - value.ndim), *value.shape)).unsqueeze(axis)

    def _weighted(self, each: Tensor) -> Tensor:
        weights = self.log_weights.exp().to(each)  # which may be in float64 where the components are not
        weights = weights.reshape(*weights.shape, *[1] * len(self.event_shape))
        return (weights * each).sum(self.axis - len(self.event_shape))


def pick(every: Tensor, index: Tensor, axis: int) -> Tensor:
    """Take one entry along `axis`: `index` has the axes of `every` but for that one, and lacks some at the end."""
    index = index.reshape(*index.shape, *[1] * (every.ndim - 1 - index.ndim)).unsqueeze(axis)
    return every.gather(axis, index.expand(*every.shape[:axis], 1, *every.shape[axis + 1 :])).squeeze(axis)
