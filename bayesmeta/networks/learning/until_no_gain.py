"""Learning that stops early: the loop by which networks learn from past tasks, whatever the model.

A network can tell a few past tasks apart by heart. So a first run leaves out a fifth of the tasks, and ends when these
no longer gain. A second run learns from all tasks, and is as long as the first was at its best.

A model brings two functions. `learn` takes a part of the tasks and shows what it has learned after every few steps;
`value` says what that is worth on the tasks that were left out. Whatever climbs an objective can be `learn`: steps up
random parts of it are in `bayesmeta.networks.learning.ascent`.

Source: Prechelt, Early stopping, but when? (1998).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from bayesmeta.networks.learning.progress_line import progress_line

__all__ = ["Standing", "learn_until_no_gain", "num_held_out"]

HELD_OUT = 0.2  # of the tasks

T = TypeVar("T")


@dataclass
class Standing:
    """Where the loop stands: all by which its runs end.

    Args:
        run: 1, without the tasks that are left out, or 2, from all.
        num_looks: in this run.
        best, best_at: the greatest value in the first run, and the look that had it.
    """

    run: int = 1
    num_looks: int = 0
    best: float = -math.inf
    best_at: int = 0


def num_held_out(num_tasks: int) -> int:
    """How many of the tasks a first run leaves out: a fifth, and at least one."""
    return max(round(HELD_OUT * num_tasks), 1)


def learn_until_no_gain(
    learn: Callable[[slice, Callable[[T], bool]], T],
    value: Callable[[T], float],
    num_tasks: int,
    *,
    patience: int,
    name: str,
    progress: bool,
    standing: Standing | None = None,
) -> T:
    """What is learned from all tasks, by a run as long as was best for tasks that were left out.

    Args:
        learn: called with a part of the tasks, which are in random order, and with a function `enough`. It calls
            `enough` on what it has learned so far, again and again, and returns as soon as that is true.
        value: of what was learned, on the first `num_held_out(num_tasks)` tasks; greater is better. It is called
            without gradients.
        num_tasks: at least two.
        patience: for how many looks of the first run held-out tasks may not gain.
        name: of what is learned, as a line of progress says it.
        progress: whether there is such a line.
        standing: where to go on, None for the beginning. It is kept up to date: who wants to be able to go on writes it
            down after each look, and calls this again with a `learn` that goes on, or has ended, where it was.

    Returns:
        What `learn` returned of all tasks.
    """
    at = standing or Standing()
    with progress_line(f"learning {name}", shown=progress) as say:

        def no_gain(learned: T) -> bool:
            with torch.no_grad():
                now = value(learned)
            at.num_looks += 1
            if now > at.best:
                at.best, at.best_at = now, at.num_looks
            say(f"learning {name}: {at.best:.3f} per row of held-out tasks")
            return at.num_looks - at.best_at >= patience

        def as_many(_learned: T) -> bool:
            at.num_looks += 1
            say(f"learning {name} from all tasks: {at.best_at - at.num_looks} to go")
            return at.num_looks >= at.best_at

        if at.run == 1:
            learn(slice(num_held_out(num_tasks), None), no_gain)
            at.run, at.num_looks = 2, 0
        return learn(slice(None), as_many)
