"""How good diffusion priors are: beside exact answers, beside simpler priors, and what they cost.

    python -m benchmarks.diffusion --budget quick|full --out FILE --sections ... --methods ... --data DIR

`--methods` are priors and samplers (`benchmarks.diffusion.priors`), `--sections` parts: `mixture` and `exact` compare
posteriors with exact ones, `cost` takes the time of a round, `regret` plays bandits whose tasks come in several shapes,
`incomplete` learns from half of the arms, `few_tasks` from few past tasks, and `shapes` from arms that lie along a
line, on a grid or among features. DIR has a folder jester/; without it that environment is left out.

What was computed lies in a folder beside FILE, so a run that is cut short goes on where it was; what FILE has of other
sections and methods stays.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.diffusion.priors import LEARNING, METHODS
from benchmarks.diffusion.sections import cost, exact, few_tasks, incomplete, mixture, regret, shapes
from benchmarks.diffusion.work import Work
from benchmarks.kept import Rows, kept, merged
from benchmarks.pieces import Pieces
from benchmarks.report import Figure, environment, write_json

__all__ = ["main"]

PACKAGES = ["bayesmeta", "torch", "numpy", "scipy"]
Section = tuple[Callable[[Work], tuple[list[Figure], Rows]], Callable[[Rows], Table], tuple[str, ...]]
SECTIONS: dict[str, Section] = {  # what computes, what shows, and columns that tell rows apart
    "mixture": (mixture.mixture, mixture.shown, ("rows", "method")),
    "exact": (exact.exact, exact.shown, ("arms", "setting", "method")),
    "cost": (cost.cost, cost.shown, ("arms",)),
    "regret": (regret.regret, regret.shown, ("environment", "prior")),
    "incomplete": (incomplete.incomplete, incomplete.shown, ("prior",)),
    "few_tasks": (few_tasks.few_tasks, few_tasks.shown, ("tasks", "prior")),
    "shapes": (shapes.shapes, shapes.shown, ("tasks", "past", "network")),
}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    torch.set_num_threads(1)
    figures, tables = kept(options.out, options.budget)
    with Progress(transient=True) as screen:
        bar = screen.add_task("", total=None)
        pieces = Pieces(options.out, options.budget)
        work = Work(pieces, options.methods, options.data, lambda text: screen.update(bar, description=text))
        for name in options.sections:
            found, rows = SECTIONS[name][0](work)
            tables[name] = merged(tables.get(name, []), rows, SECTIONS[name][2])
            figures[name] = figures.get(name, {}) | {each.name: each.value for each in found}
            every = [Figure(figure, value, "") for section in figures.values() for figure, value in section.items()]
            # what is finished is kept, whatever becomes of the rest
            more = {"budget": options.budget, "sections": figures, "tables": tables}
            write_json(options.out, every, environment(PACKAGES), **more)
    for name in options.sections:
        Console(width=200).print(SECTIONS[name][1](tables[name]))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m benchmarks.diffusion", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--budget", choices=list(LEARNING), default="quick")
    parser.add_argument("--methods", type=names, default=list(METHODS), help="separated by commas")
    parser.add_argument("--sections", type=names, default=list(SECTIONS), help="separated by commas")
    parser.add_argument("--data", type=Path, help="the folder that holds jester/")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file; pieces lie in a folder beside it")
    options = parser.parse_args(arguments)
    for chosen, known, what in ((options.methods, METHODS, "method"), (options.sections, SECTIONS, "section")):
        unknown = [name for name in chosen if name not in known]
        if unknown:
            parser.error(f"there is no {what} {unknown[0]!r}; there are {', '.join(known)}")
    if options.data is not None and not options.data.is_dir():
        parser.error(f"there is no folder {options.data}")
    return options
