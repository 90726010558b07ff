"""How much points promise: functions of points, of which some say more of themselves than a number."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Expected", "InOwnSpace", "Near", "Value"]

Value = Callable[[Tensor], Tensor]  # points (n, d) -> (n,), more is better


@dataclass(frozen=True)
class Near:
    """A value that is greatest at one point, `(d,)`, and tells which, so that a search need not find it."""

    point: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return -(x - self.point).square().sum(-1)


@dataclass(frozen=True)
class InOwnSpace:
    """A value of points of the study's own space, which knows nothing of the past's: see `View.own`."""

    value: Value

    def __call__(self, x: Tensor) -> Tensor:
        return self.value(x)


@dataclass(frozen=True)
class Expected:
    """An improvement that is expected of a trial if it succeeds, or the logarithm of it."""

    value: Value
    is_log: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        return self.value(x)

    def times(self, value: Tensor, chance: Tensor) -> Tensor:
        """What it is with the probability that the trial succeeds."""
        return value + chance.log() if self.is_log else value * chance
