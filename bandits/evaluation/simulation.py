"""Playing a policy in an environment, all tasks at once."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bandits.decisions.policy import Policy
from bandits.evaluation.environments import Environment, Scene
from bayesmeta.describe import Described
from bayesmeta.doors import counted
from bayesmeta.progress import tracked

__all__ = ["Run", "compare", "simulate"]

SLOW = 20_000  # decisions, from where there is a progress bar


@dataclass(frozen=True, eq=False)
class Run(Described):
    """What happened, `(tasks, rounds)` each.

    Args:
        regret: expected reward of the best available arm less that of the chosen one. Where no arm is shown twice, the
            best reward of round t is the t-th best of all, so that the sum is what the best order would have gained.
        rewards: that were obtained.
        arms: positions of those chosen.
    """

    regret: Tensor
    rewards: Tensor
    arms: Tensor

    @property
    def cumulative(self) -> Tensor:
        """Regret up to each round, `(tasks, rounds)`."""
        return self.regret.cumsum(-1)

    @property
    def total(self) -> Tensor:
        """Regret of each task, `(tasks,)`."""
        return self.regret.sum(-1)


@counted(rounds=1, delay=0)
def simulate(
    policy: Policy,
    environment: Environment,
    rounds: int,
    *,
    delay: int = 0,
    repeats: bool = True,
    progress: bool = True,
) -> Run:
    """Play `rounds` rounds of every task.

    Args:
        policy: for as many tasks as the environment has, over its arms.
        delay: rounds that go by before a reward is known; those of the last rounds are not known in time.
        repeats: whether an arm can be shown to a task more than once.
        progress: show a bar where it takes longer than a moment.

    Raises:
        ValueError: the policy has other tasks or arms than the environment, or a task runs out of arms.
    """
    tasks, arms = environment.num_tasks, len(environment.arms.names)
    if policy.num_tasks != tasks or len(policy.arms) != arms:
        raise ValueError(
            f"the policy must have {tasks} tasks and {arms} arms; it has {policy.num_tasks} and {len(policy.arms)}"
        )
    every, waiting = torch.arange(tasks), deque[tuple[Any, Tensor]]()
    asked = every if tasks == 1 else None  # of all tasks, which need not be named then
    shown = torch.zeros(tasks, arms, dtype=torch.bool)
    records: list[tuple[Tensor, Tensor, Tensor]] = []
    shows = progress and tasks * rounds >= SLOW
    for t in tracked(range(rounds), "rounds", shown=shows):
        scene = environment.scene(t)
        left = _left(scene, None if repeats else shown, t)
        choices = policy.choose(scene.context, task=asked, available=left)
        waiting.append((choices, scene.rewards[every, choices.arm]))
        best = _best(scene, None if repeats else t)
        records.append((best - scene.means[every, choices.arm], waiting[-1][1], choices.arm))
        shown[every, choices.arm] = True
        if len(waiting) > delay:
            policy.update(*waiting.popleft())
    return Run(*(torch.stack(part, -1) for part in zip(*records, strict=True)))


def compare(
    policies: Mapping[str, Callable[[Environment], Policy]], environment: Environment, rounds: int, **options: Any
) -> dict[str, Run]:
    """The same rounds of the same tasks for each policy.

    Args:
        policies: by name, each made for the environment.
        options: of `simulate`.
    """
    return {name: simulate(make(environment), environment, rounds, **options) for name, make in policies.items()}


def _left(scene: Scene, shown: Tensor | None, t: int) -> Tensor | None:
    """Arms that can be chosen."""
    if shown is None:
        return scene.available
    left = ~shown if scene.available is None else scene.available & ~shown
    out = (~left.any(-1)).nonzero()
    if len(out):
        raise ValueError(f"task {int(out[0])} has no arm left in round {t}: play fewer rounds, or tasks with more arms")
    return left


def _best(scene: Scene, rank: int | None) -> Tensor:
    """The best expected reward of each task, or where no arm is shown twice, the one of this rank."""
    means = scene.means if scene.available is None else scene.means.masked_fill(~scene.available, -torch.inf)
    return means.amax(-1) if rank is None else means.topk(rank + 1, -1).values[:, -1]
