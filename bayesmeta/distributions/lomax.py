"""The Lomax distribution: an exponential whose rate is gamma distributed. Neither torch nor Pyro has it."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import broadcast_all

__all__ = ["Lomax"]


class Lomax(Distribution):
    """Density shape / scale * (1 + y / scale)^-(shape + 1) for y >= 0.

    Args:
        shape: above zero; the mean is infinite up to one, the variance up to two.
        scale: above zero, in units of y.

    Source: Johnson, Kotz and Balakrishnan, Continuous Univariate Distributions, 2nd ed. (1994), chapter 20.
    """

    arg_constraints = {"shape": constraints.positive, "scale": constraints.positive}  # noqa: RUF012 - as torch has it
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, shape: Tensor, scale: Tensor, validate_args: Any = None) -> None:
        self.shape, self.scale = broadcast_all(shape, scale)
        super().__init__(self.shape.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return (self.scale / (self.shape - 1.0)).where(self.shape > 1.0, torch.inf)

    @property
    def variance(self) -> Tensor:
        var = self.mean.square() * self.shape / (self.shape - 2.0)
        return var.where(self.shape > 2.0, torch.inf)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.shape.log() - self.scale.log() - (self.shape + 1.0) * torch.log1p(value / self.scale)

    def cdf(self, value: Tensor) -> Tensor:
        return -torch.expm1(-self.shape * torch.log1p(value.clamp(min=0.0) / self.scale))

    def icdf(self, value: Tensor) -> Tensor:
        return self.scale * torch.expm1(-torch.log1p(-value) / self.shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        uniform = torch.rand(self._extended_shape(torch.Size(sample_shape))).to(self.scale)
        return self.icdf(uniform)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Lomax":
        return Lomax(self.shape.expand(batch_shape), self.scale.expand(batch_shape), validate_args=False)
