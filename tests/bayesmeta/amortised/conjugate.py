"""Tasks whose posteriors are normal, in closed form, for the tests of amortised proposals."""

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc import Densities
from tests.bayesmeta.mcmc.targets import normal_reference

__all__ = ["MOST", "exact", "posteriors", "simulate"]

MOST = 5  # rows of a task
LOC = torch.tensor([30.0, -2.0], dtype=torch.float64)
ROOT = torch.tensor([[4.0, 0.0], [0.3, 0.5]], dtype=torch.float64)  # of the prior covariance
NOISE = torch.tensor([3.0, 0.6], dtype=torch.float64)


def simulate(num_tasks: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Means under a prior far from zero, and rows about them; a task may have none."""
    params = LOC + torch.randn(num_tasks, 2, generator=generator, dtype=torch.float64) @ ROOT.mT
    noise = torch.randn(num_tasks, MOST, 2, generator=generator, dtype=torch.float64)
    count = torch.randint(0, MOST + 1, (num_tasks, 1), generator=generator)
    return params, params[:, None] + NOISE * noise, torch.arange(MOST) < count


def exact(rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Means `(T, 2)` and covariances `(T, 2, 2)` of posteriors."""
    prior = torch.linalg.inv(ROOT @ ROOT.mT)
    precision = prior + mask.sum(-1)[:, None, None] * torch.diag(NOISE**-2.0)
    total = (rows * mask[..., None]).sum(1) / NOISE.square() + prior @ LOC
    cov = torch.linalg.inv(precision)
    return (cov @ total[..., None])[..., 0], cov


def posteriors(rows: Tensor, mask: Tensor) -> Densities:
    mean, cov = exact(rows, mask)

    def log_density(x: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
        return -0.5 * ((x - mean)[..., None, :] @ precision @ (x - mean)[..., None])[..., 0, 0]

    wide = normal_reference(len(rows), 2, 1.0)
    wide = wide._replace(loc=wide.loc + LOC, scale_tril=wide.scale_tril @ (1.5 * ROOT))
    return Densities(log_density, wide, {"mean": mean, "precision": torch.linalg.inv(cov)})
