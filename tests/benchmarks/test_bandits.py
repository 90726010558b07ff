"""The benchmark of bandits: what it reads, what it holds apart, and that it runs from end to end."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks.bandits import run as bandits
from benchmarks.bandits import tables as bandit_tables
from benchmarks.bandits.tables import TableBudget, read_table, regret_on_table
from tests.families import seed


def table(tasks: int = 60, arms: int = 40) -> torch.Tensor:
    """Arms whose rewards go together, some of them unknown."""
    generator = seed(0)
    slope = torch.linspace(-1, 1, arms)
    rewards = (
        slope + 3.0 * slope * torch.randn(tasks, 1, generator=generator) + torch.randn(tasks, arms, generator=generator)
    )
    return torch.where(torch.rand(tasks, arms, generator=generator) < 0.05, torch.nan, rewards).double()


def test_both_layouts_are_read(tmp_path: Path) -> None:
    rewards = table()
    np.savez(tmp_path / "matrix.npz", rewards=rewards.numpy())
    torch.testing.assert_close(read_table(tmp_path / "matrix.npz"), rewards, equal_nan=True)
    task, arm = (~rewards.isnan()).nonzero().unbind(-1)
    frame = pl.DataFrame({"user": task.numpy(), "film": arm.numpy(), "stars": rewards[task, arm].numpy()})
    frame.write_parquet(tmp_path / "ratings.parquet")
    again = read_table(tmp_path / "ratings.parquet")
    assert again.shape == rewards.shape
    torch.testing.assert_close(again.nansum(1), rewards.nansum(1))
    assert bandit_tables.is_table(tmp_path / "matrix.npz")
    np.savez(tmp_path / "other.npz", rewards=rewards.numpy(), more=rewards.numpy())
    assert not bandit_tables.is_table(tmp_path / "other.npz")
    np.savez(tmp_path / "named.npz", ids=np.arange(60), ratings=rewards.numpy())
    assert bandit_tables.is_table(tmp_path / "named.npz")
    torch.testing.assert_close(read_table(tmp_path / "named.npz"), rewards, equal_nan=True)


def test_new_tasks_do_not_reach_the_past() -> None:
    rewards = table()
    budget = TableBudget(1, 10**6, 10**6)
    for split in range(3):
        world = bandit_tables._split(rewards, budget, split, 1.0)
        past = {tuple(row.tolist()) for row in world.past.y.where(world.past.mask, 0.0)}
        new = {tuple(row.tolist()) for row in world.table.nan_to_num(nan=0.0)}
        assert not past & new
        assert len(past) == 45


def test_a_prior_that_knows_correlations_is_better_on_such_a_table() -> None:
    complete = table(400).nan_to_num(nan=0.0)
    budget = TableBudget(1, 10**6, 10**6)
    figures = {f.name: f.value for f in regret_on_table("t", complete, budget, ["correlated", "random"])}
    assert figures["regret/t/correlated"] < 0.9 * figures["regret/t/means"] < figures["regret/t/random"]
    assert figures["regret_ratio/t/means"] == 1.0


def test_sections_run_and_others_are_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "matrix.npz", rewards=table(400).nan_to_num(nan=0.0).numpy())
    folder, out = tmp_path / "data" / "ours", tmp_path / "out.json"
    folder.mkdir(parents=True)
    (tmp_path / "matrix.npz").rename(folder / "matrix.npz")
    data = ["--data", str(tmp_path / "data"), "--out", str(out), "--budget", "quick"]
    bandits.main([*data, "--sections", "robust,changing"])
    bandits.main([*data, "--sections", "ours", "--methods", "correlated"])
    figures = json.loads(out.read_text())["figures"]
    assert figures["regret/robust/learned"] < figures["regret/robust/vague"]
    assert figures["regret/changing/change_points"] < figures["regret/changing/still"]
    assert {"regret/ours/correlated", "regret/ours/means"} <= set(figures)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "magic"], "there is no method magic"),
        (["--data", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bandits.main(arguments)
    assert message in capsys.readouterr().err


def test_sections_that_are_none() -> None:
    with pytest.raises(SystemExit, match="there is no section magic; there are exact"):
        bandits.main(["--sections", "magic"])


def test_tables_that_are_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "vector.npz", rewards=np.zeros(3))
    with pytest.raises(ValueError, match="must hold a matrix of tasks and arms"):
        read_table(tmp_path / "vector.npz")
    pl.DataFrame({"a": [1], "b": [2]}).write_parquet(tmp_path / "ratings.parquet")
    with pytest.raises(ValueError, match="must have columns for task, arm and reward"):
        read_table(tmp_path / "ratings.parquet")
