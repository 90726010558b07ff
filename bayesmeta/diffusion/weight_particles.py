"""What weighted particles of the weights of a regression say of its rows."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Distribution, Normal, Poisson
from torch.nn.functional import logsigmoid

from bayesmeta.data.columns import Columns
from bayesmeta.diffusion.sampling.gaussians import drawn
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.distributions.weighted_points import LOG, LOGIT, Link, WeightedPoints
from bayesmeta.glm.functions import LogisticFunctions, PoissonFunctions
from bayesmeta.glm.logistic import LogisticGaussian
from bayesmeta.glm.poisson import PoissonGaussian
from bayesmeta.regression.linear import LinearFunctions, LinearGaussian

__all__ = ["GaussianWeights", "WeightFunctions", "WeightParticles"]

GaussianWeights = LinearGaussian | LogisticGaussian | PoissonGaussian
WeightFunctions = LinearFunctions | LogisticFunctions | PoissonFunctions

LINKS: dict[type, Link] = {LogisticGaussian: LOGIT, PoissonGaussian: LOG}


@dataclass(frozen=True)
class WeightParticles:
    """Gaussians of one covariance, or draws of the weights where y is no number with normal noise.

    Args:
        gaussian: the Gaussian prior, whose class says what y is.
        mean: `(*batch, n, k)`.
        root: of the covariance `(*batch, k, k)`, zero for draws.
        log_weights: normalised `(*batch, n)`.
    """

    gaussian: GaussianWeights
    mean: Tensor
    root: Tensor
    log_weights: Tensor

    def predict(self, x: Tensor) -> Distribution:
        """p(y | x) at rows `(*batch, q, k)`."""
        if isinstance(self.gaussian, LinearGaussian):
            return self._normal(x, self.gaussian.noise_var)
        marginal: Any = self.marginal(x)
        if isinstance(self.gaussian, LogisticGaussian):
            one, zero = (marginal.log_weights + logsigmoid(sign * marginal.predictor) for sign in (1.0, -1.0))
            return Bernoulli(logits=one.logsumexp(-1) - zero.logsumexp(-1))
        return MixtureDistribution(marginal.log_weights, Poisson(marginal.values), -1)

    def marginal(self, x: Tensor) -> Distribution:
        """Of x'w, the probability of a one, or the rate."""
        if isinstance(self.gaussian, LinearGaussian):
            return self._normal(x, torch.zeros_like(self.gaussian.noise_var))
        return WeightedPoints(self._beside_rows, self._predictor(x), LINKS[type(self.gaussian)])

    def sample(self, num_draws: int, generator: Generator | None) -> WeightFunctions:
        """Draws of functions of x."""
        return functions_of(self.gaussian, drawn(self.mean, self.root, self.log_weights, num_draws, generator))

    def _normal(self, x: Tensor, noise_var: Tensor) -> MixtureDistribution:
        eta, var = self._predictor(x), (x.double() @ self.root).square().sum(-1).to(noise_var) + noise_var
        sd = var.clamp(min=torch.finfo(var.dtype).tiny).sqrt()  # a row of zeros has none, and a normal must
        return MixtureDistribution(self._beside_rows, Normal(eta, sd[..., None].expand_as(eta)), -1)

    def _predictor(self, x: Tensor) -> Tensor:
        """x'w of each particle `(*batch, q, n)`."""
        inputs = Columns(self.mean.shape[-1]).read(x).x.double()
        return (inputs @ self.mean.mT).to(self.gaussian.loc)

    @property
    def _beside_rows(self) -> Tensor:
        return self.log_weights[..., None, :].to(self.gaussian.loc)


def functions_of(gaussian: GaussianWeights, weights: Tensor) -> WeightFunctions:
    """Of weights `(draws, *batch, k)`."""
    weights = weights.to(gaussian.loc)
    if isinstance(gaussian, LinearGaussian):
        return LinearFunctions(weights, gaussian.noise_var.expand(weights.shape[1:-1]), None)
    kind = PoissonFunctions if isinstance(gaussian, PoissonGaussian) else LogisticFunctions
    return kind(weights, gaussian.roles)
