"""Elliptical slice sampling against a posterior in closed form."""

import math

import torch

from bayesmeta.mcmc.kernels.elliptical_slice import elliptical_slice
from tests.families import seed


def test_slice_sampling_draws_what_it_should() -> None:
    """A normal likelihood of one number: the posterior is normal too."""
    generator = seed(0)
    points = torch.randn(4000, 1, generator=generator).double()
    for _ in range(20):
        points = elliptical_slice(points, lambda at: -0.5 * ((at[:, 0] - 2.0) / 0.5).square(), generator)
    var = 1.0 / (1.0 + 4.0)
    assert abs(float(points.mean()) - var * 8.0) < 5 * math.sqrt(var / 4000)
    assert abs(float(points.var()) - var) < 5 * var * math.sqrt(2 / 4000)
