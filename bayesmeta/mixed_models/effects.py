r"""Fixed effects and what varies between groups, as a learned regression has them, with standard errors.

Groups have rows $y = X w + e$ with $w \sim N(\beta, \Sigma)$, zero rows of $\Sigma$ for weights that all share.
Marginally $V = X \Sigma X^\top + \sigma^2 D^{-1}$, D being weights of rows, and the fixed effects are those of
generalised least squares, with covariance $C = (\sum X^\top V^{-1} X)^{-1}$. A prior that was learned with its mean
integrated out has the covariance $\Sigma + C$.

Source: Harville, Maximum likelihood approaches to variance component estimation, JASA 72 (1977).
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from bayesmeta.data.columns import Columns
from bayesmeta.data.rows import Data
from bayesmeta.glm.model import Regression
from bayesmeta.numerics.linalg import cholesky, symmetric
from bayesmeta.regression.linear import LinearGaussian, VarianceComponents

__all__ = ["Effects", "effects_of_counts", "effects_of_numbers"]

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
        """Correlations of the weights that vary, zero where one does not."""
        at, scale = torch.tensor(self.varying), self.scale
        outer = scale[:, None] * scale
        found = (self.cov[at[:, None], at] / outer.where(outer > 0, 1.0)).where(outer > 0, 0.0)
        return found.clamp(-1.0, 1.0).fill_diagonal_(1.0)

    def given_mean(self, prior: LinearGaussian) -> LinearGaussian:
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


def effects_of_numbers(found: VarianceComponents, columns: Columns) -> Effects:
    """Effects of a linear regression."""
    return Effects(found.loc, found.loc_cov, found.between_cov, columns.varying, float(found.log_evidence))


def effects_of_counts(prior: Regression, tasks: Data, columns: Columns) -> Effects:
    """Effects of a learned logistic or Poisson regression.

    Args:
        prior: as `fit` returned it.
        tasks: the rows of all groups.
        columns: roles of the columns of x.
    """
    at, loc = torch.tensor(columns.varying), prior.loc.double()
    whole = torch.cholesky_inverse(cholesky(prior.precision.double(), "precision"))
    cov = torch.zeros_like(whole)
    cov[at[:, None], at] = symmetric(whole[at[:, None], at])
    evidence = float(prior.log_evidence(tasks).sum())
    return Effects(loc, _loc_cov(prior, tasks), cov, columns.varying, evidence)


def _loc_cov(prior: Regression, tasks: Data) -> Tensor:
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

    def loc(vector: Tensor) -> Tensor:
        return cast(Regression, unknown.build(vector)).loc

    unit = torch.stack([loc(step) - loc(-step) for step in steps], -1).double() / 2.0
    return symmetric(unit @ cov @ unit.mT)
