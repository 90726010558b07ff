"""The tasks of a regression on one axis: what is unknown of each, its rows, and what its posterior says of a predictor.

Weights that all tasks share and that the prior knows are no unknowns: they are part of the offset. So a task with one
weight of its own is an integral over one number, whatever else is in the model.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from bayesmeta.approximations.evidence import log_evidence
from bayesmeta.approximations.laplace import Rows, factor, fit_mode
from bayesmeta.approximations.likelihoods import Likelihood
from bayesmeta.approximations.posterior_axes import Around
from bayesmeta.approximations.posterior_points import Cloud, Use, each_cloud
from bayesmeta.data.columns import Columns
from bayesmeta.data.rows import Data
from bayesmeta.glm.predictor import rows_of, split
from bayesmeta.numerics.linalg import log_det, symmetric
from bayesmeta.random import randn

if TYPE_CHECKING:  # which asks these
    from bayesmeta.glm.model import Regression

__all__ = ["Asked", "Tasks"]

KNOWN = 1e-2  # what all rows could add to the precision of a weight that is known, over that precision


@dataclass(frozen=True)
class Tasks:
    """Priors and rows of T tasks, float64.

    Args:
        likelihood: of the rows.
        batch: axes of the tasks, which here are one.
        unknown: which of the d weights are, k of them.
        rows: of the tasks, with inputs of those; what is known of the predictor is in their offset.
        loc: mean of the unknown weights under the priors `(T, k)`.
        precision: given the known ones `(T, k, k)`.
        whole: loc and precision of all weights `(T, d)`, `(T, d, d)`, and all inputs `(T, d, n)`.
    """

    likelihood: Likelihood
    batch: torch.Size
    unknown: list[int]
    rows: Rows
    loc: Tensor
    precision: Tensor
    whole: tuple[Tensor, Tensor, Tensor]

    @classmethod
    def of(cls, prior: "Regression", data: Data, batch: torch.Size | None = None) -> "Tasks":
        """Tasks of a prior and their rows, whose batches broadcast, to `batch` if it is given."""
        batch = torch.broadcast_shapes(prior.batch_shape, data.batch_shape) if batch is None else batch
        d = prior.loc.shape[-1]
        rows = rows_of(data if data.batch_shape == batch else data.expand(batch), prior.roles)
        loc = prior.loc.double().expand(*batch, d).reshape(-1, d)
        precision = prior.precision.double().expand(*batch, d, d).reshape(-1, d, d)
        whole, known = (loc, precision, rows.x), _known(prior, rows)
        if not known:
            return cls(prior.likelihood, batch, list(range(d)), rows, loc, precision, whole)
        unknown = [i for i in range(d) if i not in known]
        offset = rows.offset + (loc[:, None, known] @ rows.x[:, known])[:, 0]
        rows = Rows(rows.x[:, unknown].contiguous(), rows.y, offset, rows.trials)
        return cls(prior.likelihood, batch, unknown, rows, loc[:, unknown], precision[:, unknown][..., unknown], whole)

    @property
    def known(self) -> list[int]:
        return [i for i in range(self.whole[0].shape[-1]) if i not in self.unknown]

    @property
    def silent(self) -> Tensor:
        """Tasks whose rows say nothing `(T,)`."""
        return self.rows.trials.sum(-1) == 0

    def log_evidence(self) -> Tensor:
        return log_evidence(self.likelihood, self.rows, self.loc, self.precision)

    def log_mass(self) -> Tensor:
        """The log evidence, from the points by which predictions are made."""

        def use(posterior: Around, index: Tensor, cloud: Cloud) -> tuple[Tensor, ...]:
            return (cloud.log_weights.logsumexp(-1) + torch.linalg.slogdet(posterior.axes).logabsdet,)

        return self.each(use)[0] + self.log_peak()

    def log_peak(self) -> Tensor:
        """Log density of rows and unknown weights together, at the posterior modes `(T,)`."""
        shift = fit_mode(self.likelihood, self.rows, self.loc, self.precision)
        eta = self.rows.times(self.loc + shift) + self.rows.offset
        fit = self.likelihood.log_prob(eta, self.rows.y, self.rows.trials).sum(-1)
        distance = (shift * (self.precision @ shift[..., None])[..., 0]).sum(-1)
        normaliser = log_det(factor(self.precision)) - shift.shape[-1] * math.log(2.0 * math.pi)
        return fit - 0.5 * (distance - normaliser)

    def each(self, use: Use, *, width: int = 1, rough: bool = False) -> tuple[Tensor, ...]:
        """What `use` makes of the points of each posterior; see `posterior_points.each_cloud`."""
        return each_cloud(self.likelihood, self.rows, self.loc, self.precision, use, width=width, rough=rough)

    def weights(self, unknown: Tensor) -> Tensor:
        """All weights `(..., T, d)` from those that are unknown `(..., T, k)`."""
        whole = self.whole[0].expand(*unknown.shape[:-1], -1).clone()
        whole[..., self.unknown] = unknown
        return whole

    def with_known(self, unknown: Tensor, generator: Generator | None) -> Tensor:
        """All weights `(draws, T, d)` from draws of the unknown ones: those that are known vary as under the prior.

        Which is next to nothing; so draws agree with their density.
        """
        weights, known = self.weights(unknown), self.known
        if not known:
            return weights
        precision = self.whole[1]
        of_known = precision[:, known][..., known]
        across = precision[:, self.unknown][..., known]
        back = torch.linalg.solve(self.precision, across)
        root = factor(symmetric(of_known - across.mT @ back))
        noise = randn((*unknown.shape[:-1], len(known), 1), like=unknown, generator=generator)
        moved = torch.linalg.solve_triangular(root.mT, noise, upper=True)
        weights[..., known] += moved[..., 0]
        weights[..., self.unknown] -= (back @ moved)[..., 0]
        return weights

    def hessian(self, weights: Tensor) -> Tensor:
        """Hessian `(T, d, d)` of minus the log posterior density of all weights, at `weights` `(T, d)`."""
        _, precision, x = self.whole
        eta = self.rows.times(weights[:, self.unknown]) + self.rows.offset
        curvature = self.likelihood.curvature(eta) * self.rows.trials
        return precision + (x * curvature[:, None]) @ x.mT

    def log_likelihood(self, weights: Tensor) -> Tensor:
        """Log likelihood `(draws, T)` of the rows under all weights `(draws, T, d)`."""
        eta = self.rows.offset + (weights[..., None, self.unknown] @ self.rows.x)[..., 0, :]
        known = self.known
        if known:
            eta = eta + ((weights - self.whole[0])[..., None, known] @ self.whole[2][:, known])[..., 0, :]
        return self.likelihood.log_prob(eta, self.rows.y, self.rows.trials).sum(-1)

    def with_rows(self, asked: "Asked", y: Tensor) -> "Tasks":
        """T times q tasks: each with one row more, of those that are asked for; y is `(T, q)`."""
        tasks, q = y.shape

        def joined(rows: Tensor, one: Tensor) -> Tensor:
            each = rows[:, None].expand(tasks, q, *rows.shape[1:])
            return torch.cat([each, one[..., None]], -1).flatten(0, 1)

        rows = Rows(
            joined(self.rows.x, asked.inputs),
            joined(self.rows.y, y),
            joined(self.rows.offset, asked.offset),
            joined(self.rows.trials, asked.trials),
        )
        loc, precision = (v[:, None].expand(-1, q, *v.shape[1:]).flatten(0, 1) for v in (self.loc, self.precision))
        return Tasks(self.likelihood, torch.Size([tasks * q]), self.unknown, rows, loc, precision, self.whole)

    def asked(self, x: Tensor, roles: Columns) -> "Asked":
        """Rows x `(T, q, columns)`, of which predictions are asked for."""
        inputs, offset, trials = split(x.double(), roles)
        if self.known:
            offset = offset + (inputs[..., self.known] @ self.whole[0][:, self.known, None])[..., 0]
            inputs = inputs[..., self.unknown]
        return Asked(inputs, offset, trials)

    def gaussian(self, asked: "Asked") -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the predictors `(T, q)` under the priors."""
        root = torch.linalg.solve_triangular(factor(self.precision), asked.inputs.mT, upper=False)
        mean = (asked.inputs @ self.loc[..., None])[..., 0] + asked.offset
        return mean, root.square().sum(-2).clamp(min=torch.finfo(torch.float64).tiny).sqrt()


@dataclass(frozen=True)
class Asked:
    """Rows that predictions are asked for: inputs of the unknown weights `(T, q, k)`, offset and trials `(T, q)`."""

    inputs: Tensor
    offset: Tensor
    trials: Tensor

    def __getitem__(self, index: Tensor) -> "Asked":
        return Asked(self.inputs[index], self.offset[index], self.trials[index])


def _known(prior: "Regression", rows: Rows) -> list[int]:
    """Weights that all tasks share, and of which rows say nothing beside what the prior knows."""
    fixed = list(prior.roles.fixed)
    if not fixed:
        return []
    information = ((rows.trials + rows.y)[:, None] * rows.x[:, fixed].square()).sum(-1).amax(0)
    precision = prior.precision.double().diagonal(dim1=-2, dim2=-1)[..., fixed].reshape(-1, len(fixed)).amin(0)
    return fixed if bool((information <= KNOWN * precision).all()) else []
