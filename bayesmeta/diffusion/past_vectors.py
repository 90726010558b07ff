"""Past tasks of one list of arms, or of the weights of a regression: theta is a vector of one length."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from bayesmeta.data.samples import random_order
from bayesmeta.diffusion.denoising.denoiser import Denoiser
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule, VectorLearner, gaussian_calibration
from bayesmeta.diffusion.fitting import having, learned_from_past
from bayesmeta.diffusion.sampling.samplers import DEFAULT
from bayesmeta.networks.learning.until_no_gain import num_held_out
from bayesmeta.numerics.gradients import with_gradients

if TYPE_CHECKING:
    from bayesmeta.diffusion.family import DiffusionFamily

__all__ = ["evidence_of", "learned_from_tasks", "theta_given_rows", "to_begin_from"]

PIECE = 64  # past tasks of which theta is drawn at a time


@dataclass(frozen=True)
class PastVectors:
    """See `PastTasks`.

    Args:
        start: a Gaussian prior, with a new network.
        unfitted: the Gaussian prior that has seen none of the tasks.
        tasks: with rows, in random order.
        schedule: how theta is drawn.
    """

    start: "DiffusionFamily"
    unfitted: Any
    tasks: Any
    schedule: DiffusionSchedule

    def __len__(self) -> int:
        return len(self.start._count(self.tasks))

    @property
    def learner(self) -> VectorLearner:
        network = self.start.network
        assert isinstance(network, Denoiser)
        return VectorLearner(network, self.start.noises.double())

    def white_theta(self, prior: "DiffusionFamily", generator: Generator) -> Tensor:
        return theta_given_rows(prior, self.schedule, generator)(self.tasks)

    def held_out(self) -> "PastVectors":
        num = num_held_out(len(self))
        unseen = self.start.with_gaussian(self.unfitted.fit(self.tasks[num:])) if num > 1 else self.start
        return replace(self, start=unseen, tasks=self.tasks[:num])

    def evidence(self, prior: "DiffusionFamily", part: slice, generator: Generator) -> Tensor:
        return evidence_of(prior, self.tasks[part], generator)

    def gaussian_evidence(self) -> Tensor:
        evidence: Tensor = self.start.gaussian.log_evidence(self.tasks)
        return evidence


@with_gradients
def learned_from_tasks(
    prior: "DiffusionFamily", tasks: Any, schedule: DiffusionSchedule, generator: Generator, progress: bool
) -> "DiffusionFamily":
    """See `DiffusionFamily.fit`."""
    seen = tasks[prior._count(tasks) > 0]
    start = to_begin_from(prior.with_gaussian(prior.gaussian.fit(seen)), seen, generator)
    shuffled = seen[random_order(len(prior._count(seen)), generator)]
    learned: DiffusionFamily = learned_from_past(
        PastVectors(start, prior.gaussian, shuffled, schedule), schedule, generator, progress=progress
    )
    return learned


def to_begin_from(prior: "DiffusionFamily", seen: Any, generator: Generator) -> "DiffusionFamily":
    """With a new network, of directions that tasks show, which is not asked yet.

    Args:
        prior: whose Gaussian prior is learned.
        seen: tasks with rows.
    """
    assert isinstance(prior.network, Denoiser)
    variances, basis = prior.directions(seen)
    network = prior.network.anew(variances, basis, generator)
    start: DiffusionFamily = having(
        prior, network, gaussian_calibration(prior.noises.double(), len(variances)), basis=basis
    )
    return start


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


def evidence_of(prior: "DiffusionFamily", tasks: Any, generator: Generator) -> Tensor:
    """Log evidence by the particle filter, with noise of each task's own."""
    return prior.changed(sampler=DEFAULT).condition(tasks).looked_at(generator).log_evidence
