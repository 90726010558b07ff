"""Plots of what the checks return, in the style of ArviZ: each draws on `ax`, or on a new figure, and returns the axes.

They take results, not priors, and change no settings of matplotlib. `label` names a curve, so that several can share
one `ax`. As in ArviZ, `show=True` also shows the figure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.stats
import torch
from torch import Tensor

from bayesmeta.checks.axes import ABOVE, GREY, above, finished, marks, new_axes
from bayesmeta.checks.calibration import EcdfCheck, pit_ecdf
from bayesmeta.checks.comparison import Comparison
from bayesmeta.checks.predictive_checks import TaskMean

if TYPE_CHECKING:  # matplotlib is slow to import, and only plots need it
    import matplotlib.axes

__all__ = [
    "plot_code_length",
    "plot_comparison",
    "plot_coverage",
    "plot_p_values",
    "plot_pit",
    "plot_sbc_ecdf",
    "plot_scores",
]

BAND: dict[str, Any] = {"color": "0.5", "alpha": 0.2, "lw": 0}
NAMED = 5  # tasks, at most


def plot_sbc_ecdf(
    check: EcdfCheck,
    *,
    difference: bool = True,
    labels: Sequence[str] | None = None,
    ax: "matplotlib.axes.Axes | None" = None,
    show: bool = False,
) -> "matplotlib.axes.Axes":
    """Empirical distributions of ranks against the band of uniform ones; those that leave it are in colour.

    Args:
        difference: plot the distance from uniform, which is what one looks for.
        labels: of the quantities, in the order of `check.ecdf`.

    Raises:
        ValueError: there are not as many labels as quantities.
    """
    ecdf, inside = check.ecdf.reshape(-1, len(check.lower)), check.inside.reshape(-1)
    if labels is not None and len(labels) != len(ecdf):
        raise ValueError(f"labels must name {len(ecdf)} quantities; got {len(labels)}")
    ax = new_axes(ax)
    share = torch.linspace(0.0, 1.0, len(check.lower), dtype=torch.float64)
    zero = check.uniform if difference else torch.zeros_like(check.uniform)
    _band(ax, share, check, zero)
    for i, (values, within) in enumerate(zip(ecdf, inside.tolist(), strict=True)):
        name = labels[i] if labels is not None else None
        if name is not None or not within:
            ax.step(share, values - zero, where="post", lw=1.5, label=name)
        else:
            ax.step(share, values - zero, where="post", lw=1, color="black", alpha=max(0.15, 0.8 / len(ecdf) ** 0.5))
    ax.set(xlabel="rank of the truth among draws (share)", ylabel=_ecdf_label(difference))
    ax.set_title(f"{int((~inside).sum())} of {len(inside)} outside the band", fontsize="medium")
    return finished(ax, show)


def plot_pit(
    pit: Tensor,
    *,
    level: float = 0.95,
    difference: bool = True,
    label: str | None = None,
    ax: "matplotlib.axes.Axes | None" = None,
    show: bool = False,
) -> "matplotlib.axes.Axes":
    """Empirical distribution of `randomised_pit`, each task counted once, against the band of `pit_ecdf`.

    High on the left and low on the right is a prediction that is too narrow.

    Args:
        pit: `(tasks, ...)`, NaN where there is no row.

    Raises:
        ValueError: no task has a row.
    """
    check = pit_ecdf(pit, level=level)
    is_new = ax is None
    ax = new_axes(ax)
    at = check.uniform
    zero = at if difference else torch.zeros_like(at)
    if is_new or not ax.lines:  # the bands of several curves would hide each other
        _band(ax, at, check, zero)
    ax.step(at, check.ecdf - zero, where="post", lw=1.5, label=label, color="black" if label is None else None)
    ax.set(xlabel="probability integral transform", ylabel=_ecdf_label(difference))
    return finished(ax, show)


def plot_coverage(
    coverages: Mapping[float, TaskMean],
    *,
    level: float = 0.95,
    label: str | None = None,
    ax: "matplotlib.axes.Axes | None" = None,
    show: bool = False,
) -> "matplotlib.axes.Axes":
    """Actual against nominal coverage of intervals; the error bars are of means over tasks.

    Args:
        coverages: what `coverage` returned, by the level it was asked for.
        level: of the error bars.

    Raises:
        ValueError: there is no coverage.
    """
    if not coverages:
        raise ValueError("coverages must hold at least one level; got none. Try {0.9: coverage(posterior, held_out)}")
    ax = new_axes(ax, width=4.2)
    nominal = sorted(coverages)
    if not ax.lines:
        ax.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    ax.errorbar(
        nominal,
        [coverages[each].value for each in nominal],
        [_half_width(coverages[each], level) for each in nominal],
        label=f"{level:.0%} interval of the mean over tasks" if label is None else label,
        **(marks("black") if label is None else {"fmt": "o-", "mfc": "white", "lw": 1.5}),
    )
    ax.set(xlabel="nominal coverage", ylabel="share of rows covered", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return finished(ax, show, **above(ax))


def plot_p_values(
    p_values: Tensor,
    *,
    names: Sequence[str] | None = None,
    level: float = 0.95,
    ax: "matplotlib.axes.Axes | None" = None,
    show: bool = False,
) -> "matplotlib.axes.Axes":
    """Sorted p-values of tasks against those of tasks drawn from the prior, both axes in logarithms.

    Tasks that surprise even as the most extreme of so many are in red and named.

    Args:
        p_values: one per task, as of `prior_predictive_p_values`.
        names: of the tasks, their numbers unless given.
        level: a task is named if its p-value times the number of tasks is below 1 - level; also that of the band, which
            holds for each position on its own.

    Raises:
        ValueError: there are no p-values, or not as many names.
    """
    values = p_values.double().cpu().flatten()
    count = len(values)
    if not count:
        raise ValueError("p_values must hold at least one task; got none")
    if names is not None and len(names) != count:
        raise ValueError(f"names must name {count} tasks; got {len(names)}")
    ax = new_axes(ax)
    order = values.argsort().tolist()
    positions = np.arange(1, count + 1)
    expected = positions / (count + 1)
    tails = (0.5 - 0.5 * level, 0.5 + 0.5 * level)
    low, high = (scipy.stats.beta.ppf(tail, positions, count + 1 - positions) for tail in tails)
    ax.fill_between(expected, low, high, label=f"{level:.0%} at each position", **BAND)
    ax.plot(expected, expected, color=GREY, lw=1, ls="--")
    surprising = (values[order] * count < 1.0 - level).numpy()
    ordered = values[order].numpy()
    ax.plot(expected[~surprising], ordered[~surprising], "o", ms=4, color="black", mfc="white", label="task")
    if surprising.any():
        ax.plot(expected[surprising], ordered[surprising], "o", ms=5, color="tab:red", label="surprising task")
    for i in range(min(int(surprising.sum()), NAMED)):
        name = names[order[i]] if names is not None else str(order[i])
        ax.annotate(name, (expected[i], ordered[i]), xytext=(6, -3), textcoords="offset points", fontsize="small")
    ax.set(xscale="log", yscale="log", xlabel="p-value expected at this position", ylabel="p-value of the task")
    return finished(ax, show, loc="lower right")


def plot_comparison(
    comparisons: Sequence[Comparison], *, ax: "matplotlib.axes.Axes | None" = None, show: bool = False
) -> "matplotlib.axes.Axes":
    """Priors from best to worst, as `compare` returns them: scores, and differences from the best task by task.

    Bars are one standard error. A triangle stands as far from the dashed line as its prior is from the best, and its
    bar is that of the difference: much shorter where tasks are hard or easy for all priors alike.

    Raises:
        ValueError: there is nothing to compare.
    """
    from matplotlib.ticker import MaxNLocator

    if not comparisons:
        raise ValueError("there is no prior to compare: give what compare returned")
    ax = new_axes(ax, height=1.2 + 0.7 * len(comparisons))
    rows = -np.arange(len(comparisons), dtype=float)
    scores = [each.score.value for each in comparisons]
    errors = [each.score.standard_error for each in comparisons]
    ax.errorbar(scores, rows, xerr=errors, label="score, one standard error", **marks("black"))
    if len(comparisons) > 1:
        pairs = [each.difference.standard_error for each in comparisons[1:]]
        ax.errorbar(scores[1:], rows[1:] + 0.3, xerr=pairs, label="difference from the best", fmt="^", color=GREY)
    ax.axvline(scores[0], color=GREY, lw=1, ls="--")
    ax.set_yticks(rows, [each.name for each in comparisons])
    ax.xaxis.set_major_locator(MaxNLocator(5))  # log densities are long numbers
    ax.set(xlabel="log density of a task left out (nats), more is better", ylim=(rows[-1] - 0.5, 0.5))
    return finished(ax, show, **ABOVE)


def plot_code_length(
    lengths: Mapping[str, Tensor],
    *,
    relative_to: str | None = None,
    ax: "matplotlib.axes.Axes | None" = None,
    show: bool = False,
) -> "matplotlib.axes.Axes":
    """Mean over tasks of the nats it takes to tell their first rows, by the number of rows; less is better.

    Tasks that are shorter count with all their rows. The shade is one standard error between tasks; of differences, in
    pairs.

    Args:
        lengths: what `code_length` returned for the same tasks, by the name of the predictive.
        relative_to: plot how much more each takes than this one: curves that rise together differ by little else.

    Raises:
        ValueError: lengths are of different tasks, or none of them has the name `relative_to`.
    """
    shapes = {tuple(each.shape) for each in lengths.values()}
    if len(shapes) != 1:
        raise ValueError(f"lengths must be of the same tasks for every predictive; got shapes {sorted(shapes)}")
    if relative_to is not None and relative_to not in lengths:
        raise ValueError(f"relative_to must be one of {sorted(lengths)}; got {relative_to!r}")
    from matplotlib.ticker import MaxNLocator

    ax = new_axes(ax)
    base = 0.0 if relative_to is None else lengths[relative_to].double()
    for name, each in lengths.items():
        by_task = (each.double() - base).reshape(-1, each.shape[-1])
        if name == relative_to:
            ax.axhline(0.0, color=GREY, lw=1, ls="--", label=name)
            continue
        means = [TaskMean(column) for column in by_task.unbind(-1)]
        mean, error = (np.array(v) for v in zip(*((m.value, m.standard_error) for m in means), strict=True))
        rows = np.arange(1, len(mean) + 1)
        (line,) = ax.plot(rows, mean, lw=1.5, label=name)
        ax.fill_between(rows, mean - error, mean + error, color=line.get_color(), alpha=0.15, lw=0)
    more = "code length (nats per task)" if relative_to is None else f"nats per task more than {relative_to}"
    ax.set(xlabel="rows of the task", ylabel=f"{more}\n(shade: one standard error)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return finished(ax, show, **above(ax))


def plot_scores(
    scores: Mapping[str, TaskMean],
    *,
    xlabel: str = "log score (nats per row), more is better",
    ax: "matplotlib.axes.Axes | None" = None,
    show: bool = False,
) -> "matplotlib.axes.Axes":
    """Scores by name: a light dot per task, and the mean over tasks with one standard error.

    Args:
        scores: what `log_score` or `crps` returned.
        xlabel: what the score is, with its unit: of `crps`, the unit of y.

    Raises:
        ValueError: there is no score.
    """
    if not scores:
        raise ValueError("scores must hold at least one; got none")
    ax = new_axes(ax, height=1.2 + 0.7 * len(scores))
    rows = -np.arange(len(scores), dtype=float)
    for row, score in zip(rows, scores.values(), strict=True):
        each = score.by_task.double().cpu().flatten().numpy()
        ax.plot(each, np.full(len(each), row - 0.2), "|", color=GREY, alpha=0.5, ms=7)
    means = [score.value for score in scores.values()]
    ax.errorbar(
        means,
        rows,
        xerr=[score.standard_error for score in scores.values()],
        label="mean, one standard error",
        **marks("black"),
    )
    ax.plot([], [], "|", color=GREY, ms=7, label="task")
    ax.set_yticks(rows, list(scores))
    ax.set(xlabel=xlabel, ylim=(rows[-1] - 0.6, 0.5))
    return finished(ax, show, **ABOVE)


def _band(ax: "matplotlib.axes.Axes", at: Tensor, check: EcdfCheck, zero: Tensor) -> None:
    label = f"{check.level:.0%} of {check.num_values} uniform"
    ax.fill_between(at, check.lower - zero, check.upper - zero, step="post", label=label, **BAND)
    ax.step(at, check.uniform - zero, where="post", color=GREY, lw=1, ls="--")


def _half_width(mean: TaskMean, level: float) -> float:
    """Half the width of the interval of a mean over tasks, by Student's t."""
    count = int((~mean.by_task.isnan()).sum())
    return mean.standard_error * float(scipy.stats.t.ppf(0.5 + 0.5 * level, count - 1)) if count > 1 else math.nan


def _ecdf_label(difference: bool) -> str:
    return "ECDF - uniform" if difference else "ECDF"
