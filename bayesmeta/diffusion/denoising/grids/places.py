"""Where values of theta lie: along a line, or at rows and columns of a grid."""

import math
from typing import Any

import torch
from torch import Tensor

from bayesmeta.doors import require_count

__all__ = ["places_of"]

MOST = 2**16  # places of a grid
REMEDY = "Give the sides of the grid, such as (8, 8), or the place of each value, (k, 1) or (k, 2)"


def places_of(grid: Any, num_values: int) -> Tensor:
    """Row and column of each value, from zero on: whole numbers `(k, 2)`. A line is one row.

    Args:
        grid: its sides, one or two, whose product is `num_values`: values are then numbered row by row. Or the place of
            each value, whole numbers `(k, 1)` or `(k, 2)`, where some places have none.

    Raises:
        TypeError: the sides or places are no whole numbers.
        ValueError: they are of more than two axes, there are more or fewer of them than values, two values are at one
            place, or places are so far apart that the grid has more than `MOST` of them.
    """
    if isinstance(grid, tuple | list) and not any(isinstance(side, tuple | list | Tensor) for side in grid):
        return _by_rows([require_count("a side of grid", side) for side in grid], num_values)
    places = torch.as_tensor(grid)
    if places.ndim != 2 or places.shape[-1] not in (1, 2) or len(places) != num_values:
        raise ValueError(
            f"grid must have a place for each of {num_values} values; got shape {tuple(places.shape)}. {REMEDY}"
        )
    if places.is_floating_point() or places.is_complex() or places.dtype == torch.bool:
        raise TypeError(f"grid must hold whole numbers; got {places.dtype}. {REMEDY}")
    return _from_zero(places.cpu().long())


def _by_rows(sides: list[int], num_values: int) -> Tensor:
    if len(sides) not in (1, 2):
        raise ValueError(f"grid must have one side or two; got {len(sides)}. {REMEDY}")
    if math.prod(sides) != num_values:
        raise ValueError(
            f"grid must have {num_values} places, one for each value; got {' x '.join(map(str, sides))}. Where some "
            f"places have none, give the place of each value, ({num_values}, {len(sides)})"
        )
    rows, columns = [1, *sides][-2:]
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns))


def _from_zero(places: Tensor) -> Tensor:
    places = torch.cat([torch.zeros_like(places[:, :1]), places], -1)[:, -2:]
    places = places - places.amin(0)
    sides = [int(side) + 1 for side in places.amax(0)]
    if math.prod(sides) > MOST:
        raise ValueError(
            f"a grid has at most {MOST} places; got {' x '.join(map(str, sides))}. Count rows and columns by ones"
        )
    _, place, count = places.unique(dim=0, return_inverse=True, return_counts=True)
    shared = (count[place] > 1).nonzero()
    if len(shared):
        value = int(shared[0])
        raise ValueError(f"each value must have a place of its own; value {value} shares {places[value].tolist()}")
    return places
