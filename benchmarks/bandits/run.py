"""Are learned bandits better, and fast? Regret on tables and in known settings, coverage, logs, time per decision.

    python -m benchmarks.bandits --budget quick|full --out FILE [--data DIR] [--sections speed,jester,...] [--methods
    ...]

`--data` is a folder of reward tables: each `*.npz` with a matrix of tasks and arms, and each `ratings.parquet` of task,
arm and reward, in it or one folder below, is a section by the name of its folder; `open_bandit` is read as logs. A
section whose libraries or data are not there says so and is left out.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.bandits import changing, coverage, demonstrations, exact, hierts, logs, robust, speed, tables
from benchmarks.report import Figure, environment, write_json

PACKAGES = ["bayesmeta", "torch", "numpy", "scipy", "mabwiser", "contextualbandits", "bayesianbandits"]

Section = Callable[[], Iterator[Figure]]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(1)
    console = Console()
    sections = _sections(options)
    unknown = sorted(set(options.sections or []) - set(sections))
    if unknown:
        raise SystemExit(f"there is no section {', '.join(unknown)}; there are {', '.join(sections)}")
    figures = _earlier(options.out) if options.sections else []
    for name in options.sections or sections:
        try:
            new = list(sections[name]())
        except ImportError as error:
            console.print(f"[yellow]{name} is left out: {error}. Try `make bench-setup`")
            continue
        console.print(_table(name, new))
        figures = [f for f in figures if f.name not in {g.name for g in new}] + new
        if options.out is not None:  # what is finished is kept, whatever becomes of the rest
            write_json(options.out, figures, environment(PACKAGES), budget=options.budget)


def _sections(options: argparse.Namespace) -> dict[str, Section]:
    """By name; the quick ones first."""
    budget = options.budget
    sections: dict[str, Section] = {
        "exact": lambda: exact.exact(),
        "speed": lambda: speed.speed(speed.BUDGETS[budget]),
        "coverage": lambda: coverage.coverage(coverage.BUDGETS[budget]),
        "robust": lambda: robust.robust(robust.BUDGETS[budget]),
        "changing": lambda: changing.changing(changing.BUDGETS[budget]),
        "demonstrations": lambda: demonstrations.demonstrations(demonstrations.BUDGETS[budget]),
        "hierts": lambda: hierts.hierts(hierts.BUDGETS[budget]),
    }
    for name, path in _tables(options.data):
        sections[name] = lambda name=name, path=path: _of_table(name, path, options)  # type: ignore[misc]
    log = None if options.data is None else next((p for p in options.data.rglob("random_all.parquet")), None)
    if log is not None:
        sections["open_bandit"] = lambda: logs.open_bandit(log.parent)
    return sections


def _tables(folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Reward tables in a folder and one below, by the name of the folder that they are in."""
    if folder is None:
        return
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if path.name == "ratings.parquet" or (path.suffix == ".npz" and tables.is_table(path)):
            yield path.parent.name, path


def _of_table(name: str, path: Path, options: argparse.Namespace) -> Iterator[Figure]:
    table, budget = tables.read_table(path), tables.BUDGETS[options.budget]
    yield from tables.regret_on_table(name, table, budget, options.methods)
    if options.budget == "full":
        yield from tables.regret_on_table(f"{name}_fifth", table, budget, options.methods, share=0.2)


def _earlier(out: Path | None) -> list[Figure]:
    """Figures of other sections that a file holds already."""
    if out is None or not out.exists():
        return []
    return [
        Figure(name, value, "from an earlier run") for name, value in json.loads(out.read_text())["figures"].items()
    ]


def _table(name: str, figures: Sequence[Figure]) -> Table:
    table = Table(title=name, title_justify="left")
    table.add_column("figure", overflow="fold")
    table.add_column("value", justify="right")
    table.add_column("meaning")
    for figure in figures:
        table.add_row(figure.name, f"{figure.value:.4g}", figure.meaning)
    return table


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m benchmarks.bandits", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--budget", choices=["quick", "full"], default="quick")
    parser.add_argument("--data", type=Path, help="a folder of reward tables and logs")
    parser.add_argument(
        "--sections", type=names, help="some of the sections, by name; others are kept as FILE has them"
    )
    parser.add_argument("--methods", type=names, help=f"on tables: {', '.join(tables.METHODS)}")
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args(arguments)
    if options.data is not None and not options.data.is_dir():
        parser.error(f"there is no folder {options.data}")
    unknown = sorted(set(options.methods or []) - set(tables.METHODS))
    if unknown:
        parser.error(f"there is no method {', '.join(unknown)}; there are {', '.join(tables.METHODS)}")
    return options
