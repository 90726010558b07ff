"""Priors that are compared: each is learned from the same past tasks, and kept as a piece.

- `diffusion`: `DiffusionPrior` with its own, weighted sampler.
- `grid`: the same, told where arms lie along a line or on a grid, with convolutions; where they do.
- `unweighted`, `diffts`, `laplace_dps`, `dps`: the same prior with samplers that are approximate.
- `stream`, `stream_network`: `DiffusionPrior` learned from new tasks instead, see `streamed`.
- `gaussian`: `CorrelatedArms`, one Gaussian of any covariance.
- `mixture`: several such Gaussians, see `gaussian_mixture`.
- `vague`: independent arms of the mean and variance of all past rewards.
- `truth`: the distribution of tasks itself, where it is known: a bound, in the mean, for all others.
- `ucb1`: no prior. Its rewards should lie between 0 and 1, so its width is in units of the spread of past rewards.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta import CorrelatedArms, Data, DiffusionPrior
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
from benchmarks.diffusion.gaussian_mixture import learn_mixture
from benchmarks.diffusion.work import Work

__all__ = ["APPROXIMATE", "LEARNING", "METHODS", "STREAMED", "Learning", "Past", "prior_of"]

APPROXIMATE = ("unweighted", "diffts", "laplace_dps", "dps")
STREAMED = ("stream", "stream_network")
METHODS = ("diffusion", "grid", *APPROXIMATE, *STREAMED, "gaussian", "mixture", "vague", "ucb1", "truth")


@dataclass(frozen=True)
class Learning:
    """How a diffusion prior learns.

    Args:
        schedule: of its denoiser.
        width, num_layers: of its network.
    """

    schedule: DiffusionSchedule
    width: int
    num_layers: int


LEARNING = {
    "quick": Learning(DiffusionSchedule(num_steps=400, num_vectors=192, num_rounds=1, num_draws=4), 64, 2),
    "full": Learning(DiffusionSchedule(), 192, 3),
}


@dataclass(frozen=True)
class Past:
    """Past tasks, by a name of their own among all of the benchmark.

    Args:
        places: of arms, where they lie along a line or on a grid.
    """

    name: str
    tasks: Data
    num_arms: int
    places: Tensor | None = None


def prior_of(method: str, past: Past, work: Work) -> Any:
    """A prior; None for `ucb1`, which has none."""
    if method in APPROXIMATE:
        return _kept("diffusion", past, work).with_sampler(method)
    if method == "vague":
        return vague(past.tasks, past.num_arms)
    return None if method == "ucb1" else _kept(method, past, work)


def minutes_of(method: str, past: Past, work: Work) -> float | None:
    """CPU-minutes of learning, None where there is nothing to learn."""
    method = "diffusion" if method in APPROXIMATE else method
    return _learned(method, past, work)[1] if method in LEARN else None


def with_particles(prior: Any, num: int) -> Any:
    """A prior whose posteriors have as many particles, if it has any."""
    return replace(prior, num_particles=num) if isinstance(prior, DiffusionPrior) else prior


def vague(tasks: Data, num_arms: int) -> CorrelatedArms:
    """Independent arms: half of the variance of rewards is between tasks, and half is noise."""
    rewards = tasks.y[tasks.mask].double()
    half = rewards.var() / 2.0
    return CorrelatedArms(
        torch.full((num_arms,), float(rewards.mean())).double(), half.sqrt() * torch.eye(num_arms).double(), half
    )


def _kept(method: str, past: Past, work: Work) -> Any:
    return _learned(method, past, work)[0]


def _learned(method: str, past: Past, work: Work) -> tuple[Any, float]:
    def learn(_: Any) -> Any:
        work.say(f"{method} learns from {past.name}")
        return LEARN[method](past, work)

    return work.pieces.learned(f"prior/{past.name}/{method}", 1, learn)


def _diffusion(past: Past, work: Work) -> DiffusionPrior:
    how = LEARNING[work.budget]
    start = DiffusionPrior.initial(past.tasks, num_arms=past.num_arms, width=how.width, num_layers=how.num_layers)
    return start.fit(past.tasks, schedule=how.schedule, generator=Generator().manual_seed(0), progress=False)


def _on_grid(past: Past, work: Work) -> DiffusionPrior:
    """Of the network's own sizes."""
    start = DiffusionPrior.initial(past.tasks, num_arms=past.num_arms, grid=past.places)
    schedule = LEARNING[work.budget].schedule
    return start.fit(past.tasks, schedule=schedule, generator=Generator().manual_seed(0), progress=False)


def _gaussian(past: Past, _work: Work) -> CorrelatedArms:
    return CorrelatedArms.initial(past.tasks, num_arms=past.num_arms).fit(past.tasks)


def _mixture(past: Past, work: Work) -> Any:
    gaussian = _kept("gaussian", past, work)
    return learn_mixture(gaussian, gaussian.statistics(past.tasks), Generator().manual_seed(0))


LEARN = {"diffusion": _diffusion, "grid": _on_grid, "gaussian": _gaussian, "mixture": _mixture}
