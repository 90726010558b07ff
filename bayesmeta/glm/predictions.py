"""Predictions of logistic and Poisson regressions after rows: means over posteriors, exact to a stated error."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.approximations.likelihoods import LOGISTIC
from bayesmeta.approximations.posterior_axes import Around
from bayesmeta.approximations.posterior_points import Cloud, importance_draws, quantiles
from bayesmeta.distributions.marginals import LogitNormalMarginal, LogNormalMarginal
from bayesmeta.distributions.predictor_marginals import SCORES, ProbabilityMarginal, RateMarginal
from bayesmeta.glm.tasks import Asked, Tasks
from bayesmeta.numerics.quadrature import log_mean_sigmoid

__all__ = ["CountPrediction", "EvidenceError", "PredictionError", "Predictor"]

LARGEST_LOG = 340.0  # of a rate: the square of its exponential is still a number


@dataclass(frozen=True)
class EvidenceError:
    """How far the log evidence of each task is from the truth, all `(*batch,)`.

    Args:
        error: estimate of the exact log evidence less the one that is stated.
        standard_error: of that estimate; trust it where `ess` is above some hundred.
        ess: how many equally weighted draws the estimate is worth.
    """

    error: Tensor
    standard_error: Tensor
    ess: Tensor


@dataclass(frozen=True)
class PredictionError:
    """How far predicted means are from the truth, all `(*batch, q)`.

    Args:
        error: estimate of the exact mean less the one that is predicted, in units of y.
        standard_error: of that estimate; trust it where `ess` is above some hundred.
        ess: how many equally weighted draws the estimate is worth.
    """

    error: Tensor
    standard_error: Tensor
    ess: Tensor


@dataclass(frozen=True)
class Predictor:
    """The predictors of rows that are asked for, under the posteriors of tasks."""

    tasks: Tasks
    asked: Asked

    def probabilities(self) -> tuple[Tensor, Tensor]:
        """Means of the probability and of one less it `(T, q)`, each with all its digits."""

        def use(posterior: Around, index: Tensor, cloud: Cloud) -> tuple[Tensor, ...]:
            eta, share = self._points(posterior, index, cloud.points, cloud.log_weights)
            return (share @ eta.sigmoid())[:, 0], (share @ (-eta).sigmoid())[:, 0]

        one, zero = self._each(use)
        silent = self.tasks.silent
        if bool(silent.any()):
            loc, scale = self._prior(silent)
            one[silent], zero[silent] = log_mean_sigmoid(loc, scale).exp(), log_mean_sigmoid(-loc, scale).exp()
        return one, zero

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the probability, or of the rate, `(T, q)`."""

        def use(posterior: Around, index: Tensor, cloud: Cloud) -> tuple[Tensor, ...]:
            eta, share = self._points(posterior, index, cloud.points, cloud.log_weights)
            value = self._value(eta)
            mean = share @ value
            return mean[:, 0], (share @ (value - mean).square())[:, 0]

        mean, var = self._each(use)
        silent = self.tasks.silent
        if bool(silent.any()):
            mean[silent], var[silent] = self._prior_moments(*self._prior(silent))
        return mean, var

    def quantiles(self) -> Tensor:
        """Quantiles of the predictors at the normal scores `SCORES`: `(T, q, scores)`."""

        def use(posterior: Around, index: Tensor, cloud: Cloud) -> tuple[Tensor, ...]:
            asked = self.asked[index]
            centre = (asked.inputs @ posterior.mode[..., None])[..., 0] + asked.offset
            return (centre[..., None] + quantiles(posterior, cloud, asked.inputs, SCORES),)

        (found,) = self._each(use)
        silent = self.tasks.silent
        if bool(silent.any()):
            loc, scale = self._prior(silent)
            found[silent] = loc[..., None] + scale[..., None] * SCORES.to(scale)
        # a row of zeros has no spread, and quantiles must increase
        least = 1e-12 * (1.0 + found[..., :1].abs()) * torch.arange(float(len(SCORES))).to(found)
        return found + least

    @property
    def kind(self) -> type[ProbabilityMarginal] | type[RateMarginal]:
        """Class of the distribution of the probability, or of the rate."""
        return ProbabilityMarginal if self.tasks.likelihood is LOGISTIC else RateMarginal

    def log_prob(self, y: Tensor) -> Tensor:
        """log p(y) of values `(T, q)`: what a row adds to the log evidence of its task."""
        before = self.tasks.log_evidence()
        return self.tasks.with_rows(self.asked, y).log_evidence().reshape(y.shape) - before[:, None]

    def error(self, mean: Tensor, num_draws: int, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Error of `mean` `(T, q)` by importance sampling, its standard error, and the effective sample size."""

        def use(posterior: Around, index: Tensor, cloud: Cloud) -> tuple[Tensor, ...]:
            drawn, log_ratio = importance_draws(posterior, cloud, num_draws, generator)
            eta, share = self._points(posterior, index, drawn, log_ratio)
            value = self._value(eta)
            found = share @ value
            deviation = (share.square() @ (value - found).square()).sqrt()
            ess = 1.0 / share.square().sum(-1)
            return found[:, 0] - mean[index], deviation[:, 0], ess.expand(-1, mean.shape[1])

        error, deviation, ess = self._each(use, num_draws)
        return error, deviation, ess

    def _points(self, posterior: Around, index: Tensor, points: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Predictors at the points `(tasks, k, q)`, and the points' shares `(tasks, 1, k)`."""
        asked = self.asked[index]
        eta = posterior.at(points) @ asked.inputs.mT + asked.offset[:, None]
        return eta, log_weights.softmax(-1)[:, None]

    def _each(self, use: Callable[..., tuple[Tensor, ...]], num_points: int = 1) -> tuple[Tensor, ...]:
        return self.tasks.each(use, width=self.asked.offset.shape[-1] * max(1, num_points // 500))

    def _value(self, eta: Tensor) -> Tensor:
        return eta.sigmoid() if self.tasks.likelihood is LOGISTIC else eta.clamp(max=LARGEST_LOG).exp()

    def _prior(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        loc, scale = self.tasks.gaussian(self.asked)
        return loc[chosen], scale[chosen]

    def _prior_moments(self, loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        prior: Any = LogitNormalMarginal if self.tasks.likelihood is LOGISTIC else LogNormalMarginal
        value = prior(loc, scale, validate_args=False)
        largest = torch.finfo(torch.float64).max
        return value.mean.clamp(max=largest), value.variance.clamp(max=largest)


class CountPrediction(Distribution):
    """Counts, of successes in `trials` or of events, after rows of their tasks.

    Args:
        mean, variance: `(*batch, q)`.
        marginal: the distribution of the probability, or of the rate, when it is asked for.
        log_probs: log p(y) of counts `(*batch, q)`, float64.
        trials: `(*batch, q)`, None for counts of events.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the shape in which torch declares it

    def __init__(
        self,
        mean: Tensor,
        variance: Tensor,
        marginal: Callable[[], Distribution],
        log_probs: Callable[[Tensor], Tensor],
        trials: Tensor | None = None,
    ) -> None:
        self._mean, self._variance, self._marginal, self._log_probs = mean, variance, marginal, log_probs
        self.trials = trials
        super().__init__(mean.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return self._variance

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        count = value.double().expand(shape)
        allowed = (count >= 0) & (count == count.floor())
        if self.trials is not None:
            allowed &= count <= self.trials
        count = count.where(allowed, 0.0).reshape(-1, *self.batch_shape)
        each = torch.stack([self._log_probs(one) for one in count]).reshape(shape)
        return each.where(allowed, -math.inf).to(self._mean)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draws from torch's global stream, as every `Distribution.sample`; see `bayesmeta.random.seeded`."""
        value = self._marginal().sample(torch.Size(sample_shape))
        if self.trials is None:
            return torch.poisson(value.clamp(max=2.0**53))
        return torch.binomial(self.trials.to(value).expand(value.shape).contiguous(), value)
