"""The particle filter without its weights: particles go down by the same proposals, and all count alike.

Exact where theta is Gaussian. Elsewhere it is right about each guess and wrong about how guesses of different shapes
compare: of several modes that explain the rows, it does not tell the likely ones.
"""

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.gaussians import WeightedGaussians
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.diffusion.sampling.particle_filter import filtered
from bayesmeta.diffusion.sampling.twists import Twist
from bayesmeta.numerics.linalg import symmetric

__all__ = ["unweighted"]


def unweighted(chain: Chain, rows: Observations, noise: ParticleNoise) -> WeightedGaussians:
    """Draws of theta for each task given its rows, of equal weights."""
    found = filtered(chain, rows, noise, few=0.0)
    last = Twist(rows, chain.residual(0))
    return WeightedGaussians.equal(last.given(found.mean), symmetric(last.cov_given()))
