"""Tables of past tasks in long form, one row per observation: in memory as `Data`, in a stream as `Statistics`.

A table has a column that names the task, a column with the target, and columns with inputs, which hold numbers. Tasks
come out in ascending order of their names, whatever the order of the rows, so that two readings of a table line up.
"""

import csv
import difflib
import glob
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl
import torch
from torch import Tensor

from bayesmeta.bad_rows import BadRow, naming_lines
from bayesmeta.csv_tables import is_row_numbers, not_numbers, read_csv, require_unique
from bayesmeta.data import Data, require_room
from bayesmeta.describe import Described
from bayesmeta.statistics import Statistics

__all__ = [
    "TaskStatistics",
    "TaskTable",
    "read_frame",
    "read_tasks",
    "reduce_tasks",
    "require_numbers",
    "require_varying_target",
    "stream_statistics",
]

# rows read at once while streaming; two batches are in memory, one being read while the other is summed
BATCH_ROWS = 3 * 2**17


@dataclass(frozen=True, eq=False)
class TaskTable(Described):
    """Rows of tasks, with the names that a batch index stands for.

    Args:
        data: the rows, padded, float64; tasks as in `tasks`, columns of x as in `inputs`.
        tasks: names of the tasks, ascending.
        inputs: names of the input columns.
    """

    data: Data
    tasks: tuple[Any, ...]
    inputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TaskStatistics(Described):
    """Statistics of tasks, with the names that a batch index stands for; `+` pools the rows of two shards of a table.

    Args:
        statistics: about an origin among the rows of each task; tasks as in `tasks`, inputs as in `inputs`.
        tasks: names of the tasks, ascending.
        inputs: names of the input columns.
    """

    statistics: Statistics
    tasks: tuple[Any, ...]
    inputs: tuple[str, ...]

    def __add__(self, other: "TaskStatistics") -> "TaskStatistics":
        """The rows of both; a task may be in either or in both."""
        if self.inputs != other.inputs:
            raise ValueError(f"both sides must have the same inputs; got {self.inputs} and {other.inputs}")
        tasks = tuple(sorted({*self.tasks, *other.tasks}))
        place = {task: index for index, task in enumerate(tasks)}
        a, b = (
            _spread(side.statistics, torch.tensor([place[t] for t in side.tasks]), len(tasks)) for side in (self, other)
        )
        return TaskStatistics(a + b, tasks, self.inputs)


def read_tasks(source: Any, *, task: str, target: str, inputs: Sequence[str] | None = None) -> TaskTable:
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
            message names column, task and row, rows counting from 0, or the line of a CSV file. Or a task
            is so much longer than the others that padded tasks would take gigabytes: see `reduce_tasks`.
    """
    with naming_lines(source):
        names, codes, values, columns = _read_columns(source, task, target, inputs)
    return TaskTable(_pad(codes, values, len(names)), names, columns[:-1])


def reduce_tasks(source: Any, *, task: str, target: str, inputs: Sequence[str] | None = None) -> TaskStatistics:
    """Reduce a whole table to statistics per task, without padding: memory is that of the table, whatever the tasks.

    Args:
        source: as in `read_tasks`, and so the others. `stream_statistics` is for files larger than memory.

    Raises:
        FileNotFoundError, TypeError, ValueError: as in `read_tasks`.
    """
    with naming_lines(source):
        names, codes, values, columns = _read_columns(source, task, target, inputs)
    return TaskStatistics(_moments(codes, values, len(names)), names, columns[:-1])


def _read_columns(
    source: Any, task: str, target: str, inputs: Sequence[str] | None
) -> tuple[tuple[Any, ...], Tensor, Tensor, tuple[str, ...]]:
    """Names of tasks, the number of each row's task `(n,)`, its inputs and target `(n, k)`, and their names."""
    frame = read_frame(source)
    columns = _columns(frame.schema, task, target, inputs, frame=frame)
    if not len(frame):
        raise ValueError("the table has no rows")
    labels = frame[task]
    if labels.dtype == nw.Object:
        raise ValueError(
            f"task column {task!r} must hold values of one kind; got {labels.dtype}. Convert it to strings"
        )
    _require_named(task, labels, 0)
    names, codes = np.unique(labels.to_numpy(), return_inverse=True)
    values = np.empty((len(codes), len(columns)))
    for j, column in enumerate(columns):
        # a missing value becomes NaN
        values[:, j] = frame[column].cast(nw.Float64).to_numpy()
        _require_finite(column, values[:, j], labels, 0)
    return tuple(names.tolist()), torch.from_numpy(codes), torch.from_numpy(values), tuple(columns)


def stream_statistics(
    paths: str | Path | Sequence[str | Path], *, task: str, target: str, inputs: Sequence[str] | None = None
) -> TaskStatistics:
    """Reduce Parquet files to statistics per task, reading a batch of rows at a time.

    Memory is that of the statistics and of two batches, so the table may be larger than memory. The origin of a task is
    its first row: a common origin would lose the scatter of tasks that sit far from it.

    Args:
        paths: one or many Parquet files, or glob patterns such as `"logs/*.parquet"`; together they are one table.
        task: as in `read_tasks`, and so `target` and `inputs`, which come from the first file.

    Raises:
        FileNotFoundError: there is no such file, or nothing matches a pattern.
        ValueError: as in `read_tasks`, or a file is no Parquet file.
    """
    files = _expand(paths)
    schema = _parquet_schema(files[0])
    columns = _columns(schema, task, target, inputs)
    for path in files[1:]:
        other = _parquet_schema(path)
        _columns(other, task, target, columns[:-1], where=f" in {path}")
        if other[task] != schema[task]:
            raise ValueError(
                f"task column {task!r} must be of one type in all files; "
                f"it is {schema[task]} in {files[0]} and {other[task]} in {path}"
            )
    numbering, sums = _Numbering(schema[task]), _Sums(len(columns))
    start = 0  # number of the batch's first row in the whole table
    with ThreadPoolExecutor(sums.THREADS) as threads:
        for batch in _batches(files, task, columns):
            labels = batch[task]
            _require_named(task, labels, start)
            # a missing number becomes NaN
            values = [batch[column].cast(pl.Float64).fill_null(np.nan).to_numpy() for column in columns]
            for column, value in zip(columns, values, strict=True):
                _require_finite(column, value, labels, start)
            numbers, new_rows = numbering(labels)
            sums.start([value[new_rows] for value in values])
            sums.add(torch.from_numpy(numbers), values, threads)
            start += len(batch)
            del batch, labels, values, value  # or they would stay while the next two are read
    if not sums.num_tasks:
        raise ValueError(f"the table has no rows: {', '.join(map(str, files))}")
    known = numbering.known.sort("task")
    statistics = sums.statistics(torch.tensor(known["number"].to_numpy()))
    return TaskStatistics(statistics, tuple(known["task"].to_list()), tuple(columns[:-1]))


def require_varying_target(data: Data, target: str = "y") -> None:
    """The target differs between some two rows of the table: of a constant nothing can be learned."""
    y = data.y[data.mask]
    if len(y) and bool((y == y[0]).all()):
        raise ValueError(
            f"target {target!r} must vary; it is {y[0].item():g} in all {len(y)} rows. Is it the column you meant?"
        )


# ---- tables in memory


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


def _read_file(path: Path) -> pl.DataFrame:
    _require_file(path, "polars.read_parquet({})")
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet", ".pq"):
        raise ValueError(f"a table must be a .parquet or .csv file; got {path}. Convert it, or give a dataframe")
    try:
        if kind != ".csv":
            with path.open("rb") as file:  # polars cannot open every name that Python can
                return pl.read_parquet(file)
        return read_csv(path)
    except (pl.exceptions.PolarsError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path} as a {kind[1:]} file: {_first_line(error)}") from None


def _pad(codes: Tensor, values: Tensor, num_tasks: int) -> Data:
    """Rows `(n, k)`, the last column y, of tasks numbered `codes` `(n,)`, as padded tasks."""
    count = codes.bincount(minlength=num_tasks)
    require_room(count, values.shape[1], values.element_size())
    order = codes.argsort(stable=True)
    place = torch.empty_like(codes)  # of a row within its task
    place[order] = torch.arange(len(codes)) - (count.cumsum(0) - count).repeat_interleave(count)
    z = values.new_zeros(num_tasks, int(count.max()), values.shape[1])
    z[codes, place] = values
    return Data(z[..., :-1], z[..., -1], torch.arange(z.shape[1]) < count[:, None])


def _moments(codes: Tensor, values: Tensor, num_tasks: int) -> Statistics:
    """Statistics of the same rows, about the mean of each task."""

    def summed(rows: Tensor) -> Tensor:
        return rows.new_zeros(num_tasks, *rows.shape[1:]).index_add_(0, codes, rows)

    count = codes.bincount(minlength=num_tasks).double()
    origin = summed(values) / count[:, None]
    centred = values - origin[codes]
    k = values.shape[1]
    second = values.new_empty(num_tasks, k, k)
    for i, j in combinations_with_replacement(range(k), 2):
        second[:, i, j] = second[:, j, i] = summed(centred[:, i] * centred[:, j])
    return Statistics(count, origin, summed(centred), second, k - 1)


# ---- tables in a stream


class _Numbering:
    """Numbers tasks in the order of their appearance."""

    # whole numbers that span no more than this are looked up in a table, 20 times faster than in a hash map
    MAX_SPAN = 2**22
    WHOLE = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32)

    def __init__(self, dtype: Any) -> None:
        self.known = pl.DataFrame(schema={"task": dtype, "number": pl.Int64})
        self.low = 0
        self.table: np.ndarray | None = None

    def __call__(self, labels: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of tasks, and the rows in which new tasks appear first, in the order of their numbers."""
        numbers = self._look_up(labels)
        unseen = np.flatnonzero(numbers < 0)
        if not len(unseen):
            return numbers, unseen
        new = labels.gather(unseen).alias("task").to_frame().with_columns(row=unseen)
        new = new.unique("task", keep="first", maintain_order=True)
        count = len(self.known)
        added = new.select("task", number=pl.int_range(count, count + len(new), dtype=pl.Int64))
        self.known = pl.concat([self.known, added])
        self._tabulate()
        numbers[unseen] = self._look_up(labels.gather(unseen))
        return numbers, new["row"].to_numpy()

    def _look_up(self, labels: pl.Series) -> np.ndarray:
        """The numbers of tasks, -1 where a task is new."""
        if self.table is None:
            found = labels.alias("task").to_frame().join(self.known, on="task", how="left", maintain_order="left")
            return found["number"].fill_null(-1).to_numpy(writable=True)
        keys = labels.cast(pl.Int64).to_numpy()
        inside = (keys >= self.low) & (keys < self.low + len(self.table))
        if inside.all():
            return self.table[keys - self.low]
        return np.where(inside, np.take(self.table, keys - self.low, mode="clip"), -1)

    def _tabulate(self) -> None:
        if self.known["task"].dtype not in self.WHOLE:
            return
        keys = self.known["task"].cast(pl.Int64).to_numpy()
        self.low, span = int(keys.min()), int(keys.max()) - int(keys.min()) + 1
        self.table = np.full(span, -1) if span <= self.MAX_SPAN else None
        if self.table is not None:
            self.table[keys - self.low] = self.known["number"].to_numpy()


class _Sums:
    """Count, first and second moments of tasks: one vector over tasks per moment.

    Such a vector fits into the cache, and rows in any order are scattered into it.
    """

    THREADS = 2

    def __init__(self, num_columns: int) -> None:
        self.num_tasks = self.room = 0
        self.pairs = list(combinations_with_replacement(range(num_columns), 2))
        self.count = [_zeros(0)]
        self.origin, self.first = ([_zeros(0) for _ in range(num_columns)] for _ in range(2))
        self.second = [_zeros(0) for _ in self.pairs]
        # where a batch is centred and multiplied, used again and again: new memory is slow to touch
        self.centred = torch.empty(num_columns, BATCH_ROWS, dtype=torch.float64)
        self.product = torch.empty(self.THREADS, BATCH_ROWS, dtype=torch.float64)

    def start(self, origins: list[np.ndarray]) -> None:
        """Number more tasks, with moments about `origins`, one array per column."""
        old, self.num_tasks = self.num_tasks, self.num_tasks + len(origins[0])
        if self.num_tasks > self.room:
            self.room = self.num_tasks + self.num_tasks // 4
            for vectors in (self.count, self.origin, self.first, self.second):
                for i, vector in enumerate(vectors):
                    vectors[i] = _zeros(self.room)
                    vectors[i][:old] = vector[:old]
        for origin, values in zip(self.origin, origins, strict=True):
            origin[old : self.num_tasks] = torch.from_numpy(values)

    def add(self, numbers: Tensor, values: list[np.ndarray], threads: Executor) -> None:
        """Rows of the tasks `numbers`, one array per column."""
        centred, product = self.centred[:, : len(numbers)], self.product[:, : len(numbers)]

        def centre(i: int) -> None:
            torch.index_select(self.origin[i], 0, numbers, out=centred[i])
            np.subtract(values[i], centred[i].numpy(), out=centred[i].numpy())
            self.first[i].scatter_add_(0, numbers, centred[i])

        def multiply(part: int) -> None:
            for k in range(part, len(self.pairs), self.THREADS):
                i, j = self.pairs[k]
                self.second[k].scatter_add_(0, numbers, torch.mul(centred[i], centred[j], out=product[part]))

        self.count[0].scatter_add_(0, numbers, torch.ones(len(numbers), dtype=torch.float64))
        list(threads.map(centre, range(len(values))))
        list(threads.map(multiply, range(self.THREADS)))

    def statistics(self, order: Tensor) -> Statistics:
        """Of the tasks numbered `order`, the last column being y. The sums are given up, to save memory."""
        k = len(self.origin)
        del self.centred, self.product  # room for the results
        first, origin = (torch.stack([vector[order] for vector in v], -1) for v in (self.first, self.origin))
        second = first.new_empty(len(order), k, k)
        for i, j in reversed(self.pairs):
            second[:, i, j] = second[:, j, i] = self.second.pop()[order]
        return Statistics(self.count[0][order], origin, first, second, k - 1)


def _zeros(size: int) -> Tensor:
    # numpy asks for zeros that take no memory until they are touched
    return torch.from_numpy(np.zeros(size))


def _batches(files: list[Path], task: str, columns: list[str]) -> Iterator[pl.DataFrame]:
    """Batches of rows; the next one is read meanwhile."""

    def read(path: Path, start: int) -> pl.DataFrame:
        batch = pl.scan_parquet(path, glob=False).select(task, *columns).slice(start, BATCH_ROWS)
        return batch.collect(engine="streaming").rechunk()

    with ThreadPoolExecutor(1) as reader:
        reading = None
        for path in files:
            for start in range(0, _num_rows(path), BATCH_ROWS):
                following = reader.submit(read, path, start)
                if reading is not None:
                    yield reading.result()
                reading = following
        if reading is not None:
            yield reading.result()


def _num_rows(path: Path) -> int:
    return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())


def _parquet_schema(path: Path) -> Mapping[str, Any]:
    try:
        return pl.read_parquet_schema(path)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"cannot read {path} as a parquet file: {_first_line(error)}") from None


def _expand(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Files in the order given, those of a pattern in the order of their names."""
    files: list[Path] = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        if Path(path).exists() or not glob.has_magic(str(path)):
            _require_file(Path(path), "the pattern {}")
            files.append(Path(path))
            continue
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise FileNotFoundError(f"no file matches {path}")
        files += map(Path, found)
    if not files:
        raise ValueError("from_parquet needs at least one path; got none")
    return files


def _spread(statistics: Statistics, place: Tensor, num_tasks: int) -> Statistics:
    """The same statistics among `num_tasks` tasks, at the indices `place`; the others are empty."""

    def spread(value: Tensor) -> Tensor:
        return value.new_zeros(num_tasks, *value.shape[1:]).index_copy_(0, place, value)

    second = None if statistics.second is None else spread(statistics.second)
    count, origin, first = spread(statistics.count), spread(statistics.origin), spread(statistics.first)
    return Statistics(count, origin, first, second, statistics.num_inputs)


# ---- what a table must be


def require_numbers(frame: nw.DataFrame[Any], task: str, columns: Mapping[str, str]) -> None:
    """Columns, by what they are, hold finite numbers, and the column `task` has no gaps.

    Raises:
        ValueError: one does not; the message names column and row.
    """
    _require_named(task, frame[task], 0)
    for name, role in columns.items():
        _require_number_type(role, name, frame.schema[name], "", frame)
        _require_finite(name, frame[name].cast(nw.Float64).to_numpy(), frame[task], 0)


def _columns(
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


def _require_file(path: Path, way_out: str) -> None:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if not path.is_file():
        if path.is_dir():
            files = str(path / "*.parquet")
            raise ValueError(f"{path} is a directory. For all its files give {way_out.format(repr(files))}")
        raise ValueError(f"a table must be a .parquet or .csv file; {path} is not a regular file")


def _require_named(task: str, labels: Any, start: int) -> None:
    """Every row has a task; `labels` is a series of either library, whose first row is row `start` of the table."""
    missing = (labels.is_nan().fill_null(True) if labels.dtype.is_float() else labels.is_null()).to_numpy()
    if missing.any():
        raise BadRow(
            f"task column {task!r} must name a task in every row; ", start + int(missing.argmax()), " has none"
        )


def _require_finite(column: str, values: np.ndarray, labels: Any, start: int) -> None:
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


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
