"""Targets whose posteriors are known, for the tests of chains."""

import math

import torch
from torch import Tensor

from bayesmeta.mcmc import Densities, StudentMixture
from tests.seeds import seed

__all__ = ["gaussians", "normal_reference", "two_modes"]

LEFT = 0.3  # share of the mode at minus the centre


def normal_reference(tasks: int, d: int, scale: float) -> StudentMixture:
    """All but normal about zero."""
    zero = torch.zeros(tasks, 1, dtype=torch.float64)
    return StudentMixture(
        zero, zero[..., None].expand(tasks, 1, d), scale * torch.eye(d).double().expand(tasks, 1, d, d), 1e6
    )


def gaussians(tasks: int, d: int, number: int = 0) -> tuple[Densities, Tensor, Tensor]:
    """Unnormalised normal targets, with means `(T, d)` and covariances `(T, d, d)`."""
    g = seed(number)
    mean = torch.randn(tasks, d, generator=g, dtype=torch.float64)
    root = torch.eye(d).double() + 0.4 * torch.randn(tasks, d, d, generator=g, dtype=torch.float64).tril()
    cov = root @ root.mT

    def log_density(x: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
        return -0.5 * ((x - mean)[..., None, :] @ precision @ (x - mean)[..., None])[..., 0, 0]

    data = {"mean": mean, "precision": torch.linalg.inv(cov)}
    return Densities(log_density, normal_reference(tasks, d, 3.0), data), mean, cov


def two_modes(tasks: int, number: int = 0) -> tuple[Densities, Tensor]:
    """Two normals in two dimensions at plus and minus a centre, the first with weight 1 - LEFT; and the centres."""
    centre = 2.0 + 3.0 * torch.rand(tasks, 2, generator=seed(number), dtype=torch.float64)

    def log_density(x: Tensor, centre: Tensor) -> Tensor:
        right = -0.5 * ((x - centre) / 0.5).square().sum(-1) + math.log((1.0 - LEFT) / 0.25)
        left = -0.5 * ((x + centre) / 0.7).square().sum(-1) + math.log(LEFT / 0.49)
        return torch.logaddexp(right, left) - math.log(2.0 * math.pi)

    return Densities(log_density, normal_reference(tasks, 2, 5.0), {"centre": centre}), centre
