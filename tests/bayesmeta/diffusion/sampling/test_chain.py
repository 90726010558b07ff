"""The chain: what lies between two levels is a Gaussian conditional, held to one by matrices."""

import torch

from bayesmeta.diffusion.denoising.levels import Step, noises
from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.random import randn
from tests.families import F64, seed


def test_what_lies_between_two_levels() -> None:
    size = 3
    a, b = (randn((size, size), like=F64, generator=seed(i)) for i in range(2))
    root, residual = a + 3.0 * torch.eye(size).double(), b @ b.mT + 0.1 * torch.eye(size).double()
    chain = Chain(noises(2), root, torch.stack([residual, 2.0 * residual]), lambda u, _: u)
    share, _, var = chain.step(1)
    # theta and u below, given u: a joint Gaussian
    theta = root @ (2.0 * residual) @ root.mT
    below = share**2 * theta + var * root @ root.mT
    gain = torch.linalg.solve(below, share * theta).mT
    found_cov, found_gain = chain.between(1)
    torch.testing.assert_close(found_gain, gain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found_cov, theta - gain @ below @ gain.mT, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(chain.residual(0), root @ residual @ root.mT, rtol=1e-9, atol=1e-9)


def test_a_step_down_keeps_the_law_of_noise() -> None:
    step = Step.down(2.0, 0.5)
    assert step.theta_share + step.noisy_share == 1.0, "theta itself is kept"
    torch.testing.assert_close(step.noisy_share**2 * 2.0**2 + step.var, 0.5**2)
