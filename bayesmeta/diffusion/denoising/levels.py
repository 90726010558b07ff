r"""Noise levels of a diffusion prior: what is added to theta, and how much of it a step takes away.

Noise has the covariance of theta itself, so that at a level s

$$ u_s = \theta + s e, \quad e \sim N(0, C), \quad C = \operatorname{cov}(\theta), $$

all directions are as far from being seen through, and were theta Gaussian, its mean given u_s would be u_s / (1 + s^2)
(about the mean of theta, as everything here). A step down from s to r is, once theta is known,

$$ u_r \mid u_s, \theta \sim N(\theta + (r / s)^2 (u_s - \theta), r^2 (1 - r^2 / s^2) C). $$

Source: Karras et al., Elucidating the design space of diffusion-based generative models (2022), for noise that is
added without shrinking theta.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LARGEST_NOISE", "SMALLEST_NOISE", "Step", "noises"]

SMALLEST_NOISE, LARGEST_NOISE = 0.15, 8.0  # in standard deviations of theta


class Step(NamedTuple):
    """From one level to a lower one: u_r = theta_share theta + noisy_share u_s + a root of `var` times noise."""

    theta_share: float
    noisy_share: float
    var: float

    @classmethod
    def down(cls, high: float, low: float) -> "Step":
        kept = (low / high) ** 2
        return cls(1.0 - kept, kept, low * low * (1.0 - kept))


def noises(num: int) -> Tensor:
    """Levels from the lowest to the highest, evenly on the scale of logarithms."""
    return torch.logspace(math.log10(SMALLEST_NOISE), math.log10(LARGEST_NOISE), num, dtype=torch.float64)
