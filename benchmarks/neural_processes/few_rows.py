"""A neural process that keeps the rows which told it something, and so stays cheap over thousands of decisions.

A reward that was known before it came teaches nothing. So a row is kept only if the reward was uncertain, or was not
the one that was expected; of these, the latest. A posterior that forgot too much is uncertain again where it forgot,
and rows are kept there again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta import Data, TransformerNeuralProcess
from bayesmeta.neural_processes.base import KeepsSums
from bayesmeta.online.protocol import DrawsFunctions, Index, State, Task
from bayesmeta.random import randn

__all__ = ["FewRows", "OnlineFewRows"]


@dataclass(frozen=True, eq=False)
class FewRows:
    """A prior of policies.

    Args:
        process: a neural process without rows.
        most: rows of a task that are kept.
        least: how far off an expected reward has to be, or its standard deviation, for a row to be kept.
        filled: arms that get a row each when a row is kept, the last column of x being the arm: rewards of the others
            are standard normal noise. None for the one row; else `most` is a multiple of it.
    """

    process: Any
    most: int
    least: float
    filled: int | None = None

    def online(self, batch_shape: Sequence[int]) -> "OnlineFewRows":
        return OnlineFewRows(self, batch_shape)


class OnlineFewRows(DrawsFunctions):
    """Posterior of tasks on one axis, which is looked at again only where a row was kept."""

    def __init__(self, prior: FewRows, batch_shape: Sequence[int]) -> None:
        self.prior, self.batch_shape = prior, torch.Size(batch_shape)
        (num,) = self.batch_shape
        like = prior.process.inputs.centre
        self._x = like.new_zeros(num, prior.most, prior.process.num_inputs)
        self._y = like.new_zeros(num, prior.most)
        self.num_kept = torch.zeros(num, dtype=torch.long)  # times that something was kept
        self._noise = Generator().manual_seed(0)
        self._every = torch.arange(num)
        self._now: Any = None

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        """Keep those of the rows, each of another task, that were not known before."""
        (task,) = index
        x, y = x.to(self._x), y.to(self._y)
        expected = self.marginal(x[:, None], task)
        least = self.prior.least
        keep = ((expected.stddev[:, 0] > least) | ((y - expected.mean[:, 0]).abs() > least)).nonzero()[:, 0]
        if not len(keep):
            return
        entry = task[keep]
        rows_x, rows_y = self._round(x[keep], y[keep])
        size = rows_y.shape[-1]
        place = (size * self.num_kept[entry, None] + torch.arange(size)) % self.prior.most
        self._x[entry[:, None], place], self._y[entry[:, None], place] = rows_x, rows_y
        self.num_kept[entry] += 1
        self._now = self._looked_at_again(entry)

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return self._at(task, len(x)).marginal(x.to(self._x))

    def posterior(self, index: Any = ...) -> Any:
        num = self.num_kept[index] * (self.prior.filled or 1)
        mask = torch.arange(self.prior.most) < num[..., None]
        return self.prior.process.condition(Data(self._x[index], self._y[index], mask))

    def state_dict(self) -> State:
        return {"x": self._x, "y": self._y, "num_kept": self.num_kept}

    def load_state_dict(self, state: State) -> None:
        self._x, self._y, self.num_kept = (state[name].clone() for name in ("x", "y", "num_kept"))
        self._now = None

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Callable[[Tensor], Tensor]:
        draws: Callable[[Tensor], Tensor] = self._at(task, len(x)).sample(1, generator=generator)
        return lambda rows: draws(rows.to(self._x))

    def _at(self, task: Task, num: int) -> Any:
        """The posterior of each decision's task: that of all tasks is kept until one of them changes."""
        if task is not None and not (isinstance(task, Tensor) and torch.equal(task, self._every)):
            return self.posterior(torch.full((num,), task) if isinstance(task, int) else task)
        if self._now is None:
            self._now = self.posterior()
        return self._now

    def _round(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Rows `(m, d)` and `(m,)` with those that are kept beside each: `(m, rows, d)` and `(m, rows)`."""
        if self.prior.filled is None:
            return x[:, None], y[:, None]
        arms = torch.arange(self.prior.filled).to(x)
        context = x[:, None, :-1].expand(-1, len(arms), -1)
        every = torch.cat([context, arms[:, None].expand(len(x), -1, -1)], -1)
        noise = randn((len(x), len(arms)), like=y, generator=self._noise)
        return every, torch.where(x[:, -1:] == arms, y[:, None], noise)

    def _looked_at_again(self, entry: Tensor) -> Any:
        """The posterior of all tasks, of which some have changed: what a network makes of the rows of others stays."""
        old, some = self._at(None, len(self._every)), self.posterior(entry)
        if isinstance(some, KeepsSums):
            sums = {name: _with_some(getattr(old, name), getattr(some, name), entry) for name in ("total", "count")}
            return old._replace(**sums)
        now = self.posterior()
        if isinstance(now, TransformerNeuralProcess):
            return now._with_encoded(_with_some(old._encoded, some._encoded, entry))
        return now


def _with_some(every: Any, some: Any, entry: Tensor) -> Any:
    """Tensors, or tuples of them, with other values for some tasks."""
    if isinstance(every, Tensor):
        return every.index_copy(0, entry, some)
    parts = [_with_some(a, b, entry) for a, b in zip(every, some, strict=True)]
    return type(every)(*parts) if hasattr(every, "_fields") else tuple(parts)
