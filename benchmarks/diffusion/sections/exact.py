"""Where theta is Gaussian: how far the moments of draws are from those of the exact posterior.

`w2` is the squared Wasserstein distance of two Gaussians, of 100 K draws and of the exact posterior, in units of the
trace of the exact covariance. It is above zero for exact draws too: `w2_floor` is that of as many of them. Noise has a
standard deviation of .5, theta of about one. Rows of a task are, of K arms,

- `few`: one of each of K / 4 random arms,
- `all`: one of each arm,
- `repeated`: four of each of K / 4 random arms,
- `sharp`: none of a quarter of the arms, and up to a hundred of the others.

`gaussian` is the shrunk Gaussian prior of the same past tasks, `stream` and `stream_network` learn from a stream that
says what theta is (`benchmarks.diffusion.streamed`). Particles are four times as many as draws.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta import CorrelatedArms
from bayesmeta.random import rand
from benchmarks.diffusion.distances import gaussian_w2, moments
from benchmarks.diffusion.priors import APPROXIMATE, STREAMED, Past, minutes_of, prior_of, with_particles
from benchmarks.diffusion.streamed import learned_from_stream
from benchmarks.diffusion.truths import all_arms, gaussian_truth, rows_by_count
from benchmarks.diffusion.work import Work, as_figures, as_table, interval, stream
from benchmarks.kept import Rows
from benchmarks.report import Figure

__all__ = ["BUDGETS", "SETTINGS", "ExactBudget", "exact", "shown"]

NOISE_SD, DRAWS_PER_ARM, PARTICLES_PER_DRAW, MOST_ROWS = 0.5, 100, 4, 100
METHODS = ("diffusion", *APPROXIMATE, "gaussian")
SAID_AS = {"exact": "floor", "diffusion": "default"}


@dataclass(frozen=True)
class ExactBudget:
    """By number of arms.

    Args:
        sizes: past tasks and new tasks of each setting.
        streamed: new tasks of each setting where a prior learns from a stream, of sizes without past tasks.
    """

    sizes: dict[int, tuple[int, int]]
    streamed: dict[int, int]


BUDGETS = {
    "quick": ExactBudget({8: (1000, 20)}, {200: 1}),
    "full": ExactBudget({8: (20_000, 100), 200: (20_000, 3)}, {}),
}
NAMES = {
    "w2": "w2/{arms}/{setting}/{method}",
    "floor": "w2_floor/{arms}/{setting}",
    "minutes": "train_cpu_min/exact/{arms}/{method}",
}
MEANINGS = {
    "w2": "squared distance of moments to the exact posterior, by its trace",
    "floor": "the same of exact draws",
    "minutes": "CPU-minutes of learning",
}

shown = as_table("a Gaussian theta: squared Wasserstein distance to the exact posterior by its trace")


def _some(num_tasks: int, num_arms: int, share: float, generator: Generator) -> Tensor:
    """True for as many random arms of each task."""
    chance = rand((num_tasks, num_arms), like=torch.zeros(0), generator=generator)
    return chance.argsort(-1).argsort(-1) < max(1, round(share * num_arms))


def _sharp(num_tasks: int, num_arms: int, generator: Generator) -> Tensor:
    many = MOST_ROWS ** rand((num_tasks, num_arms), like=torch.zeros(0), generator=generator)
    return many.long() * _some(num_tasks, num_arms, 0.75, generator)


SETTINGS: dict[str, Callable[[int, int, Generator], Tensor]] = {  # rows of each arm `(tasks, k)`
    "few": lambda num, k, generator: _some(num, k, 0.25, generator).long(),
    "all": lambda num, k, _: torch.ones(num, k, dtype=torch.long),
    "repeated": lambda num, k, generator: 4 * _some(num, k, 0.25, generator).long(),
    "sharp": _sharp,
}


def exact(work: Work) -> tuple[list[Figure], Rows]:
    """`w2/<K>/<setting>/<sampler>` and `w2_floor/<K>/<setting>`."""
    budget = BUDGETS[work.budget]
    rows = [row for size in budget.sizes.items() for row in _of_size(size[0], *size[1], work)]
    rows += [row for size in budget.streamed.items() for row in _of_streamed_size(*size, work)]
    return as_figures(rows, NAMES, MEANINGS), rows


def _of_size(num_arms: int, num_past: int, num_tasks: int, work: Work) -> Iterator[dict[str, Any]]:
    truth = _truth(num_arms)
    theta = truth.sample_params(num_past, generator=stream(12, num_arms))
    twice = torch.full(theta.shape, 2)
    past = Past(f"exact/{num_arms}", rows_by_count(theta, twice, NOISE_SD, stream(13, num_arms)), num_arms)
    for method in (name for name in METHODS if name in work.methods):
        yield from _of_prior(prior_of(method, past, work), method, minutes_of(method, past, work), num_tasks, work)
    yield from _of_streamed_size(num_arms, num_tasks, work)


def _of_streamed_size(num_arms: int, num_tasks: int, work: Work) -> Iterator[dict[str, Any]]:
    """Of exact draws, and of priors that learn from a stream."""
    truth = _truth(num_arms)
    yield from _of_prior(truth, "exact", None, num_tasks, work)
    for method in (name for name in STREAMED if name in work.methods):
        prior, minutes = learned_from_stream(method, truth, work)
        yield from _of_prior(prior, method, minutes, num_tasks, work)


def _truth(num_arms: int) -> CorrelatedArms:
    return gaussian_truth(num_arms, NOISE_SD, stream(11, num_arms))


def _of_prior(prior: Any, method: str, minutes: float | None, num_tasks: int, work: Work) -> Iterator[dict[str, Any]]:
    num_arms = prior.num_arms
    for i, setting in enumerate(SETTINGS):
        work.say(f"Gaussian, {num_arms} arms, {setting}: {method}")

        def measured(setting: str = setting, i: int = i) -> dict[str, Any]:
            return {"w2": _measured(prior, _truth(num_arms), setting, i, num_tasks)}

        found = work.pieces.numbers(f"exact/{num_arms}/{setting}/{method}", measured)["w2"]
        named = {"floor": found} if method == "exact" else {"w2": found, "minutes": minutes}
        yield {"arms": num_arms, "setting": setting, "method": SAID_AS.get(method, method)} | named


def _measured(prior: Any, truth: CorrelatedArms, setting: str, number: int, num_tasks: int) -> list[float | None]:
    num_arms = truth.num_arms
    prior = with_particles(prior, DRAWS_PER_ARM * num_arms * PARTICLES_PER_DRAW)
    found = [_of_task(prior, truth, setting, stream(14, number, i), stream(15, i)) for i in range(num_tasks)]
    return interval(torch.stack(found))


def _of_task(prior: Any, truth: CorrelatedArms, setting: str, generator: Generator, drawing: Generator) -> Tensor:
    num_arms = truth.num_arms
    theta = truth.sample_params(1, generator=generator)
    count = SETTINGS[setting](1, num_arms, generator)
    data = rows_by_count(theta, count, NOISE_SD, generator)
    drawn = prior.condition(data).sample(DRAWS_PER_ARM * num_arms, generator=drawing)(all_arms(num_arms)).double()
    mean, cov = moments(drawn)
    known = truth.condition(data)
    trace = known.cov.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (gaussian_w2(known.loc, known.cov, mean, cov) / trace)[0]
