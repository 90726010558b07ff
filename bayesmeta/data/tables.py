"""Tables in long form, one row per observation, as arrays: names of tasks, the task of each row, and its numbers.

A table has a column that names the task, a column with the target, and columns with inputs, which hold numbers. Tasks
come out in ascending order of their names, whatever the order of the rows, so that two readings of a table line up.
"""

import csv
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import narwhals as nw
import numpy as np
import polars as pl
import torch
from torch import Tensor

from bayesmeta.data.csv_tables import BadRow, is_row_numbers, naming_lines, not_numbers, read_csv, require_unique

__all__ = [
    "TableRows",
    "columns_of",
    "first_line",
    "read_frame",
    "read_table_rows",
    "require_file",
    "require_finite_column",
    "require_named",
    "require_numbers",
]


class TableRows(NamedTuple):
    """TableRows of a table.

    Attributes:
        tasks: names of the tasks, ascending.
        codes: the task of each row, by its place in `tasks` `(n,)`.
        values: inputs and target of each row, the target last `(n, k)`.
        names: of the input columns.
    """

    tasks: tuple[Any, ...]
    codes: Tensor
    values: Tensor
    names: tuple[str, ...]


def read_frame(source: Any) -> nw.DataFrame[Any]:
    """A table from the path of a Parquet or CSV file, or from any dataframe that narwhals knows."""
    if isinstance(source, str | Path):
        return nw.from_native(_read_file(Path(source)), eager_only=True)
    try:
        frame = nw.from_native(source)
        frame = frame.collect() if isinstance(frame, nw.LazyFrame) else frame
    except nw.exceptions.DuplicateError as error:
        raise ValueError(f"columns must have different names. {' '.join(str(error).split())}") from None
    except TypeError:
        raise TypeError(
            f"a table must be a path or a dataframe (pandas, polars, pyarrow, ...); got {type(source).__name__}"
        ) from None
    _require_strings(frame.columns)
    return frame.drop([name for name in frame.columns if name and is_row_numbers(name, frame[name])])


def read_table_rows(source: Any, *, task: str, target: str, inputs: Sequence[str] | None = None) -> TableRows:
    """Read a whole table into memory.

    Args:
        source: path of a Parquet or CSV file, or a dataframe of any kind that narwhals knows (pandas, polars, pyarrow).
        task: the column that names the task.
        target: the column with y.
        inputs: the columns of x in order; None takes all others, in the order of the table.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: a name of a column is no string.
        ValueError: a column is missing, is there twice or holds no numbers, or a value is missing, NaN or infinite; the
            message names column, task and row, rows counting from 0, or the line of a CSV file.
    """
    with naming_lines(source):
        return _read_table_rows(source, task, target, inputs)


def _read_table_rows(source: Any, task: str, target: str, inputs: Sequence[str] | None) -> TableRows:
    frame = read_frame(source)
    columns = columns_of(frame.schema, task, target, inputs, frame=frame)
    if not len(frame):
        raise ValueError("the table has no rows")
    labels = frame[task]
    if labels.dtype == nw.Object:
        raise ValueError(
            f"task column {task!r} must hold values of one kind; got {labels.dtype}. Convert it to strings"
        )
    require_named(task, labels, 0)
    names, codes = np.unique(labels.to_numpy(), return_inverse=True)
    values = np.empty((len(codes), len(columns)))
    for j, column in enumerate(columns):
        # a missing value becomes NaN
        values[:, j] = frame[column].cast(nw.Float64).to_numpy()
        require_finite_column(column, values[:, j], labels, 0)
    return TableRows(tuple(names.tolist()), torch.from_numpy(codes), torch.from_numpy(values), tuple(columns[:-1]))


def _read_file(path: Path) -> pl.DataFrame:
    require_file(path, "polars.read_parquet({})")
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet", ".pq"):
        raise ValueError(f"a table must be a .parquet or .csv file; got {path}. Convert it, or give a dataframe")
    try:
        if kind != ".csv":
            with path.open("rb") as file:  # polars cannot open every name that Python can
                return pl.read_parquet(file)
        return read_csv(path)
    except (pl.exceptions.PolarsError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path} as a {kind[1:]} file: {first_line(error)}") from None


def require_numbers(frame: nw.DataFrame[Any], task: str, columns: Mapping[str, str]) -> None:
    """TableRows, by what they are, hold finite numbers, and the column `task` has no gaps.

    Raises:
        ValueError: one does not; the message names column and row.
    """
    require_named(task, frame[task], 0)
    for name, role in columns.items():
        _require_number_type(role, name, frame.schema[name], "", frame)
        require_finite_column(name, frame[name].cast(nw.Float64).to_numpy(), frame[task], 0)


def columns_of(
    schema: Mapping[str, Any],
    task: str,
    target: str,
    inputs: Sequence[str] | None,
    *,
    where: str = "",
    frame: nw.DataFrame[Any] | None = None,
) -> list[str]:
    """The input columns and the target, all there and all numbers; of a `frame` it is said which cell is none."""
    names = list(schema)
    for role, name in (("task", task), ("target", target)):
        if not isinstance(name, str):
            raise TypeError(f"{role} must be the name of a column, a string; got {name!r}")
    if isinstance(inputs, str) or not all(isinstance(name, str) for name in inputs or ()):
        raise TypeError(f"inputs must be a list of names of columns, which are strings; got {inputs!r}")
    if task == target:
        raise ValueError(f"task and target must be two columns; got {task!r} for both")
    chosen = [name for name in names if name not in (task, target)] if inputs is None else list(inputs)
    require_unique(chosen)
    for role, name in [("task", task), ("target", target), *(("input", name) for name in chosen)]:
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f". Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{role} column {name!r} does not exist{where}: the columns are {', '.join(names)}{hint}")
        if role == "input" and name in (task, target):
            raise ValueError(f"input column {name!r} is the {'task' if name == task else 'target'} as well")
        if role != "task":
            _require_number_type(role, name, schema[name], where, frame)
    return [*chosen, target]


def _require_number_type(role: str, name: str, dtype: Any, where: str, frame: nw.DataFrame[Any] | None) -> None:
    if dtype.is_numeric() or str(dtype) == "Boolean":
        return
    if frame is not None and dtype == nw.String:
        _require_number_cells(f"{role} column {name!r} must hold numbers", frame[name].to_list())
    way_out = "Encode it as numbers, or leave it out by naming inputs" if role == "input" else "Convert it"
    raise ValueError(f"{role} column {name!r} must hold numbers{where}; it holds {dtype}. {way_out}")


def _require_number_cells(expected: str, cells: list[str | None]) -> None:
    """Raises an error that names the first cell that is no number, where most are."""
    wrong = not_numbers(cells)
    if 0 < 2 * len(wrong) < len(cells):
        count = "1 cell does not, in " if len(wrong) == 1 else f"{len(wrong)} cells do not, the first in "
        raise BadRow(f"{expected}; {count}", wrong[0], f": {cells[wrong[0]]!r}. Write a number, or take the row out")


def _require_strings(names: Sequence[Any]) -> None:
    """As pandas alone does not: its columns may have numbers for names, or several levels of them."""
    other = next((name for name in names if not isinstance(name, str)), None)
    if other is not None:
        new = '"_".join(map(str, name))' if isinstance(other, tuple) else "str(name)"
        raise TypeError(
            f"names of columns must be strings; got {other!r}. Rename them: frame.columns = [{new} for name in "
            "frame.columns]"
        )


def require_file(path: Path, way_out: str) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_file():
        if path.is_dir():
            files = str(path / "*.parquet")
            raise ValueError(f"{path} is a directory. For all its files give {way_out.format(repr(files))}")
        raise ValueError(f"a table must be a .parquet or .csv file; {path} is not a regular file")


def require_named(task: str, labels: Any, start: int) -> None:
    """Every row has a task; `labels` is a series of either library, whose first row is row `start` of the table."""
    missing = (labels.is_nan().fill_null(True) if labels.dtype.is_float() else labels.is_null()).to_numpy()
    if missing.any():
        raise BadRow(
            f"task column {task!r} must name a task in every row; ", start + int(missing.argmax()), " has none"
        )


def require_finite_column(column: str, values: np.ndarray, labels: Any, start: int) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        row = int(finite.argmin())
        rows = "1 row is" if finite.sum() == len(finite) - 1 else f"{len(finite) - int(finite.sum())} rows are"
        value = "missing or NaN" if np.isnan(values[row]) else f"{values[row]:g}"
        raise BadRow(
            f"column {column!r} must hold finite numbers; {rows} not, the first in task {labels[row]!r}, ",
            start + row,
            f": {value}. Take such rows out, or give them a number",
        )


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
