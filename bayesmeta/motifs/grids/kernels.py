"""Markov chains on grid networks: moves of blocks, or draws of whole rows, each mixed with single-site Gibbs sampling.

Blocks are laid edge to edge from a random node on, so that in each step other nodes are at their edges.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from bayesmeta.mcmc.kernels.gibbs import BinaryGibbs, from_bits, to_bits
from bayesmeta.mcmc.kernels.protocol import Info, State
from bayesmeta.motifs.grids.conditioned import Tiles
from bayesmeta.motifs.grids.moves import BlockMove
from bayesmeta.motifs.grids.network import GridNetwork, single_site
from bayesmeta.random import rand, randint

__all__ = ["BlockSweeps", "RowSweeps"]


@dataclass(frozen=True, eq=False)
class BlockSweeps:
    """Each step moves all blocks of one way to lay them, and then updates each node by itself.

    Args:
        height, width: of a block.
        num_single: updates of each node by itself in a step.
    """

    network: GridNetwork
    blocks: BlockMove
    height: int = 3
    width: int = 3
    num_single: int = 1

    @cached_property
    def tiles(self) -> Tiles:
        return Tiles(self.network, self.height, self.width)

    @cached_property
    def _single(self) -> BinaryGibbs:
        return single_site(self.network)

    def init(self, position: Tensor) -> State:
        return State(position, self.network.log_density(position))

    def move(self, bits: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """One step of `(d + 1, models, chains)`, see `to_bits`, in place; and rates `(models, chains)`."""
        start = generator or torch.default_generator
        rows, columns = self.tiles.num_offsets
        place = int(randint(rows * columns, (), generator=start))
        total, count = torch.zeros(bits.shape[1:]), 0
        for tile in self.tiles.at(place // columns, place % columns):
            block, nodes = tile.conditioned(bits), tile.nodes
            old = bits[nodes].permute(0, 2, 3, 1).to(block.logits)
            new, rate = self.blocks.move(block.flat(), old.flatten(0, 2), generator)
            bits[nodes] = new.reshape(old.shape).permute(0, 3, 1, 2).to(bits.dtype)
            total = total + rate.reshape(old.shape[:3]).sum(0).to(total)
            count += len(nodes)
        for _ in range(self.num_single):
            self._single.move(bits, generator)
        return bits, total / count

    def step(self, state: State, generator: Generator | None = None) -> tuple[State, Info]:
        bits, rate = self.move(to_bits(state.position), generator)
        return _told(self.network, state, bits, rate)


@dataclass(frozen=True, eq=False)
class RowSweeps:
    """Each step draws each row as a whole, given the rows above and below: every other row, and then those between.

    A row is a Markov chain, so messages from its end to its start, and a draw from start to end, are exact.

    Source: Scott, Bayesian methods for hidden Markov models (2002), for the draw.
    """

    network: GridNetwork

    def init(self, position: Tensor) -> State:
        return State(position, self.network.log_density(position))

    @cached_property
    def _parts(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of even rows and of odd ones: their numbers, probabilities, and odds of what is seen at and under nodes.

        These are `(columns, rows, models, 2, 2)` by up and left, and `(columns, rows, models, 4)` by the child below
        and its other parent.
        """
        below, _ = self.network.children()
        odds = (below + self.network.evidence[..., None, None]).exp().flatten(-2).permute(2, 1, 0, 3)
        probs = self.network.logits.sigmoid().permute(2, 1, 0, 3, 4)
        every = torch.arange(self.network.size[0])
        return [(rows, probs[:, rows].contiguous(), odds[:, rows].contiguous()) for rows in (every[::2], every[1::2])]

    def move(self, bits: Tensor, generator: Generator | None = None) -> Tensor:
        """One step of `(d + 1, models, chains)`, see `to_bits`, in place."""
        rows, columns = self.network.size
        grid = bits[:-1].unflatten(0, (rows, columns))
        framed = pad(grid, (0, 0, 0, 0, 1, 0, 1, 1))  # zeros above, below and to the left
        for numbers, probs, odds in self._parts:
            if len(numbers):
                framed[numbers + 1, 1:] = _drawn_rows(framed, numbers, probs, odds, generator).movedim(0, 1)
        grid[:] = framed[1:-1, 1:]
        return bits

    def step(self, state: State, generator: Generator | None = None) -> tuple[State, Info]:
        bits = self.move(to_bits(state.position), generator)
        return _told(self.network, state, bits, torch.ones(bits.shape[1:]))


def _drawn_rows(framed: Tensor, numbers: Tensor, probs: Tensor, odds: Tensor, generator: Generator | None) -> Tensor:
    """Rows that do not see each other, `(columns, rows, models, chains)`."""
    above, under = framed[numbers].movedim(1, 0), framed[numbers + 2].movedim(1, 0)
    seen = odds.gather(-1, torch.add(under[:-1], under[1:], alpha=2).long())
    up = above[1:, ..., None].bool()
    given = torch.where(up, probs[..., 1, :][..., None, :], probs[..., 0, :][..., None, :])  # (..., chains, left)
    columns = len(given)
    odds_of_one = [seen[-1]] * columns
    for j in range(columns - 1, 0, -1):
        # what a one at the left against a zero says of all to its right
        message = 1.0 + given[j] * (odds_of_one[j][..., None] - 1.0)
        odds_of_one[j - 1] = seen[j - 1] * message[..., 1] / message[..., 0]
    uniform = rand(seen.shape, like=seen, generator=generator)
    drawn, left = torch.empty(seen.shape, dtype=framed.dtype), torch.zeros(seen.shape[1:], dtype=torch.bool)
    for j in range(columns):
        p = torch.where(left, given[j, ..., 1], given[j, ..., 0])
        one = p * odds_of_one[j]
        left = uniform[j] * (one + (1.0 - p)) < one
        drawn[j] = left
    return drawn


def _told(network: GridNetwork, state: State, bits: Tensor, rate: Tensor) -> tuple[State, Info]:
    position = from_bits(bits, state.position)
    rate = rate.mT.to(position)
    moved = (position != state.position).any(-1)
    return State(position, network.log_density(position)), Info(rate, moved, torch.full_like(rate, torch.nan))
