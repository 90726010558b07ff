"""What some posteriors in place can do beside what all can, and how it is told.

It is told by the name of a method: `isinstance` of a protocol takes ten times as long, and decisions ask each time.
"""

from typing import Protocol, TypeGuard, runtime_checkable

from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.online.protocol import Online, Task

__all__ = [
    "Alternatives",
    "DrawsMany",
    "DrawsOnLink",
    "DrawsWithMarginal",
    "JointlyNormal",
    "draws_many",
    "draws_on_link",
    "draws_with_marginal",
    "has_alternatives",
    "is_jointly_normal",
]


@runtime_checkable
class JointlyNormal(Protocol):
    """A posterior under which the values of the arms at one decision are jointly normal."""

    def joint(self, x: Tensor, task: Task = None) -> tuple[Tensor, Tensor]:
        """Mean `(n, q)` and a root `(n, q, r)` of the covariance."""
        ...


def is_jointly_normal(online: Online) -> TypeGuard[JointlyNormal]:
    return hasattr(online, "joint")


@runtime_checkable
class Alternatives(Protocol):
    """Whose arms are independent given which of several hypotheses holds."""

    def alternatives(self, x: Tensor, task: Task = None) -> tuple[Tensor, Distribution | list[Distribution]]:
        """Log weights `(n, hypotheses)`, and marginals of batch_shape `(n, hypotheses, arms, 1)`.

        Hypotheses of different families have one each, of batch_shape `(n, arms, 1)`.
        """
        ...


def has_alternatives(online: Online) -> TypeGuard[Alternatives]:
    return hasattr(online, "alternatives")


@runtime_checkable
class DrawsOnLink(Protocol):
    """Whose draws are told apart where they round to the same number."""

    def draw_on_link(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        """As `Online.draw`, on the scale of the family's link: an increasing function of f, with no end to round to."""
        ...


def draws_on_link(online: Online) -> TypeGuard[DrawsOnLink]:
    return hasattr(online, "draw_on_link")


@runtime_checkable
class DrawsMany(Protocol):
    """Which draws many times at the price of one look at its rows."""

    def draw_many_on_link(
        self, num: int, x: Tensor, task: Task = None, *, generator: Generator | None = None
    ) -> Tensor:
        """As many draws as of `DrawsOnLink`, `(num, ...)`."""
        ...


def draws_many(online: Online) -> TypeGuard[DrawsMany]:
    return hasattr(online, "draw_many_on_link")


@runtime_checkable
class DrawsWithMarginal(Protocol):
    """Which makes draws and what they are drawn from at once."""

    def draw_and_marginal(
        self, x: Tensor, task: Task = None, *, generator: Generator | None = None
    ) -> tuple[Tensor, Distribution]:
        """Draws as of `DrawsOnLink`, and their marginals on the same scale."""
        ...


def draws_with_marginal(online: Online) -> TypeGuard[DrawsWithMarginal]:
    return hasattr(online, "draw_and_marginal")
