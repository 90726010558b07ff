"""CSV files as spreadsheets, pandas and people write them."""

from pathlib import Path

import pandas as pd
import polars as pl
import pytest

import bo
from bayesmeta.data.csv_tables import MISSING, read_csv
from bayesmeta.data.tables import read_frame

PLAIN = "task,rate,depth,kind,loss\nA,0.5,1,tree,1.25\nB,1.5,2000,linear,2\n"
EXPECTED = {"task": ["A", "B"], "rate": [0.5, 1.5], "depth": [1, 2000], "kind": ["tree", "linear"], "loss": [1.25, 2.0]}

FILES = {
    "plain": PLAIN.encode(),
    "byte order mark": PLAIN.encode("utf-8-sig"),
    "utf-16": PLAIN.encode("utf-16"),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "decimal commas": PLAIN.replace(",", ";").replace(".", ",").encode(),
    "carriage returns": PLAIN.replace("\n", "\r\n").encode(),
    "thousands": PLAIN.replace("2000", '"2,000"').encode(),
    "decimal commas of three digits": PLAIN.replace(",", ";").replace("0.5", "0,500").replace("1.", "1,").encode(),
    "points for thousands": PLAIN.replace(",", ";").replace(".", ",").replace("2000", "2.000,0").encode(),
    "spaces": PLAIN.replace(",", ", ").encode(),
    "blank lines": PLAIN.replace("\n", "\n\n").encode(),
    "columns of nothing": PLAIN.replace("\n", ",,\n").encode(),
    "a separator for Excel": b"sep=;\n" + PLAIN.replace(",", ";").encode(),
    "ends of line of old": PLAIN.replace("\n", "\r").encode(),
    "row numbers of R": b'"",task,rate,depth,kind,loss\n1,A,0.5,1,tree,1.25\n2,B,1.5,2000,linear,2\n',
    "row numbers read before": b"Unnamed: 0,task,rate,depth,kind,loss\n1,A,0.5,1,tree,1.25\n0,B,1.5,2000,linear,2\n",
    "row numbers": b",task,rate,depth,kind,loss\n0,A,0.5,1,tree,1.25\n1,B,1.5,2000,linear,2\n",
}


@pytest.mark.parametrize("name", FILES)
def test_all_ways_to_write_a_table_read_the_same(name: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(FILES[name])
    table = read_csv(tmp_path / "table.csv")
    assert table.to_dict(as_series=False) == EXPECTED
    assert table["depth"].dtype == (pl.Float64 if name == "points for thousands" else pl.Int64)
    assert table["rate"].dtype == table["loss"].dtype == pl.Float64


@pytest.mark.parametrize("mark", MISSING)
def test_marks_of_missing_values_are_those_of_pandas(mark: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"task,rate,kind\nA,0.5,tree\nB,{mark},{mark}\nC,2,linear\n")
    table = read_csv(path)
    assert table["rate"].to_list() == [0.5, None, 2.0]
    assert table["kind"].to_list() == ["tree", None, "linear"]
    assert pd.read_csv(path).isna().sum().sum() == 2


def test_words_with_commas_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('task,layers,rate\nA,"50,50",1\nB,"1,000,000",2\nC,"a, b",3\n')
    assert read_csv(path)["layers"].to_list() == ["50,50", "1,000,000", "a, b"]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(",task,rate\n0.5,A,1\n0.25,B,2\n")
    with pytest.raises(ValueError, match="column 1 has no name"):
        read_frame(path)
    path.write_text("task;rate;rate\nA;1;2\n")
    with pytest.raises(ValueError, match="'rate' is there more than once"):
        read_frame(path)
    path.write_bytes("task,größe\nA,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"cannot read .*table\.csv as a csv file"):
        read_frame(path)


def test_a_comma_is_read_by_what_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    for text, expected in {
        "a;b\n1,000;2,500\n": (1.0, 2.5),  # semicolons, and no number has a point
        "a;b\n1,000;2.5\n": (1000, 2.5),
        "a\tb\n1,000\t0,5\n": (1.0, 0.5),
        "a\tb\n1,000\t2\n": (1000, 2),
        'a,b\n"1,000",2\n': (1000, 2),
    }.items():
        path.write_text(text)
        assert read_csv(path).row(0) == expected


def test_the_separator_is_the_one_that_fits_all_lines(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('task;"depth, of, the, tree";loss\nA;1;2\nB;3;4\n')
    assert read_csv(path).columns == ["task", "depth, of, the, tree", "loss"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"task,a,loss\nA,1,2\nA,1,2,3\n", r"which has 3; line 3 has 4\. Add or take out separators"),
        (b"task,a,loss\nA,1,2\nA,1\n", "which has 3; line 3 has 2"),
        (b'task,a,loss\nA,1,2\n"A,1,2\nA,1,2\n', "line 3 has 1.*close a quote"),
        (PLAIN.encode() + "é,1,1,é,1\n".encode("latin-1"), "line 4 is not text in UTF-8.*latin-1"),
        (PLAIN.encode("utf-16-le"), "not text in UTF-8"),
        (b"", "empty"),
        (b"\n\n", "empty"),
        (PLAIN.replace("depth", "rate ").encode(), "'rate' is there more than once"),
    ],
)
def test_files_that_cannot_be_read_say_where(raw: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        read_frame(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("loss", "failed", "'loss' must hold numbers; 1 cell does not, in line 9 of .*: 'failed'. Write a number, or"),
        ("loss", "0,5", "line 9 of .*: '0,5'"),
        ("loss", "NA", "'loss' must hold finite numbers; 1 row is not, .* line 9 of .*: missing"),
        ("loss", "inf", "line 9 of .*: inf"),
        ("rate", "failed", "'rate' must hold numbers alone.*line 9 of .*: 'failed'"),
        ("rate", "inf", "'rate' must be finite.*line 9 of"),
        ("task", "", "'task' must name a task in every row; line 9 of .* has none"),
        ("rows", "many", "feature column 'rows' must hold numbers; 1 cell does not, in line 9 of"),
    ],
)
def test_a_bad_cell_is_named_by_its_line(column: str, cell: str, message: str, tmp_path: Path) -> None:
    """Lines count as editors do, also behind blank ones and entries of two lines."""
    table = long_table(rows=[1000] * 24, note=["one\nline"] + ["two"] * 23).cast(pl.String)
    bad = pl.when(pl.int_range(pl.len()) == 5).then(pl.lit(cell)).otherwise(pl.col(column)).alias(column)
    header, rest = table.with_columns(bad).write_csv().split("\n", 1)
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\n\n{rest}")
    with pytest.raises(ValueError, match=message):
        bo.TuningPrior.from_table(path, task="task", target="loss", direction="minimize", features=["rows"])


def test_whole_numbers_beyond_those_of_floats_are_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'run' holds whole numbers too large to tell apart"):
        learn(long_table(run=[2**60 + i % 7 for i in range(24)]), tmp_path / "t.csv")


def test_row_numbers_that_pandas_read_are_no_parameter(tmp_path: Path) -> None:
    long_table().to_pandas().to_csv(tmp_path / "t.csv")
    prior = bo.TuningPrior.from_table(pd.read_csv(tmp_path / "t.csv"), task="task", target="loss", direction="minimize")
    assert prior.space.names == ("rate",)


def long_table(**columns: list[object]) -> pl.DataFrame:
    """Two tasks of twelve rows."""
    rate = [0.1 * i for i in range(12)] * 2
    loss = [abs(value - 0.4) + 0.1 * task for task in range(2) for value in rate[:12]]
    return pl.DataFrame({"task": ["A"] * 12 + ["B"] * 12, "rate": rate, "loss": loss, **columns})


def learn(table: pl.DataFrame, path: Path) -> bo.TuningPrior:
    table.write_csv(path)
    return bo.TuningPrior.from_table(path, task="task", target="loss", direction="minimize")


def test_numbers_with_a_word_among_them_are_told_of(tmp_path: Path) -> None:
    most = [str(4 + i % 3) if i % 6 else "auto" for i in range(24)]
    with pytest.warns(bo.MixedColumnWarning, match="20 of its 24 entries are numbers, .* such as 'auto'"):
        prior = learn(long_table(leaves=most), tmp_path / "t.csv")
    assert "auto" in prior.space.distributions["leaves"].choices
    few = [("auto", "sqrt", "8")[i % 3] for i in range(24)]
    learn(long_table(leaves=few), tmp_path / "t.csv")


@pytest.mark.parametrize(
    "day", ["2026-01-{:02d}", "2026-01-{:02d}T10:00:00", "{:02d}.01.2026", "1/{:d}/26", "Jan {}, 2026", "10:{:02d}:00"]
)
def test_dates_are_no_choices(day: str, tmp_path: Path) -> None:
    days = [day.format(1 + i // 2) for i in range(24)]
    with pytest.raises(ValueError, match="'day' holds dates"):
        learn(long_table(day=days), tmp_path / "t.csv")


def test_names_of_rows_are_no_parameters(tmp_path: Path) -> None:
    table = long_table(run=[f"run {i}" for i in range(24)])
    with pytest.raises(ValueError, match="'run' differs in every row"):
        learn(table, tmp_path / "t.csv")
    space = bo.SearchSpace.infer(table, ["rate", "run"])  # where they are named they are taken
    assert len(space.distributions["run"].choices) == 24


def test_words_of_digits_are_words(tmp_path: Path) -> None:
    """Sizes of layers are no thousands, and text that is given as text stays so, without a warning."""
    layers = [("50,50", "100,100", "20,20")[i % 3] for i in range(24)]
    prior = learn(long_table(layers=layers), tmp_path / "t.csv")
    assert set(prior.space.distributions["layers"].choices) == set(layers)
    digits = bo.SearchSpace.infer(long_table(size=[str(1 + i % 3) for i in range(24)]), ["size"])
    assert digits.distributions["size"].choices == ("1", "2", "3")
