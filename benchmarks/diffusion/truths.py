"""Distributions of mean rewards whose posterior is known in closed form, and rows of their tasks."""

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from bayesmeta import CorrelatedArms, Data, Mixture
from bayesmeta.random import randn

__all__ = ["all_arms", "counts_of", "gaussian_truth", "rows_by_count", "three_modes"]

LIKE = torch.zeros(0, dtype=torch.float64)
SHARES = (0.5, 0.3, 0.2)
WITHIN = 0.3  # standard deviation within a mode; modes are standard normal


def gaussian_truth(num_arms: int, noise_sd: float, generator: Generator) -> CorrelatedArms:
    """N(0, C) with C of variances about one, of which as many factors as there are arms make up all but a tenth."""
    a = randn((num_arms, num_arms), like=LIKE, generator=generator)
    decay = 1.0 / (1.0 + torch.arange(num_arms, dtype=torch.float64))
    factors = a * decay.sqrt()
    cov = factors @ factors.mT / decay.sum()
    cov = 0.9 * cov + 0.1 * torch.eye(num_arms).double()
    return CorrelatedArms(
        torch.zeros(num_arms).double(), torch.linalg.cholesky(cov), torch.tensor(noise_sd**2).double()
    )


def three_modes(num_arms: int, noise_sd: float, generator: Generator) -> Mixture:
    """Three Gaussians of shares .5, .3 and .2, with narrow spheres about their means."""
    modes = randn((3, num_arms), like=LIKE, generator=generator)
    root = WITHIN * torch.eye(num_arms).double().expand(3, -1, -1)
    noise_var = torch.full((3,), noise_sd**2, dtype=torch.float64)
    return Mixture(CorrelatedArms(modes, root, noise_var), torch.tensor(SHARES, dtype=torch.float64).log())


def all_arms(num_arms: int) -> Tensor:
    """One row for each arm, `(k, 1)`."""
    return torch.arange(num_arms, dtype=torch.float64)[:, None]


def rows_by_count(theta: Tensor, count: Tensor, noise_sd: float, generator: Generator) -> Data:
    """Tasks with some rows of each arm.

    Args:
        theta: mean rewards `(tasks, k)`.
        count: rows of each arm `(tasks, k)`, whole numbers; there may be none.
    """
    ends = count.cumsum(-1)
    place = torch.arange(int(ends[:, -1].max())).expand(len(theta), -1).contiguous()
    mask = place < ends[:, -1:]
    arm = torch.searchsorted(ends, place, right=True).clamp(max=theta.shape[-1] - 1)
    y = theta.gather(-1, arm) + noise_sd * randn(arm.shape, like=theta, generator=generator)
    return Data(arm[..., None].to(theta), y.where(mask, 0.0), mask)


def counts_of(arm: Tensor, num_arms: int) -> Tensor:
    """How often each arm is named: `(tasks, n)` to `(tasks, k)`."""
    return one_hot(arm, num_arms).sum(-2)
