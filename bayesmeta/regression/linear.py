r"""Linear regression whose weights have a Gaussian prior learned from past tasks. The file to read first.

For each task, with rows (x, y),

$$ y = x^\top w + e, \quad w \sim N(\text{loc}, \text{precision}^{-1}), \quad e \sim N(0, \text{noise\_var}). $$

There is no hidden intercept: put a column of ones into x. `loc`, `precision` and `noise_var` are learned over tasks by
expectation-maximisation where the evidence alone decides, by L-BFGS under a hyperprior.

Source: Bishop, Pattern Recognition and Machine Learning (2006), section 3.3; the hierarchy is Lindley and Smith (1972).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from gpytorch.distributions import MultivariateNormal as LazyMultivariateNormal
from jaxtyping import Float
from linear_operator.operators import RootLinearOperator
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.data.columns import Columns, Reading, columns_of, read, require_columns_fit
from bayesmeta.data.over_tasks import over_tasks
from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import (
    require_enough_tasks,
    require_finite,
    require_positive,
    require_positive_definite,
)
from bayesmeta.data.weighted_rows import WeightedRows, regression_statistics
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.numerics.linalg import cholesky, log_det, positive, rounded, symmetric
from bayesmeta.random import randn
from bayesmeta.regression.linear_em import expectation_maximisation
from bayesmeta.regression.linear_evidence import Natural, Restricted, log_evidence, update, whitened_log_evidence
from bayesmeta.regression.weight_space import LARGEST_LOG, WeightSpace, frame_of_all, weak_precision

if TYPE_CHECKING:
    from bayesmeta.online.protocol import Online

__all__ = ["LinearFunctions", "LinearGaussian", "VarianceComponents"]

ROLES = ("offset", "weight", "noise_var")
NO_NOISE = "the weights explain every row, or nothing explains any"


@dataclass(frozen=True, eq=False)
class LinearGaussian(TensorFields):
    """Gaussian over the weights of a linear regression with known noise.

    Args:
        loc: mean of the weights, in units of y per unit of x.
        precision: inverse covariance of the weights, symmetric positive definite.
        noise_var: variance of one row's noise, in squared units of y; of a row of weight one where rows have weights,
            and in units of the known variances where rows have these.
        learned_from: what `fit` learned this prior from, None for one written by hand.
        columns: what the columns of x are, None where each has a weight that varies between tasks.
    """

    loc: Float[Tensor, "*batch d"]
    precision: Float[Tensor, "*batch d d"]
    noise_var: Float[Tensor, "*batch"]
    learned_from: LearnedFrom | None = None
    columns: Columns | None = None

    _matrices: ClassVar[tuple[str, ...]] = ("precision",)

    def __post_init__(self) -> None:
        require_finite("loc", self.loc)
        require_positive_definite("precision", self.precision, self.loc.shape[-1])
        require_positive("noise_var", self.noise_var)
        require_columns_fit(self, ROLES)

    @classmethod
    def initial(
        cls,
        tasks: Data | Statistics,
        *,
        shared: Sequence[int] = (),
        offset: int | None = None,
        weight: int | None = None,
        noise_var: int | None = None,
    ) -> "LinearGaussian":
        """A weak prior on the scale of `tasks`: each weight alone could explain all the variance of y.

        Where the columns of x span a constant, the prior is about the mean of y, and it is the same wherever x and y
        lie.

        Args:
            shared: columns of x whose weight is the same in all tasks (fixed effects).
            offset: column that is added to the predictor as it is.
            weight: column with the weight of a row, whose noise has variance noise_var / weight.
            noise_var: column with the known variance of a row's noise.
        """
        num = tasks.num_inputs if isinstance(tasks, Statistics) else tasks.x.shape[-1]
        columns = columns_of(num, shared, offset=offset, weight=weight, noise_var=noise_var)
        frame, rows, dtype = frame_of_all(tasks, columns)
        y_var = frame.y_scale[0].square()
        noise = torch.ones_like(y_var) if noise_var is not None else y_var * rows.mean_weight
        loc = frame.leave(torch.zeros(len(frame.scale), 1).to(y_var))[:, 0]
        precision = rounded(positive(weak_precision(frame) / y_var), dtype)
        return cls(loc.to(dtype), precision, noise.to(dtype), columns=columns)

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape[:-1]

    @property
    def num_inputs(self) -> int:
        """Columns of x."""
        return self.loc.shape[-1] if self.columns is None else self.columns.num

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self, data: Data | Statistics) -> "LinearGaussian":
        """Posterior of the weights after the rows of `data`; batch_shape broadcasts with its tasks."""
        stats = self.statistics(data)
        loc, precision = over_tasks(update, self._natural(), stats, self.batch_shape, fusable=False)
        batch = loc.shape[:-1]
        return self._replace(
            loc=loc, precision=precision.expand(*batch, -1, -1), noise_var=self.noise_var.expand(batch)
        )

    def predict(self, x: Float[Tensor, "*batch q d"]) -> Normal:
        """p(y | x) at each row: a normal with batch_shape `(*batch, q)`."""
        rows = self._read(x)
        var = self._root(rows.x).square().sum(-1) + rows.noise(self.noise_var)
        return Normal(self._mean(rows), var.sqrt())

    def marginal(self, x: Float[Tensor, "*batch q d"]) -> Normal:
        """p(x'w) at each row, noise-free."""
        rows = self._read(x)
        var = self._root(rows.x).square().sum(-1)
        # a row of zeros has no variance, and a normal must have some
        return Normal(self._mean(rows), var.clamp(min=torch.finfo(var.dtype).tiny).sqrt())

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "LinearFunctions":
        """Draws of x -> x'w."""
        return LinearFunctions(self.sample_params(num_draws, generator=generator), self.noise_var, self.columns)

    def joint(self, x: Float[Tensor, "*batch q d"]) -> LazyMultivariateNormal:
        """x'w at all rows together; of rank d, and so degenerate for q > d."""
        rows = self._read(x)
        return LazyMultivariateNormal(self._mean(rows), RootLinearOperator(self._root(rows.x)))

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log N(y; X loc, X precision^-1 X' + noise_var I) for each task."""
        stats = self.statistics(data)
        (evidence,) = over_tasks(log_evidence, self._natural(), stats, self.batch_shape, fusable=False)
        return evidence.to(self.loc)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Weights `(num_draws, *batch, d)`."""
        noise = randn((num_draws, *self.loc.shape, 1), like=self.loc, generator=generator)
        upper = cholesky(self.precision, "precision").mT
        return self.loc + torch.linalg.solve_triangular(upper, noise, upper=True)[..., 0]

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of weights `(..., *batch, d)`."""
        factor = cholesky(self.precision, "precision")
        distance = (factor.mT @ (params - self.loc)[..., None])[..., 0].square().sum(-1)
        return 0.5 * (log_det(factor) - distance - self.loc.shape[-1] * math.log(2.0 * math.pi))

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"weights": params}

    def fit(
        self, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0, restricted: bool = False
    ) -> "LinearGaussian":
        """The most probable loc, precision and noise_var after `tasks`.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes, by EM; see `bayesmeta.hyperparameters.vector`.
            restricted: integrate loc and the shared weights out under a flat prior while variances are learned; with
                `hyperprior_weight=0` this is REML. The prior carries what is unknown of them: its covariance is that
                between tasks plus that of loc.

        Raises:
            ValueError: fewer than two tasks have rows, x does not have the columns, or, if `restricted`, the columns
                do not tell all weights apart.

        Warns:
            LimitWarning: a hyperparameter ended at the limit of its search.
            PlacementWarning: rows lie so far from zero that the answer depends on it.
        """
        unknown = self._unknown(tasks)
        return unknown.learned(*unknown.most_probable(hyperprior_weight, restricted))

    def variance_components(
        self, tasks: Data | Statistics, *, hyperprior_weight: float = 0.0, restricted: bool = True
    ) -> "VarianceComponents":
        """What `fit` with the same arguments learns, as tables of mixed models show it: REML unless told otherwise."""
        unknown = self._unknown(tasks)
        return unknown.components(*unknown.most_probable(hyperprior_weight, restricted))

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """Loc, log standard deviations and what correlates weights, and the log of noise_var over that of `self`.

        Weights are those of centred and scaled columns (`bayesmeta.regression.frame`), in units where they have mean
        zero and covariance I under `self`. So `loc[i]` of the constant is the level of y at the mean of the other
        columns.
        """
        return self._unknown(tasks).hyperparameters()

    def _unknown(self, tasks: Data | Statistics) -> "_Unknown":
        stats = self.statistics(tasks)
        require_enough_tasks(stats.count, self.batch_shape)
        rows = WeightedRows.of(stats, self.loc.shape[-1])
        space = WeightSpace.of(rows.stats, self.loc[:, None], self.precision, self.columns)
        return _Unknown(self, space, replace(rows, stats=space.frame.rows(rows.stats)))

    def _root_of_covariance(self) -> Tensor:
        """R with R R' = precision^-1."""
        upper = cholesky(self.precision, "precision").mT
        return torch.linalg.solve_triangular(upper, torch.eye(upper.shape[-1]).to(upper), upper=True)

    def _natural(self) -> Natural:
        return self.loc, self.precision, self.noise_var

    def online(self, batch_shape: Sequence[int]) -> "Online":
        """The posterior of tasks, or of tasks and arms with weights of their own, to be updated in place."""
        from bayesmeta.online.kept_rows import OnlineRows
        from bayesmeta.online.weights import OnlineArmWeights, OnlineWeights

        if self.columns is not None and not self.columns.all_inputs:
            return OnlineRows(self, batch_shape)
        if len(batch_shape) == 1:
            return OnlineWeights(self, batch_shape, _mean_and_root)
        return OnlineArmWeights(self, batch_shape, _mean_and_root)

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        return regression_statistics(data, self.columns, self.loc)

    def _read(self, x: Tensor) -> Reading:
        return read(self.columns, x, self.loc)

    def _mean(self, rows: Reading) -> Tensor:
        return rows.shifted((rows.x @ self.loc[..., None])[..., 0])

    def _root(self, x: Tensor) -> Tensor:
        """R `(*batch, q, d)` with R R' = x precision^-1 x'."""
        return torch.linalg.solve_triangular(cholesky(self.precision, "precision"), x.mT, upper=False).mT


@dataclass(frozen=True)
class _Unknown:
    """The hyperparameters of `prior`, given rows in the frame of `space`."""

    prior: LinearGaussian
    space: WeightSpace
    rows: WeightedRows

    @property
    def noise_var(self) -> Tensor:
        """Noise variance of the prior, in the frame."""
        return self.prior.noise_var.double() / self.unit.square()

    @property
    def unit(self) -> Tensor:
        """Unit of y in the frame: one where variances are known, which a frame may not move."""
        return self.space.frame.y_scale[0]

    @property
    def knows_noise(self) -> bool:
        return self.prior.columns is not None and self.prior.columns.noise_var is not None

    def natural(self, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loc, root and noise variance in the frame."""
        d, space = self.space.loc.shape[0], self.space
        loc = space.loc[:, 0] + (space.unit @ vector[..., :d, None])[..., 0]
        root, noise = self._spread(vector[..., d:])
        return loc, root, noise

    def _spread(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        noise = self.noise_var.expand(vector.shape[:-1])
        if self.knows_noise:
            return self.space.root(vector), noise
        return self.space.root(vector[..., :-1]), noise * vector[..., -1].exp()

    def hyperparameters(self) -> Hyperparameters:
        jacobian = self.rows.count * self.unit.log()

        def evidence(vector: Tensor) -> Tensor:
            return whitened_log_evidence(*self.natural(vector[..., None, :]), self.rows) - jacobian

        loc = [Hyperparameter(f"loc[{i}]", 0.0, 2.0) for i in range(self.space.loc.shape[0])]
        return Hyperparameters(
            [*loc, *self._spread_entries()],
            evidence,
            self.build,
            float(self.rows.count.sum()),
            device=self.rows.count.device,
        )

    def restricted(self) -> Hyperparameters:
        """Variances alone: what is unknown of loc is integrated out of the evidence, and kept in what is built."""
        rows, (d, unit) = self.rows, (self.space.loc.shape[0], self.unit)
        # the flat prior is over weights of x, in units of y
        constant = d * unit.log() + self.space.frame.log_volume - rows.count.sum() * unit.log()

        def total(vector: Tensor) -> Tensor:
            return Restricted(*self._spread(vector), rows).log_evidence + constant

        def build(vector: Tensor) -> LinearGaussian:
            root, noise = self._spread(vector)
            found = Restricted(root, noise, rows)
            whole = cholesky(symmetric(root @ root.mT + found.cov), "covariance of weights")
            return self._prior(found.loc, whole, noise)

        return Hyperparameters(
            self._spread_entries(),
            total,
            build,
            float(rows.count.sum()),
            total_log_evidence=total,
            device=rows.count.device,
        )

    def most_probable(self, hyperprior_weight: float, restricted: bool) -> tuple[Hyperparameters, Tensor]:
        """The hyperparameters that are searched, and their best vector."""
        if restricted:
            unknown = self.restricted()
            return unknown, most_probable(unknown, hyperprior_weight=hyperprior_weight)
        unknown = self.hyperparameters()
        start, converged = (None, False) if hyperprior_weight or self.space.fixed else self.by_em()
        if not converged:
            start = most_probable(unknown, hyperprior_weight=hyperprior_weight, start=start)
        assert start is not None  # EM that converged has one
        return unknown, start

    def components(self, unknown: Hyperparameters, vector: Tensor) -> "VarianceComponents":
        d = self.space.loc.shape[0]
        restricted = len(vector) < len(self.hyperparameters().entries)
        root, noise = self._spread(vector if restricted else vector[d:])
        found = Restricted(root, noise, self.rows)
        loc = found.loc if restricted else self.natural(vector)[0]
        outside = self.space.frame.to_weights * self.unit
        return VarianceComponents(
            loc=self.space.frame.leave(loc[:, None])[:, 0],
            loc_cov=symmetric(outside @ found.cov @ outside.mT),
            between_cov=symmetric(outside @ root @ root.mT @ outside.mT),
            noise_var=noise * self.unit.square(),
            log_evidence=unknown.log_density(vector, hyperprior_weight=0.0),
            restricted=restricted,
            prior=self.learned(unknown, vector),
        )

    def _spread_entries(self) -> list[Hyperparameter]:
        noise = Hyperparameter("log_noise_var", 0.0, 2.0, 2.0 * LARGEST_LOG, NO_NOISE)
        return [*self.space.scale_entries(), *([] if self.knows_noise else [noise])]

    def build(self, vector: Tensor) -> LinearGaussian:
        return self._prior(*self.natural(vector))

    def _prior(self, loc: Tensor, root: Tensor, noise: Tensor) -> LinearGaussian:
        square, dtype = self.unit.square(), self.prior.loc.dtype
        known = self.prior.noise_var.expand(noise.shape)
        return LinearGaussian(
            self.space.frame.leave(loc[..., None])[..., 0].to(dtype),
            rounded(self.space.precision(root) / square, dtype),
            known if self.knows_noise else (noise * square).to(dtype),
            columns=self.prior.columns,
        )

    def by_em(self) -> tuple[Tensor, bool]:
        """The vector of greatest evidence, and whether EM reached it; it cannot move weights that tasks share."""
        centre, unit = self.space.loc[:, 0], self.space.unit
        start = centre, unit, self.noise_var
        loc, root, noise, converged = expectation_maximisation(*start, self.rows, known_noise=self.knows_noise)
        shift = torch.linalg.solve_triangular(unit, (loc - centre)[:, None], upper=False)[:, 0]
        ratio = [] if self.knows_noise else [(noise / self.noise_var).log()[None]]
        return torch.cat([shift, self.space.scales(root), *ratio]), converged

    def learned(self, unknown: Hyperparameters, vector: Tensor) -> LinearGaussian:
        return replace(cast(LinearGaussian, unknown.build(vector)), learned_from=LearnedFrom.counts(self.rows.count))


@dataclass(frozen=True, eq=False)
class VarianceComponents(TensorFields):
    """What past tasks say of the weights and their noise, as mixed models report it; float64.

    Args:
        loc: mean of the weights, `(d,)`: fixed effects.
        loc_cov: its covariance, the variances being as they are here; the square roots of its diagonal are the standard
            errors of fixed effects.
        between_cov: covariance of the weights between tasks, zero for those that tasks share: random effects.
        noise_var: of a row of weight one.
        log_evidence: of all tasks: the log likelihood, or the restricted one.
        restricted: which of both.
        prior: what `fit` returns.
    """

    loc: Float[Tensor, "d"]
    loc_cov: Float[Tensor, "d d"]
    between_cov: Float[Tensor, "d d"]
    noise_var: Float[Tensor, ""]
    log_evidence: Float[Tensor, ""]
    restricted: bool
    prior: LinearGaussian


@dataclass(frozen=True, eq=False)
class LinearFunctions(Draws):
    """Draws of x -> x'w: weights `(draws, *batch, d)`, noise_var `(*batch,)`; `columns` as those of the prior."""

    weights: Float[Tensor, "draws *batch d"]
    noise_var: Float[Tensor, "*batch"]
    columns: Columns | None = None

    def __call__(self, x: Tensor) -> Tensor:
        rows = read(self.columns, x, self.weights)
        return rows.shifted((rows.x @ self.weights[..., None])[..., 0])

    def predict(self, x: Tensor) -> Distribution:
        mean = self(x)
        return Normal(mean, read(self.columns, x, self.weights).noise(self.noise_var).sqrt().expand_as(mean))


def _mean_and_root(posterior: LinearGaussian) -> tuple[Tensor, Tensor]:
    return posterior.loc, posterior._root_of_covariance()
