r"""An attentive neural process: a task is one vector z, and what each query finds among the rows by attention.

$$ z \sim N(\mu, \sigma^2)(\textstyle\sum_i r_i, n), \qquad p(y \mid x, z) = \text{head}(g(x, a(x), z)) $$

Encodings of rows attend to each other and become $r_i$. A query attends from an encoding of its x to those of the rows,
as keys with values $r_i$, and takes home $a(x)$. So predictions follow rows nearby, which a vector alone blurs, while z
holds what is common to a whole function.

Draws are of z, and so of whole functions. The part $a(x)$ is the same in all of them: what the network leaves to it and
to the head is uncertainty that is in `predict`, and in no draw.

One set of $r_i$ serves both paths, where the source has an encoder for each.

Source: Kim et al., Attentive neural processes (2019).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from bayesmeta.data.rows import Data
from bayesmeta.fields import LearnedFrom
from bayesmeta.networks.embeddings import Inputs
from bayesmeta.networks.modules import Weights
from bayesmeta.networks.multihead import MultiheadAttention, SelfAttentionLayer
from bayesmeta.networks.perceptron import ResidualPerceptron
from bayesmeta.neural_processes.base import KeepsRows
from bayesmeta.neural_processes.heads import Head
from bayesmeta.neural_processes.latent.vector import KnowsVector, VectorModule

__all__ = ["AttentiveNetwork", "AttentiveNeuralProcess"]


class Known(NamedTuple):
    """Rows as the network remembers them.

    Args:
        keys, values: encodings of x, and of rows that have attended to each other `(*batch, k, width)`.
        mask: which are real `(*batch, k)`.
        latent: z given all of them.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor
    latent: Normal


@dataclass(frozen=True, eq=False)
class AttentiveNetwork(Weights):
    """Sizes of the network, with its weights.

    Args:
        num_inputs, num_y: columns of x, standardised, and of y.
        num_outputs: numbers that it answers with for each row that is asked about.
        width: of encodings, of attention, and of the perceptrons.
        num_latent: entries of z.
        num_layers: of each perceptron.
        num_attending: layers in which rows attend to each other.
        num_heads: of attention; each has its part of the width.
    """

    num_inputs: int
    num_y: int
    num_outputs: int
    width: int = 128
    num_latent: int = 64
    num_layers: int = 3
    num_attending: int = 2
    num_heads: int = 8

    def build(self) -> "AttentiveModule":
        return AttentiveModule(self)


class AttentiveModule(VectorModule):
    """See `AttentiveNetwork`."""

    def __init__(self, sizes: AttentiveNetwork) -> None:
        width, num_layers = sizes.width, sizes.num_layers
        super().__init__(
            sizes.num_inputs + sizes.num_y,
            sizes.num_inputs + width,
            sizes.num_outputs,
            width=width,
            num_latent=sizes.num_latent,
            num_layers=num_layers,
        )
        self.attending = nn.ModuleList(SelfAttentionLayer(width, sizes.num_heads) for _ in range(sizes.num_attending))
        self.place = ResidualPerceptron(sizes.num_inputs + 1, width, width=width, num_layers=num_layers)
        self.find = MultiheadAttention(width, sizes.num_heads)

    def forward(self, x: Tensor, y: Tensor, mask: Tensor, x_asked: Tensor, noise: Tensor) -> Tensor:
        """Answers about rows under draws of z, by standard normal `noise` `(draws, b, num_latent)`."""
        known = self.know(x, y, mask)
        return self.decode(self.look(known, x_asked), known.latent.mean + known.latent.stddev * noise)

    def know(self, x: Tensor, y: Tensor, mask: Tensor) -> Known:
        """Rows `(*batch, k, d)`, of which those count where `mask` is true."""
        rows = self.encode(x, y, mask)
        for layer in self.attending:
            rows = layer(rows, mask)
        latent = self.latent((rows * mask[..., None]).sum(-2), mask.sum(-1).to(rows))
        return Known(self._places(x), rows, mask, latent)

    def look(self, known: Known, x: Tensor) -> Tensor:
        """Rows x `(*tasks, q, d)` with what they find among the known ones: `(*tasks, q, d + width)`."""
        found = self.find(self._places(x), known.keys, known.values, known.mask)
        return torch.cat([x.expand(*found.shape[:-1], x.shape[-1]), found], -1)

    def _places(self, x: Tensor) -> Tensor:
        """Encodings of x, which may have no columns: one more is always there."""
        return self.place(nn.functional.pad(x, (0, 1), value=1.0))


@dataclass(frozen=True, eq=False)
class AttentiveNeuralProcess(KnowsVector, KeepsRows):
    """An attentive neural process: `AttentiveNeuralProcess.initial(tasks).fit(tasks)`.

    Its evidence is that of a chain, each row predicted given those before it: were z integrated out given no rows, the
    rows that attention finds would count for nothing.

    Args:
        inputs, head: how x and y become numbers of order one, and what the network's answer means.
        network: shared by all tasks, without a batch.
        rows: of the tasks that it was conditioned on.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    inputs: Inputs
    head: Head
    network: AttentiveNetwork
    rows: Data | None = None
    learned_from: LearnedFrom | None = None

    network_kind: ClassVar[type[Weights]] = AttentiveNetwork

    @cached_property
    def _known(self) -> Known:
        rows = self._kept
        return self.network.module.know(self.inputs(rows.x), self.head.seen(rows.y), rows.mask)

    @property
    def _latent(self) -> Normal:
        return self._known.latent

    def _asked(self, x: Tensor) -> Tensor:
        return self.network.module.look(self._known, self.inputs(x))
