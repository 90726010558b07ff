"""Regret of Thompson sampling where tasks come in several shapes, by prior.

Noise is .1 and the horizon 500 rounds, fewer in the quick budget. Intervals are over tasks; `ratio` is to the Gaussian
prior, paired by task.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from benchmarks.diffusion.environments.worlds import ENVIRONMENTS, World, seen, world_of
from benchmarks.diffusion.playing import PLAYING, in_order, ratio, regrets
from benchmarks.diffusion.work import Work, as_figures, as_table, interval, stream
from benchmarks.kept import Rows
from benchmarks.report import Figure

__all__ = ["regret", "shown"]

PRIORS = ("gaussian", "diffusion", "grid", "diffts", "laplace_dps", "mixture", "vague", "ucb1", "truth")
NAMES = {"regret": "regret/{environment}/{prior}", "ratio": "regret_ratio/{environment}/{prior}"}
MEANINGS = {"regret": "at the horizon, mean over tasks", "ratio": "to the Gaussian prior, paired by task"}

shown = as_table("regret at the horizon, and its ratio to that of the Gaussian prior")


def regret(work: Work) -> tuple[list[Figure], Rows]:
    """`regret/<environment>/<prior>` and `regret_ratio/...`."""
    playing, rows = PLAYING[work.budget], []
    for name in (*ENVIRONMENTS, "jester"):
        world = world_of(name, playing.sizes, playing.num_past, playing.num_tasks, work.data)
        if world is not None:
            rows += rows_of(world, in_order(work.methods, PRIORS), work)
    return as_figures(rows, NAMES, MEANINGS), rows


def rows_of(world: World, methods: Sequence[str], work: Work) -> Rows:
    """One row for each prior."""
    past = seen(world.past, stream(51))
    found: dict[str, Tensor] = {}
    rows: list[dict[str, Any]] = []
    for method in methods:
        each = regrets(method, world, past, world.name, work)
        if each is None:
            continue
        found[method] = each
        row: dict[str, Any] = {"environment": world.name, "prior": method, "regret": interval(each)}
        rows.append(row | ({"ratio": ratio(each, found["gaussian"])} if "gaussian" in found else {}))
    return rows
