"""What the plots say: the data of their lines and bands, their labels, and that they leave nothing behind."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from bayesmeta.checks.axes import shortened
from bayesmeta.checks.calibration import ecdf_bands, pit_ecdf, sbc_ecdf
from bayesmeta.checks.comparison import compare
from bayesmeta.checks.plots import (
    plot_code_length,
    plot_comparison,
    plot_coverage,
    plot_p_values,
    plot_pit,
    plot_sbc_ecdf,
    plot_scores,
)
from bayesmeta.checks.predictive_checks import TaskMean
from bayesmeta.random import rand, randn
from tests.families import F64, seed

RANKS = torch.stack([torch.arange(200) % 20, torch.arange(200) % 10], 1)  # uniform on 0 to 19, and half of them
CHECK = sbc_ecdf(RANKS, 19)
PIT = rand((40, 3), like=F64, generator=seed(0))
SCORES = {name: randn((30,), like=F64, generator=seed(i)) - 2 * i for i, name in enumerate(("good", "fair", "bad"))}
MEANS = {name: TaskMean(score) for name, score in SCORES.items()}
COVERAGES = {0.9: TaskMean(torch.tensor([0.8, 1.0, 0.9])), 0.5: TaskMean(torch.tensor([0.4, 0.6, 0.5]))}
P_VALUES = torch.tensor([0.5, 1e-4, 0.2, 0.9, 0.02], dtype=torch.float64)
LENGTHS = {"a": torch.tensor([[1.0, 2.0, 4.0], [2.0, 3.0, 3.0]]), "b": torch.tensor([[2.0, 4.0, 6.0], [2.0, 5.0, 5.0]])}

EACH: dict[str, Callable[..., Axes]] = {
    "sbc": lambda **kwargs: plot_sbc_ecdf(CHECK, **kwargs),
    "pit": lambda **kwargs: plot_pit(PIT, **kwargs),
    "coverage": lambda **kwargs: plot_coverage(COVERAGES, **kwargs),
    "p_values": lambda **kwargs: plot_p_values(P_VALUES, **kwargs),
    "comparison": lambda **kwargs: plot_comparison(compare(SCORES), **kwargs),
    "code_length": lambda **kwargs: plot_code_length(LENGTHS, **kwargs),
    "scores": lambda **kwargs: plot_scores(MEANS, **kwargs),
}
every_plot = pytest.mark.parametrize("plot", EACH.values(), ids=EACH.keys())


def legend(ax: Axes) -> list[str]:
    found = ax.get_legend()
    return [text.get_text() for text in found.get_texts()] if found else []


def line(ax: Axes, index: int) -> np.ndarray:
    return np.asarray(ax.lines[index].get_ydata(), dtype=float)


def bars(ax: Axes, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres, and half widths of error bars, of a container along the axis on which they lie."""
    container = ax.containers[index]
    segments = np.array(container[2][0].get_segments())
    along = 0 if container.has_xerr else 1
    return segments[..., along].mean(1), 0.5 * np.diff(segments[..., along], axis=1)[:, 0]


@every_plot
def test_plots_draw_where_they_are_told_and_change_no_settings(plot: Callable[..., Axes]) -> None:
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    figure = matplotlib.figure.Figure()
    own = figure.subplots()
    assert plot(ax=own) is own
    assert plt.get_fignums() == []
    new = plot()
    assert plt.get_fignums() == [1]
    for ax in (own, new):
        assert ax.get_xlabel()
        assert ax.get_ylabel() or ax.get_yticklabels()
        assert len(ax.lines) + len(ax.containers) > 0
        ax.figure.canvas.draw()
    assert dict(matplotlib.rcParams) == before


@every_plot
def test_show_shows_the_figure(plot: Callable[..., Axes], monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib.pyplot as plt

    shown: list[bool] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    plot(show=False)
    assert not shown
    plot(show=True)
    assert shown


def test_ranks_outside_the_band_are_told_apart() -> None:
    ax = plot_sbc_ecdf(CHECK)
    np.testing.assert_allclose(line(ax, 0), 0.0)
    np.testing.assert_allclose(line(ax, 1), CHECK.ecdf[0] - CHECK.uniform, atol=1e-12)
    np.testing.assert_allclose(line(ax, 2), CHECK.ecdf[1] - CHECK.uniform, atol=1e-12)
    assert ax.get_title() == "1 of 2 outside the band"
    assert ax.lines[1].get_color() == "black"
    assert ax.lines[2].get_color() != "black"
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx((CHECK.upper - CHECK.uniform).max().item())
    plain = plot_sbc_ecdf(CHECK, difference=False, labels=["first", "second"])
    np.testing.assert_allclose(line(plain, 1), CHECK.ecdf[0])
    assert legend(plain) == ["95% of 200 uniform", "first", "second"]
    assert plain.get_ylabel() == "ECDF"


def test_transforms_share_axes_and_one_band() -> None:
    check = pit_ecdf(PIT, level=0.9)
    ax = plot_pit(PIT, level=0.9, label="one")
    plot_pit(PIT.square(), level=0.9, label="two", ax=ax)
    assert legend(ax) == [f"90% of {check.num_values} uniform", "one", "two"]
    assert len(ax.collections) == 1
    np.testing.assert_allclose(line(ax, 1), check.ecdf - check.uniform, atol=1e-12)
    np.testing.assert_allclose(line(ax, 2), pit_ecdf(PIT.square()).ecdf - check.uniform, atol=1e-12)
    lower, _ = ecdf_bands(check.num_values, 99, 0.9)
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx((lower - check.uniform).min().item())


def test_coverage_has_intervals_between_tasks() -> None:
    ax = plot_coverage(COVERAGES, label="prior")
    centres, widths = bars(ax, 0)
    np.testing.assert_allclose(np.asarray(ax.containers[0][0].get_xdata(), dtype=float), [0.5, 0.9])
    np.testing.assert_allclose(centres, [0.5, 0.9], rtol=1e-6)
    # t with two degrees of freedom
    np.testing.assert_allclose(widths, [4.302653 * 0.1 / 3**0.5] * 2, rtol=1e-5)
    plot_coverage(COVERAGES, label="again", ax=ax)
    assert legend(ax) == ["prior", "again"]
    assert len([each for each in ax.lines if each.get_linestyle() == "--"]) == 1


def test_short_names_differ_where_names_do() -> None:
    names = ["abc", *(f"team/gradient-boosting-on-data-set-{i}-of-the-second-batch-of-2024" for i in range(12))]
    names += [f"optimizer__learning_rate_of_layer_{i}" for i in range(12)]
    short = shortened(names, 24)
    assert short[0] == "abc"
    assert len(set(short)) == len(names)
    assert max(map(len, short)) <= 25
    assert short[-1] == "optimizer__l…of_layer_11"
    assert all(f"-{i}-" in name or f"{i}-of" in name for i, name in enumerate(short[1:13]))
    # what differs in several places, or is far longer, takes the letters that it needs
    hard = ["x" * 50 + a + "y" * 50 + b + "z" * 50 for a in "ab" for b in "cd"]
    assert len(set(shortened(hard, 24))) == 4
    assert shortened(["same name of many letters, twice"] * 2, 24) == ["same name of…ters, twice"] * 2
    assert len(set(shortened(["a" * 40, "a" * 41, "a" * 42], 24))) == 3
    assert shortened([], 24) == []


@pytest.mark.parametrize(
    "plot",
    [
        lambda **kwargs: plot_coverage(COVERAGES, **kwargs),
        lambda **kwargs: plot_coverage({0.1: TaskMean(torch.tensor([0.9, 1.0, 1.0]))}, **kwargs),
        lambda **kwargs: plot_code_length(
            {f"{name}, a name of many letters": LENGTHS[name] for name in "ab"}, **kwargs
        ),
    ],
)
@pytest.mark.parametrize("is_new", [True, False])
def test_the_legend_hides_nothing(plot: Callable[..., Axes], is_new: bool) -> None:
    import matplotlib.pyplot as plt

    ax = plot() if is_new else plot(ax=plt.subplots(2, 2, figsize=(10, 7), layout="constrained")[1][1, 0])
    figure: Any = ax.figure
    figure.draw_without_rendering()
    box, whole = ax.get_legend().get_window_extent(), figure.bbox
    assert box.y0 >= ax.get_window_extent().y1 - 1
    assert box.x0 >= 0
    assert box.y1 <= whole.y1


def test_surprising_tasks_are_named() -> None:
    ax = plot_p_values(P_VALUES, names=list("abcde"))
    assert [text.get_text() for text in ax.texts] == ["b"]
    usual, surprising = (each for each in ax.lines if each.get_marker() == "o")
    np.testing.assert_allclose(usual.get_ydata(), [0.02, 0.2, 0.5, 0.9])
    np.testing.assert_allclose(usual.get_xdata(), [2 / 6, 3 / 6, 4 / 6, 5 / 6])
    np.testing.assert_allclose(surprising.get_ydata(), [1e-4])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    nothing = plot_p_values(P_VALUES[[0, 2, 3]])
    assert not nothing.texts
    assert "surprising task" not in legend(nothing)


def test_comparisons_stand_from_best_to_worst_with_errors_of_pairs() -> None:
    rows = compare(dict(reversed(SCORES.items())))
    ax = plot_comparison(rows)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["good", "fair", "bad"]
    assert ax.get_yticks().tolist() == [0.0, -1.0, -2.0]
    centres, widths = bars(ax, 0)
    np.testing.assert_allclose(centres, [row.score.value for row in rows])
    np.testing.assert_allclose(widths, [row.score.standard_error for row in rows])
    centres, widths = bars(ax, 1)
    np.testing.assert_allclose(centres - rows[0].score.value, [row.difference.value for row in rows[1:]])
    np.testing.assert_allclose(widths, [row.difference.standard_error for row in rows[1:]])
    assert "nats" in ax.get_xlabel()
    alone = plot_comparison(rows[:1])
    assert legend(alone) == ["score, one standard error"]


def test_code_lengths_are_means_over_tasks_and_differences_are_in_pairs() -> None:
    ax = plot_code_length(LENGTHS)
    np.testing.assert_allclose(line(ax, 0), [1.5, 2.5, 3.5])
    np.testing.assert_allclose(line(ax, 1), [2.0, 4.5, 5.5])
    assert legend(ax) == ["a", "b"]
    assert "nats" in ax.get_ylabel()
    ax = plot_code_length(LENGTHS, relative_to="a")
    np.testing.assert_allclose(line(ax, 1), [0.5, 2.0, 2.0])
    shade = ax.collections[0].get_paths()[0].vertices
    assert shade[:, 1].min() == pytest.approx(0.0)  # .5 - sd(1, 0) / sqrt(2)
    assert ax.get_ylabel() == "nats per task more than a\n(shade: one standard error)"


def test_scores_show_every_task() -> None:
    ax = plot_scores(MEANS, xlabel="CRPS (mm)")
    np.testing.assert_allclose(ax.lines[0].get_xdata(), SCORES["good"])
    centres, widths = bars(ax, 0)
    np.testing.assert_allclose(centres, [mean.value for mean in MEANS.values()])
    np.testing.assert_allclose(widths, [mean.standard_error for mean in MEANS.values()])
    assert ax.get_xlabel() == "CRPS (mm)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot_sbc_ecdf(CHECK, labels=["one"]), "labels must name 2 quantities; got 1"),
        (lambda: plot_coverage({}), "at least one level; got none"),
        (lambda: plot_p_values(P_VALUES, names=["a"]), "names must name 5 tasks; got 1"),
        (lambda: plot_p_values(P_VALUES[:0]), "at least one task; got none"),
        (lambda: plot_comparison([]), "no prior to compare"),
        (lambda: plot_code_length({}), "same tasks for every predictive"),
        (lambda: plot_code_length(LENGTHS, relative_to="c"), r"one of \['a', 'b'\]; got 'c'"),
        (lambda: plot_scores({}), "at least one; got none"),
    ],
)
def test_nothing_to_plot_is_said(call: Callable[[], Any], message: str) -> None:
    import matplotlib.pyplot as plt

    with pytest.raises(ValueError, match=message):
        call()
    assert plt.get_fignums() == []


def test_importing_the_plots_imports_no_matplotlib() -> None:
    import subprocess
    import sys

    code = "import sys, bayesmeta.checks.plots; assert 'matplotlib' not in sys.modules, 'matplotlib was imported'"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
