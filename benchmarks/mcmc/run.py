"""Effective draws per CPU-second of many posteriors: this package beside BlackJAX, NumPyro, nutpie and Pyro.

    python -m benchmarks.mcmc --budget quick|full --out FILE --sections ... --methods ... --data DIR

`logistic` has five weights, `glm10` the published setting of ten (100 rows, 10,000 data sets under `full`);
`bimodal`, `skew` and `groups` set a learned proposal beside rungs that do not learn and itself untrained;
`posteriordb` compares means and standard deviations with reference draws in DIR/posteriordb. Seconds are of one core
and of everything: compilation, warm-up, modes, checks; those of the kept draws alone stand beside them. A method of
which a package is not installed is left out, and the table says so.

What FILE has of other sections and methods stays.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bayesmeta.mcmc.diagnostics import effective_size
from benchmarks.kept import Rows, kept, merged
from benchmarks.mcmc import learned, posteriors
from benchmarks.mcmc.methods import METHODS, Size
from benchmarks.mcmc.problems.logistic import logistic
from benchmarks.mcmc.problems.problem import Problem
from benchmarks.report import Figure, MissingPeerError, environment, write_json

__all__ = ["main"]

PACKAGES = ["bayesmeta", "torch", "pyro-ppl", "blackjax", "numpyro", "nutpie", "jax"]
SEED = 20261
BUDGETS = ("quick", "full")
QUICK_STEPS = 600  # of learning


@dataclass(frozen=True)
class Section:
    """A problem by budget, and how much is drawn of it."""

    problem: Callable[[str], Problem]
    size: Size


def _logistic(budget: str) -> Problem:
    return logistic("logistic", 1000 if budget == "full" else 200, 50, 5, 2.0, SEED)


def _glm10(budget: str) -> Problem:
    return logistic("glm10", 10_000 if budget == "full" else 300, 100, 10, 2.0, SEED + 1)


SECTIONS: dict[str, Section] = {
    "logistic": Section(_logistic, Size()),
    "glm10": Section(_glm10, Size(4, 500, 500)),
}


def measured(problem: Problem, method: str, size: Size) -> dict[str, Any]:
    """A row of the table: one method on one problem."""
    found = METHODS[method](problem, size, SEED)
    worst = effective_size(found.position).amin(-1)  # of each task, the worst of its coordinates
    tasks, total = len(worst), found.position.shape[0] * found.position.shape[1]
    draws = found.draws
    every = len(next(iter(problem.arrays.values())))
    return {
        "problem": problem.name,
        "method": method,
        "tasks": tasks,
        "draws": total,
        "cpu_s": found.seconds,
        "minutes_for_all": found.seconds / tasks * every / 60.0,
        "ess_per_cpu_s": float(worst.sum()) / found.seconds,
        "ess_per_cpu_s_sampling": float(worst.sum()) / found.sampling,
        "ess_median": float(worst.median()),
        "ess_p5": float(worst.quantile(0.05)),
        "ess_min": float(worst.min()),
        "passed": 1.0 if draws is None else float(draws.passed.double().mean()),
        "pareto_k_max": float("nan") if draws is None else float(draws.chains.pareto_k.nan_to_num().max()),
    }


def _figures(row: dict[str, Any]) -> list[Figure]:
    place = f"{row['problem']}/{row['method']}"
    return [
        Figure(f"{name}/{place}", row[column], meaning)
        for name, column, meaning in (
            ("ess_per_cpu_s", "ess_per_cpu_s", "effective draws of the worst coordinate per CPU-second, all included"),
            ("minutes", "minutes_for_all", "CPU-minutes for all tasks, at the time that a task took"),
            ("ess_p5", "ess_p5", "5th percentile over tasks of the worst coordinate's effective draws"),
            ("pareto_k_max", "pareto_k_max", "largest Pareto k of any task"),
        )
        if row[column] == row[column]
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(1)
    figures, tables = kept(options.out, options.budget)
    console = Console(width=180)
    for name in options.sections:
        if name == "posteriordb":
            rows, found = posteriors.compared(options.data)
        elif name in learned.PROBLEMS:
            rows, found = _learned(name, options.budget)
        else:
            rows, found = _section(name, options, console)
        tables[name] = merged(tables.get(name, []), rows, ("problem", "method"))
        figures[name] = figures.get(name, {}) | {each.name: each.value for each in found}
        every = [Figure(figure, value, "") for section in figures.values() for figure, value in section.items()]
        more = {"budget": options.budget, "sections": figures, "tables": tables}
        write_json(options.out, every, environment(PACKAGES), **more)
        console.print(shown(name, tables[name]))


def _section(name: str, options: argparse.Namespace, console: Console) -> tuple[Rows, list[Figure]]:
    problem = SECTIONS[name].problem(options.budget)
    console.print(f"{name}: {problem.setting}")
    rows: Rows = []
    for method in options.methods:
        try:
            rows.append(measured(problem, method, SECTIONS[name].size))
        except MissingPeerError as error:
            console.print(f"{method} is left out: {error} is not installed")
    return rows, [figure for row in rows for figure in _figures(row)]


def _learned(name: str, budget: str) -> tuple[Rows, list[Figure]]:
    """A proposal that learns, beside rungs that do not and itself before it has learned."""
    problem = learned.PROBLEMS[name]
    schedule = learned.SCHEDULE if budget == "full" else replace(learned.SCHEDULE, num_steps=QUICK_STEPS)
    before, after, seconds = learned.trained(problem, schedule)
    tallies = learned.measured(problem, before, after, num_tasks=100, num_rounds=3 if budget == "full" else 1)
    rows = [
        {"problem": name, "method": method, "training_cpu_s": seconds, **figures}
        for method, figures in learned.summary_of(tallies, seconds).items()
    ]
    names = ("ess_per_cpu_s", "ess_per_draw", "pareto_k_max", "share_off_median", "tasks_that_repay")
    return rows, [
        Figure(f"{figure}/{name}/{row['method']}", row[figure], "see the table")
        for row in rows
        for figure in names
        if math.isfinite(row.get(figure, math.nan))
    ]


def shown(name: str, rows: Rows) -> Table:
    """A table of numbers as they are, to three digits."""
    table = Table(title=name)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for column in columns:
        table.add_column(column)
    for row in rows:
        values = [row.get(column, "") for column in columns]
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values))
    return table


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m benchmarks.mcmc", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--budget", choices=BUDGETS, default="quick")
    parser.add_argument("--methods", type=names, default=list(METHODS), help="separated by commas")
    parser.add_argument("--sections", type=names, default=[*SECTIONS, *learned.PROBLEMS], help="separated by commas")
    parser.add_argument("--data", type=Path, help="the folder that holds posteriordb/")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    options = parser.parse_args(arguments)
    sections = [*SECTIONS, *learned.PROBLEMS, "posteriordb"]
    for chosen, known, what in ((options.methods, METHODS, "method"), (options.sections, sections, "section")):
        unknown = [name for name in chosen if name not in known]
        if unknown:
            parser.error(f"there is no {what} {unknown[0]!r}; there are {', '.join(known)}")
    if "posteriordb" in options.sections and (options.data is None or not (options.data / "posteriordb").is_dir()):
        parser.error("posteriordb needs --data DIR, the folder that holds posteriordb/")
    return options
