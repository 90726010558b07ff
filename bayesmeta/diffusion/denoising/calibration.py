r"""How far guesses of theta are off, measured on tasks that were not learned from.

At each level, residuals of held-out tasks give the worth of the network's answers in each direction, which is their
slope on these, and the covariance of what is left. Few tasks know little of a covariance of many values, so it is drawn
towards that of a Gaussian theta's residuals by as much as tasks differ in what they say of it.

Source: Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices (2004), with tasks in
the place of rows, and a target that is known.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from bayesmeta.diffusion.denoising.denoiser import gaussian_guess, network_guess
from bayesmeta.random import randn

__all__ = ["Calibration", "calibrated", "shrunk_covariance", "within", "worth"]

NUM_LOOKS = 16  # noises for each held-out draw of theta


class Calibration(NamedTuple):
    """Of each level.

    Args:
        gates: worth of the network's answers in each direction `(s, r)`.
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


def within(basis: Tensor, residual_cov: Tensor, noises: Tensor) -> Tensor:
    """Covariances of residuals in some directions, among those of a Gaussian in all others.

    Args:
        basis: the directions, orthonormal `(k, r)`.
        residual_cov: `(s, r, r)`.
        noises: `(s,)`.

    Returns:
        `(s, k, k)`.
    """
    var, eye = (noises.square() / (1.0 + noises.square()))[:, None, None], torch.eye(len(basis)).to(basis)
    more = residual_cov - var * torch.eye(basis.shape[-1]).to(basis)
    return var * eye + basis @ more @ basis.mT


def _at(module: nn.Module, theta: Tensor, noise: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    looks = theta.repeat(1, NUM_LOOKS, 1)
    u = looks + noise * randn(looks.shape, like=looks, generator=generator)
    level = noise.expand(u.shape[:-1])
    residual, said = looks - gaussian_guess(u, level), network_guess(module, u, level)
    gate = worth(residual, said)
    counted = (gate * said).where(gate > 0.0, 0.0)  # a network that diverged may say no numbers
    return gate, shrunk_covariance(residual - counted, float(noise.square() / (1.0 + noise.square())))


def worth(residual: Tensor, said: Tensor) -> Tensor:
    """Slope of residuals on answers in each direction, from 0 to 1, drawn to 0 by as much as it may be chance.

    Args:
        residual, said: of tasks `(tasks, looks, r)`.

    Returns:
        `(r,)`.
    """
    tiny = torch.finfo(said.dtype).tiny
    total = said.square().sum((0, 1)).clamp(min=tiny)
    slope = (residual * said).sum((0, 1)) / total
    chance = ((residual - slope * said) * said).sum(1).square().sum(0) / total.square()
    drawn_in = slope * (1.0 - chance / slope.square().clamp(min=tiny)).clamp(min=0.0)
    return drawn_in.nan_to_num(0.0, 0.0, 0.0).clamp(0.0, 1.0)


def shrunk_covariance(residual: Tensor, level: float) -> Tensor:
    """Second moments of residuals `(tasks, looks, k)`, drawn towards `level` times the identity: `(k, k)`."""
    num_tasks, num_looks, k = residual.shape
    flat = residual.flatten(0, 1)
    found = flat.mT @ flat / len(flat)
    target = level * torch.eye(k).to(found)
    spread = (found - target).square().sum()
    # the squared norm of a task's own second moments, by products of its residuals
    own = (residual @ residual.mT).square().sum((-2, -1)).mean() / num_looks**2
    chance = (own - found.square().sum()).clamp(min=0.0) / max(num_tasks - 1, 1)
    # one task says nothing of how tasks differ
    share = (chance / spread.clamp(min=torch.finfo(found.dtype).tiny)).clamp(max=1.0) if num_tasks > 1 else 1.0
    return (1.0 - share) * found + share * target
