"""How far neural processes are from exact Bayes under the prior that they were trained on.

    python -m benchmarks.neural_processes --budget quick|full --out FILE --sections ... --methods ... --data DIR

`--methods` names members, `--sections` parts: `regression` takes 1-D functions of several kinds, `wheel` is a bandit,
`sinusoids` are few-shot tasks with MAML beside, `few_tasks` asks what changed copies of few past tasks are worth,
`images` are completed from few pixels, and `hierarchical` is of small grouped data sets. DIR has the folders omniglot/
and hierarchical/. Without it images are scikit-learn's digits, and there is no `hierarchical`.

`--effort` shortens what members of `regression` learn; CPU-minutes are among the figures.
What was computed lies in a folder beside FILE, so a run that is cut short goes on where it was; what FILE has of other
sections, kernels and members stays.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Generator, Tensor

from benchmarks.kept import Rows, kept, merged
from benchmarks.neural_processes import wheel as wheels
from benchmarks.neural_processes.processes import STREAMS
from benchmarks.neural_processes.regression import (
    BUDGETS,
    MEMBERS,
    Budget,
    MemberScores,
    Part,
    evaluation,
    num_steps,
    prior_of,
    scores_of,
)
from benchmarks.neural_processes.sections import few_tasks, hierarchical, images, sinusoids
from benchmarks.neural_processes.sections.folders import NEED_DATA, require_folders
from benchmarks.neural_processes.sections.scores import interval
from benchmarks.pieces import Pieces
from benchmarks.report import Figure, environment, write_json

__all__ = ["main"]

PACKAGES = ["bayesmeta", "torch", "numpy", "scipy"]
ROWS = ((3, 6), (7, 12), (13, 24), (25, 46))  # known, of a table
ON_ALL = ("transformer", "transformer_60")  # members that learn from each kernel; others from the first alone
ON_MIXTURE = "transformer"  # the member that learns from all kernels at once


class OnKernel:
    """Tasks of one kernel, and the members that are asked about them.

    Args:
        kernel: by its name.
        pieces, budget: where numbers are kept, and how many.
        say: shows what is being done.
    """

    def __init__(self, kernel: str, pieces: Pieces, budget: Budget, say: Callable[[str], None]) -> None:
        self.kernel, self.pieces, self.budget, self.say = kernel, pieces, budget, say

    @cached_property
    def parts(self) -> list[Part]:
        """Tasks that no member has seen, with exact Bayes."""
        self.say(f"{self.kernel}: exact Bayes")
        seed = 1000 + list(STREAMS).index(self.kernel)  # learning has the seeds 0 and 1
        return list(evaluation(STREAMS[self.kernel], self.budget, Generator().manual_seed(seed)))

    def row(self, member: str, source: str) -> dict[str, Any]:
        """What a member says that has learned from tasks of `source`."""
        name = member if source == self.kernel else f"{member}_of_{source}"

        def measured() -> dict[str, Any]:
            prior, minutes = self._learned(member, source)
            return _measured(prior, self.parts) | {"minutes": minutes}

        found = self.pieces.numbers(f"regression/{self.kernel}/{name}{self._effort}", measured)
        return {"kernel": self.kernel, "member": name, **found}

    @property
    def _effort(self) -> str:
        """In names of pieces, where it is not that of the budget."""
        usual = BUDGETS[self.pieces.budget].effort
        return "" if self.budget.effort == usual else f"/effort_{self.budget.effort / usual:g}"

    def _learned(self, member: str, source: str) -> tuple[Any, float]:
        self.say(f"{member} learns from {source}")
        effort = self.budget.effort
        return self.pieces.learned(
            f"prior/{source}/{member}{self._effort}",
            num_steps(member, effort),
            lambda checkpoint: prior_of(source, member, effort, checkpoint),
        )


def regression(
    pieces: Pieces, budget: Budget, members: Sequence[str], kernels: Sequence[str], say: Callable[[str], None]
) -> tuple[list[Figure], Rows]:
    """Members on tasks of the kernel that they learned from, and one that learned from all kernels on each."""
    rows = []
    for kernel in (kernel for kernel in STREAMS if kernel in kernels):
        on = OnKernel(kernel, pieces, budget, say)
        rows += [on.row(member, kernel) for member in members if kernel == "rbf" or member in ON_ALL]
        if ON_MIXTURE in members and "mixture" in kernels:
            rows.append(on.row(ON_MIXTURE, "mixture"))
        if kernel != "rbf" and ON_MIXTURE in members and "rbf" in kernels:  # far from what it has learned
            rows.append(on.row(ON_MIXTURE, "rbf"))
    return [figure for row in rows for figure in _figures(row)], rows


def _measured(prior: Any, parts: list[Part]) -> dict[str, Any]:
    scores = scores_of(prior, parts)
    found = {
        "gap": _mean(scores.gap),
        "joint_gap": _mean(scores.joint_gap),
        "chain_gap": _mean(scores.chain_gap),
        "exchangeability": _mean(scores.spread),
        "coverage": _mean(scores.covered),
        "by_rows": {f"{low}-{high}": _of(scores, _between(scores.num_known, low, high)) for low, high in ROWS},
        "predict_ms": _milliseconds(prior, parts),
    }
    for i in range(scores.parameters.shape[1]):
        value = scores.parameters[:, i]
        low, high = value.quantile(1 / 3), value.quantile(2 / 3)
        thirds = value <= low, (value > low) & (value <= high), value > high
        found[f"by_parameter_{i}"] = [
            {"to": float(value[third].max()), **_of(scores, third)} for third in thirds if third.any()
        ]
    return found


def _of(scores: MemberScores, which: Tensor) -> dict[str, Any]:
    return {"gap": _mean(scores.gap[which]), "joint_gap": _mean(scores.joint_gap[which])}


def _between(values: Tensor, low: int, high: int) -> Tensor:
    return (values >= low) & (values <= high)


def _mean(values: Tensor) -> list[float] | None:
    """Mean over tasks, and half of the interval of 95%."""
    known = values[~values.isnan()]
    return interval(known) if len(known) else None


def _milliseconds(prior: Any, parts: list[Part]) -> float:
    """CPU-milliseconds for a task of 20 rows and 20 that are asked about, or as many as there are, in a batch."""
    tasks = max((part.tasks for part in parts), key=lambda tasks: tasks.mask.shape[-1]).to(prior.dtype)
    num = min(tasks.mask.shape[-1], 40)
    some = tasks.rows(slice(0, num))
    start = time.process_time()
    with torch.no_grad():
        prior.condition(some.rows(slice(0, num // 2))).predict(some.x[:, num // 2 :])
    return 1e3 * (time.process_time() - start) / len(some)


def _figures(row: dict[str, Any]) -> list[Figure]:
    said = {
        "gap": "nats per row behind exact Bayes, rows alone",
        "joint_gap": "rows together, by a look at all rows before each",
        "chain_gap": "rows together, by later rows",
        "exchangeability": "standard deviation over orders of the joint, nats per row",
        "coverage": "share of tasks whose first row is in the interval of 90%",
    }
    of = f"{row['kernel']}/{row['member']}"
    figures = []
    for name, what in said.items():
        if row[name]:
            figures.append(Figure(f"{name}/{of}", row[name][0], what))
            figures.append(Figure(f"{name}_half/{of}", row[name][1], f"half of the interval of 95% of {name}"))
    for rows, part in row["by_rows"].items():
        if part["gap"]:
            figures.append(Figure(f"gap/{of}/{rows}", part["gap"][0], f"the same, {rows} known rows"))
    figures.append(Figure(f"train_cpu_min/{of}", row["minutes"], "CPU-minutes of learning"))
    figures.append(Figure(f"predict_ms/{of}", row["predict_ms"], "CPU-milliseconds of a task, in a batch"))
    return figures


def _shown(rows: Rows) -> Table:
    table = Table(title="behind exact Bayes, nats per row, with intervals of 95% over tasks")
    by_rows = [f"{low}-{high} rows" for low, high in ROWS]
    columns = ["kernel", "member", "stationary", "CPU-min", "alone", *by_rows, "together", "later rows", "orders"]
    for column in [*columns, "coverage"]:
        table.add_column(column)
    for row in rows:
        alone = [_interval(part["gap"]) for part in row["by_rows"].values()]
        others = [_interval(row[name]) for name in ("joint_gap", "chain_gap", "exchangeability", "coverage")]
        table.add_row(
            row["kernel"],
            row["member"],
            "yes" if MEMBERS[row["member"].partition("_of_")[0]].knows_stationarity else "no",
            f"{row['minutes']:.1f}",
            _interval(row["gap"]),
            *alone,
            *others,
        )
    return table


def _interval(value: list[float] | None) -> str:
    return "" if value is None else f"{value[0]:.3f} ± {value[1]:.3f}"


def wheel(
    pieces: Pieces, budget: Budget, members: Sequence[str], _kernels: Sequence[str], say: Callable[[str], None]
) -> tuple[list[Figure], Rows]:
    """Members that learned from wheels, on five of them, each with the names of `benchmarks.neural_processes.wheel`."""
    figures, rows = [], []
    taken = {name: each for name, each in wheels.MEMBERS.items() if name.removesuffix("_filled") in members}
    for delta in wheels.DELTAS:

        def played(delta: float = delta) -> dict[str, Any]:
            ready = {name: (each, _of_wheel(pieces, budget, name, say)[0]) for name, each in taken.items()}
            say(f"wheel {delta:g}: members play")
            said, shown = wheels.wheel(ready, budget.wheel, deltas=(delta,))
            return {"figures": [vars(each) for each in said], "rows": [each._asdict() for each in shown]}

        found = pieces.numbers(f"wheel/{delta:g}/{','.join(taken)}", played)
        figures += [Figure(**each) for each in found["figures"]]
        rows += found["rows"]
    for name in taken:
        minutes = _of_wheel(pieces, budget, name, say)[1]
        figures.append(Figure(f"train_cpu_min/wheel/{name}", minutes, "CPU-minutes of learning"))
    return figures, rows


def _of_wheel(pieces: Pieces, budget: Budget, name: str, say: Callable[[str], None]) -> tuple[Any, float]:
    say(f"{name} learns from wheels")
    member, effort = wheels.MEMBERS[name], budget.wheel.effort
    steps = wheels.num_steps(member, effort)
    return pieces.learned(f"prior/wheel/{name}", steps, lambda checkpoint: wheels.learned(member, effort, checkpoint))


def _shown_wheel(rows: Rows) -> Table:
    table = Table(title="regret in percent of that of a random arm, with intervals of 95% over seeds")
    for column in ("delta", "member", "percent", "missed", "tried in vain"):
        table.add_column(column)
    for row in rows:
        percent = f"{row['percent']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        table.add_row(f"{row['delta']:g}", row["member"], percent, f"{row['missed']:.1f}", f"{row['vain']:.1f}")
    return table


SECTIONS = {
    "regression": (regression, _shown),
    "wheel": (wheel, _shown_wheel),
    "sinusoids": (sinusoids.sinusoids, sinusoids.shown),
    "few_tasks": (few_tasks.few_tasks, few_tasks.shown),
    "images": (images.images, images.shown),
    "hierarchical": (hierarchical.hierarchical, hierarchical.shown),
}
KEYS = {"regression": ("kernel", "member"), "wheel": ("delta", "member")}  # that tell rows of a table apart


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How far neural processes are from exact Bayes.")
    parser.add_argument("--budget", choices=list(BUDGETS), default="quick")
    parser.add_argument("--methods", default=",".join(MEMBERS), help="members, separated by commas")
    parser.add_argument("--sections", help="separated by commas; all that can be run")
    parser.add_argument("--data", type=Path, help="the folder that holds omniglot/ and hierarchical/")
    parser.add_argument("--kernels", default=",".join([*STREAMS, "mixture"]), help="of regression, separated by commas")
    parser.add_argument("--effort", type=float, default=1.0, help="share of the steps of regression's members")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file; pieces lie in a folder beside it")
    options = parser.parse_args(arguments)
    runnable = [name for name in SECTIONS if options.data or name not in NEED_DATA]
    sections = options.sections.split(",") if options.sections else runnable
    members, kernels = options.methods.split(","), options.kernels.split(",")
    kinds = ((members, MEMBERS, "method"), (sections, SECTIONS, "section"), (kernels, [*STREAMS, "mixture"], "kernel"))
    for chosen, known, what in kinds:
        for name in chosen:
            if name not in known:
                parser.error(f"there is no {what} {name!r}; there are {', '.join(known)}")
    try:
        require_folders(sections, options.data)
    except FileNotFoundError as missing:
        parser.error(str(missing))
    budget = BUDGETS[options.budget]
    budget = replace(budget, data=options.data, effort=options.effort * budget.effort)
    pieces, figures, tables = Pieces(options.out, options.budget), *kept(options.out, options.budget)
    with Progress(transient=True) as screen:
        bar = screen.add_task("", total=None)
        for name in sections:
            section, _ = SECTIONS[name]
            found, rows = section(pieces, budget, members, kernels, lambda text: screen.update(bar, description=text))
            tables[name] = merged(tables.get(name, []), rows, KEYS.get(name, ("setting", "method")))
            figures[name] = figures.get(name, {}) | {each.name: each.value for each in found}
    for name in sections:
        Console(width=200).print(SECTIONS[name][1](tables[name]))
    every = [Figure(name, value, "") for section in figures.values() for name, value in section.items()]
    write_json(options.out, every, environment(PACKAGES), budget=options.budget, sections=figures, tables=tables)
