"""Exact Bayes on the wheel, for whoever knows its form and not its radius: what every figure is set beside.

The radius is uniform between the farthest context whose right arm paid 1 and the nearest one where it paid 50. One
decision differs from another only by whether the right arm is tried, which costs little where it pays 1, so that the
greatest expected reward explores by itself, and Thompson sampling explores too little.
"""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from bandits.evaluation.environments import Environment, Scene
from bayesmeta.random import rand
from benchmarks.neural_processes.wheel_stream import ARMS, FAR_MEAN, NEAR_MEAN, SAFE_MEAN, Interval, right_arm

__all__ = ["RULES", "Rule", "exact_regret", "uniform_regret"]

Rule = Callable[[Tensor, Generator], Tensor]  # whether to try the right arm, by the probability that it pays 50
IS_FAR = 0.5 * (NEAR_MEAN + FAR_MEAN)  # a reward of more


def _by_mean(share: Tensor, generator: Generator) -> Tensor:
    return NEAR_MEAN + (FAR_MEAN - NEAR_MEAN) * share > SAFE_MEAN


def _by_draw(share: Tensor, generator: Generator) -> Tensor:
    return rand(share.shape, like=share, generator=generator) < share


RULES: dict[str, Rule] = {"exact": _by_mean, "exact_thompson": _by_draw}


def exact_regret(environment: Environment, rounds: int, rule: Rule, *, seed: int = 0) -> Tensor:
    """Regret `(tasks, rounds)` of a learner that starts from delta uniform on (0, 1)."""
    generator = Generator().manual_seed(seed)
    tasks = torch.arange(environment.num_tasks)
    nothing = torch.zeros(len(tasks), dtype=torch.float64)
    interval, regrets = Interval(nothing, nothing + 1.0), []
    for t in range(rounds):
        scene = environment.scene(t)
        radius, right = _seen(scene)
        tries = rule(interval.share_below(radius), generator)
        arm = torch.where(tries, right, 0)
        interval = interval.given(radius, scene.rewards[tasks, arm] > IS_FAR, tries)
        regrets.append(scene.means.amax(-1) - scene.means[tasks, arm])
    return torch.stack(regrets, -1)


def uniform_regret(environment: Environment, rounds: int) -> Tensor:
    """Expected regret `(tasks, rounds)` of any arm at random, in the rounds that the others play."""
    means = [environment.scene(t).means for t in range(rounds)]
    return torch.stack([each.amax(-1) - each.mean(-1) for each in means], -1)


def _seen(scene: Scene) -> tuple[Tensor, Tensor]:
    assert scene.context is not None
    assert scene.means.shape[-1] == ARMS
    return scene.context.double().norm(dim=-1), right_arm(scene.context)
