"""What members with a vector z share: predictions and draws of functions by draws of z, and how they learn.

A draw is of z, and so of a whole function: the same at all points, in any order, without a chain. Predictions are over
the same draws of z each time, points that are even over all of space.

It learns the probability that all rows which are asked about have together, by the mean over draws of z from the
posterior given the known rows: no bound in its place, and no collapse of z.

Source: the objective: Foong et al., Meta-learning stationary stochastic process prediction with convolutional neural
processes (2020), equation 8.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Normal

from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.doors import Draws
from bayesmeta.networks.perceptron import ResidualPerceptron
from bayesmeta.networks.set_encoder import SetEncoder, summary
from bayesmeta.neural_processes.base import NeuralProcess
from bayesmeta.neural_processes.episodes import Episode
from bayesmeta.random import randn

__all__ = ["KnowsVector", "LatentFunctions", "VectorModule", "fixed_noise"]

NUM_DRAWS = 64  # of z, in predictions
NUM_LEARNED = 16  # of z for each task of a step
LEAST_SHARE = 1e-6  # of the variance, added to covariances of functions that so few draws span


class VectorModule(nn.Module):
    """Rows to encodings, their sum to z, and z with what is asked to answers.

    Args:
        num_seen: numbers of a row, inputs and outputs together.
        num_asked: numbers by which the decoder knows what is asked.
        num_outputs: that it answers with.
        width: of the encodings, and of the perceptrons.
        num_latent: entries of z.
        num_layers: of each perceptron.
    """

    def __init__(
        self, num_seen: int, num_asked: int, num_outputs: int, *, width: int, num_latent: int, num_layers: int
    ) -> None:
        super().__init__()
        shape = {"width": width, "num_layers": num_layers}
        self.encoder = SetEncoder(num_seen, **shape)
        self.to_latent = ResidualPerceptron(width + 1, 2 * num_latent, **shape)
        self.decoder = ResidualPerceptron(num_asked + num_latent, num_outputs, **shape)

    def encode(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """Encodings of rows, zero where `mask` is false."""
        return self.encoder(torch.cat([x, y], -1), mask)

    def latent(self, total: Tensor, count: Tensor) -> Normal:
        """z given sums `(..., width)` and counts `(...)`, of batch_shape `(..., num_latent)`."""
        mean, log_sd = self.to_latent(summary(total, count)).chunk(2, -1)
        return Normal(mean, 1e-3 + nn.functional.softplus(log_sd), validate_args=False)

    def decode(self, asked: Tensor, z: Tensor) -> Tensor:
        """Answers about rows `(..., q, num_asked)` of tasks with z `(..., num_latent)`: `(..., q, num_outputs)`."""
        batch = np.broadcast_shapes(asked.shape[:-2], z.shape[:-1])
        parts = asked.expand(*batch, *asked.shape[-2:]), z[..., None, :].expand(*batch, asked.shape[-2], z.shape[-1])
        return self.decoder(torch.cat(parts, -1))


class KnowsVector(NeuralProcess):
    """Mixin of members that know z, and whose rows are independent given z: their network is a `VectorModule`."""

    knows_functions: ClassVar[bool] = True

    def predict(self, x: Shaped[Tensor, "*tasks q d"]) -> MixtureDistribution:
        """p(y | x) at each row: the mixture over the same 64 draws of z each time."""
        return self._prediction(self._outputs(x))

    def marginal(self, x: Shaped[Tensor, "*tasks q d"]) -> Normal:
        """p(f(x)) at each row, by its first two moments over draws of z."""
        means = self._means(x)
        var = means.var(-2, correction=0) + (self.head.scale * LEAST_SHARE).square()
        return Normal(means.mean(-2), var.sqrt(), validate_args=False)

    def joint(self, x: Shaped[Tensor, "*tasks q d"]) -> MultivariateNormal:
        """f at all q rows together, by its first two moments over draws of z."""
        means = self._means(x)
        centred = means - means.mean(-2, keepdim=True)
        eye = torch.eye(x.shape[-2], dtype=means.dtype, device=means.device)
        floor = (self.head.scale * LEAST_SHARE).square() * eye
        return MultivariateNormal(means.mean(-2), centred.mT @ centred / NUM_DRAWS + floor)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "LatentFunctions":
        """Draws of f, which are draws of z."""
        latent = self._latent
        noise = randn((num_draws, *latent.mean.shape), like=latent.mean, generator=generator)
        return LatentFunctions(latent.mean + latent.stddev * noise, self)

    @property
    def _latent(self) -> Normal:
        """z, of batch_shape `(*batch, num_latent)`."""
        raise TypeError("each member says what it knows of z")

    def _asked(self, x: Tensor) -> Tensor:
        """Rows `(*tasks, q, d)` as the decoder knows them, `(*tasks, q, num_asked)`."""
        raise TypeError("each member says what its decoder is asked")

    def _outputs(self, x: Tensor) -> Tensor:
        """What the network answers given each of the fixed draws of z, `(*batch, draws, q, num_outputs)`."""
        latent = self._latent
        z = latent.mean[..., None, :] + latent.stddev[..., None, :] * fixed_noise(NUM_DRAWS, latent.mean)
        return self.network.module.decode(self._asked(x)[..., None, :, :], z)

    def _prediction(self, outputs: Tensor) -> MixtureDistribution:
        log_weights = outputs.new_full((NUM_DRAWS, 1), -math.log(NUM_DRAWS))
        return MixtureDistribution(log_weights, self.head.distribution(outputs), -2)

    def _means(self, x: Tensor) -> Tensor:
        """E[y] given each of the fixed draws of z, `(*batch, draws, q)`."""
        return self.head.distribution(self._outputs(x)).mean

    def _log_prob(self, weights: dict[str, Tensor], episode: Episode, generator: Generator) -> Tensor:
        """Of all rows of each task that are asked about together, by draws of z."""
        shape = (NUM_LEARNED, len(episode.mask), self._latent.mean.shape[-1])
        noise = torch.randn(shape, generator=generator, device=generator.device).to(episode.x)
        outputs = self.network.at(weights, episode.x, episode.y, episode.mask, episode.x_asked, noise)
        distribution = self.head.in_standard_units().distribution(outputs)
        fit = (distribution.log_prob(episode.y_asked) * episode.mask_asked).sum(-1)
        return fit.logsumexp(0) - math.log(NUM_LEARNED)


@dataclass(frozen=True, eq=False)
class LatentFunctions(Draws):
    """Draws of f.

    Args:
        z: of each draw `(draws, *batch, num_latent)`.
        posterior: whose network makes functions of them.
    """

    z: Float[Tensor, "draws *batch num_latent"]
    posterior: KnowsVector

    def __call__(self, x: Shaped[Tensor, "*tasks q d"]) -> Tensor:
        """f(x), noise-free: `(draws, *batch, q)`."""
        return self.predict(x).mean

    def predict(self, x: Shaped[Tensor, "*tasks q d"]) -> Distribution:
        """p(y | x, each draw)."""
        posterior = self.posterior
        return posterior.head.distribution(posterior.network.module.decode(posterior._asked(x), self.z))


def fixed_noise(num: int, like: Tensor) -> Tensor:
    """The same standard normal points `(num, d)` each time, even over all of space, for z `(..., d)`."""
    points = torch.quasirandom.SobolEngine(like.shape[-1], scramble=True, seed=0).draw(num, dtype=torch.float64)
    return torch.special.ndtri(points.clamp(1e-6, 1.0 - 1e-6)).to(like)
