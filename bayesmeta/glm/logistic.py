"""Logistic regression of zeros and ones, or of successes among trials: see `bayesmeta.glm.model`."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Bernoulli

from bayesmeta.approximations.likelihoods import LOGISTIC
from bayesmeta.data.columns import columns_of
from bayesmeta.data.rows import Data, describe_rows
from bayesmeta.data.validation import require_binary
from bayesmeta.distributions.binomial_logit_normal import BinomialLogitNormal
from bayesmeta.distributions.marginals import LogitNormalMarginal
from bayesmeta.distributions.predictor_marginals import ProbabilityMarginal, RateMarginal
from bayesmeta.glm.functions import LogisticFunctions
from bayesmeta.glm.model import LARGEST_COUNT, Regression, some
from bayesmeta.glm.predictions import CountPrediction
from bayesmeta.glm.predictor import split
from bayesmeta.numerics.quadrature import log_mean_sigmoid

__all__ = ["LogisticGaussian"]

LEAST = 1e-300  # of a probability, so that its logarithm is a number


@dataclass(frozen=True, eq=False)
class LogisticGaussian(Regression):
    """Gaussian over the weights of a logistic regression of zeros and ones.

    Args:
        loc: mean of the weights, log odds per unit of x; for a posterior its mode.
        precision: inverse covariance of the weights, symmetric positive definite.
        prior: for a posterior, what it was before all rows; `condition` sets it.
        data: for a posterior, all rows it has seen.
        learned_from: what `fit` learned this prior from, None for one written by hand.
        columns: roles of the columns of x, None where each is an input whose weight varies between tasks.
    """

    likelihood = LOGISTIC
    initial_scale = 2.0
    known_roles = ("offset", "trials")

    @classmethod
    def initial(
        cls, tasks: Data, *, shared: Sequence[int] = (), offset: int | None = None, trials: int | None = None
    ) -> "LogisticGaussian":
        """A weak prior on the scale of x, about the weights that fit the rows of all `tasks` together.

        Args:
            shared: columns of x whose weight is the same in all tasks: fixed effects.
            offset: column that is added to the log odds as it is.
            trials: column with the number of trials of which y counts the successes; without it y is 0 or 1.

        Raises:
            ValueError: a column does not exist or has two roles, or y is not a count of successes.
        """
        return cls._initial(tasks, columns_of(tasks.x.shape[-1], shared, offset=offset, trials=trials))

    def predict(self, x: Float[Tensor, "*batch q d"]) -> Bernoulli | BinomialLogitNormal | CountPrediction:
        """p(y | x) at each row: a Bernoulli with batch_shape `(*batch, q)`, or counts where x has a column of trials.

        Before rows to an absolute error of 1e-13; after them `prediction_error` measures it.
        """
        if not self._is_prior:
            return self._counts_after(x) if self.roles.trials is not None else self._bernoulli_after(x)
        loc, scale = self._predictor(x)
        if self.roles.trials is not None:
            trials = split(x, self.roles)[2].to(self.loc)
            return BinomialLogitNormal(trials, loc.to(self.loc), scale.to(self.loc))
        logits = log_mean_sigmoid(loc, scale) - log_mean_sigmoid(-loc, scale)
        return Bernoulli(logits=logits.to(self.loc))

    def _bernoulli_after(self, x: Tensor) -> Bernoulli:
        predictor, shape = self._after_rows(x)
        one, zero = predictor.probabilities()
        return Bernoulli(logits=(one.clamp(min=LEAST).log() - zero.clamp(min=LEAST).log()).reshape(shape).to(self.loc))

    def marginal(self, x: Float[Tensor, "*batch q d"]) -> LogitNormalMarginal | ProbabilityMarginal | RateMarginal:
        """p(probability of a one) at each row; before rows its logit is normal."""
        if not self._is_prior:
            return self._marginal_after(x)
        loc, scale = self._predictor(x)
        return LogitNormalMarginal(loc.to(self.loc), some(scale).to(self.loc))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "LogisticFunctions":
        """Draws of the probability of a one at x."""
        return self.functions(self.sample_params(num_draws, generator=generator))

    def functions(self, weights: Tensor) -> "LogisticFunctions":
        """Functions of weights `(draws, *batch, d)`."""
        return LogisticFunctions(weights, self.roles)

    def _require_values(self, data: Data) -> None:
        if self.roles.trials is None:
            require_binary(data)
        else:
            _require_successes(data, split(data.x, self.roles)[2])


def _require_successes(data: Data, trials: Tensor) -> None:
    """Trials are whole numbers from zero on, and y from zero to the trials."""
    bad = ~((trials >= 0) & (trials == trials.floor()) & (trials <= LARGEST_COUNT)) & data.mask
    if bool(bad.any()):
        raise ValueError(
            "the column of trials must hold whole numbers from 0 to 2^53 where mask is true; "
            f"{describe_rows(bad)} with value {trials[bad][0].item():g}"
        )
    bad = ~((data.y >= 0) & (data.y == data.y.floor()) & (data.y <= trials)) & data.mask
    if bool(bad.any()):
        raise ValueError(
            "y must be a whole number from 0 to the row's trials, a count of successes, where mask is true; "
            f"{describe_rows(bad)} with value {data.y[bad][0].item():g} of {trials[bad][0].item():g} trials"
        )
