r"""Logistic and Poisson regression whose weights have a Gaussian prior learned from past tasks.

For each task, with rows (x, y) and weights $w \sim N(\text{loc}, \text{precision}^{-1})$,

$$ y \sim \text{Bernoulli}(\sigma(x^\top w)) \quad \text{or} \quad
y \sim \text{Poisson}(\exp(x^\top w + \text{offset})). $$

There is no hidden intercept: put a column of ones into x. Nothing here is conjugate. A posterior keeps the prior and
all rows, and its mode and curvature; more rows solve again from the prior, so that rows that come in two parts give
what they give at once. Predictions are means over points that stand for the posterior
(`bayesmeta.approximations.posterior_points`), draws are of the posterior itself, and the evidence is an integral by
quadrature (`bayesmeta.approximations.evidence`): near exact where one or two weights vary between tasks.
`prediction_error` and `log_evidence_error` measure what is left.

Weights may be shared by all tasks, columns may be offsets or trials of binomial counts: see `bayesmeta.data.columns`.
Where the columns of x span a constant it does not matter where they lie: see `bayesmeta.glm.learning`.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), chapters 4 and 16.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.approximations.laplace import factor, fit_mode, positive_definite
from bayesmeta.approximations.likelihoods import Likelihood
from bayesmeta.approximations.posterior_axes import Around
from bayesmeta.approximations.posterior_points import Cloud, draws, importance_draws
from bayesmeta.data.columns import Columns
from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import (
    require_columns,
    require_finite,
    require_positive_definite,
)
from bayesmeta.distributions.predictor_marginals import ProbabilityMarginal, RateMarginal
from bayesmeta.doors import counted
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.glm.exact import ExactRegression, exact_regression
from bayesmeta.glm.functions import LogisticFunctions, PoissonFunctions
from bayesmeta.glm.learning import hyperparameters, weak_prior
from bayesmeta.glm.predictions import CountPrediction, EvidenceError, PredictionError, Predictor
from bayesmeta.glm.predictor import rows_of, split
from bayesmeta.glm.tasks import Tasks
from bayesmeta.hyperparameters.mode import fit_by_mode
from bayesmeta.hyperparameters.vector import Hyperparameters
from bayesmeta.numerics.linalg import log_det, symmetric
from bayesmeta.random import randn

__all__ = ["LARGEST_COUNT", "Regression", "some"]

LARGEST_COUNT = 2.0**53  # above, numbers are not whole to the last digit

G = TypeVar("G", bound="Regression")


@dataclass(frozen=True, eq=False)
class Regression(TensorFields):
    """A regression with normal weights whose rows have another likelihood: logistic or Poisson."""

    loc: Float[Tensor, "*batch d"]
    precision: Float[Tensor, "*batch d d"]
    prior: "Regression | None" = None
    data: Data | None = None
    learned_from: LearnedFrom | None = None
    columns: Columns | None = None

    likelihood: ClassVar[Likelihood]
    initial_scale: ClassVar[float]  # of the predictor, from each weight alone
    known_roles: ClassVar[tuple[str, ...]]
    num_offsets: ClassVar[int] = 0

    _matrices: ClassVar[tuple[str, ...]] = ("precision",)

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
        loc, precision = weak_prior(rows_of(vague._require(pooled), vague.roles), vague, tasks.x.dtype)
        return vague._replace(loc=loc, precision=precision).to(tasks.y)

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape[:-1]

    @property
    def num_inputs(self) -> int:
        """Columns of x."""
        return self.roles.num

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self: G, data: Data | Statistics) -> G:
        """Posterior after the rows of `data` and all before; batch_shape broadcasts with its tasks.

        Its `loc` is the mode, and `precision` the curvature there; `predict`, `marginal`, `sample` and `log_prob` are
        of the posterior itself, not of the normal with those two.

        Raises:
            ValueError: y holds what the family cannot model, or statistics stand for rows, which this family needs.
        """
        prior, every = self._with(data)
        tasks = Tasks.of(prior, every)
        shift = fit_mode(self.likelihood, tasks.rows, tasks.loc, tasks.precision)
        loc = tasks.weights(tasks.loc + shift)
        d = loc.shape[-1]
        return self._replace(
            loc=loc.reshape(*tasks.batch, d).to(self.loc),
            precision=positive_definite(symmetric(tasks.hessian(loc)).reshape(*tasks.batch, d, d).to(self.loc)),
            prior=prior,
            data=every,
        )

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y | x) of the rows for each task, given the rows before: see `bayesmeta.approximations.evidence`.

        By quadrature where up to four weights vary between tasks, by a corrected Laplace approximation from five on;
        `log_evidence_error` measures what either costs.
        """
        prior, every = self._with(data)
        evidence = _log_evidence(prior, every)
        return (evidence if self.data is None else evidence - _log_evidence(prior, self.data)).to(self.loc)

    @counted(num_draws=2)
    def log_evidence_error(
        self, data: Data, *, num_draws: int = 1000, generator: Generator | None = None
    ) -> EvidenceError:
        """Error of `log_evidence` of each task, exact less approximate, by importance sampling.

        It says nothing of predictions, whose error `prediction_error` measures.

        Args:
            num_draws: of the weights of each task; the standard error falls with their square root.
        """
        prior, every = self._with(data)
        found = _evidence_error(prior, every, num_draws, generator)
        if self.data is not None:
            before = _evidence_error(prior, self.data, num_draws, generator)
            found = EvidenceError(
                found.error - before.error,
                torch.hypot(found.standard_error, before.standard_error),
                torch.minimum(found.ess, before.ess),
            )
        return found

    def prediction_error(
        self, x: Float[Tensor, "*batch q d"], *, num_draws: int = 1000, generator: Generator | None = None
    ) -> PredictionError:
        """Error of the mean of `predict` at each row, exact less approximate, by importance sampling.

        Args:
            num_draws: of the weights of each task; the standard error falls with their square root.
        """
        mean = self.predict(x).mean.double()
        if self._is_prior:  # a closed form
            zero = torch.zeros_like(mean)
            return PredictionError(zero, zero, torch.full_like(mean, math.inf))
        predictor, shape = self._after_rows(x)
        trials = predictor.asked.trials
        per_trial = (mean.reshape(trials.shape) / trials).where(trials > 0, 0.0)
        error, deviation, ess = predictor.error(per_trial, num_draws, generator)
        found = (trials * error).reshape(shape), (trials * deviation).reshape(shape), ess.reshape(shape)
        return PredictionError(*found)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Weights `(num_draws, *batch, d)`, independent draws: of the exact posterior where there are rows."""
        if self._is_prior:
            return _normal_draws(self.loc, factor(self.precision), num_draws, generator)
        tasks = self._tasks(self.batch_shape)

        def use(posterior: Around, index: Tensor, cloud: Cloud) -> tuple[Tensor, ...]:
            return (posterior.at(draws(posterior, cloud, num_draws, generator)),)

        (unknown,) = tasks.each(use, width=max(1, num_draws // 100), rough=True)
        weights = tasks.with_known(unknown.movedim(1, 0), generator)
        return weights.reshape(num_draws, *self.loc.shape).to(self.loc)

    @counted(num_draws=4, num_chains=1)
    def exact(
        self,
        *,
        num_draws: int = 1000,
        num_chains: int = 4,
        progress: bool = False,
        generator: Generator | None = None,
    ) -> ExactRegression:
        """The same posterior by draws that Metropolis-Hastings has corrected, each task checked.

        Args:
            num_draws: of each chain, kept.
            num_chains: of each task.
            progress: show a bar.

        Warns:
            NotConvergedWarning: draws of some tasks are not to be trusted; `draws.passed` says which.
        """
        return exact_regression(
            self, num_draws=num_draws, num_chains=num_chains, progress=progress, generator=generator
        )

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of weights `(..., *batch, d)`: of the exact posterior where there are rows."""
        prior = self if self._is_prior else cast("Regression", self.prior)
        root = factor(prior.precision)
        distance = (root.mT @ (params - prior.loc)[..., None])[..., 0].square().sum(-1)
        density = 0.5 * (log_det(root) - distance - self.loc.shape[-1] * math.log(2.0 * math.pi))
        if self._is_prior:
            return density
        tasks = self._tasks(self.batch_shape)
        fit = tasks.log_likelihood(params.double().reshape(-1, len(tasks.loc), self.loc.shape[-1]))
        total = fit - tasks.log_mass()
        shape = (*params.shape[: params.ndim - self.loc.ndim], *self.batch_shape)
        return density + total.reshape(shape).to(density)

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"weights": params}

    def fit(self: G, tasks: Data, *, hyperprior_weight: float = 1.0) -> G:
        """The most probable prior after `tasks`, whatever the units of x.

        Where tasks share a weight, its variance falls, at most by 1e8. Where they share a combination of weights, the
        weights correlate, two of them by 1 - 5e-7 at most. Both limits warn.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes; see `bayesmeta.hyperparameters.vector`.

        Raises:
            ValueError: fewer than two tasks have rows, or y holds what the family cannot model.

        Warns:
            LimitWarning: a hyperparameter ended at its limit, as without a hyperprior where rows are all alike or
                classes are separated.
        """
        return fit_by_mode(self, tasks, hyperprior_weight=hyperprior_weight)

    def hyperparameters(self, tasks: Data) -> Hyperparameters:
        """What is unknown of the prior, given `tasks`: see `bayesmeta.glm.learning`."""
        return hyperparameters(self, self._require(tasks))

    @abstractmethod
    def predict(self, x: Tensor) -> Distribution:
        """p(y | x) at each row."""

    @abstractmethod
    def functions(self, weights: Tensor) -> LogisticFunctions | PoissonFunctions:
        """Functions of weights `(draws, *batch, d)`."""

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
        prior = self if self.prior is None else cast("G", self.prior)
        return prior, rows if self.data is None else self.data + rows

    @property
    def _is_prior(self) -> bool:
        """Whether no row has been seen, so that weights are normal."""
        return self.prior is None or self.data is None or not self.data.mask.shape[-1]

    def _predictor(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the predictor at each row, float64, where weights are normal."""
        inputs, offset, _ = split(x.double(), self.roles)
        rounding = torch.finfo(self.precision.dtype).eps
        root = torch.linalg.solve_triangular(factor(self.precision.double(), rounding), inputs.mT, upper=False)
        mean = (inputs @ self.loc.double()[..., None])[..., 0] + offset
        return mean, root.square().sum(-2).clamp(min=torch.finfo(torch.float64).tiny).sqrt()

    def as_tasks(self) -> Tasks:
        """Priors and rows of all tasks on one axis; a prior has tasks without rows."""
        if not self._is_prior:
            return self._tasks(self.batch_shape)
        none = self.loc.new_empty(*self.batch_shape, 0)
        empty = Data(none[..., None].expand(*none.shape, self.roles.num), none, none.bool())
        return Tasks.of(self, empty, self.batch_shape)

    def _tasks(self, batch: torch.Size) -> Tasks:
        """All that is known of the tasks of a posterior, whose batch broadcasts to `batch`."""
        return Tasks.of(cast("Regression", self.prior), cast("Data", self.data), batch)

    def _after_rows(self, x: Tensor) -> tuple[Predictor, torch.Size]:
        """The predictors of x given all rows, tasks on one axis, and the shape `(*batch, q)` of what they say."""
        batch, (q, columns) = torch.broadcast_shapes(self.batch_shape, x.shape[:-2]), x.shape[-2:]
        shape = torch.Size([*batch, q])
        if self.batch_shape.numel() == 1:  # all rows are of one task
            tasks, x = self._tasks(self.batch_shape or torch.Size([1])), x.reshape(1, -1, columns)
        else:
            tasks, x = self._tasks(batch), x.expand(*shape, columns).reshape(-1, q, columns)
        return Predictor(tasks, tasks.asked(x, self.roles)), shape

    def _marginal_after(self, x: Tensor) -> ProbabilityMarginal | RateMarginal:
        predictor, shape = self._after_rows(x)
        mean, var = predictor.moments()
        parts = mean.reshape(shape), var.reshape(shape), predictor.quantiles().reshape(*shape, -1)
        return predictor.kind.of(*(part.to(self.loc) for part in parts))

    def _counts_after(self, x: Tensor) -> CountPrediction:
        predictor, shape = self._after_rows(x)
        mean, var = (part.reshape(shape) for part in predictor.moments())
        trials = None if self.roles.trials is None else predictor.asked.trials.reshape(shape)
        if trials is None:
            counts = mean, mean + var
        else:
            counts = trials * mean, trials * (mean - mean.square() - var) + trials.square() * var

        def log_probs(count: Tensor) -> Tensor:
            return predictor.log_prob(count.reshape(predictor.asked.offset.shape)).reshape(shape)

        largest = torch.finfo(self.loc.dtype).max
        return CountPrediction(
            counts[0].clamp(max=largest).to(self.loc),
            counts[1].clamp(max=largest).to(self.loc),
            lambda: self._marginal_after(x),
            log_probs,
            trials,
        )


def some(scale: Tensor) -> Tensor:
    """A row of zeros has no variance, and a normal must have some."""
    return scale.clamp(min=torch.finfo(torch.float32).tiny)


def _normal_draws(loc: Tensor, root: Tensor, num_draws: int, generator: Generator | None) -> Tensor:
    """Draws `(num_draws, *batch, d)` of normals with precision root root'."""
    noise = randn((num_draws, *loc.shape, 1), like=loc, generator=generator)
    return loc + torch.linalg.solve_triangular(root.mT, noise, upper=True)[..., 0]


def _log_evidence(prior: Regression, data: Data) -> Tensor:
    tasks = Tasks.of(prior, data)
    return tasks.log_evidence().reshape(tasks.batch)


def _evidence_error(prior: Regression, data: Data, num_draws: int, generator: Generator | None) -> EvidenceError:
    tasks = Tasks.of(prior, data)
    stated, mass = tasks.log_evidence(), tasks.log_peak()

    def use(posterior: Around, index: Tensor, cloud: Cloud) -> tuple[Tensor, ...]:
        _, log_ratio = importance_draws(posterior, cloud, num_draws, generator)
        found = log_ratio.logsumexp(-1) - math.log(num_draws)
        ratio = (log_ratio - found[:, None]).exp()
        found = found + torch.linalg.slogdet(posterior.axes).logabsdet
        return found, ratio.std(-1) / num_draws**0.5, ratio.sum(-1).square() / ratio.square().sum(-1)

    found, deviation, ess = tasks.each(use, width=max(1, num_draws // 100), rough=True)
    parts = (found + mass - stated, deviation, ess)
    return EvidenceError(*(part.reshape(tasks.batch) for part in parts))
