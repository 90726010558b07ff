r"""Logistic and Poisson regression whose weights have a Gaussian prior learned from past tasks.

For each task, with rows (x, y) and weights $w \sim N(\text{loc}, \text{precision}^{-1})$,

$$ y \sim \text{Bernoulli}(\sigma(x^\top w)) \quad \text{or} \quad
y \sim \text{Poisson}(\exp(x^\top w + \text{offset})). $$

There is no hidden intercept: put a column of ones into x. Nothing here is conjugate. A posterior is Laplace's Gaussian
approximation at the mode; it keeps the prior and all rows, and more rows solve again from the prior, so that rows that
come in two parts give what they give at once. Predictions integrate over that Gaussian to near rounding;
`log_evidence_error` measures what the approximation itself costs.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), chapters 4 and 16.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Bernoulli, LogNormal

from bayesmeta.columns import Columns, columns_of
from bayesmeta.data import Data, describe_rows
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.glm_functions import LogisticFunctions, PoissonFunctions
from bayesmeta.glm_learning import hyperparameters
from bayesmeta.hyperparameters import Hyperparameters, most_probable
from bayesmeta.laplace import EvidenceError, Rows, factor, fit_mode, importance_error, log_evidence, positive_definite
from bayesmeta.likelihoods import LOGISTIC, POISSON, Likelihood
from bayesmeta.linalg import log_det
from bayesmeta.marginals import LogitNormalMarginal
from bayesmeta.predictor import rows_of, split
from bayesmeta.quadrature import BinomialLogitNormal, PoissonLogNormal, log_mean_sigmoid
from bayesmeta.random import randn
from bayesmeta.statistics import Statistics
from bayesmeta.validation import (
    require_binary,
    require_columns,
    require_finite,
    require_positive_definite,
)

__all__ = ["LogisticFunctions", "LogisticGaussian", "PoissonFunctions", "PoissonGaussian"]

LARGEST_COUNT = 2.0**53  # above, numbers are not whole to the last digit

G = TypeVar("G", bound="_Regression")


@dataclass(frozen=True, eq=False)
class _Regression(TensorFields):
    """What both have in common; see them."""

    loc: Float[Tensor, "*batch d"]
    precision: Float[Tensor, "*batch d d"]
    prior: Any = None
    data: Data | None = None
    learned_from: LearnedFrom | None = None
    columns: Columns | None = None

    likelihood: ClassVar[Likelihood]
    initial_scale: ClassVar[float]  # of the predictor, from each weight alone
    known_roles: ClassVar[tuple[str, ...]]
    num_offsets: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require_finite("loc", self.loc)
        require_positive_definite("precision", self.precision, self.loc.shape[-1])
        if self.columns is None:
            return
        self.columns.require_only(type(self).__name__, *self.known_roles)
        if len(self.columns.inputs) != self.loc.shape[-1]:
            raise ValueError(
                f"loc must have one weight for each of the {len(self.columns.inputs)} inputs among the columns of x; "
                f"got {self.loc.shape[-1]}"
            )

    @property
    def roles(self) -> Columns:
        """What each column of x is."""
        d, more = self.loc.shape[-1], self.num_offsets
        return self.columns or Columns(d + more, offset=d if more else None)

    @classmethod
    def _initial(cls: type[G], tasks: Data, columns: Columns | None) -> G:
        """A weak prior on the scale of x, about the weights that fit the rows of all `tasks` together."""
        if columns is not None and columns.num != tasks.x.shape[-1]:
            raise ValueError(f"x must have {columns.num} columns; got {tasks.x.shape[-1]}")
        d = tasks.x.shape[-1] - cls.num_offsets if columns is None else len(columns.inputs)
        vague = cls(torch.zeros(d).double(), torch.eye(d).double(), columns=columns)
        pooled = Data(tasks.x.reshape(-1, tasks.x.shape[-1]), tasks.y.reshape(-1), tasks.mask.reshape(-1))
        x = split(pooled.x[pooled.mask].double(), vague.roles)[0]
        moments = x.square().sum(0) / max(len(x), 1)
        precision = torch.diag_embed(moments.where(moments > 0, 1.0) / cls.initial_scale**2)
        vague = vague._replace(precision=precision)
        return vague._replace(loc=vague.condition(pooled).loc).to(tasks.y)

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self: G, data: Data | Statistics) -> G:
        """Laplace's approximation after the rows of `data` and all before; batch_shape broadcasts with its tasks.

        Raises:
            ValueError: y holds what the family cannot model, or statistics stand for rows, which this family needs.
        """
        prior, every = self._with(data)
        rows, loc, precision = _flat(prior, every)
        shift = fit_mode(self.likelihood, rows, loc, precision)
        _, hessian = log_evidence(self.likelihood, rows, loc, precision, shift)
        batch = torch.broadcast_shapes(prior.batch_shape, every.batch_shape)
        d = loc.shape[-1]
        return self._replace(
            loc=(loc + shift).reshape(*batch, d).to(self.loc),
            precision=positive_definite(hessian.reshape(*batch, d, d).to(self.loc)),
            prior=prior,
            data=every,
        )

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """Laplace's log p(y | x) of the rows for each task, given the rows before; see `log_evidence_error`."""
        prior, every = self._with(data)
        evidence = _log_evidence(prior, every)
        return (evidence if self.data is None else evidence - _log_evidence(prior, self.data)).to(self.loc)

    def log_evidence_error(
        self, data: Data, *, num_draws: int = 1000, generator: Generator | None = None
    ) -> EvidenceError:
        """By how much the exact log evidence of each task exceeds `log_evidence`, by importance sampling.

        Args:
            num_draws: of the weights of each task; the standard error falls with their square root.
        """
        prior, every = self._with(data)
        found = _importance_error(prior, every, num_draws, generator)
        if self.data is not None:
            before = _importance_error(prior, self.data, num_draws, generator)
            found = EvidenceError(
                found.error - before.error,
                torch.hypot(found.standard_error, before.standard_error),
                torch.minimum(found.ess, before.ess),
            )
        return found

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Weights `(num_draws, *batch, d)`."""
        noise = randn((num_draws, *self.loc.shape, 1), like=self.loc, generator=generator)
        return self.loc + torch.linalg.solve_triangular(factor(self.precision).mT, noise, upper=True)[..., 0]

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of weights `(..., *batch, d)` under the Gaussian."""
        root = factor(self.precision)
        distance = (root.mT @ (params - self.loc)[..., None])[..., 0].square().sum(-1)
        return 0.5 * (log_det(root) - distance - self.loc.shape[-1] * math.log(2.0 * math.pi))

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"weights": params}

    def fit(self: G, tasks: Data, *, hyperprior_weight: float = 1.0) -> G:
        """The most probable prior after `tasks`, by Laplace's evidence, whatever the units of x.

        Where tasks share a weight, its variance falls, at most by 1e8. Where they share a combination of weights, the
        weights correlate, two of them by 1 - 5e-7 at most. Both limits warn.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes; see `bayesmeta.hyperparameters`.

        Raises:
            ValueError: fewer than two tasks have rows, or y holds what the family cannot model.
        """
        unknown = self.hyperparameters(tasks)
        fitted: G = unknown.build(most_probable(unknown, hyperprior_weight=hyperprior_weight))
        return fitted._replace(learned_from=LearnedFrom.counts(tasks.count))

    def hyperparameters(self, tasks: Data) -> Hyperparameters:
        """What is unknown of the prior, given `tasks`: see `bayesmeta.glm_learning`."""
        return hyperparameters(self, self._require(tasks))

    @abstractmethod
    def _require_values(self, data: Data) -> None:
        """Raise ValueError where y is not what the likelihood is of."""

    def _require(self, data: Data | Statistics) -> Data:
        if isinstance(data, Statistics):
            raise ValueError(f"{type(self).__name__} needs the rows themselves; got their Statistics. Give Data")
        require_columns(data, num_inputs=self.roles.num, event_shape=())
        self._require_values(data)
        return data

    def _with(self: G, data: Data | Statistics) -> tuple[G, Data]:
        """The prior, and all rows that have been seen."""
        rows = self._require(data)
        prior = self if self.prior is None else self.prior
        return prior, rows if self.data is None else self.data + rows

    def _predictor(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the predictor at each row, float64."""
        inputs, offset, _ = split(x.double(), self.roles)
        rounding = torch.finfo(self.precision.dtype).eps
        root = torch.linalg.solve_triangular(factor(self.precision.double(), rounding), inputs.mT, upper=False)
        mean = (inputs @ self.loc.double()[..., None])[..., 0] + offset
        return mean, root.square().sum(-2).clamp(min=torch.finfo(torch.float64).tiny).sqrt()


@dataclass(frozen=True, eq=False)
class LogisticGaussian(_Regression):
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

    def predict(self, x: Float[Tensor, "*batch q d"]) -> Bernoulli | BinomialLogitNormal:
        """p(y | x) at each row, to an absolute error of 1e-13: a Bernoulli with batch_shape `(*batch, q)`.

        Of a count of successes, where x has a column of trials.
        """
        loc, scale = self._predictor(x)
        if self.roles.trials is not None:
            trials = split(x, self.roles)[2].to(self.loc)
            return BinomialLogitNormal(trials, loc.to(self.loc), scale.to(self.loc))
        logits = log_mean_sigmoid(loc, scale) - log_mean_sigmoid(-loc, scale)
        return Bernoulli(logits=logits.to(self.loc))

    def marginal(self, x: Float[Tensor, "*batch q d"]) -> LogitNormalMarginal:
        """p(probability of a one) at each row: its logit is normal."""
        loc, scale = self._predictor(x)
        return LogitNormalMarginal(loc.to(self.loc), _some(scale).to(self.loc))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "LogisticFunctions":
        """Draws of the probability of a one at x."""
        return LogisticFunctions(self.sample_params(num_draws, generator=generator), self.roles)

    def _require_values(self, data: Data) -> None:
        if self.roles.trials is None:
            require_binary(data)
        else:
            _require_successes(data, split(data.x, self.roles)[2])


@dataclass(frozen=True, eq=False)
class PoissonGaussian(_Regression):
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

    def predict(self, x: Float[Tensor, "*batch q d"]) -> PoissonLogNormal:
        """p(y | x) at each row: Poisson with a log-normal rate, batch_shape `(*batch, q)`."""
        loc, scale = self._predictor(x)
        return PoissonLogNormal(loc.to(self.loc), scale.to(self.loc))

    def marginal(self, x: Float[Tensor, "*batch q d"]) -> LogNormal:
        """p(expected count) at each row: its logarithm is normal."""
        loc, scale = self._predictor(x)
        return LogNormal(loc.to(self.loc), _some(scale).to(self.loc))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "PoissonFunctions":
        """Draws of the rate at x."""
        return PoissonFunctions(self.sample_params(num_draws, generator=generator), self.roles)

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
        """As of `PoissonGaussian`; the offset is the last column unless another one is named."""
        num = tasks.x.shape[-1]
        if not len(shared) and offset is None:
            return cls._initial(tasks, None)
        return cls._initial(tasks, columns_of(num, shared, offset=num - 1 if offset is None else offset))


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


def _some(scale: Tensor) -> Tensor:
    """A row of zeros has no variance, and a normal must have some."""
    return scale.clamp(min=torch.finfo(torch.float32).tiny)


def _flat(prior: _Regression, data: Data) -> tuple[Rows, Tensor, Tensor]:
    """Rows, loc and precision with all tasks on one axis, float64."""
    batch, d = torch.broadcast_shapes(prior.batch_shape, data.batch_shape), prior.loc.shape[-1]
    every = data if data.batch_shape == batch else data.expand(batch)
    loc = prior.loc.double().expand(*batch, d).reshape(-1, d)
    precision = prior.precision.double().expand(*batch, d, d).reshape(-1, d, d)
    return rows_of(every, prior.roles), loc, precision


def _log_evidence(prior: _Regression, data: Data) -> Tensor:
    rows, loc, precision = _flat(prior, data)
    shift = fit_mode(prior.likelihood, rows, loc, precision)
    evidence, _ = log_evidence(prior.likelihood, rows, loc, precision, shift)
    return evidence.reshape(torch.broadcast_shapes(prior.batch_shape, data.batch_shape))


def _importance_error(prior: _Regression, data: Data, num_draws: int, generator: Generator | None) -> EvidenceError:
    rows, loc, precision = _flat(prior, data)
    shift = fit_mode(prior.likelihood, rows, loc, precision)
    found = importance_error(prior.likelihood, rows, loc, precision, shift, num_draws, generator)
    batch = torch.broadcast_shapes(prior.batch_shape, data.batch_shape)
    return EvidenceError(*(value.reshape(batch) for value in (found.error, found.standard_error, found.ess)))
