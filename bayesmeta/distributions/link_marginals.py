"""Distributions of a logit or a logarithm: where a probability rounds to one, or a rate to zero, these still differ.

An increasing function of a number keeps what is the greatest of several; and densities that have a pole at the end of
the unit interval have none here. All are in float64, from SciPy, without gradients.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.distributions import Distribution, constraints

__all__ = ["LogGamma", "LogInverseGamma", "LogitBeta", "drawn_on_link", "on_link"]

Array = Any  # of NumPy, which makes numbers of arrays without axes
TINY = 1e-280  # below it a number has lost digits: its logarithm comes from the first term of a series instead


def on_link(marginal: Distribution) -> Distribution:
    """The same on the scale of its link, where it has one; any other as it is."""
    link: Callable[[], Distribution] | None = getattr(marginal, "link", None)
    return marginal if link is None else link()


def drawn_on_link(functions: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Values of draws at x on the scale of their link, where they have one; any others as they are."""
    link: Callable[[Tensor], Tensor] | None = getattr(functions, "link", None)
    return functions(x) if link is None else link(x)


class _OnLine(Distribution):
    """Distribution of one number anywhere on the real line, by functions of NumPy arrays."""

    support = constraints.real

    def cdf(self, value: Tensor) -> Tensor:
        return self._of(self._cdf, value)

    def icdf(self, value: Tensor) -> Tensor:
        return self._of(self._icdf, value)

    def log_prob(self, value: Tensor) -> Tensor:
        return self._of(self._log_prob, value)

    def _of(self, function: Callable[..., Any], value: Tensor) -> Tensor:
        parameters = [getattr(self, name).detach().cpu().double().numpy() for name in self.arg_constraints]
        with np.errstate(all="ignore"):  # of the branches that are not taken
            found = function(value.detach().cpu().double().numpy(), *parameters)
        return torch.as_tensor(found, dtype=torch.float64).to(value.device)

    @staticmethod
    def _cdf(t: Array, *parameters: Array) -> Array:
        raise TypeError("each distribution has its own")

    @staticmethod
    def _icdf(level: Array, *parameters: Array) -> Array:
        raise TypeError("each distribution has its own")

    @staticmethod
    def _log_prob(t: Array, *parameters: Array) -> Array:
        raise TypeError("each distribution has its own")

    @staticmethod
    def _slope(t: Array, *parameters: Array) -> Array:
        """Derivative of the log density."""
        raise TypeError("each distribution has its own")


class LogitBeta(_OnLine):
    """The logit of a beta variable.

    Args:
        concentration1, concentration0: a and b of Beta(a, b).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }

    def __init__(self, concentration1: Tensor, concentration0: Tensor, validate_args: bool | None = False) -> None:
        self.concentration1, self.concentration0 = torch.broadcast_tensors(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return torch.digamma(self.concentration1) - torch.digamma(self.concentration0)

    @staticmethod
    def _cdf(t: Array, a: Array, b: Array) -> Array:
        swap = t > 0
        first: Array = np.where(swap, b, a)
        second: Array = np.where(swap, a, b)
        below = _lower_beta(-np.abs(t + np.zeros(first.shape)), first, second)
        return np.where(swap, 1.0 - below, below)

    @staticmethod
    def _icdf(level: Array, a: Array, b: Array) -> Array:
        half = special.betainc(a, b, 0.5)  # level at t = 0
        lower = level <= half
        first, second = np.where(lower, a, b), np.where(lower, b, a)
        tail = np.where(lower, level, 1.0 - level)
        x = special.betaincinv(first, second, tail)
        logit = np.log(x) - np.log1p(-x)
        series = (np.log(tail) + np.log(first) + special.betaln(first, second)) / first
        t = np.where(x > TINY, logit, series)
        return np.where(lower, t, -t)

    @staticmethod
    def _log_prob(t: Array, a: Array, b: Array) -> Array:
        return -a * np.logaddexp(0.0, -t) - b * np.logaddexp(0.0, t) - special.betaln(a, b)

    @staticmethod
    def _slope(t: Array, a: Array, b: Array) -> Array:
        return a - (a + b) * special.expit(t)


class LogGamma(_OnLine):
    """The logarithm of a gamma variable.

    Args:
        concentration, rate: of the gamma distribution.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "concentration": constraints.positive,
        "rate": constraints.positive,
    }

    def __init__(self, concentration: Tensor, rate: Tensor, validate_args: bool | None = False) -> None:
        self.concentration, self.rate = torch.broadcast_tensors(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return torch.digamma(self.concentration) - self.rate.log()

    @staticmethod
    def _cdf(t: Array, a: Array, rate: Array) -> Array:
        t = t + np.log(rate)
        value = np.exp(t)
        return np.where(value > TINY, special.gammainc(a, value), np.exp(a * t - special.gammaln(a + 1.0)))

    @staticmethod
    def _icdf(level: Array, a: Array, rate: Array) -> Array:
        value = special.gammaincinv(a, level)
        series = (np.log(level) + special.gammaln(a + 1.0)) / a
        return np.where(value > TINY, np.log(value), series) - np.log(rate)

    @staticmethod
    def _log_prob(t: Array, a: Array, rate: Array) -> Array:
        t = t + np.log(rate)
        return a * t - np.exp(t) - special.gammaln(a)

    @staticmethod
    def _slope(t: Array, a: Array, rate: Array) -> Array:
        return a - np.exp(t + np.log(rate))


class LogInverseGamma(LogGamma):
    """The logarithm of an inverse gamma variable: minus that of a gamma one.

    Args:
        concentration, rate: of the inverse gamma distribution.
    """

    @property
    def mean(self) -> Tensor:
        return self.rate.log() - torch.digamma(self.concentration)

    @staticmethod
    def _cdf(t: Array, a: Array, rate: Array) -> Array:
        s = np.log(rate) - t
        value = np.exp(s)
        return np.where(value > TINY, special.gammaincc(a, value), 1.0 - np.exp(a * s - special.gammaln(a + 1.0)))

    @staticmethod
    def _icdf(level: Array, a: Array, rate: Array) -> Array:
        value = special.gammainccinv(a, level)
        series = (np.log1p(-level) + special.gammaln(a + 1.0)) / a
        return np.log(rate) - np.where(value > TINY, np.log(value), series)

    @staticmethod
    def _log_prob(t: Array, a: Array, rate: Array) -> Array:
        return LogGamma._log_prob(-t, a, rate)

    @staticmethod
    def _slope(t: Array, a: Array, rate: Array) -> Array:
        return -LogGamma._slope(-t, a, rate)


def _lower_beta(t: Array, a: Array, b: Array) -> Array:
    """I_x(a, b) at the logit t <= 0 of x; by the first term of its series where x is next to nothing."""
    x = special.expit(t)
    value = special.betainc(a, b, x)
    if np.any(x <= TINY):
        value = np.where(x > TINY, value, np.exp(a * t - np.log(a) - special.betaln(a, b)))
    return value
