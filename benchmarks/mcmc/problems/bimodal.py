r"""Two modes that are not alike: the sign of a parameter of which rows show the square.

$$ y_i \sim N(a^2 + b x_i,\ 0.5^2), \quad a \sim N(0.5, 1), \quad b \sim N(0, 1). $$

The prior alone says how probable either sign is: the odds of plus to minus are near $e^{|a|}$.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc import Densities
from benchmarks.mcmc.problems.simulated import Truth, reference

__all__ = ["Bimodal"]

NOISE = 0.5
LOC, SCALE = torch.tensor([0.5, 0.0]).double(), torch.ones(2).double()
LEAST, MOST = 2, 8  # rows
GRID = torch.linspace(-6.0, 7.0, 4001, dtype=torch.float64)


@dataclass(frozen=True)
class Bimodal:
    """Rows are x and y; parameters are a and b."""

    name: ClassVar[str] = "bimodal"
    categories: ClassVar[dict[int, int]] = {}

    def simulate(self, num_tasks: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        params = LOC + SCALE * torch.randn(num_tasks, 2, generator=generator, dtype=torch.float64)
        x = 2.0 * torch.rand(num_tasks, MOST, generator=generator, dtype=torch.float64) - 1.0
        noise = NOISE * torch.randn(num_tasks, MOST, generator=generator, dtype=torch.float64)
        y = params[:, :1].square() + params[:, 1:] * x + noise
        count = torch.randint(LEAST, MOST + 1, (num_tasks, 1), generator=generator)
        return params, torch.stack([x, y], -1), torch.arange(MOST) < count

    def targets(self, rows: Tensor, mask: Tensor) -> Densities:
        return Densities(_log_density, reference(len(rows), LOC, SCALE), {"rows": rows, "mask": mask})

    def share_below_zero(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Posterior probability of a < 0 of each task `(T,)`."""
        return _weights(rows, mask)[0][:, GRID < 0].sum(-1)

    def truth(self, rows: Tensor, mask: Tensor) -> Truth:
        weights, mean_b, var_b = _weights(rows, mask)
        mean = torch.stack([weights @ GRID, (weights * mean_b).sum(-1)], -1)
        second = torch.stack([weights @ GRID.square(), (weights * (var_b + mean_b.square())).sum(-1)], -1)
        return Truth(mean, (second - mean.square()).sqrt(), torch.zeros_like(mean))


def _log_density(position: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
    x, y = rows.unbind(-1)
    a, b = position[..., :1], position[..., 1:]
    misfit = (y - a.square() - b * x).square() * mask
    prior = ((position - LOC) / SCALE).square().sum(-1)
    return -0.5 * (prior + misfit.sum(-1) / NOISE**2)


def _weights(rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each a of a grid `(T, G)`, and mean and variance of b given it: b is integrated out."""
    x, y = (part * mask for part in rows.unbind(-1))
    count = mask.sum(-1, keepdim=True)
    shift = GRID.square()
    xx, xy, yy = ((p * q).sum(-1, keepdim=True) for p, q in ((x, x), (x, y), (y, y)))
    sx, sy = x.sum(-1, keepdim=True), y.sum(-1, keepdim=True)
    residual = yy - 2.0 * shift * sy + count * shift.square()
    cross = xy - shift * sx
    precision = 1.0 + xx / NOISE**2
    mean = cross / NOISE**2 / precision
    log_density = -0.5 * (GRID - LOC[0]).square() - 0.5 * residual / NOISE**2 + 0.5 * precision * mean.square()
    return log_density.softmax(-1), mean, (1.0 / precision).expand_as(mean)
