"""Expectation-maximisation for the weights of linear regressions: plain empirical Bayes in a few steps.

Source: Dempster, Laird and Rubin (1977); Lindley and Smith, Bayes estimates for the linear model (1972).
"""

import math

import numpy as np
from torch import Tensor

from bayesmeta.data.weighted_rows import WeightedRows

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

    In NumPy, whose operations on arrays this small take half as long as torch's, and no gradient is asked for.

    Args:
        loc: mean of the weights where the search starts, `(d,)`, float64.
        root: lower factor of their covariance, `(d, d)`.
        noise_var: of a row of weight one.
        rows: of tasks on one axis.
        known_noise: whether noise_var stays as it is.

    Raises:
        ValueError: the covariance of the weights lost its rank to rounding.
    """
    moments = _Moments(rows)
    found, factor, var, converged = _climb(
        _array(loc), _array(root), float(noise_var), moments, float(rows.count.sum()), known_noise
    )
    return loc.new_tensor(found), root.new_tensor(factor), noise_var.new_tensor(var), converged


class _Moments:
    """Sums over the rows of each task that has some, tasks last: an operation on all costs as much as one on few."""

    def __init__(self, rows: WeightedRows) -> None:
        stats = rows.stats
        used = _array(stats.count) > 0
        self.count = _array(stats.count)[used]
        self.mean = np.ascontiguousarray(_array(stats.mean)[used].T)
        self.scatter = np.ascontiguousarray(_array(stats.scatter)[used].transpose(1, 2, 0))
        d = self.d = len(self.mean) - 1
        self.inputs = self.scatter[:d, :d] + (self.count * self.mean[:d])[:, None] * self.mean[:d]

    def gradient(self, loc: np.ndarray) -> np.ndarray:
        """X'(y - X loc) `(d, tasks)`."""
        d = self.d
        level = self.mean[d] - loc @ self.mean[:d]
        slope = self.scatter[:d, d] - np.einsum("i,ijt->jt", loc, self.scatter[:d, :d])
        return slope + self.count * level * self.mean[:d]

    def squares(self, weights: np.ndarray) -> np.ndarray:
        """The sum of (y - x'w)^2 of each task's weights `(d, tasks)`."""
        d = self.d
        centred = self.scatter[:, d] - (self.scatter[:, :d] * weights).sum(1)
        level = self.mean[d] - (self.mean[:d] * weights).sum(0)
        return centred[d] - (centred[:d] * weights).sum(0) + self.count * level**2


def _climb(
    loc: np.ndarray, factor: np.ndarray, noise_var: float, moments: _Moments, num_rows: float, known_noise: bool
) -> tuple[np.ndarray, np.ndarray, float, bool]:
    d, num_tasks = moments.d, len(moments.count)
    precision, volume, before = _precision(factor), -_log_det(factor), 0.0
    for _ in range(MAX_STEPS):
        cov = inverses(precision[..., None] + moments.inputs / noise_var)
        step = (cov * moments.gradient(loc)).sum(1) / noise_var
        squares = moments.squares(loc[:, None] + step)
        total, shift = cov.sum(-1), step.mean(-1)
        # tr(xx cov) from the covariances alone: xx / noise_var is their inverse less the precision
        expected = squares.sum() + noise_var * (num_tasks * d - (precision * total).sum())
        ratio = 1.0 if known_noise else max(expected / num_rows, np.finfo(float).tiny) / noise_var
        centred = step - shift[:, None]
        spread = (total + centred @ centred.T) / num_tasks
        spread = 0.5 * (spread + spread.T)
        factor = _factor(spread)
        moved = (precision * spread).sum() - d - volume - _log_det(factor) + shift @ precision @ shift
        gain = 0.5 * float(num_tasks * moved / num_rows + ratio - 1.0 - math.log(ratio))
        loc, noise_var, precision = loc + shift, noise_var * ratio, _precision(factor)
        volume = -_log_det(factor)
        # steps gain by a constant share of the last: all that are to come, where that is less than one half
        left, before = gain * min(gain / max(before - gain, gain), 1.0) if gain > 0 else 0.0, gain
        if left < TOLERANCE:
            break
    return loc, factor, noise_var, left < TOLERANCE


def inverses(matrix: np.ndarray) -> np.ndarray:
    """Inverses of positive definite matrices `(d, d, tasks)`, in place where they are small."""
    d = len(matrix)
    if d > LARGEST_SWEEP:
        return np.linalg.inv(matrix.transpose(2, 0, 1)).transpose(1, 2, 0)
    for i in range(d):  # the sweep operator: each pass exchanges one row and column
        row = matrix[i].copy()
        pivot = -1.0 / row[i]
        swept = row * pivot
        matrix += row[:, None] * swept
        matrix[i], matrix[:, i] = swept, swept
        matrix[i, i] = pivot
    return np.negative(matrix, out=matrix)


def _factor(cov: np.ndarray) -> np.ndarray:
    try:
        return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        least = np.linalg.eigvalsh(cov).min()
        raise ValueError(
            f"covariance of weights is not positive definite (least eigenvalue {least:.2g}); tasks share a combination "
            "of weights. Use the hyperprior, hyperprior_weight=1"
        ) from None


def _precision(factor: np.ndarray) -> np.ndarray:
    half = np.linalg.inv(factor)
    return half.T @ half


def _log_det(factor: np.ndarray) -> float:
    return 2.0 * float(np.log(factor.diagonal()).sum())


def _array(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy()
