"""What the approximate samplers share: draws of the chain before any rows."""

from torch import Generator, Tensor

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.numerics.linalg import cholesky
from bayesmeta.random import randn

__all__ = ["first_of_prior", "normal"]


def first_of_prior(chain: Chain, num_tasks: int, num: int, generator: Generator) -> Tensor:
    """Draws of u at the highest level `(num_tasks, num, k)`."""
    wide = (1.0 + chain.noises[-1].square()).sqrt()
    return wide * randn((num_tasks, num, len(chain.root)), like=chain.root, generator=generator) @ chain.root.mT


def normal(mean: Tensor, cov: Tensor, generator: Generator) -> Tensor:
    """Draws about means `(b, n, k)` with one covariance."""
    return mean + randn(mean.shape, like=mean, generator=generator) @ cholesky(cov, "covariance of a step").mT
