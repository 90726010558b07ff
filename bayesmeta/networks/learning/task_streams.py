"""Streams of tasks: what a network learns from where tasks can be drawn at will, by a prior or by a simulator.

A network that sees no task twice cannot learn one by heart, so nothing is left out, and tasks that judge what it has
learned are drawn when they are needed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.random import seeded

__all__ = ["PriorTasks", "TaskStream", "drawn_from"]


@runtime_checkable
class TaskStream(Protocol):
    """Tasks that are drawn anew each time it is asked: a prior, or a simulator."""

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        """Tasks without pads, their rows in random order."""
        ...


@dataclass(frozen=True)
class PriorTasks:
    """Tasks that a prior expects: what a network learns from them is an approximation of that prior.

        TransformerNeuralProcess.initial(stream.draw(...)).fit(stream)

    Args:
        prior: without a batch; each task is a draw of a function and noise.
        inputs: of so many tasks and rows, by a generator: `(num_tasks, num_rows, d)`.
    """

    prior: Any
    inputs: Callable[[int, int, Generator], Tensor]

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        x = self.inputs(num_tasks, num_rows, generator)
        functions = self.prior.expand((num_tasks,)).sample(1, generator=generator)
        with seeded(generator):
            y = functions.predict(x).sample()[0]
        return Data.of(x, y, event_dim=len(self.prior.event_shape))


def drawn_from(stream: TaskStream, num_tasks: int, num_rows: int, generator: Generator) -> Data:
    """Tasks of a stream, of which there are as many as it was asked for.

    Raises:
        TypeError: it returned no `Data`.
        ValueError: it returned other numbers of tasks or rows.
    """
    tasks, name = stream.draw(num_tasks, num_rows, generator=generator), type(stream).__name__
    if not isinstance(tasks, Data):
        raise TypeError(f"{name}.draw must return Data; got {type(tasks).__name__}. Make it by Data.of(x, y)")
    if tuple(tasks.mask.shape) != (num_tasks, num_rows):
        raise ValueError(
            f"{name}.draw was asked for {num_tasks} tasks of {num_rows} rows; got shape {tuple(tasks.mask.shape)}"
        )
    return tasks
