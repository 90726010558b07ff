"""Episodes: tasks of which some rows are known and others are asked about, as a network learns from them.

In each step another number of rows is known, from none to the most, and each task has its share of it if it has fewer
rows. Rows are known in random order, so any of the first ones are a random choice.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.networks.learning.task_streams import PriorTasks, TaskStream, drawn_from
from bayesmeta.neural_processes.augmentation import Augmented
from bayesmeta.random import randint

__all__ = [
    "Episode",
    "Episodes",
    "KnowsMoments",
    "Moments",
    "PastEpisodes",
    "PriorTasks",
    "StreamedEpisodes",
    "TaskStream",
]


class Moments(NamedTuple):
    """Exact mean and variance of what is asked about, once the first j known rows were seen: `(b, t, k + 1)` each."""

    mean: Tensor
    var: Tensor


class Episode(NamedTuple):
    """Some tasks in part.

    Args:
        x, y: of rows that can be known `(b, k, d)` and `(b, k, *event)`.
        mask: which are real `(b, k)`, the first ones of each task.
        x_asked, y_asked, mask_asked: of rows that are asked about.
        moments: of these, where the stream knows them.
    """

    x: Tensor
    y: Tensor
    mask: Tensor
    x_asked: Tensor
    y_asked: Tensor
    mask_asked: Tensor
    moments: Moments | None = None

    def to(self, device: torch.device) -> "Episode":
        """On a device."""
        moments = self.moments
        return Episode(
            self.x.to(device),
            self.y.to(device),
            self.mask.to(device),
            self.x_asked.to(device),
            self.y_asked.to(device),
            self.mask_asked.to(device),
            None if moments is None else Moments(moments.mean.to(device), moments.var.to(device)),
        )


@runtime_checkable
class KnowsMoments(TaskStream, Protocol):
    """A stream that can say what a perfect learner would predict."""

    def draw_with_moments(
        self, num_tasks: int, num_known: int, num_asked: int, *, generator: Generator
    ) -> tuple[Data, Moments]:
        """Tasks of `num_known + num_asked` rows, and moments of the last `num_asked` given the first ones."""
        ...


@runtime_checkable
class Episodes(Protocol):
    """Where episodes come from."""

    def draw(self, num_known: int, generator: Generator) -> Episode:
        """An episode in which at most so many rows are known."""
        ...


@dataclass(frozen=True)
class PastEpisodes:
    """Episodes of past tasks.

    Args:
        tasks: on one axis, all with rows.
        num_tasks, num_asked: of an episode, at most.
        most_known: rows that are ever known.
        augmented: what becomes of the rows of an episode; None leaves them as they are.
    """

    tasks: Data
    num_tasks: int
    num_asked: int
    most_known: int
    augmented: Augmented | None = None

    def draw(self, num_known: int, generator: Generator) -> Episode:
        device = self.tasks.y.device
        tasks = self.tasks[randint(len(self.tasks), (self.num_tasks,), generator=generator).to(device)]
        keys = torch.rand(tasks.mask.shape, generator=generator, device=generator.device).to(device)
        order = keys.masked_fill(~tasks.mask, 2.0).argsort(-1)
        share = num_known / max(self.most_known, 1)
        least = torch.minimum(tasks.count - 1, torch.full_like(tasks.count, num_known))
        known = torch.minimum((share * tasks.count).floor().long(), least)
        width = int(known.max())
        asked = torch.minimum(tasks.count - known, torch.full_like(known, self.num_asked))
        at = known[:, None] + torch.arange(int(asked.max()), device=device)
        rest = order.gather(1, at.clamp(max=order.shape[1] - 1))
        x, y = _rows(tasks, torch.cat([order[:, :width], rest], 1))
        if self.augmented is not None:
            x, y = self.augmented(x, y, generator)
        return Episode(
            x[:, :width],
            y[:, :width],
            torch.arange(width, device=device) < known[:, None],
            x[:, width:],
            y[:, width:],
            torch.arange(at.shape[1], device=device) < asked[:, None],
        )


@dataclass(frozen=True)
class StreamedEpisodes:
    """Episodes of tasks that are drawn anew, so that none is seen twice.

    Args:
        stream: draws them.
        num_tasks, num_asked: of an episode.
    """

    stream: TaskStream
    num_tasks: int
    num_asked: int

    def draw(self, num_known: int, generator: Generator) -> Episode:
        moments = None
        if isinstance(self.stream, KnowsMoments):
            tasks, moments = self.stream.draw_with_moments(
                self.num_tasks, num_known, self.num_asked, generator=generator
            )
        else:
            tasks = drawn_from(self.stream, self.num_tasks, num_known + self.num_asked, generator)
        known, asked = tasks.rows(slice(0, num_known)), tasks.rows(slice(num_known, None))
        return Episode(known.x, known.y, known.mask, asked.x, asked.y, asked.mask, moments)


def _rows(tasks: Data, at: Tensor) -> tuple[Tensor, Tensor]:
    x = tasks.x.take_along_dim(at[..., None], 1)
    return x, tasks.y.take_along_dim(at.reshape(*at.shape, *[1] * len(tasks.event_shape)), 1)
