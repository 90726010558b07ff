"""Grouped data sets of the benchmark of neural processes: what is read, tasks of a linear prior, and that it runs."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from bayesmeta import LinearGaussian
from benchmarks.neural_processes import run
from benchmarks.neural_processes.sections import hierarchical
from benchmarks.neural_processes.sections.hierarchical import GroupBudget, LinearTasks, Table, read
from tests.seeds import seed, shifted

TABLE = Table("lines", "group", "y", ("x",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of ten groups of eight rows, each on a line of its own, and a row without y."""
    (tmp_path / "hierarchical").mkdir()
    random = np.random.default_rng(shifted(0))
    group, x = np.repeat(np.arange(10), 8), random.random(80)
    y = random.normal(size=10)[group] + random.normal(size=10)[group] * x + 0.1 * random.normal(size=80)
    rows = pl.DataFrame({"group": [f"g{i}" for i in group], "x": x, "y": y})
    nothing = pl.DataFrame({"group": ["g0"], "x": [0.5], "y": [None]}, schema=rows.schema)
    pl.concat([rows, nothing]).write_parquet(tmp_path / "hierarchical" / "lines.parquet")
    return tmp_path


def test_groups_are_tasks(folder: Path) -> None:
    data = read(folder / "hierarchical", TABLE)
    assert data.x.shape == (10, 8, 1)
    assert bool(data.mask.all())


def test_tasks_of_a_linear_prior_lie_on_lines() -> None:
    prior = LinearGaussian(torch.tensor([3.0, 1.0]).double(), torch.eye(2).double(), torch.tensor(1e-12).double())
    rows = torch.stack([torch.rand(50, generator=seed(1)).double(), torch.ones(50).double()], -1)
    tasks = LinearTasks(prior, rows).draw(400, 6, generator=seed(2))
    assert tasks.x.shape == (400, 6, 1)
    x = torch.cat([tasks.x, torch.ones_like(tasks.x)], -1)
    assert bool(torch.isin(tasks.x, rows[:, 0]).all())
    lines = torch.linalg.lstsq(x, tasks.y[..., None]).solution[..., 0]
    torch.testing.assert_close((x @ lines[..., None])[..., 0], tasks.y, rtol=0.0, atol=1e-4)
    different = tasks.x.amax(1) - tasks.x.amin(1) > 0.2  # of which a slope is known well
    assert abs(float(lines[different[:, 0], 0].mean()) - 3.0) < 5.0 / math.sqrt(float(different.sum()))


def test_it_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(hierarchical.DATA_SETS, "lines", TABLE)
    monkeypatch.setitem(hierarchical.BUDGETS, "quick", GroupBudget(("lines",), 2, 2))
    monkeypatch.setattr(hierarchical, "NUM_FOLDS", 2)
    out = folder / "neural.json"
    chosen = ["--sections", "hierarchical", "--methods", "transformer,conditional", "--out", str(out)]
    with pytest.raises(SystemExit):
        run.main(chosen)
    assert "the section hierarchical needs a folder hierarchical/" in capsys.readouterr().err
    run.main([*chosen, "--data", str(folder)])
    figures = json.loads(out.read_text())["figures"]
    for method in hierarchical.METHODS:
        for name in ("log_prob", "log_prob_half", "log_prob_gap"):
            assert math.isfinite(figures[f"{name}/hierarchical/lines/{method}"])
        gap = figures[f"log_prob_gap/hierarchical/mean/{method}"]
        assert gap == pytest.approx(figures[f"log_prob_gap/hierarchical/lines/{method}"])
    # networks have learned nothing, and lines are what the linear prior is about
    assert figures["log_prob_gap/hierarchical/mean/transformer"] > 0.0
