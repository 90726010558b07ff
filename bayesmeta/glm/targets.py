"""Posteriors of regressions as chains want them: log densities of many weights at once, and closed derivatives."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bayesmeta.approximations.laplace import Rows, factor
from bayesmeta.approximations.likelihoods import LOGISTIC, Likelihood
from bayesmeta.glm.tasks import Tasks
from bayesmeta.mcmc.proposals.student import StudentMixture
from bayesmeta.numerics.linalg import log_det
from bayesmeta.numerics.special import softplus_sum

__all__ = ["RegressionTargets"]

NORMAL = 1e6  # degrees of freedom at which a Student t is normal


@dataclass(frozen=True)
class RegressionTargets:
    """The posteriors of the unknown weights of T tasks, float64.

    Args:
        likelihood: of the rows.
        rows: of the tasks.
        loc: prior means `(T, k)`.
        precision: of the priors `(T, k, k)`.
    """

    likelihood: Likelihood
    rows: Rows
    loc: Tensor
    precision: Tensor

    @classmethod
    def of(cls, tasks: Tasks) -> "RegressionTargets":
        return cls(tasks.likelihood, tasks.rows, tasks.loc, tasks.precision)

    @property
    def num_tasks(self) -> int:
        return len(self.loc)

    @property
    def width(self) -> int:
        return max(1, self.rows.y.shape[-1])

    @cached_property
    def reference(self) -> StudentMixture:
        """The priors."""
        root = torch.linalg.cholesky(torch.cholesky_inverse(factor(self.precision)))
        return StudentMixture(torch.zeros_like(self.loc[:, :1]), self.loc[:, None], root[:, None], NORMAL)

    @cached_property
    def _signed(self) -> Tensor | None:
        """Inputs and offset of zeros and ones, towards the class that a row is not of: `(T, n, k + 1)`; else None."""
        rows = self.rows
        if self.likelihood is not LOGISTIC or not bool((rows.trials <= 1.0).all()):
            return None
        sign = 1.0 - 2.0 * rows.y
        away = (sign * rows.offset).where(rows.trials > 0, -torch.inf)  # of rows that are not real: log(1 + 0)
        return torch.cat([(sign[:, None] * rows.x).mT, away[..., None]], -1)

    def log_density(self, positions: Tensor) -> Tensor:
        weights = positions.reshape(-1, *self.loc.shape).movedim(0, -1)  # (T, k, draws)
        fit = self._fit(weights)
        offset = weights - self.loc[..., None]
        distance = (offset * (self.precision @ offset)).sum(1)
        return (fit - 0.5 * distance + self._constant[:, None]).mT.reshape(positions.shape[:-1])

    @cached_property
    def _constant(self) -> Tensor:
        """Of the priors' densities `(T,)`."""
        return log_det(factor(self.precision)).mul(0.5) - 0.5 * self.loc.shape[-1] * math.log(2.0 * math.pi)

    def _fit(self, weights: Tensor) -> Tensor:
        """Log likelihood `(T, draws)`."""
        signed, rows = self._signed, self.rows
        if signed is not None and not weights.requires_grad:
            away = softplus_sum(torch.baddbmm(signed[..., -1:], signed[..., :-1], weights))
            if bool((away < torch.inf).all()):
                return -away
        eta = torch.baddbmm(rows.offset[..., None], rows.x.mT, weights)
        return self.likelihood.log_prob(eta, rows.y[..., None], rows.trials[..., None]).sum(1)

    def derivatives(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, shift = self.rows, positions - self.loc
        eta = (positions[..., None, :] @ rows.x)[..., 0, :] + rows.offset
        pull = (self.precision @ shift[..., None])[..., 0]
        slope = self.likelihood.slope(eta, rows.y, rows.trials)
        value = self.likelihood.log_prob(eta, rows.y, rows.trials).sum(-1) - 0.5 * (shift * pull).sum(-1)
        value = value + self._constant
        gradient = (rows.x @ slope[..., None])[..., 0] - pull
        curvature = self.likelihood.curvature(eta) * rows.trials
        return value, gradient, self.precision + (rows.x * curvature[..., None, :]) @ rows.x.mT

    def __getitem__(self, index: Tensor) -> "RegressionTargets":
        part = replace(self, rows=self.rows[index], loc=self.loc[index], precision=self.precision[index])
        if "_signed" in self.__dict__:  # what is known of all need not be found again for some
            signed = self.__dict__["_signed"]
            part.__dict__["_signed"] = None if signed is None else signed[index]
        if "_constant" in self.__dict__:
            part.__dict__["_constant"] = self.__dict__["_constant"][index]
        return part
