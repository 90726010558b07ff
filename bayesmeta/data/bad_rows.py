"""Errors of one row of a table: by its number in a frame, counting from 0, and by its line in a CSV file, from 1."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bayesmeta.data.csv_tables import line_of

__all__ = ["BadRow", "naming_lines"]


class BadRow(ValueError):
    """What is wrong with one row: the words before its place in a message, its number, and the words after."""

    def __init__(self, before: str, row: int, after: str) -> None:
        super().__init__(f"{before}row {row}{after}")
        self.before, self.row, self.after = before, row, after


@contextmanager
def naming_lines(source: Any) -> Iterator[None]:
    """Let errors of rows name lines, where the table came from a CSV file."""
    try:
        yield
    except BadRow as error:
        if not isinstance(source, str | Path) or Path(source).suffix.lower() != ".csv":
            raise
        line = line_of(Path(source), error.row)
        raise ValueError(f"{error.before}line {line} of {source}{error.after}") from None
