"""Plots of what a prior for tuning believes: what it expects where, which parameters matter, what a study is like.

As in `bayesmeta.checks.plots`, each draws on `ax`, or on a new figure, and returns the axes; `show=True` also shows it.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from optuna.distributions import IntDistribution
from torch import Generator, Tensor

from bayesmeta.checks.axes import ABOVE, GREY, finished, new_axes, shortened
from bo.insight.importance import parameter_importance
from bo.insight.resemblance import KERNEL, NOTHING, WHOLE, resemblance, study_rows
from bo.priors.tuning_prior import TuningPrior
from bo.space.search_space import SearchSpace

if TYPE_CHECKING:  # matplotlib is slow to import, and only plots need it
    import matplotlib.axes
    import matplotlib.axis
    from optuna import Study

__all__ = ["plot_importance", "plot_prior_surface", "plot_resemblance"]

NUM_CELLS = 32  # along an axis
NUM_OTHERS = 64  # points of the other parameters, the same for each cell
CHUNK = 4096  # points at once: each of them meets every hypothesis
MAX_PARAMS, MAX_TASKS = 20, 8  # that have a row of their own
MAX_COMPARED = 8  # parameters, two of which make a surface
MAX_LETTERS, AXIS_LETTERS = 24, 32  # of a name, and of one that has an axis to itself
FLAT = 40  # letters of all choices side by side, which are turned if there are more
MANY_DECADES = 3


def plot_prior_surface(
    prior: TuningPrior,
    params: Sequence[str] | None = None,
    *,
    ax: "matplotlib.axes.Axes | None" = None,
    show: bool = False,
) -> "matplotlib.axes.Axes":
    """What a prior expects of two parameters, or of one, before a study has trials; a mean over all the others.

    Of normal scores more is better, whatever the direction, and 0 is the median of past rows. Where a condition rules
    one of the two out the surface has a gap.

    Args:
        params: names of one or two parameters. By default the two that matter most of those that most points have
            together, and where there is no such pair the one that matters most of those that all have.

    Raises:
        ValueError: `params` are not one or two of those with several values, or are needed as the prior does not hold
            the functions of past tasks.
    """
    space = prior.space
    names = _to_compare(prior) if params is None else list(params)
    if not 1 <= len(set(names)) == len(names) <= 2 or not set(names) <= set(space.is_category):
        raise ValueError(f"params must be one or two of {', '.join(space.is_category)}; got {names}")
    grids = [_grid(space, name) for name in names]
    expected = _expected(prior, names, grids)
    what = _meaning(prior)
    ax = new_axes(ax, width=6.4)
    if len(names) == 1:
        ax.plot(grids[0], expected, "o" if space.is_category[names[0]] else "-", color="black", lw=1.5)
        ax.set_ylabel(what)
    else:
        x, y = (_edges(space, name, grid) for name, grid in zip(names, grids, strict=True))
        mesh = ax.pcolormesh(x.numpy(), y.numpy(), expected.mT.numpy())
        ax.figure.colorbar(mesh, ax=ax, label=what)
        _scale_axis(ax, "y", space, names[1])
    _scale_axis(ax, "x", space, names[0])
    if len(space.is_category) > len(names):
        ax.set_title("mean over all other parameters", fontsize="medium")
    return finished(ax, show)


def plot_importance(
    prior: TuningPrior, *, ax: "matplotlib.axes.Axes | None" = None, show: bool = False
) -> "matplotlib.axes.Axes":
    """Share of the variance of past tasks' functions that each parameter explains alone: see `bo.insight.importance`.

    A light mark per task, a dot for the mean over tasks, a line for the middle 80% of them.

    Raises:
        ValueError: the prior does not hold the functions of past tasks.
    """
    shares = parameter_importance(prior)
    names = _by_mean(shares)[:MAX_PARAMS]
    ax = new_axes(ax, height=1.3 + 0.4 * len(names))
    rows = -torch.arange(len(names))
    for row, name in zip(rows.tolist(), names, strict=True):
        ax.plot(shares[name], torch.full_like(shares[name], row - 0.25), "|", color=GREY, alpha=0.5, ms=6)
    every = torch.stack([shares[name] for name in names])
    ax.hlines(
        rows, every.quantile(0.1, -1), every.quantile(0.9, -1), color="black", lw=1.5, label="middle 80% of tasks"
    )
    ax.plot(every.mean(-1), rows, "o", color="black", mfc="white", label="mean")
    ax.plot([], [], "|", color=GREY, ms=6, label="task")
    ax.set_yticks(rows, shortened(names, MAX_LETTERS))
    more = f", {len(names)} of {len(shares)} parameters" if len(names) < len(shares) else ""
    ax.set(xlabel=f"share of variance explained alone{more}", ylim=(float(rows[-1]) - 0.6, 0.5))
    return finished(ax, show, **{**ABOVE, "ncols": 3})


def plot_resemblance(
    prior: TuningPrior,
    study: "Study",
    *,
    ax: "matplotlib.axes.Axes | None" = None,
    show: bool = False,
) -> "matplotlib.axes.Axes":
    """Which past tasks a study is like so far: bars of probabilities, and open circles for those before any trial.

    A past task stands for those close to it, which its label counts.

    Raises:
        ValueError: the prior does not weigh how far the past applies, or the study has other objectives than the prior.
    """
    rows = study_rows(prior, study)
    now, before = resemblance(prior, rows), resemblance(prior, rows.rows(slice(0, 0)))
    kinds = [
        (WHOLE, now.whole, before.whole),
        *_like_tasks(prior, now.tasks, before.tasks),
        (KERNEL, now.kernel, before.kernel),
        (NOTHING, now.nothing, before.nothing),
    ]
    labels, after, first = zip(*kinds, strict=True)
    ax = new_axes(ax, width=7.0, height=1.3 + 0.35 * len(kinds))
    places = [-place for place in range(len(kinds))]
    count = len(rows.y)
    ax.barh(places, after, height=0.6, color="C0", label=f"after {count} trial{'' if count == 1 else 's'}")
    ax.plot(first, places, "o", color="black", mfc="white", label="before any trial")
    ax.set_yticks(places, labels)
    ax.set(xlabel=f"probability that study {shortened([study.study_name], MAX_LETTERS)[0]!r} is", xlim=(0, None))
    return finished(ax, show, **ABOVE)


def _meaning(prior: TuningPrior) -> str:
    """What is drawn, which end of it is better, and what its zero is."""
    if not prior.scores:
        return f"expected objective, {'less' if prior.direction == 'minimize' else 'more'} is better"
    lower = "\n(the lower the objective, the more)" if prior.direction == "minimize" else ""
    return f"expected normal score, more is better{lower}\n0 is the median of the past's rows"


def _to_compare(prior: TuningPrior) -> list[str]:
    """Of a category and a parameter that one choice of it has there would be little to see."""
    names = _by_mean(parameter_importance(prior))[:MAX_COMPARED]
    numbers = prior.space.decode(prior.space.sobol(NUM_CELLS**2, generator=Generator().manual_seed(0)))
    is_there = {name: ~numbers[:, prior.space.names.index(name)].isnan() for name in names}
    for first, second in combinations(names, 2):
        both, either = is_there[first] & is_there[second], is_there[first] | is_there[second]
        if 2 * int(both.sum()) > int(either.sum()):
            return [first, second]
    return [next((name for name in names if is_there[name].all()), names[0])]


def _by_mean(shares: dict[str, Tensor]) -> list[str]:
    return sorted(shares, key=lambda name: float(shares[name].mean()), reverse=True)


def _grid(space: SearchSpace, name: str) -> Tensor:
    """All choices by number, or values over the whole range in the parameter's own units."""
    dist: Any = space.distributions[name]
    if space.is_category[name]:
        return torch.arange(len(dist.choices), dtype=torch.float64)
    middles = (torch.arange(NUM_CELLS, dtype=torch.float64) + 0.5) / NUM_CELLS
    return SearchSpace({name: dist}).decode(middles[:, None])[:, 0].unique()


def _expected(prior: TuningPrior, names: Sequence[str], grids: Sequence[Tensor]) -> Tensor:
    """Mean of the prior over the parameters without `names`, of the shape of the grids, NaN where these never meet."""
    space = prior.space
    columns = [space.names.index(name) for name in names]
    # without conditions, so that what appears by a choice of the grid has values too
    free = SearchSpace(space.distributions)
    others = free.decode(free.sobol(NUM_OTHERS, generator=Generator().manual_seed(0)))
    cells = torch.cartesian_prod(*grids).reshape(-1, len(grids))
    numbers = others.repeat(len(cells), 1, 1)
    numbers[..., columns] = cells[:, None]
    x = space.snap(space.encode(numbers.flatten(0, 1)))
    is_there = ~space.decode(x)[:, columns].isnan().any(-1)
    mean = torch.cat([prior.functions.marginal(part).mean for part in x.split(CHUNK)])
    each = mean.where(is_there, torch.nan).reshape(len(cells), NUM_OTHERS)
    return each.nanmean(-1).reshape([len(grid) for grid in grids])


def _edges(space: SearchSpace, name: str, grid: Tensor) -> Tensor:
    """Of the cells around the values of a grid: half way between them, in log terms where the parameter is."""
    dist: Any = space.distributions[name]
    is_log = not space.is_category[name] and dist.log
    values = grid.log() if is_log else grid
    between = 0.5 * (values[1:] + values[:-1])
    edges = torch.cat([2 * values[:1] - between[:1], between, 2 * values[-1:] - between[-1:]])
    return edges.exp() if is_log else edges


def _scale_axis(ax: "matplotlib.axes.Axes", which: str, space: SearchSpace, name: str) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    dist: Any = space.distributions[name]
    axis: matplotlib.axis.Axis = getattr(ax, f"{which}axis")
    is_whole = isinstance(dist, IntDistribution)
    axis.set_label_text(dict(zip(space.names, shortened(space.names, AXIS_LETTERS), strict=True))[name])
    if space.is_category[name]:
        labels = shortened([str(choice) for choice in dist.choices], MAX_LETTERS)
        axis.set_ticks(range(len(labels)), labels)
        if which == "x" and sum(map(len, labels)) > FLAT:
            axis.set_ticks(range(len(labels)), labels, rotation=30, ha="right", rotation_mode="anchor")
    elif dist.log:
        (ax.set_xscale if which == "x" else ax.set_yscale)("log")
        if is_whole:  # 50 rather than 5 x 10^1
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if dist.high < 10**MANY_DECADES * dist.low else (1,)))
            axis.set_major_formatter("{x:.0f}")
            axis.set_minor_formatter(NullFormatter())
    elif is_whole:
        axis.set_major_locator(MaxNLocator(integer=True))


def _like_tasks(prior: TuningPrior, now: Tensor, before: Tensor) -> list[tuple[str, float, float]]:
    """Label and probabilities of the past tasks that stand for all, the likeliest first and the last ones as one."""
    names = shortened(prior.task_names or [f"task {number}" for number in range(len(now))], MAX_LETTERS)
    num_near = (len(now) * before / before.sum()).round().int() - 1
    order = now.argsort(descending=True, stable=True)
    standing = order[before[order] > 0]
    kinds = []
    for task in standing[:MAX_TASKS].tolist():
        near = f" and {num_near[task]} near it" if num_near[task] else ""
        kinds.append((f"like {names[task]}{near}", float(now[task]), float(before[task])))
    rest = standing[MAX_TASKS:]
    if len(rest):
        kinds.append((f"like one of {len(rest)} others", float(now[rest].sum()), float(before[rest].sum())))
    return kinds
