"""The demonstration: what it writes, what it says, and that held-out data sets stay out."""

import json
from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

import bayesmeta as bm
from bayesmeta.datasets import load_tuning_tasks
from bayesmeta.fields import LearnedFrom
from bo.replay import demo

METHODS = ["learned", "gp", "tpe", "random"]


def curves(**ends: list[float]) -> demo.Curves:
    """Two seeds of fifteen trials on each replayed data set: regret falls in a line from 1 to its end."""

    def curve(end: float) -> list[list[float]]:
        return [torch.linspace(1.0, end, 15).tolist() for _ in range(2)]

    names = [f"set {i}" for i in range(len(ends["learned"]))]
    replayed = {name: {m: curve(ends[m][i]) for m in METHODS} for i, name in enumerate(names)}
    return {demo.LIVE: {m: curve(0.0)[:1] for m in METHODS}, **replayed}


GOOD = curves(learned=[-3.0] * 6, gp=[0.2] * 6, tpe=[0.2] * 6, random=[0.5] * 6)
BAD = curves(learned=[0.9] * 6, gp=[0.2] * 6, tpe=[0.2] * 6, random=[0.5] * 6)


def test_data_sets_are_past_or_held_out() -> None:
    names = load_tuning_tasks(demo.MODEL)["task"].unique().to_list()
    past, held_out = demo.hold_out(names)
    assert not set(past) & set(held_out)
    assert demo.LIVE not in past + held_out
    assert set(past) | set(held_out) | {demo.LIVE} == set(names)
    assert len(held_out) == demo.NUM_HELD_OUT
    assert demo.hold_out(names[::-1]) == (past, held_out)


def test_budgets() -> None:
    assert demo.Budget.named("full") == demo.Budget(15, 5, 12)
    assert demo.Budget.named("quick").data_sets >= 8
    with pytest.raises(ValueError, match="budget must be one of full, quick; got 'huge'"):
        demo.Budget.named("huge")


def test_words_follow_the_figures() -> None:
    good, bad = demo.in_words(GOOD), demo.in_words(BAD)
    assert "After 5 trials the learned prior's mean regret is -0.143" in good
    assert "- below that of random search after 15, 0.500" in good
    assert "- below that of a GP from scratch after 10, 0.486" in good
    assert "on 6 of 6 data sets" in good
    assert "- above that of random search after 15" in bad
    assert "on 0 of 6 data sets" in bad
    mixed = curves(learned=[-3.0, 0.9] * 3, gp=[0.2] * 6, tpe=[0.2] * 6, random=[0.3] * 6)
    assert "not clearly different from that of a GP" in demo.in_words(mixed)
    assert "on 3 of 6 data sets" in demo.in_words(mixed)


def test_tables_fit_a_terminal_of_100_columns() -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for table in demo._tables(GOOD):
        console.print(table)
    text = console.export_text()
    console.file.close()
    assert "…" not in text
    assert all(f"trial {t}" in text for t in (1, 3, 5, 10, 15))
    assert text.count("learned") == 2


def test_intervals_are_over_data_sets() -> None:
    means = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 5.0]])
    low, high = demo.interval(means)
    assert (low[0], high[0]) == (0.0, 0.0)
    assert 1.0 <= low[1] < 3.0 < high[1] <= 5.0


def test_the_picture_is_whole(tmp_path: Path) -> None:
    demo.plot(GOOD, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]


def axes_of(made: demo.Curves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Axes]:
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    demo.plot(made, tmp_path / "demo.png")
    return kept[0].axes


def test_the_picture_says_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(axes: Axes) -> str:
        return " ".join([axes.get_ylabel(), *(text.get_text() for text in axes.get_legend().get_texts())])

    left, right = axes_of(GOOD, tmp_path, monkeypatch)
    assert "2 runs each" in left.get_title()
    assert "one run of each method" in right.get_title()
    assert left.get_ylabel() == right.get_ylabel()
    assert "0: best of the table, 1: its median" in left.get_ylabel()
    assert "90% interval over data sets" in said(left)
    assert "better still" in said(right)
    assert "cut off" not in said(left)

    far = curves(learned=[0.9] * 6, gp=[0.2] * 6, tpe=[0.2] * 6, random=[2.5] * 6)
    left, right = axes_of(far, tmp_path, monkeypatch)
    assert "cut off above 1" in said(left)
    assert "better still" not in said(right)
    assert left.get_ylim()[1] == 1.0


def test_curves_that_coincide_are_both_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = axes_of(GOOD, tmp_path, monkeypatch)
    for axes in (left, right):
        gp, tpe = axes.lines[1:3]
        assert gp.get_xydata().tolist() == tpe.get_xydata().tolist()
        assert gp.get_linewidth() > tpe.get_linewidth()
        assert (gp.is_dashed(), tpe.is_dashed()) == (False, True)


@pytest.mark.slow
def test_the_demo_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    demo.run(tmp_path / "made" / "demo", demo.Budget(trials=3, seeds=2, data_sets=2), console, jobs=2)
    console.file.close()
    out = tmp_path / "made" / "demo"
    assert sorted(path.name for path in out.iterdir()) == ["demo.json", "demo.png", "prior.safetensors"]

    result = json.loads((out / "demo.json").read_text())
    past, by_data_set = result["past"], result["data sets"]
    _, held_out = demo.hold_out([*past, *by_data_set, *load_tuning_tasks(demo.MODEL)["task"].unique()])
    assert list(by_data_set) == [demo.LIVE, *held_out[:2]]
    assert not set(by_data_set) & set(past)
    for name, by_method in by_data_set.items():
        assert list(by_method) == METHODS
        for seeds in by_method.values():
            assert len(seeds) == (1 if name == demo.LIVE else 2)
            assert all(len(curve) == 3 and curve == sorted(curve, reverse=True) for curve in seeds)

    prior = bm.load(out / "prior.safetensors")
    assert prior.learned_from == LearnedFrom(len(past), 128 * len(past))
    text = console.export_text()
    assert "After 3 trials the learned prior's mean regret is" in text
    assert "demo.png" in text
