"""Regret by the number of past tasks, with popular and niche arms: the first ones of the same past.

`ratio` is to the Gaussian prior of the same past tasks, paired by task.
"""

from typing import Any

from benchmarks.diffusion.environments.worlds import seen, world_of
from benchmarks.diffusion.playing import PLAYING, in_order, ratio, regrets
from benchmarks.diffusion.work import Work, as_figures, as_table, interval, stream
from benchmarks.kept import Rows
from benchmarks.report import Figure

__all__ = ["NUMBERS", "few_tasks", "shown"]

ENVIRONMENT = "popular_and_niche"
PRIORS = ("gaussian", "diffusion", "mixture")
NUMBERS = {"quick": (20, 100), "full": (20, 50, 200, 1000, 5000)}
NAMES = {"regret": "regret_by_tasks/{tasks}/{prior}", "ratio": "regret_by_tasks_ratio/{tasks}/{prior}"}
MEANINGS = {"regret": "at the horizon, mean over tasks", "ratio": "to the Gaussian prior, paired by task"}

shown = as_table("regret by the number of past tasks")


def few_tasks(work: Work) -> tuple[list[Figure], Rows]:
    """`regret_by_tasks/<n>/<prior>` and `regret_by_tasks_ratio/...`."""
    playing = PLAYING[work.budget]
    numbers = NUMBERS[work.budget]
    world = world_of(ENVIRONMENT, playing.sizes, max(numbers), playing.num_tasks, None)
    assert world is not None
    every = seen(world.past, stream(51))
    rows: Rows = []
    for num in numbers:
        found = {
            method: regrets(method, world, every[:num], f"{ENVIRONMENT}_{num}", work)
            for method in in_order(work.methods, PRIORS)
        }
        beside = found.get("gaussian")
        for method, each in found.items():
            if each is None:
                continue
            row: dict[str, Any] = {"tasks": num, "prior": method, "regret": interval(each)}
            rows.append(row | ({} if beside is None else {"ratio": ratio(each, beside)}))
    return as_figures(rows, NAMES, MEANINGS), rows
