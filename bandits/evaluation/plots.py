"""Plots of what policies do."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import scipy.stats
from torch import Tensor

from bandits.evaluation.simulation import Run
from bayesmeta.checks.axes import above, finished, new_axes

if TYPE_CHECKING:  # matplotlib is slow to import, and only plots need it
    import matplotlib.axes

__all__ = ["plot_regret"]

LEGEND_LINE = 0.15  # inches


def plot_regret(
    runs: Mapping[str, Run | Tensor],
    *,
    level: float = 0.9,
    ax: "matplotlib.axes.Axes | None" = None,
    show: bool = False,
) -> "matplotlib.axes.Axes":
    """Regret up to each round: the mean over tasks, and a shade for its interval, as the label of the axis says.

    The legend stands above the axes, where it hides no curve. Intervals end at zero if no round's regret is negative.

    Args:
        runs: by name, of policies that played the same tasks; or regrets of each round `(tasks, rounds)`.
        level: of the intervals, which treat tasks as independent.

    Raises:
        ValueError: there is nothing to plot, or `level` is not between 0 and 1.
    """
    if not runs:
        raise ValueError("runs must have at least one policy; got none")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1; got {level}")
    ax = new_axes(ax, height=4.0 + LEGEND_LINE * len(runs))
    has_shade = False
    for name, run in runs.items():
        each = (run.regret if isinstance(run, Run) else run).double().numpy()
        regret = each.cumsum(-1)
        tasks, rounds = regret.shape
        mean, at = regret.mean(0), np.arange(1, rounds + 1)
        (line,) = ax.plot(at, mean, lw=1.8, label=name)
        if tasks > 1:
            half = scipy.stats.t.ppf(0.5 + 0.5 * level, tasks - 1) * regret.std(0, ddof=1) / np.sqrt(tasks)
            # Student's interval of few tasks may reach below what a mean of such regrets can be
            low = mean - half if each.min() < 0.0 else (mean - half).clip(0.0)
            ax.fill_between(at, low, mean + half, color=line.get_color(), alpha=0.2, lw=0)
            has_shade = True
    shade = f"\n(shade: {level:.0%} interval of the mean)" if has_shade else ""
    ax.set(xlabel="round", ylabel=f"regret so far, mean over tasks{shade}")
    if ax.dataLim.y0 >= 0.0:
        ax.set_ylim(bottom=0.0, auto=None)  # which leaves the top free for further curves
    return finished(ax, show, **above(ax))
