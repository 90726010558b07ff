r"""Hierarchical scales: five groups with their mean and their spread, nothing integrated out.

$$ y_j \sim N(\theta_j, s_j^2), \quad \theta_j \sim N(\mu, \tau^2), \quad \mu \sim N(0, 2^2), \quad
   \log\tau \sim N(0, 1), $$

with standard errors $s_j$ that are known. Where tau is small, so is all room for theta: a funnel.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc import Densities
from benchmarks.mcmc.problems.simulated import Truth, reference

__all__ = ["Groups"]

NUM_GROUPS = 5
MU_SCALE = 2.0
GRID = torch.linspace(-6.0, 5.0, 1101, dtype=torch.float64)  # of log tau


@dataclass(frozen=True)
class Groups:
    """Rows are the number of a group, y and log s; parameters are mu, log tau and the thetas."""

    name: ClassVar[str] = "groups"
    categories: ClassVar[dict[int, int]] = {0: NUM_GROUPS}

    def simulate(self, num_tasks: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        def noise(columns: int) -> Tensor:
            return torch.randn(num_tasks, columns, generator=generator, dtype=torch.float64)

        mu, log_tau = MU_SCALE * noise(1), noise(1)
        theta = mu + log_tau.exp() * noise(NUM_GROUPS)
        log_s = 0.5 * noise(NUM_GROUPS)
        y = theta + log_s.exp() * noise(NUM_GROUPS)
        group = torch.arange(NUM_GROUPS).double().expand_as(y)
        mask = torch.ones(y.shape, dtype=torch.bool)
        return torch.cat([mu, log_tau, theta], -1), torch.stack([group, y, log_s], -1), mask

    def targets(self, rows: Tensor, mask: Tensor) -> Densities:
        wide = torch.tensor([MU_SCALE, 1.0, *[4.0] * NUM_GROUPS]).double()
        data = {"y": rows[..., 1], "precision": (-2.0 * rows[..., 2]).exp() * mask}
        return Densities(_log_density, reference(len(rows), torch.zeros_like(wide), wide), data)

    def truth(self, rows: Tensor, mask: Tensor) -> Truth:
        """Given tau all is Gaussian, and tau is on a grid."""
        y, s2 = rows[..., None, :, 1], (2.0 * rows[..., None, :, 2]).exp()
        tau2 = (2.0 * GRID)[:, None].exp()
        marginal = 1.0 / (s2 + tau2)  # (T, G, J)
        mu_precision = MU_SCALE**-2.0 + marginal.sum(-1)
        mu = (marginal * y).sum(-1) / mu_precision
        log_evidence = 0.5 * (marginal.log().sum(-1) - mu_precision.log() - (marginal * y.square()).sum(-1))
        log_evidence = log_evidence + 0.5 * mu_precision * mu.square()
        weights = (log_evidence - 0.5 * GRID.square()).softmax(-1)
        keep = s2 * marginal  # how much of mu there is in theta
        theta = keep * mu[..., None] + (1.0 - keep) * y
        theta_var = (1.0 - keep) * s2 + keep.square() / mu_precision[..., None]
        log_tau = GRID.expand_as(mu)[..., None]
        means = torch.cat([mu[..., None], log_tau, theta], -1)
        var = torch.cat([1.0 / mu_precision[..., None], torch.zeros_like(log_tau), theta_var], -1)
        mean = (weights[..., None] * means).sum(1)
        second = (weights[..., None] * (var + means.square())).sum(1)
        return Truth(mean, (second - mean.square()).sqrt(), torch.zeros_like(mean))


def _log_density(position: Tensor, y: Tensor, precision: Tensor) -> Tensor:
    mu, log_tau, theta = position[..., 0], position[..., 1], position[..., 2:]
    spread = ((theta - mu[..., None]).square().sum(-1)) * (-2.0 * log_tau).exp()
    fit = ((y - theta).square() * precision).sum(-1)
    prior = (mu / MU_SCALE).square() + log_tau.square()
    return -0.5 * (prior + spread + fit) - NUM_GROUPS * log_tau
