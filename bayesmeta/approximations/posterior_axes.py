r"""Posteriors of a few weights: axes about the mode, a normal score along each, and a product rule over them.

1. Axes. About the mode $\hat w$ weights are $w = \hat w + U t$. The columns of U diagonalise two matrices at once: the
   curvature of the log posterior, which becomes I, and the precision of the prior. The first axis is the direction that
   rows say most of. Along an axis that rows say nothing of, the posterior is the prior. No shift or unit of x changes
   the axes.
2. Score. Along axis j, t is a function of a score s, the signed root of the likelihood ratio:

   $$ \log p(\hat w) - \log p(\hat w + u_j t_j(s)) = s^2 / 2. $$

   The posterior of one weight in terms of s is a standard normal times dt/ds. That factor is smooth however skew the
   posterior is: with counts of zero, separated classes, or a prior much wider than what rows say.
3. Rule. A Gauss rule for the half normal on each side of the mode is then near exact for one weight. For a few weights
   the product of these rules does nearly as well, unless weights depend on each other far from the mode.

Source: Barndorff-Nielsen, Inference on full or partial parameters based on the standardized signed log likelihood ratio
(1986).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bayesmeta.approximations.laplace import Rows, factor
from bayesmeta.approximations.likelihoods import Likelihood, sums_of_axes
from bayesmeta.numerics.gauss import half_normal_rule

__all__ = ["Around", "Memory", "around", "knots", "product_rule"]

MAX_STEPS = 60  # of Newton's method for the knots
CONVERGED = 1e-4  # relative change in a step: the one after it would be its square


@dataclass
class Memory:
    """Where a search found the modes and knots of tasks under its last prior: under the next one they are near."""

    weights: Tensor | None = None
    knots: Tensor | None = None


@dataclass(frozen=True)
class Around:
    """Posteriors about their modes, in units of their curvature.

    Args:
        likelihood, rows: of the tasks.
        mode: the most probable weights `(tasks, d)`.
        eta: predictors there `(tasks, n)`.
        axes: U `(tasks, d, d)`.
        moves: change of the predictors per unit of t `(tasks, d, n)`.
        pull: slope of the prior's half square there `(tasks, d)`.
        prior: its curvature along the axes, at most one `(tasks, d)`.
    """

    likelihood: Likelihood
    rows: Rows
    mode: Tensor
    eta: Tensor
    axes: Tensor
    moves: Tensor
    pull: Tensor
    prior: Tensor

    def __getitem__(self, index: Tensor) -> "Around":
        tensors = (v[index] for v in (self.mode, self.eta, self.axes, self.moves, self.pull, self.prior))
        return Around(self.likelihood, self.rows[index], *tensors)

    def at(self, t: Tensor) -> Tensor:
        """Weights at t, both `(tasks, k, d)`."""
        return self.mode[:, None] + t @ self.axes.mT

    def drop(self, t: Tensor) -> Tensor:
        """How far the log density is below that of the mode at t `(tasks, k, d)`: `(tasks, k)`."""
        rise, _ = self.likelihood.rise(self.eta[:, None], t @ self.moves)
        fit = (rise @ self.rows.trials[..., None])[..., 0]
        total = fit + (t @ self._linear[..., None])[..., 0] + 0.5 * (t.square() @ self.prior[..., None])[..., 0]
        return total.nan_to_num(nan=math.inf, posinf=math.inf)  # infinity less infinity: the density is zero there

    def drop_along(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The same along each axis by itself, t `(tasks, d, k)`, and its slope."""
        rise, slope = self.likelihood.rise(self.eta[:, None, None], t[..., None] * self.moves[:, :, None])
        fit = (rise @ self.rows.trials[:, None, :, None])[..., 0]
        slope = (slope @ (self.moves * self.rows.trials[:, None])[..., None])[..., 0]
        linear, prior = self._linear[..., None], self.prior[..., None]
        return fit + t * linear + 0.5 * t.square() * prior, slope + linear + t * prior

    def drop_at_all(self, t: Tensor) -> Tensor:
        """The same where each axis takes each of its values t `(tasks, d, k)`: `(tasks, k^d)`, the last axis fastest.

        Exponentials of predictors at all points are products of those along the axes.
        """
        if t.shape[1] == 1:
            return self.drop(t.mT)
        fit = self.likelihood.rises(self.eta, self.rows.y, self.rows.trials, t[..., None] * self.moves[:, :, None])
        if fit is None:
            return self.drop(every_point(t))
        return fit + sums_of_axes(t * self.pull[..., None] + 0.5 * t.square() * self.prior[..., None])

    @cached_property
    def _linear(self) -> Tensor:
        """What is linear in t of minus the log density, but for the partition."""
        return self.pull - (self.moves @ self.rows.y[..., None])[..., 0]


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
    return Around(likelihood, rows, loc + shift, eta, axes, moves, pull, scale.square())


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


@torch.no_grad()
def knots(posterior: Around, num: int, start: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores s `(2 num,)`, and t there and dt/ds there, `(tasks, d, 2 num)`, along each axis."""
    half, _ = half_normal_rule(num)
    s = torch.cat([-half.flip(0), half]).to(posterior.eta.device)
    t = _start(posterior, s) if start is None else start.clone()
    left = torch.arange(len(t), device=t.device)
    some = posterior
    for _ in range(MAX_STEPS):
        at = t[left] if len(left) < len(t) else t
        drop, slope = some.drop_along(at)
        root = (2.0 * drop.clamp(min=1e-300)).sqrt()
        step = (root - s.abs()) * root / slope.where(slope != 0, 1.0)
        widest = s.abs() / some.prior[..., None].sqrt()  # the prior alone falls by as much there
        new = (at - step).abs().minimum(widest) * s.sign()
        new = torch.where((new.abs() > 0.1 * at.abs()) & (slope * s > 0), new, 0.5 * at)
        moving = ((new - at).abs() > CONVERGED * at.abs()).flatten(1).any(-1)
        t[left] = new
        if not bool(moving.any()):
            break
        if 2 * int(moving.sum()) < len(left):  # a few that take longer
            left, some = left[moving], some[moving]
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
def product_rule(posterior: Around, num: int, memory: "Memory | None" = None) -> tuple[Tensor, Tensor, Tensor]:
    """Points t `(tasks, k, d)`, the logs of the volumes that they stand for, and the drops there, `(tasks, k)`."""
    s, t, width = knots(posterior, num, None if memory is None else memory.knots)
    if memory is not None:
        memory.knots = t
    _, weight = half_normal_rule(num)
    along = torch.cat([weight.flip(0), weight]).log().to(s) + 0.5 * s.square() + width.log()
    return every_point(t), sums_of_axes(along), posterior.drop_at_all(t)


def every_point(t: Tensor) -> Tensor:
    """All combinations `(tasks, k^d, d)` of values t `(tasks, d, k)` of each axis, the last axis fastest."""
    d, k = t.shape[1:]
    index = torch.cartesian_prod(*[torch.arange(k)] * d).reshape(-1, d)
    return torch.stack([t[:, j, index[:, j]] for j in range(d)], -1)
