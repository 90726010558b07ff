r"""Vectors of normal rows whose mean and covariance differ between tasks.

For each task, with rows y that are vectors of length d,

$$ y \sim N(\text{mean}, \text{cov}), \quad
\text{mean} \mid \text{cov} \sim N(\text{loc}, \text{cov} / \text{pseudo\_count}), \quad
\text{cov} \sim \text{InverseWishart}(\text{df}, \text{scatter}). $$

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 3.6; Murphy, Conjugate Bayesian analysis of the
Gaussian distribution (2007), section 9.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from pyro.distributions import MultivariateStudentT
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal

from bayesmeta.data.over_tasks import over_tasks
from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import (
    require_columns,
    require_enough_tasks,
    require_finite,
    require_positive,
    require_positive_definite,
    require_spread,
    require_vectors,
)
from bayesmeta.distributions.constant import Constant, repeat_rows, row_shape
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.mode import fit_by_mode
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.numerics.linalg import add_outer, cholesky, log_det, log_det_of, pack_tril, symmetric, unpack_tril
from bayesmeta.numerics.special import of_counts
from bayesmeta.random import randn, wishart_tril

__all__ = ["MultivariateNormalFunctions", "NormalInverseWishart"]

LARGEST_COUNT = 1e6  # where tasks share their mean or covariance, larger counts are always better: they stop here
SAME_MEAN = "tasks do not differ in their mean by more than chance, and are taken to share it"
SAME_COV = "tasks do not differ in their covariance by more than chance, and are taken to share it"


@dataclass(frozen=True, eq=False)
class NormalInverseWishart(TensorFields):
    """Normal-Inverse-Wishart over the mean and covariance of a task's rows.

    Args:
        loc: expected mean, in units of y.
        pseudo_count: how many rows the belief in `loc` is worth, above zero.
        df: how many rows the belief in the covariance is worth, above d - 1; its mean is finite above d + 1.
        scatter: sum of squares and products of those rows, symmetric positive definite, in squared units of y.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    loc: Float[Tensor, "*#batch d"]
    pseudo_count: Float[Tensor, "*#batch"]
    df: Float[Tensor, "*#batch"]
    scatter: Float[Tensor, "*#batch d d"]
    learned_from: LearnedFrom | None = None

    _matrices: ClassVar[tuple[str, ...]] = ("scatter",)

    def __post_init__(self) -> None:
        d = self.loc.shape[-1]
        require_finite("loc", self.loc)
        require_positive_definite("scatter", self.scatter, d)
        counts = (torch.as_tensor(self.pseudo_count).shape, torch.as_tensor(self.df).shape)
        batch = torch.broadcast_shapes(self.loc.shape[:-1], self.scatter.shape[:-2], *counts)
        self._spread(batch, self.loc, "pseudo_count", "df")
        self._spread((*batch, d), self.loc, "loc")
        self._spread((*batch, d, d), self.loc, "scatter")
        require_positive("pseudo_count", self.pseudo_count)
        require_positive(f"df - {d - 1}, its excess over d - 1,", self.df - (d - 1))

    @classmethod
    def initial(cls, tasks: Data | Statistics) -> "NormalInverseWishart":
        """A weak prior on the scale of `tasks`: half of the variance within tasks, half between them."""
        require_vectors(tasks)
        stats = Statistics.of(tasks).pooled()
        var = stats.scatter.diagonal() / stats.count.clamp(min=1.0)
        var = var.where(var > 0, 1.0)  # rows that do not vary say nothing of their scale
        one = torch.ones_like(stats.count)
        prior = cls(stats.mean, one, one * (len(var) + 2), torch.diag_embed(0.5 * var))
        return prior.to(tasks.dtype)

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.loc.shape[-1:]

    def condition(self, data: Data | Statistics) -> "NormalInverseWishart":
        r"""Posterior of mean and covariance after the rows of `data`.

        Adds the number of rows $n$ to `pseudo_count` and `df`, moves `loc` to the weighted mean, and adds
        $S + \frac{\kappa n}{\kappa + n} (\bar y - m)(\bar y - m)^\top$ to `scatter`, $S$ being the scatter of the rows.

        Args:
            data: `y` of shape `(*batch, n, d)` in the units of `loc`; tasks may be ragged or empty.

        Returns:
            A posterior whose batch_shape is that of `self` broadcast with the tasks of `data`.

        Raises:
            ValueError: `data.y` does not have `d` columns, or `data.x` has any.
        """
        fields = over_tasks(_update, self._natural(), self.statistics(data), self.batch_shape)
        loc, pseudo_count, df, scatter = (field.to(self.loc) for field in fields)
        return self._replace(loc=loc, pseudo_count=pseudo_count, df=df, scatter=scatter)

    def predict(self, x: Tensor | None = None) -> MultivariateStudentT:
        """p(y) at each row: a multivariate Student t with batch_shape `(*batch, q)`."""
        rows = row_shape(x, self.batch_shape)
        df, loc, scale_tril = self._student(1.0 + 1.0 / self.pseudo_count)
        return MultivariateStudentT(df[..., None], loc[..., None, :], scale_tril[..., None, :, :]).expand(rows)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "MultivariateNormalFunctions":
        """Draws of the mean, the same at every row."""
        mean, scale_tril = self._draw(num_draws, generator)
        return MultivariateNormalFunctions(mean, scale_tril)

    def joint(self, x: Tensor | None = None) -> Constant:
        """The mean at all rows together."""
        return Constant(MultivariateStudentT(*self._student(1.0 / self.pseudo_count)), row_shape(x, self.batch_shape))

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y), mean and covariance integrated out, for each task."""
        prior, stats = self._natural(), self.statistics(data)
        (volume,) = over_tasks(_posterior_volume, prior, stats, self.batch_shape)
        return _log_evidence(prior, stats, volume).to(self.loc)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Mean and packed Cholesky factor of the covariance (`pack_tril`), `(num_draws, *batch, d + d(d + 1)/2)`."""
        mean, scale_tril = self._draw(num_draws, generator)
        return torch.cat([mean, pack_tril(scale_tril)], -1)

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of mean and packed factor `(..., *batch, d + d(d + 1)/2)`, Jacobian included."""
        d = self.loc.shape[-1]
        mean, packed = params[..., :d], params[..., d:]
        log_diagonal, factor = packed[..., :d], unpack_tril(packed, d)
        root = cholesky(self.scatter, "scatter")
        half_log_det = log_diagonal.sum(-1)
        distance = (
            torch.linalg.solve_triangular(factor, (mean - self.loc)[..., None], upper=False).square().sum((-2, -1))
        )
        of_mean = 0.5 * (d * (self.pseudo_count / (2.0 * math.pi)).log() - self.pseudo_count * distance) - half_log_det
        trace = torch.linalg.solve_triangular(factor, root.expand_as(factor), upper=False).square().sum((-2, -1))
        of_cov = (
            0.5 * (self.df * (log_det(root) - d * math.log(2.0)) - trace)
            - torch.mvlgamma(0.5 * self.df, d)
            - (self.df + d + 1) * half_log_det
        )
        # |d cov / d factor| = 2^d prod_i L_ii^(d - i), with i from zero, and L_ii once more for its logarithm
        powers = torch.arange(d + 1, 1, -1, dtype=self.loc.dtype, device=self.loc.device)
        return of_mean + of_cov + d * math.log(2.0) + (powers * log_diagonal).sum(-1)

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        d = self.loc.shape[-1]
        factor = unpack_tril(params[..., d:], d)
        return {"mean": params[..., :d], "cov": factor @ factor.mT}

    def fit(self, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> "NormalInverseWishart":
        """The most probable prior after `tasks`, all hyperparameters together, whatever the units of y.

        Where tasks share their mean (or covariance), `pseudo_count` (or `df`) grows, at most to 1e6.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes; see `bayesmeta.hyperparameters.vector`.

        Raises:
            ValueError: fewer than two tasks have rows, or rows do not differ within tasks in every direction.
        """
        return fit_by_mode(self, tasks, hyperprior_weight=hyperprior_weight)

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """In units where all rows have mean zero and covariance I: loc, logs of `pseudo_count` and of the excess of
        `df` over d - 1, and the packed Cholesky factor of the typical covariance, `scatter / df`."""
        stats = self.statistics(tasks)
        require_enough_tasks(stats.count, self.batch_shape)
        require_spread(stats)
        d = self.loc.shape[-1]
        pooled = stats.pooled()
        centre, unit = pooled.mean, cholesky(pooled.scatter / pooled.count, "covariance of all rows")
        standard = stats.standardised(centre, unit)

        # the typical covariance says how far the data are known; the scatter alone moves with it and with df
        def natural(vector: Tensor) -> Natural:
            pseudo_count, excess = vector[..., d : d + 2].exp().unbind(-1)
            root = unpack_tril(vector[..., d + 2 :], d)
            df = d - 1 + excess
            return vector[..., :d], pseudo_count, df, df[..., None, None] * (root @ root.mT)

        def build(vector: Tensor) -> "NormalInverseWishart":
            loc, pseudo_count, df, scatter = natural(vector)
            loc = centre + (unit @ loc[..., None])[..., 0]
            return NormalInverseWishart(loc, pseudo_count, df, symmetric(unit @ scatter @ unit.mT)).to(self.loc)

        loc, pseudo_count, df, scatter = self._natural()
        root = torch.linalg.solve_triangular(unit, cholesky(scatter / df, "scatter"), upper=False)
        standard_loc = torch.linalg.solve_triangular(unit, (loc - centre)[:, None], upper=False)[:, 0]
        largest = math.log(LARGEST_COUNT)
        packed = pack_tril(root).tolist()
        entries = [
            *(Hyperparameter(f"loc[{i}]", value, 2.0) for i, value in enumerate(standard_loc.tolist())),
            Hyperparameter("log_pseudo_count", pseudo_count.log().item(), 2.0, largest, SAME_MEAN),
            Hyperparameter("log_excess_df", (df - (d - 1)).log().item(), 2.0, largest, SAME_COV),
            *(Hyperparameter(f"log_scale[{i}]", value, 2.0) for i, value in enumerate(packed[:d])),
            *(Hyperparameter(f"below_diagonal[{i}]", value, 2.0) for i, value in enumerate(packed[d:])),
        ]

        of_units = 0.5 * stats.count * log_det(unit)

        def evidence(vector: Tensor) -> Tensor:
            prior = natural(vector[..., None, :])
            (volume,) = _posterior_volume(prior, standard)
            return _log_evidence(prior, standard, volume) - of_units

        return Hyperparameters(entries, evidence, build, pooled.count.item())

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        require_columns(data, num_inputs=0, event_shape=self.event_shape)
        return Statistics.of(data)

    def _natural(self) -> "Natural":
        return self.loc.double(), self.pseudo_count.double(), self.df.double(), self.scatter.double()

    def _student(self, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """df, loc and factor of the marginal of a normal with mean `loc` and `spread` times the covariance."""
        df = self.df - (self.loc.shape[-1] - 1)
        return df, self.loc, cholesky(self.scatter, "scatter") * (spread / df).sqrt()[..., None, None]

    def _draw(self, num_draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Means `(num_draws, *batch, d)` and Cholesky factors of covariances `(num_draws, *batch, d, d)`."""
        d = self.loc.shape[-1]
        # With scatter = C C' and a standard Wishart draw U U', cov = (C U^-T)(C U^-T)'. Turning rows and columns of
        # Bartlett's lower factor around leaves a Wishart draw and makes U upper, so that C U^-T is the factor of cov.
        upper = wishart_tril((num_draws,), self.df, d, generator=generator).flip(-2, -1)
        root = cholesky(self.scatter, "scatter").expand_as(upper)
        scale_tril = torch.linalg.solve_triangular(upper.mT, root, upper=False, left=False)
        noise = randn((*upper.shape[:-1], 1), like=self.loc, generator=generator)
        mean = self.loc + (scale_tril @ noise)[..., 0] / self.pseudo_count[..., None].sqrt()
        return mean, scale_tril


@dataclass(frozen=True, eq=False)
class MultivariateNormalFunctions(Draws):
    """Draws of one mean `(draws, *batch, d)` and factor of the covariance `(draws, *batch, d, d)` per task."""

    mean: Float[Tensor, "draws *batch d"]
    scale_tril: Float[Tensor, "draws *batch d d"]

    def __call__(self, x: Tensor | None = None) -> Tensor:
        return repeat_rows(self.mean, x, event_dim=1)

    def predict(self, x: Tensor | None = None) -> MultivariateNormal:
        return MultivariateNormal(self(x), scale_tril=repeat_rows(self.scale_tril, x, event_dim=2))


Natural = tuple[Tensor, Tensor, Tensor, Tensor]


def _update(prior: Natural, stats: Statistics) -> Natural:
    loc, pseudo_count, df, _ = prior
    shift, total = stats.mean_from(loc), pseudo_count + stats.count
    moved = loc + (stats.count / total)[..., None] * shift
    return moved, total, df + stats.count, _posterior_scatter(prior, stats, shift, total)


def _posterior_scatter(prior: Natural, stats: Statistics, shift: Tensor, total: Tensor) -> Tensor:
    """The scatter of the posterior, `(*batch, d, d)`.

    Args:
        shift: mean of the rows minus loc, `(*batch, d)`.
        total: pseudo-count plus the number of rows, `(*batch,)`.
    """
    # a root on both sides makes the product symmetric to the last digit
    root = shift * (stats.count.sqrt() * (prior[1] / total).sqrt())[..., None]
    return add_outer(prior[3] + stats.scatter, root)


def _posterior_volume(prior: Natural, stats: Statistics) -> tuple[Tensor]:
    """log|scatter| of the posterior."""
    loc, pseudo_count, *_ = prior
    scatter = _posterior_scatter(prior, stats, stats.mean_from(loc), pseudo_count + stats.count)
    return (log_det_of(scatter, "scatter"),)


def _log_evidence(prior: Natural, stats: Statistics, volume: Tensor) -> Tensor:
    """Log evidence, given log|scatter| of the posterior."""
    _, pseudo_count, df, scatter = prior
    d = scatter.shape[-1]

    def of_rows(count: Tensor) -> Tensor:
        """All that depends on the number of rows alone."""
        gammas = torch.mvlgamma(0.5 * (df + count), d) - torch.mvlgamma(0.5 * df, d)
        return gammas + 0.5 * d * ((pseudo_count / (pseudo_count + count)).log() - count * math.log(math.pi))

    by_task = of_counts(of_rows, stats.count) if df.shape[-1:] in ((), (1,)) else of_rows(stats.count)
    return by_task + 0.5 * (df * log_det_of(scatter, "scatter") - (df + stats.count) * volume)
