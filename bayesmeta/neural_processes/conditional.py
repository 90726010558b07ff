r"""A conditional neural process: a task is the mean of what a network makes of its rows, and how many there are.

$$ p(y \mid x) = \text{head}\big(g(x, \tfrac{1}{n + 1} \sum_i h(x_i, y_i), \log(1 + n))\big) $$

A row is added to a sum, so an update costs that row, whatever came before, and the order of rows is of no account.
The price is a sum of fixed width: it cannot hold what many rows say together, and predictions are blunter than those of
`TransformerNeuralProcess`.

Predictions are marginal. That rows have to be predicted alike where functions are smooth, the network has to learn.

Source: Garnelo et al., Conditional neural processes (2018).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, Normal

from bayesmeta.data.rows import Data
from bayesmeta.fields import LearnedFrom
from bayesmeta.networks.embeddings import Inputs
from bayesmeta.networks.modules import Weights
from bayesmeta.networks.perceptron import ResidualPerceptron
from bayesmeta.networks.set_encoder import SetEncoder, summary
from bayesmeta.neural_processes.base import KeepsSums
from bayesmeta.neural_processes.episodes import Episode
from bayesmeta.neural_processes.function_draws import FunctionDraws
from bayesmeta.neural_processes.heads import Head
from bayesmeta.random import randint

__all__ = ["ConditionalNetwork", "ConditionalNeuralProcess"]


@dataclass(frozen=True, eq=False)
class ConditionalNetwork(Weights):
    """Sizes of the network, with its weights.

    Args:
        num_inputs, num_y: columns of x, standardised, and of y.
        num_outputs: numbers that it answers with for each row that is asked about.
        width: of the sum, and of both perceptrons.
        num_layers: of each perceptron.
    """

    num_inputs: int
    num_y: int
    num_outputs: int
    width: int = 128
    num_layers: int = 3

    def build(self) -> "ConditionalModule":
        return ConditionalModule(self)


class ConditionalModule(nn.Module):
    """See `ConditionalNetwork`."""

    def __init__(self, sizes: ConditionalNetwork) -> None:
        super().__init__()
        shape = {"width": sizes.width, "num_layers": sizes.num_layers}
        self.encoder = SetEncoder(sizes.num_inputs + sizes.num_y, **shape)
        self.decoder = ResidualPerceptron(sizes.num_inputs + sizes.width + 1, sizes.num_outputs, **shape)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor, x_asked: Tensor, seen: Tensor) -> Tensor:
        """Answers about rows, each given the first `seen` `(b, t)` of the known ones: `(b, t, num_outputs)`."""
        so_far = nn.functional.pad(self.encode(x, y, mask).cumsum(1), (0, 0, 1, 0))
        count = nn.functional.pad(mask.cumsum(1), (1, 0)).to(x)
        total = so_far.gather(1, seen[..., None].expand(-1, -1, so_far.shape[-1]))
        return self.decode(x_asked, total, count.gather(1, seen))

    def encode(self, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        """Encodings of rows, zero where `mask` is false."""
        return self.encoder(torch.cat([x, y], -1), mask)

    def decode(self, x: Tensor, total: Tensor, count: Tensor) -> Tensor:
        """Answers about rows x `(..., d)` from sums `(..., width)` and counts `(...)`."""
        return self.decoder(torch.cat([x, summary(total, count)], -1))


@dataclass(frozen=True, eq=False)
class ConditionalNeuralProcess(KeepsSums):
    """A conditional neural process: `ConditionalNeuralProcess.initial(tasks).fit(tasks)`.

    Args:
        inputs, head: how x and y become numbers of order one, and what the network's answer means.
        network: shared by all tasks, without a batch.
        total, count: of the encodings of rows, and of rows.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    inputs: Inputs
    head: Head
    network: ConditionalNetwork
    total: Float[Tensor, "*batch width"]
    count: Float[Tensor, "*batch"]
    learned_from: LearnedFrom | None = None

    network_kind: ClassVar[type[Weights]] = ConditionalNetwork

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> FunctionDraws:
        """Draws of f, which remember where they were evaluated: see `FunctionDraws`."""
        return FunctionDraws(self.head.noise_sd, SumChain(self.expand((num_draws, *self.batch_shape))), generator)

    def log_evidence(self, data: Data) -> Tensor:
        """log p(y | x) of each task's rows, each predicted given those before it."""
        data = self._checked(data)
        encodings = self._encodings(data.x, data.y, data.mask)
        before = encodings.cumsum(-2) - encodings
        count = (data.mask.cumsum(-1) - data.mask.long()).to(self.count)
        total, count = self.total[..., None, :] + before, self.count[..., None] + count
        x = self.inputs(data.x).expand(*count.shape, self.inputs.num_outputs)
        prediction = self.head.distribution(self.network.module.decode(x, total, count))
        return (prediction.log_prob(data.y) * data.mask).sum(-1)

    def _outputs(self, x: Shaped[Tensor, "*tasks q d"]) -> Tensor:
        batch = np.broadcast_shapes(self.batch_shape, x.shape[:-2])
        x = self.inputs(x).expand(*batch, x.shape[-2], self.inputs.num_outputs)
        total = self.total[..., None, :].expand(*x.shape[:-1], self.total.shape[-1])
        return self.network.module.decode(x, total, self.count[..., None].expand(x.shape[:-1]))

    def _given_one(self, x: Tensor, y: Tensor, x_asked: Tensor) -> Tensor:
        real = torch.ones_like(y[..., None], dtype=torch.bool)
        added = self._encodings(x[..., None, :], y[..., None], real)  # an axis of one before the last
        shape = x_asked.shape[:-1]
        total = (self.total[..., None, None, :] + added).expand(*shape, -1)
        count = (self.count[..., None, None] + 1.0).expand(shape)
        return self.network.module.decode(self.inputs(x_asked), total, count)

    def _answers(self, weights: dict[str, Tensor], episode: Episode, generator: Generator) -> tuple[Tensor, Tensor]:
        """Answers about an episode, and how many known rows each could see."""
        num_known = episode.mask.shape[1]
        seen = randint(num_known + 1, episode.mask_asked.shape, generator=generator).to(episode.mask.device)
        return self.network.at(weights, episode.x, episode.y, episode.mask, episode.x_asked, seen), seen


class SumChain:
    """A conditional neural process that takes in rows one after another, in place.

    Args:
        posterior: with draws as the first axis of its batch.
    """

    def __init__(self, posterior: ConditionalNeuralProcess) -> None:
        self._now = posterior._replace(total=posterior.total.clone(), count=posterior.count.clone())

    @property
    def batch_shape(self) -> torch.Size:
        return self._now.batch_shape

    def predict(self, x: Tensor) -> Distribution:
        return self._now.predict(x)

    def marginal(self, x: Tensor) -> Normal:
        return self._now.marginal(x)

    def add(self, x: Tensor, y: Tensor) -> None:
        real = torch.ones_like(y[..., None], dtype=torch.bool)
        self._now.total.add_(self._now._encodings(x[..., None, :], y[..., None], real)[..., 0, :])
        self._now.count.add_(1.0)
