"""Posteriors in place of families that keep their rows."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.distributions.link_marginals import drawn_on_link
from bayesmeta.online.protocol import DrawsFunctions, Index, State, Task, marginal_of
from bayesmeta.online.row_store import RowStore
from bayesmeta.protocol import Posterior, Predictive

__all__ = ["OnlineRows"]


class OnlineRows(DrawsFunctions):
    """Posterior of a family that keeps its rows: a decision conditions the prior on all rows of its entries."""

    def __init__(self, prior: Predictive, batch_shape: Sequence[int]) -> None:
        if prior.batch_shape:
            raise ValueError(
                f"a family that keeps its rows needs one prior for all tasks and arms; got batch_shape "
                f"{tuple(prior.batch_shape)}"
            )
        self.prior = prior
        self.batch_shape = torch.Size(batch_shape)
        self._rows = RowStore(batch_shape, getattr(prior, "device", None))

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        self.prior.condition(Data.of(x[:, None], y[:, None]))  # rows of the wrong kind are refused before any is added
        self._rows.add(index, x, y)

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return marginal_of(self._at(x, task), x)

    def posterior(self, index: Any = ...) -> Predictive:
        num = self._rows.num_inputs
        return self.prior.condition(self._rows.rows(index, num)) if num else self.prior

    def state_dict(self) -> State:
        return self._rows.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._rows.load_state_dict(state)

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Callable[[Tensor], Tensor]:
        # whoever asks for draws has a family that can be drawn from
        return cast(Posterior, self._at(x, task)).sample(1, generator=generator)

    def draw_many_on_link(
        self, num: int, x: Tensor, task: Task = None, *, generator: Generator | None = None
    ) -> Tensor:
        """`draw_on_link` the same `num` times, `(num, ...)`: rows are conditioned on once, and not for each draw."""
        return drawn_on_link(cast(Posterior, self._at(x, task)).sample(num, generator=generator), x)

    def _at(self, x: Tensor, task: Task) -> Predictive:
        index = ... if task is None else torch.full((len(x),), task) if isinstance(task, int) else task
        return self.prior.condition(self._rows.rows(index, x.shape[-1]))
