"""What it costs to learn from half of the arms of each past task rather than from all of them.

Tasks are those of popular and niche arms. An arm of a past task is seen with probability one half, and what is seen has
two rows with noise .1. `ratio` is to the regret of the same prior learned from all arms, paired by task.
"""

from typing import Any

from benchmarks.diffusion.environments.worlds import seen, world_of
from benchmarks.diffusion.playing import PLAYING, in_order, ratio, regrets
from benchmarks.diffusion.work import Work, as_figures, as_table, interval, stream
from benchmarks.kept import Rows
from benchmarks.report import Figure

__all__ = ["incomplete", "shown"]

ENVIRONMENT, SHARE = "popular_and_niche", 0.5
PRIORS = ("gaussian", "diffusion", "mixture")
NAMES = {"regret": "regret/incomplete/{prior}", "ratio": "regret_incomplete_ratio/{prior}"}
MEANINGS = {"regret": "at the horizon, learned from half of the arms", "ratio": "to learning from all, paired by task"}

shown = as_table("regret after learning from half of the arms, and its ratio to that after all")


def incomplete(work: Work) -> tuple[list[Figure], Rows]:
    """`regret/incomplete/<prior>` and `regret_incomplete_ratio/<prior>`."""
    playing = PLAYING[work.budget]
    world = world_of(ENVIRONMENT, playing.sizes, playing.num_past, playing.num_tasks, None)
    assert world is not None
    rows: Rows = []
    for method in in_order(work.methods, PRIORS):
        whole = regrets(method, world, seen(world.past, stream(51)), ENVIRONMENT, work)
        half = regrets(method, world, seen(world.past, stream(52), share=SHARE), f"{ENVIRONMENT}_half", work)
        if whole is None or half is None:
            continue
        row: dict[str, Any] = {"prior": method, "regret": interval(half), "ratio": ratio(half, whole)}
        rows.append(row)
    return as_figures(rows, NAMES, MEANINGS), rows
