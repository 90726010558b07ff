"""A section of `benchmarks.speed`: a Parquet file of 10 million rows reduced to 100,000 tasks in a stream."""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import torch

import bayesmeta.data.named_tasks  # noqa: F401 - loaded before the clock starts, as any second call finds it
from bayesmeta import Statistics
from benchmarks.report import Figure

__all__ = ["stream_a_table"]

NUM_ROWS, NUM_INPUTS, NUM_TASKS = 10_000_000, 8, 100_000
MIB = 2**20
T = TypeVar("T")


def stream_a_table(repeats: int) -> list[Figure]:
    """`Statistics.from_parquet`, rows of tasks in no order: the median over processes, each of which reads once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.parquet"
        _alone(_write, path)
        runs = [_alone(_stream, path) for _ in range(repeats)]
    seconds = statistics.median(seconds for seconds, _ in runs)
    peak = statistics.median(peak for _, peak in runs)
    return [
        Figure("speed/stream_rows_s", NUM_ROWS / seconds, "from_parquet, rows per second"),
        Figure("speed/stream_s", seconds, "from_parquet, seconds for 10 million rows of 8 inputs, 100,000 tasks"),
        Figure("speed/stream_peak_mib", peak, "from_parquet, peak memory of the whole process, MiB"),
    ]


def _alone(call: Callable[[Path], T], path: Path) -> T:
    """The result of `call(path)` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(call, (path,))


def _write(path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.standard_normal(NUM_ROWS) for i in range(NUM_INPUTS)}
    task = rng.integers(0, NUM_TASKS, NUM_ROWS)
    pl.DataFrame({"task": task, **columns, "y": rng.standard_normal(NUM_ROWS)}).write_parquet(path)


def _stream(path: Path) -> tuple[float, float]:
    """Seconds, and the high-water mark of the process in MiB, libraries included."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    result = Statistics.from_parquet(path, task="task", target="y")
    seconds = time.perf_counter() - start
    if int(result.count.sum()) != NUM_ROWS:
        raise RuntimeError(f"the stream lost rows: {int(result.count.sum())} of {NUM_ROWS} were counted")
    return seconds, _peak_bytes() / MIB


def _peak_bytes() -> int:
    # not ru_maxrss, which a process inherits from the one that started it
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
