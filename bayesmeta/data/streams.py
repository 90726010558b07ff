"""Parquet files larger than memory, reduced to sums per task a batch of rows at a time.

Memory is that of the sums and of two batches. The origin of a task is its first row: a common origin would lose the
scatter of tasks that sit far from it.
"""

import glob
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from bayesmeta.data.tables import columns_of, first_line, require_file, require_finite_column, require_named

__all__ = ["TaskSums", "stream_sums"]

# rows read at once while streaming; two batches are in memory, one being read while the other is summed
BATCH_ROWS = 3 * 2**17


@dataclass(frozen=True)
class TaskSums:
    """Sums over the rows z = (x, y) of each task, about an origin of its own.

    Attributes:
        tasks: names of the tasks, ascending.
        names: of the input columns.
        count: rows per task `(tasks,)`.
        origin: of z `(tasks, k)`.
        first: sums of z - origin `(tasks, k)`.
        second: sums of (z - origin)(z - origin)^T `(tasks, k, k)`.
    """

    tasks: tuple[Any, ...]
    names: tuple[str, ...]
    count: Tensor
    origin: Tensor
    first: Tensor
    second: Tensor


def stream_sums(
    paths: str | Path | Sequence[str | Path], *, task: str, target: str, inputs: Sequence[str] | None = None
) -> TaskSums:
    """Sums of all rows of one or many Parquet files.

    Args:
        paths: one or many Parquet files, or glob patterns such as `"logs/*.parquet"`; together they are one table.
        task: the column that names the task.
        target: the column with y.
        inputs: the columns of x in order; None takes all others, in the order of the first file.

    Raises:
        FileNotFoundError: there is no such file, or nothing matches a pattern.
        ValueError: as in `read_table_rows`, or a file is no Parquet file.
    """
    files = _expand(paths)
    schema = _parquet_schema(files[0])
    columns = columns_of(schema, task, target, inputs)
    for path in files[1:]:
        other = _parquet_schema(path)
        columns_of(other, task, target, columns[:-1], where=f" in {path}")
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
            require_named(task, labels, start)
            # a missing number becomes NaN
            values = [batch[column].cast(pl.Float64).fill_null(np.nan).to_numpy() for column in columns]
            for column, value in zip(columns, values, strict=True):
                require_finite_column(column, value, labels, start)
            numbers, new_rows = numbering(labels)
            sums.start([value[new_rows] for value in values])
            sums.add(torch.from_numpy(numbers), values, threads)
            start += len(batch)
            del batch, labels, values, value  # or they would stay while the next two are read
    if not sums.num_tasks:
        raise ValueError(f"the table has no rows: {', '.join(map(str, files))}")
    known = numbering.known.sort("task")
    moments = sums.moments(torch.tensor(known["number"].to_numpy()))
    return TaskSums(tuple(known["task"].to_list()), tuple(columns[:-1]), *moments)


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

    def moments(self, order: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Count, origin, first and second moments of the tasks numbered `order`. The sums are given up, for memory."""
        k = len(self.origin)
        del self.centred, self.product  # room for the results
        first, origin = (torch.stack([vector[order] for vector in v], -1) for v in (self.first, self.origin))
        second = first.new_empty(len(order), k, k)
        for i, j in reversed(self.pairs):
            second[:, i, j] = second[:, j, i] = self.second.pop()[order]
        return self.count[0][order], origin, first, second


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
        raise ValueError(f"cannot read {path} as a parquet file: {first_line(error)}") from None


def _expand(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Files in the order given, those of a pattern in the order of their names."""
    files: list[Path] = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        if Path(path).exists() or not glob.has_magic(str(path)):
            require_file(Path(path), "the pattern {}")
            files.append(Path(path))
            continue
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise FileNotFoundError(f"no file matches {path}")
        files += map(Path, found)
    if not files:
        raise ValueError("from_parquet needs at least one path; got none")
    return files
