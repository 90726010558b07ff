"""Mazes: the cheapest way from one corner of a grid to the other, where each edge of the way shows its cost.

A task is a maze without loops: its passages are a random tree over all cells, and cost little. To break a wall costs
much. Arms are the edges between cells that are side by side. Before its first round a task knows where walls often are,
which is hardly anything, and how passages make up ways, which is much.

Source: Hsieh et al., Thompson sampling with diffusion generative prior (2023), for the setting; the numbers are ours.
"""

from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree
from torch import Generator, Tensor

import bandits
from bayesmeta.random import rand, randn
from benchmarks.diffusion.work import stream

__all__ = ["edges", "mazes", "path_regret", "places_of_edges"]

PASSAGE, WALL, SPREAD = 0.1, 1.0, 0.02  # costs, and their standard deviation
LIKE = torch.zeros(0, dtype=torch.float64)


def edges(size: int) -> Tensor:
    """Cells of a square grid that are side by side, numbered by rows, `(2 size (size - 1), 2)`."""
    cells = torch.arange(size * size).reshape(size, size)
    pairs = (cells[:, :-1], cells[:, 1:]), (cells[:-1], cells[1:])
    return torch.cat([torch.stack([a.flatten(), b.flatten()], -1) for a, b in pairs])


def places_of_edges(size: int) -> Tensor:
    """Where each edge lies between its cells, on a grid of twice as many rows and columns `(edges, 2)`."""
    ends = edges(size)
    cells = torch.stack([ends // size, ends % size], -1)
    return cells.sum(1)  # of both ends: cells lie at even numbers


def mazes(num_tasks: int, size: int, generator: Generator) -> Tensor:
    """Costs of edges `(tasks, edges)`."""
    ends = edges(size)
    order = rand((num_tasks, len(ends)), like=LIKE, generator=generator)
    is_passage = torch.stack([_tree(ends.numpy(), row.numpy(), size * size) for row in order])
    level = torch.full(order.shape, WALL, dtype=torch.float64).where(~is_passage, PASSAGE)
    return level + SPREAD * randn(order.shape, like=LIKE, generator=generator)


def _tree(ends: np.ndarray, weight: np.ndarray, num_cells: int) -> Tensor:
    """Which edges are in the tree of the least weight."""
    graph = coo_array((1.0 + weight, (ends[:, 0], ends[:, 1])), shape=(num_cells, num_cells))
    found = minimum_spanning_tree(graph.tocsr()).tocoo()
    chosen = set(zip(found.row.tolist(), found.col.tolist(), strict=True))
    return torch.tensor([(a, b) in chosen for a, b in ends.tolist()])


def path_regret(prior: Any, costs: Tensor, noise_sd: float, seed: int, rounds: int) -> Tensor:
    """Cost of the ways taken above that of the best one, summed over rounds: `(tasks,)`.

    Args:
        costs: of edges, in the mean, `(tasks, edges)`.
        seed: of the policy and of noise.
    """
    num_tasks, num_arms = costs.shape
    size = round((1.0 + (1.0 + 2.0 * num_arms) ** 0.5) / 2.0)
    oracle = bandits.shortest_path(edges(size), 0, size * size - 1)
    arms = bandits.Numbered(tuple(range(num_arms)))
    policy = bandits.SemiBandit(prior, oracle, arms, tasks=num_tasks, seed=seed)
    best = torch.stack([row[torch.as_tensor(way)].sum() for row, way in zip(costs, oracle(costs), strict=True)])
    total = torch.zeros(num_tasks, dtype=torch.float64)
    for t in range(rounds):
        chosen = policy.choose()
        cost = costs[chosen.decision, chosen.arm]
        noise = randn(costs.shape, like=costs, generator=stream(42 + seed, t))[chosen.decision, chosen.arm]
        policy.update(chosen, cost + noise_sd * noise)
        total += total.new_zeros(num_tasks).index_add(0, chosen.decision, cost) - best
    return total
