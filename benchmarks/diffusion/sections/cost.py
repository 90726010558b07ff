"""CPU time of a round of Thompson sampling with 200 arms: 100 tasks, 100 particles, 10 levels.

`cold` is a posterior from all rows, by the filter; `warm` an update of particles by a row of each task and a draw, in
the mean over all rounds; `no_rerun` the same where no task had to be looked at anew; `early` and `late` are means over
rounds about a tenth of the way, and over the last ones. The prior learned from tasks of popular and niche arms.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesmeta.random import randn
from benchmarks.diffusion.environments.popular_and_niche import NOISE_SD, popular_and_niche
from benchmarks.diffusion.priors import Past, prior_of, with_particles
from benchmarks.diffusion.truths import all_arms, rows_by_count
from benchmarks.diffusion.work import Work, as_figures, as_table, stream
from benchmarks.kept import Rows
from benchmarks.report import Figure

__all__ = ["BUDGETS", "CostBudget", "cost", "shown"]

NUM_PARTICLES, MEASURED = 100, 4  # particles; rounds of an early and a late mean


@dataclass(frozen=True)
class CostBudget:
    """Arms, past tasks, tasks and rounds."""

    num_arms: int
    num_past: int
    num_tasks: int
    rounds: int


BUDGETS = {"quick": CostBudget(200, 100, 100, 8), "full": CostBudget(200, 1000, 100, 500)}
NAMES = {
    "cold": "round_cpu_s/{arms}",
    "warm": "round_cpu_s_warm/{arms}",
    "no_rerun": "round_cpu_s_no_rerun/{arms}",
    "early": "round_cpu_s_early/{arms}",
    "late": "round_cpu_s_late/{arms}",
    "reruns": "reruns/{arms}",
}
MEANINGS = {
    "cold": "CPU-seconds of all tasks, by the filter",
    "warm": "CPU-seconds of all tasks, of an update and a draw",
    "no_rerun": "the same where no task was looked at anew",
    "early": "the same, a tenth of the way",
    "late": "the same, in the last rounds",
    "reruns": "looks anew of a task, in all rounds",
}

shown = as_table("CPU-seconds of a round")


def cost(work: Work) -> tuple[list[Figure], Rows]:
    """`round_cpu_s/<K>` and its parts."""
    if "diffusion" not in work.methods:
        return [], []
    budget = BUDGETS[work.budget]
    theta = popular_and_niche(budget.num_past, budget.num_arms, stream(21))
    tasks = rows_by_count(theta, torch.full(theta.shape, 2), NOISE_SD, stream(22))
    past = Past(f"cost/{budget.num_arms}", tasks, budget.num_arms)
    prior = with_particles(prior_of("diffusion", past, work), NUM_PARTICLES)
    work.say(f"rounds of {budget.num_arms} arms")
    found = work.pieces.numbers(f"cost/{budget.num_arms}", lambda: _measured(prior, budget))
    rows: Rows = [{"arms": budget.num_arms, **found}]
    return as_figures(rows, NAMES, MEANINGS), rows


def _measured(prior: Any, budget: CostBudget) -> dict[str, Any]:
    theta = popular_and_niche(budget.num_tasks, budget.num_arms, stream(23))
    seconds, reruns = (torch.tensor(each).double() for each in zip(*_rounds(prior, theta, budget.rounds), strict=True))
    without = seconds[reruns == 0]
    tenth = budget.rounds // 10
    return {
        "cold": _cold(prior, theta),
        "warm": float(seconds.mean()),
        "no_rerun": float(without.mean()) if len(without) else None,
        "early": float(seconds[tenth : tenth + MEASURED].mean()),
        "late": float(seconds[-MEASURED:].mean()),
        "reruns": float(reruns.sum() / budget.num_tasks),
    }


def _cold(prior: Any, theta: Tensor) -> float:
    """Of a posterior of ten rows of each task."""
    count = torch.zeros_like(theta).long()
    count[:, :10] = 1
    rows = rows_by_count(theta, count, NOISE_SD, stream(24))
    prior.condition(rows[:1]).sample_params(1, generator=stream(25))  # what is computed once for all tasks
    start = time.process_time()
    prior.condition(rows).sample_params(1, generator=stream(25))
    return time.process_time() - start


def _rounds(prior: Any, theta: Tensor, rounds: int) -> Iterator[tuple[float, int]]:
    """CPU-seconds of each round, and how many tasks were looked at anew."""
    num_tasks, k = theta.shape
    online, every = prior.online((num_tasks,)), torch.arange(num_tasks)
    arms, generator = all_arms(k).expand(num_tasks, -1, -1), stream(26)
    for _ in range(rounds):
        before, start = online.num_reruns.sum(), time.process_time()
        arm = online.draw(arms, generator=generator).argmax(-1)
        reward = theta[every, arm] + NOISE_SD * randn((num_tasks,), like=theta, generator=generator)
        online.add((every,), arm[:, None].to(theta), reward)
        yield time.process_time() - start, int(online.num_reruns.sum() - before)
