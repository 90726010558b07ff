"""Where theta is of three kinds: how far posteriors are from the exact one, which is a mixture of three Gaussians.

After 1, 3 and 10 rows of random arms, noise .3. Of draws of a posterior, against the exact one:

- `mode_weight_error`: the largest error of the weight of a mode, and `mode_weight_bias` that of the heaviest mode, in
  the mean over tasks whose heaviest mode has a weight below .9.
- `energy`: energy distance, in units of the spread of exact draws.
- `coverage`: share of arms whose mean reward is within the interval of 90%.
- `evidence_error`: median of |log p(y) - exact|, in nats.

`exact` are as many draws of the exact posterior: what is left of an error when there is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesmeta import Data, Mixture
from bayesmeta.random import randint
from benchmarks.diffusion.distances import energy_distance
from benchmarks.diffusion.priors import APPROXIMATE, Past, minutes_of, prior_of, with_particles
from benchmarks.diffusion.truths import all_arms, counts_of, rows_by_count, three_modes
from benchmarks.diffusion.work import Work, as_figures, as_table, interval, stream
from benchmarks.kept import Rows
from benchmarks.report import Figure

__all__ = ["BUDGETS", "MixtureBudget", "mixture", "mode_weights", "shown"]

NUM_ARMS, NOISE_SD, NUM_ROWS = 8, 0.3, (1, 3, 10)
PIECE = 50  # tasks at a time
AMBIGUOUS = 0.9
METHODS = ("diffusion", *APPROXIMATE, "gaussian", "mixture")


@dataclass(frozen=True)
class MixtureBudget:
    """Past and new tasks; particles of a posterior, draws that are looked at, and those whose distances are."""

    num_past: int
    num_tasks: int
    num_particles: int = 1000
    num_draws: int = 1000
    num_apart: int = 250


BUDGETS = {"quick": MixtureBudget(1000, 150), "full": MixtureBudget(5000, 2000)}
NAMES = {
    "mode_weight_error": "mode_weight_error/{rows}/{method}",
    "mode_weight_bias": "mode_weight_bias/{rows}/{method}",
    "energy": "energy/{rows}/{method}",
    "coverage": "coverage/{rows}/{method}",
    "evidence_error": "evidence_error/{rows}/{method}",
    "minutes": "train_cpu_min/mixture/{method}",
}
MEANINGS = {
    "mode_weight_error": "largest error of a mode's weight, ambiguous tasks",
    "mode_weight_bias": "error of the heaviest mode's weight, ambiguous tasks",
    "energy": "energy distance to the exact posterior",
    "coverage": "of intervals of 90%",
    "evidence_error": "median, in nats",
    "minutes": "CPU-minutes of learning",
}
SAID_AS = {"diffusion": "default"}  # names of samplers in figures

shown = as_table("three kinds of tasks, beside the exact posterior")


def mixture(work: Work) -> tuple[list[Figure], Rows]:
    """`mode_weight_error/<rows>/<sampler>` and the others, `default` being the diffusion prior's own sampler."""
    budget = BUDGETS[work.budget]
    truth = three_modes(NUM_ARMS, NOISE_SD, stream(1))
    theta = _theta(truth, budget.num_past, 2)
    twice = torch.full((budget.num_past, NUM_ARMS), 2)
    past = Past("mixture/three_modes", rows_by_count(theta, twice, NOISE_SD, stream(3)), NUM_ARMS)
    rows: Rows = []
    for num in NUM_ROWS:
        for method in ("exact", *(name for name in METHODS if name in work.methods)):
            prior = truth if method == "exact" else prior_of(method, past, work)
            work.say(f"three modes, {num} rows: {method}")
            name = SAID_AS.get(method, method)
            found = work.pieces.numbers(
                f"mixture/{num}/{method}", lambda prior=prior, num=num: _measured(prior, truth, num, budget)
            )
            minutes = None if method == "exact" else minutes_of(method, past, work)
            rows.append({"rows": num, "method": name, **found, "minutes": minutes})
    return as_figures(rows, NAMES, MEANINGS), rows


def _theta(truth: Mixture, num: int, number: int) -> Tensor:
    return truth.sample(num, generator=stream(number))(all_arms(NUM_ARMS))


def _measured(prior: Any, truth: Mixture, num_rows: int, budget: MixtureBudget) -> dict[str, Any]:
    """Of one method after so many rows."""
    prior = with_particles(prior, budget.num_particles)
    parts = [_of_tasks(prior, truth, *part, budget) for part in _tasks(truth, num_rows, budget.num_tasks)]
    error, weights, energy, covered, evidence = (torch.cat(each) for each in zip(*parts, strict=True))
    ambiguous = weights.amax(-1) < AMBIGUOUS
    heaviest = error.gather(-1, weights.argmax(-1, keepdim=True))[:, 0]
    return {
        "mode_weight_error": interval(error.abs().amax(-1)[ambiguous]),
        "mode_weight_bias": interval(heaviest[ambiguous]),
        "energy": interval(energy),
        "coverage": interval(covered),
        "evidence_error": None if evidence.isnan().any() else float(evidence.abs().median()),
    }


def _tasks(truth: Mixture, num_rows: int, num_tasks: int) -> Iterator[tuple[Tensor, Data]]:
    """Mean rewards, and rows of random arms, the same for every method."""
    for i in range(0, num_tasks, PIECE):
        num = min(PIECE, num_tasks - i)
        generator = stream(4, num_rows, i // PIECE)
        theta = truth.sample(num, generator=generator)(all_arms(NUM_ARMS))
        arm = randint(NUM_ARMS, (num, num_rows), generator=generator)
        yield theta, rows_by_count(theta, counts_of(arm, NUM_ARMS), NOISE_SD, generator)


def _of_tasks(prior: Any, truth: Mixture, theta: Tensor, data: Data, budget: MixtureBudget) -> tuple[Tensor, ...]:
    """Errors of weights and exact weights `(tasks, 3)`, energies, coverage and errors of evidence `(tasks,)`."""
    arms = all_arms(NUM_ARMS)
    exact = truth.condition(data)
    drawn = prior.condition(data).sample(budget.num_draws, generator=stream(5))(arms).double()
    reference = exact.sample(budget.num_apart, generator=stream(6))(arms)
    low, high = drawn.quantile(torch.tensor([0.05, 0.95]).double(), 0)
    covered = ((theta >= low) & (theta <= high)).double().mean(-1)
    error = mode_weights(truth, drawn) - exact.weights
    if getattr(prior, "is_approximate", False):
        evidence = torch.full_like(covered, torch.nan)  # it has none
    else:
        evidence = prior.log_evidence(data) - truth.log_evidence(data)
    return error, exact.weights, energy_distance(drawn[: budget.num_apart], reference), covered, evidence


def mode_weights(truth: Mixture, draws: Tensor) -> Tensor:
    """How probable modes are for who knows theta, in the mean over draws `(n, tasks, k)`: `(tasks, 3)`."""
    components: Any = truth.components
    each = components.log_prob(draws[..., None, :])
    return (each + truth.log_weights).softmax(-1).mean(0)
