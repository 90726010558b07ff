r"""Points and weights that stand for the posteriors of many small regressions, exact where one or two weights vary.

About the mode $\hat w$ with curvature H, weights are $w = \hat w + U t$. The columns of U diagonalise both H, which they
make I, and the precision of the prior: what rows say most of comes first, directions of which they say nothing are as
under the prior, and no shift or unit of x changes them. Along each axis t is a function of a normal score s,

$$ \log p(\hat w) - \log p(\hat w + u_j t_j(s)) = s^2 / 2, $$

the signed root of the likelihood ratio. The posterior of one weight is then a standard normal s but for the factor
dt/ds, which is smooth, so Gauss rules on both sides of the mode are near exact, however skew the posterior is: rows
without a success, separated classes, priors much wider than what rows say. Of two weights the product rule does as well;
from three on fixed quasi-random normal scores have importance weights.

Constrained modes (Tierney and Kadane) would need a search for each point of each predictor that is asked for, and have
an error of their own; these points are found once for all of them, and their weights show what they miss.

Source: Barndorff-Nielsen, Inference on full or partial parameters based on the standardized signed log likelihood ratio
(1986); Gautschi, Orthogonal polynomials (2004), section 2.2, for the rules; Owen, Scrambling Sobol' and Niederreiter-
Xing points (1998).
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bayesmeta.laplace import Rows, factor
from bayesmeta.likelihoods import Likelihood

__all__ = ["Around", "around", "grid", "log_mass"]

KNOTS = {1: 14, 2: 8}  # on either side of the mode, by the number of weights; more weights as two
MOST_KNOTS = 8
MAX_STEPS = 60
CONVERGED = 1e-12
NUM_POINTS = 1024
LOG_TWO_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Around:
    """Posteriors about their modes, in units of their curvature.

    Args:
        likelihood, rows: of the tasks.
        eta: predictors at the modes `(tasks, n)`.
        axes: U `(tasks, d, d)`.
        moves: change of the predictors per unit of t `(tasks, d, n)`.
        pull: slope of the prior's half square there `(tasks, d)`.
        prior: its curvature along the axes, at most one `(tasks, d)`.
    """

    likelihood: Likelihood
    rows: Rows
    eta: Tensor
    axes: Tensor
    moves: Tensor
    pull: Tensor
    prior: Tensor

    def drop(self, t: Tensor) -> Tensor:
        """How far the log density is below that of the mode at t `(tasks, k, d)`: `(tasks, k)`."""
        move = t @ self.moves
        fit = self._rise(move).sum(-1)
        return fit + (t @ self.pull[..., None])[..., 0] + 0.5 * (t.square() @ self.prior[..., None])[..., 0]

    def drop_along(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The same along each axis by itself, t `(tasks, d, k)`, and its slope."""
        move = t[..., None] * self.moves[:, :, None]
        fit = self._rise(move).sum(-1)
        slope = self._slope(move, self.moves[:, :, None])
        pull, prior = self.pull[..., None], self.prior[..., None]
        return fit + t * pull + 0.5 * t.square() * prior, slope + pull + t * prior

    def _rise(self, move: Tensor) -> Tensor:
        """Of minus the log likelihood, `move` being `(tasks, ..., n)`."""
        ones = (1,) * (move.ndim - 2)
        eta, y, trials = (v.reshape(len(v), *ones, -1) for v in (self.eta, self.rows.y, self.rows.trials))
        return trials * (self.likelihood.partition(eta + move) - self.likelihood.partition(eta)) - y * move

    def _slope(self, move: Tensor, direction: Tensor) -> Tensor:
        ones = (1,) * (move.ndim - 2)
        eta, y, trials = (v.reshape(len(v), *ones, -1) for v in (self.eta, self.rows.y, self.rows.trials))
        return -(self.likelihood.slope(eta + move, y, trials) * direction).sum(-1)


@torch.no_grad()
def around(likelihood: Likelihood, rows: Rows, loc: Tensor, precision: Tensor, shift: Tensor) -> Around:
    """Posteriors about the modes `loc + shift`; precision `(tasks, d, d)` is that of the priors."""
    eta = rows.times(loc + shift) + rows.offset
    root = factor(precision)
    inputs = torch.linalg.solve_triangular(root, rows.x, upper=False)
    gain, turn = _eigen((inputs * (likelihood.curvature(eta) * rows.trials)[:, None]) @ inputs.mT)
    scale = 1.0 / (1.0 + gain).sqrt()
    axes = torch.linalg.solve_triangular(root.mT, turn, upper=True) * scale[:, None]
    moves = axes.mT @ rows.x
    # axes have no direction: the one in which the posterior falls faster
    third = ((likelihood.third(eta) * rows.trials)[:, None] * moves**3).sum(-1)
    sign = torch.where(third < 0, -1.0, 1.0)
    axes, moves = axes * sign[:, None], moves * sign[..., None]
    pull = (axes.mT @ (precision @ shift[..., None]))[..., 0]
    return Around(likelihood, rows, eta, axes, moves, pull, scale.square())


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues from the greatest, and eigenvectors, of symmetric positive semidefinite matrices `(tasks, d, d)`."""
    d = matrix.shape[-1]
    if d == 1:
        return matrix[..., 0].clamp(min=0.0), torch.ones_like(matrix)
    if d == 2:
        a, b, c = matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 1]
        angle = 0.5 * torch.atan2(2.0 * b, a - c)
        cos, sin = angle.cos(), angle.sin()
        turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
        values = ((matrix @ turn) * turn).sum(-2)
    else:
        values, turn = torch.linalg.eigh(matrix)
        values, turn = values.flip(-1), turn.flip(-1)
    return values.clamp(min=0.0), turn


@cache
def half_rule(num: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on the positive half line, for the weight function exp(-s^2 / 2).

    By Stieltjes' procedure on a fine discrete measure: nodes are eigenvalues of the Jacobi matrix, weights Christoffel's
    numbers, which keep their digits where they are next to nothing.
    """
    at, measure = np.polynomial.legendre.leggauss(400)
    s, measure = 10.0 * (at + 1.0), 10.0 * measure * np.exp(-50.0 * (at + 1.0) ** 2)
    before, now = np.zeros_like(s), np.full_like(s, measure.sum() ** -0.5)
    centres, ratios = [], [0.0]
    for _ in range(num):
        centres.append((measure * s * now**2).sum())
        rest = (s - centres[-1]) * now - ratios[-1] * before
        ratios.append(float(np.sqrt((measure * rest**2).sum())))
        before, now = now, rest / ratios[-1]
    nodes = np.linalg.eigvalsh(np.diag(centres) + np.diag(ratios[1:num], 1) + np.diag(ratios[1:num], -1))
    before, now = np.zeros(num), np.full(num, measure.sum() ** -0.5)
    total = np.zeros(num)
    for k in range(num):
        total += now**2
        before, now = now, ((nodes - centres[k]) * now - ratios[k] * before) / ratios[k + 1]
    return torch.from_numpy(nodes), torch.from_numpy(1.0 / total)


@torch.no_grad()
def knots(posterior: Around, num: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores s `(2 num,)`, and t there and dt/ds there, `(tasks, d, 2 num)`, along each axis."""
    half, _ = half_rule(num)
    s = torch.cat([-half.flip(0), half]).to(posterior.eta.device)
    t = _start(posterior, s)
    widest = s.abs() / posterior.prior[..., None].sqrt()  # the prior alone falls by as much there
    for _ in range(MAX_STEPS):
        drop, slope = posterior.drop_along(t)
        root = (2.0 * drop.clamp(min=1e-300)).sqrt()
        step = (root - s.abs()) * root / slope.where(slope != 0, 1.0)
        new = (t - step).abs().clamp(max=widest) * s.sign()
        new = torch.where((new.abs() > 0.1 * t.abs()) & (slope * s > 0), new, 0.5 * t)
        moved, t = (new - t).abs(), new
        if bool((moved <= CONVERGED * t.abs()).all()):
            break
    _, slope = posterior.drop_along(t)
    return s, t, s / slope


def _start(posterior: Around, s: Tensor) -> Tensor:
    """Where the series of the density to fourth order puts the scores, kept within a factor of four of them."""
    likelihood, rows, eta = posterior.likelihood, posterior.rows, posterior.eta
    third = ((likelihood.third(eta) * rows.trials)[:, None] * posterior.moves**3).sum(-1)[..., None]
    fourth = ((likelihood.fourth(eta) * rows.trials)[:, None] * posterior.moves**4).sum(-1)[..., None]
    stretch = 1.0 - third * s / 6.0 + (5.0 * third.square() / 72.0 - fourth / 24.0) * s.square()
    return s * stretch.clamp(0.25, 4.0)


@torch.no_grad()
def grid(posterior: Around, num: int | None = None) -> tuple[Tensor, Tensor]:
    """Points t `(tasks, k, d)` and log weights `(tasks, k)`: of one or two weights, by a product rule.

    The weights add to the integral of the density over its value at the mode, in units of t.
    """
    d = posterior.prior.shape[-1]
    num = num or KNOTS[d]
    s, t, width = knots(posterior, num)
    half, weight = half_rule(num)
    log_weight = torch.cat([weight.flip(0), weight]).log().to(s) + 0.5 * s.square() + width.log()
    if d == 1:
        return t.mT, log_weight[:, 0] - 0.5 * s.square()
    first, second = (v.reshape(-1) for v in torch.meshgrid(torch.arange(len(s)), torch.arange(len(s)), indexing="ij"))
    points = torch.stack([t[:, 0, first], t[:, 1, second]], -1)
    return points, log_weight[:, 0, first] + log_weight[:, 1, second] - posterior.drop(points)


def log_mass(log_weights: Tensor, axes: Tensor) -> Tensor:
    """Log of the integral over w of the density over its value at the mode."""
    return log_weights.logsumexp(-1) + torch.linalg.slogdet(axes).logabsdet


@dataclass(frozen=True)
class Maps:
    """t as a smooth increasing function of the score s along each axis, between knots by rational quadratics.

    Source: Gregory and Delbourgo, Piecewise rational quadratic interpolation to monotonic data (1982).
    """

    s: Tensor  # (k,)
    t: Tensor  # (tasks, d, k)
    slope: Tensor  # dt/ds

    @classmethod
    def of(cls, posterior: Around, num: int = MOST_KNOTS) -> "Maps":
        s, t, slope = knots(posterior, num)
        zero = torch.zeros_like(t[..., :1])
        middle = len(s) // 2
        return cls(
            torch.cat([s[:middle], s.new_zeros(1), s[middle:]]),
            torch.cat([t[..., :middle], zero, t[..., middle:]], -1),
            torch.cat([slope[..., :middle], zero + 1.0, slope[..., middle:]], -1),
        )

    def __call__(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """t and dt/ds at scores `(tasks or 1, d, k)`."""
        index = torch.searchsorted(self.s, score.contiguous()).clamp(1, len(self.s) - 1) - 1
        index = index.expand(*self.t.shape[:2], -1)
        low, high = (v.gather(-1, index) for v in (self.t, self.slope)), (v.gather(-1, index + 1) for v in (self.t, self.slope))
        (left, slope_left), (right, slope_right) = low, high
        start, width = self.s[index], self.s[index + 1] - self.s[index]
        raw = (score - start) / width
        share = raw.clamp(0.0, 1.0)
        chord = (right - left) / width
        mixed = share * (1.0 - share)
        below = chord + (slope_left + slope_right - 2.0 * chord) * mixed
        t = left + (right - left) * (chord * share.square() + slope_left * mixed) / below
        inner = slope_right * share.square() + 2.0 * chord * mixed + slope_left * (1.0 - share).square()
        slope = chord.square() * inner / below.square()
        return t + (raw - share) * width * slope, slope


@cache
def scores(d: int, num: int = NUM_POINTS) -> Tensor:
    """Fixed quasi-random standard normal scores `(d, num)`, and their mirror images."""
    points = torch.quasirandom.SobolEngine(d, scramble=True, seed=0).draw(num // 2).double()
    half = torch.special.ndtri(points.clamp(1e-9, 1.0 - 1e-9)).mT
    return torch.cat([half, -half], -1)


@torch.no_grad()
def quasi_random(posterior: Around) -> tuple[Tensor, Tensor]:
    """Points t `(tasks, k, d)` and log weights as `grid`, of any number of weights."""
    s = scores(posterior.prior.shape[-1]).to(posterior.eta.device)
    t, slope = Maps.of(posterior)(s[None])
    points = t.mT
    log_density = -0.5 * (s.square() + LOG_TWO_PI).sum(0)
    return points, slope.log().sum(1) - log_density - math.log(s.shape[-1]) - posterior.drop(points)
