"""Expectation-maximisation for the weights of linear regressions: plain empirical Bayes in a few steps.

Source: Dempster, Laird and Rubin (1977); Lindley and Smith, Bayes estimates for the linear model (1972).
"""

import torch
from torch import Tensor

from bayesmeta.linalg import cholesky, log_det, symmetric
from bayesmeta.weighted_rows import WeightedRows

__all__ = ["expectation_maximisation"]

MAX_STEPS = 200  # it creeps where tasks share a weight: from there a search by gradient goes on
TOLERANCE = 1e-15  # of what a step gains, in evidence per row
LARGEST_SWEEP = 8  # weights up to which matrices of all tasks are inverted together, entry by entry


def expectation_maximisation(
    loc: Tensor, root: Tensor, noise_var: Tensor, rows: WeightedRows, *, known_noise: bool = False
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Loc, factor of the covariance and noise variance of greatest evidence, and whether it was reached.

    The M step takes the moments of the tasks' weights and the expected residual. How far it moves both, as divergence
    of the new from the old, is what the evidence is sure to gain: no step computes the evidence itself.

    Args:
        loc: mean of the weights where the search starts, `(d,)`, float64.
        root: lower factor of their covariance, `(d, d)`.
        noise_var: of a row of weight one.
        rows: of tasks on one axis.
        known_noise: whether noise_var stays as it is.
    """
    stats = rows.stats
    used, d = stats.count > 0, loc.shape[-1]
    # tasks last: their matrices are small, and an operation on all tasks costs as much as one on few
    count, mean = stats.count[used], stats.mean[used].mT.contiguous()
    scatter = stats.scatter[used].permute(1, 2, 0).contiguous()
    num_tasks, num_rows = len(count), rows.count.sum()
    xx = torch.addcmul(scatter[:d, :d], count * mean[:d, None], mean[None, :d])
    tiny = torch.finfo(torch.float64).tiny
    factor, precision, before = root, torch.cholesky_inverse(root), 0.0
    volume = -log_det(root)
    for _ in range(MAX_STEPS):
        cov = inverses(torch.add(precision[..., None], xx, alpha=1.0 / noise_var.item()))
        gradient = _gradient(count, mean, scatter, loc)
        step = (cov * gradient).sum(1) / noise_var
        squares = _squares(count, mean, scatter, loc[:, None] + step)
        total, shift = cov.sum(-1), step.mean(-1)
        # tr(xx cov) from the covariances alone: xx / noise_var is their inverse less the precision
        expected = squares.sum() + noise_var * (num_tasks * d - (precision * total).sum())
        ratio = torch.ones_like(noise_var) if known_noise else (expected / num_rows).clamp(min=tiny) / noise_var
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
    return loc, factor, noise_var, left < TOLERANCE


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


def inverses(matrix: Tensor) -> Tensor:
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
