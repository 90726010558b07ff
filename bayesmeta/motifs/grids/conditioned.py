"""Blocks of a grid network given all that is around them, which is again a small grid network with evidence.

A node of the first row knows what stands above it, so its probabilities do not depend on that any more; a child outside
is known, and says something of a single node inside. So four logits and one number of evidence for each node are all
that the surroundings, and the parameters there, say of a block.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from bayesmeta.motifs.grids.network import GridNetwork

__all__ = ["Conditioned", "Tile", "Tiles"]

SCALE = 4.0  # by which logits are divided for a network
NUM_EACH = 5  # numbers of a node


@dataclass(frozen=True)
class Conditioned:
    """Blocks as small networks.

    Args:
        logits: `(..., height, width, 2, 2)`, by the values above and to the left.
        evidence: `(..., height, width)`.
    """

    logits: Tensor
    evidence: Tensor

    def log_density(self, values: Tensor) -> Tensor:
        """Of blocks `(..., height width)`, but for a constant: `(...)`."""
        x = values.unflatten(-1, self.evidence.shape[-2:])
        up, left = pad(x[..., :-1, :], (0, 0, 1, 0)), pad(x[..., :-1], (1, 0))
        a = self.logits
        by_left = torch.lerp(a[..., 0], a[..., 1], left[..., None])
        logit = torch.lerp(by_left[..., 0], by_left[..., 1], up)
        return (x * (logit + self.evidence) - softplus(logit)).sum((-2, -1))

    def inputs(self) -> Tensor:
        """What a network is told, `(..., 5 height width)`."""
        return torch.cat([self.logits.flatten(-4), self.evidence.flatten(-2)], -1) / SCALE

    def flat(self) -> "Conditioned":
        """With one leading axis."""
        return Conditioned(self.logits.flatten(0, -5), self.evidence.flatten(0, -3))


@dataclass(frozen=True)
class Tile:
    """Blocks that do not see each other.

    Args:
        nodes: of each `(blocks, height width)`.
        above, left: nodes over its first row `(blocks, width)`, and beside its first column `(blocks, height)`.
        below, right: children under its last row, and beside its last column, alike.
        beside_below, over_right: the other parents of these.
        logits, evidence: of the nodes `(blocks, models, 1, height, width, ...)`.
        of_below, of_right: what these children say, `(blocks, width or height, models, 4)`.
    """

    nodes: Tensor
    above: Tensor
    left: Tensor
    below: Tensor
    right: Tensor
    beside_below: Tensor
    over_right: Tensor
    logits: Tensor
    evidence: Tensor
    of_below: Tensor
    of_right: Tensor

    def conditioned(self, bits: Tensor) -> Conditioned:
        """Given the other nodes of `(d + 1, models, chains)`: with leading axes blocks, models and chains."""
        chains = bits.shape[-1]
        shape = (*self.logits.shape[:2], chains)
        logits = self.logits.expand(*shape, *self.logits.shape[3:]).clone()
        evidence = self.evidence.expand(*shape, *self.evidence.shape[3:]).clone()
        up = bits[self.above].permute(0, 2, 3, 1)[..., None].bool()
        logits[..., 0, :, :, :] = torch.where(up, logits[..., 0, :, 1, :], logits[..., 0, :, 0, :])[..., None, :]
        left = bits[self.left].permute(0, 2, 3, 1)[..., None].bool()
        logits[..., 0, :, :] = torch.where(left, logits[..., 0, :, 1], logits[..., 0, :, 0])[..., None]
        evidence[..., -1, :] += _said(self.of_below, bits[self.below], bits[self.beside_below])
        evidence[..., -1] += _said(self.of_right, bits[self.right], bits[self.over_right])
        return Conditioned(logits, evidence)


def _said(table: Tensor, child: Tensor, other: Tensor) -> Tensor:
    """What children say, `(blocks, models, chains, children)`."""
    index = torch.add(other, child, alpha=2).long()
    return table.gather(-1, index).permute(0, 2, 3, 1)


@dataclass(frozen=True, eq=False)
class Tiles:
    """All ways to lay blocks of one size edge to edge on a grid.

    Raises:
        ValueError: a block is larger than the grid.
    """

    network: GridNetwork
    height: int
    width: int

    def __post_init__(self) -> None:
        rows, columns = self.network.size
        if not (1 <= self.height <= rows and 1 <= self.width <= columns):
            raise ValueError(
                f"blocks must fit into the grid of {rows} x {columns} nodes; got {self.height} x {self.width}"
            )

    @property
    def num_offsets(self) -> tuple[int, int]:
        """Ways to place the first row and the first column of blocks."""
        rows, columns = self.network.size
        return min(self.height, rows - self.height + 1), min(self.width, columns - self.width + 1)

    @cached_property
    def _laid(self) -> dict[tuple[int, int], list[Tile]]:
        return {}

    @cached_property
    def _numbers(self) -> Tensor:
        """Of nodes, with a frame of `d`."""
        rows, columns = self.network.size
        return pad(torch.arange(rows * columns).reshape(rows, columns), (1, 1, 1, 1), value=rows * columns)

    def at(self, row: int, column: int) -> list[Tile]:
        """Blocks from this node on, in up to three groups: those of each do not see each other."""
        if (row, column) not in self._laid:
            starts: dict[int, list[tuple[int, int]]] = {}
            rows, columns = self.network.size
            for a, i in enumerate(range(row, rows - self.height + 1, self.height)):
                for b, j in enumerate(range(column, columns - self.width + 1, self.width)):
                    starts.setdefault((a - b) % 3, []).append((i, j))
            self._laid[row, column] = [self.tile(group) for group in starts.values()]
        return self._laid[row, column]

    def tile(self, starts: list[tuple[int, int]]) -> Tile:
        """Of the blocks whose first nodes are these."""
        h, w = self.height, self.width

        def nodes(i: int, j: int, height: int, width: int) -> Tensor:
            """Of each block, from a node relative to its first one."""
            return torch.stack([self._numbers[a + 1 + i :, b + 1 + j :][:height, :width].flatten() for a, b in starts])

        def cut(values: Tensor) -> Tensor:
            return torch.stack([values[:, a : a + h, b : b + w] for a, b in starts])

        below, right = (cut(each) for each in self.network.children())
        return Tile(
            nodes=nodes(0, 0, h, w),
            above=nodes(-1, 0, 1, w),
            left=nodes(0, -1, h, 1),
            below=nodes(h, 0, 1, w),
            right=nodes(0, w, h, 1),
            beside_below=nodes(h, -1, 1, w),
            over_right=nodes(-1, w, h, 1),
            logits=cut(self.network.logits)[:, :, None],
            evidence=cut(self.network.evidence)[:, :, None],
            of_below=below[:, :, -1].flatten(-2).transpose(1, 2).contiguous(),
            of_right=right[:, :, :, -1].flatten(-2).transpose(1, 2).contiguous(),
        )
