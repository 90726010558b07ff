"""Do a policy's intervals cover, though it chose which rewards it saw? New tasks of families whose model is true.

A prior is learned from past tasks by plain empirical Bayes, Thompson sampling plays the new ones from it, and then one
arm of each task, taken at random, has a 90% interval of its expected reward.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.progress import track
from torch import Generator, Tensor

import bandits
from bayesmeta import Data
from bayesmeta.random import rand, seeded
from benchmarks.priors.coverage import LEVEL, NUM_DRAWS, SIMULATIONS, Simulation, simulate
from benchmarks.report import Figure

__all__ = ["BUDGETS", "CoverageBudget", "coverage"]

ROUNDS = 15
ARMS = 3
F64 = torch.zeros((), dtype=torch.float64)
FAMILIES = [
    "beta_bernoulli",
    "gamma_poisson",
    "gamma_exponential",
    "normal_known_variance",
    "normal_inverse_gamma",
    "linear_gaussian",
    "linear_normal_inverse_gamma",
    "correlated_arms",
    "logistic_gaussian",
    "poisson_gaussian",
]


@dataclass(frozen=True)
class CoverageBudget:
    """Past tasks and new ones, and replications of both, each with hyperparameters of its own."""

    past: int
    new: int
    replications: int


BUDGETS = {"quick": CoverageBudget(200, 200, 1), "full": CoverageBudget(2000, 2000, 5)}


def coverage(budget: CoverageBudget) -> Iterator[Figure]:
    """`coverage/<family>`: the share of new tasks whose expected reward lies in its interval."""
    for i, family in track(list(enumerate(FAMILIES)), description="coverage"):
        generators = [Generator().manual_seed(1000 * i + r) for r in range(budget.replications)]
        shares = [_share(_simulation(family), budget, generator) for generator in generators]
        meaning = f"of 90% intervals, {budget.replications} times {budget.new} new tasks"
        yield Figure(f"coverage/{family}", sum(shares) / len(shares), meaning)


def _simulation(family: str) -> Simulation:
    """Rewards of an arm have one variance."""
    simulation = SIMULATIONS[family]
    return replace(simulation, draw_x=_nothing) if family == "normal_known_variance" else simulation


def _nothing(shape: tuple[int, int], generator: Generator) -> Tensor:
    return F64.new_zeros(*shape, 0)


def _share(simulation: Simulation, budget: CoverageBudget, generator: Generator) -> float:
    truth = simulation.draw_prior(generator)
    past, _ = simulate(simulation, truth, budget.past, simulation.num_rows, generator)
    prior = type(truth).initial(past).fit(past, hyperprior_weight=0.0)  # past tasks are many
    by_number = getattr(truth, "num_arms", None)
    functions = _tasks(truth, budget.new, by_number, past.x.shape[-1], generator)
    arms = by_number or ARMS
    policy = bandits.ThompsonSampling(prior, range(arms), tasks=budget.new, seed=0, propensities=False)
    for _ in range(ROUNDS):
        context, x = _rows(simulation, budget.new, by_number, generator)
        choices = policy.choose(context)
        with seeded(generator):
            rewards = functions.predict(x).sample()[0].reshape(budget.new, arms)
        policy.update(choices, rewards[torch.arange(budget.new), choices.arm])
    _, x = _rows(simulation, budget.new, by_number, generator)
    truths = functions(x)[0].reshape(budget.new, arms)
    draws = policy.posterior().sample(NUM_DRAWS, generator=generator)(x).reshape(NUM_DRAWS, budget.new, arms)
    return float(_inside(draws, truths, generator))


def _tasks(truth: Any, num: int, by_number: int | None, num_inputs: int, generator: Generator) -> Any:
    """What is true of each task, or of each arm of each."""
    batch = (num,) if by_number else (num, ARMS)
    nothing = Data(F64.new_zeros(*batch, 0, num_inputs), F64.new_zeros(*batch, 0), torch.ones(*batch, 0).bool())
    return truth.condition(nothing).sample(1, generator=generator)


def _rows(
    simulation: Simulation, num: int, by_number: int | None, generator: Generator
) -> tuple[Tensor | None, Tensor]:
    """A context of each task, and what it makes the rows of the arms."""
    if by_number:
        return None, torch.arange(float(by_number), dtype=torch.float64)[:, None].expand(num, -1, 1)
    context = simulation.draw_x((num, 1), generator)
    rows = context[:, None].expand(num, ARMS, 1, context.shape[-1])
    return (context[:, 0] if context.shape[-1] else None), rows


def _inside(draws: Tensor, truths: Tensor, generator: Generator) -> Tensor:
    """The share of tasks whose truth lies in the central 90% of the draws `(draws, tasks, arms)` of one arm."""
    num = truths.shape[0]
    arm = (truths.shape[1] * rand((num,), like=F64, generator=generator)).long()
    every = torch.arange(num)
    below = (draws[:, every, arm] < truths[every, arm]).sum(0)
    rank = (below + rand((num,), like=F64, generator=generator)) / (NUM_DRAWS + 1)
    return ((rank - 0.5).abs() < 0.5 * LEVEL).double().mean()
