r"""How a denoiser learns: to tell theta from theta with noise, at all levels alike.

Past tasks are seen through noise and in part, so theta is drawn for each of them from what the prior so far knows of
it: from the Gaussian first, and then from the diffusion prior itself, in turns. Draws of a Gaussian are more Gaussian
than theta is, and each turn brings them nearer. A fifth of the tasks is left out of a first run, says when to stop,
and calibrates.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from bayesmeta.diffusion.denoising.calibration import Calibration, calibrated
from bayesmeta.diffusion.denoising.denoiser import Denoiser, gaussian_guess, network_scale
from bayesmeta.diffusion.denoising.levels import LARGEST_NOISE, SMALLEST_NOISE
from bayesmeta.doors import require_count
from bayesmeta.networks.learning.ascent import Ascent, DivergedError, DivergedWarning, Steps
from bayesmeta.networks.learning.until_no_gain import learn_until_no_gain, num_held_out
from bayesmeta.random import rand, randint, randn
from bayesmeta.warning_kinds import warn

__all__ = [
    "DiffusionSchedule",
    "LearnedDenoiser",
    "Learner",
    "VectorLearner",
    "gaussian_calibration",
    "learn_denoiser",
    "learn_in_rounds",
    "residual_target",
    "warn_of_divergence",
    "with_noise",
]

NUM_INTERVALS = 40  # between looks at held-out tasks, in all steps
PATIENCE = 12  # looks in which they do not gain
NUM_LOOKS = 2048  # noisy vectors by which held-out tasks are looked at


@dataclass(frozen=True)
class DiffusionSchedule:
    """How a denoiser learns.

    Args:
        num_steps: at most; of each round from a stream.
        num_vectors: of theta with noise, of a step.
        rate: the highest.
        average: weight of earlier steps in the average that is learned.
        num_draws, num_particles: of theta for each task, and of the filter that draws it.
        num_rounds: in which theta is drawn anew; one where a stream says what theta is.
        num_tasks: of a stream, from which the Gaussian prior is learned; None takes 100,000 where the stream says what
            theta is, and 4000 where the Gaussian prior is fitted to rows.
        num_rows: of each task of a stream; None takes twice as many as theta has values.

    Raises:
        TypeError: a number is not whole.
        ValueError: a number is below one, the rate is not above zero, or the weight is not from zero to below one.
    """

    num_steps: int = 4000
    num_vectors: int = 256
    rate: float = 2e-3
    average: float = 0.995
    num_draws: int = 8
    num_particles: int = 64
    num_rounds: int = 3
    num_tasks: int | None = None
    num_rows: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_vectors", "num_draws", "num_particles", "num_rounds"):
            require_count(name, getattr(self, name))
        for name, least in (("num_tasks", 2), ("num_rows", 1)):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name), least)
        if not 0.0 < self.rate < math.inf:
            raise ValueError(f"rate must be finite and above zero; got {self.rate:g}")
        if not 0.0 <= self.average < 1.0:
            raise ValueError(f"average must be a weight from 0 to below 1; got {self.average:g}")

    @property
    def interval(self) -> int:
        return max(1, self.num_steps // NUM_INTERVALS)

    def steps(self) -> Steps:
        """Of the ascent."""
        return Steps(
            self.num_steps, self.rate, warm_up=0.03, longest=10.0, average=self.average, decay=1e-4, in_eigenbases=True
        )


DEFAULT = DiffusionSchedule()


class LearnedDenoiser(NamedTuple):
    """What learning leaves.

    Args:
        network: that learned from all tasks.
        without_held_out: that learned from those that are not held out.
        calibration: of the latter, by held-out tasks.
    """

    network: Any
    without_held_out: Any
    calibration: Any


@runtime_checkable
class Learner(Protocol):
    """What a kind of network learns from white theta of past tasks in one random order, `(tasks, draws, k)`."""

    def look(self, theta: Tensor, part: slice, num: int, generator: Generator) -> Any:
        """Noisy theta of a part of the tasks."""
        ...

    def loss(self, weights: Mapping[str, Tensor], look: Any) -> Tensor:
        """What a network with these weights leaves of it."""
        ...

    def calibrated(self, network: Any, theta: Tensor, part: slice, generator: Generator) -> Any:
        """What held-out tasks say of the answers of a network."""
        ...


DrawTheta = Callable[[Any, Any, Generator], Tensor]


class VectorLearner(NamedTuple):
    """Of vectors of one length: see `Learner`.

    Args:
        network: where learning starts.
        levels: at which it is calibrated.
    """

    network: Denoiser
    levels: Tensor

    def look(self, theta: Tensor, part: slice, num: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        return noisy(theta[part].flatten(0, 1), num, generator)

    def loss(self, weights: Mapping[str, Tensor], look: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Mean square of what is left of the residual, in the units of theta: one for a Gaussian theta."""
        theta, level, u = look
        left = residual_target(theta, level, u) - self.network.at(weights, u, level)
        return (left.square() @ self.network.scales.square()).mean()

    def calibrated(self, network: Denoiser, theta: Tensor, part: slice, generator: Generator) -> Calibration:
        return calibrated(network.module, theta[part], self.levels, generator)


def gaussian_calibration(levels: Tensor, size: int) -> Calibration:
    """Of a Gaussian theta: the network is not asked, and residuals are as wide as they are then."""
    var = levels.square() / (1.0 + levels.square())
    return Calibration(torch.zeros(len(levels), size).to(levels), var[:, None, None] * torch.eye(size).to(levels))


def learn_in_rounds(
    network: Any,
    calibration: Any,
    learner: Learner,
    draw_theta: DrawTheta,
    schedule: DiffusionSchedule,
    generator: Generator,
    *,
    progress: bool,
) -> LearnedDenoiser:
    """A network, and what held-out tasks say of it.

    Args:
        network: where learning starts in each round, so that none has seen the tasks that calibrate it.
        calibration: of the Gaussian prior.
        draw_theta: white theta of past tasks, in one random order, from what the prior says of them with a network and
            a calibration: `(tasks, draws, k)`.

    Warns:
        DivergedWarning: learning diverged, and ended with the best network so far.
    """
    learned = LearnedDenoiser(network, network, calibration)
    for _ in range(schedule.num_rounds):
        theta = draw_theta(learned.network, learned.calibration, generator)
        whole, without_held_out, has_ended = learn_denoiser(
            network, learner, theta, schedule, generator, progress=progress
        )
        found = learner.calibrated(without_held_out, theta, slice(num_held_out(len(theta))), generator)
        learned = LearnedDenoiser(whole, without_held_out, found)
        if not has_ended:
            break
    return learned


def learn_denoiser(
    network: Any, learner: Learner, theta: Tensor, schedule: DiffusionSchedule, generator: Generator, *, progress: bool
) -> tuple[Any, Any, bool]:
    """A network that learned from all tasks, and one that knows nothing of the first `num_held_out` of them.

    Where learning diverges, both are the best one that it met, and the third answer is false.

    Args:
        network: where learning starts.
        theta: white, of past tasks in random order `(tasks, draws, k)`.
    """
    theta = theta.to(next(iter(network.weights.values())))
    held_out = learner.look(theta, slice(num_held_out(len(theta))), NUM_LOOKS, Generator().manual_seed(0))
    best: dict[str, Any] = {"value": -torch.inf, "weights": dict(network.weights)}

    def learn(part: slice, enough: Callable[[dict[str, Tensor]], bool]) -> dict[str, Tensor]:
        def objective(weights: dict[str, Tensor]) -> Tensor:
            return -learner.loss(weights, learner.look(theta, part, schedule.num_vectors, generator))

        return Ascent(network.weights, objective, schedule.steps(), generator=generator).run(
            enough, interval=schedule.interval
        )

    def value(weights: dict[str, Tensor]) -> float:
        found = -float(learner.loss(weights, held_out))
        if found > best["value"]:
            best.update(value=found, weights=weights)
        return found

    has_ended = True
    try:
        weights = learn_until_no_gain(learn, value, len(theta), patience=PATIENCE, name="a denoiser", progress=progress)
    except DivergedError:
        weights, has_ended = best["weights"], False
        warn_of_divergence(schedule, "the best network that it met")
    return network.with_weights(weights), network.with_weights(best["weights"]), has_ended


def warn_of_divergence(schedule: DiffusionSchedule, left: str) -> None:
    """Say what the prior has after all."""
    warn(
        f"learning a denoiser met values that are no numbers again and again, and stopped: the prior has {left}, and "
        f"held-out tasks say what that is worth. Try a rate below {schedule.rate:g}",
        DivergedWarning,
    )


def noisy(theta: Tensor, num: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Some of the vectors of theta, levels, and theta with as much noise."""
    some = theta[randint(len(theta), (num,), generator=generator).to(theta.device)]
    return (some, *with_noise(some, generator))


def with_noise(theta: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Levels, and vectors of theta with as much noise."""
    low, high = (torch.tensor(level).log() for level in (SMALLEST_NOISE, LARGEST_NOISE))
    level = (low + (high - low) * rand((len(theta),), like=theta, generator=generator)).exp()
    return level, theta + level[:, None] * randn(theta.shape, like=theta, generator=generator)


def residual_target(theta: Tensor, level: Tensor, u: Tensor) -> Tensor:
    """What the network is to say, of variance one in each coordinate for a Gaussian theta."""
    return (theta - gaussian_guess(u, level)) / network_scale(level)[:, None]
