"""How a diffusion prior over arms with features is learned: each past task has arms of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from bayesmeta.data.rows import Data
from bayesmeta.data.samples import random_order
from bayesmeta.diffusion.denoising.attention import ArmSets, AttentionDenoiser
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule, residual_target, with_noise
from bayesmeta.diffusion.featured.calibration import SetCalibration, calibrated_on_sets, gaussian_set_calibration
from bayesmeta.diffusion.featured.past_sets import Group, groups_of
from bayesmeta.diffusion.fitting import above, having, learned_from_past
from bayesmeta.networks.learning.until_no_gain import num_held_out
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.random import randint

if TYPE_CHECKING:
    from bayesmeta.diffusion.featured.process import NeuralDiffusionProcess

__all__ = ["DEFAULT", "learned_from_sets"]

# attention over arms costs as many times what a vector does as there are arms, and has learned after fewer steps
DEFAULT = DiffusionSchedule(num_steps=1000, num_vectors=64, num_draws=4, num_particles=32)


class Coordinates(NamedTuple):
    """Of past tasks, padded.

    Args:
        sets: the arms of each task.
        variances: of the coordinates of each task, zero for pads `(tasks, r)`.
    """

    sets: ArmSets
    variances: Tensor

    @classmethod
    def of(cls, prior: "NeuralDiffusionProcess", groups: list[Group]) -> "Coordinates":
        sets, variances = [], []
        for group in groups:
            _, var, _, arms = prior.at(group.features)
            sets += [arms] * len(group.tasks)
            variances += [var] * len(group.tasks)
        order = torch.cat([group.tasks for group in groups]).argsort()
        parts = zip(*sets, strict=True)
        return cls(ArmSets(*(padded(list(part))[order] for part in parts)), padded(variances)[order])


class SetLearner(NamedTuple):
    """What a network over arms learns: see `Learner`."""

    network: AttentionDenoiser
    levels: Tensor
    past: Coordinates

    def look(
        self, theta: Tensor, part: slice, num: int, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, ArmSets]:
        """Theta, levels, theta with as much noise, shares of coordinates in the variance of a set, and the sets."""
        numbers = torch.arange(len(theta), device=theta.device)[part]
        task = numbers[randint(len(numbers), (num,), generator=generator).to(theta.device)]
        some = theta[task, randint(theta.shape[1], (num,), generator=generator).to(theta.device)]
        variances = self.past.variances[task].to(theta)
        sets = self.past.sets.some(task).to(theta.dtype)
        return (some, *with_noise(some, generator), variances / variances.sum(-1, keepdim=True), sets)

    def loss(self, weights: Mapping[str, Tensor], look: tuple[Tensor, Tensor, Tensor, Tensor, ArmSets]) -> Tensor:
        """Mean square of what is left of the residual, in the units of theta: one for a Gaussian theta."""
        theta, level, u, share, sets = look
        left = residual_target(theta, level, u) - self.network.at(weights, u, level, sets)
        return (left.square() * share).sum(-1).mean()

    def calibrated(
        self, network: AttentionDenoiser, theta: Tensor, part: slice, generator: Generator
    ) -> SetCalibration:
        sets, variances = self.past.sets.some(part).to(network.dtype), self.past.variances[part]
        return calibrated_on_sets(network, theta[part].double(), sets, variances, self.levels, generator)


def padded(parts: list[Tensor]) -> Tensor:
    """Stacked, with zeros where one is shorter along any axis."""
    if parts[0].ndim < 2:
        return pad_sequence(parts, batch_first=True)
    last = max(part.shape[-1] for part in parts)
    wide = [torch.cat([part, part.new_zeros(len(part), last - part.shape[-1])], -1) for part in parts]
    return pad_sequence(wide, batch_first=True)


@dataclass(frozen=True)
class PastSets:
    """See `PastTasks`.

    Args:
        start: that knows the process of these tasks, with a new network.
        tasks: in random order.
        schedule: how theta is drawn.
    """

    start: "NeuralDiffusionProcess"
    tasks: Data
    schedule: DiffusionSchedule

    def __len__(self) -> int:
        return len(self.tasks)

    @cached_property
    def groups(self) -> list[Group]:
        """The tasks by their arms."""
        return groups_of(self.tasks)

    @cached_property
    def learner(self) -> SetLearner:
        return SetLearner(self.start.network, self.start.noises.double(), Coordinates.of(self.start, self.groups))

    def white_theta(self, prior: "NeuralDiffusionProcess", generator: Generator) -> Tensor:
        """Zero for pads."""
        variances = self.learner.past.variances
        white = variances.new_zeros(len(variances), self.schedule.num_draws, variances.shape[-1])
        now = replace(prior, num_particles=self.schedule.num_particles)
        if not bool(now.gates.any()):
            now = above(now, len(now.noises) - 1)  # Gaussian, which one level says exactly
        for group in self.groups:
            at = now.of(group)
            with torch.no_grad():
                drawn = at.condition(group.rows).looked_at(generator).draw(self.schedule.num_draws, generator)
            mean, into = at.mean_and_whitening()
            coordinates = ((drawn - mean) @ into).movedim(0, 1)
            white[group.tasks, :, : coordinates.shape[-1]] = coordinates
        return white

    def held_out(self) -> "PastSets":
        num = num_held_out(len(self))
        unseen = _with_process(self.start, self.tasks[num:]) if num > 1 else self.start
        # its levels are compared by fewer particles than a posterior has, as attention is dear
        unseen = replace(unseen, num_particles=self.schedule.num_particles)
        return PastSets(unseen, self.tasks[:num], self.schedule)

    def evidence(self, prior: "NeuralDiffusionProcess", part: slice, generator: Generator) -> Tensor:
        groups = groups_of(self.tasks[part])
        each = [prior.of(group).condition(group.rows).looked_at(generator).log_evidence for group in groups]
        return _in_order(each, groups)

    def gaussian_evidence(self) -> Tensor:
        each = [self.start.of(group).arms.log_evidence(group.rows) for group in self.groups]
        return _in_order(each, self.groups).double()


@with_gradients
def learned_from_sets(
    prior: "NeuralDiffusionProcess", tasks: Data, schedule: DiffusionSchedule, generator: Generator, progress: bool
) -> "NeuralDiffusionProcess":
    """See `NeuralDiffusionProcess.fit`."""
    shuffled = tasks[random_order(len(tasks), generator)]
    network, begin = prior.network.anew(generator), gaussian_set_calibration(prior.noises.double())
    start = having(_with_process(prior, shuffled), network, begin)
    learned: NeuralDiffusionProcess = learned_from_past(
        PastSets(start, shuffled, schedule), schedule, generator, progress=progress
    )
    return learned


def _with_process(prior: "NeuralDiffusionProcess", tasks: Data) -> "NeuralDiffusionProcess":
    """With the Gaussian process that tasks teach, and what it takes for an arm of theirs to be seen."""
    process = prior.process.fit(tasks)
    num_arms = sum(group.rows.count.numel() for group in groups_of(tasks))
    least_var = process.noise_var * process.scale.square() * (num_arms / float(tasks.count.sum()))
    return replace(prior, process=process, least_var=least_var)


def _in_order(each: list[Tensor], groups: list[Group]) -> Tensor:
    """What is known of the tasks of each group, in the order of the tasks."""
    return torch.cat(each)[torch.cat([group.tasks for group in groups]).argsort()]
