"""Distributions of theta whose posterior is known, as chains with exact guesses."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from bayesmeta.diffusion.denoising.levels import noises
from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.random import categorical, randn
from tests.families import F64, seed

__all__ = ["ThreeModes", "gaussian_chain", "symmetric_root"]


def symmetric_root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    return (vectors * values.sqrt()) @ vectors.mT


def gaussian_chain(cov: Tensor, num_levels: int) -> Chain:
    """Of N(0, cov)."""
    levels = noises(num_levels)
    var = levels.square() / (1.0 + levels.square())
    residual_cov = var[:, None, None] * torch.eye(len(cov)).to(cov)
    return Chain(levels, symmetric_root(cov), residual_cov, lambda u, level: u / (1.0 + levels[level].square()))


class ThreeModes:
    """A mixture of three Gaussians about a mean of zero, by a number."""

    within = 0.3

    def __init__(self, size: int, number: int) -> None:
        modes = randn((3, size), like=F64, generator=seed(number))
        self.weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
        self.modes = modes - self.weights @ modes
        self.cov = (self.modes.mT * self.weights) @ self.modes + self._within

    @property
    def _within(self) -> Tensor:
        return self.within**2 * torch.eye(self.modes.shape[-1], dtype=torch.float64)

    def draw(self, num: int, number: int) -> Tensor:
        generator = seed(number)
        mode = categorical(num, self.weights.log(), generator=generator)
        return self.modes[mode] + self.within * randn((num, self.modes.shape[-1]), like=F64, generator=generator)

    def log_odds(self, matrix: Tensor, y: Tensor, cov: Tensor) -> Tensor:
        """log p(mode, y) of y = matrix theta + N(0, cov), `(..., 3)`."""
        total = matrix @ self._within @ matrix.mT + cov
        each = [MultivariateNormal(matrix @ mode, total).log_prob(y) for mode in self.modes]
        return torch.stack(each, -1) + self.weights.log()

    def guess(self, u: Tensor, noise: Tensor) -> Tensor:
        """The exact mean of theta given theta with noise."""
        eye = torch.eye(len(self.cov)).to(u)
        share = self.log_odds(eye, u, noise.square() * self.cov).softmax(-1)
        gain = torch.linalg.solve(self._within + noise.square() * self.cov, self._within).mT
        means = self.modes + (u[..., None, :] - self.modes) @ gain.mT
        return (share[..., None] * means).sum(-2)

    def chain(self, num_levels: int, number: int) -> Chain:
        """With exact guesses, and their residuals as 4000 draws show them."""
        levels, root = noises(num_levels), symmetric_root(self.cov)
        theta, back = self.draw(4000, number), torch.linalg.inv(symmetric_root(self.cov))
        covs = []
        for level in levels:
            u = theta + level * randn(theta.shape, like=theta, generator=seed(number + 1)) @ root.mT
            left = (theta - self.guess(u, level)) @ back.mT
            covs.append(left.mT @ left / len(left))
        return Chain(levels, root, torch.stack(covs), lambda u, level: self.guess(u, levels[level]))
