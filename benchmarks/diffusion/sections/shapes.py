"""What a network gains that knows how arms lie: by neighbours along a line or on a grid, or by features of its own.

Gain of a held-out task over the Gaussian prior in nats, mean over tasks, where past and new tasks show each arm once.
Networks have their default sizes. `curves` jump once, at a place of their own; `mazes` are those of the maze, by their
passages; `clusters` are tasks whose arms lie in four clusters of two features, of which one pays.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta import Data, DiffusionPrior, NeuralDiffusionProcess
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
from bayesmeta.random import rand, randint, randn
from benchmarks.diffusion.environments.maze import mazes, places_of_edges
from benchmarks.diffusion.truths import rows_by_count
from benchmarks.diffusion.work import Work, as_figures, as_table, interval, stream
from benchmarks.kept import Rows
from benchmarks.report import Figure

__all__ = ["NUMBERS", "shapes", "shown"]

LIKE = torch.zeros(0, dtype=torch.float64)
NUM_CURVE, MAZE_SIDE, NOISE_SD = 24, 5, 0.3  # arms of a curve; cells on a side; of curves and mazes
OWN_SD, SET_NOISE_SD = 0.1, 0.17  # of arms in clusters
CENTRES = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
NUM_HELD_OUT = {"quick": 80, "full": 80}
NUMBERS: dict[str, dict[str, tuple[int, ...]]] = {  # past tasks
    "quick": {"curves": (50, 200), "clusters": (200,)},
    "full": {"curves": (50, 200, 1000), "mazes": (200,), "clusters": (200,)},
}
VECTORS = DiffusionSchedule(num_steps=300, num_vectors=128, num_rounds=1)
SETS = DiffusionSchedule(num_steps=300, num_vectors=32, num_rounds=2, num_draws=4, num_particles=32)
NAMES = {
    "gain": "gain/{tasks}/{past}/{network}",
    "learning": "learning_cpu_s/{tasks}/{past}/{network}",
    "asking": "asking_cpu_s/{tasks}/{past}/{network}",
}
MEANINGS = {
    "gain": "nats a held-out task over the Gaussian prior",
    "learning": "CPU-seconds of learning",
    "asking": "CPU-seconds of the evidence of all held-out tasks",
}

shown = as_table("gain over the Gaussian prior in nats a held-out task")


@dataclass(frozen=True)
class Shape:
    """Tasks of one shape.

    Args:
        draw: tasks with rows.
        networks: what learns from tasks, by the name of its network.
    """

    draw: Callable[[int, Generator], Data]
    networks: dict[str, Callable[[Data], Any]]


def shapes(work: Work) -> tuple[list[Figure], Rows]:
    """`gain/<tasks>/<past>/<network>`, and what it costs."""
    if "grid" not in work.methods:
        return [], []
    rows: Rows = []
    for name, numbers in NUMBERS[work.budget].items():
        held_out = SHAPES[name].draw(NUM_HELD_OUT[work.budget], stream(62))
        for num in numbers:
            past = SHAPES[name].draw(num, stream(61))
            for network, learn in SHAPES[name].networks.items():
                work.say(f"{network} learns from {num} {name}")
                found = _measured(learn, past, held_out, f"shapes/{name}/{num}/{network}", work)
                rows.append({"tasks": name, "past": num, "network": network, **found})
    return as_figures(rows, NAMES, MEANINGS), rows


def _measured(learn: Callable[[Data], Any], past: Data, held_out: Data, name: str, work: Work) -> dict[str, Any]:
    def numbers() -> dict[str, Any]:
        start = time.process_time()
        prior = learn(past)
        learned = time.process_time()
        evidence = prior.log_evidence(held_out)
        asked = time.process_time()
        gain = evidence - _gaussian(prior, held_out)
        return {"gain": interval(gain), "learning": learned - start, "asking": asked - learned}

    return work.pieces.numbers(name, numbers)


def _gaussian(prior: Any, held_out: Data) -> Tensor:
    gaussian = prior.process if isinstance(prior, NeuralDiffusionProcess) else prior.arms
    evidence: Tensor = gaussian.log_evidence(held_out)
    return evidence


def _vectors(places: Tensor | None) -> Callable[[Data], Any]:
    def learn(past: Data) -> Any:
        start = DiffusionPrior.initial(past, grid=places)
        return start.fit(past, schedule=VECTORS, generator=Generator().manual_seed(0), progress=False)

    return learn


def _sets(past: Data) -> Any:
    start = NeuralDiffusionProcess.initial(past)
    return start.fit(past, schedule=SETS, generator=Generator().manual_seed(0), progress=False)


def _once(theta: Tensor, generator: Generator) -> Data:
    return rows_by_count(theta, torch.ones(theta.shape, dtype=torch.long), NOISE_SD, generator)


def _curves(num: int, generator: Generator) -> Data:
    place = (NUM_CURVE - 1) * rand((num, 1), like=LIKE, generator=generator)
    return _once((torch.arange(NUM_CURVE).double() > place).double(), generator)


def _mazes(num: int, generator: Generator) -> Data:
    return _once(mazes(num, MAZE_SIDE, generator), generator)


def _clusters(num: int, generator: Generator) -> Data:
    """Of 4 to 12 arms, each with something of its own and noise."""

    def task() -> tuple[Tensor, Tensor]:
        arms = 4 + int(randint(9, (), generator=generator))
        cluster, paying = randint(4, (arms,), generator=generator), randint(4, (), generator=generator)
        x = CENTRES[cluster] + 0.3 * randn((arms, 2), like=LIKE, generator=generator)
        sd = math.hypot(OWN_SD, SET_NOISE_SD)
        return x, (cluster == paying).double() + sd * randn((arms,), like=LIKE, generator=generator)

    return Data.pad([task() for _ in range(num)])


SHAPES = {
    "curves": Shape(_curves, {"perceptron": _vectors(None), "grid": _vectors(torch.arange(NUM_CURVE)[:, None])}),
    "mazes": Shape(_mazes, {"perceptron": _vectors(None), "grid": _vectors(places_of_edges(MAZE_SIDE))}),
    "clusters": Shape(_clusters, {"attention": _sets}),
}
