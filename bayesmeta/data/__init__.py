"""Rows of tasks, sums over them, and the tables that they come from."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "Data",
    "Statistics",
    "TaskStatistics",
    "TaskTable",
    "describe_rows",
    "read_tasks",
    "reduce_tasks",
    "require_room",
    "require_varying_target",
    "stream_statistics",
]

if TYPE_CHECKING:
    from bayesmeta.data.named_tasks import (
        TaskStatistics,
        TaskTable,
        read_tasks,
        reduce_tasks,
        require_varying_target,
        stream_statistics,
    )
    from bayesmeta.data.rows import Data, describe_rows, require_room
    from bayesmeta.data.statistics import Statistics
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Data": "rows",
            "Statistics": "statistics",
            "TaskStatistics": "named_tasks",
            "TaskTable": "named_tasks",
            "describe_rows": "rows",
            "read_tasks": "named_tasks",
            "reduce_tasks": "named_tasks",
            "require_room": "rows",
            "require_varying_target": "named_tasks",
            "stream_statistics": "named_tasks",
        },
    )
