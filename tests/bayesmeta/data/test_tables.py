"""Tables in long form: the same rows whatever reads them, and errors that say where."""

import datetime
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits import Log
from bayesmeta import Data, LinearGaussian, Statistics
from bayesmeta.data import streams
from bayesmeta.data.named_tasks import (
    TaskStatistics,
    read_tasks,
    reduce_tasks,
    require_varying_target,
    stream_statistics,
)
from bayesmeta.data.tables import read_frame
from bayesmeta.fields import LearnedFrom
from bayesmeta.warning_kinds import PlacementWarning
from bo import SearchSpace, TuningPrior
from tests.seeds import shifted

NAMES = {"task": "task", "target": "y"}


def table(num_rows: int = 200, num_tasks: int = 7, number: int = 0, offset: float = 0.0) -> pl.DataFrame:
    """Rows in no order; far from zero, and elsewhere for each task, by `offset`."""
    rng = np.random.default_rng(shifted(number))
    task = rng.integers(0, num_tasks, num_rows)
    far = offset * (1.0 + task)
    return pl.DataFrame(
        {
            "a": rng.standard_normal(num_rows) + far,
            "task": [f"t{i:02d}" for i in task],
            "b": 0.1 * rng.standard_normal(num_rows) - far,
            "y": rng.standard_normal(num_rows) + far,
        }
    )


def expected(frame: pl.DataFrame) -> tuple[list[str], Data]:
    tasks = sorted(set(frame["task"]))
    rows = [frame.filter(pl.col("task") == task) for task in tasks]
    return tasks, Data.pad([(r.select("a", "b").to_numpy(writable=True), r["y"].to_numpy(writable=True)) for r in rows])


def same(a: Data, b: Data) -> bool:
    return torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and torch.equal(a.mask, b.mask)


def close(a: Statistics, b: Statistics, rtol: float = 1e-10) -> None:
    """Scatter and the deviations of means in units of the spread, which is what an offset would destroy."""
    assert torch.equal(a.count, b.count)
    torch.testing.assert_close(a.scatter, b.scatter, rtol=rtol, atol=rtol)
    torch.testing.assert_close(a.mean, b.mean, rtol=1e-14, atol=1e-12)


@pytest.mark.parametrize("kind", ["polars", "lazy", "pandas", "pyarrow", "parquet", "csv", "str"])
def test_every_source_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    frame = table()
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv", float_precision=17)
    source: Any = {
        "polars": frame,
        "lazy": frame.lazy(),
        "pandas": pd.DataFrame(frame.to_dict(as_series=False)),
        "pyarrow": frame.to_arrow(),
        "parquet": tmp_path / "t.parquet",
        "csv": tmp_path / "t.csv",
        "str": str(tmp_path / "t.parquet"),
    }[kind]
    read = read_tasks(source, **NAMES)
    tasks, data = expected(frame)
    assert (read.tasks, read.inputs) == (tuple(tasks), ("a", "b"))
    if kind == "csv":
        torch.testing.assert_close(read.data.y, data.y, rtol=1e-15, atol=1e-15)
    else:
        assert same(read.data, data)
    assert same(Data.from_frame(source, **NAMES), read.data)


def test_inputs_are_chosen_and_ordered() -> None:
    read = read_tasks(table(), **NAMES, inputs=["b"])
    assert read.inputs == ("b",)
    assert read.data.x.shape[-1] == 1
    assert read_tasks(table(), **NAMES, inputs=[]).data.x.shape[-1] == 0
    assert read_tasks(table(), **NAMES, inputs=["b", "a"]).inputs == ("b", "a")


@pytest.mark.parametrize(
    "tasks",
    [[3, 1, 3, -5], [True, False, True, False], [datetime.date(2020, 1, i) for i in (2, 1, 2, 3)], ["é", "b", "", "b"]],
)
def test_tasks_of_any_type_ascend(tmp_path: Path, tasks: list[Any]) -> None:
    frame = pl.DataFrame({"task": tasks, "y": [1.0, 2.0, 3.0, 4.0], "whole": [1, 2, 3, 4], "flag": [True] * 4})
    frame.write_parquet(tmp_path / "t.parquet")
    read = read_tasks(frame, **NAMES)
    stream = stream_statistics(tmp_path / "t.parquet", **NAMES)
    assert read.tasks == stream.tasks == tuple(sorted(set(tasks)))
    close(stream.statistics, Statistics.of(read.data))


def test_categories_are_tasks_by_name(tmp_path: Path) -> None:
    frame = table().with_columns(pl.col("task").cast(pl.Categorical))
    frame.write_parquet(tmp_path / "t.parquet")
    assert read_tasks(frame, **NAMES).tasks == stream_statistics(tmp_path / "t.parquet", **NAMES).tasks


# ---- the stream


@pytest.fixture(params=[7, 64, 2**18], ids=lambda rows: f"batches_of_{rows}")
def batch_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(streams, "BATCH_ROWS", request.param)
    return request.param


def test_a_stream_equals_the_table_in_memory(tmp_path: Path, batch_rows: int) -> None:
    table().write_parquet(tmp_path / "t.parquet", row_group_size=50)
    stream = stream_statistics(tmp_path / "t.parquet", **NAMES)
    tasks, data = expected(table())
    assert (stream.tasks, stream.inputs) == (tuple(tasks), ("a", "b"))
    close(stream.statistics, Statistics.of(data))
    close(Statistics.from_parquet(str(tmp_path / "t.parquet"), **NAMES), stream.statistics)


def test_a_stream_far_from_zero_keeps_the_scatter(tmp_path: Path, batch_rows: int) -> None:
    frame = table(offset=1e6)
    frame.write_parquet(tmp_path / "t.parquet")
    stream = stream_statistics(tmp_path / "t.parquet", **NAMES)
    _, data = expected(frame)
    close(stream.statistics, Statistics.of(data))
    # the origin lies among the rows of its task
    for origin, rows in zip(stream.statistics.origin, [data[i] for i in range(len(stream.tasks))], strict=True):
        assert (rows.y[rows.mask] == origin[-1]).any()


@given(
    keys=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5), min_size=1, max_size=40),
    rows=st.integers(1, 9),
    dtype=st.sampled_from([pl.Int64, pl.String]),
)
@settings(max_examples=60)
def test_tasks_are_numbered_by_any_key(keys: list[int], rows: int, dtype: Any) -> None:
    labels = pl.Series("task", keys, dtype=pl.Int64).cast(dtype)
    numbering, first = streams._Numbering(labels.dtype), []
    found = []
    for start in range(0, len(labels), rows):
        numbers, new = numbering(labels[start : start + rows])
        found += numbers.tolist()
        first += [keys[start + int(row)] for row in new]
    order = list(dict.fromkeys(keys))
    assert found == [order.index(key) for key in keys]
    assert first == order


@given(cut=st.integers(1, 199))
@settings(max_examples=10)
def test_shards_add_up_to_the_whole(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder, frame = tmp_path_factory.mktemp("shards"), table(offset=1e6)
    for name, part in (("1", frame[:cut]), ("2", frame[cut:]), ("whole", frame)):
        part.write_parquet(folder / f"{name}.parquet")
    first, second, whole = (stream_statistics(folder / f"{name}.parquet", **NAMES) for name in ("1", "2", "whole"))
    for pooled in (first + second, second + first, stream_statistics(folder / "[12].parquet", **NAMES)):
        assert isinstance(pooled, TaskStatistics)
        assert pooled.tasks == whole.tasks
        close(pooled.statistics, whole.statistics)
    listed = stream_statistics([folder / "2.parquet", folder / "1.parquet"], **NAMES)
    close(listed.statistics, whole.statistics)


def test_shards_with_other_inputs_do_not_add(tmp_path: Path) -> None:
    table().write_parquet(tmp_path / "t.parquet")
    one, two = (stream_statistics(tmp_path / "t.parquet", **NAMES, inputs=[name]) for name in ("a", "b"))
    with pytest.raises(ValueError, match="same inputs"):
        one + two


# ---- bad tables


def both(frame: pl.DataFrame, path: Path, **names: Any) -> list[str]:
    """The messages of the reader and of the stream."""
    frame.write_parquet(path)
    messages = []
    for read, source in ((read_tasks, frame), (stream_statistics, path)):
        with pytest.raises(ValueError, match=r"\S") as caught:
            read(source, **{**NAMES, **names})
        messages.append(str(caught.value))
    return messages


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"task": "tsk"}, "task column 'tsk' does not exist: the columns are a, task, b, y. Did you mean 'task'?"),
        ({"target": "loss"}, "target column 'loss' does not exist: the columns are a, task, b, y"),
        ({"inputs": ["a", "c"]}, "input column 'c' does not exist: the columns are a, task, b, y"),
        ({"inputs": ["a", "a"]}, "columns must have different names; 'a' is there more than once"),
        ({"inputs": ["y"]}, "input column 'y' is the target as well"),
        ({"target": "task"}, "task and target must be two columns; got 'task' for both"),
        ({"task": "a", "target": "y"}, "input column 'task' must hold numbers; it holds String. Encode it as numbers"),
        ({"task": "a", "target": "task"}, "target column 'task' must hold numbers; it holds String"),
    ],
)
def test_columns_that_are_wrong(tmp_path: Path, names: dict[str, Any], message: str) -> None:
    for got in both(table(), tmp_path / "t.parquet", **names):
        assert message in got


@pytest.mark.parametrize(
    ("column", "value", "shown"),
    [("a", None, "missing or NaN"), ("b", float("nan"), "missing or NaN"), ("y", float("-inf"), "-inf")],
)
def test_values_that_are_not_finite(
    tmp_path: Path, column: str, value: float | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BATCH_ROWS", 64)
    frame = table().with_columns(
        pl.when(pl.int_range(pl.len()) == 150).then(pl.lit(value, pl.Float64)).otherwise(pl.col(column)).alias(column)
    )
    for got in both(frame, tmp_path / "t.parquet"):
        task = frame["task"][150]
        assert got == (
            f"column {column!r} must hold finite numbers; 1 row is not, the first in task {task!r}, row 150: {shown}. "
            "Take such rows out, or give them a number"
        )


def test_missing_whole_numbers(tmp_path: Path) -> None:
    frame = pl.DataFrame({"task": ["a", "b", "b"], "n": [1, None, None], "y": [1.0, 2.0, 3.0]})
    for got in both(frame, tmp_path / "t.parquet"):
        assert "column 'n' must hold finite numbers; 2 rows are not, the first in task 'b', row 1" in got


@pytest.mark.parametrize("tasks", [["a", None, "b"], [1.0, None, 2.0], [1.0, float("nan"), 2.0]])
def test_rows_without_a_task(tmp_path: Path, tasks: list[Any]) -> None:
    for got in both(pl.DataFrame({"task": tasks, "y": [1.0, 2.0, 3.0]}), tmp_path / "t.parquet"):
        assert got == "task column 'task' must name a task in every row; row 1 has none"


def test_tables_without_rows(tmp_path: Path) -> None:
    for got in both(table().clear(), tmp_path / "t.parquet"):
        assert "the table has no rows" in got


def test_columns_named_twice(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("task,y,y\na,1,2\n")
    with pytest.raises(ValueError, match="'y' is there more than once"):
        read_tasks(tmp_path / "t.csv", **NAMES)
    with pytest.raises(ValueError, match=r"must have different names.*'y' 2 times"):
        read_tasks(pd.DataFrame([["a", 1.0, 2.0]], columns=["task", "y", "y"]), **NAMES)


def test_tasks_of_two_kinds() -> None:
    with pytest.raises(ValueError, match="must hold values of one kind"):
        read_tasks(pd.DataFrame({"task": [1, "a"], "y": [1.0, 2.0]}), **NAMES)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    for read in (read_tasks, stream_statistics):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            read(tmp_path / "none.parquet", **NAMES)
        with pytest.raises(ValueError, match=r"is a directory\. For all its files"):
            read(tmp_path, **NAMES)
        for content in (b"", b"PAR1", b"task,y\n1,2\n", b"x" * 1000):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"cannot read .*t\.parquet as a parquet file"):
                read(path, **NAMES)
    with pytest.raises(FileNotFoundError, match="no file matches"):
        stream_statistics(str(tmp_path / "*.pq"), **NAMES)
    with pytest.raises(ValueError, match="at least one path"):
        stream_statistics([], **NAMES)
    with pytest.raises(ValueError, match=r"must be a \.parquet or \.csv file"):
        read_tasks(Path(__file__), **NAMES)
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"cannot read .*t\.csv as a csv file"):
        read_tasks(tmp_path / "t.csv", **NAMES)
    with pytest.raises(TypeError, match="a table must be a path or a dataframe"):
        read_tasks([1, 2], **NAMES)


def test_a_parquet_file_cut_short(tmp_path: Path) -> None:
    table().write_parquet(tmp_path / "t.parquet")
    raw = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ValueError, match="as a parquet file"):
        stream_statistics(tmp_path / "t.parquet", **NAMES)


def test_shards_that_differ(tmp_path: Path) -> None:
    table().write_parquet(tmp_path / "1.parquet")
    for change, message in (
        (pl.col("task").rank("dense").alias("task"), "of one type in all files"),
        (pl.lit("x").alias("a"), "input column 'a' must hold numbers in .*2.parquet"),
    ):
        table().with_columns(change).write_parquet(tmp_path / "2.parquet")
        with pytest.raises(ValueError, match=message):
            stream_statistics(tmp_path / "*.parquet", **NAMES)
    table().drop("b").write_parquet(tmp_path / "2.parquet")
    with pytest.raises(ValueError, match=r"'b' does not exist in .*2\.parquet"):
        stream_statistics(tmp_path / "*.parquet", **NAMES)


def test_a_constant_target() -> None:
    constant = read_tasks(table().with_columns(y=pl.lit(0.5)), **NAMES).data
    with pytest.raises(ValueError, match=r"target 'loss' must vary; it is 0\.5 in all 200 rows"):
        require_varying_target(constant, "loss")
    require_varying_target(read_tasks(table(), **NAMES).data)
    # constant within each task, and yet no constant
    require_varying_target(Data.pad([(None, [1.0, 1.0]), (None, [2.0])]))


def test_read_frame_takes_any_table() -> None:
    assert isinstance(read_frame(table().lazy()), nw.DataFrame)


def test_a_table_is_reduced_without_padding() -> None:
    """One task of 2 x 10^5 rows among 20,000 of one row: 64 GB if padded."""
    task = np.concatenate([np.arange(20_000), np.full(200_000, 20_000)])
    rng = np.random.default_rng(shifted(0))
    frame = pl.DataFrame({"task": task, "x": rng.random(len(task)), "y": 1e6 + rng.random(len(task))})
    with pytest.raises(ValueError, match=r"task 20000 takes 64 GB, for 220000 rows.*Statistics.from_frame"):
        Data.from_frame(frame, **NAMES)
    statistics = Statistics.from_frame(frame, **NAMES)
    assert statistics.count[[0, -1]].tolist() == [1.0, 200_000.0]
    long = frame.filter(task=20_000)
    alone = Statistics.of(Data.of(long.select("x").to_numpy(), long["y"].to_numpy()))
    close(statistics[-1], alone, 1e-9)
    with pytest.warns(PlacementWarning, match="y lies 10 standard deviations"):
        prior = LinearGaussian.initial(statistics).fit(statistics)
    assert prior.learned_from == LearnedFrom(20_001, 220_000)


@settings(max_examples=20, deadline=None)
@given(num_rows=st.integers(1, 200), number=st.integers(0, 10**6), offset=st.sampled_from([0.0, 1e6]))
def test_reduced_rows_are_those_that_were_read(num_rows: int, number: int, offset: float) -> None:
    frame = table(num_rows, number=number, offset=offset)
    reduced, read = reduce_tasks(frame, **NAMES), read_tasks(frame, **NAMES)
    assert (reduced.tasks, reduced.inputs) == (read.tasks, read.inputs)
    close(reduced.statistics, Statistics.of(read.data), 1e-9)


@pytest.mark.parametrize(
    ("columns", "new"),
    [([0, 1, 2], "str(name)"), (pd.MultiIndex.from_product([["a"], ["x", "y", "z"]]), '"_".join(map(str, name))')],
)
def test_columns_whose_names_are_no_strings(columns: Any, new: str) -> None:
    frame = pd.DataFrame(np.eye(3), columns=columns)
    reads = [lambda: Data.from_frame(frame, **NAMES), lambda: Statistics.from_frame(frame, **NAMES)]
    reads += [
        lambda: TuningPrior.from_table(frame, **NAMES, direction="minimize"),
        lambda: SearchSpace.infer(frame, ["a"]),
        lambda: Log.from_open_bandit(frame),
    ]
    for read in reads:
        with pytest.raises(TypeError, match=r"names of columns must be strings; got .*Rename them: ") as caught:
            read()
        assert f"frame.columns = [{new} for name in frame.columns]" in str(caught.value)


def test_a_name_in_place_of_names(tmp_path: Path) -> None:
    frame = table()
    frame.write_parquet(tmp_path / "t.parquet")
    for read, source in ((read_tasks, frame), (reduce_tasks, frame), (stream_statistics, tmp_path / "t.parquet")):
        with pytest.raises(TypeError, match="inputs must be a list of names of columns, which are strings; got 'ab'"):
            read(source, **NAMES, inputs="ab")
