"""How an amortised proposal learns: steps up the mean log density of parameters, given the rows of their tasks.

That is the least Kullback-Leibler divergence from posteriors to proposals: a proposal that misses a part of a posterior
pays for it, and one that is too wide pays little. A simulator draws new tasks in each step, so there is nothing to
learn by heart. Of past tasks a fifth is left out and says when to stop.

Source: Papamakarios and Murray, Fast epsilon-free inference of simulation models with Bayesian conditional density
estimation (2016); Le, Baydin and Wood, Inference compilation and universal probabilistic programming (2017).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Generator, Tensor

from bayesmeta.amortised.tasks import PastPosteriors, Simulator, Tasks, drawn_tasks, some_of
from bayesmeta.data.samples import random_order
from bayesmeta.doors import require_count
from bayesmeta.networks.learning.ascent import Ascent, Steps
from bayesmeta.networks.learning.checkpoints import Checkpoint
from bayesmeta.networks.learning.progress_line import progress_line
from bayesmeta.networks.learning.until_no_gain import learn_until_no_gain, num_held_out

__all__ = ["ProposalSchedule", "learn_from_past", "learn_from_simulator"]

NUM_INTERVALS = 40  # between looks, in all steps
PATIENCE = 12  # looks in which held-out tasks do not gain
NUM_LOOKS = 1024  # tasks by which those that are held out are looked at, some of them again

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class ProposalSchedule:
    """How an amortised proposal learns.

    Args:
        num_steps: from past tasks at most.
        num_tasks: of a step.
        num_draws: of each of these, from past posteriors.
        rate: the highest.
        average: weight of earlier steps in the average that is learned.

    Raises:
        TypeError: a number is not whole.
        ValueError: a number is below one, the rate is not above zero, or the weight is not from zero to below one.
    """

    num_steps: int = 6000
    num_tasks: int = 256
    num_draws: int = 8
    rate: float = 3e-3
    average: float = 0.995

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_tasks", "num_draws"):
            require_count(name, getattr(self, name))
        if not 0.0 < self.rate < math.inf:
            raise ValueError(f"rate must be finite and above zero; got {self.rate:g}")
        if not 0.0 <= self.average < 1.0:
            raise ValueError(f"average must be a weight from 0 to below 1; got {self.average:g}")

    @property
    def interval(self) -> int:
        return max(1, self.num_steps // NUM_INTERVALS)

    def steps(self) -> Steps:
        """Of the ascent."""
        return Steps(
            self.num_steps, self.rate, warm_up=0.03, longest=10.0, average=self.average, decay=1e-4, in_eigenbases=True
        )


def learn_from_simulator(
    proposal: Any,
    simulate: Simulator,
    schedule: ProposalSchedule,
    generator: Generator,
    checkpoint: Path | None,
    *,
    progress: bool,
) -> Weights:
    """Weights of a network that has seen no task twice."""

    def objective(weights: Weights) -> Tensor:
        tasks = drawn_tasks(simulate, schedule.num_tasks, generator, proposal.num_params)
        return _mean_log_prob(proposal, weights, tasks)

    file = None if checkpoint is None else Checkpoint(checkpoint)
    ascent = Ascent(proposal.network.weights, objective, schedule.steps(), generator=generator, checkpoint=file)
    with progress_line("learning a proposal", shown=progress) as say:

        def look(_: Weights) -> bool:
            say(f"learning a proposal: step {ascent.step}, {ascent.value:.3f} per task")
            return False

        return ascent.run(look, interval=schedule.interval)


def learn_from_past(
    proposal: Any, past: PastPosteriors, schedule: ProposalSchedule, generator: Generator, *, progress: bool
) -> Weights:
    """Weights of a network that has learned from past tasks for as long as was best for those left out."""
    params, rows, mask = past.all()
    order = random_order(len(rows), generator).to(rows.device)
    shuffled = Tasks(params[:, order], rows[order], mask[order])

    def part(which: slice) -> Tasks:
        return Tasks(shuffled.params[:, which], shuffled.rows[which], shuffled.mask[which])

    held_out = some_of(part(slice(num_held_out(len(rows)))), NUM_LOOKS, schedule.num_draws, generator)

    def learn(which: slice, enough: Callable[[Weights], bool]) -> Weights:
        known = part(which)

        def objective(weights: Weights) -> Tensor:
            some = some_of(known, schedule.num_tasks, schedule.num_draws, generator)
            return _mean_log_prob(proposal, weights, some)

        ascent = Ascent(proposal.network.weights, objective, schedule.steps(), generator=generator)
        return ascent.run(enough, interval=schedule.interval)

    def value(weights: Weights) -> float:
        return float(_mean_log_prob(proposal, weights, held_out))

    return learn_until_no_gain(learn, value, len(rows), patience=PATIENCE, name="a proposal", progress=progress)


def _mean_log_prob(proposal: Any, weights: Weights, tasks: Tasks) -> Tensor:
    """Of white parameters, whose density differs by a constant."""
    rows, mask = proposal.standardised(tasks.rows, tasks.mask)
    return proposal.network.at(weights, rows, mask).log_prob(proposal.white(tasks.params)).mean()
