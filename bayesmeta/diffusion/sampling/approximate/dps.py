r"""DPS: the prior's steps, moved to where the guess of theta explains the rows better.

As published, for a chain that shrinks theta, $x_l = \sqrt{\bar\alpha_l}\, \theta + \sqrt{1 - \bar\alpha_l}\, e$, with
observations $y = A \theta + $ noise: from the prior's draw of $x_{l-1}$ is taken
$\zeta \nabla_{x_l} \lVert y - A h(x_l) \rVert$, the gradient of the log likelihood of the guess divided by the length
of what it leaves, for without that division the steps diverge where noise is small. The gradient goes through h.

Here noise is added without shrinking theta, u at a level s is $\theta + s e$ with e of covariance C, and the published
x is $C^{-1/2} u / \sqrt{1 + s^2}$, in whose units the step from s to r moves u by

$$ - \zeta \sqrt{(1 + r^2)(1 + s^2)}\, C\, \nabla_u \lVert y - A h_s(u) \rVert, $$

A being the rows in units of their noise, divided by one number for all of them which makes it of norm one on
$C^{-1/2} \theta$, as a mask of pixels is. The published chain has a thousand steps. Without rows it draws from the
chain.

Source: Chung et al., Diffusion posterior sampling for general noisy inverse problems (2023), algorithm 1.
"""

import torch
from torch import Tensor

from bayesmeta.diffusion.sampling.approximate.prior_steps import first_of_prior, normal
from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.gaussians import WeightedGaussians
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.numerics.gradients import gradients

__all__ = ["dps", "guess_and_slope"]

SCALE = 0.8  # zeta: of the scales tried, that of the least error on Gaussians with ten levels


def dps(chain: Chain, rows: Observations, noise: ParticleNoise) -> WeightedGaussians:
    """Draws of theta for each task given its rows, of equal weights."""
    u, noises = first_of_prior(chain, len(rows.y), noise), [0.0, *chain.noises.tolist()]
    for level in range(chain.num_levels - 1, -1, -1):
        guess, slope = guess_and_slope(chain, rows, u, level)
        length = SCALE * ((1.0 + noises[level] ** 2) * (1.0 + noises[level + 1] ** 2)) ** 0.5
        mean = chain.below(u, guess, level) - length * slope @ chain.cov
        u = normal(mean, chain.below_cov(level), noise) if level else mean
    return WeightedGaussians.equal(u, chain.residual(0).expand(len(u), -1, -1))


def guess_and_slope(chain: Chain, rows: Observations, u: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """The guess of theta, and the gradient of the length of what it leaves of the rows: `(b, n, k)` each."""
    with gradients():
        u = u.detach().clone().requires_grad_()
        guess = chain.denoise(u, level)
        found = guess.detach()
        left = rows.y[:, None] - rows.of(found)
        direction = left / torch.linalg.vector_norm(left, dim=-1, keepdim=True).clamp(min=torch.finfo(left.dtype).tiny)
        matrix = rows.times(torch.eye(u.shape[-1]).to(u))
        (slope,) = torch.autograd.grad(guess, u, -(direction / _norm(chain, rows)[:, None, None]) @ matrix)
    return found, slope


def _norm(chain: Chain, rows: Observations) -> Tensor:
    """Of what the rows make of theta in units in which it is white `(b,)`; one where there are no rows."""
    both = rows.both(chain.cov)
    if not both.shape[-1]:
        return both.new_ones(len(both))
    largest = torch.linalg.eigvalsh(both)[:, -1]
    return largest.sqrt().where(largest > 0.0, 1.0)
