"""How a diffusion prior learns from past tasks: the Gaussian first, then a network in rounds, then its calibration."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from bayesmeta.diffusion.calibration import Calibration, calibrated
from bayesmeta.diffusion.denoiser import DenoiserNetwork
from bayesmeta.diffusion.learning import DiffusionSchedule, learn_denoiser
from bayesmeta.networks.learning.until_no_gain import num_held_out

__all__ = ["gaussian_calibration", "learn_in_rounds"]

DrawTheta = Callable[[DenoiserNetwork, Calibration, Generator], Tensor]


def gaussian_calibration(levels: Tensor, size: int) -> Calibration:
    """Of a Gaussian theta: the network is not asked, and residuals are as wide as they are then."""
    var = levels.square() / (1.0 + levels.square())
    return Calibration(torch.zeros_like(levels), var[:, None, None] * torch.eye(size).to(levels))


def learn_in_rounds(
    network: DenoiserNetwork,
    levels: Tensor,
    draw_theta: DrawTheta,
    schedule: DiffusionSchedule,
    generator: Generator,
    *,
    progress: bool,
) -> tuple[DenoiserNetwork, Calibration]:
    """A network, and what held-out tasks say of it.

    Args:
        network: where learning starts.
        draw_theta: white theta of past tasks, in one random order, from what the prior says of them with a network and
            a calibration: `(tasks, draws, k)`.
    """
    calibration = gaussian_calibration(levels, network.num_values)
    for _ in range(schedule.num_rounds):
        theta = draw_theta(network, calibration, generator)
        network, without_held_out = learn_denoiser(network, theta, schedule, generator, progress=progress)
        held_out = theta[: num_held_out(len(theta))]
        calibration = calibrated(without_held_out.module, held_out, levels, generator)
    return network, calibration
