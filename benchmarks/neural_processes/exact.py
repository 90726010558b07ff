"""Exact Bayes under a prior over Gaussian processes: hyperparameters are integrated on a grid.

No learner that was trained on tasks of the prior can do better on average. Three ceilings are computed, in nats per row
that is asked about: of normal predictions, each row alone; of predictions of any shape, each row alone; of all rows
together.

The correlation matrix of known rows is decomposed once for each point of the grid of its kernel, and all scales follow
from its eigenvalues.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Scores", "exact_sawtooth", "exact_scores", "midpoints"]

NUM_NUMBERS, NUM_SHIFTS = 1500, 250  # of a grid over teeth, whose steps move y by less than a fifth of the noise
HOPELESS = 60.0  # nats behind the most probable point, so that no row to come brings it back
LOG_TWO_PI = math.log(2.0 * math.pi)


class Scores(NamedTuple):
    """Log densities `(tasks, t)` of each row alone, by a normal distribution and by any; `(tasks,)` of all together."""

    normal: Tensor
    alone: Tensor
    together: Tensor


def midpoints(low: float, high: float, num: int) -> Tensor:
    """Of equal parts of a range: each stands for as much of a uniform prior."""
    return low + (high - low) * (torch.arange(num, dtype=torch.float64) + 0.5) / num


def exact_scores(
    correlation: Callable[[Tensor, Tensor], Tensor],
    parameters: Tensor,
    scales: Tensor,
    noise: float,
    known: tuple[Tensor, Tensor],
    asked: tuple[Tensor, Tensor],
) -> Scores:
    """Scores of rows that are asked about.

    Args:
        correlation: of differences `(..., n, m)`, and of a point of `parameters` `(tasks, ...)` that broadcasts.
        parameters: of the kernel, equally probable `(g, p)`.
        scales: standard deviations of the process, equally probable `(s,)`.
        noise: standard deviation.
        known, asked: x `(tasks, n)` and y `(tasks, n)` each.
    """
    (x, y), (x_asked, y_asked) = known, asked
    every_x, every_y = torch.cat([x, x_asked], 1), torch.cat([y, y_asked], 1)
    evidence, together, means, variances = [], [], [], []
    for point in parameters:
        before = _spectrum(correlation, point, x, y, scales, noise)
        evidence.append(before.log_evidence)
        together.append(_spectrum(correlation, point, every_x, every_y, scales, noise).log_evidence)
        cross = correlation(x_asked[:, :, None] - x[:, None], point) @ before.vectors  # (tasks, t, n)
        gain = scales.square()[:, None] / before.values  # (tasks, s, n)
        means.append((gain * before.turned[:, None]) @ cross.mT)
        variances.append((scales.square()[:, None] - scales.square()[:, None] * (gain @ cross.square().mT)) + noise**2)
    log_weight = torch.stack(evidence, 1).flatten(1).log_softmax(-1)  # (tasks, g s)
    mean, var = (torch.stack(each, 1).flatten(1, 2) for each in (means, variances))  # (tasks, g s, t)
    weight = log_weight.exp()[..., None]
    middle = (weight * mean).sum(1)
    spread = (weight * (var + (mean - middle[:, None]).square())).sum(1)
    alone = (log_weight[..., None] + _log_normal(y_asked[:, None], mean, var)).logsumexp(1)
    num = math.log(log_weight.shape[1])
    whole = torch.stack(together, 1).flatten(1).logsumexp(-1) - num
    first = torch.stack(evidence, 1).flatten(1).logsumexp(-1) - num
    return Scores(_log_normal(y_asked, middle, spread), alone, whole - first)


def exact_sawtooth(
    numbers: tuple[float, float], noise: float, known: tuple[Tensor, Tensor], asked: tuple[Tensor, Tensor]
) -> Scores:
    """Scores under teeth (number x + shift) mod 1 - 1/2 of either sign; number and shift uniform, on a grid."""
    grid = torch.meshgrid(
        midpoints(*numbers, NUM_NUMBERS),
        midpoints(0.0, 1.0, NUM_SHIFTS),
        torch.tensor([1.0, -1.0]).double(),
        indexing="ij",
    )
    points = torch.stack([part.flatten() for part in grid])
    each = [_sawtooth(points, noise, *task) for task in zip(*known, *asked, strict=True)]
    return Scores(*(torch.stack(part) for part in zip(*each, strict=True)))


def _sawtooth(
    points: Tensor, noise: float, x: Tensor, y: Tensor, x_asked: Tensor, y_asked: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one task; points are number, shift and sign `(3, g)`."""
    weight = torch.full_like(points[0], -math.log(points.shape[1]))
    for row, value in zip(x, y, strict=True):
        weight = weight + _log_normal(value, _teeth(points, row), torch.tensor(noise**2))
        kept = weight > weight.max() - HOPELESS
        points, weight = points[:, kept], weight[kept]
    after = weight = weight - weight.logsumexp(0)
    normal, alone = [], []
    for row, value in zip(x_asked, y_asked, strict=True):
        means = _teeth(points, row)
        density = _log_normal(value, means, torch.tensor(noise**2))
        middle = (weight.exp() * means).sum()
        spread = (weight.exp() * (means - middle).square()).sum() + noise**2
        normal.append(_log_normal(value, middle, spread))
        alone.append((weight + density).logsumexp(0))
        after = after + density
    return torch.stack(normal), torch.stack(alone), after.logsumexp(0)


def _teeth(points: Tensor, x: Tensor) -> Tensor:
    number, shift, sign = points
    return sign * ((number * x + shift) % 1.0 - 0.5)


class _Spectrum(NamedTuple):
    """Of the covariance of rows at each scale: its eigenvalues `(tasks, s, n)`, and y in terms of the vectors."""

    values: Tensor
    vectors: Tensor
    turned: Tensor
    log_evidence: Tensor


def _spectrum(
    correlation: Callable[[Tensor, Tensor], Tensor], point: Tensor, x: Tensor, y: Tensor, scales: Tensor, noise: float
) -> _Spectrum:
    values, vectors = torch.linalg.eigh(correlation(x[:, :, None] - x[:, None], point))
    turned = (vectors.mT @ y[..., None])[..., 0]
    spread = scales.square()[:, None] * values.clamp(min=0.0)[:, None] + noise**2
    fit = (turned.square()[:, None] / spread).sum(-1) + spread.log().sum(-1)
    return _Spectrum(spread, vectors, turned, -0.5 * (fit + y.shape[1] * LOG_TWO_PI))


def _log_normal(y: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return -0.5 * ((y - mean).square() / var + var.log() + LOG_TWO_PI)
