"""Diffusion priors that learn from a stream of Gaussian tasks which says what theta is.

- `stream`: what `fit` makes of it, the Gaussian prior where new tasks gain nothing from the network.
- `stream_network`: the same network with all of its levels and calibrated gates, whatever they are worth.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from bayesmeta import CorrelatedArms, Data, DiffusionPrior
from bayesmeta.diffusion.denoising.learning import gaussian_calibration
from bayesmeta.diffusion.fitting import having
from bayesmeta.diffusion.streamed_fitting import as_far_as_worth, denoiser_from_stream
from bayesmeta.diffusion.streamed_tasks import StreamedTasks
from benchmarks.diffusion.priors import LEARNING, STREAMED
from benchmarks.diffusion.truths import rows_by_count
from benchmarks.diffusion.work import Work, stream

__all__ = ["GaussianTasks", "learned_from_stream"]

NUM_JUDGING_PARTICLES = 128
NUM_STEPS = {"quick": 2000, "full": 10_000}


@dataclass(frozen=True)
class GaussianTasks:
    """Tasks of a Gaussian prior over arms, each of which shows all arms as often."""

    truth: CorrelatedArms

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        """Arms in turn."""
        num_arms = self.truth.num_arms
        count = torch.bincount(torch.arange(num_rows) % num_arms, minlength=num_arms).expand(num_tasks, -1)
        theta = self.draw_theta(num_tasks, generator=generator)
        return rows_by_count(theta, count.contiguous(), float(self.truth.noise_var.sqrt()), generator)

    def draw_theta(self, num_tasks: int, *, generator: Generator) -> Tensor:
        """See `bayesmeta.diffusion.KnowsTheta`."""
        return self.truth.sample_params(num_tasks, generator=generator)


def learned_from_stream(method: str, truth: CorrelatedArms, work: Work) -> tuple[DiffusionPrior, float]:
    """A prior by one of `STREAMED`, and the CPU-minutes of learning."""
    whole, minutes = _piece("stream_network", truth, work)
    if method == "stream_network":
        return whole, minutes
    chosen, more = _piece("stream", truth, work)
    return chosen, minutes + more


def _piece(method: str, truth: CorrelatedArms, work: Work) -> tuple[DiffusionPrior, float]:
    assert method in STREAMED
    make = {"stream": _chosen, "stream_network": _network}[method]

    def learn(_: Path) -> DiffusionPrior:
        work.say(f"{method} learns from Gaussian tasks of {truth.num_arms} arms")
        return make(truth, work)

    return work.pieces.learned(f"prior/exact/{truth.num_arms}/{method}", 1, learn)


def _network(truth: CorrelatedArms, work: Work) -> DiffusionPrior:
    how, tasks = LEARNING[work.budget], GaussianTasks(truth)
    first = tasks.draw(100, 2 * truth.num_arms, generator=stream(16, truth.num_arms))
    start = DiffusionPrior.initial(
        first, num_particles=NUM_JUDGING_PARTICLES, width=how.width, num_layers=how.num_layers
    )
    _, learned = denoiser_from_stream(_tasks(start, truth, work, 17), progress=False)
    return learned


def _chosen(truth: CorrelatedArms, work: Work) -> DiffusionPrior:
    learned, _ = _piece("stream_network", truth, work)
    start = having(learned, learned.network, gaussian_calibration(learned.noises, learned.basis.shape[-1]))
    return as_far_as_worth(start, learned, _tasks(learned, truth, work, 18))


def _tasks(prior: DiffusionPrior, truth: CorrelatedArms, work: Work, number: int) -> StreamedTasks:
    schedule = replace(LEARNING[work.budget].schedule, num_steps=NUM_STEPS[work.budget])
    return StreamedTasks(prior, GaussianTasks(truth), schedule, stream(number, truth.num_arms))
