"""Does a learned prior tune better? Regret on held-out tasks by trial, beside the baselines, and CPU per suggestion.

    python -m benchmarks.tuning --budget quick|full --out FILE [--data DIR] [--protocol given|cold] [--methods gp,...]

Two protocols, one per file. `given`: five configurations of each task are evaluated beforehand, the same for every
method; trials count from there, and trial 0 is the best of these five. `cold`: there are none, and every method counts
from its first evaluation; Gaussian processes from scratch and TPE begin with five Sobol points. In both, methods see
the raw values of what was evaluated, and never the range of a task; no row of a held-out task reaches a prior.

Regret is that of the best so far, (best - value)/(best - worst of the task), and on the project's own tasks
(best - value)/(best - median).

Every finished run is kept beside FILE, under its name with the suffix .runs.jsonl: start again after an interruption,
or with other methods, tasks or seeds, and what is missing is run. `--redo METHODS` runs these again.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.report import environment, write_json
from benchmarks.tuning import layouts
from benchmarks.tuning.cost import cost_table, suggestion_cost
from benchmarks.tuning.data import Source
from benchmarks.tuning.layouts import Objective
from benchmarks.tuning.methods import BASELINES, LEARNED, ORDER
from benchmarks.tuning.runs import Failure, Job, Journal, Key, Plan, make_jobs, play_all
from benchmarks.tuning.summary import gather, summarise, tables

PACKAGES = ["bayesmeta", "torch", "gpytorch", "botorch", "optuna", "scikit-learn"]


@dataclass(frozen=True)
class Budget:
    """How much to run: spaces and held-out tasks up to a number, seeds, and trials of each run."""

    spaces: int
    tasks: int
    seeds: int
    trials: int


BUDGETS = {"quick": Budget(1, 4, 1, 8), "full": Budget(10**6, 10**6, 3, 50)}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    console = Console()
    torch.set_num_threads(1)
    source = Source(options.data, Objective(options.target, options.direction), options.split)
    plan = Plan(source, options.protocol == "given", options.trials)
    try:
        spaces = _chosen(options.spaces, source.spaces(), options.num_spaces)
        journal = Journal(_journal_of(options.out), _settings(options), options.redo)
        jobs: list[Job] = []
        wanted: list[list[Key]] = []
        for space in spaces:
            new, keys = make_jobs(plan, space, options.methods, options.seeds, options.tasks, journal.runs)
            jobs, wanted = jobs + new, [*wanted, keys]
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    _run(jobs, journal, sum(map(len, wanted)), options.jobs, console)
    curves = [gather(journal.runs, keys, options.seeds, given=plan.given, trials=plan.trials) for keys in wanted]
    summary = summarise(options.protocol, curves)
    for table in tables(options.protocol, curves, summary):
        console.print(table)
    console.print("below each figure: its 90% interval over tasks", style="italic")
    sizes = (50,) if options.budget == "quick" else (50, 200)
    with console.status("measuring the cost of suggestions"):
        costs = suggestion_cost(options.methods, sizes)
    figures = [*summary.figures, *costs]
    if costs:
        console.print(cost_table(costs))
    if options.out:
        settings = {**_settings(options), "budget": options.budget, "seeds": options.seeds, "trials": options.trials}
        write_json(options.out, figures, environment(PACKAGES), **settings, intervals=summary.intervals)
        console.print(f"wrote {options.out}", soft_wrap=True)


def _run(jobs: Sequence[Job], journal: Journal, total: int, num_processes: int, console: Console) -> None:
    """All jobs, with a bar that counts runs.

    Raises:
        SystemExit: some failed; the others are kept.
    """
    failures: list[Failure] = []
    num_left = sum(len(job.runs) for job in jobs)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "left:")
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("runs", total=total, completed=total - num_left)
        for result in play_all(jobs, num_processes):
            if isinstance(result, Failure):
                failures.append(result)
                progress.console.print(f"{result.job.method} failed:\n{result.reason}", markup=False)
            else:
                journal.add(result)
                progress.advance(bar)
    if failures:
        names = ", ".join(sorted({failure.job.method for failure in failures}))
        raise SystemExit(f"{len(failures)} of {len(jobs)} jobs failed, of {names}; the runs of the others are kept")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    methods = {**LEARNED, **BASELINES}
    lines = [f"  {name:<10}" + (method.__doc__ or "").partition("\n")[0] for name, method in methods.items()]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning",
        description=f"{__doc__}\n{layouts.__doc__}",
        epilog="\n".join(["methods:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--budget", choices=sorted(BUDGETS), default="quick", help="what the options below default to")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    parser.add_argument("--data", type=Path, help="a folder of tables; none takes the project's own tasks")
    parser.add_argument("--protocol", choices=("given", "cold"), default="cold")
    parser.add_argument(
        "--methods", type=_names, default=list(ORDER), help="of those named below; all unless told otherwise"
    )
    parser.add_argument("--spaces", type=_names, help="names of search spaces")
    parser.add_argument("--tasks", type=int, help="held-out tasks of each space; the past is all others anyway")
    parser.add_argument("--seeds", type=_seeds, help="how many, or a list such as 100,101")
    parser.add_argument("--trials", type=int, help="of each run")
    parser.add_argument("--target", help="the column or array of the objective")
    parser.add_argument(
        "--direction", choices=("minimize", "maximize"), help="of the objective; by default by its name"
    )
    parser.add_argument("--split", choices=("loto", "5fold"), help="by default 5fold for more than 40 tasks")
    parser.add_argument("--redo", type=_names, default=[], help="methods whose finished runs are discarded")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, of one thread each")
    options = parser.parse_args(arguments)
    budget = BUDGETS[options.budget]
    options.num_spaces = budget.spaces
    defaults = {"tasks": budget.tasks, "seeds": list(range(budget.seeds)), "trials": budget.trials}
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if unknown := sorted({*options.methods, *options.redo} - {*LEARNED, *BASELINES}):
        parser.error(f"unknown methods {', '.join(unknown)}; there are {', '.join(ORDER)}")
    for name in ("tasks", "trials", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1; got {getattr(options, name)}")
    if not options.seeds:
        parser.error("--seeds must name at least one; got none")
    return options


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(text.split(",")))


def _seeds(text: str) -> list[int]:
    return [int(seed) for seed in text.split(",") if seed] if "," in text else list(range(int(text)))


def _chosen(wanted: Sequence[str] | None, known: Sequence[str], limit: int) -> list[str]:
    """The spaces asked for, or the first ones.

    Raises:
        ValueError: one does not exist.
    """
    if unknown := [name for name in wanted or [] if name not in known]:
        raise ValueError(f"there is no search space {', '.join(unknown)}; there are {', '.join(known)}")
    return list(wanted or known[:limit])


def _journal_of(out: Path | None) -> Path | None:
    return out and out.with_suffix(".runs.jsonl")


def _settings(options: argparse.Namespace) -> dict[str, str | None]:
    return {name: getattr(options, name) for name in ("protocol", "target", "direction", "split")}
