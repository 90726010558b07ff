"""Whether a task is like those that a network learned from, by how far its summary lies from theirs.

A network answers whatever it is asked, and an answer about rows unlike all that it has seen is a guess. The distance is
Mahalanobis', and too far is beyond nearly all tasks that the distance was not made from.

Source: Schmitt et al., Detecting model misspecification in amortized Bayesian inference with neural networks (2023).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.fields import TensorFields

__all__ = ["SummaryDistance"]

QUANTILE = 0.999  # of distances of held-out tasks, beyond which a task is unlike them
RIDGE = 1e-2  # that is added to correlations
LEAST_SPREAD = 1e-3  # of an entry, as a share of the largest


@dataclass(frozen=True, eq=False)
class SummaryDistance(TensorFields):
    """Distance of summaries from those of many tasks.

    Args:
        loc: mean of the summaries.
        scale_tril: factor of their covariance.
        limit: distance beyond which a task is unlike the others.
    """

    loc: Float[Tensor, "s"]
    scale_tril: Float[Tensor, "s s"]
    limit: Float[Tensor, ""]

    @classmethod
    def of(cls, summaries: Tensor, held_out: Tensor) -> "SummaryDistance":
        """By summaries `(T, s)`, and those of other tasks, which say what is far."""
        loc, spread = summaries.mean(0), summaries.std(0)
        spread = spread.clamp(min=max(LEAST_SPREAD * float(spread.max()), torch.finfo(spread.dtype).tiny))
        standard = (summaries - loc) / spread
        eye = torch.eye(len(loc)).to(loc)
        root = torch.linalg.cholesky(standard.mT @ standard / len(standard) + RIDGE * eye)
        made = cls(loc, spread[:, None] * root, loc.new_tensor(torch.inf))
        return made._replace(limit=made(held_out).quantile(QUANTILE))

    def __call__(self, summaries: Tensor) -> Tensor:
        """Of summaries `(T, s)`, shape `(T,)`."""
        z = torch.linalg.solve_triangular(self.scale_tril, (summaries - self.loc).mT, upper=False)
        return z.square().sum(0).sqrt()

    def unlike(self, summaries: Tensor) -> Tensor:
        """Which are beyond the limit `(T,)`; so are those that are no numbers."""
        return ~(self(summaries) <= self.limit)
