r"""How far guesses of theta are off, measured on tasks that were not learned from.

At each level, residuals r of held-out tasks give the worth of the network's answers, which is the slope of r on them,
and the covariance of what is left. Few tasks know little of a covariance of many values, so it is drawn towards
s I, the covariance of a Gaussian theta's residuals, by as much as tasks differ in what they say of it.

Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices (2004), with tasks in
the place of rows.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from bayesmeta.diffusion.denoising.denoiser import gaussian_guess, network_guess
from bayesmeta.random import randn

__all__ = ["Calibration", "calibrated", "shrunk_covariance"]

NUM_LOOKS = 16  # noises for each held-out draw of theta


class Calibration(NamedTuple):
    """Of each level.

    Args:
        gates: worth of the network's answers `(s,)`.
        residual_cov: `(s, k, k)`.
    """

    gates: Tensor
    residual_cov: Tensor


def calibrated(module: nn.Module, theta: Tensor, noises: Tensor, generator: Generator) -> Calibration:
    """Gates and covariances of residuals at levels.

    Args:
        theta: of held-out tasks, in units in which it is white `(tasks, draws, k)`.
        noises: of the levels `(s,)`.
    """
    each = [_at(module, theta, noise, generator) for noise in noises]
    return Calibration(*(torch.stack(parts) for parts in zip(*each, strict=True)))


def _at(module: nn.Module, theta: Tensor, noise: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    looks = theta.repeat(1, NUM_LOOKS, 1)
    u = looks + noise * randn(looks.shape, like=looks, generator=generator)
    level = noise.expand(u.shape[:-1])
    residual, said = looks - gaussian_guess(u, level), network_guess(module, u, level)
    worth = (residual * said).sum() / said.square().sum().clamp(min=torch.finfo(said.dtype).tiny)
    gate = worth.clamp(0.0, 1.0)
    return gate, shrunk_covariance(residual - gate * said)


def shrunk_covariance(residual: Tensor) -> Tensor:
    """Second moments of residuals `(tasks, looks, k)`, drawn towards s I: `(k, k)`."""
    num_tasks, num_looks, k = residual.shape
    flat = residual.flatten(0, 1)
    found = flat.mT @ flat / len(flat)
    level = found.diagonal().mean()
    identity = torch.eye(k).to(found)
    spread = (found - level * identity).square().sum()
    # the squared norm of a task's own second moments, by products of its residuals
    own = (residual @ residual.mT).square().sum((-2, -1)).mean() / num_looks**2
    chance = (own - found.square().sum()).clamp(min=0.0) / max(num_tasks - 1, 1)
    # one task says nothing of how tasks differ
    share = (chance / spread.clamp(min=torch.finfo(found.dtype).tiny)).clamp(max=1.0) if num_tasks > 1 else 1.0
    return (1.0 - share) * found + share * level * identity
