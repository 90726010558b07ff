"""Parameters of one column each: numbers to the unit interval and back.

NumPy, because an optimiser asks for the neighbours of a few points many times, and on arrays this small a call of
torch costs several times as much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from optuna.distributions import BaseDistribution, CategoricalDistribution

__all__ = ["Scalars"]

REACH = 1.0  # widths of a range beyond it, from which further ones are told by their logarithm
SMALLEST = np.finfo(np.float64).tiny  # the least number above zero of a log scale
LOG_SMALLEST = np.log(SMALLEST)

Array = Float[np.ndarray, "*n m"]


@dataclass(frozen=True, eq=False)
class Scalars:
    """m parameters; a value v sits at (t(v) - edge) / span, t being log where `log`.

    `step` is 0 for floats. Otherwise the values are low + step * cell for cells 0 to `last`.
    """

    log: Bool[np.ndarray, " m"]
    edge: Float[np.ndarray, " m"]
    span: Float[np.ndarray, " m"]
    low: Float[np.ndarray, " m"]
    high: Float[np.ndarray, " m"]
    step: Float[np.ndarray, " m"]
    last: Float[np.ndarray, " m"]

    @classmethod
    def of(cls, distributions: Sequence[BaseDistribution]) -> "Scalars":
        """Floats, integers, and categories of two, which count as 0 and 1; a single value counts as 0."""
        log, *numbers = zip(*map(_scale, distributions), strict=True) if distributions else [()] * 7
        return cls(np.array(log, dtype=bool), *(np.array(each, dtype=np.float64) for each in numbers))

    def encode(self, value: Array) -> Array:
        """Values, NaN where missing, to the unit interval, and what is outside to its outside.

        No two values are the same, and none is so far away that its square overflows.
        """
        unit = (self._scaled(value) - self.edge) / self.span
        outside = np.where(unit < 0.0, unit, np.maximum(unit - 1.0, 0.0))
        far = np.abs(outside) > REACH
        if far.any():
            far_away = REACH + np.log(np.maximum(np.abs(outside), REACH) / REACH)
            unit = np.where(far, np.clip(unit, 0.0, 1.0) + np.copysign(far_away, outside), unit)
        return np.where(np.isnan(unit), 0.5, unit)

    def cells(self, unit: Array) -> Array:
        """Valid values; those of a step are given as cells, which are exact."""
        value = self._value(unit)
        return np.where(self.step > 0, self._cell(unit), value) if self._has_steps else value

    def decode(self, unit: Array) -> Array:
        """Valid values, those of a step as well."""
        value = self._value(unit)
        return np.where(self.step > 0, self.low + self._cell(unit) * self.step, value) if self._has_steps else value

    def snap(self, unit: Array) -> Array:
        """The nearest units of valid values."""
        inside = unit.clip(0.0, 1.0)
        return np.where(self.step > 0, self._centre(self._cell(unit)), inside) if self._has_steps else inside

    def moved(self, unit: Array, by: Array) -> Array:
        """Valid units after a move, of at least one cell where there are cells."""
        inside = (unit + by).clip(0.0, 1.0)
        if not self._has_steps:
            return inside
        old, new = self._cell(unit), self._cell(unit + by)
        direction = np.where(by < 0, -1.0, 1.0)
        beside = old + direction
        beside = np.where((beside < 0) | (beside > self.last), old - direction, beside)
        cell = np.minimum(np.maximum(np.where(new == old, beside, new), 0.0), self.last)
        return np.where(self.step > 0, self._centre(cell), inside)

    @cached_property
    def _has_steps(self) -> bool:
        return bool((self.step > 0).any())

    @cached_property
    def _divisor(self) -> Array:
        return np.where(self.step > 0, self.step, 1.0)

    def _value(self, unit: Array) -> Array:
        scaled = self.edge + unit.clip(0.0, 1.0) * self.span
        value = np.exp(scaled, out=scaled, where=self.log)
        # the ends themselves, which rounding would miss
        value = np.where((unit >= 1.0) & (self.step == 0), self.high, value)
        return np.where((unit <= 0.0) & (self.step == 0), self.low, value)

    def _cell(self, unit: Array) -> Array:
        return np.minimum(np.maximum(((self._value(unit) - self.low) / self._divisor).round(), 0.0), self.last)

    def _centre(self, cell: Array) -> Array:
        return (self._scaled(self.low + cell * self.step) - self.edge) / self.span

    def _scaled(self, value: Array) -> Array:
        scaled = np.log(np.maximum(value, SMALLEST), out=value.copy(), where=self.log)
        # a log scale has no place for zero and less, which still differ
        return np.where(self.log & (value <= 0.0), LOG_SMALLEST - np.log1p(-np.minimum(value, 0.0)), scaled)


def _scale(dist: Any) -> tuple[bool, float, float, float, float, float, float]:
    """The fields of `Scalars` for one parameter."""
    if dist.single():
        return False, -0.5, 1.0, 0.0, 0.0, 1.0, 0.0
    if isinstance(dist, CategoricalDistribution):
        return False, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0
    step = dist.step or 0
    low, high = dist.low - step / 2, dist.high + step / 2
    last = round((dist.high - dist.low) / step) if step else 0
    if dist.log:
        low, high = math.log(low), math.log(high)
    return dist.log, low, high - low, float(dist.low), float(dist.high), float(step), float(last)
