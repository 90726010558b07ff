r"""How far guesses are off on held-out tasks, said so that it holds for any set of arms.

At a level whose residuals would have variance v were theta Gaussian, those in the direction of an eigenvalue
$\lambda_j$ of the covariance of the arms, of which $\lambda_1$ is the greatest, have

$$ v \exp(a + b \log(\lambda_j / \lambda_1)), $$

with a and b for each level, by likelihood on held-out tasks. Few tasks leave a and b near zero. A gate for each level
is what the network's answers are worth there, over all directions in units of theta.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from bayesmeta.diffusion.denoising.attention import ArmSets, AtArms, AttentionDenoiser
from bayesmeta.diffusion.denoising.calibration import NUM_LOOKS, worth
from bayesmeta.diffusion.denoising.denoiser import gaussian_guess, network_guess
from bayesmeta.random import randn

__all__ = ["SetCalibration", "calibrated_on_sets", "factors", "gaussian_set_calibration", "widths"]

NUM_STEPS = 20  # of Newton's method
LARGEST_LOG = 7.0  # of a factor


class SetCalibration(NamedTuple):
    """Of each level.

    Args:
        gates: worth of the network's answers `(s,)`.
        residual_factors: a and b `(s, 2)`.
    """

    gates: Tensor
    residual_factors: Tensor


def gaussian_set_calibration(levels: Tensor) -> SetCalibration:
    """Where theta is Gaussian."""
    return SetCalibration(torch.zeros_like(levels), torch.zeros(len(levels), 2).to(levels))


def widths(variances: Tensor) -> Tensor:
    """log(eigenvalue / greatest), 0 for pads: `(*batch, r)`."""
    return (variances / variances.amax(-1, keepdim=True)).where(variances > 0.0, 1.0).log()


def factors(residual_factors: Tensor, widths: Tensor) -> Tensor:
    """Of the variance of residuals: `(*levels, r)` from `(*levels, 2)` and `(r,)`."""
    logs = residual_factors[..., :1] + residual_factors[..., 1:] * widths
    return logs.clamp(-LARGEST_LOG, LARGEST_LOG).exp()


def calibrated_on_sets(
    network: AttentionDenoiser, theta: Tensor, sets: ArmSets, variances: Tensor, levels: Tensor, generator: Generator
) -> SetCalibration:
    """By held-out tasks.

    Args:
        theta: white coordinates `(tasks, draws, r)`, zero for pads.
        sets: of the tasks.
        variances: of the coordinates, zero for pads `(tasks, r)`.
        levels: `(s,)`.
    """
    arms = ArmSets(*(part[:, None] for part in sets))
    module = AtArms(network.module, arms)
    each = [_at(module, theta, variances, level, generator) for level in levels]
    return SetCalibration(*(torch.stack(parts) for parts in zip(*each, strict=True)))


def _at(
    module: torch.nn.Module, theta: Tensor, variances: Tensor, noise: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    looks = theta.repeat(1, NUM_LOOKS, 1)
    u = looks + noise * randn(looks.shape, like=looks, generator=generator)
    level = noise.expand(u.shape[:-1])
    with torch.no_grad():
        residual, said = looks - gaussian_guess(u, level), network_guess(module, u, level)
    real = variances > 0.0
    share = (variances / variances.sum(-1, keepdim=True)).sqrt()[:, None]
    gate = worth((residual * share).flatten(1)[..., None], (said * share).flatten(1)[..., None])[0]
    left = residual - (gate * said).where(gate > 0.0, 0.0)
    squares = left.square().mean(1) * (1.0 + noise.square()) / noise.square()
    return gate, _fitted(squares, widths(variances), real)


def _fitted(squares: Tensor, widths: Tensor, real: Tensor) -> Tensor:
    """a and b by likelihood, with a standard normal prior: squares, widths and real `(tasks, r)`."""
    squares, design = squares[real], torch.stack([torch.ones_like(widths[real]), widths[real]], -1)
    found = design.new_zeros(2)
    for _ in range(NUM_STEPS):
        expected = squares * (-(design @ found).clamp(-LARGEST_LOG, LARGEST_LOG)).exp()
        slope = 0.5 * design.mT @ (1.0 - expected) + found
        # by the greater of both curvatures a step is never too long
        curvature = 0.5 * (design.mT * expected.clamp(min=1.0)) @ design + torch.eye(2).to(design)
        found = found - torch.linalg.solve(curvature, slope)
    return found
