r"""A mixture over hypotheses about a whole task: the hypothesis fixes the prior of every arm.

Hypothesis $h$ of a task has log weight $\log w_h + \sum_a \log p_h(\text{rows of arm } a)$, so that rewards of one arm
say which hypothesis holds for the others. A draw is of one hypothesis, and of all arms under it.
"""

from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bandits.beliefs.wrapped import entries, tasks_of
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.mixture import Mixture
from bayesmeta.online.protocol import DrawsFunctions, Task
from bayesmeta.random import categorical

__all__ = ["OnlineAlternatives"]


class OnlineAlternatives(DrawsFunctions):
    """Draws and marginals of an `Online` over hypotheses; a subclass says which there are and how likely."""

    batch_shape: torch.Size

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        log_weights, each = self.alternatives(x, task)
        axes = [1] * (len(each.batch_shape) - 2)
        return MixtureDistribution(log_weights.reshape(*log_weights.shape, *axes), each, -1 - len(axes))

    def alternatives(self, x: Tensor, task: Task = None) -> tuple[Tensor, Distribution]:
        """Log weights `(n, hypotheses)`, and f of each at each row, of batch_shape `(n, hypotheses, *rest, q)`."""
        index = entries(task, len(x))
        return self._log_weights(index), self._each(index).marginal(x[:, None])

    def posterior(self, index: Any = ...) -> Mixture:
        """A mixture over the hypotheses: its `weights` say how likely each is by now."""
        tasks, chosen = tasks_of(index)
        each, log_weights = self._each(tasks), self._log_weights(tasks)
        last = each._each_tensor(lambda value: value.movedim(1, len(each.batch_shape) - 1))
        log_weights = log_weights.reshape(len(log_weights), *[1] * (len(each.batch_shape) - 2), -1)
        log_weights = log_weights.expand(last.batch_shape)
        return Mixture(last[chosen], log_weights[chosen])

    def _functions(self, x: Tensor, task: Task, generator: Generator | None) -> Any:
        index = entries(task, len(x))
        which = categorical(1, self._log_weights(index), generator=generator)[0]
        return self._given(index, which).sample(1, generator=generator)

    def _log_weights(self, index: Any) -> Tensor:
        """Normalised, of some tasks `(n, hypotheses)`."""
        raise TypeError("each state says how likely its hypotheses are")

    def _given(self, index: Any, which: Tensor) -> Any:
        """The posterior of each task under one hypothesis `(n,)`: batch_shape `(n, *rest)`."""
        raise TypeError("each state says what its hypotheses are")

    def _each(self, index: Any) -> Any:
        """The same under every hypothesis: batch_shape `(n, hypotheses, *rest)`."""
        raise TypeError("each state says what its hypotheses are")
