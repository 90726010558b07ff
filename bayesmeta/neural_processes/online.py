"""Sums of encodings that are updated in place: a row costs its encoding, whatever came before."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.neural_processes.heads import RealHead
from bayesmeta.online.protocol import DrawsFunctions, Index, State, Task
from bayesmeta.protocol import Posterior

if TYPE_CHECKING:
    from bayesmeta.neural_processes.base import KeepsSums

__all__ = ["OnlineSums"]


class OnlineSums(DrawsFunctions):
    """Posterior of a neural process that keeps sums, for each entry of a batch.

    Args:
        prior: without rows, or with those that all entries share.
        batch_shape: tasks, or tasks and arms.
    """

    def __init__(self, prior: "KeepsSums", batch_shape: Sequence[int]) -> None:
        spread = prior.expand(tuple(batch_shape))
        self._now = spread._replace(total=spread.total.clone(), count=spread.count.clone())

    @property
    def batch_shape(self) -> torch.Size:
        return self._now.batch_shape

    @torch.inference_mode()
    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        now = self._now
        if not self._are_plain(x, y):  # to be told what is wrong, or what has to be checked more closely
            rows = now._checked(Data.of(x[:, None], y[:, None]))
            x, y = rows.x[:, 0], rows.y[:, 0]
        encoded = now.network.module.encoder.perceptron(torch.cat([now.inputs(x), now.head.seen(y)], -1))
        now.total.index_put_(index, encoded, accumulate=True)
        now.count.index_put_(index, now.count.new_ones(()), accumulate=True)

    def _are_plain(self, x: Tensor, y: Tensor) -> bool:
        """Rows of the right shapes whose y are real numbers: a check of microseconds, and all that most rows need."""
        now = self._now
        shapes = x.shape == (*y.shape, now.num_inputs) and y.ndim == 1 and isinstance(now.head, RealHead)
        return shapes and x.dtype == y.dtype == now.dtype and math.isfinite(float(x.sum() + y.sum()))

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return self._at(task, len(x)).marginal(x)

    def posterior(self, index: Any = ...) -> "KeepsSums":
        chosen = self._now[index]
        return chosen._replace(total=chosen.total.clone(), count=chosen.count.clone())

    def discount(self, factor: float | Tensor, index: Any = ...) -> None:
        """Let the rows of some entries count `factor` times as much as they did."""
        each = torch.as_tensor(factor).to(self._now.count)
        self._now.total[index] = self._now.total[index] * each[..., None]
        self._now.count[index] = self._now.count[index] * each

    def state_dict(self) -> State:
        return {"total": self._now.total, "count": self._now.count}

    def load_state_dict(self, state: State) -> None:
        self._now.total.copy_(state["total"])
        self._now.count.copy_(state["count"])

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Callable[[Tensor], Tensor]:
        return cast(Posterior, self._at(task, len(x))).sample(1, generator=generator)

    def _at(self, task: Task, num: int) -> "KeepsSums":
        if task is None:
            return self._now
        chosen = self._now[task]
        return chosen.expand((num, *self.batch_shape[1:])) if isinstance(task, int) else chosen
