"""Tables of past tasks with the names of their tasks: in memory as `Data`, in a stream as `Statistics`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.streams import stream_sums
from bayesmeta.data.tables import read_table_rows
from bayesmeta.describe import Described

__all__ = [
    "TaskStatistics",
    "TaskTable",
    "read_tasks",
    "reduce_tasks",
    "require_varying_target",
    "stream_statistics",
]


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
        source: as in `bayesmeta.data.rows.tables.read_table_rows`, and so the others.

    Raises:
        FileNotFoundError, TypeError: as there.
        ValueError: as there, or a task is so much longer than the others that padded tasks would take gigabytes: see
            `reduce_tasks`.
    """
    columns = read_table_rows(source, task=task, target=target, inputs=inputs)
    return TaskTable(Data.of_table(columns), columns.tasks, columns.names)


def reduce_tasks(source: Any, *, task: str, target: str, inputs: Sequence[str] | None = None) -> TaskStatistics:
    """Reduce a whole table to statistics per task, without padding: memory is that of the table, whatever the tasks.

    Args:
        source: as in `read_tasks`, and so the others. `stream_statistics` is for files larger than memory.

    Raises:
        FileNotFoundError, TypeError, ValueError: as in `read_tasks`.
    """
    columns = read_table_rows(source, task=task, target=target, inputs=inputs)
    return TaskStatistics(Statistics.of_table(columns), columns.tasks, columns.names)


def stream_statistics(
    paths: str | Path | Sequence[str | Path], *, task: str, target: str, inputs: Sequence[str] | None = None
) -> TaskStatistics:
    """Reduce Parquet files to statistics per task, reading a batch of rows at a time.

    Memory is that of the statistics and of two batches, so the table may be larger than memory.

    Args:
        paths: one or many Parquet files, or glob patterns such as `"logs/*.parquet"`; together they are one table.
        task: as in `read_tasks`, and so `target` and `inputs`, which come from the first file.

    Raises:
        FileNotFoundError: there is no such file, or nothing matches a pattern.
        ValueError: as in `read_tasks`, or a file is no Parquet file.
    """
    sums = stream_sums(paths, task=task, target=target, inputs=inputs)
    return TaskStatistics(Statistics.of_sums(sums), sums.tasks, sums.names)


def require_varying_target(data: Data, target: str = "y") -> None:
    """The target differs between some two rows of the table: of a constant nothing can be learned."""
    y = data.y[data.mask]
    if len(y) and bool((y == y[0]).all()):
        raise ValueError(
            f"target {target!r} must vary; it is {y[0].item():g} in all {len(y)} rows. Is it the column you meant?"
        )


def _spread(statistics: Statistics, place: Tensor, num_tasks: int) -> Statistics:
    """The same statistics among `num_tasks` tasks, at the indices `place`; the others are empty."""

    def spread(value: Tensor) -> Tensor:
        return value.new_zeros(num_tasks, *value.shape[1:]).index_copy_(0, place, value)

    second = None if statistics.second is None else spread(statistics.second)
    count, origin, first = spread(statistics.count), spread(statistics.origin), spread(statistics.first)
    return Statistics(count, origin, first, second, statistics.num_inputs)
