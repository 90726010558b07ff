"""What the approximate samplers share: draws of the chain before any rows."""

from torch import Tensor

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.numerics.linalg import cholesky

__all__ = ["first_of_prior", "normal"]


def first_of_prior(chain: Chain, num_tasks: int, noise: ParticleNoise) -> Tensor:
    """Draws of u at the highest level `(num_tasks, n, k)`."""
    wide = (1.0 + chain.noises[-1].square()).sqrt()
    return (wide * noise.normal() @ chain.root.mT).expand(num_tasks, -1, -1)


def normal(mean: Tensor, cov: Tensor, noise: ParticleNoise) -> Tensor:
    """Draws about means `(b, n, k)` with one covariance."""
    return mean + noise.normal() @ cholesky(cov, "covariance of a step").mT
