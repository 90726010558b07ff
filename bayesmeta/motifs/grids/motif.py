"""Blocks of grids with random parameters, as a motif."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.kernels.gibbs import to_bits
from bayesmeta.motifs.grids.conditioned import NUM_EACH, Tiles
from bayesmeta.motifs.grids.network import grids_with_draws
from bayesmeta.random import rand, randint

__all__ = ["GridMotif"]


@dataclass(frozen=True)
class GridMotif:
    """Blocks of networks with any share of nodes that follow their parents, anywhere in a grid and at its edges.

    Args:
        height, width: of a block.
    """

    height: int = 3
    width: int = 3

    @property
    def num_inputs(self) -> int:
        return NUM_EACH * self.num_values

    @property
    def num_values(self) -> int:
        return self.height * self.width

    def draw(self, num: int, *, generator: Generator) -> tuple[Tensor, Tensor]:
        determinism = rand((num,), like=torch.empty(0), generator=generator)
        network, x = grids_with_draws(num, self.height + 2, self.width + 2, determinism, generator=generator)
        start = int(randint(9, (), generator=generator))
        tile = Tiles(network, self.height, self.width).tile([(start // 3, start % 3)])
        bits = to_bits(x.flatten(1)[None])
        inputs = tile.conditioned(bits).inputs()[0, :, 0]
        return inputs, bits[tile.nodes[0], :, 0].mT.to(inputs)
