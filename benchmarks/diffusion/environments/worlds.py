"""Past tasks, and new ones with their mean rewards, by the name of an environment.

Of the past every arm of a task has two rows, so that noise can be told from what tasks differ by.

- `popular_and_niche`: groups of arms, of which each task likes a few best.
- `bidding`: arms are bids from 0 to 1, and a reward is what is left of the task's value where the bid wins. Chances to
  win rise along one or two steps whose places differ between tasks.
- `swiss_roll`: ten arms, along a rolled sheet in three directions of their space.
- `jester`: a hundred jokes; tasks are users who rated all of them, whose ratings from -1 to 1 are mean rewards.
- `maze`: arms are edges of a grid, and a decision is a way through it, see `maze`; sizes are the side of the grid.
- `gaussian`, `three_modes`: theta of one Gaussian, or of three.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta import CorrelatedArms, Data, Mixture
from bayesmeta.random import rand, randn
from benchmarks.diffusion.environments.maze import mazes, places_of_edges
from benchmarks.diffusion.environments.popular_and_niche import popular_and_niche
from benchmarks.diffusion.environments.popular_and_niche import truth as popular_and_niche_truth
from benchmarks.diffusion.truths import all_arms, gaussian_truth, rows_by_count, three_modes
from benchmarks.diffusion.work import stream
from benchmarks.priors import jester

__all__ = ["ENVIRONMENTS", "NOISE_SD", "TRUTHS", "World", "seen", "world_of"]

NOISE_SD = 0.1
LIKE = torch.zeros(0, dtype=torch.float64)
NUM_ROLLED, THICKNESS = 10, 0.02
LARGEST_RATING = 10.0

Draw = Callable[[int, Generator], Tensor]


@dataclass(frozen=True)
class World:
    """Tasks of one environment.

    Args:
        name: of the environment.
        past: mean rewards of past tasks `(past, k)`.
        theta: of new tasks `(tasks, k)`.
        truth: the distribution of both as a prior, which no other can beat in the mean; None where it is not known.
        places: of arms, where they lie along a line or on a grid `(k, 1)` or `(k, 2)`.
    """

    name: str
    past: Tensor
    theta: Tensor
    truth: Any = None
    places: Tensor | None = None

    @property
    def num_arms(self) -> int:
        return self.theta.shape[-1]


def seen(theta: Tensor, generator: Generator, *, share: float = 1.0) -> Data:
    """Two rows of each arm of each task, arms being seen with probability `share`, at least one of each task."""
    chance = rand(theta.shape, like=theta, generator=generator)
    shown = (chance < share) | (chance == chance.amin(-1, keepdim=True))
    return rows_by_count(theta, 2 * shown.long(), NOISE_SD, generator)


def world_of(name: str, sizes: dict[str, int], num_past: int, num_tasks: int, data: Path | None) -> World | None:
    """None where the data of an environment are not there.

    Args:
        sizes: numbers of arms, by environment, where they can be chosen.
    """
    if name == "jester":
        return _jester(num_past, num_tasks, data)
    draw = ENVIRONMENTS[name](sizes.get(name, 0))
    number = list(ENVIRONMENTS).index(name)
    truth = TRUTHS[name](sizes.get(name, 0)) if name in TRUTHS else None
    past, theta = draw(num_past, stream(31, number)), draw(num_tasks, stream(32, number))
    places = PLACES[name](sizes[name]) if name in PLACES else None
    return World(name, past, theta, truth, places)


def _jester(num_past: int, num_tasks: int, data: Path | None) -> World | None:
    file = None if data is None else next(iter(sorted(data.rglob("jester/*.npz"))), None)
    if file is None:
        return None
    rated = jester.read(file)
    complete = rated.y[rated.mask.all(-1)] / LARGEST_RATING
    order = torch.randperm(len(complete), generator=stream(33))
    num_new = min(num_tasks, len(order) // 4)
    return World("jester", complete[order[num_new : num_new + num_past]], complete[order[:num_new]])


def _bidding(num_arms: int) -> Draw:
    bid = torch.linspace(0.0, 1.0, num_arms, dtype=torch.float64)

    def draw(num: int, generator: Generator) -> Tensor:
        place = rand((num, 2, 1), like=LIKE, generator=generator).sort(-2).values
        steepness = 0.02 + 0.06 * rand((num, 2, 1), like=LIKE, generator=generator)
        share = rand((num, 1, 1), like=LIKE, generator=generator)
        share = torch.cat([share, 1.0 - share], -2)
        wins = (share * ((bid - place) / steepness).sigmoid()).sum(-2)
        value = 0.7 + 0.5 * rand((num, 1), like=LIKE, generator=generator)
        return (value - bid) * wins

    return draw


def _swiss_roll(_num_arms: int) -> Draw:
    axes = torch.linalg.qr(randn((NUM_ROLLED, 3), like=LIKE, generator=stream(34))).Q

    def draw(num: int, generator: Generator) -> Tensor:
        angle = math.pi * (1.5 + 3.0 * rand((num,), like=LIKE, generator=generator))
        height = 2.0 * rand((num,), like=LIKE, generator=generator) - 1.0
        radius = angle / (4.5 * math.pi)
        sheet = torch.stack([radius * angle.cos(), radius * angle.sin(), height], -1)
        return sheet @ axes.mT + THICKNESS * randn((num, NUM_ROLLED), like=LIKE, generator=generator)

    return draw


def _one_gaussian(num_arms: int) -> CorrelatedArms:
    return gaussian_truth(num_arms, NOISE_SD, stream(35))


def _three_gaussians(num_arms: int) -> Mixture:
    return three_modes(num_arms, NOISE_SD, stream(36))


def _gaussian(num_arms: int) -> Draw:
    truth = _one_gaussian(num_arms)
    return lambda num, generator: truth.sample_params(num, generator=generator)


def _three_modes(num_arms: int) -> Draw:
    truth = _three_gaussians(num_arms)
    return lambda num, generator: truth.sample(num, generator=generator)(all_arms(num_arms))


ENVIRONMENTS: dict[str, Callable[[int], Draw]] = {
    "three_modes": _three_modes,
    "gaussian": _gaussian,
    "swiss_roll": _swiss_roll,
    "bidding": _bidding,
    "popular_and_niche": lambda num_arms: lambda num, generator: popular_and_niche(num, num_arms, generator),
    "maze": lambda size: lambda num, generator: mazes(num, size, generator),
}
PLACES: dict[str, Callable[[int], Tensor]] = {
    "bidding": lambda num_arms: torch.arange(num_arms)[:, None],
    "maze": places_of_edges,
}
TRUTHS: dict[str, Callable[[int], Any]] = {
    "three_modes": _three_gaussians,
    "gaussian": _one_gaussian,
    "popular_and_niche": popular_and_niche_truth,
}
