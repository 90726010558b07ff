"""What runs of tuning methods say: mean regret, average rank, and how often a method did harm.

Means are over seeds, then tasks, then spaces; intervals come from resampling tasks within each space, since runs on one
task are alike. Ranks are among the methods compared, of each (task, seed, trial), after rounding regret to 8 decimals,
ties sharing their mean rank. A method *hurts* on a task if its mean regret over seeds is above 1.1 times that of `gp`
plus .003.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import Generator, Tensor

from benchmarks.report import Figure
from benchmarks.tuning.runs import Key, Run

__all__ = ["TRIALS", "Curves", "Summary", "average_ranks", "gather", "hurts", "summarise", "tables"]

TRIALS = (1, 5, 10, 15, 25, 50)
HARMLESS_FACTOR, HARMLESS_SLACK = 1.1, 0.003
NUM_RESAMPLES = 2000
LEVEL = 0.9


@dataclass(frozen=True, eq=False)
class Curves:
    """Regrets of one space, `(methods, tasks, seeds, trials)`; the first column is trial `first`."""

    space: str
    methods: tuple[str, ...]
    regret: Tensor
    first: int

    def at(self, trial: int) -> Tensor:
        """`(methods, tasks, seeds)`."""
        return self.regret[..., trial - self.first]

    @property
    def shown(self) -> list[int]:
        """The trials reported: where rows are given, trial 0 is the best of these."""
        last = self.regret.shape[-1] - 1 + self.first
        return sorted({t for t in (self.first, *TRIALS) if t <= last} | {last})


def gather(runs: Mapping[Key, Run], keys: Sequence[Key], seeds: Sequence[int], *, given: bool, trials: int) -> Curves:
    """The runs of one space; the one run of a method that draws nothing counts for every seed."""
    space = keys[0][0]
    tasks, methods = tuple(dict.fromkeys(key[1] for key in keys)), tuple(dict.fromkeys(key[2] for key in keys))
    num_columns = trials + given

    def curve(task: str, method: str, seed: int) -> Tensor:
        run = runs.get((space, task, method, None)) if not given else None
        regret = torch.tensor((run or runs[space, task, method, seed]).regret[:num_columns], dtype=torch.float64)
        # a pool that ran out of configurations has found its best: its last regret holds
        return torch.cat([regret, regret[-1:].expand(num_columns - len(regret))])

    every = [torch.stack([torch.stack([curve(t, m, s) for s in seeds]) for t in tasks]) for m in methods]
    return Curves(space, methods, torch.stack(every), 0 if given else 1)


@dataclass(frozen=True)
class Summary:
    """Figures, and the intervals of those that have one, by name."""

    figures: list[Figure] = field(default_factory=list)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, name: str, value: float, resampled: Tensor, meaning: str) -> None:
        self.figures.append(Figure(name, value, meaning))
        tail = (1.0 - LEVEL) / 2.0
        ends = resampled.quantile(torch.tensor([tail, 1.0 - tail], dtype=resampled.dtype)).tolist()
        self.intervals[name] = (ends[0], ends[1])


def summarise(protocol: str, spaces: Sequence[Curves]) -> Summary:
    """All figures of all spaces, which have the same methods."""
    summary, methods = Summary(), spaces[0].methods
    for trial in spaces[0].shown:
        regrets = [curves.at(trial).mean(-1) for curves in spaces]
        ranks = [average_ranks(curves.at(trial)).mean(-1) for curves in spaces]
        gp = methods.index("gp") if "gp" in methods else None
        for i, method in enumerate(methods):
            each = [regret[i] for regret in regrets]
            for curves, regret in zip(spaces, each, strict=True):
                name = f"{protocol}/regret/{curves.space}/{method}/{trial}"
                summary.add(name, _mean([regret]), _resampled([regret]), "mean regret over tasks")
            end = f"{method}/{trial}"
            summary.add(f"{protocol}/macro/{end}", _mean(each), _resampled(each), "mean regret over spaces")
            rank = [of_space[i] for of_space in ranks]
            summary.add(f"{protocol}/rank/{end}", _mean(rank), _resampled(rank), "average rank, mean over spaces")
            if gp is None:
                continue
            base = [regret[gp] for regret in regrets]
            harm = [torch.cat([hurts(a, b) for a, b in zip(each, base, strict=True)])]
            summary.add(f"{protocol}/hurt/{end}", _mean(harm), _resampled(harm), "share of tasks on which it hurts")
            # the same tasks are drawn for both, as the draws depend on the numbers of tasks alone
            ratio = _resampled(each) / _resampled(base)
            summary.add(f"{protocol}/ratio/{end}", _mean(each) / _mean(base), ratio, "macro over that of gp")
    return summary


def average_ranks(regret: Tensor) -> Tensor:
    """Ranks along the first axis, 1 being the best, ties sharing their mean rank."""
    rounded = (regret * 1e8).round()
    below = (rounded[None] < rounded[:, None]).sum(1)
    equal = (rounded[None] == rounded[:, None]).sum(1)
    return below + (equal + 1) / 2


def hurts(regret: Tensor, gp: Tensor) -> Tensor:
    """Whether a method does harm on a task, from mean regrets over seeds."""
    return (regret > HARMLESS_FACTOR * gp + HARMLESS_SLACK).double()


def tables(protocol: str, spaces: Sequence[Curves], summary: Summary) -> list[Group]:
    """Regret in each space, then what holds over all of them; below each figure its interval."""
    values = {figure.name: figure.value for figure in summary.figures}
    titles = {
        f"{protocol}/regret/{curves.space}": f"{curves.space}: mean regret on {curves.regret.shape[1]} held-out tasks"
        for curves in spaces
    }
    if len(spaces) > 1:
        titles[f"{protocol}/macro"] = f"mean regret over {len(spaces)} spaces"
    titles[f"{protocol}/ratio"] = "mean regret over spaces, as a share of that of gp"
    titles[f"{protocol}/rank"] = "average rank"
    titles[f"{protocol}/hurt"] = "share of tasks on which a method hurts"
    shown, made = spaces[0].shown, []
    for start, title in titles.items():
        # without lines between columns, seven trials fit a terminal of 80
        table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("trial")
        for trial in shown:
            table.add_column(f"{trial}", justify="right")
        for method in spaces[0].methods:
            names = [f"{start}/{method}/{trial}" for trial in shown]
            if names[0] in values:
                table.add_row(method, *[_cell(values[name], *summary.intervals[name]) for name in names])
        if table.rows:
            # a table would fold its title to its own width
            made.append(Group(Text(f"\n{protocol}: {title}", "bold"), table))
    return made


def _cell(value: float, low: float, high: float) -> str:
    return f"{_short(value)}\n{_short(low)}-{_short(high)}"


def _short(value: float) -> str:
    """Three digits, at most."""
    if value < 0.9995:
        return f"{value:.3f}".removeprefix("0")
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _mean(groups: Sequence[Tensor]) -> float:
    """Of the means of groups."""
    return float(torch.stack([group.mean() for group in groups]).mean())


def _resampled(groups: Sequence[Tensor]) -> Tensor:
    """The same, of tasks drawn again within each group, `NUM_RESAMPLES` times."""
    generator = Generator().manual_seed(0)
    draws = []
    for group in groups:
        index = torch.randint(len(group), (NUM_RESAMPLES, len(group)), generator=generator)
        draws.append(group[index].mean(1))
    return torch.stack(draws).mean(0)
