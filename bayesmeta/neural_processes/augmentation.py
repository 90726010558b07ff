"""More tasks than there are: past tasks that are changed in ways which a new task could differ, where tasks are few.

Each is an assumption about tasks, and off unless it is asked for. What they gain, and where they hurt, is measured in
`docs/neural-processes.md`.

Source of the interpolation between tasks, here by the nearest rows: Yao et al., Meta-learning with fewer tasks through
task interpolation (2022).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.networks.embeddings import Inputs
from bayesmeta.neural_processes.heads import Head, RealHead
from bayesmeta.random import randint

__all__ = ["Augmentation", "Augmented"]


@dataclass(frozen=True)
class Augmentation:
    """How past tasks are changed each time that a network learns from them.

    Args:
        interpolation: share of tasks that are mixed with another one, by a weight uniform on (0, 1). Each row is mixed
            with the row of the other task whose x is nearest. Sensible where the mean of two functions could be a
            function.
        jitter: standard deviation of what is added to x, in standard deviations of each column; categories stay.
            Sensible where functions are smooth on that scale.
        log_scale: standard deviation of the log of a factor of y, one for each task.
        shift: standard deviation of what is added to y, in standard deviations of y, once for each task. With
            `log_scale`, sensible where units of y differ between tasks.

    Raises:
        ValueError: `interpolation` is no share, or another is negative or not finite.
    """

    interpolation: float = 0.0
    jitter: float = 0.0
    log_scale: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.interpolation <= 1.0:
            raise ValueError(f"interpolation must be a share of tasks, from 0 to 1; got {self.interpolation}")
        for name in ("jitter", "log_scale", "shift"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be zero or more, and finite; got {getattr(self, name)}")


class Augmented:
    """Rows of past tasks as an `Augmentation` changes them.

    Args:
        how: they are changed.
        tasks: all of them, on one axis.
        inputs, head: their scales.

    Raises:
        ValueError: y of the head cannot be changed so.
    """

    def __init__(self, how: Augmentation, tasks: Data, inputs: Inputs, head: Head) -> None:
        if (how.interpolation or how.log_scale or how.shift) and not isinstance(head, RealHead):
            raise ValueError(
                f"{type(head).__name__} is of y that cannot be mixed, scaled or shifted; of Augmentation, jitter alone "
                "goes with it"
            )
        self.how, self.tasks, self.inputs, self.head = how, tasks, inputs, head

    def __call__(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Rows `(b, n, d)` and `(b, n, *event)`, each first entry a task; pads are changed as other rows are."""
        if self.how.interpolation:
            x, y = self._mixed(x, y, generator)
        if self.how.jitter:
            x = x + self.how.jitter * self._widths(x) * _drawn(torch.randn, tuple(x.shape), x, generator)
        if self.how.log_scale or self.how.shift:
            factor = (self.how.log_scale * _drawn(torch.randn, (len(y), 1), y, generator)).exp()
            added = self.how.shift * _drawn(torch.randn, (len(y), 1), y, generator)
            y = self.head.centre + factor * (y - self.head.centre) + added * self.head.scale
        return x, y

    def _mixed(self, x: Tensor, y: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Rows between those of a task and the nearest ones of another."""
        other = self.tasks[randint(len(self.tasks), (len(x),), generator=generator).to(x.device)]
        far = torch.cdist(self.inputs(x), self.inputs(other.x)).masked_fill(~other.mask[:, None], torch.inf)
        nearest = far.argmin(-1)
        other_x, other_y = other.x.take_along_dim(nearest[..., None], 1), other.y.take_along_dim(nearest, 1)
        chosen, weight = _drawn(torch.rand, (2, len(x), 1), y, generator)
        weight = weight * (chosen < self.how.interpolation)
        moves = (self._widths(x) > 0.0).to(x)
        return torch.lerp(x, other_x, weight[..., None] * moves), torch.lerp(y, other_y, weight)

    def _widths(self, x: Tensor) -> Tensor:
        """Standard deviation of each column, zero for categories."""
        widths = self.inputs.scale.clone()
        widths[list(self.inputs.categories)] = 0.0
        return widths.to(x)


def _drawn(draw: Callable[..., Tensor], shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    """Random numbers where the generator is, taken to where they are needed."""
    return draw(shape, dtype=like.dtype, device=generator.device, generator=generator).to(like.device)
