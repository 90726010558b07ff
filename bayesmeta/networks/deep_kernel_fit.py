"""Learning a deep kernel from past tasks, by the evidence of small random parts of them.

A step takes some tasks, some rows of each, and climbs the mean evidence per row of the Gaussian process on the features
of these rows. Gradients pass through its Cholesky factor into the network. A part is about as large as what a new task
will have shown, and is another one in every step.

The variances and the level of the Gaussian process start where the evidence on the untrained features is greatest, and
have a rate of their own: a network that is stopped early must not leave the noise where it was guessed.

Steps are those of `bayesmeta.networks.learning.ascent`. When learning ends, and that it is made again over all tasks,
is the loop of `bayesmeta.networks.learning.until_no_gain`.

Source: Wistuba and Grabocka, Few-shot Bayesian optimization with deep kernel surrogates (2021), algorithm 1.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.samples import some_rows, some_tasks
from bayesmeta.networks.learning.ascent import Ascent, Steps
from bayesmeta.networks.learning.until_no_gain import learn_until_no_gain, num_held_out

__all__ = ["meta_train"]

Evidence = Callable[[Sequence[Tensor], Data], Tensor]  # of tensors, and of tasks

NUM_TASKS, NUM_ROWS = 16, 64  # of a step, at most
NUM_STEPS, INTERVAL = 500, 10  # at most, and between looks at held-out tasks
RATE, SCALE_RATE = 2e-3, 2e-2  # of the first step: of the network, and of the logarithms of variances
NUM_START, MAX_START = 40, 4.0  # steps of L-BFGS to where these start, and how far that may be, at most
NUM_PARTS = 4  # of each held-out task, by which learning is judged
SCALES = "scales"  # among the tensors, of which the others have numbers
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
    shuffled = some_tasks(tasks, len(tasks), generator)
    held_out = shuffled[: num_held_out(len(tasks))]
    held_out = some_rows(held_out[torch.arange(len(held_out)).repeat_interleave(NUM_PARTS)], NUM_ROWS, generator)

    def learn(part: slice, enough: Callable[[list[Tensor]], bool]) -> list[Tensor]:
        return _climb(network, evidence, shuffled[part], generator, enough)

    def value(learned: list[Tensor]) -> float:
        return _evidence_per_row(evidence, learned, held_out).item()

    return learn_until_no_gain(learn, value, len(tasks), patience=PATIENCE, name="a deep kernel", progress=progress)


def _climb(
    network: Sequence[Tensor],
    evidence: Evidence,
    tasks: Data,
    generator: Generator,
    enough: Callable[[list[Tensor]], bool],
) -> list[Tensor]:
    def objective(values: Mapping[str, Tensor]) -> Tensor:
        part = some_rows(some_tasks(tasks, NUM_TASKS, generator), NUM_ROWS, generator)
        return _evidence_per_row(evidence, list(values.values()), part)

    start = {str(place): value for place, value in enumerate(network)}
    steps = Steps(NUM_STEPS, {**dict.fromkeys(start, RATE), SCALES: SCALE_RATE})
    ascent = Ascent({**start, SCALES: _best_scales(network, evidence, tasks, generator)}, objective, steps)
    return list(ascent.run(lambda learned: enough(list(learned.values())), interval=INTERVAL).values())


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
