"""Laws that a case may be exempt from by their names; a law is a function of a case that fails by an AssertionError."""

from collections.abc import Callable
from typing import TypeVar

__all__ = ["held_to"]

C = TypeVar("C")


def held_to(laws: list[Callable[[C], None]], exempt: frozenset[str]) -> list[Callable[[C], None]]:
    """The laws that a case is held to.

    Raises:
        ValueError: it is exempt from a law that there is not.
    """
    unknown = exempt - {each.__name__ for each in laws}
    if unknown:
        raise ValueError(f"a case is exempt from laws by their names; there is no {sorted(unknown)[0]!r}")
    return [each for each in laws if each.__name__ not in exempt]
