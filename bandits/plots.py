"""Plots of what policies do."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import scipy.stats
from torch import Tensor

from bandits.simulation import Run
from bayesmeta.axes import finished, new_axes

if TYPE_CHECKING:  # matplotlib is slow to import, and only plots need it
    import matplotlib.axes

__all__ = ["plot_regret"]


def plot_regret(
    runs: Mapping[str, Run | Tensor],
    *,
    level: float = 0.9,
    ax: "matplotlib.axes.Axes | None" = None,
    show: bool = False,
) -> "matplotlib.axes.Axes":
    """Regret up to each round, the mean over tasks and an interval of it.

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
    ax = new_axes(ax)
    for name, run in runs.items():
        regret = (run.regret if isinstance(run, Run) else run).cumsum(-1).double().numpy()
        tasks, rounds = regret.shape
        mean, at = regret.mean(0), np.arange(1, rounds + 1)
        (line,) = ax.plot(at, mean, lw=1.8, label=name)
        if tasks > 1:
            half = scipy.stats.t.ppf(0.5 + 0.5 * level, tasks - 1) * regret.std(0, ddof=1) / np.sqrt(tasks)
            ax.fill_between(at, mean - half, mean + half, color=line.get_color(), alpha=0.2, lw=0)
    ax.set(xlabel="round", ylabel="regret so far, mean over tasks")
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    ax.legend(frameon=False)
    return finished(ax, show)
