"""Oracles: the best set of arms for given values of the arms, of many decisions at once.

An oracle takes values `(n, arms)` and returns one set for each of the n decisions: a mask `(n, arms)`, or lists of
positions. Whether values are rewards or costs is between the oracle and the prior.

Source: Dijkstra, A note on two problems in connexion with graphs (1959), and Johnson, Efficient algorithms for shortest
paths in sparse networks (1977), for costs below zero; by SciPy.
"""

from collections.abc import Callable
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from bandits.decisions.numbers import whole_numbers_of
from bayesmeta.doors import require_count

__all__ = ["each_decision", "grid_edges", "shortest_path", "top_k"]

Oracle = Callable[[Tensor], Any]
FREE = 1e-9  # of the greatest cost: what an edge costs at least where there are cycles
NO_NODE = -9999  # SciPy's


def each_decision(best_set: Callable[[Tensor], Any]) -> Oracle:
    """The oracle that asks `best_set` about one decision after the other.

    Args:
        best_set: takes values `(arms,)`, and returns a mask `(arms,)` or positions of arms.
    """
    return partial(_of_each, best_set)


def top_k(k: Any) -> Oracle:
    """The oracle of slates and rankings: the k arms of the greatest values, the greatest first.

    Raises:
        ValueError: k is below 1; or, when it is asked, above the number of arms.
    """
    return partial(_greatest, require_count("k", k))


def grid_edges(height: Any, width: Any) -> Tensor:
    """Edges `(m, 2)` between cells of a grid that are side by side: first those along rows, then those down columns.

    Cells are numbered by rows: cell (i, j) is `i * width + j`.

    Raises:
        ValueError: there are fewer than two cells.
    """
    height, width = require_count("height", height), require_count("width", width)
    cells = torch.arange(height * width).reshape(height, width)
    if cells.numel() < 2:
        raise ValueError("a grid of one cell has no edges")
    across, down = (cells[:, :-1], cells[:, 1:]), (cells[:-1], cells[1:])
    return torch.cat([torch.stack([a.flatten(), b.flatten()], -1) for a, b in (across, down)])


def shortest_path(edges: Any, source: Any, target: Any, *, directed: bool = False) -> Oracle:
    """The oracle of paths: the edges between two nodes of a graph whose costs add up to the least, in their order.

    The arms are the edges, and their values are costs. In a graph with cycles no cost can be below zero: draws that
    are count as next to nothing. In a directed graph without cycles costs may be any numbers.

    Args:
        edges: two nodes each, `(arms, 2)`, numbered from 0; no two edges join the same nodes.
        source, target: the nodes where paths begin and end.
        directed: whether edges lead from their first node to their second one, and not back.

    Raises:
        ValueError: shapes do not fit, two edges join the same nodes, or no path leads from `source` to `target`.
        IndexError: `source` or `target` is no node.
    """
    return _Paths(whole_numbers_of(edges, "edges"), source, target, directed)


def _of_each(best_set: Callable[[Tensor], Any], values: Tensor) -> list[Any]:
    return [best_set(row) for row in values]


def _greatest(size: int, values: Tensor) -> Tensor:
    if size > values.shape[-1]:
        raise ValueError(f"a set of {size} arms needs as many arms; there are {values.shape[-1]}")
    return values.topk(size).indices


class _Paths:
    """One graph; a decision's graph is a block of a greater one, so that one search answers all of them."""

    def __init__(self, edges: Tensor, source: Any, target: Any, directed: bool) -> None:
        _require_edges(edges)
        first, second = edges.numpy().T
        self._num_nodes, self._num_edges = int(edges.max()) + 1, len(edges)
        self._source, self._target = (self._node(*given) for given in (("source", source), ("target", target)))
        if self._source == self._target:
            raise ValueError(f"source and target must differ; both are node {self._source}")
        arm = np.arange(self._num_edges)
        if not directed:
            first, second, arm = np.r_[first, second], np.r_[second, first], np.r_[arm, arm]
        key = first * self._num_nodes + second
        order = key.argsort(kind="stable")
        self._key, self._arm = key[order], arm[order]
        twice = (np.diff(self._key) == 0).nonzero()[0]
        if len(twice):
            one, other = sorted((int(self._arm[twice[0]]), int(self._arm[twice[0] + 1])))
            raise ValueError(f"edges {one} and {other} join the same nodes; keep one of them")
        self._from, self._to = first[order], second[order]
        self._rank = _rank(first, second, self._num_nodes) if directed else None
        if self._predecessors(np.ones((1, self._num_edges)))[0, self._target] == NO_NODE:
            raise ValueError(f"no path leads from node {self._source} to node {self._target}")

    def __call__(self, values: Tensor) -> list[list[int]]:
        if values.shape[-1] != self._num_edges:
            raise ValueError(f"each arm must be an edge; got {values.shape[-1]} arms for {self._num_edges} edges")
        before = self._predecessors(values.double().numpy())
        return [self._walk(row) for row in before]

    def _predecessors(self, costs: np.ndarray) -> np.ndarray:
        """The node before each on the shortest paths from the source, `(n, nodes)`."""
        costs = self._not_negative(costs)
        n, nodes, size = len(costs), self._num_nodes, len(self._key)
        block = np.arange(n)[:, None]
        starts = np.searchsorted(self._from, np.arange(nodes)) + block * size
        indptr = np.r_[starts.ravel(), n * size]
        columns = (self._to + block * nodes).ravel()
        graph = csr_array((costs[:, self._arm].ravel(), columns, indptr), shape=(n * nodes, n * nodes))
        sources = block[:, 0] * nodes + self._source
        found = dijkstra(graph, indices=sources, min_only=True, return_predecessors=True)[1].reshape(n, nodes)
        return np.where(found == NO_NODE, NO_NODE, found - block * nodes)

    def _not_negative(self, costs: np.ndarray) -> np.ndarray:
        """Costs by which the same paths are the shortest."""
        if self._rank is None:
            return np.maximum(costs, FREE * np.abs(costs).max(-1, keepdims=True))
        steps = np.zeros(self._num_edges)
        steps[self._arm] = self._rank[self._to] - self._rank[self._from]  # all paths take as many of them
        return costs + np.maximum(-costs.min(-1, keepdims=True), 0.0) * steps

    def _walk(self, before: np.ndarray) -> list[int]:
        """Edges on the way to the target."""
        nodes = [self._target]
        while nodes[-1] != self._source:
            nodes.append(int(before[nodes[-1]]))
        way = np.array(nodes[::-1])
        place = np.searchsorted(self._key, way[:-1] * self._num_nodes + way[1:])
        return [int(arm) for arm in self._arm[place]]

    def _node(self, name: str, node: Any) -> int:
        number = require_count(name, node, 0)
        if number >= self._num_nodes:
            raise IndexError(f"{name} {number} does not exist: there are nodes 0 to {self._num_nodes - 1}")
        return number


def _require_edges(edges: Tensor) -> None:
    if edges.ndim != 2 or edges.shape[-1] != 2 or not len(edges):
        raise ValueError(f"edges must have shape (arms, 2), two nodes each; got {tuple(edges.shape)}")
    if int(edges.min()) < 0:
        raise ValueError(f"nodes are numbered from 0; got {int(edges.min())}")
    loop = (edges[:, 0] == edges[:, 1]).nonzero()
    if len(loop):
        raise ValueError(f"edge {int(loop[0])} joins node {int(edges[loop[0], 0])} to itself")


def _rank(first: np.ndarray, second: np.ndarray, num_nodes: int) -> np.ndarray | None:
    """Numbers of nodes that rise along every edge, None where there is a cycle."""
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        sorter.add(b, a)
    try:
        order = list(sorter.static_order())
    except CycleError:
        return None
    rank = np.zeros(num_nodes)
    rank[order] = np.arange(len(order))
    return rank
