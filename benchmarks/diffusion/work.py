"""What a section of the benchmark is given, and how its rows become figures and a table.

A row has names, and numbers: `[mean, half of its interval of 95%]` or one number.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Generator, Tensor

from benchmarks.kept import Rows
from benchmarks.pieces import Pieces
from benchmarks.report import Figure

__all__ = ["Work", "as_figures", "as_table", "interval", "stream"]


@dataclass(frozen=True)
class Work:
    """One run.

    Args:
        pieces: where numbers and learned priors are kept.
        methods: that are asked for.
        data: a folder of real data, None for none.
        say: shows what is being done.
    """

    pieces: Pieces
    methods: Sequence[str]
    data: Path | None
    say: Callable[[str], None]

    @property
    def budget(self) -> str:
        return self.pieces.budget


def stream(*numbers: int) -> Generator:
    """A stream of random numbers of its own for each tuple of numbers below a thousand."""
    seed = 0
    for number in numbers:
        seed = 1000 * seed + number + 1
    return Generator().manual_seed(seed)


def interval(values: Tensor) -> list[float | None]:
    """Mean over tasks, and half of its interval of 95%; of one task alone the half is None."""
    known = values[~values.isnan()].double()
    half = 1.96 * float(known.std()) / math.sqrt(len(known)) if len(known) > 1 else None
    return [float(known.mean()), half]


def as_figures(rows: Rows, names: Mapping[str, str], meanings: Mapping[str, str]) -> list[Figure]:
    """Figures of rows, and halves of 95% intervals where there are any.

    Args:
        names: of the figure of each column, with other columns in braces, such as `w2/{setting}/{method}`.
        meanings: of columns.
    """
    figures = []
    for row in rows:
        for column, pattern in names.items():
            value = row.get(column)
            if value is None:
                continue
            name, meaning = pattern.format(**row), meanings[column]
            mean, half = value if isinstance(value, list) else (value, None)
            figures.append(Figure(name, mean, meaning))
            if half is not None and not math.isnan(half):
                head, _, tail = name.partition("/")
                figures.append(Figure(f"{head}_half/{tail}", half, f"half of the interval of 95% of {column}"))
    return figures


def as_table(title: str) -> Callable[[Rows], Table]:
    """Shows rows under a title."""

    def shown(rows: Rows) -> Table:
        table = Table(title=f"{title}; intervals of 95% over tasks", title_justify="left")
        columns = list(dict.fromkeys(name for row in rows for name in row))
        for column in columns:
            table.add_column(column.replace("_", " "))
        for row in rows:
            table.add_row(*(_cell(row.get(column)) for column in columns))
        return table

    return shown


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        mean, half = value
        return f"{mean:.4g}" if half is None or math.isnan(half) else f"{mean:.4g} ± {half:.2g}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
