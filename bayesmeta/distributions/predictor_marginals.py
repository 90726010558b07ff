"""Distributions of a probability or a rate whose predictor, its logit or its logarithm, has known quantiles."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from bayesmeta.numerics.monotone import Increasing

__all__ = ["SCORES", "ProbabilityMarginal", "RateMarginal"]

SCORES = torch.arange(-3.5, 3.75, 0.5, dtype=torch.float64)  # normal scores at which quantiles are known
NAMES = tuple(f"quantile_{i}" for i in range(len(SCORES)))
LOG_ROOT_TWO_PI = 0.9189385332046727


class _OfPredictor(Distribution):
    """Distribution of a number that increases with a predictor.

    Quantiles between those given are interpolated, as a function of the normal score; beyond them, that goes on
    straight, as of a normal.

    Args:
        average, spread: mean and variance.
        quantiles: of the predictor at the normal scores of `SCORES`, one tensor each, `quantile_0` first.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "average": constraints.real,
        "spread": constraints.nonnegative,
        **dict.fromkeys(NAMES, constraints.real),
    }

    def __init__(self, average: Tensor, spread: Tensor, validate_args: bool | None = None, **quantiles: Tensor) -> None:
        self.average, self.spread, *each = torch.broadcast_tensors(average, spread, *(quantiles[n] for n in NAMES))
        for name, value in zip(NAMES, each, strict=True):
            setattr(self, name, value)
        super().__init__(self.average.shape, validate_args=validate_args)

    @classmethod
    def of(cls, average: Tensor, spread: Tensor, quantiles: Tensor) -> Any:
        """Distribution from one tensor of quantiles `(*batch, scores)`."""
        return cls(average, spread, None, **dict(zip(NAMES, quantiles.unbind(-1), strict=True)))

    @property
    def mean(self) -> Tensor:
        return self.average

    @property
    def variance(self) -> Tensor:
        return self.spread

    def link(self) -> "_Predictor":
        return _Predictor(self._quantiles)

    def cdf(self, value: Tensor) -> Tensor:
        return torch.special.ndtr(self._quantiles.inverse(self._predictor(value.double()))).to(self.average)

    def icdf(self, value: Tensor) -> Tensor:
        eta, _ = self._quantiles(torch.special.ndtri(value.double()).expand(self._joined(value)))
        return self._of_predictor(eta).to(self.average)

    def log_prob(self, value: Tensor) -> Tensor:
        number = value.double()
        score = self._quantiles.inverse(self._predictor(number))
        _, slope = self._quantiles(score)
        normal = -0.5 * score.square() - LOG_ROOT_TWO_PI
        return (normal - slope.log() + self._log_slope(number)).to(self.average)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draws from torch's global stream, as every `Distribution.sample`; see `bayesmeta.random.seeded`."""
        shape = (*sample_shape, *self.batch_shape)
        eta, _ = self._quantiles(torch.randn(shape, dtype=torch.float64, device=self.average.device))
        return self._of_predictor(eta).to(self.average)

    def _joined(self, value: Tensor) -> torch.Size:
        return torch.broadcast_shapes(value.shape, self.batch_shape)

    @property
    def _quantiles(self) -> Increasing:
        each = torch.stack([getattr(self, name).double() for name in NAMES], -1)
        return Increasing.through(SCORES.to(each.device), each)

    @abstractmethod
    def _predictor(self, value: Tensor) -> Tensor: ...

    @abstractmethod
    def _of_predictor(self, eta: Tensor) -> Tensor: ...

    @abstractmethod
    def _log_slope(self, value: Tensor) -> Tensor:
        """Log of the predictor's derivative by the value."""


class _Predictor(Distribution):
    """The predictor itself: its quantiles are an increasing function of a normal score."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real

    def __init__(self, quantiles: Increasing) -> None:
        self.quantiles = quantiles
        super().__init__(quantiles.y.shape[:-1], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The median, which is as good a middle."""
        return self.quantiles.y[..., len(SCORES) // 2]

    def cdf(self, value: Tensor) -> Tensor:
        return torch.special.ndtr(self.quantiles.inverse(value.double()))

    def icdf(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        return self.quantiles(torch.special.ndtri(value.double()).expand(shape))[0]

    def log_prob(self, value: Tensor) -> Tensor:
        score = self.quantiles.inverse(value.double())
        return -0.5 * score.square() - LOG_ROOT_TWO_PI - self.quantiles(score)[1].log()


class ProbabilityMarginal(_OfPredictor):
    """A probability, by its logit."""

    support = constraints.unit_interval

    def _predictor(self, value: Tensor) -> Tensor:
        return value.clamp(0.0, 1.0).logit()

    def _of_predictor(self, eta: Tensor) -> Tensor:
        return eta.sigmoid()

    def _log_slope(self, value: Tensor) -> Tensor:
        return -value.log() - (-value).log1p()


class RateMarginal(_OfPredictor):
    """A rate, by its logarithm."""

    support = constraints.positive

    def _predictor(self, value: Tensor) -> Tensor:
        return value.clamp(min=0.0).log()

    def _of_predictor(self, eta: Tensor) -> Tensor:
        return eta.exp().clamp(max=torch.finfo(self.average.dtype).max)

    def _log_slope(self, value: Tensor) -> Tensor:
        return -value.log()
