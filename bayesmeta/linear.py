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
from typing import TYPE_CHECKING

import torch
from gpytorch.distributions import MultivariateNormal as LazyMultivariateNormal
from jaxtyping import Float
from linear_operator.operators import RootLinearOperator
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.correlations import LARGEST_TILT, TOGETHER, pack_scales, scale_tril
from bayesmeta.data import Data
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters import Hyperparameter, Hyperparameters, most_probable
from bayesmeta.kernels import over_tasks
from bayesmeta.linalg import cholesky, log_det, solve, symmetric
from bayesmeta.random import randn
from bayesmeta.statistics import Statistics
from bayesmeta.validation import (
    require_columns,
    require_enough_tasks,
    require_finite,
    require_positive,
    require_positive_definite,
)

if TYPE_CHECKING:
    from bayesmeta.online_weights import OnlineArmWeights, OnlineWeights

__all__ = ["LinearFunctions", "LinearGaussian"]

MAX_STEPS = 200  # of EM, which creeps where tasks share a weight: from there the search by gradient goes on
TOLERANCE = 1e-15  # of what an EM step gains, in evidence per row
LARGEST_SWEEP = 8  # weights up to which matrices of all tasks are inverted together, entry by entry
LARGEST_LOG = math.log(1e4)  # a standard deviation that ends as far from where the search starts is zero, or endless
SAME_WEIGHT = "tasks share this weight but for chance, or it grows without end"
NO_NOISE = "the weights explain every row, or nothing explains any"


@dataclass(frozen=True, eq=False)
class LinearGaussian(TensorFields):
    """Gaussian over the weights of a linear regression with known noise.

    Args:
        loc: mean of the weights, in units of y per unit of x.
        precision: inverse covariance of the weights, symmetric positive definite.
        noise_var: variance of one row's noise, in squared units of y.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    loc: Float[Tensor, "*batch d"]
    precision: Float[Tensor, "*batch d d"]
    noise_var: Float[Tensor, "*batch"]
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        require_finite("loc", self.loc)
        require_positive_definite("precision", self.precision, self.loc.shape[-1])
        require_positive("noise_var", self.noise_var)

    @classmethod
    def initial(cls, tasks: Data | Statistics) -> "LinearGaussian":
        """A weak prior on the scale of `tasks`: each weight alone could explain all the variance of y."""
        square = _mean_squares(tasks)
        x_var, y_var = square[:-1], square[-1]
        prior = cls(torch.zeros_like(x_var), torch.diag_embed(x_var / y_var), y_var)
        return prior.to(tasks.y if isinstance(tasks, Data) else square)

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self, data: Data | Statistics) -> "LinearGaussian":
        """Posterior of the weights after the rows of `data`; batch_shape broadcasts with its tasks."""
        stats = self.statistics(data)
        loc, precision = over_tasks(_update, self._natural(), stats, self.batch_shape, fusable=False)
        batch = loc.shape[:-1]
        return self._replace(
            loc=loc, precision=precision.expand(*batch, -1, -1), noise_var=self.noise_var.expand(batch)
        )

    def predict(self, x: Float[Tensor, "*batch q d"]) -> Normal:
        """p(y | x) at each row: a normal with batch_shape `(*batch, q)`."""
        root = self._root(x)
        var = root.square().sum(-1) + self.noise_var[..., None]
        return Normal((x @ self.loc[..., None])[..., 0], var.sqrt())

    def marginal(self, x: Float[Tensor, "*batch q d"]) -> Normal:
        """p(x'w) at each row, noise-free."""
        var = self._root(x).square().sum(-1)
        # a row of zeros has no variance, and a normal must have some
        return Normal((x @ self.loc[..., None])[..., 0], var.clamp(min=torch.finfo(var.dtype).tiny).sqrt())

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "LinearFunctions":
        """Draws of x -> x'w."""
        return LinearFunctions(self.sample_params(num_draws, generator=generator), self.noise_var)

    def joint(self, x: Float[Tensor, "*batch q d"]) -> LazyMultivariateNormal:
        """x'w at all rows together; of rank d, and so degenerate for q > d."""
        mean = (x @ self.loc[..., None])[..., 0]
        return LazyMultivariateNormal(mean, RootLinearOperator(self._root(x)))

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log N(y; X loc, X precision^-1 X' + noise_var I) for each task."""
        stats = self.statistics(data)
        (evidence,) = over_tasks(_log_evidence, self._natural(), stats, self.batch_shape, fusable=False)
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

    def fit(self, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> "LinearGaussian":
        """The most probable loc, precision and noise_var after `tasks`.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes, by EM; see `bayesmeta.hyperparameters`.

        Raises:
            ValueError: fewer than two tasks have rows, or x does not have d columns.
        """
        stats = self.statistics(tasks)
        require_enough_tasks(stats.count, self.batch_shape)
        fitted, unknown = None, self.hyperparameters(stats)
        if not hyperprior_weight:
            fitted, converged = _expectation_maximisation(self.to(torch.float64), stats)
        if fitted is None or not converged:
            start = None if fitted is None else self._vector(fitted)
            fitted = unknown.build(most_probable(unknown, hyperprior_weight=hyperprior_weight, start=start))
        return replace(fitted.to(self.loc), learned_from=LearnedFrom.counts(stats.count))

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """In units where the weights have mean zero and covariance I under `self`: loc, log standard deviations, and
        what correlates weights; and the log of noise_var over that of `self`."""
        stats = self.statistics(tasks)
        require_enough_tasks(stats.count, self.batch_shape)
        d = self.loc.shape[-1]
        centre, noise_var = self.loc.double(), self.noise_var.double()
        unit = self._unit()

        def natural(vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            loc = centre + (unit @ vector[..., :d, None])[..., 0]
            root = unit @ scale_tril(vector[..., d : 2 * d], vector[..., 2 * d : -1])
            return loc, root, noise_var * vector[..., -1].exp()

        def evidence(vector: Tensor) -> Tensor:
            return _whitened_log_evidence(*natural(vector[..., None, :]), stats)

        def build(vector: Tensor) -> "LinearGaussian":
            loc, root, noise = natural(vector)
            half = torch.linalg.solve_triangular(root, torch.eye(d, dtype=torch.float64), upper=False)
            return LinearGaussian(loc, symmetric(half.mT @ half), noise).to(self.loc)

        pairs = d * (d - 1) // 2
        entries = [
            *(Hyperparameter(f"loc[{i}]", 0.0, 2.0) for i in range(d)),
            *(Hyperparameter(f"log_scale[{i}]", 0.0, 2.0, LARGEST_LOG, SAME_WEIGHT) for i in range(d)),
            *(Hyperparameter(f"below_diagonal[{i}]", 0.0, 1.0, LARGEST_TILT, TOGETHER) for i in range(pairs)),
            Hyperparameter("log_noise_var", 0.0, 2.0, 2.0 * LARGEST_LOG, NO_NOISE),
        ]
        return Hyperparameters(entries, evidence, build, float(stats.count.sum()))

    def _unit(self) -> Tensor:
        """Factor of the covariance of the weights, float64."""
        return cholesky(torch.cholesky_inverse(cholesky(self.precision.double(), "precision")), "covariance")

    def _root_of_covariance(self) -> Tensor:
        """R with R R' = precision^-1."""
        upper = cholesky(self.precision, "precision").mT
        return torch.linalg.solve_triangular(upper, torch.eye(upper.shape[-1]).to(upper), upper=True)

    def _vector(self, prior: "LinearGaussian") -> Tensor:
        """Another prior as a vector of `hyperparameters`."""
        unit = self._unit()
        loc = torch.linalg.solve_triangular(unit, (prior.loc - self.loc.double())[:, None], upper=False)[:, 0]
        root = torch.linalg.solve_triangular(unit, prior._unit(), upper=False)
        return torch.cat([loc, pack_scales(root), (prior.noise_var / self.noise_var.double()).log()[None]])

    def _natural(self) -> "Natural":
        return self.loc, self.precision, self.noise_var

    def online(self, batch_shape: Sequence[int]) -> "OnlineWeights | OnlineArmWeights":
        """The posterior of tasks, or of tasks and arms with weights of their own, to be updated in place."""
        from bayesmeta.online_weights import OnlineArmWeights, OnlineWeights

        if len(batch_shape) == 1:
            return OnlineWeights(self, batch_shape, _mean_and_root)
        return OnlineArmWeights(self, batch_shape)

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        require_columns(data, num_inputs=self.loc.shape[-1], event_shape=self.event_shape)
        return Statistics.of(data)

    def _root(self, x: Tensor) -> Tensor:
        """R `(*batch, q, d)` with R R' = x precision^-1 x'."""
        if x.shape[-1] != self.loc.shape[-1]:
            raise ValueError(f"x must have {self.loc.shape[-1]} columns; got {x.shape[-1]}")
        return torch.linalg.solve_triangular(cholesky(self.precision, "precision"), x.mT, upper=False).mT


@dataclass(frozen=True, eq=False)
class LinearFunctions(Draws):
    """Draws of x -> x'w: weights `(draws, *batch, d)`, noise_var `(*batch,)`."""

    weights: Float[Tensor, "draws *batch d"]
    noise_var: Float[Tensor, "*batch"]

    def __call__(self, x: Tensor) -> Tensor:
        return (x @ self.weights[..., None])[..., 0]

    def predict(self, x: Tensor) -> Distribution:
        mean = self(x)
        return Normal(mean, self.noise_var[..., None].sqrt().expand_as(mean))


def _mean_squares(tasks: Data | Statistics) -> Tensor:
    """Of each column of (x, y), all rows together; one where it is zero, and says nothing of the column's scale."""
    if isinstance(tasks, Statistics):
        pooled = tasks.pooled()
        mean = pooled.raw_second.diagonal() / pooled.count.clamp(min=1.0)
    else:
        mean = torch.cat([_sum_of_squares(z, tasks.mask) for z in (tasks.x, tasks.y[..., None])])
        mean = mean / tasks.mask.sum().clamp(min=1.0)
    return mean.where(mean > 0, 1.0)


def _sum_of_squares(rows: Tensor, mask: Tensor) -> Tensor:
    rows = rows.double() if bool(mask.all()) else rows.double().masked_fill(~mask[..., None], 0.0)
    return rows.square().flatten(0, -2).sum(0)


Natural = tuple[Tensor, Tensor, Tensor]


def _mean_and_root(posterior: LinearGaussian) -> tuple[Tensor, Tensor]:
    return posterior.loc, posterior._root_of_covariance()


def _update(prior: Natural, stats: Statistics) -> tuple[Tensor, Tensor]:
    """Posterior mean and precision of the weights, in the dtype of `loc`."""
    loc, precision, noise_var = prior
    d, raw = loc.shape[-1], stats.raw_second
    xx, xy = raw[..., :d, :d], raw[..., :d, d]
    scale = noise_var.double()[..., None]
    total = symmetric(precision.double() + xx / scale[..., None])
    # the step from loc, not the mean itself, so that no rows change nothing and large locs lose no digits
    gradient = (xy - (xx @ loc.double()[..., None])[..., 0]) / scale
    mean = loc.double() + solve(cholesky(total, "precision"), gradient)
    return mean.to(loc), total.to(loc)


def sum_of_squares(stats: Statistics, weights: Tensor) -> Tensor:
    """Sum of (y - x'w)^2 from centred moments: with raw ones it would cancel where y sits far from zero."""
    d, scatter, mean = weights.shape[-1], stats.scatter, stats.mean
    contrast = torch.cat([-weights.double(), torch.ones_like(weights[..., :1]).double()], -1)
    centred = ((scatter @ contrast[..., None])[..., 0] * contrast).sum(-1)
    return centred + stats.count * (mean[..., d] - (mean[..., :d] * weights).sum(-1)).square()


def _log_evidence(prior: Natural, stats: Statistics) -> tuple[Tensor]:
    """Log evidence by way of the posterior; Bishop (2006), equation 3.86, for any prior mean."""
    loc, precision = _update(prior, stats)
    start, noise_var = prior[1].double(), prior[2].double()
    shift = (loc - prior[0]).double()
    penalty = (shift * (start @ shift[..., None])[..., 0]).sum(-1)
    volume = log_det(cholesky(precision.double(), "precision")) - log_det(cholesky(start, "precision"))
    fit = sum_of_squares(stats, loc) / noise_var
    return (-0.5 * (stats.count * (2.0 * math.pi * noise_var).log() + volume + fit + penalty),)


def _whitened_log_evidence(loc: Tensor, root: Tensor, noise_var: Tensor, stats: Statistics) -> Tensor:
    """The same from a factor of the weights' covariance, in units where that is I: a search may go to any scale."""
    d, raw = loc.shape[-1], stats.raw_second
    scale = noise_var[..., None]
    gradient = (raw[..., :d, d] - (raw[..., :d, :d] @ loc[..., None])[..., 0]) / scale
    total = symmetric(root.mT @ (raw[..., :d, :d] / scale[..., None]) @ root)
    factor = cholesky(total + torch.eye(d, dtype=total.dtype), "posterior precision")
    step = solve(factor, (root.mT @ gradient[..., None])[..., 0])
    mean = loc + (root @ step[..., None])[..., 0]
    fit = sum_of_squares(stats, mean) / noise_var + step.square().sum(-1)
    return -0.5 * (stats.count * (2.0 * math.pi * noise_var).log() + log_det(factor) + fit)


def _expectation_maximisation(prior: LinearGaussian, stats: Statistics) -> tuple[LinearGaussian, bool]:
    """The greatest evidence of tasks on the first axis, and whether it was reached.

    The M step takes the moments of the tasks' weights and the expected residual. How far it moves both, as divergence
    of the new from the old, is what the evidence is sure to gain: no step computes the evidence itself.
    """
    used, d = stats.count > 0, prior.loc.shape[-1]
    # tasks last: their matrices are small, and an operation on all tasks costs as much as one on few
    count, mean = stats.count[used], stats.mean[used].mT.contiguous()
    scatter = stats.scatter[used].permute(1, 2, 0).contiguous()
    num_tasks, num_rows = len(count), count.sum()
    xx = torch.addcmul(scatter[:d, :d], count * mean[:d, None], mean[None, :d])
    tiny = torch.finfo(torch.float64).tiny
    loc, noise_var, precision = prior.loc, prior.noise_var, prior.precision
    volume, before = log_det(cholesky(precision, "precision")), 0.0
    for _ in range(MAX_STEPS):
        cov = _inverses(torch.add(precision[..., None], xx, alpha=1.0 / noise_var.item()))
        gradient = _gradient(count, mean, scatter, loc)
        step = (cov * gradient).sum(1) / noise_var
        squares = _squares(count, mean, scatter, loc[:, None] + step)
        total, shift = cov.sum(-1), step.mean(-1)
        # tr(xx cov) from the covariances alone: xx / noise_var is their inverse less the precision
        expected = squares.sum() + noise_var * (num_tasks * d - (precision * total).sum())
        ratio = (expected / num_rows).clamp(min=tiny) / noise_var
        centred = step - shift[:, None]
        spread = symmetric(total + centred @ centred.mT) / num_tasks
        factor = cholesky(spread, "covariance of weights")
        moved = (precision * spread).sum() - d - volume - log_det(factor) + shift @ precision @ shift
        gain = 0.5 * float(num_tasks * moved / num_rows + ratio - 1.0 - ratio.log())
        loc, noise_var, precision = loc + shift, noise_var * ratio, torch.cholesky_inverse(factor)
        volume = -log_det(factor)
        # steps gain by a constant share of the last: all that are to come, where that is less than one half
        left, before = gain * min(gain / max(before - gain, gain), 1.0) if gain > 0 else 0.0, gain
        if left < TOLERANCE:
            break
    return LinearGaussian(loc, symmetric(precision), noise_var), left < TOLERANCE


def _gradient(count: Tensor, mean: Tensor, scatter: Tensor, loc: Tensor) -> Tensor:
    """X'(y - X loc) `(d, tasks)`."""
    d = len(loc)
    level = mean[d] - loc @ mean[:d]
    return torch.addcmul(scatter[:d, d] - loc @ scatter[:d, :d], count * level, mean[:d])


def _squares(count: Tensor, mean: Tensor, scatter: Tensor, weights: Tensor) -> Tensor:
    """The sum of (y - x'w)^2 of each task's weights `(d, tasks)`."""
    d = len(weights)
    centred = scatter[:, d] - (scatter[:, :d] * weights).sum(1)
    level = mean[d] - (mean[:d] * weights).sum(0)
    return centred[d] - (centred[:d] * weights).sum(0) + count * level.square()


def _inverses(matrix: Tensor) -> Tensor:
    """Of positive definite matrices `(d, d, tasks)`."""
    d = len(matrix)
    if d > LARGEST_SWEEP:
        return torch.linalg.inv_ex(matrix.permute(2, 0, 1)).inverse.permute(1, 2, 0)
    for i in range(d):  # the sweep operator, in place: each pass exchanges one row and column
        row = matrix[i].clone()
        pivot = -1.0 / row[i]
        swept = row * pivot
        matrix.addcmul_(row[:, None], swept)
        matrix[i], matrix[:, i] = swept, swept
        matrix[i, i] = pivot
    return matrix.neg_()
