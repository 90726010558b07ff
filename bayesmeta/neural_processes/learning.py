"""How neural processes learn: steps up the mean log probability of rows that are asked about, given others.

From past tasks a network learns until tasks that are held out gain no more, and then again from all tasks for as long
(`bayesmeta.networks.learning.until_no_gain`). From a stream it learns for as many steps as it is told, since no task
comes twice. Where the stream knows the exact moments of what is asked about, the expected log probability under these
takes the place of one draw: the same optimum with less noise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.data.samples import some_tasks
from bayesmeta.data.validation import require_enough_tasks
from bayesmeta.doors import require_rows
from bayesmeta.fields import LearnedFrom
from bayesmeta.networks.learning.ascent import Ascent, Steps
from bayesmeta.networks.learning.checkpoints import Checkpoint
from bayesmeta.networks.learning.progress_line import progress_line
from bayesmeta.networks.learning.until_no_gain import learn_until_no_gain, num_held_out
from bayesmeta.neural_processes.augmentation import Augmentation, Augmented
from bayesmeta.neural_processes.checkpoints import PastCheckpoint, stream_checkpoint
from bayesmeta.neural_processes.episodes import Episode, Episodes, Moments, PastEpisodes, StreamedEpisodes, TaskStream
from bayesmeta.neural_processes.heads import RealHead
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.random import randint

__all__ = ["Schedule", "calibrate", "learn", "mean_log_prob"]

NUM_INTERVALS = 50  # between looks at held-out tasks, in all steps
LONGEST = 100.0  # gradient, that is not shortened: SOAP minds its length, and only a stray one has to be caught
PATIENCE = 25  # looks in which they do not gain: half of all, for a network may learn nothing for long, and then much
NUM_LOOKS = 4  # episodes by which the noise is known, and, of each number of known rows, a temperature
MOST_HELD_OUT = 256  # tasks of an episode by which a temperature is known
LARGEST_LOG_TEMPERATURE = 3.0


@dataclass(frozen=True)
class Schedule:
    """How a neural process learns.

    Args:
        num_steps: at most.
        num_tasks: of a step.
        most_known: rows that may be known.
        num_asked: rows that are asked about, of each task of a step.
        rate: the highest.
        average: weight of earlier steps in the average that is learned.
    """

    num_steps: int = 10_000
    num_tasks: int = 16
    most_known: int = 48
    num_asked: int = 24
    rate: float = 4e-3
    average: float = 0.999

    @property
    def interval(self) -> int:
        """Steps between looks at held-out tasks."""
        return max(1, self.num_steps // NUM_INTERVALS)

    def steps(self) -> Steps:
        """Of the ascent."""
        return Steps(
            self.num_steps,
            self.rate,
            warm_up=0.03,
            longest=LONGEST,
            average=self.average,
            decay=1e-4,
            betas=(0.95, 0.95),
            in_eigenbases=True,
        )


DEFAULT = Schedule()


@with_gradients
def learn(
    prior: Any,
    tasks: Any,
    schedule: Schedule | None,
    generator: Generator | None,
    checkpoint: str | Path | None,
    *,
    augmentation: Augmentation | None,
    progress: bool,
) -> Any:
    """A neural process that has learned from past tasks, or from a stream of them.

    Raises:
        TypeError: `tasks` are neither, or `augmentation` is none.
        ValueError: fewer than two past tasks have rows, they are not of the prior's columns, a checkpoint is of another
            learning, or `prior` has a batch or has seen rows.
    """
    if prior.batch_shape or prior.has_seen_rows:
        raise ValueError(f"fit starts from a prior; got a posterior. Use {type(prior).__name__}.initial")
    schedule = schedule or DEFAULT
    generator = generator or Generator().manual_seed(0)
    path = None if checkpoint is None else Path(checkpoint)
    if not isinstance(augmentation, Augmentation | None):
        raise TypeError(f"augmentation must be an Augmentation or None; got {type(augmentation).__name__}")
    if isinstance(tasks, TaskStream):
        if augmentation is not None:
            raise ValueError("augmentation is of past tasks; a stream draws as many tasks as are wanted")
        return _from_stream(prior, tasks, schedule, generator, path, progress)
    require_rows(f"{type(prior).__name__}.fit", tasks, statistics=False)
    require_enough_tasks(tasks.count, prior.batch_shape)
    some = prior._checked(tasks[tasks.count > 0])
    weights = _from_past(prior, some, schedule, generator, path, augmentation, progress)
    episodes = PastEpisodes(some, schedule.num_tasks, schedule.num_asked, schedule.most_known)
    return _with(prior, weights, LearnedFrom.counts(tasks.count), episodes, generator, schedule.most_known)


def calibrate(prior: Any, held_out: Data, generator: Generator | None) -> Any:
    """With the temperature at which `held_out` are most probable; see `NeuralProcess.calibrated`."""
    if prior.batch_shape or prior.has_seen_rows:
        raise ValueError("a temperature is that of a prior; got a posterior")
    require_rows(f"{type(prior).__name__}.calibrated", held_out, statistics=False)
    tasks = prior._checked(held_out[held_out.count > 0])
    if not len(tasks):
        raise ValueError("a temperature is fitted to rows of held-out tasks, and none of these has any")
    generator = generator or Generator().manual_seed(0)
    most = int(tasks.count.max()) - 1
    episodes = PastEpisodes(tasks, MOST_HELD_OUT, DEFAULT.num_asked, max(most, 1))
    looks = [episodes.draw(num, generator) for num in _spread_over(most) for _ in range(NUM_LOOKS)]
    with torch.no_grad():
        answers = [prior.condition(Data(look.x, look.y, look.mask))._outputs(look.x_asked) for look in looks]

    @torch.no_grad()
    def loss(log_temperature: float) -> float:
        warmer = replace(prior, head=replace(prior.head, temperature=math.exp(log_temperature)))
        scores = [_score(warmer._prediction(answer), look) for answer, look in zip(answers, looks, strict=True)]
        return -float(torch.stack(scores).mean())

    best = minimize_scalar(loss, bounds=(-LARGEST_LOG_TEMPERATURE, LARGEST_LOG_TEMPERATURE), method="bounded")
    return replace(prior, head=replace(prior.head, temperature=math.exp(best.x)))


def _score(prediction: Distribution, episode: Episode) -> Tensor:
    """Mean log probability of the rows that are asked about."""
    log_prob = prediction.log_prob(episode.y_asked)
    return (log_prob * episode.mask_asked).sum() / episode.mask_asked.sum()


def _from_stream(
    prior: Any, stream: Any, schedule: Schedule, generator: Generator, path: Path | None, progress: bool
) -> Any:
    episodes = StreamedEpisodes(stream, schedule.num_tasks, schedule.num_asked)
    checkpoint = None if path is None else stream_checkpoint(path)
    ascent = _ascent(prior, episodes, schedule, generator, checkpoint)
    with progress_line("learning a neural process", shown=progress) as say:

        def look(_: dict[str, Tensor]) -> bool:
            say(f"learning a neural process: step {ascent.step}, {ascent.value:.3f} per row")
            return False

        weights = ascent.run(look, interval=schedule.interval)
    num = schedule.num_steps * schedule.num_tasks
    seen = LearnedFrom(num, num * (schedule.most_known // 2 + schedule.num_asked))
    return _with(prior, weights, seen, episodes, generator, schedule.most_known)


def _from_past(
    prior: Any,
    tasks: Data,
    schedule: Schedule,
    generator: Generator,
    path: Path | None,
    augmentation: Augmentation | None,
    progress: bool,
) -> dict[str, Tensor]:
    how = {"schedule": schedule, "augmentation": augmentation or Augmentation()}
    checkpoint = None if path is None else PastCheckpoint(path, tasks, prior.network.weights, how, generator)
    shuffled = some_tasks(tasks, len(tasks), generator)
    held_out = PastEpisodes(shuffled[: num_held_out(len(tasks))], 64, schedule.num_asked, schedule.most_known)
    looks = [held_out.draw(num, generator) for num in _spread_over(schedule.most_known)]

    def learn_part(part: slice, enough: Any) -> dict[str, Tensor]:
        some = shuffled[part]
        changed = None if augmentation is None else Augmented(augmentation, some, prior.inputs, prior.head)
        episodes = PastEpisodes(some, schedule.num_tasks, schedule.num_asked, schedule.most_known, changed)
        return _ascent(prior, episodes, schedule, generator, checkpoint).run(enough, interval=schedule.interval)

    def value(weights: dict[str, Tensor]) -> float:
        each = [mean_log_prob(prior, weights, look, Generator().manual_seed(0)) for look in looks]
        return float(torch.stack(each).mean())

    return learn_until_no_gain(
        learn_part,
        value,
        len(tasks),
        patience=PATIENCE,
        name="a neural process",
        progress=progress,
        standing=None if checkpoint is None else checkpoint.standing,
    )


def _ascent(
    prior: Any, episodes: Episodes, schedule: Schedule, generator: Generator, checkpoint: Checkpoint | None
) -> Ascent:
    def objective(weights: dict[str, Tensor]) -> Tensor:
        num_known = int(randint(schedule.most_known + 1, (), generator=generator))
        return mean_log_prob(prior, weights, episodes.draw(num_known, generator), generator)

    start = {name: value.float() for name, value in prior.network.weights.items()}
    return Ascent(start, objective, schedule.steps(), generator=generator, checkpoint=checkpoint)


def mean_log_prob(prior: Any, weights: Mapping[str, Tensor], episode: Episode, generator: Generator) -> Tensor:
    """Per row that is asked about."""
    total = prior._log_prob(dict(weights), _standardised(prior, episode), generator)
    return total.sum() / episode.mask_asked.sum()


def _standardised(prior: Any, episode: Episode) -> Episode:
    """In float32, but no earlier: known rows as networks see them, and the others in units of the head."""
    episode = episode.to(prior.network.device)
    head, moments = prior.head, episode.moments
    if moments is not None:
        mean = head.standardised(moments.mean).float()
        moments = Moments(mean, (moments.var / head.scale.square()).float())
    return episode._replace(
        x=prior.inputs(episode.x).float(),
        y=head.seen(episode.y).float(),
        x_asked=prior.inputs(episode.x_asked).float(),
        y_asked=head.standardised(episode.y_asked).float(),
        moments=moments,
    )


def _with(
    prior: Any, weights: Mapping[str, Tensor], learned_from: LearnedFrom, episodes: Any, generator: Generator, most: int
) -> Any:
    network = prior.network.with_weights({name: value.to(prior.dtype) for name, value in weights.items()})
    learned = replace(prior, network=network, learned_from=learned_from)
    if prior.knows_functions or not isinstance(prior.head, RealHead):
        return learned
    noise_var = _noise_var(learned, [episodes.draw(most, generator) for _ in range(NUM_LOOKS)])
    return replace(learned, head=replace(prior.head, noise_var=noise_var.to(prior.head.scale)))


@torch.no_grad()
def _noise_var(prior: Any, episodes: list[Episode]) -> Tensor:
    """Variance of y about the function, as the network sees it.

    Of two values of y at one x, the function is what they have in common. So how far the mean moves, once a first
    value there is known to be a standard deviation higher, is the share of the function in the variance.
    """
    found = []
    for episode in episodes:
        posterior = prior.condition(Data(episode.x, episode.y, episode.mask).to(prior.dtype))
        x = episode.x_asked.to(prior.dtype)
        prediction = posterior.predict(x)
        moves = posterior._moves(x, prediction, x[..., None, :])[..., 0]
        share = (moves / prediction.stddev).clamp(0.0, 1.0)
        found.append(((1.0 - share) * prediction.variance)[episode.mask_asked])
    return torch.cat(found).median()


def _spread_over(most: int) -> list[int]:
    """Numbers of known rows by which held-out tasks are looked at."""
    return sorted({round(most * share) for share in (0.0, 0.1, 0.25, 0.5, 1.0)})
