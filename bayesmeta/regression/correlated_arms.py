r"""Arms whose mean rewards are correlated: one Gaussian over the vector of a task's arm means, learned from past tasks.

For each task, with rows (x, y) whose x is the index of one of K arms,

$$ y = \theta_x + e, \quad \theta \sim N(\text{loc}, \text{cov}), \quad e \sim N(0, \text{noise\_var}). $$

What one arm shows informs the others. Past tasks need not show every arm: the learned `loc`, `cov` and `noise_var` are
the most probable ones under a Normal-Inverse-Wishart hyperprior, found by expectation-maximisation over what was not
shown and finished by a quasi-Newton method, as EM is slow where much is missing.

A task is known by the count, mean and scatter of each of its arms: `Statistics` of batch_shape `(*tasks, K)`, the same
as those of independent arms.

Source: Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM algorithm (1977), section 4.1;
Jamshidian and Jennrich, Acceleration of the EM algorithm by using quasi-Newton methods (1997).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from gpytorch.distributions import MultivariateNormal as LazyMultivariateNormal
from jaxtyping import Float, Float64, Shaped
from linear_operator.operators import RootLinearOperator
from torch import Generator, Tensor
from torch.distributions import Normal

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_columns, require_enough_tasks, require_finite, require_positive
from bayesmeta.doors import Draws, counted
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.vector import Hyperparameters
from bayesmeta.numerics.linalg import cholesky, log_det, solve
from bayesmeta.random import randn
from bayesmeta.regression.correlated_arms_fit import Arms, most_probable_arms, unknown_arms

if TYPE_CHECKING:
    from bayesmeta.online.weights import OnlineWeights

from bayesmeta.regression.arms_by_number import arm_index, per_arm

__all__ = ["ArmFunctions", "CorrelatedArms"]

SHARE_OF_NOISE = 0.1  # of the variance, where rows cannot tell noise from what arms vary by
LARGEST_CORRELATION = 0.9  # of two arms of an initial prior: each keeps something of its own


@dataclass(frozen=True, eq=False)
class CorrelatedArms(TensorFields):
    """Gaussian over the mean rewards of K arms, with known noise.

    Args:
        loc: expected mean reward of each arm, in units of y.
        scale_tril: lower Cholesky factor of the covariance of the mean rewards, its diagonal above zero.
        noise_var: variance of one row's noise, in squared units of y.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    loc: Float[Tensor, "*#batch k"]
    scale_tril: Float[Tensor, "*#batch k k"]
    noise_var: Float[Tensor, "*#batch"]
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        k = self.loc.shape[-1]
        require_finite("loc", self.loc)
        require_finite("scale_tril", self.scale_tril)
        require_positive("the diagonal of scale_tril", self.scale_tril.diagonal(dim1=-2, dim2=-1))
        if bool((self.scale_tril.triu(1) != 0).any()):
            raise ValueError("scale_tril must be lower triangular; give torch.linalg.cholesky(cov)")
        noise_shape = torch.as_tensor(self.noise_var).shape
        batch = torch.broadcast_shapes(self.loc.shape[:-1], self.scale_tril.shape[:-2], noise_shape)
        self._spread(batch, self.loc, "noise_var")
        self._spread((*batch, k), self.loc, "loc")
        self._spread((*batch, k, k), self.loc, "scale_tril")
        require_positive("noise_var", self.noise_var)

    @classmethod
    @counted(num_arms=1)
    def initial(cls, tasks: Data | Statistics, *, num_arms: int | None = None) -> "CorrelatedArms":
        """A weak prior on the scale of `tasks`: arms have their own level and, less that, vary between tasks alike.

        The noise is what rows of one arm in one task differ by, and the variance of an arm between tasks is what they
        share, by moments: where tasks are few it is near half of the variance of rows about the level of their arm.
        Where no arm has two rows in a task, the two cannot be told apart: a tenth of the variance is called noise, and
        the rest is between tasks. Arms that `tasks` show all correlate alike, by moments too, and less where tasks are
        few.

        Args:
            num_arms: K, by default the arms up to the greatest that `tasks` show. Arms that none shows have the mean
                level of the others, and share nothing with them.
        """
        if isinstance(tasks, Statistics):
            num_arms = tasks.batch_shape[-1]
        elif num_arms is None:
            require_columns(tasks, num_inputs=1, event_shape=())
            num_arms = 1 + int(tasks.x[tasks.mask].max()) if bool(tasks.mask.any()) else 1
        stats = arms = per_arm(tasks, num_arms)
        while len(arms.batch_shape) > 1:
            arms = arms.sum()
        seen = arms.count > 0
        level = arms.mean[..., 0].where(seen, arms.pooled().mean)
        var = arms.scatter.sum() / (arms.count - 1.0).clamp(min=0.0).sum().clamp(min=1.0)
        var = var.where(var > 0, arms.pooled().scatter.sum() / arms.count.sum().clamp(min=1.0))
        var = var.where(var > 0, 1.0)  # rows that do not vary say nothing of their scale
        freedom = (stats.count - 1.0).clamp(min=0.0).sum()
        within = stats.scatter.sum() / freedom.clamp(min=1.0)
        told_apart = (freedom > 0) & (within > 0)
        noise_var = within.where(told_apart, SHARE_OF_NOISE * var)
        between = _between_variance(stats, level, noise_var, 0.5 * var).where(told_apart, var - noise_var)
        alike = between[seen].mean() if bool(seen.any()) else between.mean()
        correlation = (_shared_covariance(stats, level) / alike).clamp(max=LARGEST_CORRELATION) * seen
        matrix = correlation.sqrt() * correlation.sqrt()[:, None] + (1.0 - correlation).diag()
        scale_tril = between.sqrt()[:, None] * cholesky(matrix, "correlations of arms")
        return cls(level, scale_tril, noise_var).to(tasks.dtype)

    @property
    def num_arms(self) -> int:
        return self.loc.shape[-1]

    @property
    def cov(self) -> Tensor:
        """Covariance of the mean rewards, `(*batch, k, k)`."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def num_inputs(self) -> int:
        """One column of x, the number of the arm."""
        return 1

    def condition(self, data: Data | Statistics) -> "CorrelatedArms":
        """Posterior of the mean rewards after the rows of `data`.

        Args:
            data: `x` of shape `(*batch, n, 1)`, whole numbers from 0 to K - 1, and `y` of shape `(*batch, n)`; or the
                statistics of each arm, of batch_shape `(*batch, K)`, see `arm_statistics`.

        Returns:
            A posterior whose batch_shape is that of `self` broadcast with the tasks of `data`.

        Raises:
            IndexError: a row names an arm that does not exist.
            ValueError: `x` does not have one column of whole numbers, or `y` is not one number per row.
        """
        stats = self.statistics(data)
        loc, scale_tril = _update(self.loc.double(), self.scale_tril.double(), self.noise_var.double(), stats)
        noise_var = self.noise_var.expand(loc.shape[:-1])
        return self._replace(loc=loc.to(self.loc), scale_tril=scale_tril.to(self.loc), noise_var=noise_var)

    def predict(self, x: Shaped[Tensor, "*tasks q 1"]) -> Normal:
        """p(y | arm) at each row: a normal with batch_shape `(*batch, q)`."""
        mean, root = self._rows(x)
        return Normal(mean, (root.square().sum(-1) + self.noise_var[..., None]).sqrt())

    def marginal(self, x: Shaped[Tensor, "*tasks q 1"]) -> Normal:
        """p(mean reward of the arm) at each row."""
        mean, root = self._rows(x)
        return Normal(mean, root.square().sum(-1).sqrt())

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "ArmFunctions":
        """Draws of all mean rewards together, as functions of the arm."""
        return ArmFunctions(self.sample_params(num_draws, generator=generator), self.noise_var)

    def joint(self, x: Shaped[Tensor, "*tasks q 1"]) -> LazyMultivariateNormal:
        """The mean rewards at all rows together; degenerate where an arm is named twice."""
        mean, root = self._rows(x)
        return LazyMultivariateNormal(mean, RootLinearOperator(root))

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y | arms), mean rewards integrated out, for each task."""
        stats = self.statistics(data)
        cov = self.scale_tril.double() @ self.scale_tril.double().mT
        return _log_evidence(self.loc.double(), cov, self.noise_var.double(), stats).to(self.loc)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Mean rewards `(num_draws, *batch, k)`."""
        noise = randn((num_draws, *self.loc.shape, 1), like=self.loc, generator=generator)
        return self.loc + (self.scale_tril @ noise)[..., 0]

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of mean rewards `(..., *batch, k)`."""
        white = torch.linalg.solve_triangular(self.scale_tril, (params - self.loc)[..., None], upper=False)
        distance = white.square().sum((-2, -1))
        return -0.5 * (distance + log_det(self.scale_tril) + self.num_arms * math.log(2.0 * math.pi))

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"mean": params}

    def fit(self, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> "CorrelatedArms":
        """The most probable loc, cov and noise_var after `tasks`, which may each show some of the arms.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior: arms that no task shows stay as they are in `self`.
            hyperprior_weight: 0 for plain empirical Bayes, which needs many more tasks than arms; see
                `bayesmeta.regression.correlated_arms_fit`.

        Raises:
            ValueError: fewer than two tasks have rows.

        Warns:
            LimitWarning: the noise, or at weight 0 the variance between tasks, ended at a limit.
        """
        stats = self.statistics(tasks)
        require_enough_tasks(stats.count.sum(-1), self.batch_shape)
        found = most_probable_arms(self._numbers(), stats, hyperprior_weight)
        return CorrelatedArms(*found).to(self.loc)._replace(learned_from=LearnedFrom.counts(stats.count.sum(-1)))

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """In units where the mean rewards have mean zero and covariance I under `self`: loc, the logs of the diagonal
        of the covariance's Cholesky factor, the rest of each of its rows in units of the diagonal; and the log of
        noise_var over that of `self`."""
        stats = self.statistics(tasks)
        require_enough_tasks(stats.count.sum(-1), self.batch_shape)
        like, centre = self.loc, self._numbers()

        def build(loc: Tensor, scale_tril: Tensor, noise_var: Tensor) -> "CorrelatedArms":
            return CorrelatedArms(loc, scale_tril, noise_var).to(like)

        def evidence(loc: Tensor, scale_tril: Tensor, noise_var: Tensor) -> Tensor:
            cov = scale_tril @ scale_tril.mT
            return _log_evidence(loc[..., None, :], cov[..., None, :, :], noise_var[..., None], stats)

        return unknown_arms(centre, centre, build, evidence, float(stats.count.sum()))

    def online(self, batch_shape: Sequence[int]) -> "OnlineWeights":
        """The posterior of tasks, to be updated in place."""
        from bayesmeta.online.weights import OnlineWeights

        return OnlineWeights(self, batch_shape, _mean_and_root, by_number=True)

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        return per_arm(data, self.num_arms)

    def _numbers(self) -> Arms:
        prior = self.to(torch.float64)
        return Arms(prior.loc, prior.scale_tril, prior.noise_var)

    def _rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `(*batch, q)` and root `(*batch, q, k)` of the covariance of the mean rewards that x names."""
        arm = arm_index(x, self.num_arms)
        batch = torch.broadcast_shapes(self.batch_shape, arm.shape[:-1])
        arm, k = arm.expand(*batch, -1), self.num_arms
        root = self.scale_tril.expand(*batch, k, k).gather(-2, arm[..., None].expand(*arm.shape, k))
        return self.loc.expand(*batch, k).gather(-1, arm), root


def _mean_and_root(posterior: CorrelatedArms) -> tuple[Tensor, Tensor]:
    return posterior.loc, posterior.scale_tril


@dataclass(frozen=True, eq=False)
class ArmFunctions(Draws):
    """Draws of the mean rewards `(draws, *batch, k)` as functions of the arm; noise_var `(*batch,)`."""

    mean: Float[Tensor, "draws *batch k"]
    noise_var: Float[Tensor, "*batch"]

    def __call__(self, x: Shaped[Tensor, "*tasks q 1"]) -> Tensor:
        num_draws, *batch, k = self.mean.shape
        arm = arm_index(x, k)
        tasks = torch.broadcast_shapes(tuple(batch), arm.shape[:-1])
        mean = self.mean.reshape(num_draws, *(1,) * (len(tasks) - len(batch)), *batch, k)
        return mean.expand(num_draws, *tasks, k).gather(-1, arm.expand(num_draws, *tasks, -1))

    def predict(self, x: Shaped[Tensor, "*tasks q 1"]) -> Normal:
        mean = self(x)
        return Normal(mean, self.noise_var[..., None].sqrt().expand_as(mean))


def _between_variance(
    stats: Statistics, level: Float64[Tensor, " k"], noise_var: Tensor, guess: Tensor
) -> Float64[Tensor, " k"]:
    """What errors of one arm in one task share: the mean of their products, over pairs of rows of all tasks.

    That of all arms is averaged with K + 3 tasks in which it is `guess`. That of an arm is drawn to that of all by as
    much as chance moves it, compared with arms that differ by a factor of two or so.
    """
    about = stats.mean_from(level[:, None])[..., 0]
    squares = stats.scatter[..., 0, 0] + stats.count * about.square()
    products = ((stats.count * about).square() - squares).reshape(-1, len(level))
    pairs = (stats.count * (stats.count - 1.0)).reshape(-1, len(level))
    # tasks of different size are as many as the equal ones from which a mean is as precise
    num_tasks = pairs.sum().square() / pairs.sum(-1).square().sum().clamp(min=1.0)
    total, each_total = pairs.sum().clamp(min=1.0), pairs.sum(0).clamp(min=1.0)
    worth = len(level) + 3.0
    of_all = (num_tasks * products.sum() / total + worth * guess) / (num_tasks + worth)
    of_all = _mean_above_zero(of_all, noise_var * (2.0 / total).sqrt())
    own_tasks = pairs.sum(0).square() / pairs.square().sum(0).clamp(min=1.0)
    # relative to `of_all`, as squares of variances may leave what float64 can hold
    chance = 2.0 * ((noise_var / of_all).square() / each_total + 1.0 / own_tasks.clamp(min=1.0))
    share = (own_tasks > 0) / (1.0 + chance)
    each = share * products.sum(0) / each_total + (1.0 - share) * of_all
    return _mean_above_zero(each, of_all * (share * chance).sqrt().clamp(min=1e-6))


def _mean_above_zero(mean: Tensor, width: Tensor) -> Tensor:
    """Mean of the part above zero, where variances are, of a normal with this mean and standard deviation."""
    ratio = mean / width
    normal = torch.distributions.Normal(torch.zeros_like(ratio), torch.ones_like(ratio))
    above = (normal.log_prob(ratio) - torch.special.log_ndtr(ratio)).exp()
    # far below zero the mean of the tail is near width / -ratio
    return width * (ratio + above).where(ratio > -10.0, 1.0 / ratio.abs().clamp(min=10.0))


def _shared_covariance(stats: Statistics, level: Float64[Tensor, " k"]) -> Tensor:
    """What errors of different arms of a task share: the mean of their products, over pairs of rows of all tasks.

    It is averaged with K + 3 tasks whose arms share nothing, as many as the hyperprior of `fit` is worth, as few tasks
    say little of it. Tasks of different size are as many as the equal ones from which a mean is as precise.
    """
    error = stats.count * stats.mean_from(level[:, None])[..., 0]  # summed over rows
    products = error.sum(-1).square() - error.square().sum(-1)
    pairs = stats.count.sum(-1).square() - stats.count.square().sum(-1)
    num_tasks = pairs.sum().square() / pairs.square().sum().clamp(min=1.0)
    share = num_tasks / (num_tasks + len(level) + 3.0)
    return (share * products.sum() / pairs.sum().clamp(min=1.0)).clamp(min=0.0)


def _update(
    loc: Float64[Tensor, "*#batch k"],
    scale_tril: Float64[Tensor, "*#batch k k"],
    noise_var: Float64[Tensor, "*#batch"],
    stats: Statistics,
) -> tuple[Tensor, Tensor]:
    """Mean and factor after the rows: square roots throughout, as precisions may differ by any factor between arms.

    With D the roots of the rows' precisions, the factor of (cov^-1 + D D)^-1 is L B^-1, B'B = I + L' D D L, and B is
    lower triangular when it comes from a QL decomposition of (D L, I).
    """
    precision = stats.count / noise_var[..., None]
    rows = precision.sqrt()[..., None] * scale_tril
    stack = torch.cat([rows, torch.eye(loc.shape[-1]).to(loc).expand_as(rows)], -2)
    lower = torch.linalg.qr(stack.flip(-1), mode="r").R.flip(-2, -1)
    factor = torch.linalg.solve_triangular(lower, scale_tril.expand_as(lower), upper=False, left=False)
    factor = factor * factor.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    # shift in arms that were not seen is of no meaning, and has no weight
    pull = precision * stats.mean_from(loc[..., None])[..., 0]
    return loc + (factor @ (factor.mT @ pull[..., None]))[..., 0], factor.tril()


def _log_evidence(
    loc: Float64[Tensor, "*#batch k"], cov: Float64[Tensor, "*#batch k k"], noise_var: Tensor, stats: Statistics
) -> Tensor:
    """Scaled by the roots of their precisions, the means of arms have covariance I + D cov D."""
    root = stats.count.sqrt() / noise_var[..., None].sqrt()  # the root of their ratio has no gradient at zero
    total = root[..., :, None] * cov * root[..., None, :] + torch.eye(loc.shape[-1]).to(loc)
    factor = cholesky(total, "covariance of the means of arms")
    shift = root * stats.mean_from(loc[..., None])[..., 0]
    distance = (shift * solve(factor, shift)).sum(-1) + stats.scatter.sum((-3, -2, -1)) / noise_var
    return -0.5 * (stats.count.sum(-1) * (2.0 * math.pi * noise_var).log() + log_det(factor) + distance)
