"""How a diffusion prior is learned from a stream of tasks, of which none is seen twice.

Where the stream says what theta is, that is learned from, without rows or noise. Else theta is drawn for new tasks from
what the prior so far says of it given their rows, in rounds, as from past tasks. Tasks that calibrate and tasks that
judge are new ones, too, so that nothing is held out and nothing is learned twice.
"""

import warnings
from typing import TYPE_CHECKING

from torch import Generator

from bayesmeta.diffusion.denoising.calibration import Calibration
from bayesmeta.diffusion.denoising.denoiser import Denoiser
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
from bayesmeta.diffusion.denoising.streamed_learning import DrawNewTheta, learn_from_stream
from bayesmeta.diffusion.denoising.worth import lowest_level
from bayesmeta.diffusion.fitting import evidence_by_level, having, worth_having
from bayesmeta.diffusion.past_vectors import evidence_of, to_begin_from
from bayesmeta.diffusion.sampling.tempering import TemperedWarning
from bayesmeta.diffusion.streamed_tasks import KnowsTheta, StreamedTasks
from bayesmeta.networks.learning.task_streams import TaskStream
from bayesmeta.numerics.gradients import with_gradients

if TYPE_CHECKING:
    from bayesmeta.diffusion.family import DiffusionFamily

__all__ = ["as_far_as_worth", "denoiser_from_stream", "learned_from_stream"]

NUM_JUDGING = 200  # tasks that say which levels are worth having


@with_gradients
def learned_from_stream(
    prior: "DiffusionFamily", stream: TaskStream, schedule: DiffusionSchedule, generator: Generator, progress: bool
) -> "DiffusionFamily":
    """See `DiffusionFamily.fit`."""
    tasks = StreamedTasks(prior, stream, schedule, generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemperedWarning)  # by a network that is still learning, or by few levels
        return as_far_as_worth(*denoiser_from_stream(tasks, progress=progress), tasks)


def denoiser_from_stream(tasks: StreamedTasks, *, progress: bool) -> tuple["DiffusionFamily", "DiffusionFamily"]:
    """The Gaussian prior, and the same with a network and all levels, whatever they are worth."""
    start = to_begin_from(tasks.gaussian(), tasks.some_tasks(), tasks.generator)

    assert isinstance(start.network, Denoiser)

    def drawing(network: Denoiser, calibration: Calibration) -> DrawNewTheta:
        return tasks.white_theta(having(start, network, calibration))

    found = learn_from_stream(
        start.network,
        start.noises.double(),
        drawing,
        tasks.schedule,
        tasks.generator,
        num_rounds=1 if isinstance(tasks.stream, KnowsTheta) else tasks.schedule.num_rounds,
        progress=progress,
    )
    return start, having(start, *found)


def as_far_as_worth(start: "DiffusionFamily", learned: "DiffusionFamily", tasks: StreamedTasks) -> "DiffusionFamily":
    """Either of these two, with the levels that new tasks say are worth having."""
    judging = tasks.tasks(NUM_JUDGING)
    each = evidence_by_level(learned, lambda prior: evidence_of(prior, judging, tasks.generator))
    lowest = lowest_level(each, start.gaussian.log_evidence(judging))
    found: DiffusionFamily = worth_having(start, learned, lowest)
    return found._replace(learned_from=tasks.learned_from)
