"""The command, end to end: what it does, what it says of bad input, what it leaves behind."""

import contextlib
import functools
import importlib.util
import json
import os
import pty
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
import polars as pl
import pytest
import safetensors.torch
import torch

import bayesmeta as bm
from bayesmeta import cli, io
from bayesmeta.cli import plain_warnings
from bo import MetaSampler, SearchSpace, TuningPrior
from bo.samplers.meta import UnlikePastWarning
from tests.bayesmeta.test_io import rewrite, same
from tests.bo.past import NUM_TASKS, NUM_TRIALS, SPACE, learned, objective, studies, table
from tests.bo.short import learn_shortly
from tests.seeds import seed, shifted

COLUMNS = ("--task", "task", "--target", "loss", "--direction", "minimize")
Run = Callable[..., tuple[int, str, str]]


@functools.cache
def frame() -> pl.DataFrame:
    return pl.DataFrame(table(studies()))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command in this process: exit status, stdout and stderr, an error being one line."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bayesmeta", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        status = exit.value.code
        if isinstance(status, str):  # the interpreter would print it and exit with 1
            print(status, file=sys.stderr)
            status = 1
        out, err = capfd.readouterr()
        return status or 0, out, err

    return call


FEW = ("--params", "rate,kind")
HERE = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def start(*arguments: object, **options) -> subprocess.Popen[str]:
    """Run the command as its own process, with Ctrl-C as a terminal has it."""
    command = [sys.executable, "-c", "from bayesmeta.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- fit and show


@pytest.mark.parametrize("name", ["past.csv", "past.parquet"])
def test_fit_learns_from_a_table(run: Run, tmp_path: Path, name: str) -> None:
    (frame().write_csv if name.endswith("csv") else frame().write_parquet)(tmp_path / name)
    status, out, err = run("fit", name, *COLUMNS, "-o", "prior.safetensors")
    assert status == 0
    assert err.startswith("note: rate, drop: taken as parameters")  # which differ in every row, as results do
    assert err.count("\n") == 1
    assert f"learned from {NUM_TASKS} tasks, {NUM_TASKS * NUM_TRIALS} rows, to minimize" in out
    low, high = frame()["rate"].min(), frame()["rate"].max()
    shown = [line.split(None, 1) for line in out.splitlines() if line.startswith("  ")]
    assert [name for name, _ in shown] == ["rate", "drop", "depth", "kind"]
    assert dict(shown) | {"drop": ""} == {
        "rate": f"{low:.4g} to {high:.4g}, log scale",
        "drop": "",
        "depth": "whole numbers, 1 to 12",
        "kind": ", ".join(sorted(("linear", "tree", "forest"))),
    }
    assert "wrote prior.safetensors" in out
    assert leftovers(tmp_path) == [name, "prior.safetensors"]
    expected = TuningPrior.from_table(frame(), task="task", target="loss", direction="minimize")
    assert same(bm.load("prior.safetensors"), expected)


def test_columns_that_are_no_parameters_can_be_left_out(run: Run, tmp_path: Path) -> None:
    frame().with_columns(seconds=pl.col("drop") * 2).write_parquet(tmp_path / "past.parquet")
    status, _, err = run("fit", "past.parquet", *COLUMNS, "--params", "rate, kind", "-o", "prior")
    assert (status, err) == (0, "")
    assert bm.load("prior").space.names == ("rate", "kind")


def test_columns_that_differ_in_every_row_are_named(run: Run, tmp_path: Path) -> None:
    number = pl.int_range(pl.len(), dtype=pl.Int64)
    table = frame().with_columns(
        whole=number * 7, some=pl.when(number % 2 == 0).then(number * 1.5), few=pl.col("depth") * 0.5, same=number % 9
    )
    table.write_parquet(tmp_path / "past.parquet")
    status, out, err = run("fit", "past.parquet", *COLUMNS, "-o", "prior")
    assert status == 0
    assert err.startswith("note: rate, drop, whole, some: taken as parameters")
    assert "--params" in err
    assert len([line for line in out.splitlines() if line.startswith("  ")]) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*COLUMNS, "--params", "rate,loss"), "column 'loss' cannot be both the target and a parameter"),
        ((*COLUMNS, "--params", "task,rate"), "column 'task' cannot be both the task and a parameter"),
        ((*COLUMNS, "--params", "rate,drop", "--features", "drop"), "'drop' cannot be both a feature and a parameter"),
        ((*COLUMNS, "--params", "rate,rate"), "column 'rate' is named twice as a parameter"),
        ((*COLUMNS, "--params", "rate,,drop"), "separated by one comma each, as in rate,depth; got 'rate,,drop'"),
        ((*COLUMNS, "--features", "loss"), "column 'loss' cannot be both the target and a feature"),
        ((*COLUMNS[:3], "task", *COLUMNS[4:]), "column 'task' cannot be both the task and the target"),
    ],
)
def test_columns_of_two_roles_are_refused(run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    frame().write_parquet(tmp_path / "past.parquet")
    status, out, err = run("fit", "past.parquet", *arguments, "-o", "prior")
    assert (status, out) == (1, "")
    assert message in err
    assert leftovers(tmp_path) == ["past.parquet"]


def test_a_target_among_the_parameters_is_refused_in_python_too() -> None:
    space = SearchSpace({"rate": SPACE["rate"], "loss": optuna.distributions.FloatDistribution(0.0, 1e4)})
    with pytest.raises(ValueError, match="'loss' cannot be both the target and a parameter"):
        TuningPrior.from_table(frame(), task="task", target="loss", direction="minimize", space=space)


def test_fit_learns_from_a_storage(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    studies(url, "maximize", num=2)
    optuna.create_study(storage=url, study_name="empty", direction="maximize")
    before = (tmp_path / "studies.db").read_bytes()
    status, out, err = run("fit", url, "-o", "prior.safetensors")
    assert (status, err) == (0, "")
    assert f"learned from 2 tasks, {2 * NUM_TRIALS} rows, to maximize" in out
    assert same(bm.load("prior.safetensors"), TuningPrior.from_studies(studies(direction="maximize", num=2)))
    assert (tmp_path / "studies.db").read_bytes() == before


@pytest.mark.parametrize("family", ["TransformerNeuralProcess", "LearnedFeatures"])
def test_a_family_can_be_named(run: Run, tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learn_shortly(monkeypatch)
    frame().write_parquet(tmp_path / "past.parquet")
    status, out, err = run("fit", "past.parquet", *COLUMNS, "--family", family, "-o", "prior.safetensors")
    assert status == 0, err
    assert f"learned from {NUM_TASKS} tasks" in out
    prior = bm.load(tmp_path / "prior.safetensors")
    assert type(prior.suggester.functions).__name__ == family
    study = optuna.create_study(sampler=MetaSampler(prior, seed=shifted(0)))
    with pytest.warns(UnlikePastWarning, match="had other values"):  # a table says what was tried, not what could be
        study.optimize(objective(0), n_trials=3)
    assert {tuple(trial.params) for trial in study.trials} == {tuple(SPACE)}


def test_what_a_family_cannot_be(run: Run, tmp_path: Path) -> None:
    frame().write_parquet(tmp_path / "past.parquet")
    for name, message in (
        ("TransformerNeuralProces", "did you mean TransformerNeuralProcess"),
        ("SearchSpace", "needs a class with initial, fit, condition, marginal; SearchSpace has no"),
    ):
        status, _, err = run("fit", "past.parquet", *COLUMNS, "--family", name, "-o", "prior.safetensors")
        assert status == 1
        assert message in err
    assert not (tmp_path / "prior.safetensors").exists()


def test_show_says_what_a_prior_expects(run: Run, tmp_path: Path) -> None:
    bm.save(learned(), tmp_path / "prior.safetensors")
    status, out, err = run("show", "prior.safetensors")
    assert (status, err) == (0, "")
    for expected in (
        "family     TuningPrior",
        f"tasks      {NUM_TASKS}",
        f"rows       {NUM_TASKS * NUM_TRIALS}",
        f"bayesmeta {bm.__version__}, torch {torch.__version__}",
        "direction  minimize",
        "like the past as a whole",
        "like one of the past tasks",
        "as smooth as the past, no more",
        "like nothing in the past",
        "0.0001 to 1, log scale",
        "whole numbers, 1 to 12",
        "linear, tree, forest",
        "expected normal score",
    ):
        assert expected in out
    assert max(map(len, out.splitlines())) <= 100
    kinds = next(line for line in out.splitlines() if "kind" in line)
    assert kinds.split("│")[3].strip() == "tree"  # the best kind comes first


def test_what_is_piped_is_not_cut(run: Run, tmp_path: Path) -> None:
    names = [f"optimizer__learning_rate_of_the_{which}_layer_of_the_{'very_' * 9}long_model" for which in ("1", "2")]
    choices = [f"choice_{number}_of_many_that_have_long_names" for number in range(6)]
    kind = optuna.distributions.CategoricalDistribution(choices)
    space = SearchSpace({**dict.fromkeys(names, SPACE["rate"]), "kind": kind})
    x = torch.rand(3, 8, 8, generator=seed(0)).double()
    bm.save(TuningPrior.fit(space, bm.Data.of(x, x.sum(-1)), "minimize"), tmp_path / "prior")
    status, out, _ = run("show", "prior")
    assert status == 0
    assert "…" not in out
    assert all(name in out for name in (*names, *choices))


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_show_knows_priors_in_the_units_of_the_objective(run: Run, tmp_path: Path, direction: str) -> None:
    space = SearchSpace({"rate": SPACE["rate"]})
    process = bm.GaussianProcess(torch.ones(1), torch.ones(()), torch.ones(()), torch.tensor(2.5))
    bm.save(TuningPrior(space, direction, process, scores=False), tmp_path / "prior")
    status, out, err = run("show", "prior")
    assert (status, err) == (0, "")
    assert "not learned from tasks" in out
    assert "expected objective" in out
    assert "2.5" in out


def test_show_knows_other_families(run: Run, tmp_path: Path) -> None:
    x, noise = torch.randn(2, 4, 6, 2, generator=seed(0))
    tasks = bm.Data.of(x, x[..., 0] + noise.sum(-1))
    bm.save(bm.LinearGaussian.initial(tasks).fit(tasks), tmp_path / "prior")
    status, out, err = run("show", "prior")
    assert (status, err) == (0, "")
    assert "family     LinearGaussian" in out
    assert [line.split()[1:-1:2] for line in out.splitlines() if "precision" in line]


# ---- plot


def size_of_png(path: Path) -> tuple[int, int]:
    raw = path.read_bytes()
    assert raw.startswith(b"\x89PNG")
    return int.from_bytes(raw[16:20]), int.from_bytes(raw[20:24])


def test_plot_writes_what_a_prior_believes(run: Run, tmp_path: Path) -> None:
    bm.save(learned(), tmp_path / "prior")
    status, out, err = run("plot", "prior", "--out", "new/plots")
    assert (status, err) == (0, "")
    assert out.splitlines() == ["wrote new/plots/surface.png", "wrote new/plots/importance.png"]
    assert leftovers(tmp_path / "new" / "plots") == ["importance.png", "surface.png"]
    assert min(min(size_of_png(path)) for path in (tmp_path / "new" / "plots").iterdir()) > 400


def test_plot_compares_a_study_with_the_past(run: Run, tmp_path: Path) -> None:
    bm.save(learned(), tmp_path / "prior")
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    studies(url, num=1)
    before = (tmp_path / "studies.db").read_bytes()
    status, out, err = run("plot", "prior", "--out", ".", "--storage", url, "--study", "past 0")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "wrote resemblance.png"
    assert size_of_png(tmp_path / "resemblance.png")[0] > 1000
    assert (tmp_path / "studies.db").read_bytes() == before


def test_plot_refuses_what_it_cannot_draw(run: Run, tmp_path: Path) -> None:
    bm.save(learned(), tmp_path / "prior")
    bm.save(bm.BetaBernoulli(torch.ones(2), torch.ones(2)), tmp_path / "arms")
    process = bm.GaussianProcess(torch.ones(1), torch.ones(()), torch.ones(()))
    bm.save(TuningPrior(SearchSpace({"a": SPACE["rate"]}), "minimize", process), tmp_path / "vague")
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    for number in range(7):
        optuna.create_study(storage=url, study_name=f"s{number}", direction="maximize")
    (tmp_path / "file").touch()
    of_study = ("--out", "plots", "--storage", url, "--study")
    for arguments, message in {
        ("missing", "--out", "plots"): "no prior at missing",
        ("arms", "--out", "plots"): "only priors for tuning can be plotted; arms holds a BetaBernoulli",
        ("vague", "--out", "plots"): "does not say what past tasks did",
        ("prior", "--out", "file"): "cannot write into file: there is a file. Name a folder",
        ("prior", *of_study, "x"): "no study 'x'; its studies are 's0', 's1', 's2', 's3', 's4' and 2 more",
        ("prior", *of_study, "s0"): "this prior was learned to minimize, and study 's0' is to maximize",
    }.items():
        status, out, err = run("plot", *arguments)
        assert (status, out) == (1, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert message in err
    assert not (tmp_path / "plots").exists()


# ---- bad input


def change(**columns: pl.Expr) -> pl.DataFrame:
    return frame().with_columns(**columns)


DEEP = pl.col("depth") > 5
BAD_TABLES: dict[str, tuple[Callable[[], pl.DataFrame], str]] = {
    "task column missing": (lambda: frame().drop("task"), "column 'task' does not exist"),
    "target column missing": (lambda: frame().drop("loss"), "column 'loss' does not exist"),
    "constant target": (lambda: change(loss=pl.lit(1.0)), "two tasks or more whose target varies; got 0 of 6"),
    "one task": (lambda: change(task=pl.lit("a")), "two tasks or more whose target varies; got 1 of 1"),
    "empty": (lambda: frame().clear(), "the table has no rows"),
    "NaN target": (lambda: change(loss=pl.when(DEEP).then(pl.col("loss")).otherwise(float("nan"))), "missing or NaN"),
    "infinite target": (lambda: change(loss=1 / (pl.col("depth") - 3)), "must hold finite numbers"),
}


@pytest.mark.parametrize(("make", "message"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
@pytest.mark.parametrize("name", ["past.csv", "past.parquet"])
def test_bad_tables(run: Run, tmp_path: Path, name: str, make: Callable[[], pl.DataFrame], message: str) -> None:
    (make().write_csv if name.endswith("csv") else make().write_parquet)(tmp_path / name)
    status, out, err = run("fit", name, *COLUMNS, "-o", "prior")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert leftovers(tmp_path) == [name]


BAD_FILES = {
    "no.csv": (None, "no.csv does not exist"),
    "words.txt": (b"hello", "is no table or storage: a table is a file .parquet"),
    "twice.csv": (b"task,a,a,loss\n1,2,3,4\n", "columns must have different names; 'a'"),
    "nothing.csv": (b"", "cannot read nothing.csv"),
    "ragged.csv": (b"task,a,loss\n1,2,3,4,5\n", "every line of ragged.csv must have as many cells as its header"),
    "word.csv": (b"task,a,loss\n" + b"A,1,2\n" * 3 + b"A,1,x\n", "1 cell does not, in line 5 of word.csv: 'x'"),
    "cut.parquet": (b"PAR1 and no more", "cannot read cut.parquet"),
    "binary.csv": (bytes(range(256)), "cannot read binary.csv"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(run: Run, tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    status, out, err = run("fit", name, *COLUMNS, "-o", "prior")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_bad_storages(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    (tmp_path / "words.db").write_text("no database at all " * 100)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("create table a (b)")
    other.close()
    one = f"sqlite:///{tmp_path / 'one.db'}"
    optuna.create_study(storage=one)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for url, message in {
        "sqlite:///missing.db": "missing.db: the file does not exist",
        "sqlite://": "the file does not exist",
        "sqlite:///empty.db": "no such table",
        "sqlite:///other.db": "no such table",
        "sqlite:///words.db": "file is not a database",
        "nosuch://x": "no databases of the kind 'nosuch'",
        "http://host/past.csv": "Give a table by its path, after a download",
        "redis://host:6379": "JournalStorage(JournalRedisBackend(url))",
        "postgres://me@host/db": "write postgresql:// for postgres://",
        "sqlite://one.db": "three slashes: sqlite:///one.db",
        "empty.db": "is no table or storage",
        "other.db": "no such table",
        "missing.db": "missing.db does not exist",
        "://": "Could not parse",
        one: "two studies with completed trials; got 0 of 1",
    }.items():
        status, out, err = run("fit", url, "-o", "prior")
        assert (status, out) == (1, ""), url
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert message in err
    # reading changed nothing and created nothing
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("url", "package"), [("mysql+pymysql", "pymysql"), ("mysql", "mysqlclient")])
def test_a_missing_driver_is_named_as_pip_does(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str, package: str
) -> None:
    for module in ("pymysql", "MySQLdb"):
        monkeypatch.setitem(sys.modules, module, None)
    status, _, err = run("fit", f"{url}://me:secret@host/db", "-o", "prior")
    assert status == 1
    assert err.endswith(f"which is not installed: pip install {package!r}\n")
    assert "secret" not in err


def test_fit_learns_from_the_file_of_a_storage(run: Run, tmp_path: Path) -> None:
    studies(f"sqlite:///{tmp_path / 'studies.db'}", num=2)
    (tmp_path / "studies.db").rename(tmp_path / "studies of %20?.db")  # no name for a URL
    journal = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log")))
    for study in studies(num=2):
        optuna.copy_study(from_study_name=study.study_name, from_storage=study._storage, to_storage=journal)
    for name in ("studies of %20?.db", "journal.log"):
        status, out, err = run("fit", name, "-o", "prior")
        assert (status, err) == (0, "")
        assert f"learned from 2 tasks, {2 * NUM_TRIALS} rows" in out
        assert same(bm.load("prior"), TuningPrior.from_studies(tmp_path / name))


def test_a_directory_is_no_source_and_a_source_no_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    frame().write_csv(tmp_path / "tables" / "past.csv")
    status, _, err = run("fit", "tables", *COLUMNS, "-o", "prior")
    assert (status, err) == (1, "error: tables is a directory. Name one file, such as tables/past.csv\n")
    before = (tmp_path / "tables" / "past.csv").read_bytes()
    status, _, err = run("fit", "tables/past.csv", *COLUMNS, "-o", "tables/../tables/past.csv")
    assert status == 1
    assert "it is what is learned from. Name another file" in err
    assert (tmp_path / "tables" / "past.csv").read_bytes() == before


def test_a_folder_that_cannot_be_written_to(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame().write_parquet(tmp_path / "past.parquet")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    status, _, err = run("fit", "past.parquet", *COLUMNS, "-o", "prior")
    assert status == 1
    assert "cannot be written to. Name another" in err


def test_warnings_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_warnings():
        warnings.simplefilter("always")
        warnings.warn("of two\n  lines", stacklevel=1)
    assert capsys.readouterr().err == "warning: of two lines\n"


def test_a_locked_storage(run: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"
    optuna.create_study(storage=url)
    owner = sqlite3.connect(tmp_path / "one.db")
    owner.execute("begin exclusive")
    status, _, err = run("fit", url, "-o", "prior")
    owner.close()
    assert status == 1
    assert "database is locked" in err


def test_passwords_are_not_printed(run: Run) -> None:
    _, _, err = run("fit", "nosuch://me:secret@host/db", "-o", "prior")
    assert "nosuch://me:***@host/db" in err
    assert "secret" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit",),
        ("fit", "past.csv"),
        ("fit", "past.csv", "-o", "prior"),
        ("fit", "past.csv", "-o", "prior", "--task", "task", "--target", "loss"),
        ("fit", "past.csv", "-o", "prior", "--task", "task", "--target", "loss", "--direction", "up"),
        ("fit", "sqlite:///past.db", "-o", "prior", "--task", "task"),
        ("show",),
        ("plot",),
        ("plot", "prior"),
        ("plot", "prior", "--out", "plots", "--study", "a"),
        ("plot", "prior", "--out", "plots", "--storage", "sqlite:///past.db"),
        ("demo", "--out", "x", "--budget", "huge"),
        ("demo", "--out", "x", "--jobs", "0"),
        ("frobnicate",),
    ],
)
def test_wrong_usage_exits_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "Usage: " in err


def test_a_place_that_cannot_be_written_is_refused_before_the_work(run: Run, tmp_path: Path) -> None:
    frame().write_parquet(tmp_path / "past.parquet")
    for place, message in {"no/such/prior": "does not exist", ".": "it is a directory"}.items():
        status, _, err = run("fit", "past.parquet", *COLUMNS, "-o", place)
        assert status == 1
        assert err.startswith("error: cannot save to")
        assert message in err


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def newer(path: Path) -> None:
    rewrite(path, lambda header, tensors: {**header, "format": io.FORMAT + 1})


def foreign(path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(1)}, path)


def altered(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)


def hostile(path: Path) -> None:
    code = {"object": "os:system", "package": None, "state": {"command": "touch harm"}}
    rewrite(path, lambda header, tensors: {**header, "prior": code})


def nested(path: Path) -> None:
    rewrite(path, lambda header, tensors: {**header, "prior": json.loads("[" * 500 + "]" * 500)})


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut, "cut short or damaged"),
        (newer, "Upgrade bayesmeta"),
        (foreign, "not one that bayesmeta.save wrote"),
        (altered, "its checksum differs"),
        (hostile, "no installed package registers the family 'os:system'"),
        (nested, "cannot load"),
        (Path.unlink, "the file does not exist"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_bad_priors(run: Run, tmp_path: Path, harm: Callable[[Path], None], message: str) -> None:
    bm.save(learned(), tmp_path / "prior")
    harm(tmp_path / "prior")
    status, out, err = run("show", "prior")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "harm").exists()


def test_a_missing_package_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    status, _, err = run("demo", "--out", "demo")
    assert status == 1
    assert err == "error: the demo fits real models and needs sklearn: pip install 'bayesmeta[demo]'\n"
    assert not Path("demo").exists()


# ---- processes


@pytest.mark.parametrize(
    "arguments", [("--version",), ("--help",), ("fit", "--help"), ("show", "--help"), ("plot", "--help")]
)
def test_help_answers_at_once(arguments: tuple[str, ...]) -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = start(*arguments)
        out, _ = process.communicate()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process.returncode == 0
        assert "Usage: " in out or arguments == ("--version",)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def test_the_version_and_the_names_of_arguments(run: Run) -> None:
    assert run("--version") == (0, f"bayesmeta {bm.__version__}\n", "")
    for command, argument in (("fit", "SOURCE"), ("show", "PRIOR"), ("plot", "PRIOR")):
        _, out, _ = run(command, "--help")
        assert f"{command} [OPTIONS] {argument}\n" in out
    assert "-o, --out" in run("demo", "--help")[1]


def test_names_are_there_before_they_are_imported() -> None:
    code = (
        "import sys, bayesmeta, bo; assert 'torch' not in sys.modules;"
        "assert set(bayesmeta.__all__) <= set(dir(bayesmeta)) and set(bo.__all__) <= set(dir(bo));"
        "from bayesmeta import Data; from bo import MetaSampler; assert 'torch' in sys.modules;"
        "[getattr(m, n) for m in (bayesmeta, bo) for n in m.__all__]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="module 'bayesmeta' has no attribute 'nothing'"):
        bm.nothing  # noqa: B018


def test_errors_of_a_process_are_one_line_without_a_traceback(tmp_path: Path) -> None:
    process = start("show", tmp_path / "missing")
    out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err == f"error: no prior at {tmp_path / 'missing'}: the file does not exist. bayesmeta.save writes one\n"


@pytest.mark.parametrize("delay", [0.06, 0.12, 0.2, 0.5, 1.0])
def test_ctrl_c_during_imports_is_no_traceback(tmp_path: Path, delay: float) -> None:
    """The command says that it listens, and is interrupted a while after."""
    bm.save(learned(), tmp_path / "prior")
    code = (
        "import bayesmeta.cli as cli; old = cli._let_print_anything;"
        "cli._let_print_anything = lambda stream: (old(stream), print('!', flush=True)); cli.main()"
    )
    command = [sys.executable, "-c", code, "fit", "past.parquet", *COLUMNS, "-o", "prior"]
    frame().write_parquet(tmp_path / "past.parquet")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=HERE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "!\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    bm.save(learned(), tmp_path / "prior")
    process = start("show", tmp_path / "prior")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    assert "Traceback" not in err
    assert "Exception" not in err
    process.wait()
    process.stderr.close()


# commands one after another in one process, since its imports take longer than they; each ends as its interpreter would
COMMANDS = """
import json, os, sys
from bayesmeta.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["bayesmeta", *(os.fsdecode(argument.encode()) for argument in arguments)]  # as the locale reads them
    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        print("status", 1 if isinstance(end.code, str) else end.code or 0)
"""


def test_letters_that_the_locale_lacks(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    table = frame().rename({"rate": "vitesse élevée"}).with_columns(pl.col("task") + " é")
    table.write_csv(tmp_path / "passé.csv")
    fits = [("fit", source, *COLUMNS, "-o", "à priori") for source in ("passé.csv", "manqué.csv", "élevée.db")]
    command = [sys.executable, "-c", COMMANDS, json.dumps([*fits, ("show", "à priori")])]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=HERE | plain)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert len(re.findall("^error: ", process.stderr, re.M)) == 2  # of the two sources that are not there
    outs = re.split(r"status (\d)\n", process.stdout)
    assert outs[1::2] == ["0", "1", "1", "0"], process.stderr
    assert ["vitesse" in out for out in outs[:-1:2]] == [True, False, False, True]


@pytest.mark.parametrize("arguments", [("--help",), ("fit", "--help"), ("show", "prior")])
def test_a_narrow_terminal(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Lines are no longer than 50, nothing is cut, and all names are there."""
    bm.save(learned(), tmp_path / "prior")
    ours, theirs = pty.openpty()
    code = "from bayesmeta.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(
        command, stdout=theirs, cwd=tmp_path, env=HERE | {"COLUMNS": "40", "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        text = read_all(ours)
    assert process.returncode == 0
    assert max(map(len, text.splitlines())) <= 50
    if arguments[0] == "show":
        assert all(name in text for name in SPACE)


def read_all(terminal: int) -> str:
    """What is written to a terminal until it is closed, without colours."""
    found = b""
    with contextlib.suppress(OSError):  # which is how Linux says that the other end is closed
        while part := os.read(terminal, 4096):
            found += part
    os.close(terminal)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", found.decode()).replace("\r", "")


# stops the process where the new prior is written, after the first half of its bytes
HALF_WRITTEN = """
import sys, time
from bayesmeta import cli, io
new_file = io._new_file
class Slow:
    def __init__(self, file): self.file = file
    def __enter__(self): return self
    def __exit__(self, *_): self.file.close()
    def write(self, raw):
        self.file.write(raw[: len(raw) // 2])
        self.file.flush()
        print("half", flush=True)
        time.sleep(60)
io._new_file = lambda path: Slow(new_file(path))
cli.main()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_fit_that_is_ended_leaves_no_half_written_file(tmp_path: Path, how: signal.Signals) -> None:
    frame().write_parquet(tmp_path / "past.parquet")
    (tmp_path / "prior").write_bytes(b"what was there")
    before = leftovers(tmp_path)
    params = ("--params", ",".join(SPACE))
    command = [sys.executable, "-c", HALF_WRITTEN, "fit", "past.parquet", *COLUMNS, *params, "-o", "prior"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(how)
        _, err = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert err == ""
    assert leftovers(tmp_path) == before
    assert (tmp_path / "prior").read_bytes() == b"what was there"


def living(group: int) -> list[str]:
    """Processes of a group that are not merely waiting for somebody to ask how they ended."""
    rows = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    fields = (row.split(None, 2) for row in rows.splitlines())
    return [args for pgid, stat, args in fields if int(pgid) == group and not stat.startswith("Z")]


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_its_workers(tmp_path: Path) -> None:
    process = start("demo", "--out", tmp_path / "demo", "--budget", "quick", "--jobs", "2")
    while not (tmp_path / "demo" / "prior.safetensors").exists() and process.poll() is None:
        time.sleep(0.2)
    time.sleep(4.0)  # the workers are at work, or starting
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    deadline = time.monotonic() + 10
    while living(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not living(process.pid)
    assert leftovers(tmp_path / "demo") == ["prior.safetensors"]
