r"""Linear regression with several outputs, whose weights and noise both differ between tasks.

For each task, with rows (x, y), y being a vector of length m,

$$ y = W^\top x + e, \quad e \sim N(0, \text{cov}), \quad
W \mid \text{cov} \sim \text{MatrixNormal}(\text{loc}, \text{precision}^{-1}, \text{cov}), \quad
\text{cov} \sim \text{InverseWishart}(\text{df}, \text{scatter}), $$

where weights of inputs i and j for outputs a and b have covariance $(\text{precision}^{-1})_{ij}\, \text{cov}_{ab}$.
There is no hidden intercept: put a column of ones into x. Singular designs, and fewer rows than columns, are fine.

Source: Geisser, Bayesian estimation in multivariate analysis (1965); Murphy, Machine Learning: A Probabilistic
Perspective (2012), section 4.6; Rossi, Allenby and McCulloch, Bayesian Statistics and Marketing (2005), section 2.8.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from pyro.distributions import MultivariateStudentT
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import (
    require_columns,
    require_enough_tasks,
    require_finite,
    require_positive,
    require_positive_definite,
    require_vectors,
)
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.mode import fit_by_mode
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.numerics.linalg import (
    cholesky,
    factor_of_sum,
    log_det,
    log_det_of_one_plus,
    pack_tril,
    positive,
    rounded,
    symmetric,
    unpack_tril,
)
from bayesmeta.numerics.special import lgamma_ratio
from bayesmeta.random import randn, wishart_tril
from bayesmeta.regression.linear_evidence import seen
from bayesmeta.regression.weight_space import LARGEST_LOG, WeightSpace, frame_of_all, weak_precision

__all__ = ["MatrixNormalInverseWishart", "NoisyLinearMaps"]

LARGEST_COUNT = 1e6
SAME_NOISE = "tasks do not differ in their noise by more than chance, and are taken to share it"
SAME_WEIGHT = "tasks share the weights of this input but for chance, or they grow without end"
NO_NOISE = "the weights and the other outputs explain every row of this output, or nothing explains any"


@dataclass(frozen=True, eq=False)
class MatrixNormalInverseWishart(TensorFields):
    """Matrix normal, inverse Wishart over the weights and the noise covariance of a regression with several outputs.

    Args:
        loc: mean of the weights, in units of y per unit of x.
        precision: inverse covariance of the weights of one output relative to its noise, symmetric positive definite.
        df: how many rows the belief in the noise is worth, above m - 1; its mean is finite above m + 1.
        scatter: sum of squares and products of those rows, symmetric positive definite, in squared units of y.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    loc: Float[Tensor, "*#batch d m"]
    precision: Float[Tensor, "*#batch d d"]
    df: Float[Tensor, "*#batch"]
    scatter: Float[Tensor, "*#batch m m"]
    learned_from: LearnedFrom | None = None

    _matrices: ClassVar[tuple[str, ...]] = ("precision", "scatter")

    def __post_init__(self) -> None:
        d, m = self.loc.shape[-2:]
        require_finite("loc", self.loc)
        require_positive_definite("precision", self.precision, d)
        require_positive_definite("scatter", self.scatter, m)
        df = torch.as_tensor(self.df)
        batch = torch.broadcast_shapes(
            self.loc.shape[:-2], self.precision.shape[:-2], df.shape, self.scatter.shape[:-2]
        )
        self._spread(batch, self.loc, "df")
        self._spread((*batch, d, m), self.loc, "loc")
        self._spread((*batch, d, d), self.loc, "precision")
        self._spread((*batch, m, m), self.loc, "scatter")
        require_positive(f"df - {m - 1}, its excess over m - 1,", self.df - (m - 1))

    @classmethod
    def initial(cls, tasks: Data | Statistics) -> "MatrixNormalInverseWishart":
        """A weak prior on the scale of `tasks`: noise of half of all variance, weights that could explain it all.

        Where the columns of x span a constant, it is about the mean of y, wherever x and y lie.
        """
        require_vectors(tasks)
        frame, rows, dtype = frame_of_all(tasks, None)
        d, m = len(frame.scale), len(frame.y_scale)
        df = torch.full_like(rows.count, m + 3.0)
        scatter = 0.5 * df * torch.diag_embed(frame.y_scale.square())
        loc = frame.leave(torch.zeros(d, m).to(df))
        precision = rounded(positive(0.5 * weak_precision(frame)), dtype)
        return cls(loc.to(dtype), precision, df.to(dtype), scatter.to(dtype))

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape[:-2]

    @property
    def num_inputs(self) -> int:
        """Columns of x."""
        return self.loc.shape[-2]

    @property
    def event_shape(self) -> torch.Size:
        return self.loc.shape[-1:]

    def condition(self, data: Data | Statistics) -> "MatrixNormalInverseWishart":
        """Posterior of weights and noise after the rows of `data`; batch_shape broadcasts with its tasks.

        Raises:
            ValueError: x does not have d columns, or y does not have m.
        """
        stats = self.statistics(data)
        loc, precision, df, scatter = self._natural()
        mean, squares, _ = _explain(loc, _inverse_root(precision), stats)
        batch = mean.shape[:-2]
        precision = symmetric(precision + stats.raw_second[..., : loc.shape[-2], : loc.shape[-2]])
        return self._replace(
            loc=mean.to(self.loc),
            precision=rounded(precision, self.loc.dtype).expand(*batch, -1, -1),
            df=(df + stats.count).to(self.loc),
            scatter=rounded(positive(symmetric(scatter + squares)), self.loc.dtype),
        )

    def predict(self, x: Float[Tensor, "*batch q d"]) -> MultivariateStudentT:
        """p(y | x) at each row: a multivariate Student t with batch_shape `(*batch, q)`."""
        loc, precision, df, scatter = self._natural()
        factor = cholesky(precision, "precision")
        spread = 1.0 + torch.linalg.solve_triangular(factor, x.double().mT, upper=False).square().sum(-2)
        df = df[..., None] - (loc.shape[-1] - 1)
        scale_tril = cholesky(scatter, "scatter")[..., None, :, :] * (spread / df).sqrt()[..., None, None]
        mean = x.double() @ loc
        return MultivariateStudentT(df.to(self.loc), mean.to(self.loc), scale_tril.to(self.loc)).expand(mean.shape[:-1])

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "NoisyLinearMaps":
        """Draws of x -> W'x, each with its noise covariance."""
        return NoisyLinearMaps(*self._draw(num_draws, generator))

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y | x), weights and noise integrated out, for each task."""
        stats = self.statistics(data)
        loc, precision, df, scatter = self._natural()
        root = cholesky(scatter, "scatter")
        return _log_evidence(loc, _inverse_root(precision), df, root, stats).to(self.loc)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Weights, row after row, and packed Cholesky factor of the noise covariance (`pack_tril`),
        `(num_draws, *batch, d m + m(m + 1)/2)`."""
        weights, scale_tril = self._draw(num_draws, generator)
        return torch.cat([weights.flatten(-2), pack_tril(scale_tril)], -1)

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of weights and packed factor `(..., *batch, d m + m(m + 1)/2)`, Jacobian included."""
        d, m = self.loc.shape[-2:]
        weights, packed = params[..., : d * m].unflatten(-1, (d, m)), params[..., d * m :]
        log_diagonal, factor = packed[..., :m], unpack_tril(packed, m)
        half_log_det = log_diagonal.sum(-1)
        row_factor, root = cholesky(self.precision, "precision"), cholesky(self.scatter, "scatter")
        white = torch.linalg.solve_triangular(factor, (row_factor.mT @ (weights - self.loc)).mT, upper=False)
        of_weights = 0.5 * (m * log_det(row_factor) - d * m * math.log(2.0 * math.pi) - white.square().sum((-2, -1)))
        trace = torch.linalg.solve_triangular(factor, root.expand_as(factor), upper=False).square().sum((-2, -1))
        of_cov = (
            0.5 * (self.df * (log_det(root) - m * math.log(2.0)) - trace)
            - torch.mvlgamma(0.5 * self.df, m)
            - (self.df + m + 1) * half_log_det
        )
        # |d cov / d factor| = 2^m prod_i L_ii^(m - i), with i from zero, and L_ii once more for its logarithm
        powers = torch.arange(m + 1, 1, -1, dtype=self.loc.dtype, device=self.loc.device)
        return of_weights - d * half_log_det + of_cov + m * math.log(2.0) + (powers * log_diagonal).sum(-1)

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        d, m = self.loc.shape[-2:]
        factor = unpack_tril(params[..., d * m :], m)
        return {"weights": params[..., : d * m].unflatten(-1, (d, m)), "noise_cov": factor @ factor.mT}

    def fit(self, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> "MatrixNormalInverseWishart":
        """The most probable prior after `tasks`, all hyperparameters together, whatever the units of x and y.

        Where tasks share their noise, `df` grows, at most to 1e6; where they share their weights, `precision` does.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes; see `bayesmeta.hyperparameters.vector`.

        Raises:
            ValueError: fewer than two tasks have rows, or x does not have d columns, or y does not have m.

        Warns:
            LimitWarning: a hyperparameter ended at the limit of its search.
        """
        return fit_by_mode(self, tasks, hyperprior_weight=hyperprior_weight)

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """Loc; log standard deviations, and what correlates weights, of one output; the log of the excess of `df` over
        m - 1; and the packed Cholesky factor of the noise's mode, relative to that of `self`.

        Weights are those of centred and scaled columns (`bayesmeta.regression.frame`), in units where, at the typical
        noise `scatter / df` of `self`, that noise is I and they have mean zero and covariance I. So `loc[i,j]` of the
        constant is the level of output j at the mean of the other columns.
        """
        outside = self.statistics(tasks)
        require_enough_tasks(outside.count, self.batch_shape)
        (d, m), (_, precision, start_df, scatter) = self.loc.shape[-2:], self._natural()
        space = WeightSpace.of(outside, self.loc, precision, relative=True)
        stats, y_scale = space.frame.rows(outside), space.frame.y_scale
        unit_y = cholesky(scatter / start_df / (y_scale[:, None] * y_scale), "scatter")
        jacobian = stats.count * y_scale.log().sum()
        sizes = [d * m, d * (d + 1) // 2, 1, m * (m + 1) // 2]

        def natural(vector: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            """Loc, factor of the weights' covariance, df, factor of the scatter."""
            loc, rows, excess, noise = vector.split(sizes, -1)
            loc = space.loc + space.unit @ loc.unflatten(-1, (d, m)) @ unit_y.mT
            df = m - 1 + excess[..., 0].exp()
            # the mode, as in `LinearNormalInverseGamma`: scatter / (df + m + 1)
            size = (start_df * (df + m + 1) / (start_df + m + 1)).sqrt()[..., None, None]
            return loc, space.root(rows), df, size * unit_y @ unpack_tril(noise, m)

        def evidence(vector: Tensor) -> Tensor:
            return _log_evidence(*natural(vector[..., None, :]), stats) - jacobian

        def build(vector: Tensor) -> "MatrixNormalInverseWishart":
            loc, root, df, scatter_root = natural(vector)
            scatter = symmetric((y_scale[:, None] * scatter_root) @ (y_scale[:, None] * scatter_root).mT)
            precision, numbers = rounded(space.precision(root), self.loc.dtype), (space.frame.leave(loc), df)
            loc, df = (value.to(self.loc) for value in numbers)
            return MatrixNormalInverseWishart(loc, precision, df, rounded(positive(scatter), self.loc.dtype))

        log_excess, largest = (start_df - (m - 1)).log().item(), math.log(LARGEST_COUNT)
        # a log standard deviation has half the spread of a log variance
        entries = [
            *(Hyperparameter(f"loc[{i},{j}]", 0.0, 2.0) for i in range(d) for j in range(m)),
            *space.scale_entries(SAME_WEIGHT),
            Hyperparameter("log_excess_df", log_excess, 2.0, largest, SAME_NOISE),
            *(Hyperparameter(f"log_noise_scale[{i}]", 0.0, 1.0, LARGEST_LOG, NO_NOISE) for i in range(m)),
            *(Hyperparameter(f"noise_below_diagonal[{i}]", 0.0, 1.0, 30.0, NO_NOISE) for i in range(m * (m - 1) // 2)),
        ]
        return Hyperparameters(entries, evidence, build, float(stats.count.sum()))

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        require_columns(data, num_inputs=self.loc.shape[-2], event_shape=self.event_shape)
        return Statistics.of(data)

    def _natural(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = self.loc.dtype
        precision, scatter = positive(self.precision.double(), dtype), positive(self.scatter.double(), dtype)
        return self.loc.double(), precision, self.df.double(), scatter

    def _draw(self, num_draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Weights `(num_draws, *batch, d, m)` and Cholesky factors of the noise `(num_draws, *batch, m, m)`."""
        loc, precision, df, scatter = self._natural()
        m = loc.shape[-1]
        # the factor of an inverse Wishart draw, as NormalInverseWishart draws it
        upper = wishart_tril((num_draws,), df, m, dtype=self.loc.dtype, generator=generator).flip(-2, -1)
        root = cholesky(scatter, "scatter").expand_as(upper)
        scale_tril = torch.linalg.solve_triangular(upper.mT, root, upper=False, left=False)
        noise = randn((num_draws, *loc.shape), like=loc, generator=generator)
        step = torch.linalg.solve_triangular(cholesky(precision, "precision").mT, noise, upper=True)
        return (loc + step @ scale_tril.mT).to(self.loc), scale_tril.to(self.loc)


@dataclass(frozen=True, eq=False)
class NoisyLinearMaps(Draws):
    """Draws of x -> W'x: weights `(draws, *batch, d, m)`, and the factor of their noise `(draws, *batch, m, m)`."""

    weights: Float[Tensor, "draws *batch d m"]
    scale_tril: Float[Tensor, "draws *batch m m"]

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weights

    def predict(self, x: Tensor) -> MultivariateNormal:
        mean = self(x)
        m = mean.shape[-1]
        return MultivariateNormal(mean, scale_tril=self.scale_tril[..., None, :, :].expand(*mean.shape[:-1], m, m))


def _inverse_root(precision: Tensor) -> Tensor:
    """R with R R' = precision^-1."""
    eye = torch.eye(precision.shape[-1], dtype=precision.dtype, device=precision.device)
    return torch.linalg.solve_triangular(cholesky(precision, "precision").mT, eye.expand_as(precision), upper=True)


def _explain(loc: Tensor, root: Tensor, stats: Statistics) -> tuple[Tensor, Tensor, Tensor]:
    """The posterior mean of the weights, what the rows add to the scatter, and log|precision| less the posterior's.

    From centred moments, as raw ones would cancel where rows sit far from zero; in units where the prior covariance
    root root' of the weights is I, so that a search may go to any scale.
    """
    d, m = loc.shape[-2:]
    scatter, mean, count = stats.scatter, stats.mean, stats.count[..., None, None]
    x_mean = mean[..., :d, None]

    def residual(weights: Tensor) -> Tensor:
        return mean[..., None, d:] - x_mean.mT @ weights  # of the mean row

    gradient = scatter[..., :d, d:] - scatter[..., :d, :d] @ loc + count * x_mean @ residual(loc)
    total = scatter[..., :d, :d] + count * x_mean @ x_mean.mT
    white = root.mT @ total @ root
    eye = torch.eye(d, dtype=white.dtype, device=white.device)
    sizes = d * (total.diagonal(dim1=-2, dim2=-1)[..., None, :] @ root.square())[..., 0, :]
    _, factor = factor_of_sum(symmetric(white) + eye, "precision", sizes)
    step = torch.cholesky_solve(root.mT @ gradient, factor)
    weights = loc + root @ step
    outputs = torch.eye(m, dtype=white.dtype, device=white.device).expand(*weights.shape[:-2], m, m)
    contrast = torch.cat([-seen(weights, scatter), outputs], -2)
    rest = residual(weights)
    squares = contrast.mT @ scatter @ contrast + count * rest.mT @ rest + step.mT @ step
    return weights, symmetric(squares), -log_det(factor)


def _log_evidence(loc: Tensor, root: Tensor, df: Tensor, scatter_root: Tensor, stats: Statistics) -> Tensor:
    """Log evidence of each task, from factors of the weights' relative covariance and of the scatter."""
    m, half = loc.shape[-1], 0.5 * stats.count
    _, squares, volume = _explain(loc, root, stats)
    half_way = torch.linalg.solve_triangular(scatter_root, squares, upper=False)
    relative = torch.linalg.solve_triangular(scatter_root, half_way.mT, upper=False)
    before, grown = 2.0 * scatter_root.diagonal(dim1=-2, dim2=-1).log().sum(-1), log_det_of_one_plus(relative)
    steps = torch.arange(m, dtype=df.dtype, device=df.device)
    ratio = lgamma_ratio(0.5 * (df[..., None] - steps), half[..., None]).sum(-1)
    return ratio + 0.5 * (m * volume - df * grown) - half * (before + grown + m * math.log(math.pi))
