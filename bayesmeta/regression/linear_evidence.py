r"""Posterior, likelihood and restricted likelihood (REML) of linear regressions, by pure functions of sums over rows.

All sums are taken about the mean of the rows: where rows sit far from zero, raw moments cancel.

Source: Bishop, Pattern Recognition and Machine Learning (2006), section 3.5; Patterson and Thompson, Recovery of
inter-block information when block sizes are unequal (1971), for the restricted evidence.
"""

import math

import torch
from torch import Tensor

from bayesmeta.data.statistics import Statistics
from bayesmeta.data.weighted_rows import WeightedRows
from bayesmeta.numerics.linalg import cholesky, factor_of_sum, log_det, rounded, solve, symmetric

__all__ = [
    "Natural",
    "Restricted",
    "log_evidence",
    "normal_equations",
    "seen",
    "sum_of_squares",
    "update",
    "whitened",
    "whitened_log_evidence",
]

LARGE = 1e4  # of the spread of y: squares of what weights make of the rows, before digits are lost in them
UNSEEN = 1e-14  # an eigenvalue of the correlation of columns that is zero but for rounding

Natural = tuple[Tensor, Tensor, Tensor]  # loc, precision, noise_var


def normal_equations(loc: Tensor, stats: Statistics) -> tuple[Tensor, Tensor]:
    """x'x `(*batch, d, d)` and x'(y - x loc) `(*batch, d)`."""
    d, scatter, mean = loc.shape[-1], stats.scatter, stats.mean
    x_mean, count = mean[..., :d], stats.count[..., None]
    level = count * (mean[..., d:] - (x_mean * loc).sum(-1, keepdim=True))
    xx = torch.addcmul(scatter[..., :d, :d], (count * x_mean)[..., :, None], x_mean[..., None, :])
    slope = scatter[..., :d, d] - (scatter[..., :d, :d] @ loc[..., None])[..., 0]
    return xx, torch.addcmul(slope, level, x_mean)


def sum_of_squares(stats: Statistics, weights: Tensor) -> Tensor:
    """Sum of (y - x'w)^2, `(*batch,)`."""
    d, scatter, mean = weights.shape[-1], stats.scatter, stats.mean
    weights = weights.double()
    level = mean[..., d] - (mean[..., :d] * weights).sum(-1)
    contrast = torch.cat([-seen(weights[..., None], scatter)[..., 0], torch.ones_like(weights[..., :1])], -1)
    centred = ((scatter @ contrast[..., None])[..., 0] * contrast).sum(-1)
    # rounding may leave less than none where rows lie on a plane
    return centred.clamp(min=0.0) + stats.count * level.square()


def seen(weights: Tensor, scatter: Tensor) -> Tensor:
    """Weights `(*batch, d, m)` less what no centred row shows, where they are so large that it would drown the rest.

    Columns that make a constant together carry the level of y: 1e8 on each of three categories moves no centred row,
    and yet its square times the rounding of the scatter `(*batch, d + m, d + m)` is of order one.
    """
    d, diagonal = weights.shape[-2], scatter.diagonal(dim1=-2, dim2=-1)
    largest = (weights.square() * diagonal[..., :d, None]).amax(-2)
    if not bool((largest > LARGE * diagonal[..., d:]).any()):
        return weights
    total = scatter[..., :d, :d].reshape(-1, d, d).sum(0)
    scale = total.diagonal().sqrt()
    scale = scale.where(scale > 0, 1.0)
    values, vectors = torch.linalg.eigh(total / (scale[:, None] * scale))
    null = vectors[:, values <= UNSEEN * d]
    scaled = scale[:, None] * weights
    return (scaled - null @ (null.mT @ scaled)) / scale[:, None]


def update(prior: Natural, stats: Statistics) -> tuple[Tensor, Tensor]:
    """Posterior mean and precision of the weights, in the dtype of `loc`."""
    mean, total, _ = _posterior(prior, WeightedRows.of(stats, prior[0].shape[-1]).stats)
    return mean.to(prior[0]), rounded(total, prior[0].dtype)


def _posterior(prior: Natural, stats: Statistics) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and precision of the weights, and the precision's factor."""
    loc, precision, noise_var = (value.double() for value in prior)
    xx, slope = normal_equations(loc, stats)
    total, factor = factor_of_sum(symmetric(precision + xx / noise_var[..., None, None]), "precision")
    # the step from loc, not the mean itself, so that no rows change nothing and large locs lose no digits
    return loc + solve(factor, slope / noise_var[..., None]), total, factor


def log_evidence(prior: Natural, stats: Statistics) -> tuple[Tensor]:
    """Log evidence by way of the posterior; Bishop (2006), equation 3.86, for any prior mean.

    A tuple of one, as `over_tasks` asks for.
    """
    loc, start, noise_var = (value.double() for value in prior)
    rows = WeightedRows.of(stats, loc.shape[-1])
    mean, _, factor = _posterior(prior, rows.stats)
    shift = mean - loc
    penalty = (shift * (start @ shift[..., None])[..., 0]).sum(-1)
    volume = log_det(factor) - log_det(cholesky(start, "precision"))
    fit = sum_of_squares(rows.stats, mean) / noise_var
    constant = rows.count * (2.0 * math.pi * noise_var).log() - rows.log_weights
    return (-0.5 * (constant + volume + fit + penalty),)


def whitened(loc: Tensor, root: Tensor, stats: Statistics, noise_var: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Least sum of squares of rows and weights, in units of noise_var, and log|I + R'x'xR / noise_var|.

    Args:
        loc: prior mean of the weights `(*batch, d)`.
        root: R `(*batch, d, d)`, R R' being their covariance; zero rows stand for weights that are known.
        noise_var: `(*batch,)`, one where it is None.
    """
    if _alone(stats):
        return _whitened_alone(loc, root, stats, noise_var)
    xx, slope = normal_equations(loc, stats)
    if noise_var is not None:
        xx, slope = xx / noise_var[..., None, None], slope / noise_var[..., None]
    total = symmetric(root.mT @ xx @ root)
    eye = torch.eye(total.shape[-1], dtype=total.dtype, device=total.device)
    factor = cholesky(total + eye, "posterior precision")
    step = solve(factor, (root.mT @ slope[..., None])[..., 0])
    squares = sum_of_squares(stats, loc + (root @ step[..., None])[..., 0])
    squares = squares if noise_var is None else squares / noise_var
    return squares + step.square().sum(-1), log_det(factor)


def _alone(stats: Statistics) -> bool:
    """Whether the rows of each task are all alike, as where each has one row."""
    return not bool(stats.first.any()) and stats.second is not None and not bool(stats.second.any())


def _whitened_alone(loc: Tensor, root: Tensor, stats: Statistics, noise_var: Tensor | None) -> tuple[Tensor, Tensor]:
    """As `whitened`, by one number per task in place of a matrix: a million tasks of one row are no rarity."""
    d, mean = loc.shape[-1], stats.mean
    weight = stats.count if noise_var is None else stats.count / noise_var
    rows = mean[..., None, :d] @ root  # of R'x
    spread = weight * rows[..., 0, :].square().sum(-1)
    residual = mean[..., d] - (mean[..., :d] * loc).sum(-1)
    return weight * residual.square() / (1.0 + spread), torch.log1p(spread)


def whitened_log_evidence(loc: Tensor, root: Tensor, noise_var: Tensor, rows: WeightedRows) -> Tensor:
    """The evidence from a factor of the weights' covariance, in units where that is I: a search may go to any scale."""
    squares, volume = whitened(loc, root, rows.stats, noise_var)
    return -0.5 * (rows.count * (2.0 * math.pi * noise_var).log() - rows.log_weights + volume + squares)


class Restricted:
    """Evidence of all tasks with the mean of the weights integrated out under a flat prior, as REML has it.

    Args:
        root: R `(*draws, d, d)`, R R' being the covariance between tasks.
        noise_var: `(*draws,)`.
        rows: of tasks on one axis.
    """

    def __init__(self, root: Tensor, noise_var: Tensor, rows: WeightedRows) -> None:
        d, stats = root.shape[-1], rows.stats
        root, scale = root[..., None, :, :], noise_var[..., None]
        xx, slope = normal_equations(torch.zeros(d, dtype=root.dtype, device=root.device), stats)
        xx, slope = xx / scale[..., None, None], slope / scale[..., None]
        eye = torch.eye(d, dtype=root.dtype, device=root.device)
        factor = cholesky(symmetric(root.mT @ xx @ root) + eye, "posterior precision")
        half = torch.linalg.solve_triangular(factor, root.mT @ torch.cat([xx, slope[..., None]], -1), upper=False)
        # x'V^-1 x and x'V^-1 y of each task, V being the covariance of its rows
        information = (xx - half[..., :d].mT @ half[..., :d]).sum(-3)
        moment = (slope - (half[..., :d].mT @ half[..., d:])[..., 0]).sum(-2)
        self._precision = cholesky(symmetric(information), "information about the weights")
        self.loc = solve(self._precision, moment)
        each = whitened_log_evidence(self.loc[..., None, :], root, scale, rows)
        self.log_evidence = each.sum(-1) + 0.5 * (d * math.log(2.0 * math.pi) - log_det(self._precision))

    @property
    def cov(self) -> Tensor:
        """Covariance of `loc`, `(*draws, d, d)`."""
        return torch.cholesky_inverse(self._precision)
