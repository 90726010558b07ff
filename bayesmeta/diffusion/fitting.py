"""How a diffusion prior is learned from past tasks, and when the Gaussian prior is left instead."""

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from bayesmeta.data.samples import random_order
from bayesmeta.diffusion.denoising.attention import ArmDenoiser
from bayesmeta.diffusion.denoising.calibration import Calibration, calibrated
from bayesmeta.diffusion.denoising.denoiser import DenoiserNetwork
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

__all__ = ["learned_from_tasks"]

PIECE = 64  # past tasks of which theta is drawn at a time


@with_gradients
def learned_from_tasks(
    prior: "DiffusionFamily", tasks: Any, schedule: DiffusionSchedule, generator: Generator, progress: bool
) -> "DiffusionFamily":
    """See `DiffusionFamily.fit`."""
    seen = tasks[prior._count(tasks) > 0]
    gaussian = prior.with_gaussian(prior.gaussian.fit(seen))
    variances, basis = gaussian.directions(seen)
    assert isinstance(prior.network, DenoiserNetwork)
    sizes = {"width": prior.network.width, "num_layers": prior.network.num_layers}
    network, levels = DenoiserNetwork.of(variances, generator=generator, **sizes), prior.noises.double()
    begin = gaussian_calibration(levels, len(variances))
    start = _having(gaussian, network, begin, basis=basis)
    shuffled = seen[random_order(len(prior._count(seen)), generator)]

    def draw_theta(network: DenoiserNetwork, calibration: Calibration, generator: Generator) -> Tensor:
        return _white_theta(_having(start, network, calibration), shuffled, schedule, generator)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemperedWarning)  # by a network that is still learning
        learner = VectorLearner(network, levels)
        found = learn_in_rounds(network, begin, learner, draw_theta, schedule, generator, progress=progress)
        num = num_held_out(len(prior._count(shuffled)))
        unseen = start.with_gaussian(prior.gaussian.fit(shuffled[num:])) if num > 1 else start
        lowest = _lowest_level(unseen.changed(network=found.without_held_out), shuffled[:num], schedule, generator)
    if lowest is None or not bool(found.calibration.gates.any()):
        return _above(start, len(levels) - 1)
    return _above(_having(start, found.network, found.calibration), lowest)


def _having(
    prior: "DiffusionFamily", network: DenoiserNetwork | ArmDenoiser, calibration: Calibration, **changes: Any
) -> "DiffusionFamily":
    return prior.changed(network=network, **calibration._asdict(), **changes)


def _white_theta(prior: "DiffusionFamily", tasks: Any, schedule: DiffusionSchedule, generator: Generator) -> Tensor:
    """Draws for tasks in the directions of the basis `(tasks, draws, r)`, in units in which theta is white."""
    now = prior.changed(num_particles=schedule.num_particles, sampler=DEFAULT)
    with torch.no_grad():
        pieces = [now.condition(tasks[i : i + PIECE]) for i in range(0, len(now._count(tasks)), PIECE)]
        drawn = torch.cat([piece.looked_at(generator).draw(schedule.num_draws, generator) for piece in pieces], 1)
    into = torch.linalg.solve(now.chain.root, now.basis.double())
    return ((drawn - now._moments()[0]) @ into).movedim(0, 1)


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
    prior = prior.changed(sampler=DEFAULT)
    theta, levels, each = _white_theta(prior, held_out, schedule, generator), prior.noises.double(), []
    for judged, judge in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        made = _having(prior, prior.network, calibrated(prior.network.module, theta[judge], levels, generator))
        with torch.no_grad():
            every = [_evidence(_above(made, level), held_out[judged], generator) for level in range(len(levels))]
        each.append(torch.stack(every))
    return lowest_level(torch.cat(each, -1), prior.gaussian.log_evidence(held_out))


def _evidence(prior: "DiffusionFamily", tasks: Any, generator: Generator) -> Tensor:
    """By noise of each task's own: errors that tasks share would pass for a gain, or for a loss, of all."""
    return prior.condition(tasks).looked_at(generator).log_evidence


def _above(prior: "DiffusionFamily", level: int) -> "DiffusionFamily":
    """Without the levels below one."""
    return prior.changed(
        noises=prior.noises[level:], gates=prior.gates[level:], residual_cov=prior.residual_cov[level:]
    )
