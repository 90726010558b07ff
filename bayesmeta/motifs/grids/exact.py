"""Exact answers for grid networks: by elimination along a frontier of as many nodes as a row has, and by enumeration.

Elimination goes from node to node in reading order. Of what came before, the nodes after depend on the last `columns`
nodes alone, whose joint distribution is one table of 2^columns numbers.
"""

import torch
from torch import Tensor

from bayesmeta.motifs.grids.network import GridNetwork

__all__ = ["eliminated", "enumerated"]

MOST_COLUMNS = 14


def eliminated(network: GridNetwork) -> tuple[Tensor, Tensor]:
    """Posterior probabilities of a one `(models, rows, columns)`, and log p(e) but for a constant `(models,)`.

    Raises:
        ValueError: there are more than 14 columns.
    """
    rows, columns = network.size
    if columns > MOST_COLUMNS:
        raise ValueError(f"elimination takes tables of 2^columns numbers: at most {MOST_COLUMNS}; got {columns}")
    factors = _factors(network)
    start = network.logits.new_zeros(len(factors), 2**columns, dtype=torch.float64)
    start[:, 0] = 1.0  # zeros stand above the grid
    forward, log_total = [start], torch.zeros(len(factors), dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            new = _pushed(forward[-1], factors[:, i, j], j)
            total = new.sum(-1)
            forward.append(new / total[:, None])
            log_total = log_total + total.log()
    backward = torch.ones_like(start)
    marginals = torch.empty(len(factors), rows, columns, dtype=torch.float64)
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            both = forward[i * columns + j + 1] * backward
            ones = both.reshape(len(factors), 2**j, 2, -1).sum((1, 3))
            marginals[:, i, j] = ones[:, 1] / ones.sum(-1)
            backward = _pulled(backward, factors[:, i, j], j)
            backward = backward / backward.amax(-1, keepdim=True)
    return marginals, log_total


def enumerated(network: GridNetwork) -> tuple[Tensor, Tensor]:
    """The same by a sum over all 2^(rows columns) positions, and probabilities of these `(models, positions)`."""
    rows, columns = network.size
    d = rows * columns
    every = torch.arange(2**d)[:, None] >> torch.arange(d - 1, -1, -1) & 1
    position = every.to(network.logits)[:, None].expand(-1, *network.batch_shape, -1)
    probs = network.log_density(position).mT.softmax(-1)
    return (probs @ every.to(probs)).reshape(-1, rows, columns), probs


def _factors(network: GridNetwork) -> Tensor:
    """p(x | up, left) p(e | x) / p(e | 0), `(models, rows, columns, left, up, x)`."""
    logits = network.logits.double()
    both = torch.stack([(-logits).sigmoid(), logits.sigmoid() * network.evidence.double().exp()[..., None, None]], -1)
    return both.transpose(-3, -2)


def _pushed(table: Tensor, factor: Tensor, j: int) -> Tensor:
    """The frontier after node j of a row, whose place in it that of the node above had."""
    models = len(table)
    if j == 0:
        parts = table.reshape(models, 2, -1)
        return torch.einsum("mur,mux->mxr", parts, factor[:, 0]).reshape(models, -1)
    parts = table.reshape(models, 2 ** (j - 1), 2, 2, -1)
    return torch.einsum("mlaur,maux->mlaxr", parts, factor).reshape(models, -1)


def _pulled(table: Tensor, factor: Tensor, j: int) -> Tensor:
    """What the frontier before node j says of the evidence from there on."""
    models = len(table)
    if j == 0:
        parts = table.reshape(models, 2, -1)
        return torch.einsum("mxr,mux->mur", parts, factor[:, 0]).reshape(models, -1)
    parts = table.reshape(models, 2 ** (j - 1), 2, 2, -1)
    return torch.einsum("mlaxr,maux->mlaur", parts, factor).reshape(models, -1)
