"""How a diffusion prior is learned from past tasks, and when the Gaussian prior is left instead."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from bayesmeta.data.samples import random_order
from bayesmeta.diffusion.denoising.attention import ArmDenoiser
from bayesmeta.diffusion.denoising.calibration import Calibration, calibrated
from bayesmeta.diffusion.denoising.denoiser import Denoiser
from bayesmeta.diffusion.denoising.learning import (
    DiffusionSchedule,
    VectorLearner,
    gaussian_calibration,
    learn_in_rounds,
)
from bayesmeta.diffusion.denoising.worth import lowest_level
from bayesmeta.diffusion.sampling.samplers import DEFAULT
from bayesmeta.diffusion.sampling.tempering import TemperedWarning
from bayesmeta.networks.learning.until_no_gain import num_held_out
from bayesmeta.numerics.gradients import with_gradients

if TYPE_CHECKING:
    from bayesmeta.diffusion.family import DiffusionFamily

__all__ = ["above", "evidence_by_level", "having", "learned_from_tasks", "theta_given_rows", "to_begin_from"]

PIECE = 64  # past tasks of which theta is drawn at a time


@with_gradients
def learned_from_tasks(
    prior: "DiffusionFamily", tasks: Any, schedule: DiffusionSchedule, generator: Generator, progress: bool
) -> "DiffusionFamily":
    """See `DiffusionFamily.fit`."""
    seen = tasks[prior._count(tasks) > 0]
    start = to_begin_from(prior.with_gaussian(prior.gaussian.fit(seen)), seen, generator)
    network, levels = start.network, start.noises.double()
    assert isinstance(network, Denoiser)
    shuffled = seen[random_order(len(prior._count(seen)), generator)]

    def draw_theta(network: Denoiser, calibration: Calibration, generator: Generator) -> Tensor:
        return theta_given_rows(having(start, network, calibration), schedule, generator)(shuffled)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemperedWarning)  # by a network that is still learning
        learner, begin = VectorLearner(network, levels), gaussian_calibration(levels, network.num_values)
        found = learn_in_rounds(network, begin, learner, draw_theta, schedule, generator, progress=progress)
        num = num_held_out(len(prior._count(shuffled)))
        unseen = start.with_gaussian(prior.gaussian.fit(shuffled[num:])) if num > 1 else start
        lowest = _lowest_level(unseen.changed(network=found.without_held_out), shuffled[:num], schedule, generator)
    if lowest is None or not bool(found.calibration.gates.any()):
        return above(start, len(levels) - 1)
    return above(having(start, found.network, found.calibration), lowest)


def to_begin_from(prior: "DiffusionFamily", seen: Any, generator: Generator) -> "DiffusionFamily":
    """With a new network, of directions that tasks show, which is not asked yet.

    Args:
        prior: whose Gaussian prior is learned.
        seen: tasks with rows.
    """
    assert isinstance(prior.network, Denoiser)
    variances, basis = prior.directions(seen)
    network = prior.network.anew(variances, basis, generator)
    return having(prior, network, gaussian_calibration(prior.noises.double(), len(variances)), basis=basis)


def having(
    prior: "DiffusionFamily", network: Denoiser | ArmDenoiser, calibration: Calibration, **changes: Any
) -> "DiffusionFamily":
    """With a network and its calibration."""
    return prior.changed(network=network, **calibration._asdict(), **changes)


def theta_given_rows(
    prior: "DiffusionFamily", schedule: DiffusionSchedule, generator: Generator
) -> Callable[[Any], Tensor]:
    """What draws theta of tasks, in units in which it is white and in the directions of the basis.

    It takes tasks and returns `(tasks, draws, r)`.
    """
    now = prior.changed(num_particles=schedule.num_particles, sampler=DEFAULT)
    mean, into = now.mean_and_whitening()

    @torch.no_grad()
    def draw(tasks: Any) -> Tensor:
        pieces = [now.condition(tasks[i : i + PIECE]) for i in range(0, len(now._count(tasks)), PIECE)]
        drawn = torch.cat([piece.looked_at(generator).draw(schedule.num_draws, generator) for piece in pieces], 1)
        return ((drawn - mean) @ into).movedim(0, 1)

    return draw


def _lowest_level(
    prior: "DiffusionFamily", held_out: Any, schedule: DiffusionSchedule, generator: Generator
) -> int | None:
    """The one below which there is no gain, see `lowest_level`.

    Each half of the held-out tasks is judged by what the other half calibrates.

    Args:
        prior: that has seen none of the tasks: whoever saw a task finds it too probable.
    """
    half = len(prior._count(held_out)) // 2
    if not half:
        return None
    theta, levels, each = theta_given_rows(prior, schedule, generator)(held_out), prior.noises.double(), []
    for judged, judge in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        made = having(prior, prior.network, calibrated(prior.network.module, theta[judge], levels, generator))
        each.append(evidence_by_level(made, held_out[judged], generator))
    return lowest_level(torch.cat(each, -1), prior.gaussian.log_evidence(held_out))


@torch.no_grad()
def evidence_by_level(prior: "DiffusionFamily", tasks: Any, generator: Generator) -> Tensor:
    """Log evidence of tasks without the levels below each one `(levels, tasks)`.

    Noise is of each task's own: errors that tasks share would pass for a gain, or for a loss, of all.
    """
    weighted = prior.changed(sampler=DEFAULT)
    each = (above(weighted, level).condition(tasks).looked_at(generator) for level in range(len(prior.noises)))
    return torch.stack([found.log_evidence for found in each])


def above(prior: "DiffusionFamily", level: int) -> "DiffusionFamily":
    """Without the levels below one."""
    return prior.changed(
        noises=prior.noises[level:], gates=prior.gates[level:], residual_cov=prior.residual_cov[level:]
    )
