"""A line that says how far learning has come, and is gone once it has ended."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

__all__ = ["progress_line"]


@contextmanager
def progress_line(text: str, *, shown: bool) -> Iterator[Callable[[str], None]]:
    """A function that changes what the line says.

    Args:
        text: at first.
        shown: whether there is a line.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, disable=not shown, transient=True) as screen:
        line = screen.add_task(text, total=None)
        yield lambda now: screen.update(line, description=now)
