"""The shipped tables are what their card says."""

import json
from pathlib import Path

import polars as pl
import pytest

from bayesmeta import datasets
from bayesmeta.datasets import load_tuning_tasks
from bayesmeta.datasets.sklearn_tuning import PROBLEMS, SEED, balanced_log_loss, cross_validate, make_folds, subsample

HERE = Path(datasets.__file__).parent
MODELS = [model for model in PROBLEMS if (HERE / f"{model}.parquet").exists()]
every_model = pytest.mark.parametrize("model", MODELS)


def test_there_are_tables_and_they_are_small() -> None:
    assert {"svc", "boosting"} <= set(MODELS)
    assert sum(path.stat().st_size for path in HERE.iterdir() if path.is_file()) < 4e6


@every_model
def test_columns_and_rows(model: str) -> None:
    table = load_tuning_tasks(model)
    assert table.columns == ["task", "config", *PROBLEMS[model].space, "log_loss", "accuracy", "cpu_s"]
    assert not sum(table.null_count().row(0))
    numbers = table.select(pl.selectors.numeric())
    assert all(column.is_finite().all() for column in numbers)
    assert table["log_loss"].is_between(0.0, 6.91).all()  # -log of the clip
    assert table["accuracy"].is_between(0.0, 1.0).all()
    assert (table["cpu_s"] > 0).all()
    assert table["task"].n_unique() >= 40
    for (task,), rows in table.group_by("task"):
        assert rows["config"].to_list() == list(range(128)), task


@every_model
def test_all_tasks_share_their_configurations(model: str) -> None:
    table, space = load_tuning_tasks(model), PROBLEMS[model].space
    assert len(table.select("config", *space).unique()) == 128
    for params in table.select(*space).unique().iter_rows(named=True):
        assert all(space[name]._contains(space[name].to_internal_repr(value)) for name, value in params.items())


@every_model
def test_targets_vary_and_what_does_not_is_listed(model: str) -> None:
    table = load_tuning_tasks(model)
    spread = table.group_by("task").agg(pl.col("log_loss").quantile(0.9) - pl.col("log_loss").min())
    assert (spread["log_loss"] >= 0.02 - 1e-6).all()
    dropped = json.loads((HERE / "dropped.json").read_text())[model]
    assert not set(dropped) & set(table["task"])
    assert table["task"].n_unique() + len(dropped) == 44


@every_model
def test_the_card_names_every_column_and_task(model: str) -> None:
    card = (HERE / "README.md").read_text()
    table = load_tuning_tasks(model)
    assert all(f"`{name}`" in card for name in table.columns)
    assert all(task in card for task in table["task"].unique())


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'forest'"):
        load_tuning_tasks("forest")


def test_scores_can_be_made_again() -> None:
    sklearn = pytest.importorskip("sklearn")
    if sklearn.__version__ != "1.9.1":
        pytest.skip(f"the tables are of scikit-learn 1.9.1; here is {sklearn.__version__}")
    from sklearn.datasets import load_wine

    wine, problem = load_wine(as_frame=True), PROBLEMS["svc"]
    folds = make_folds(*subsample(wine.data, wine.target.to_numpy(), seed=SEED), problem.scalings, seed=SEED)
    stored = load_tuning_tasks("svc").filter((pl.col("task") == "wine") & pl.col("config").is_in([3, 77]))
    assert len(stored) == 2
    for row in stored.iter_rows(named=True):
        params = {name: row[name] for name in problem.space}
        loss, accuracy = cross_validate(problem, params, folds, seed=SEED)
        assert loss == pytest.approx(row["log_loss"], abs=1e-6)
        assert accuracy == pytest.approx(row["accuracy"], abs=1e-6)


def test_balanced_log_loss_counts_classes_alike_and_clips() -> None:
    import numpy as np

    y = np.array([0, 0, 0, 1])
    probs = np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    assert balanced_log_loss(y, probs) == pytest.approx((np.log(2) + np.log(1000)) / 2)
