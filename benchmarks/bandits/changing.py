"""Two Bernoulli arms that change places every 200 rounds: policies that expect change, and one that does not."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

import bandits
from bayesmeta import BetaBernoulli
from benchmarks.report import Figure

__all__ = ["BUDGETS", "ChangingBudget", "changing"]

EVERY = 200
GOOD, POOR = 0.8, 0.2


@dataclass(frozen=True)
class ChangingBudget:
    """Tasks, and rounds of each."""

    tasks: int
    rounds: int


BUDGETS = {"quick": ChangingBudget(40, 600), "full": ChangingBudget(400, 2000)}


def changing(budget: ChangingBudget) -> Iterator[Figure]:
    """`regret/changing/<still|forgetting|window|change_points>` of Thompson sampling."""
    ones = BetaBernoulli(torch.tensor(1.0), torch.tensor(1.0))
    priors: dict[str, Any] = {
        "still": ones,
        "forgetting": bandits.Forgetting(ones, 0.97),
        "window": bandits.SlidingWindow(ones, 60),
        "change_points": bandits.ChangePoints(ones, 12),
    }
    environment = _Turning(budget.tasks)
    for name, prior in priors.items():
        policy = bandits.ThompsonSampling(prior, range(2), tasks=budget.tasks, seed=0, propensities=False)
        total = bandits.simulate(policy, environment, budget.rounds).total
        error = float(total.std()) / math.sqrt(len(total))
        yield Figure(
            f"regret/changing/{name}", float(total.mean()), f"{budget.rounds} rounds, standard error {error:.2g}"
        )


class _Turning:
    """The environment."""

    def __init__(self, tasks: int) -> None:
        self.num_tasks, self.arms = tasks, bandits.Separate((0, 1))

    def scene(self, t: int) -> bandits.Scene:
        means = torch.full((self.num_tasks, 2), POOR)
        means[:, (t // EVERY) % 2] = GOOD
        uniform = torch.rand(means.shape, generator=torch.Generator().manual_seed(t))
        return bandits.Scene(means, (uniform < means).float())
