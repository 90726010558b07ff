"""Draws from logistic and Poisson regressions: functions of x, each with weights of its own."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, Binomial, Distribution, Poisson

from bayesmeta.data.columns import Columns
from bayesmeta.doors import Draws
from bayesmeta.glm.predictor import predictor, split

__all__ = ["LogisticFunctions", "PoissonFunctions"]


@dataclass(frozen=True, eq=False)
class LogisticFunctions(Draws):
    """Draws of x -> probability of a one: weights `(draws, *batch, d)`, and the roles of the columns of x."""

    weights: Float[Tensor, "draws *batch d"]
    columns: Columns

    def __call__(self, x: Tensor) -> Tensor:
        return self.link(x).sigmoid()

    def link(self, x: Tensor) -> Tensor:
        """Logits, which differ where probabilities round to one."""
        return predictor(x, self.weights, self.columns)

    def predict(self, x: Tensor) -> Distribution:
        logits = self.link(x)
        if self.columns.trials is None:
            return Bernoulli(logits=logits)
        return Binomial(split(x, self.columns)[2].expand_as(logits), logits=logits)


@dataclass(frozen=True, eq=False)
class PoissonFunctions(Draws):
    """Draws of x -> rate: weights `(draws, *batch, d)`, and the roles of the columns of x."""

    weights: Float[Tensor, "draws *batch d"]
    columns: Columns

    def __call__(self, x: Tensor) -> Tensor:
        eta = self.link(x)
        return eta.exp().clamp(max=torch.finfo(eta.dtype).max)

    def link(self, x: Tensor) -> Tensor:
        """Logarithms of the rate, which differ where rates round to zero."""
        return predictor(x, self.weights, self.columns)

    def predict(self, x: Tensor) -> Distribution:
        return Poisson(self(x))
