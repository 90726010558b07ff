"""What changed copies of few past tasks are worth: the section runs, and its figures are means of what it found."""

import json
from pathlib import Path

import pytest

from benchmarks.neural_processes import run
from benchmarks.neural_processes.sections import few_tasks
from benchmarks.neural_processes.sections.few_tasks import FewBudget


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(few_tasks.BUDGETS, "quick", FewBudget((4,), 2, 6, 3))
    small = {"width": 8, "num_layers": 1, "num_heads": 2, "linear_width": 4, "hidden": 8}
    monkeypatch.setattr(few_tasks, "SIZES", small)
    out = tmp_path / "few.json"
    run.main(["--sections", "few_tasks", "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    options = [*few_tasks.OPTIONS, "another_prior", "another_prior_first"]
    assert set(figures) == {f"few_tasks{half}/4/{option}" for half in ("", "_half") for option in options}
    assert figures["few_tasks/4/as_they_are"] != figures["few_tasks/4/interpolation"]
    each = [
        json.loads(path.read_text())["jitter"]
        for path in sorted((tmp_path / "few.pieces").glob("quick.few_tasks.4.*.json"))
    ]
    assert [len(gaps) for gaps in each] == [6, 6]
    assert figures["few_tasks/4/jitter"] == pytest.approx(sum(map(sum, each)) / 12)
