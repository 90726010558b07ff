r"""DiffTS: draws from the prior's steps, each averaged with observations that were given the noise of their level.

As published, for one noisy observation y_a of each of some coordinates and a chain that shrinks theta,
$x_l = \sqrt{\bar\alpha_l}\, \theta + \sqrt{1 - \bar\alpha_l}\, e$: a step draws $x'_l$ from the prior, with the noise
$\bar e$ that the guess sees in $x_{l+1}$ draws $\tilde y_l \sim N(\sqrt{\bar\alpha_l}\, y + \sqrt{1 - \bar\alpha_l}\,
\bar e, \bar\alpha_l \sigma_a^2)$, and averages the two by their precisions where there is an observation.

Here noise is added without shrinking theta, so all is divided by $\sqrt{\bar\alpha_l}$, and u at a level s is
$\theta + s e$. Stepping from s to r,

$$ \tilde y_r \sim N(y + (r / s)(u_s - h_s(u_s))_a, \sigma_a^2), $$

and the prior's draw has the variances of `Chain.below_cov`, which are calibrated as the published ones are. To average
is to take the noise off the draw, meet it with the rows as if its errors were independent, and put the noise on again:
so it is written, which holds for any linear observations. Without rows it draws from the chain. Below the lowest level
r is zero, and the average of two Gaussian draws is Gaussian.

Source: Hsieh et al., Thompson sampling with diffusion generative prior (2023), section 3.2; the formulas were recalled,
not read beside the paper.
"""

import torch
from torch import Tensor

from bayesmeta.diffusion.sampling.approximate.prior_steps import first_of_prior, normal
from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.gaussians import WeightedGaussians
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.diffusion.sampling.twists import Twist

__all__ = ["diffts"]


def diffts(chain: Chain, rows: Observations, noise: ParticleNoise) -> WeightedGaussians:
    """Draws of theta for each task given its rows, of equal weights."""
    u = first_of_prior(chain, len(rows.y), noise)
    for level in range(chain.num_levels - 1, 0, -1):
        guess, cov = chain.denoise(u, level), chain.below_cov(level)
        kept = (u - guess) * float(chain.noises[level - 1] / chain.noises[level])
        drawn = normal(chain.below(u, guess, level), cov, noise) - kept
        u = _independent(rows, cov).given(drawn, rows.among(noise.normal())) + kept
    last, cov = _independent(rows, chain.residual(0)), chain.residual(0)
    return WeightedGaussians.equal(last.given(chain.denoise(u, 0)), _average_cov(last.gain(), rows, cov))


def _independent(rows: Observations, cov: Tensor) -> Twist:
    return Twist(rows, torch.diag_embed(cov.diagonal()))


def _average_cov(gain: Tensor, rows: Observations, cov: Tensor) -> Tensor:
    """Of theta + gain (y + noise - H theta), theta having a covariance: `(b, k, k)`."""
    identity = torch.eye(len(cov)).to(cov)
    kept = identity - gain @ rows.times(identity)
    return kept @ cov @ kept.mT + gain @ gain.mT
