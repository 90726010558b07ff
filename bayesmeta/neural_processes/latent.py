r"""A latent neural process: a task is one vector z, and given z a function.

$$ z \sim N(\mu, \sigma^2)(\textstyle\sum_i h(x_i, y_i), n), \qquad p(y \mid x, z) = \text{head}(g(x, z)) $$

Draws are of z, and so of whole functions: the same draw at all points, in any order, without a chain. The price is what
a vector holds, and that the posterior over it is normal.

It learns the probability that all rows which are asked about have together, by the mean over draws of z from the
posterior given the known rows: no bound in its place, and no collapse of z.

Source: Garnelo et al., Neural processes (2018); the objective: Foong et al., Meta-learning stationary stochastic
process prediction with convolutional neural processes (2020), equation 8.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Normal

from bayesmeta.data.rows import Data
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom
from bayesmeta.networks.embeddings import Inputs
from bayesmeta.networks.modules import Weights
from bayesmeta.networks.perceptron import ResidualPerceptron
from bayesmeta.neural_processes.base import KeepsSums
from bayesmeta.neural_processes.episodes import Episode
from bayesmeta.neural_processes.heads import Head
from bayesmeta.neural_processes.set_encoder import SetEncoder, summary
from bayesmeta.random import randn

__all__ = ["LatentFunctions", "LatentNetwork", "LatentNeuralProcess"]

NUM_DRAWS = 64  # of z, in predictions
NUM_PROPOSED = 256  # of z, in the evidence
NUM_LEARNED = 16  # of z for each task of a step
LEAST_SHARE = 1e-6  # of the variance, added to covariances of functions that so few draws span


@dataclass(frozen=True, eq=False)
class LatentNetwork(Weights):
    """Sizes of the network, with its weights.

    Args:
        num_inputs, num_y: columns of x, standardised, and of y.
        num_outputs: numbers that it answers with for each row that is asked about.
        width: of the sum, and of the perceptrons.
        num_latent: entries of z.
        num_layers: of each perceptron.
    """

    num_inputs: int
    num_y: int
    num_outputs: int
    width: int = 128
    num_latent: int = 64
    num_layers: int = 3

    def build(self) -> "LatentModule":
        return LatentModule(self)


class LatentModule(nn.Module):
    """See `LatentNetwork`."""

    def __init__(self, sizes: LatentNetwork) -> None:
        super().__init__()
        shape = {"width": sizes.width, "num_layers": sizes.num_layers}
        self.encoder = SetEncoder(sizes.num_inputs + sizes.num_y, **shape)
        self.to_latent = ResidualPerceptron(sizes.width + 1, 2 * sizes.num_latent, **shape)
        self.decoder = ResidualPerceptron(sizes.num_inputs + sizes.num_latent, sizes.num_outputs, **shape)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor, x_asked: Tensor, noise: Tensor) -> Tensor:
        """Answers about rows under draws of z, by standard normal `noise` `(draws, b, num_latent)`."""
        latent = self.latent(self.encode(x, y, mask).sum(1), mask.sum(1).to(x))
        return self.decode(x_asked, latent.mean + latent.stddev * noise)

    def encode(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """Encodings of rows, zero where `mask` is false."""
        return self.encoder(torch.cat([x, y], -1), mask)

    def latent(self, total: Tensor, count: Tensor) -> Normal:
        """z given sums `(..., width)` and counts `(...)`, of batch_shape `(..., num_latent)`."""
        mean, log_sd = self.to_latent(summary(total, count)).chunk(2, -1)
        return Normal(mean, 1e-3 + nn.functional.softplus(log_sd), validate_args=False)

    def decode(self, x: Tensor, z: Tensor) -> Tensor:
        """Answers about rows x `(..., q, d)` of tasks with z `(..., num_latent)`: `(..., q, num_outputs)`."""
        batch = np.broadcast_shapes(x.shape[:-2], z.shape[:-1])
        parts = x.expand(*batch, *x.shape[-2:]), z[..., None, :].expand(*batch, x.shape[-2], z.shape[-1])
        return self.decoder(torch.cat(parts, -1))


@dataclass(frozen=True, eq=False)
class LatentNeuralProcess(KeepsSums):
    """A latent neural process: `LatentNeuralProcess.initial(tasks).fit(tasks)`.

    Args:
        inputs, head: how x and y become numbers of order one, and what the network's answer means.
        network: shared by all tasks, without a batch.
        total, count: of the encodings of rows, and of rows.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    inputs: Inputs
    head: Head
    network: LatentNetwork
    total: Float[Tensor, "*batch width"]
    count: Float[Tensor, "*batch"]
    learned_from: LearnedFrom | None = None

    network_kind: ClassVar[type[Weights]] = LatentNetwork
    knows_functions: ClassVar[bool] = True

    def predict(self, x: Shaped[Tensor, "*tasks q d"]) -> MixtureDistribution:
        """p(y | x) at each row: the mixture over the same 64 draws of z each time."""
        return self._mixture(self._given(x))

    def marginal(self, x: Shaped[Tensor, "*tasks q d"]) -> Normal:
        """p(f(x)) at each row, by its first two moments over draws of z."""
        means = self._given(x).mean
        var = means.var(-2, correction=0) + (self.head.scale * LEAST_SHARE).square()
        return Normal(means.mean(-2), var.sqrt(), validate_args=False)

    def joint(self, x: Shaped[Tensor, "*tasks q d"]) -> MultivariateNormal:
        """f at all q rows together, by its first two moments over draws of z."""
        means = self._given(x).mean
        centred = means - means.mean(-2, keepdim=True)
        floor = (self.head.scale * LEAST_SHARE).square() * torch.eye(x.shape[-2]).to(centred)
        return MultivariateNormal(means.mean(-2), centred.mT @ centred / NUM_DRAWS + floor)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "LatentFunctions":
        """Draws of f, which are draws of z."""
        latent = self._latent
        noise = randn((num_draws, *latent.mean.shape), like=latent.mean, generator=generator)
        return LatentFunctions(latent.mean + latent.stddev * noise, self)

    def log_evidence(self, data: Data) -> Tensor:
        """log p(y | x) of each task's rows, by importance sampling of z with its posterior after these rows.

        The draws are the same each time. Their number makes the error small where the posterior is right, and it is on
        the side of too little evidence on average.
        """
        after, data = self.condition(data)._latent, self._checked(data)
        noise = fixed_noise(NUM_PROPOSED, after.mean).reshape(-1, *[1] * (after.mean.ndim - 1), after.mean.shape[-1])
        z = after.mean + after.stddev * noise  # (draws, *batch, num_latent)
        prediction = self.head.distribution(self.network.module.decode(self.inputs(data.x), z))
        fit = (prediction.log_prob(data.y) * data.mask).sum(-1)
        weight = (self._latent.log_prob(z) - after.log_prob(z)).sum(-1)
        return (fit + weight).logsumexp(0) - math.log(NUM_PROPOSED)

    @cached_property
    def _latent(self) -> Normal:
        return self.network.module.latent(self.total, self.count)

    def _given(self, x: Tensor) -> Distribution:
        """y given each of the fixed draws of z, of batch_shape `(*batch, draws, q)`."""
        latent = self._latent
        z = latent.mean[..., None, :] + latent.stddev[..., None, :] * fixed_noise(NUM_DRAWS, latent.mean)
        outputs = self.network.module.decode(self.inputs(x)[..., None, :, :], z)
        return self.head.distribution(outputs)

    def _mixture(self, given: Distribution) -> MixtureDistribution:
        log_weights = torch.full((NUM_DRAWS, 1), -math.log(NUM_DRAWS)).to(self.total)
        return MixtureDistribution(log_weights, given, -2)

    def _log_prob(self, weights: dict[str, Tensor], episode: Episode, generator: Generator) -> Tensor:
        """Of all rows of each task that are asked about together, by draws of z."""
        shape = (NUM_LEARNED, len(episode.mask), self.network.num_latent)
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
    posterior: LatentNeuralProcess

    def __call__(self, x: Shaped[Tensor, "*tasks q d"]) -> Tensor:
        """f(x), noise-free: `(draws, *batch, q)`."""
        return self.predict(x).mean

    def predict(self, x: Shaped[Tensor, "*tasks q d"]) -> Distribution:
        """p(y | x, each draw)."""
        posterior = self.posterior
        outputs = posterior.network.module.decode(posterior.inputs(x), self.z)
        return posterior.head.distribution(outputs)


def fixed_noise(num: int, like: Tensor) -> Tensor:
    """The same standard normal points `(num, d)` each time, even over all of space, for z `(..., d)`."""
    points = torch.quasirandom.SobolEngine(like.shape[-1], scramble=True, seed=0).draw(num, dtype=torch.float64)
    return torch.special.ndtri(points.clamp(1e-6, 1.0 - 1e-6)).to(like)
