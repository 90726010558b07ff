"""How a diffusion prior is learned from past tasks, and when the Gaussian prior is left instead.

What past tasks are is theirs to say, `PastTasks`: rows of one list of arms or of weights
(`bayesmeta.diffusion.past_vectors`), or arms of each task's own (`bayesmeta.diffusion.featured.fitting`).
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from bayesmeta.diffusion.denoising.learning import DiffusionSchedule, Learner, learn_in_rounds
from bayesmeta.diffusion.denoising.worth import lowest_level
from bayesmeta.diffusion.sampling.tempering import TemperedWarning

__all__ = ["PastTasks", "above", "evidence_by_level", "having", "learned_from_past", "worth_having"]


@runtime_checkable
class PastTasks(Protocol):
    """Past tasks in one random order, and the prior that learning begins from."""

    def __len__(self) -> int:
        """How many."""
        ...

    @property
    def start(self) -> Any:
        """A Gaussian prior that knows these tasks, with a new network."""
        ...

    @property
    def learner(self) -> Learner:
        """Of its network."""
        ...

    def white_theta(self, prior: Any, generator: Generator) -> Tensor:
        """Draws of theta given the rows of each task, in white units `(tasks, draws, k)`."""
        ...

    def held_out(self) -> "PastTasks":
        """Those that are not learned from, with a prior that has seen none of them."""
        ...

    def evidence(self, prior: Any, part: slice, generator: Generator) -> Tensor:
        """Log evidence of some of the tasks, by noise of each task's own.

        Errors that tasks share would pass for a gain, or for a loss, of all.
        """
        ...

    def gaussian_evidence(self) -> Tensor:
        """Of each task, under the Gaussian prior."""
        ...


def learned_from_past(past: PastTasks, schedule: DiffusionSchedule, generator: Generator, *, progress: bool) -> Any:
    """A prior with what past tasks say beside the Gaussian one, if held-out tasks gain by it."""
    start = past.start

    def draw_theta(network: Any, calibration: Any, generator: Generator) -> Tensor:
        return past.white_theta(having(start, network, calibration), generator)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemperedWarning)  # by a network that is still learning
        found = learn_in_rounds(
            start.network, start.calibration, past.learner, draw_theta, schedule, generator, progress=progress
        )
        lowest = _lowest_level(past.held_out(), found.without_held_out, generator)
    return worth_having(start, having(start, found.network, found.calibration), lowest)


def _lowest_level(held_out: PastTasks, network: Any, generator: Generator) -> int | None:
    """The one below which there is no gain, see `lowest_level`.

    Each half of the held-out tasks is judged by what the other half calibrates.

    Args:
        network: that has seen none of the tasks: whoever saw a task finds it too probable.
    """
    half = len(held_out) // 2
    if not half:
        return None
    prior, each = replace(held_out.start, network=network), []
    theta = held_out.white_theta(prior, generator)
    for judged, judge in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        made = having(prior, network, held_out.learner.calibrated(network, theta, judge, generator))

        def evidence(prior: Any, judged: slice = judged) -> Tensor:
            return held_out.evidence(prior, judged, generator)

        each.append(evidence_by_level(made, evidence))
    return lowest_level(torch.cat(each, -1), held_out.gaussian_evidence())


@torch.no_grad()
def evidence_by_level(prior: Any, evidence: Callable[[Any], Tensor]) -> Tensor:
    """What tasks have without the levels below each one `(levels, tasks)`."""
    return torch.stack([evidence(above(prior, level)) for level in range(len(prior.noises))])


def having(prior: Any, network: Any, calibration: Any, **changes: Any) -> Any:
    """With a network and its calibration."""
    return replace(prior, network=network, **calibration._asdict(), **changes)


def worth_having(start: Any, learned: Any, lowest: int | None) -> Any:
    """The learned prior without the levels below one; the Gaussian one where none is worth having."""
    if lowest is None or not bool(learned.gates.any()):
        return above(start, len(start.noises) - 1)
    return above(learned, lowest)


def above(prior: Any, level: int) -> Any:
    """Without the levels below one."""
    parts = {name: part[level:] for name, part in prior.calibration._asdict().items()}
    return replace(prior, noises=prior.noises[level:], **parts)
