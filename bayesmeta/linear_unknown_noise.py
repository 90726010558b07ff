r"""Linear regression whose weights and noise both differ between tasks.

For each task, with rows (x, y),

$$ y = x^\top w + e, \quad e \sim N(0, v), \quad w \mid v \sim N(\text{loc}, v\, \text{precision}^{-1}), \quad
v \sim \text{InverseGamma}(\text{concentration}, \text{rate}). $$

There is no hidden intercept: put a column of ones into x. Singular designs, and fewer rows than columns, are fine.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 14.8; Murphy, Probabilistic Machine Learning:
An Introduction (2022), section 11.7.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Normal, StudentT

from bayesmeta.correlations import LARGEST_TILT, TOGETHER, scale_tril
from bayesmeta.data import Data
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters import Hyperparameter, Hyperparameters, most_probable
from bayesmeta.linalg import cholesky, log_det, solve, symmetric
from bayesmeta.linear import LinearGaussian, sum_of_squares
from bayesmeta.marginals import StudentMarginal
from bayesmeta.random import log_gamma, randn
from bayesmeta.special import lgamma_ratio
from bayesmeta.statistics import Statistics
from bayesmeta.validation import (
    require_columns,
    require_enough_tasks,
    require_finite,
    require_positive,
    require_positive_definite,
)

__all__ = ["LinearNormalInverseGamma", "NoisyLinearFunctions"]

LARGEST_COUNT = 1e6
LARGEST_LOG = math.log(1e4)  # a standard deviation that ends as far from where the search starts is zero, or endless
SAME_NOISE = "tasks do not differ in their noise by more than chance, and are taken to share it"
SAME_WEIGHT = "tasks share this weight but for chance, or it grows without end"
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
    """

    loc: Float[Tensor, "*#batch d"]
    precision: Float[Tensor, "*#batch d d"]
    concentration: Float[Tensor, "*#batch"]
    rate: Float[Tensor, "*#batch"]
    learned_from: LearnedFrom | None = None

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

    @classmethod
    def initial(cls, tasks: Data | Statistics) -> "LinearNormalInverseGamma":
        """A weak prior on the scale of `tasks`: noise of half of all variance, weights that could explain it all."""
        start = LinearGaussian.initial(tasks)
        noise_var = 0.5 * start.noise_var
        two = torch.full_like(noise_var, 2.0)
        return cls(start.loc, start.precision * noise_var[..., None, None], two, two * noise_var)

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self, data: Data | Statistics) -> "LinearNormalInverseGamma":
        """Posterior of weights and noise after the rows of `data`; batch_shape broadcasts with its tasks."""
        loc, precision, concentration, rate, _ = _update(*self._natural(), self.statistics(data))
        precision = precision.expand(*loc.shape[:-1], -1, -1)
        fields = {"loc": loc, "precision": precision, "concentration": concentration, "rate": rate}
        return self._replace(**{name: value.to(self.loc) for name, value in fields.items()})

    def predict(self, x: Float[Tensor, "*batch q d"]) -> StudentT:
        """p(y | x) at each row: a Student t with batch_shape `(*batch, q)`."""
        factor = cholesky(self.precision, "precision")
        spread = 1.0 + torch.linalg.solve_triangular(factor, x.mT, upper=False).square().sum(-2)
        scale = ((self.rate / self.concentration)[..., None] * spread).sqrt()
        return StudentT(2.0 * self.concentration[..., None], (x @ self.loc[..., None])[..., 0], scale)

    def marginal(self, x: Float[Tensor, "*batch q d"]) -> StudentMarginal:
        """p(x'w) at each row, noise-free: a Student t."""
        factor = cholesky(self.precision, "precision")
        spread = torch.linalg.solve_triangular(factor, x.mT, upper=False).square().sum(-2)
        scale = ((self.rate / self.concentration)[..., None] * spread).sqrt()
        # a row of zeros has no variance, and a distribution must have some
        scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)
        return StudentMarginal(2.0 * self.concentration[..., None], (x @ self.loc[..., None])[..., 0], scale)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "NoisyLinearFunctions":
        """Draws of x -> x'w, each with its noise variance."""
        params = self.sample_params(num_draws, generator=generator)
        return NoisyLinearFunctions(params[..., :-1], params[..., -1].exp())

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y | x), weights and noise integrated out, for each task."""
        stats = self.statistics(data)
        loc, precision, concentration, rate = self._natural()
        *_, new_rate, volume = _update(loc, precision, concentration, rate, stats)
        return _log_evidence(concentration, rate, new_rate, volume, stats.count).to(self.loc)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Weights and log noise variance, `(num_draws, *batch, d + 1)`."""
        log_var = self.rate.log() - log_gamma((num_draws,), self.concentration, generator=generator)
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
            hyperprior_weight: 0 for plain empirical Bayes; see `bayesmeta.hyperparameters`.

        Raises:
            ValueError: fewer than two tasks have rows, or x does not have d columns.
        """
        stats = self.statistics(tasks)
        unknown = self.hyperparameters(stats)
        fitted = unknown.build(most_probable(unknown, hyperprior_weight=hyperprior_weight))
        return fitted._replace(learned_from=LearnedFrom.counts(stats.count))

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """In units where, at the noise rate / concentration of `self`, its weights have mean zero and covariance I: loc
        and log standard deviations, and what correlates weights; and the logs of the concentration and of the mode of
        the noise variance, relative to that of `self`."""
        stats = self.statistics(tasks)
        require_enough_tasks(stats.count, self.batch_shape)
        d = self.loc.shape[-1]
        centre, precision, concentration, start_rate = self._natural()
        var, start_mode = start_rate / concentration, start_rate / (concentration + 1.0)
        unit = cholesky(torch.cholesky_inverse(cholesky(precision, "precision")), "covariance")

        def natural(vector: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            loc = centre + var.sqrt() * (unit @ vector[..., :d, None])[..., 0]
            root = unit @ scale_tril(vector[..., d : 2 * d], vector[..., 2 * d : -2])
            concentration = vector[..., -2].exp()
            # the mode, since noise is hardly ever far below it: where the weights explain every row, a concentration of
            # 1e-6 would evade a limit on rate / concentration, and draws of the noise would be beyond all numbers
            return loc, root, concentration, (concentration + 1.0) * start_mode * vector[..., -1].exp()

        def evidence(vector: Tensor) -> Tensor:
            loc, root, concentration, rate = natural(vector[..., None, :])
            squares, volume = _whitened(loc, root, stats)
            return _log_evidence(concentration, rate, rate + 0.5 * squares, volume, stats.count)

        def build(vector: Tensor) -> "LinearNormalInverseGamma":
            loc, root, concentration, rate = natural(vector)
            half = torch.linalg.solve_triangular(root, torch.eye(d, dtype=root.dtype), upper=False)
            return LinearNormalInverseGamma(loc, symmetric(half.mT @ half), concentration, rate).to(self.loc)

        largest, pairs = math.log(LARGEST_COUNT), d * (d - 1) // 2
        entries = [
            *(Hyperparameter(f"loc[{i}]", 0.0, 2.0) for i in range(d)),
            *(Hyperparameter(f"log_scale[{i}]", 0.0, 2.0, LARGEST_LOG, SAME_WEIGHT) for i in range(d)),
            *(Hyperparameter(f"below_diagonal[{i}]", 0.0, 1.0, LARGEST_TILT, TOGETHER) for i in range(pairs)),
            Hyperparameter("log_concentration", concentration.log().item(), 2.0, largest, SAME_NOISE),
            Hyperparameter("log_noise_var", 0.0, 2.0, 2.0 * LARGEST_LOG, NO_NOISE),
        ]
        return Hyperparameters(entries, evidence, build, float(stats.count.sum()))

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        require_columns(data, num_inputs=self.loc.shape[-1], event_shape=self.event_shape)
        return Statistics.of(data)

    def _natural(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.loc.double(), self.precision.double(), self.concentration.double(), self.rate.double()


@dataclass(frozen=True, eq=False)
class NoisyLinearFunctions(Draws):
    """Draws of x -> x'w: weights `(draws, *batch, d)`, and their noise_var `(draws, *batch)`."""

    weights: Float[Tensor, "draws *batch d"]
    noise_var: Float[Tensor, "draws *batch"]

    def __call__(self, x: Tensor) -> Tensor:
        return (x @ self.weights[..., None])[..., 0]

    def predict(self, x: Tensor) -> Normal:
        mean = self(x)
        return Normal(mean, self.noise_var[..., None].sqrt().expand_as(mean))


def _update(
    loc: Tensor, precision: Tensor, concentration: Tensor, rate: Tensor, stats: Statistics
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The posterior's fields, and log|precision| less that of the posterior."""
    xx, gradient = _gradient(loc, stats)
    total = symmetric(precision + xx)
    factor = cholesky(total, "precision")
    step = solve(factor, gradient)
    mean = loc + step
    penalty = (step * (precision @ step[..., None])[..., 0]).sum(-1)
    squares = sum_of_squares(stats, mean) + penalty
    volume = log_det(cholesky(precision, "precision")) - log_det(factor)
    return mean, total, concentration + 0.5 * stats.count, rate + 0.5 * squares, volume


def _whitened(loc: Tensor, root: Tensor, stats: Statistics) -> tuple[Tensor, Tensor]:
    """Twice what the rows add to the rate, and the difference of log determinants, from a factor of precision^-1."""
    xx, gradient = _gradient(loc, stats)
    total = symmetric(root.mT @ xx @ root)
    factor = cholesky(total + torch.eye(loc.shape[-1], dtype=total.dtype), "posterior precision")
    step = solve(factor, (root.mT @ gradient[..., None])[..., 0])
    mean = loc + (root @ step[..., None])[..., 0]
    return sum_of_squares(stats, mean) + step.square().sum(-1), -log_det(factor)


def _gradient(loc: Tensor, stats: Statistics) -> tuple[Tensor, Tensor]:
    """x'x and x'(y - x loc)."""
    d, raw = loc.shape[-1], stats.raw_second
    xx = raw[..., :d, :d]
    return xx, raw[..., :d, d] - (xx @ loc[..., None])[..., 0]


def _log_evidence(concentration: Tensor, rate: Tensor, new_rate: Tensor, volume: Tensor, count: Tensor) -> Tensor:
    half = 0.5 * count
    falling = concentration * (new_rate / rate).log() + half * (2.0 * math.pi * new_rate).log()
    return lgamma_ratio(concentration, half) + 0.5 * volume - falling
