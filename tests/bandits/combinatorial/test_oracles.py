"""Oracles against every set that there is."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

import bandits
from bayesmeta.random import rand, randn
from tests.families import F64
from tests.seeds import seed


def paths(edges: Tensor, source: int, target: int, *, directed: bool) -> list[list[int]]:
    """All paths that pass no node twice, by their edges."""
    found, begun = [], [([], [source])]
    while begun:
        way, nodes = begun.pop()
        if nodes[-1] == target:
            found.append(way)
            continue
        for i, (a, b) in enumerate(edges.tolist()):
            for first, second in [(a, b)] if directed else [(a, b), (b, a)]:
                if first == nodes[-1] and second not in nodes:
                    begun.append(([*way, i], [*nodes, second]))
    return found


@pytest.mark.parametrize("directed", [False, True])
def test_a_shortest_path_is_the_cheapest_of_all(directed: bool) -> None:
    edges = bandits.grid_edges(3, 4)
    every = paths(edges, 0, 11, directed=directed)
    assert len(every) == (10 if directed else 38)
    oracle = bandits.shortest_path(edges, 0, 11, directed=directed)
    costs = rand((20, len(edges)), like=F64, generator=seed(0))
    if directed:  # without cycles costs may be below zero
        costs = costs - 0.5
    for row, found in zip(costs, oracle(costs), strict=True):
        assert found in every
        assert float(row[found].sum()) == pytest.approx(min(float(row[way].sum()) for way in every))


def test_where_there_are_cycles_costs_below_zero_are_nothing() -> None:
    edges = torch.tensor([[0, 1], [1, 2], [2, 0], [2, 3]])
    costs = torch.tensor([[-1.0, -1.0, -1.0, 1.0], [1.0, 1.0, 3.0, 1.0]]).double()
    assert bandits.shortest_path(edges, 0, 3)(costs) == [[2, 3], [0, 1, 3]]
    assert bandits.shortest_path(edges, 0, 3, directed=True)(costs) == [[0, 1, 3], [0, 1, 3]]


def test_edges_of_a_grid() -> None:
    assert bandits.grid_edges(2, 2).tolist() == [[0, 1], [2, 3], [0, 2], [1, 3]]
    assert bandits.grid_edges(1, 3).tolist() == [[0, 1], [1, 2]]


def test_a_slate_is_of_the_greatest_values_in_their_order() -> None:
    values = randn((10, 5), like=F64, generator=seed(1))
    for row, found in zip(values, bandits.top_k(3)(values), strict=True):
        best = max(float(row[list(some)].sum()) for some in itertools.combinations(range(5), 3))
        assert float(row[found].sum()) == pytest.approx(best)
        assert row[found].diff().le(0).all()


def test_an_oracle_of_one_decision_is_asked_about_each() -> None:
    oracle = bandits.each_decision(lambda values: values > 0)
    values = torch.tensor([[1.0, -1.0], [2.0, 3.0]])
    assert [mask.tolist() for mask in oracle(values)] == [[True, False], [True, True]]


GRID = bandits.grid_edges(2, 2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bandits.shortest_path([[0, 1, 2]], 0, 1), ValueError, r"shape \(arms, 2\)"),
        (lambda: bandits.shortest_path([[0, 1], [-1, 0]], 0, 1), ValueError, "numbered from 0; got -1"),
        (lambda: bandits.shortest_path([[0, 1], [1, 1]], 0, 1), ValueError, "edge 1 joins node 1 to itself"),
        (lambda: bandits.shortest_path([[0, 1], [1, 0]], 0, 1), ValueError, "edges 0 and 1 join the same nodes"),
        (lambda: bandits.shortest_path(GRID, 0, 9), IndexError, "target 9 does not exist: there are nodes 0 to 3"),
        (lambda: bandits.shortest_path(GRID, 2, 2), ValueError, "must differ; both are node 2"),
        (lambda: bandits.shortest_path([[0, 1], [2, 3]], 0, 3), ValueError, "no path leads from node 0 to node 3"),
        (lambda: bandits.shortest_path(GRID, 3, 0, directed=True), ValueError, "no path leads from node 3 to node 0"),
        (lambda: bandits.shortest_path([[0.5, 1.0]], 0, 1), TypeError, "edges must be whole numbers"),
        (lambda: bandits.shortest_path(GRID, 0, 3)(torch.ones(1, 3)), ValueError, "got 3 arms for 4 edges"),
        (lambda: bandits.grid_edges(1, 1), ValueError, "a grid of one cell has no edges"),
        (lambda: bandits.top_k(0), ValueError, "k must be at least 1"),
        (lambda: bandits.top_k(3)(torch.ones(1, 2)), ValueError, "a set of 3 arms needs as many arms; there are 2"),
    ],
)
def test_bad_graphs_and_sizes(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
