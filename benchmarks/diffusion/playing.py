"""Bandits on new tasks: Thompson sampling with each prior, on the same tasks and the same luck.

Rewards of a round are a function of the round, whichever policy asks, and each prior plays with the same seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import bandits
from bayesmeta import Data
from bayesmeta.random import randn
from benchmarks.diffusion.environments.maze import path_regret
from benchmarks.diffusion.environments.worlds import NOISE_SD, World
from benchmarks.diffusion.priors import Past, prior_of, with_particles
from benchmarks.diffusion.work import Work, stream

__all__ = ["PLAYING", "Playing", "in_order", "ratio", "regrets"]


MAZE = "maze"  # whose decisions are sets of arms


@dataclass(frozen=True)
class Playing:
    """How much is played.

    Args:
        num_past: past tasks.
        num_tasks: new ones, of which each is played `repeats` times.
        rounds: of each.
        num_particles: of posteriors that have any.
        sizes: numbers of arms, by environment, where they can be chosen.
    """

    num_past: int
    num_tasks: int
    rounds: int
    num_particles: int
    repeats: int
    sizes: dict[str, int]


QUICK_SIZES = {"three_modes": 8, "gaussian": 20, "bidding": 30, "popular_and_niche": 40, "maze": 5}
FULL_SIZES = {"three_modes": 8, "gaussian": 20, "bidding": 100, "popular_and_niche": 200, "maze": 10}
PLAYING = {
    "quick": Playing(400, 20, 40, 64, 1, QUICK_SIZES),
    "full": Playing(5000, 100, 500, 256, 2, FULL_SIZES),
}


class _Rewards:
    """The environment of new tasks: mean rewards and noise."""

    def __init__(self, theta: Tensor, seed: int) -> None:
        self._theta, self._seed = theta, seed
        self.num_tasks, self.arms = len(theta), bandits.Numbered(tuple(range(theta.shape[-1])))

    def scene(self, t: int) -> bandits.Scene:
        noise = randn(self._theta.shape, like=self._theta, generator=stream(41 + self._seed, t))
        return bandits.Scene(self._theta, self._theta + NOISE_SD * noise)


def regrets(method: str, world: World, past: Data, name: str, work: Work) -> Tensor | None:
    """Regret of each new task, in the mean over its repeats; None for `ucb1` in a maze, which it cannot play,
    for `truth` where it is not known, and for `grid` where arms have no places.

    Args:
        past: what is known of past tasks.
        name: of them, among all of the benchmark.
    """
    unknown = {"truth": world.truth, "grid": world.places}
    if (method == "ucb1" and world.name == MAZE) or unknown.get(method, method) is None:
        return None
    playing = PLAYING[work.budget]
    known = Past(f"regret/{name}", past, world.num_arms, world.places)
    prior = world.truth if method == "truth" else prior_of(method, known, work)
    prior = with_particles(prior, playing.num_particles)
    work.say(f"{method} plays {name}")

    def played() -> dict[str, Any]:
        totals = [_total(method, prior, world, known, seed, playing.rounds) for seed in range(playing.repeats)]
        return {"regret": torch.stack(totals).mean(0).tolist()}

    return torch.tensor(work.pieces.numbers(f"regret/{name}/{method}", played)["regret"], dtype=torch.float64)


def _total(method: str, prior: Any, world: World, past: Past, seed: int, rounds: int) -> Tensor:
    if world.name == MAZE:
        return path_regret(prior, world.theta, NOISE_SD, seed, rounds)
    environment = _Rewards(world.theta, seed)
    options: dict[str, Any] = {"tasks": len(world.theta), "seed": seed, "propensities": False}
    if method == "ucb1":
        low, high = past.tasks.y[past.tasks.mask].quantile(torch.tensor([0.05, 0.95]).double()).tolist()
        policy: Any = bandits.UCB1(environment.arms.names, width=high - low, **options)
    else:
        policy = bandits.ThompsonSampling(prior, environment.arms, **options)
    return bandits.simulate(policy, environment, rounds, progress=False).total


def ratio(regret: Tensor, beside: Tensor) -> list[float]:
    """Of mean regrets over tasks, and half of its interval of 95%, by how tasks differ in both."""
    value = regret.mean() / beside.mean()
    influence = (regret - value * beside) / beside.mean()
    return [float(value), 1.96 * float(influence.std()) / math.sqrt(len(regret))]


def in_order(methods: Sequence[str], some: Sequence[str]) -> list[str]:
    """Those of `some` that are asked for, the Gaussian prior first."""
    return sorted((name for name in some if name in methods), key=lambda name: name != "gaussian")
