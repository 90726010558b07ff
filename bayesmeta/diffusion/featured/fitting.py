"""How a diffusion prior over arms with features is learned, and when the Gaussian process is left instead.

As in `bayesmeta.diffusion.fitting`, with the arms of each past task in the place of one list of arms.
"""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.utils.rnn import pad_sequence

from bayesmeta.data.rows import Data
from bayesmeta.data.samples import random_order
from bayesmeta.diffusion.denoising.attention import ArmSets, AttentionDenoiser
from bayesmeta.diffusion.denoising.learning import (
    DiffusionSchedule,
    learn_in_rounds,
    residual_target,
    with_noise,
)
from bayesmeta.diffusion.denoising.worth import lowest_level
from bayesmeta.diffusion.featured.calibration import SetCalibration, calibrated_on_sets, gaussian_set_calibration
from bayesmeta.diffusion.featured.past_sets import Group, groups_of
from bayesmeta.diffusion.sampling.tempering import TemperedWarning
from bayesmeta.networks.learning.until_no_gain import num_held_out
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.random import randint

if TYPE_CHECKING:
    from bayesmeta.diffusion.featured.process import NeuralDiffusionProcess

__all__ = ["DEFAULT", "learned_from_sets"]

# attention over arms costs as many times what a vector does as there are arms, and has learned after fewer steps
DEFAULT = DiffusionSchedule(num_steps=1000, num_vectors=64, num_draws=4, num_particles=32)


class PastSets(NamedTuple):
    """Arms of past tasks, padded.

    Args:
        groups: the tasks by their arms.
        sets: the arms of each task.
        variances: of the coordinates of each task, zero for pads `(tasks, r)`.
    """

    groups: list[Group]
    sets: ArmSets
    variances: Tensor

    @classmethod
    def of(cls, prior: "NeuralDiffusionProcess", tasks: Data) -> "PastSets":
        groups = groups_of(tasks)
        sets, variances = [], []
        for group in groups:
            _, var, _, arms = prior.at(group.features)
            sets += [arms] * len(group.tasks)
            variances += [var] * len(group.tasks)
        order = torch.cat([group.tasks for group in groups]).argsort()
        parts = zip(*sets, strict=True)
        return cls(groups, ArmSets(*(padded(list(part))[order] for part in parts)), padded(variances)[order])


class SetLearner(NamedTuple):
    """What a network over arms learns: see `Learner`."""

    network: AttentionDenoiser
    levels: Tensor
    past: PastSets

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


@with_gradients
def learned_from_sets(
    prior: "NeuralDiffusionProcess", tasks: Data, schedule: DiffusionSchedule, generator: Generator, progress: bool
) -> "NeuralDiffusionProcess":
    """See `NeuralDiffusionProcess.fit`."""
    shuffled = tasks[random_order(len(tasks), generator)]
    levels, network = prior.noises.double(), prior.network.anew(generator)
    begin = gaussian_set_calibration(levels)
    start = _having(_with_process(prior, shuffled), network, begin)
    past, num = PastSets.of(start, shuffled), num_held_out(len(shuffled))

    def draw_theta(network: AttentionDenoiser, calibration: SetCalibration, generator: Generator) -> Tensor:
        return _white_theta(_having(start, network, calibration), past, schedule, generator)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemperedWarning)  # by a network that is still learning
        learner = SetLearner(network, levels, past)
        found = learn_in_rounds(network, begin, learner, draw_theta, schedule, generator, progress=progress)
        unseen = _with_process(start, shuffled[num:]) if num > 1 else start
        unseen = _having(unseen, found.without_held_out, begin)
        lowest = _lowest_level(unseen, shuffled[:num], schedule, generator)
    if lowest is None or not bool(found.calibration.gates.any()):
        return _above(start, len(levels) - 1)
    return _above(_having(start, found.network, found.calibration), lowest)


def _with_process(prior: "NeuralDiffusionProcess", tasks: Data) -> "NeuralDiffusionProcess":
    """With the Gaussian process that tasks teach, and what it takes for an arm of theirs to be seen."""
    process = prior.process.fit(tasks)
    num_arms = sum(group.rows.count.numel() for group in groups_of(tasks))
    least_var = process.noise_var * process.scale.square() * (num_arms / float(tasks.count.sum()))
    return replace(prior, process=process, least_var=least_var)


def _having(
    prior: "NeuralDiffusionProcess", network: AttentionDenoiser, calibration: SetCalibration
) -> "NeuralDiffusionProcess":
    return replace(prior, network=network, **calibration._asdict())


def _white_theta(
    prior: "NeuralDiffusionProcess", past: PastSets, schedule: DiffusionSchedule, generator: Generator
) -> Tensor:
    """Draws for tasks in white coordinates, zero for pads `(tasks, draws, r)`."""
    white = past.variances.new_zeros(len(past.variances), schedule.num_draws, past.variances.shape[-1])
    now = replace(prior, num_particles=schedule.num_particles)
    if not bool(now.gates.any()):
        now = _above(now, len(now.noises) - 1)  # Gaussian, which one level says exactly
    for group in past.groups:
        at = now.of(group)
        with torch.no_grad():
            drawn = at.condition(group.rows).looked_at(generator).draw(schedule.num_draws, generator)
        mean, into = at.mean_and_whitening()
        coordinates = ((drawn - mean) @ into).movedim(0, 1)
        white[group.tasks, :, : coordinates.shape[-1]] = coordinates
    return white


def _lowest_level(
    prior: "NeuralDiffusionProcess", held_out: Data, schedule: DiffusionSchedule, generator: Generator
) -> int | None:
    """The one below which there is no gain, as in `bayesmeta.diffusion.fitting`."""
    half = len(held_out) // 2
    if not half:
        return None
    prior = replace(prior, num_particles=schedule.num_particles)
    past, levels, each = PastSets.of(prior, held_out), prior.noises.double(), []
    theta, learner = _white_theta(prior, past, schedule, generator), SetLearner(prior.network, levels, past)
    for judged, judge in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        made = _having(prior, prior.network, learner.calibrated(prior.network, theta, judge, generator))
        groups = groups_of(held_out[judged])
        each.append(torch.stack([_evidence(_above(made, i), groups, generator) for i in range(len(levels))]))
    gaussian = _gaussian_evidence(prior, past.groups)
    return lowest_level(torch.cat(each, -1), gaussian)


def _evidence(prior: "NeuralDiffusionProcess", groups: list[Group], generator: Generator) -> Tensor:
    """By noise of each task's own: errors that tasks share would pass for a gain, or for a loss, of all."""
    with torch.no_grad():
        each = [prior.of(group).condition(group.rows).looked_at(generator).log_evidence for group in groups]
    return torch.cat(each)[torch.cat([group.tasks for group in groups]).argsort()]


def _gaussian_evidence(prior: "NeuralDiffusionProcess", groups: list[Group]) -> Tensor:
    each = [prior.of(group).arms.log_evidence(group.rows) for group in groups]
    return torch.cat(each)[torch.cat([group.tasks for group in groups]).argsort()].double()


def _above(prior: "NeuralDiffusionProcess", level: int) -> "NeuralDiffusionProcess":
    """Without the levels below one."""
    return replace(
        prior,
        noises=prior.noises[level:],
        gates=prior.gates[level:],
        residual_factors=prior.residual_factors[level:],
    )
