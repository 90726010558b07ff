r"""Fixed effects and what varies between groups, as a learned regression has them, with standard errors.

Groups have rows $y = X w + e$ with $w \sim N(\beta, \Sigma)$, zero rows of $\Sigma$ for weights that all share.
Marginally $V = X \Sigma X^\top + \sigma^2 D^{-1}$, D being weights of rows, and the fixed effects are those of
generalised least squares, with covariance $C = (\sum X^\top V^{-1} X)^{-1}$. A prior that was learned with its mean
integrated out has the covariance $\Sigma + C$; both are told apart again here.

Source: Harville, Maximum likelihood approaches to variance component estimation, JASA 72 (1977).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bayesmeta.columns import Columns
from bayesmeta.data import Data
from bayesmeta.linalg import cholesky, log_det, symmetric

__all__ = ["Effects", "effects_of"]

MAX_STEPS = 100  # of telling a covariance between groups from that of the fixed effects
FLAT = 1e-6  # of a factor of the curvature, its least entry to its largest: no more is known of a direction
KNOWN = 1e-8  # standard deviation of a weight that is known, in its standard errors


@dataclass(frozen=True)
class Effects:
    """What a mixed model says of its weights.

    Args:
        loc: fixed effects `(d,)`.
        loc_cov: their covariance `(d, d)`.
        cov: covariance of weights between groups `(d, d)`; zero rows for those that groups share.
        varying: weights that vary.
        log_likelihood: of all rows, restricted where the fixed effects were integrated out.
    """

    loc: Tensor
    loc_cov: Tensor
    cov: Tensor
    varying: tuple[int, ...]
    log_likelihood: float

    @property
    def scale(self) -> Tensor:
        """Standard deviation between groups of each weight that varies."""
        return self.cov.diagonal()[list(self.varying)].clamp(min=0.0).sqrt()

    @property
    def correlations(self) -> Tensor:
        """Of the weights that vary, zero where one does not."""
        at, scale = torch.tensor(self.varying), self.scale
        outer = scale[:, None] * scale
        found = (self.cov[at[:, None], at] / outer.where(outer > 0, 1.0)).where(outer > 0, 0.0)
        return found.clamp(-1.0, 1.0).fill_diagonal_(1.0)

    def given_mean(self, prior: Any) -> Any:
        """The prior of a group among those learned from: the fixed effects as estimated, not integrated out.

        A prior with the covariance of the fixed effects would count the group's own rows twice.
        """
        floor = KNOWN * self.loc_cov.diagonal().sqrt()
        at = torch.tensor(self.varying)
        precision = torch.diag_embed(floor.square().reciprocal())
        inside = self.cov[at[:, None], at] + torch.diag_embed(floor[at].square())
        precision[at[:, None], at] = torch.cholesky_inverse(cholesky(inside, "covariance of weights"))
        return type(prior)(self.loc, symmetric(precision), prior.noise_var.double(), columns=prior.columns).to(
            prior.loc
        )


def effects_of(prior: Any, tasks: Data, columns: Columns, *, restricted: bool) -> Effects:
    """Effects of a learned linear, logistic or Poisson regression, from the rows it was learned from.

    Args:
        prior: as `fit` returned it.
        tasks: the rows of all groups.
        columns: roles of the columns of x.
        restricted: whether the prior carries the covariance of its mean.
    """
    varying, loc = columns.varying, prior.loc.double()
    at = torch.tensor(varying)
    whole = torch.cholesky_inverse(cholesky(prior.precision.double(), "precision"))[at[:, None], at]
    if not hasattr(prior, "noise_var"):
        evidence = float(prior.log_evidence(tasks).sum())
        return Effects(loc, _loc_cov(prior, tasks), _inside(whole, at, len(loc)), varying, evidence)
    rows = _Rows.of(tasks, columns, prior.noise_var.double())
    cov = _inside(whole, at, len(loc))
    if restricted:
        cov = _between(whole, at, rows)
    information, likelihood = rows.information(cov), rows.log_likelihood(cov, loc)
    factor = cholesky(information, "information about the fixed effects")
    if restricted:
        likelihood += 0.5 * (len(loc) * math.log(2.0 * math.pi) - log_det(factor) - 2.0 * rows.log_volume)
    return Effects(loc, rows.of_weights(torch.cholesky_inverse(factor)), cov, varying, float(likelihood))


def _inside(block: Tensor, at: Tensor, size: int) -> Tensor:
    found = torch.zeros(size, size, dtype=torch.float64)
    found[at[:, None], at] = symmetric(block)
    return found


def _between(whole: Tensor, at: Tensor, rows: "_Rows") -> Tensor:
    """Covariance S between groups with S + C(S) = whole, C being the covariance of the fixed effects.

    By fixed-point steps. Each leaves a share of the error: about one by the number of groups, near one where a group
    has nearly all rows: so every third step goes on by that share.
    """
    size, tolerance = rows.basis.shape[-1], 1e-14 * whole.diagonal().max()

    def step(cov: Tensor) -> Tensor:
        factor = cholesky(rows.information(_inside(cov, at, size)), "information about the fixed effects")
        of_mean = rows.of_weights(torch.cholesky_inverse(factor))[at[:, None], at]
        return _nearest(whole - of_mean)

    cov = whole
    for _ in range(MAX_STEPS):
        first = step(cov)
        second = step(first)
        before, after = first - cov, second - first
        share = float((after * before).sum() / before.square().sum().clamp(min=torch.finfo(torch.float64).tiny))
        cov = _nearest(second + after * (share / (1.0 - share))) if 0.0 < share < 1.0 else second
        if after.abs().max() <= tolerance:
            break
    return _inside(cov, at, size)


def _nearest(matrix: Tensor) -> Tensor:
    """The covariance nearest to a symmetric matrix: without what is negative."""
    values, vectors = torch.linalg.eigh(symmetric(matrix))
    return vectors @ torch.diag_embed(values.clamp(min=0.0)) @ vectors.mT


@dataclass(frozen=True)
class _Rows:
    """Rows of groups in an orthonormal basis of all rows' inputs, in which columns far from zero lose no digits.

    Args:
        basis: R `(d, d)`: inputs are `x` R, and weights of `x` are R w.
        x: `(tasks, n, d)`, rows scaled to noise of variance one; zero where there is no row.
        y: `(tasks, n)`, likewise, less the offset.
        log_scale: summed logarithms of the noise's standard deviations, and of 2 pi per row.
    """

    basis: Tensor
    x: Tensor
    y: Tensor
    log_scale: Tensor

    @classmethod
    def of(cls, tasks: Data, columns: Columns, noise_var: Tensor) -> "_Rows":
        read, mask = columns.read(tasks.x.double()), tasks.mask
        scale = (noise_var if read.weight is None else noise_var / read.weight).expand(mask.shape).sqrt()
        y = tasks.y.double() if read.offset is None else tasks.y.double() - read.offset
        x = torch.where(mask[..., None], read.x, 0.0)
        q, basis = torch.linalg.qr(x.flatten(0, 1))
        total = (scale.log() + 0.5 * math.log(2.0 * math.pi))[mask].sum()
        x = q.reshape(x.shape) / torch.where(mask, scale, 1.0)[..., None]
        return cls(basis, x, torch.where(mask, y / scale, 0.0), total)

    @property
    def log_volume(self) -> Tensor:
        """Log of |det R|: of a volume of weights in this basis per volume of those of the inputs."""
        return self.basis.diagonal().abs().log().sum()

    def of_weights(self, cov: Tensor) -> Tensor:
        """Covariance of the inputs' weights from that of the basis'."""
        half = torch.linalg.solve_triangular(self.basis, cholesky(cov, "covariance"), upper=True)
        return half @ half.mT

    @cached_property
    def gram(self) -> Tensor:
        """X'X of each group `(tasks, d, d)`."""
        return self.x.mT @ self.x

    def _spread(self, cov: Tensor) -> tuple[Tensor, Tensor]:
        """F `(d, d)` with F F' = cov in this basis, and L with L L' = I + F'X'X F."""
        values, vectors = torch.linalg.eigh(symmetric(self.basis @ cov @ self.basis.mT))
        root = vectors * values.clamp(min=0.0).sqrt()
        inside = symmetric(root.mT @ self.gram @ root) + torch.eye(len(cov)).to(cov)
        return root, cholesky(inside, "marginal covariance")

    def information(self, cov: Tensor) -> Tensor:
        """Sum of X'V^-1 X, in this basis, V being I + X F F'X'."""
        root, factor = self._spread(cov)
        half = torch.linalg.solve_triangular(factor, root.mT @ self.gram, upper=False)
        return symmetric((self.gram - half.mT @ half).sum(0))

    def log_likelihood(self, cov: Tensor, loc: Tensor) -> Tensor:
        """Of all rows, for these fixed effects."""
        root, factor = self._spread(cov)
        rest = self.y - (self.x @ (self.basis @ loc)[:, None])[..., 0]
        explained = torch.linalg.solve_triangular(factor, root.mT @ (self.x.mT @ rest[..., None]), upper=False)
        squares = rest.square().sum() - explained.square().sum()
        return -0.5 * (squares + log_det(factor).sum()) - self.log_scale


def _loc_cov(prior: Any, tasks: Data) -> Tensor:
    """Covariance of loc, from the curvature of the log evidence in all hyperparameters.

    Where it has no inverse, as where a variance ended at zero, the variances are taken as known.
    """
    unknown = prior.hyperparameters(tasks)
    d, here = prior.loc.shape[-1], torch.zeros(len(unknown.entries), dtype=torch.float64)
    curvature = -torch.autograd.functional.hessian(lambda vector: unknown.log_evidence(vector).sum(), here)
    found = torch.linalg.cholesky_ex(curvature)
    diagonal = found.L.diagonal()
    if int(found.info) or diagonal.min() < FLAT * diagonal.max():
        found = torch.linalg.cholesky_ex(curvature[:d, :d], check_errors=True)
    cov = torch.cholesky_inverse(found.L)[:d, :d]
    # entries of loc in the units of x: it is linear in those of the vector
    steps = torch.eye(d, len(here), dtype=torch.float64)
    unit = torch.stack([unknown.build(step).loc - unknown.build(-step).loc for step in steps], -1).double() / 2.0
    return symmetric(unit @ cov @ unit.mT)
