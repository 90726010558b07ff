r"""Skew posteriors: a logistic regression of five parameters with six rows, under a prior that is wide.

$$ y_i \sim \text{Bernoulli}(\sigma(x_i^\top w)), \quad w \sim N(0, 5^2 I), $$

x being a one and four standard normal numbers. Where the six are separated, only the prior ends the likelihood's plain.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from bayesmeta.mcmc import Densities
from benchmarks.mcmc.problems.simulated import Truth, reference

__all__ = ["FewRows"]

NUM_PARAMS, NUM_ROWS, SCALE = 5, 6, 5.0
NUM_DRAWS = 2**17  # of the prior, by which the truth is known
AT_ONCE = 8  # tasks


@dataclass(frozen=True)
class FewRows:
    """Rows are a one and four inputs, times 1 where y is one and -1 where it is zero: all that counts of them."""

    name: ClassVar[str] = "skew"
    categories: ClassVar[dict[int, int]] = {}

    def simulate(self, num_tasks: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        params = SCALE * torch.randn(num_tasks, NUM_PARAMS, generator=generator, dtype=torch.float64)
        x = torch.randn(num_tasks, NUM_ROWS, NUM_PARAMS - 1, generator=generator, dtype=torch.float64)
        x = torch.cat([torch.ones_like(x[..., :1]), x], -1)
        logits = (x @ params[..., None])[..., 0]
        y = torch.rand(logits.shape, generator=generator, dtype=torch.float64) < logits.sigmoid()
        mask = torch.ones(num_tasks, NUM_ROWS, dtype=torch.bool)
        return params, torch.where(y[..., None], x, -x), mask

    def targets(self, rows: Tensor, mask: Tensor) -> Densities:
        prior = reference(len(rows), torch.zeros(NUM_PARAMS).double(), torch.full((NUM_PARAMS,), SCALE).double())
        return Densities(_log_density, prior, {"signed": rows * mask[..., None]})

    def truth(self, rows: Tensor, mask: Tensor) -> Truth:
        """By importance sampling from the prior."""
        generator = Generator().manual_seed(0)
        draws = SCALE * torch.randn(NUM_DRAWS, NUM_PARAMS, generator=generator, dtype=torch.float64)
        found = []
        for signed in (rows * mask[..., None]).split(AT_ONCE):
            log_weights = logsigmoid(torch.einsum("sp,tnp->stn", draws, signed)).sum(-1)
            weights = log_weights.softmax(0)
            mean = weights.mT @ draws
            var = weights.mT @ draws.square() - mean.square()
            found.append(torch.stack([mean, var.sqrt(), (var * weights.square().sum(0)[:, None]).sqrt()]))
        return Truth(*torch.cat(found, 1))


def _log_density(position: Tensor, signed: Tensor) -> Tensor:
    logits = (signed @ position[..., None])[..., 0]
    constant = NUM_PARAMS * math.log(SCALE)
    return -0.5 * (position / SCALE).square().sum(-1) - constant + logsigmoid(logits).sum(-1)
