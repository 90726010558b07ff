r"""Linear regression whose weights and noise both differ between tasks.

For each task, with rows (x, y),

$$ y = x^\top w + e, \quad e \sim N(0, v), \quad w \mid v \sim N(\text{loc}, v\, \text{precision}^{-1}), \quad
v \sim \text{InverseGamma}(\text{concentration}, \text{rate}). $$

There is no hidden intercept: put a column of ones into x. Singular designs, and fewer rows than columns, are fine.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 14.8; Murphy, Probabilistic Machine Learning:
An Introduction (2022), section 11.7.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import StudentT

from bayesmeta.data.columns import Columns, Reading, columns_of, read, require_columns_fit
from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import (
    require_enough_tasks,
    require_finite,
    require_positive,
    require_positive_definite,
)
from bayesmeta.data.weighted_rows import WeightedRows, regression_statistics
from bayesmeta.distributions.marginals import StudentMarginal
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.mode import fit_by_mode
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.numerics.linalg import cholesky, factor_of_sum, log_det, positive, rounded, solve, symmetric
from bayesmeta.numerics.special import lgamma_ratio
from bayesmeta.random import log_gamma, randn, within_floats
from bayesmeta.regression.linear import LinearFunctions
from bayesmeta.regression.linear_evidence import normal_equations, sum_of_squares, whitened
from bayesmeta.regression.weight_space import LARGEST_LOG, WeightSpace, frame_of_all, weak_precision

if TYPE_CHECKING:
    from bayesmeta.online.protocol import Online

__all__ = ["LinearNormalInverseGamma", "NoisyLinearFunctions"]

ROLES = ("offset", "weight")
LARGEST_COUNT = 1e6
SAME_NOISE = "tasks do not differ in their noise by more than chance, and are taken to share it"
NO_NOISE = "the weights explain every row, or nothing explains any"


@dataclass(frozen=True, eq=False)
class LinearNormalInverseGamma(TensorFields):
    """Normal-Inverse-Gamma over the weights and the noise variance of a linear regression.

    Args:
        loc: mean of the weights, in units of y per unit of x.
        precision: inverse covariance of the weights relative to the noise variance, symmetric positive definite.
        concentration: half the degrees of freedom of the noise variance, above zero.
        rate: half the sum of squares that the belief in the noise variance is worth, in squared units of y, above zero.
        learned_from: what `fit` learned this prior from, None for one written by hand.
        columns: what the columns of x are, None where each has a weight that varies between tasks.
    """

    loc: Float[Tensor, "*#batch d"]
    precision: Float[Tensor, "*#batch d d"]
    concentration: Float[Tensor, "*#batch"]
    rate: Float[Tensor, "*#batch"]
    learned_from: LearnedFrom | None = None
    columns: Columns | None = None

    _matrices: ClassVar[tuple[str, ...]] = ("precision",)

    def __post_init__(self) -> None:
        d = self.loc.shape[-1]
        require_finite("loc", self.loc)
        require_positive_definite("precision", self.precision, d)
        numbers = (torch.as_tensor(self.concentration).shape, torch.as_tensor(self.rate).shape)
        batch = torch.broadcast_shapes(self.loc.shape[:-1], self.precision.shape[:-2], *numbers)
        self._spread(batch, self.loc, "concentration", "rate")
        self._spread((*batch, d), self.loc, "loc")
        self._spread((*batch, d, d), self.loc, "precision")
        require_positive("concentration", self.concentration)
        require_positive("rate", self.rate)
        require_columns_fit(self, ROLES)

    @classmethod
    def initial(
        cls,
        tasks: Data | Statistics,
        *,
        shared: Sequence[int] = (),
        offset: int | None = None,
        weight: int | None = None,
    ) -> "LinearNormalInverseGamma":
        """A weak prior on the scale of `tasks`: noise of half of all variance, weights that could explain it all.

        Where the columns of x span a constant, it is about the mean of y, wherever x and y lie.

        Args:
            shared: columns of x whose weight is the same in all tasks (fixed effects).
            offset: column that is added to the predictor as it is.
            weight: column with the weight of a row, whose noise has variance v / weight.
        """
        num = tasks.num_inputs if isinstance(tasks, Statistics) else tasks.x.shape[-1]
        columns = columns_of(num, shared, offset=offset, weight=weight)
        frame, rows, dtype = frame_of_all(tasks, columns)
        noise_var = 0.5 * frame.y_scale[0].square() * rows.mean_weight
        loc = frame.leave(torch.zeros(len(frame.scale), 1).to(noise_var))[:, 0]
        two = torch.full_like(noise_var, 2.0)
        precision = rounded(positive(0.5 * rows.mean_weight * weak_precision(frame)), dtype)
        return cls(loc.to(dtype), precision, two.to(dtype), (two * noise_var).to(dtype), columns=columns)

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

    def condition(self, data: Data | Statistics) -> "LinearNormalInverseGamma":
        """Posterior of weights and noise after the rows of `data`; batch_shape broadcasts with its tasks."""
        natural = self._natural()
        loc, precision, concentration, squares, _ = _update(*natural, self._rows(self.statistics(data)))
        rate = natural[-1] + 0.5 * squares
        precision = rounded(precision, self.loc.dtype).expand(*loc.shape[:-1], -1, -1)
        fields = {"loc": loc, "precision": precision, "concentration": concentration, "rate": rate}
        return self._replace(**{name: value.to(self.loc) for name, value in fields.items()})

    def predict(self, x: Float[Tensor, "*batch q d"]) -> StudentT:
        """p(y | x) at each row: a Student t with batch_shape `(*batch, q)`."""
        rows = read(self.columns, x, self.loc)
        noise_var = self.rate / self.concentration
        scale = (noise_var[..., None] * self._relative_var(rows) + rows.noise(noise_var)).sqrt()
        return StudentT(2.0 * self.concentration[..., None], self._mean(rows), scale)

    def marginal(self, x: Float[Tensor, "*batch q d"]) -> StudentMarginal:
        """p(x'w) at each row, noise-free: a Student t."""
        rows = read(self.columns, x, self.loc)
        scale = ((self.rate / self.concentration)[..., None] * self._relative_var(rows)).sqrt()
        # a row of zeros has no variance, and a distribution must have some
        scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)
        return StudentMarginal(2.0 * self.concentration[..., None], self._mean(rows), scale)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "NoisyLinearFunctions":
        """Draws of x -> x'w, each with its noise variance."""
        params = self.sample_params(num_draws, generator=generator)
        return NoisyLinearFunctions(params[..., :-1], params[..., -1].exp(), self.columns)

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y | x), weights and noise integrated out, for each task."""
        rows = self._rows(self.statistics(data))
        loc, precision, concentration, rate = self._natural()
        *_, squares, volume = _update(loc, precision, concentration, rate, rows)
        return _log_evidence(concentration, rate, squares, volume, rows).to(self.loc)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Weights and log noise variance, `(num_draws, *batch, d + 1)`."""
        log_var = within_floats(self.rate.log() - log_gamma((num_draws,), self.concentration, generator=generator))
        noise = randn((num_draws, *self.loc.shape, 1), like=self.loc, generator=generator)
        upper = cholesky(self.precision, "precision").mT
        step = torch.linalg.solve_triangular(upper, noise, upper=True)[..., 0]
        return torch.cat([self.loc + (0.5 * log_var).exp()[..., None] * step, log_var[..., None]], -1)

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of weights and log noise variance `(..., *batch, d + 1)`; the Jacobian is the variance."""
        weights, log_var = params[..., :-1], params[..., -1]
        factor = cholesky(self.precision, "precision")
        distance = (factor.mT @ (weights - self.loc)[..., None])[..., 0].square().sum(-1)
        d = self.loc.shape[-1]
        of_weights = 0.5 * (log_det(factor) - d * (math.log(2.0 * math.pi) + log_var) - distance * (-log_var).exp())
        of_var = self.concentration * (self.rate.log() - log_var) - self.concentration.lgamma()
        return of_weights + of_var - self.rate * (-log_var).exp()

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"weights": params[..., :-1], "noise_var": params[..., -1].exp()}

    def fit(self, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> "LinearNormalInverseGamma":
        """The most probable prior after `tasks`.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes; see `bayesmeta.hyperparameters.vector`.

        Raises:
            ValueError: fewer than two tasks have rows, or x does not have d columns.
        """
        stats = self.statistics(tasks)
        fitted = fit_by_mode(self, stats, hyperprior_weight=hyperprior_weight)
        # rows that count by weights are rows all the same
        return fitted._replace(learned_from=LearnedFrom.counts(self._rows(stats).count))

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """Loc, log standard deviations and what correlates weights, and the logs of the concentration and of the mode
        of the noise variance, relative to that of `self`.

        Weights are those of centred and scaled columns (`bayesmeta.regression.frame`), in units where, at the noise
        rate / concentration of `self`, they have mean zero and covariance I. So `loc[i]` of the constant is the level
        of y at the mean of the other columns.
        """
        stats = self.statistics(tasks)
        require_enough_tasks(stats.count, self.batch_shape)
        d, outside = self.loc.shape[-1], self._rows(stats)
        space = WeightSpace.of(outside.stats, self.loc[:, None], self.precision, self.columns, relative=True)
        rows, y_scale = replace(outside, stats=space.frame.rows(outside.stats)), space.frame.y_scale[0]
        _, _, concentration, start_rate = self._natural()
        start_rate = start_rate / y_scale.square()
        size, start_mode = (start_rate / concentration).sqrt(), start_rate / (concentration + 1.0)
        jacobian = rows.count * y_scale.log()

        def natural(vector: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            loc = space.loc[:, 0] + size * (space.unit @ vector[..., :d, None])[..., 0]
            concentration = vector[..., -2].exp()
            # the mode, since noise is hardly ever far below it: where the weights explain every row, a concentration of
            # 1e-6 would evade a limit on rate / concentration, and draws of the noise would be beyond all numbers
            rate = (concentration + 1.0) * start_mode * vector[..., -1].exp()
            return loc, space.root(vector[..., d:-2]), concentration, rate

        def evidence(vector: Tensor) -> Tensor:
            loc, root, concentration, rate = natural(vector[..., None, :])
            squares, volume = whitened(loc, root, rows.stats)
            return _log_evidence(concentration, rate, squares, -volume, rows) - jacobian

        def build(vector: Tensor) -> "LinearNormalInverseGamma":
            loc, root, concentration, rate = natural(vector)
            loc, rate = space.frame.leave(loc[..., None])[..., 0], rate * y_scale.square()
            precision, numbers = rounded(space.precision(root), self.loc.dtype), (loc, concentration, rate)
            loc, concentration, rate = (value.to(self.loc) for value in numbers)
            return LinearNormalInverseGamma(loc, precision, concentration, rate, columns=self.columns)

        entries = [
            *(Hyperparameter(f"loc[{i}]", 0.0, 2.0) for i in range(d)),
            *space.scale_entries(),
            Hyperparameter("log_concentration", concentration.log().item(), 2.0, math.log(LARGEST_COUNT), SAME_NOISE),
            Hyperparameter("log_noise_var", 0.0, 2.0, 2.0 * LARGEST_LOG, NO_NOISE),
        ]
        return Hyperparameters(entries, evidence, build, float(rows.count.sum()))

    def online(self, batch_shape: Sequence[int]) -> "Online":
        """The posterior of tasks, or of tasks and arms with weights of their own, to be updated in place."""
        from bayesmeta.online.kept_rows import OnlineRows
        from bayesmeta.online.sums import OnlineStatistics

        if self.columns is not None and not self.columns.all_inputs:
            return OnlineRows(self, batch_shape)
        return OnlineStatistics(self, batch_shape)

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        return regression_statistics(data, self.columns, self.loc)

    def _rows(self, stats: Statistics) -> WeightedRows:
        return WeightedRows.of(stats, self.loc.shape[-1])

    def _mean(self, rows: Reading) -> Tensor:
        return rows.shifted((rows.x @ self.loc[..., None])[..., 0])

    def _relative_var(self, rows: Reading) -> Tensor:
        """Variance of x'w at each row, relative to that of the noise."""
        factor = cholesky(self.precision, "precision")
        return torch.linalg.solve_triangular(factor, rows.x.mT, upper=False).square().sum(-2)

    def _natural(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.loc.double(), self.precision.double(), self.concentration.double(), self.rate.double()


@dataclass(frozen=True, eq=False)
class NoisyLinearFunctions(LinearFunctions):
    """Draws of x -> x'w, each with a noise_var of its own."""

    noise_var: Float[Tensor, "draws *batch"]


def _update(
    loc: Tensor, precision: Tensor, concentration: Tensor, rate: Tensor, rows: WeightedRows
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean, precision and concentration of the posterior, twice what rows add to the rate, and log|precision| less that
    of the posterior."""
    xx, slope = normal_equations(loc, rows.stats)
    total, factor = factor_of_sum(symmetric(precision + xx), "precision")
    step = solve(factor, slope)
    mean = loc + step
    penalty = (step * (precision @ step[..., None])[..., 0]).sum(-1)
    squares = sum_of_squares(rows.stats, mean) + penalty
    volume = log_det(cholesky(precision, "precision")) - log_det(factor)
    return mean, total, concentration + 0.5 * rows.count, squares, volume


def _log_evidence(concentration: Tensor, rate: Tensor, squares: Tensor, volume: Tensor, rows: WeightedRows) -> Tensor:
    half, more = 0.5 * rows.count, 0.5 * squares
    # a difference of logs would lose as many digits as the concentration has
    falling = concentration * torch.log1p(more / rate) + half * (2.0 * math.pi * (rate + more)).log()
    return lgamma_ratio(concentration, half) + 0.5 * (volume + rows.log_weights) - falling
