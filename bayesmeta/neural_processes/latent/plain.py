r"""A latent neural process: a task is one vector z, and given z a function.

$$ z \sim N(\mu, \sigma^2)(\textstyle\sum_i h(x_i, y_i), n), \qquad p(y \mid x, z) = \text{head}(g(x, z)) $$

Draws are of z, and so of whole functions: the same draw at all points, in any order, without a chain. The price is what
a vector holds, and that the posterior over it is normal.

Source: Garnelo et al., Neural processes (2018); for the objective see `bayesmeta.neural_processes.latent.vector`.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from bayesmeta.data.rows import Data
from bayesmeta.fields import LearnedFrom
from bayesmeta.networks.embeddings import Inputs
from bayesmeta.networks.modules import Weights
from bayesmeta.neural_processes.base import KeepsSums
from bayesmeta.neural_processes.heads import Head
from bayesmeta.neural_processes.latent.vector import KnowsVector, VectorModule, fixed_noise

__all__ = ["LatentNetwork", "LatentNeuralProcess"]

NUM_PROPOSED = 256  # of z, in the evidence


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


class LatentModule(VectorModule):
    """See `LatentNetwork`."""

    def __init__(self, sizes: LatentNetwork) -> None:
        super().__init__(
            sizes.num_inputs + sizes.num_y,
            sizes.num_inputs,
            sizes.num_outputs,
            width=sizes.width,
            num_latent=sizes.num_latent,
            num_layers=sizes.num_layers,
        )

    def forward(self, x: Tensor, y: Tensor, mask: Tensor, x_asked: Tensor, noise: Tensor) -> Tensor:
        """Answers about rows under draws of z, by standard normal `noise` `(draws, b, num_latent)`."""
        latent = self.latent(self.encode(x, y, mask).sum(1), mask.sum(1).to(x))
        return self.decode(x_asked, latent.mean + latent.stddev * noise)


@dataclass(frozen=True, eq=False)
class LatentNeuralProcess(KnowsVector, KeepsSums):
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

    def log_evidence(self, data: Data) -> Tensor:
        """log p(y | x) of each task's rows, by importance sampling of z with its posterior after these rows.

        The draws are the same each time. Their number makes the error small where the posterior is right, and it is on
        the side of too little evidence on average.
        """
        after, data = self.condition(data)._latent, self._checked(data)
        noise = fixed_noise(NUM_PROPOSED, after.mean).reshape(-1, *[1] * (after.mean.ndim - 1), after.mean.shape[-1])
        z = after.mean + after.stddev * noise  # (draws, *batch, num_latent)
        prediction = self.head.distribution(self.network.module.decode(self._asked(data.x), z))
        fit = (prediction.log_prob(data.y) * data.mask).sum(-1)
        weight = (self._latent.log_prob(z) - after.log_prob(z)).sum(-1)
        return (fit + weight).logsumexp(0) - math.log(NUM_PROPOSED)

    @cached_property
    def _latent(self) -> Normal:
        return self.network.module.latent(self.total, self.count)

    def _asked(self, x: Tensor) -> Tensor:
        return self.inputs(x)
