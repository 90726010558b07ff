"""Two Bernoulli arms: what policies gain, exactly, and what the library's gain in simulation."""

from collections.abc import Iterator

import torch

import bandits
from bandits.evaluation.bayes_optimal import greedy, thompson, ucb1
from bayesmeta import BetaBernoulli
from benchmarks.report import Figure

__all__ = ["exact"]

ROUNDS, TASKS = 50, 4000


def exact() -> Iterator[Figure]:
    """`reward/two_coins/<policy>` of 50 rounds, and `reward/two_coins_played/<policy>` by simulation."""
    yield Figure("reward/two_coins/bayes_optimal", bandits.bayes_optimal_value(ROUNDS), f"of {ROUNDS} rounds, exact")
    for name, choose in (("thompson", thompson), ("ucb1", ucb1), ("greedy", greedy)):
        yield Figure(f"reward/two_coins/{name}", bandits.expected_reward(choose, ROUNDS), "exact")
    ones = BetaBernoulli(torch.tensor(1.0), torch.tensor(1.0))
    environment = bandits.FromPrior(ones, range(2), TASKS, seed=0)
    policies = {
        "thompson": bandits.ThompsonSampling(ones, range(2), tasks=TASKS, seed=0, propensities=False),
        "ucb1": bandits.UCB1(range(2), tasks=TASKS, seed=0, propensities=False),
        "bayes_ucb": bandits.BayesUCB(ones, range(2), tasks=TASKS, seed=0, propensities=False),
    }
    for name, policy in policies.items():
        total = bandits.simulate(policy, environment, ROUNDS).rewards.sum(-1)
        yield Figure(f"reward/two_coins_played/{name}", float(total.mean()), f"{TASKS} tasks")
