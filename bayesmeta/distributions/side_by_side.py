"""Distributions of different families along one axis of a batch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.distributions.axes import with_axis

__all__ = ["SideBySide"]


class SideBySide(Distribution):
    """Distributions of numbers, of any families, along a new axis of their batch.

    Args:
        each: of batch shapes that broadcast.
        axis: where they are, counted from the right end of the new batch.

    Raises:
        ValueError: `axis` is not negative, or there is no distribution.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the shape in which torch declares it

    def __init__(self, each: Sequence[Distribution], axis: int) -> None:
        if axis >= 0 or not each:
            raise ValueError(f"axis is counted from the right, of at least one distribution; got {axis}, {len(each)}")
        self.each, self.axis = tuple(each), axis
        self._one = torch.broadcast_shapes(*(one.batch_shape for one in each))
        place = len(self._one) + 1 + axis
        batch = torch.Size([*self._one[:place], len(each), *self._one[place:]])
        super().__init__(batch, torch.Size(), validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self._stacked([one.mean for one in self.each])

    @property
    def variance(self) -> Tensor:
        return self._stacked([one.variance for one in self.each])

    def log_prob(self, value: Tensor) -> Tensor:
        return self._of(lambda one, own: one.log_prob(own), value)

    def cdf(self, value: Tensor) -> Tensor:
        return self._of(lambda one, own: one.cdf(own), value)

    def icdf(self, value: Tensor) -> Tensor:
        return self._of(lambda one, own: one.icdf(own), value)

    def with_axis(self) -> "SideBySide":
        """With one more axis of the batch, of size one, on the right."""
        return SideBySide([with_axis(one) for one in self.each], self.axis - 1)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draws from torch's global stream, as every `Distribution.sample`; see `bayesmeta.random.seeded`."""
        return self._stacked([one.sample(torch.Size(sample_shape)) for one in self.each])

    def _of(self, function: Callable[[Distribution, Tensor], Tensor], value: Tensor) -> Tensor:
        """One answer of each, to its own part of `value` where that has one for each."""
        own = value.expand(*value.shape[: self.axis], len(self.each), *value.shape[value.ndim + self.axis + 1 :])
        return self._stacked([function(one, part) for one, part in zip(self.each, own.unbind(self.axis), strict=True)])

    def _stacked(self, parts: list[Tensor]) -> Tensor:
        dtype = parts[0].dtype
        for part in parts[1:]:
            dtype = torch.promote_types(dtype, part.dtype)
        return torch.stack(torch.broadcast_tensors(*(part.to(dtype) for part in parts)), self.axis)
