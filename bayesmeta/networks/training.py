"""Learning that stops early: the loop by which networks learn from past tasks, whatever the model.

A network can tell a few past tasks apart by heart. So a first run leaves out a fifth of the tasks, and ends when these
no longer gain. A second run learns from all tasks, and is as long as the first was at its best.

A model brings two functions. `learn` takes a part of the tasks and shows what it has learned after every few steps;
`value` says what that is worth on the tasks that were left out. Whatever climbs an objective can be `learn`: `ascend`
here does so by stochastic gradients.

Sources: Prechelt, Early stopping, but when? (1998); Kingma and Ba, Adam (2015); Loshchilov and Hutter, SGDR (2017), for
rates that fall along a cosine.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import Tensor

__all__ = ["ascend", "learn_until_no_gain", "num_held_out"]

HELD_OUT = 0.2  # of the tasks

T = TypeVar("T")


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

    Returns:
        What `learn` returned of all tasks.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, disable=not progress, transient=True) as screen:
        bar = screen.add_task(f"learning {name}", total=None)
        best, best_at, seen = -math.inf, 0, 0

        def no_gain(learned: T) -> bool:
            nonlocal best, best_at, seen
            with torch.no_grad():
                seen, now = seen + 1, value(learned)
            if now > best:
                best, best_at = now, seen
            screen.update(bar, description=f"learning {name}: {best:.3f} per row of held-out tasks")
            return seen - best_at >= patience

        learn(slice(num_held_out(num_tasks), None), no_gain)
        left = best_at

        def as_many(_learned: T) -> bool:
            nonlocal left
            left -= 1
            screen.update(bar, description=f"learning {name} from all tasks: {left} to go")
            return left <= 0

        return learn(slice(None), as_many)


def ascend(
    start: Sequence[Tensor],
    rates: Sequence[float],
    objective: Callable[[list[Tensor]], Tensor],
    enough: Callable[[list[Tensor]], bool],
    *,
    num_steps: int,
    interval: int,
) -> list[Tensor]:
    """Tensors after steps of Adam up an objective, with rates that fall along a cosine.

    Args:
        start: where the steps start; these tensors stay as they are.
        rates: of the first step, one for each tensor.
        objective: of the tensors, to be made as great as possible; it may be of another random part of the tasks each
            time it is called.
        enough: asked after every `interval` steps, of copies of the tensors: whether to end here.
        num_steps: at most.

    Returns:
        The tensors that were enough, or the last ones.
    """
    unknown = [value.clone().requires_grad_() for value in start]
    optimiser = torch.optim.Adam([{"params": [value], "lr": rate} for value, rate in zip(unknown, rates, strict=True)])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_steps)
    for step in range(1, num_steps + 1):
        optimiser.zero_grad()
        (-objective(unknown)).backward()
        optimiser.step()
        schedule.step()
        # copies, for the next step changes them in place
        if step % interval == 0 and enough([value.detach().clone() for value in unknown]):
            break
    return [value.detach().clone() for value in unknown]
