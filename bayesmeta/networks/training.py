"""Learning a deep kernel from past tasks, by the evidence of small random parts of them.

A step takes some tasks, some rows of each, and climbs the mean evidence per row of the Gaussian process on the features
of these rows. Gradients pass through its Cholesky factor into the network. A part is about as large as what a new task
will have shown, and is another one in every step.

The variances and the level of the Gaussian process start where the evidence on the untrained features is greatest, and
have a rate of their own: a network that is stopped early must not leave the noise where it was guessed.

A network can tell a few past tasks apart by heart. So a fifth of the tasks is held out, learning ends when these no
longer gain, and is made again over all tasks for as many steps as the first took to its best.

Sources: Wistuba and Grabocka, Few-shot Bayesian optimization with deep kernel surrogates (2021), algorithm 1; Kingma
and Ba, Adam (2015); Loshchilov and Hutter, SGDR (2017), for rates that fall along a cosine.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.samples import random_order, some_rows, some_tasks

__all__ = ["meta_train"]

Evidence = Callable[[Sequence[Tensor], Data], Tensor]  # of tensors, and of tasks

NUM_TASKS, NUM_ROWS = 16, 64  # of a step, at most
NUM_STEPS, INTERVAL = 500, 10  # at most, and between looks at held-out tasks
RATE, SCALE_RATE = 2e-3, 2e-2  # of the first step: of the network, and of the logarithms of variances
NUM_START, MAX_START = 40, 4.0  # steps of L-BFGS to where these start, and how far that may be, at most
HELD_OUT = 0.2  # of the tasks
NUM_PARTS = 4  # of each held-out task, by which learning is judged
PATIENCE = 10  # looks at held-out tasks in which they do not gain


def meta_train(
    network: Sequence[Tensor], evidence: Evidence, tasks: Data, generator: Generator, *, progress: bool
) -> list[Tensor]:
    """Learn from tasks with rows, in float64.

    Args:
        network: its tensors where learning starts.
        evidence: log evidence of tasks, given the network's tensors and the scales `(3,)`: logarithms of the factors of
            both variances, and how far the level is moved.

    Returns:
        The network's tensors and the scales.
    """
    order = random_order(len(tasks.mask), generator)
    num_held = max(round(HELD_OUT * len(order)), 1)
    held = some_rows(tasks[order[:num_held].repeat_interleave(NUM_PARTS)], NUM_ROWS, generator)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, disable=not progress, transient=True) as screen:
        bar = screen.add_task("learning a deep kernel", total=None)
        best, best_at = -math.inf, 0
        for at, learned in enumerate(_climb(network, evidence, tasks[order[num_held:]], generator), 1):
            value = _evidence_per_row(evidence, learned, held).item()
            if value > best:
                best, best_at = value, at
            screen.update(bar, description=f"learning a deep kernel: {best:.3f} per row of held-out tasks")
            if at - best_at >= PATIENCE:
                break
        screen.update(bar, description="learning a deep kernel from all tasks")
        return next(islice(_climb(network, evidence, tasks, generator), best_at - 1, None))


def _climb(network: Sequence[Tensor], evidence: Evidence, tasks: Data, generator: Generator) -> Iterator[list[Tensor]]:
    """What was learned after every `INTERVAL` steps."""
    origin = [*network, _best_scales(network, evidence, tasks, generator)]
    unknown = [value.clone().requires_grad_() for value in origin]
    rates = [{"params": unknown[:-1], "lr": RATE}, {"params": unknown[-1:], "lr": SCALE_RATE}]
    optimiser = torch.optim.Adam(rates)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, NUM_STEPS)
    for step in range(1, NUM_STEPS + 1):
        part = some_rows(some_tasks(tasks, NUM_TASKS, generator), NUM_ROWS, generator)
        optimiser.zero_grad()
        (-_evidence_per_row(evidence, unknown, part)).backward()
        optimiser.step()
        schedule.step()
        if step % INTERVAL == 0:
            # copies, for the next step changes them in place
            yield [value.detach().clone() for value in unknown]


def _best_scales(network: Sequence[Tensor], evidence: Evidence, tasks: Data, generator: Generator) -> Tensor:
    """`(3,)`, those with the greatest evidence on the untrained features, within limits: rows may have no noise."""
    rows = some_rows(some_tasks(tasks, 2 * NUM_TASKS, generator), NUM_ROWS, generator)
    unlimited = torch.zeros(3).to(network[0]).requires_grad_()
    optimiser = torch.optim.LBFGS([unlimited], max_iter=NUM_START, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -evidence([*network, MAX_START * unlimited.tanh()], rows).sum() / rows.mask.sum()
        value.backward()
        return value

    optimiser.step(loss)
    return MAX_START * unlimited.detach().tanh()


def _evidence_per_row(evidence: Evidence, values: Sequence[Tensor], tasks: Data) -> Tensor:
    return evidence(values, tasks).sum() / tasks.mask.sum()
