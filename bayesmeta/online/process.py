"""Gaussian processes whose arms share one posterior per task: a row extends the factor of those before it."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.online.kept_rows import OnlineRows
from bayesmeta.online.protocol import State, Task, marginal_of
from bayesmeta.protocol import Posterior, Predictive

__all__ = ["ExtendedByRows", "OnlineProcess"]


class OnlineProcess(OnlineRows):
    """As `OnlineRows`; decisions in one task take time that grows with the square of its rows.

    Rows are taken in one by one, so that a state which was saved goes on to the last bit as it would have.

    Args:
        prior: whose posterior, conditioned on more rows, is that of all rows together.
        batch_shape: tasks, or tasks and arms.
    """

    def __init__(self, prior: Predictive, batch_shape: Sequence[int]) -> None:
        super().__init__(prior, batch_shape)
        self._posteriors: dict[int, tuple[int, Predictive]] = {}  # of tasks that were asked about, and of how many rows

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        if not self._is_of_one(task):
            return super().marginal(x, task)
        return marginal_of(self._extended(task), x)

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self._posteriors.clear()

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Callable[[Tensor], Tensor]:
        if not (self._is_of_one(task) and torch.equal(x, x[:1].expand_as(x))):
            return super()._functions(x, task, generator)
        draws = cast(Posterior, self._extended(task)).sample(len(x), generator=generator)
        return lambda rows: draws(rows[0])[None]  # of each decision one, at the same rows

    def _is_of_one(self, task: Task) -> bool:
        return isinstance(task, int) and len(self.batch_shape) == 1

    def _extended(self, task: Any) -> Predictive:
        rows = self._rows.rows(task, self._rows.num_inputs)
        count = rows.mask.shape[-1]
        known, posterior = self._posteriors.get(task, (0, self.prior))
        for i in range(known, count):
            posterior = posterior.condition(rows.rows(slice(i, i + 1)))
        self._posteriors[task] = count, posterior
        return posterior


class ExtendedByRows:
    """Mixin of families that `OnlineProcess` updates in place: a posterior takes further rows at little cost."""

    def online(self, batch_shape: Sequence[int]) -> OnlineProcess:
        """The posterior of tasks, or of tasks and arms, to be updated in place."""
        return OnlineProcess(cast(Predictive, self), batch_shape)
