"""Progress bars where somebody looks: a pipe or a file gets nothing, not even the blank line that a bar leaves."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

__all__ = ["tracked"]

T = TypeVar("T")


def tracked(values: Sequence[T], description: str, *, shown: bool) -> Iterable[T]:
    """`values`, with a bar on a terminal while they are gone through.

    Args:
        shown: whether there is to be one.
    """
    import rich
    from rich.progress import track

    shown = shown and rich.get_console().is_terminal
    return track(values, description, transient=True) if shown else values
