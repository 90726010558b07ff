"""The number that stands for a value of a parameter, and the value that a number stands for."""

import math
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from bo.space.choices import as_choice
from bo.space.inference import is_missing

__all__ = ["number_of", "value_of"]


def number_of(name: str, dist: BaseDistribution, value: Any, row: int) -> float:
    """The number that stands for a value: itself, the index of a choice, the cell of a single value; NaN if missing."""
    try:
        number = float(dist.to_internal_repr(as_choice(value)))
        valid = dist._contains(number)
    except (ValueError, TypeError):
        number, valid = math.nan, is_missing(value)
    if not valid:
        raise ValueError(f"{name} of row {row} must be a value of {dist}; got {value!r}")
    return number * 0.0 if dist.single() else number


def value_of(dist: Any, value: float) -> Any:
    """The inverse of `number_of`, from a cell where there are steps, clipped to the ends that rounding may miss."""
    if isinstance(dist, CategoricalDistribution):
        return dist.choices[int(value)]
    if dist.single():
        return dist.low
    if isinstance(dist, IntDistribution):
        return min(dist.low + int(value) * dist.step, dist.high)
    return min(max(dist.low + value * dist.step if dist.step else value, dist.low), dist.high)
