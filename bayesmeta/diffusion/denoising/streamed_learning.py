"""How a denoiser learns from a stream: from new tasks in each step, and calibrated by tasks that it never saw."""

import math
from collections.abc import Callable

from torch import Generator, Tensor

from bayesmeta.diffusion.denoising.calibration import Calibration, calibrated
from bayesmeta.diffusion.denoising.denoiser import Denoiser
from bayesmeta.diffusion.denoising.learning import (
    DiffusionSchedule,
    VectorLearner,
    gaussian_calibration,
    warn_of_divergence,
    with_noise,
)
from bayesmeta.networks.learning.ascent import Ascent, DivergedError
from bayesmeta.networks.learning.progress_line import progress_line

__all__ = ["DrawNewTheta", "learn_from_stream"]

NUM_CALIBRATING = 1024  # tasks

DrawNewTheta = Callable[[int], Tensor]  # of as many new tasks, `(tasks, draws, k)`


def learn_from_stream(
    network: Denoiser,
    levels: Tensor,
    drawing: Callable[[Denoiser, Calibration], DrawNewTheta],
    schedule: DiffusionSchedule,
    generator: Generator,
    *,
    num_rounds: int,
    progress: bool,
) -> tuple[Denoiser, Calibration]:
    """A network, and what tasks that it has not learned from say of it.

    Args:
        network: where learning starts.
        drawing: says how white theta of new tasks is drawn, once there are a network and a calibration.

    Warns:
        DivergedWarning: learning diverged, and ended with the network of its last look.
    """
    calibration = gaussian_calibration(levels, network.num_values)
    for _ in range(num_rounds):
        draw_theta = drawing(network, calibration)
        network, has_ended = _after_all_steps(network, levels, draw_theta, schedule, generator, progress=progress)
        calibration = calibrated(network.module, draw_theta(NUM_CALIBRATING), levels, generator)
        if not has_ended:
            break
    return network, calibration


def _after_all_steps(
    network: Denoiser,
    levels: Tensor,
    draw_theta: DrawNewTheta,
    schedule: DiffusionSchedule,
    generator: Generator,
    *,
    progress: bool,
) -> tuple[Denoiser, bool]:
    """A network that learned from new tasks in each step, and whether it came to the last one."""
    num_draws, like = draw_theta(1).shape[1], next(iter(network.weights.values()))
    learner = VectorLearner(network, levels)

    def objective(weights: dict[str, Tensor]) -> Tensor:
        theta = draw_theta(math.ceil(schedule.num_vectors / num_draws)).flatten(0, 1).to(like)
        return -learner.loss(weights, (theta, *with_noise(theta, generator)))

    ascent = Ascent(network.weights, objective, schedule.steps(), generator=generator)
    with progress_line("learning a denoiser", shown=progress) as say:

        def look(_: dict[str, Tensor]) -> bool:
            say(f"learning a denoiser: step {ascent.step}, {ascent.value:.3f} per vector")
            return False

        try:
            return network.with_weights(ascent.run(look, interval=schedule.interval)), True
        except DivergedError:
            warn_of_divergence(schedule, "the network of its last look")
            return network.with_weights(ascent.best), False
