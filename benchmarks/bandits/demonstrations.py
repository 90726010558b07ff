"""Ten demonstrations by an expert of unknown competence: used, used for their rewards only, and ignored.

Twelve arms with four features, rewards of standard deviation two. The expert knows the weights and acts on them by
beta: at random for 0, almost always best for 20.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.progress import track
from torch import Generator, Tensor

import bandits
from bayesmeta import Data, LinearGaussian
from benchmarks.report import Figure

__all__ = ["BUDGETS", "demonstrations"]

BUDGETS = {"quick": 4, "full": 100}
BETAS = (0.0, 1.0, 3.0, 20.0)
ARMS, INPUTS, SHOWN, ROUNDS, NOISE_SD = 12, 4, 10, 40, 2.0

Maker = Callable[[Tensor, Tensor, Tensor, Generator], Any]


def demonstrations(tasks: int) -> Iterator[Figure]:
    """`regret/demonstrations/<informed|rewards|ignored>_<beta>`."""
    eye = torch.eye(INPUTS, dtype=torch.float64)
    plain = LinearGaussian(torch.zeros(INPUTS, dtype=torch.float64), eye, torch.tensor(NOISE_SD**2).double())
    makers: dict[str, Maker] = {
        "informed": lambda x, arm, y, g: bandits.informed_prior(plain, x, arm, y, num_draws=100, generator=g),
        "rewards": lambda x, arm, y, g: plain.condition(Data.of(x[arm], y)),
        "ignored": lambda x, arm, y, g: plain,
    }
    for beta in track(BETAS, description="demonstrations"):
        for name, make in makers.items():
            regrets = torch.tensor([_regret(make, beta, task) for task in range(tasks)])
            error = float(regrets.std()) / math.sqrt(tasks)
            meaning = f"{ROUNDS} rounds, {tasks} tasks, standard error {error:.2g}"
            yield Figure(f"regret/demonstrations/{name}_{beta:g}", float(regrets.mean()), meaning)


def _regret(make: Maker, beta: float, task: int) -> float:
    generator = Generator().manual_seed(task)
    features = torch.randn(ARMS, INPUTS, generator=generator).double()
    means = features @ torch.randn(INPUTS, generator=generator).double()
    chosen = torch.multinomial((beta * means).softmax(0), SHOWN, replacement=True, generator=generator)
    rewards = means[chosen] + NOISE_SD * torch.randn(SHOWN, generator=generator).double()
    noise = NOISE_SD * torch.randn(ROUNDS, generator=generator).double()
    arms = bandits.Joined(tuple(range(ARMS)), features)
    prior = make(features, chosen, rewards, generator)
    policy = bandits.ThompsonSampling(prior, arms, seed=task, propensities=False)
    regret = 0.0
    for t in range(ROUNDS):
        choice = policy.choose()
        mean = means[int(str(choice.arm))]
        regret += float(means.max() - mean)
        policy.update(choice, float(mean + noise[t]))
    return regret
