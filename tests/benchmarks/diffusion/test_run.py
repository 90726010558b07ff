"""The benchmark of diffusion priors runs, goes on where it was, and says what is not there."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
from benchmarks.diffusion import gaussian_mixture, playing, priors, run, streamed
from benchmarks.diffusion.environments import worlds
from benchmarks.diffusion.playing import Playing, ratio
from benchmarks.diffusion.priors import Learning
from benchmarks.diffusion.sections import cost, exact, few_tasks, mixture, shapes
from benchmarks.diffusion.work import interval

SECTIONS = "mixture,exact,cost,regret,incomplete,few_tasks,shapes"
METHODS = "diffusion,grid,stream,stream_network,gaussian,mixture,ucb1,truth"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = DiffusionSchedule(num_steps=4, num_vectors=8, num_rounds=1, num_draws=1, num_particles=8)
    monkeypatch.setitem(priors.LEARNING, "quick", Learning(schedule, 8, 1))
    monkeypatch.setitem(mixture.BUDGETS, "quick", mixture.MixtureBudget(40, 6, 40, 40, 20))
    monkeypatch.setitem(exact.BUDGETS, "quick", exact.ExactBudget({4: (40, 2)}, {5: 1}))
    monkeypatch.setitem(streamed.NUM_STEPS, "quick", 4)
    monkeypatch.setitem(cost.BUDGETS, "quick", cost.CostBudget(20, 30, 3, 4))
    sizes = {"three_modes": 3, "popular_and_niche": 10, "maze": 3}
    monkeypatch.setitem(playing.PLAYING, "quick", Playing(30, 3, 3, 8, 1, sizes))
    monkeypatch.setattr(gaussian_mixture, "NUMBERS", (1, 2))
    monkeypatch.setitem(few_tasks.NUMBERS, "quick", (20,))
    monkeypatch.setitem(shapes.NUMBERS, "quick", {"curves": (20,), "mazes": (20,), "clusters": (20,)})
    monkeypatch.setitem(shapes.NUM_HELD_OUT, "quick", 4)
    monkeypatch.setattr(shapes, "VECTORS", schedule)
    monkeypatch.setattr(shapes, "SETS", schedule)
    for name in ("gaussian", "swiss_roll", "bidding"):
        monkeypatch.delitem(worlds.ENVIRONMENTS, name)


@pytest.mark.usefixtures("tiny")
def test_it_runs_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    out = tmp_path / "diffusion.json"
    run.main(["--sections", SECTIONS, "--methods", METHODS, "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    expected = ["mode_weight_bias/3/default", "coverage/10/mixture", "evidence_error/1/gaussian", "energy/3/exact"]
    expected += ["w2/4/sharp/default", "w2_floor/4/few", "w2/4/repeated/gaussian", "round_cpu_s/20"]
    expected += ["w2/4/few/stream", "w2/5/all/stream_network", "w2_floor/5/sharp"]
    expected += [
        "regret/three_modes/diffusion",
        "regret_ratio/popular_and_niche/mixture",
        "regret/three_modes/ucb1",
        "regret_ratio/popular_and_niche/truth",
        "regret_ratio/maze/grid",
        "gain/curves/20/perceptron",
        "gain/mazes/20/grid",
        "asking_cpu_s/clusters/20/attention",
    ]
    expected += [
        "regret_incomplete_ratio/diffusion",
        "regret_by_tasks/20/diffusion",
        "regret_half/three_modes/gaussian",
    ]
    for name in expected:
        assert math.isfinite(figures[name]), name
    assert figures["regret_ratio/three_modes/gaussian"] == pytest.approx(1.0)
    assert not any("jester" in name or "vague" in name for name in figures)
    assert "three kinds of tasks" in capsys.readouterr().out

    def again(*_: Any) -> Any:
        raise AssertionError("it was computed before")

    for name in priors.LEARN:
        monkeypatch.setitem(priors.LEARN, name, again)
    (tmp_path / "diffusion.pieces" / "quick.regret.three_modes.diffusion.json").unlink()  # as if it had been cut short
    run.main(["--sections", "regret", "--methods", "diffusion,gaussian", "--out", str(out)])
    once_more = json.loads(out.read_text())["figures"]
    assert once_more == pytest.approx(figures, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "magic"], "there is no method 'magic'; there are diffusion"),
        (["--sections", "magic"], "there is no section 'magic'; there are mixture"),
        (["--data", "/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        run.main([*arguments, "--out", str(tmp_path / "x.json")])
    assert message in capsys.readouterr().err


def test_a_ratio_of_regrets_is_paired() -> None:
    beside = torch.tensor([1.0, 2.0, 4.0, 9.0]).double()
    assert ratio(0.5 * beside, beside) == pytest.approx([0.5, 0.0])
    found, half = ratio(beside.flip(0), beside)
    assert found == pytest.approx(1.0)
    influence = (beside.flip(0) - beside) / 4.0
    assert half == pytest.approx(1.96 * float(influence.std()) / 2.0)
    assert interval(torch.tensor([1.0, math.nan, 3.0]))[0] == 2.0
