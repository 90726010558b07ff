"""Networks that say how a block is distributed, from the variables around it and the parameters between them."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bayesmeta.motifs.blocks import BernoulliBlocks, Blocks, NormalBlocks
from bayesmeta.networks.modules import Weights
from bayesmeta.networks.perceptron import ResidualPerceptron

__all__ = ["BernoulliProposal", "BlockProposal", "NormalProposal"]


@dataclass(frozen=True, eq=False)
class BlockProposal(Weights):
    """A residual perceptron from a motif's inputs to a mixture over its block.

    Args:
        num_inputs, num_values: of the motif.
        num_components: of the mixture.
        width, num_layers: hidden layers.
    """

    num_inputs: int = 1
    num_values: int = 1
    num_components: int = 8
    width: int = 96
    num_layers: int = 2

    def build(self) -> nn.Module:
        num = self.num_components * self._num_said
        return ResidualPerceptron(self.num_inputs, num, width=self.width, num_layers=self.num_layers)

    def blocks(self, inputs: Tensor) -> Any:
        """The distribution of blocks with these inputs `(n, num_inputs)`, whose dtype it has, without gradients."""
        return self._blocks(self.module(inputs.to(self.dtype)).to(inputs.dtype))

    def log_prob(self, weights: dict[str, Tensor], inputs: Tensor, values: Tensor) -> Tensor:
        """Of one block for each input, with other weights and gradients of these: `(n,)`."""
        said = self.at(weights, inputs.to(self.dtype))
        return self._blocks(said).log_prob(values.to(self.dtype)[None])[0]

    @property
    def _num_said(self) -> int:
        """Numbers of one component."""
        raise TypeError("each kind of block says what it is made of")

    def _blocks(self, said: Tensor) -> Blocks:
        raise TypeError("each kind of block says what it is made of")


@dataclass(frozen=True, eq=False)
class BernoulliProposal(BlockProposal):
    """Of blocks of zeros and ones."""

    @property
    def _num_said(self) -> int:
        return 1 + self.num_values

    def _blocks(self, said: Tensor) -> BernoulliBlocks:
        return BernoulliBlocks.of(said, self.num_values)


@dataclass(frozen=True, eq=False)
class NormalProposal(BlockProposal):
    """Of blocks of numbers."""

    @property
    def _num_said(self) -> int:
        return 1 + 2 * self.num_values

    def _blocks(self, said: Tensor) -> NormalBlocks:
        return NormalBlocks.of(said, self.num_values)
