"""Poisson regression of counts: see `bayesmeta.glm.model`."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.approximations.likelihoods import POISSON
from bayesmeta.data.columns import columns_of
from bayesmeta.data.rows import Data, describe_rows
from bayesmeta.distributions.marginals import LogNormalMarginal
from bayesmeta.distributions.poisson_log_normal import PoissonLogNormal
from bayesmeta.distributions.predictor_marginals import ProbabilityMarginal, RateMarginal
from bayesmeta.glm.functions import PoissonFunctions
from bayesmeta.glm.model import LARGEST_COUNT, Regression, some
from bayesmeta.glm.predictions import CountPrediction

__all__ = ["PoissonExposureGaussian", "PoissonGaussian"]


@dataclass(frozen=True, eq=False)
class PoissonGaussian(Regression):
    """Gaussian over the weights of a Poisson regression of counts, with a logarithmic link.

    Rows of unequal exposure: `PoissonExposureGaussian`, whose last column of x is the logarithm of the exposure.

    Args:
        loc: mean of the weights, log rate per unit of x; for a posterior its mode.
        precision: inverse covariance of the weights, symmetric positive definite.
        prior: for a posterior, what it was before all rows; `condition` sets it.
        data: for a posterior, all rows it has seen.
        learned_from: what `fit` learned this prior from, None for one written by hand.
        columns: roles of the columns of x, None where each is an input whose weight varies between tasks.
    """

    likelihood = POISSON
    initial_scale = 1.0
    known_roles = ("offset",)

    @classmethod
    def initial(cls, tasks: Data, *, shared: Sequence[int] = (), offset: int | None = None) -> "PoissonGaussian":
        """A weak prior on the scale of x, about the weights that fit the rows of all `tasks` together.

        Args:
            shared: columns of x whose weight is the same in all tasks: fixed effects.
            offset: column that is added to the log rate as it is, such as the logarithm of an exposure.

        Raises:
            ValueError: a column does not exist or has two roles, or y is not a count.
        """
        return cls._initial(tasks, columns_of(tasks.x.shape[-1], shared, offset=offset))

    def predict(self, x: Float[Tensor, "*batch q d"]) -> PoissonLogNormal | CountPrediction:
        """p(y | x) at each row, batch_shape `(*batch, q)`: before rows Poisson with a log-normal rate."""
        if not self._is_prior:
            return self._counts_after(x)
        loc, scale = self._predictor(x)
        return PoissonLogNormal(loc.to(self.loc), scale.to(self.loc))

    def marginal(self, x: Float[Tensor, "*batch q d"]) -> LogNormalMarginal | ProbabilityMarginal | RateMarginal:
        """p(expected count) at each row; before rows its logarithm is normal."""
        if not self._is_prior:
            return self._marginal_after(x)
        loc, scale = self._predictor(x)
        return LogNormalMarginal(loc.to(self.loc), some(scale).to(self.loc))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "PoissonFunctions":
        """Draws of the rate at x."""
        return self.functions(self.sample_params(num_draws, generator=generator))

    def functions(self, weights: Tensor) -> "PoissonFunctions":
        """Functions of weights `(draws, *batch, d)`."""
        return PoissonFunctions(weights, self.roles)

    def _require_values(self, data: Data) -> None:
        bad = ~((data.y >= 0) & (data.y == data.y.floor()) & (data.y <= LARGEST_COUNT)) & data.mask
        if bool(bad.any()):
            raise ValueError(
                "y must be a whole number from 0 to 2^53, a count, where mask is true; "
                f"{describe_rows(bad)} with value {data.y[bad][0].item():g}"
            )


@dataclass(frozen=True, eq=False)
class PoissonExposureGaussian(PoissonGaussian):
    """`PoissonGaussian` for counts over unequal exposures: x has one more column, the last, the log of the exposure."""

    num_offsets = 1

    @classmethod
    def initial(
        cls, tasks: Data, *, shared: Sequence[int] = (), offset: int | None = None
    ) -> "PoissonExposureGaussian":
        """Weak prior, as that of `PoissonGaussian`; the offset is the last column unless another one is named."""
        num = tasks.x.shape[-1]
        if not len(shared) and offset is None:
            return cls._initial(tasks, None)
        return cls._initial(tasks, columns_of(num, shared, offset=num - 1 if offset is None else offset))
