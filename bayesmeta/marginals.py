"""Distributions of one number that know their quantiles, which torch's do not.

Quantiles and distribution functions come from SciPy, in float64 and without gradients.
"""

from collections.abc import Callable
from typing import Any

import torch
from scipy import special
from torch import Tensor
from torch.distributions import Beta, Gamma, InverseGamma, StudentT

__all__ = ["BetaMarginal", "GammaMarginal", "InverseGammaMarginal", "StudentMarginal"]


class BetaMarginal(Beta):
    """Beta with distribution function and quantiles."""

    def cdf(self, value: Tensor) -> Tensor:
        return _by_scipy(special.betainc, self.concentration1, self.concentration0, value.clamp(0.0, 1.0))

    def icdf(self, value: Tensor) -> Tensor:
        return _by_scipy(special.betaincinv, self.concentration1, self.concentration0, value)


class StudentMarginal(StudentT):
    """Student t with distribution function and quantiles."""

    def cdf(self, value: Tensor) -> Tensor:
        return _by_scipy(special.stdtr, self.df, (value - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * _by_scipy(special.stdtrit, self.df, value)


class GammaMarginal(Gamma):
    """Gamma with distribution function and quantiles."""

    def cdf(self, value: Tensor) -> Tensor:
        return _by_scipy(special.gammainc, self.concentration, (self.rate * value).clamp(min=0.0))

    def icdf(self, value: Tensor) -> Tensor:
        return _by_scipy(special.gammaincinv, self.concentration, value) / self.rate


class InverseGammaMarginal(InverseGamma):
    """Inverse gamma with distribution function and quantiles."""

    def cdf(self, value: Tensor) -> Tensor:
        return _by_scipy(special.gammaincc, self.concentration, self.rate / value.clamp(min=0.0))

    def icdf(self, value: Tensor) -> Tensor:
        return self.rate / _by_scipy(special.gammainccinv, self.concentration, value)


def _by_scipy(function: Callable[..., Any], *arguments: Tensor) -> Tensor:
    like = arguments[-1]
    arrays = [a.detach().cpu().double().numpy() for a in arguments]
    return torch.as_tensor(function(*arrays), dtype=torch.float64).to(like)
