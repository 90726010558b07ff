"""A past that helps, and one that misleads: rewards permuted within each past task, so that arms look alike.

Twenty arms whose means differ by a slope that tasks share, and a factor of their own. Thompson sampling from the
learned prior alone, from a vague one, and from `Hypotheses` of both, which is what to use where the past may not apply.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

import bandits
from bayesmeta import CorrelatedArms, Data
from benchmarks.report import Figure

__all__ = ["BUDGETS", "RobustBudget", "robust"]

ARMS, SEEN = 20, 5


@dataclass(frozen=True)
class RobustBudget:
    """Past and new tasks, and rounds of these."""

    past: int
    new: int
    rounds: int


BUDGETS = {"quick": RobustBudget(100, 40, 60), "full": RobustBudget(500, 400, 300)}


def robust(budget: RobustBudget) -> Iterator[Figure]:
    """`regret/robust/<policy>`; `permuted_*` have learned from permuted rewards."""
    generator = Generator().manual_seed(0)
    past = _observed(_means(budget.past, generator), generator)
    order = torch.rand(past.y.shape, generator=generator).argsort(-1)
    permuted = Data(past.x, past.y.gather(1, order), past.mask)
    rewards = past.y
    half = rewards.var() / 2.0
    vague = CorrelatedArms(
        torch.full((ARMS,), float(rewards.mean())).double(), half.sqrt() * torch.eye(ARMS).double(), half
    )
    learned, misled = (CorrelatedArms.initial(data).fit(data) for data in (past, permuted))
    new = _means(budget.new, generator)
    priors: dict[str, Any] = {
        "vague": vague,
        "learned": learned,
        "learned_or_vague": bandits.Hypotheses.of([learned, vague]),
        "permuted": misled,
        "permuted_or_vague": bandits.Hypotheses.of([misled, vague]),
    }
    regrets = {name: _regret(prior, new, budget.rounds) for name, prior in priors.items()}
    for name, regret in regrets.items():
        error = float(regret.std()) / math.sqrt(len(regret))
        yield Figure(
            f"regret/robust/{name}", float(regret.mean()), f"{budget.rounds} rounds, standard error {error:.2g}"
        )
        ratio = float(regret.mean() / regrets["vague"].mean())
        yield Figure(f"regret_ratio/robust/{name}", ratio, "to vague")


def _means(tasks: int, generator: Generator) -> Tensor:
    slope = torch.linspace(-1, 1, ARMS).double()
    factor = torch.randn(tasks, 1, generator=generator).double()
    return slope + slope * factor + 0.3 * torch.randn(tasks, ARMS, generator=generator).double()


def _observed(means: Tensor, generator: Generator) -> Data:
    """A few rewards of every arm of each past task."""
    arm = torch.arange(ARMS).double().repeat(SEEN)[:, None].expand(len(means), ARMS * SEEN, 1)
    rewards = means.repeat(1, SEEN) + torch.randn(len(means), ARMS * SEEN, generator=generator).double()
    return Data(arm, rewards, torch.ones(rewards.shape, dtype=torch.bool))


def _regret(prior: Any, means: Tensor, rounds: int) -> Tensor:
    policy = bandits.ThompsonSampling(prior, range(ARMS), tasks=len(means), seed=0, propensities=False)
    environment = _Noisy(means)
    return bandits.simulate(policy, environment, rounds).total


class _Noisy(bandits.TableReplay):
    """A table of means, and rewards about them."""

    def scene(self, t: int) -> bandits.Scene:
        scene = super().scene(t)
        noise = torch.randn(scene.means.shape, generator=Generator().manual_seed(t)).double()
        return bandits.Scene(scene.means, scene.means + noise, None, scene.available)
