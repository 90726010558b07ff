"""Distribution of successes whose log odds are normal, by sums over evenly spaced points.

See `bayesmeta.numerics.quadrature` for why these converge.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid

__all__ = ["BinomialLogitNormal"]

BINOMIAL_POINTS = torch.arange(-9.5, 9.55, 0.05, dtype=torch.float64)


class BinomialLogitNormal(Distribution):
    """Counts of successes in `trials`, whose log odds are N(loc, scale^2).

    Mean and variance are right to an absolute error of 1e-12 of the probability for a scale up to 10.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the shape in which torch declares it

    def __init__(self, trials: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.trials, self.loc, self.scale = torch.broadcast_tensors(trials, loc, scale)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.trials * self._expected(lambda eta: eta.sigmoid())

    @property
    def variance(self) -> Tensor:
        within = self._expected(lambda eta: eta.sigmoid() * (-eta).sigmoid())
        centre = self._expected(lambda eta: eta.sigmoid())
        between = self._expected(lambda eta: (eta.sigmoid() - centre.double()[..., None]).square())
        return self.trials * within + self.trials.square() * between

    def log_prob(self, value: Tensor) -> Tensor:
        count, trials = torch.broadcast_tensors(value.double(), self.trials.double())
        allowed = (count >= 0) & (count <= trials) & (count == count.floor())
        count = count.where(allowed, 0.0)
        choose = torch.lgamma(trials + 1.0) - torch.lgamma(count + 1.0) - torch.lgamma(trials - count + 1.0)
        eta, log_weights = self._points()
        each = count[..., None] * logsigmoid(eta) + (trials - count)[..., None] * logsigmoid(-eta)
        return (choose + (each + log_weights).logsumexp(-1)).where(allowed, -math.inf).to(self.loc)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draws from torch's global stream, as every `Distribution.sample`; see `bayesmeta.random.seeded`."""
        shape = (*sample_shape, *self.batch_shape)
        eta = self.loc + self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.binomial(self.trials.expand(shape).contiguous(), eta.sigmoid())

    def _points(self) -> tuple[Tensor, Tensor]:
        z = BINOMIAL_POINTS.to(self.loc.device)
        eta = self.loc.double()[..., None] + self.scale.double()[..., None] * z
        return eta, (-0.5 * z.square()).log_softmax(0)

    def _expected(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        eta, log_weights = self._points()
        return (function(eta) * log_weights.exp()).sum(-1).to(self.loc)
