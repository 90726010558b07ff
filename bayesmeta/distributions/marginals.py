"""Distributions of one number that know their quantiles, which torch's do not.

Quantiles and distribution functions come from SciPy, in float64 and without gradients.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from scipy import special
from torch import Tensor
from torch.distributions import Beta, Distribution, Gamma, InverseGamma, LogNormal, Normal, StudentT, constraints

from bayesmeta.distributions.link_marginals import LogGamma, LogInverseGamma, LogitBeta

__all__ = [
    "BetaMarginal",
    "GammaMarginal",
    "InverseGammaMarginal",
    "LogNormalMarginal",
    "LogitNormalMarginal",
    "StudentMarginal",
]

WIDTH, STEP = 9.0, 1.0 / 16.0  # of the trapezoidal rule for means over a standard normal


class BetaMarginal(Beta):
    """Beta with distribution function and quantiles."""

    def cdf(self, value: Tensor) -> Tensor:
        return _by_scipy(special.betainc, self.concentration1, self.concentration0, value.clamp(0.0, 1.0))

    def icdf(self, value: Tensor) -> Tensor:
        return _by_scipy(special.betaincinv, self.concentration1, self.concentration0, value)

    def link(self) -> LogitBeta:
        return LogitBeta(self.concentration1, self.concentration0)


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

    def link(self) -> LogGamma:
        return LogGamma(self.concentration, self.rate)


class InverseGammaMarginal(InverseGamma):
    """Inverse gamma with distribution function and quantiles."""

    def cdf(self, value: Tensor) -> Tensor:
        return _by_scipy(special.gammaincc, self.concentration, self.rate / value.clamp(min=0.0))

    def icdf(self, value: Tensor) -> Tensor:
        return self.rate / _by_scipy(special.gammainccinv, self.concentration, value)

    def link(self) -> LogInverseGamma:
        return LogInverseGamma(self.concentration, self.rate)


class LogNormalMarginal(LogNormal):
    """Log-normal, as of a rate under a Poisson regression with normal weights."""

    def link(self) -> Normal:
        return Normal(self.loc, self.scale, validate_args=False)


class LogitNormalMarginal(Distribution):
    """A probability whose logit is normal, as under a logistic regression with normal weights.

    Args:
        loc, scale: mean and standard deviation of the logit.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.unit_interval

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self._expected(1)

    @property
    def variance(self) -> Tensor:
        return (self._expected(2) - self._expected(1).square()).clamp(min=0.0)

    def cdf(self, value: Tensor) -> Tensor:
        return torch.special.ndtr((value.clamp(0.0, 1.0).logit() - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        return (self.loc + self.scale * torch.special.ndtri(value)).sigmoid()

    def link(self) -> Normal:
        return Normal(self.loc, self.scale, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        logit = value.logit()
        return Normal(self.loc, self.scale, validate_args=False).log_prob(logit) - value.log() - (-value).log1p()

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draws from torch's global stream, as every `Distribution.sample`."""
        return Normal(self.loc, self.scale, validate_args=False).sample(torch.Size(sample_shape)).sigmoid()

    def _expected(self, power: int) -> Tensor:
        """Mean of a power, by the trapezoidal rule, which is right to rounding for a smooth function of a normal."""
        z = torch.arange(-WIDTH, WIDTH + STEP, STEP, dtype=self.loc.dtype, device=self.loc.device)
        weight = (-0.5 * z.square()).softmax(0)
        return ((self.loc[..., None] + self.scale[..., None] * z).sigmoid().pow(power) * weight).sum(-1)


def _by_scipy(function: Callable[..., Any], *arguments: Tensor) -> Tensor:
    like = arguments[-1]
    arrays = [a.detach().cpu().double().numpy() for a in arguments]
    return torch.as_tensor(function(*arrays), dtype=torch.float64).to(like)
