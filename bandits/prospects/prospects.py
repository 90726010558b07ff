"""What a posterior says of the arms at the decisions that are to be made: all that a policy sees."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bandits.prospects.capabilities import draws_many, draws_on_link, draws_with_marginal
from bayesmeta.distributions.link_marginals import on_link
from bayesmeta.online.protocol import Online, Task
from bayesmeta.random import rand

__all__ = ["TOO_LARGE", "History", "Prospects"]

TOO_LARGE = "Rewards or contexts are too large, or columns of them are multiples of each other: scale them"


class History(NamedTuple):
    """What has been before.

    Args:
        pulls: rewards that each arm of each task has had, with those that it was given by `copy_arm`, `(tasks, arms)`.
        rounds: decisions of each task, `(tasks,)`.
        rewards: that each task has had, `(tasks,)`.
    """

    pulls: np.ndarray
    rounds: np.ndarray
    rewards: np.ndarray


@dataclass(frozen=True, eq=False)
class Prospects:
    """Expected rewards of the arms at n decisions.

    Args:
        online: the posterior.
        x: rows of the arms, as `Arms.rows` gives them.
        task: of each decision, as of `Online`.
        separate: whether arms have a posterior each.
        available: which arms can be chosen, `(n, arms)`; None for all.
        history: of all tasks.
    """

    online: Online
    x: Tensor
    task: Task
    separate: bool
    available: Tensor | None
    history: History

    @property
    def num_arms(self) -> int:
        return self.history.pulls.shape[-1]

    @property
    def there(self) -> Tensor:
        """Which arms can be chosen at each decision, `(n, arms)`."""
        if self.available is None:
            return torch.ones(len(self.x), self.num_arms, dtype=torch.bool)
        return self.available

    @property
    def pulls(self) -> Tensor:
        """Rewards that each arm has had, `(n, arms)`."""
        return self._of_tasks(self.history.pulls).expand(len(self.x), -1)

    @property
    def rounds(self) -> Tensor:
        """Decisions that the task of each has had before, `(n,)`."""
        return self._of_tasks(self.history.rounds).expand(len(self.x))

    @property
    def rewards(self) -> Tensor:
        """Rewards that the task of each has had, `(n,)`."""
        return self._of_tasks(self.history.rewards).expand(len(self.x))

    @property
    def are_alike(self) -> bool:
        """Whether there are several decisions, and all are the same: of one task, without contexts."""
        same = self.available is None or self.available.stride(0) == 0
        return isinstance(self.task, int) and len(self.x) > 1 and same and not (self.x.numel() and self.x.stride(0))

    def draw(self, generator: Generator) -> Tensor:
        """Expected rewards drawn together, `(n, arms)`; those that are not available are minus infinity."""
        return self.masked(self._arms(self.online.draw(self.x, self.task, generator=generator)))

    def compared(self, generator: Generator) -> Tensor:
        """As `draw`, on the scale of the family's link: probabilities that round to one still differ there."""
        return self.masked(self._arms(self._on_link(self.x, self.task, generator)))

    def compared_and_marginal(self, generator: Generator) -> tuple[Tensor, Distribution | None]:
        """As `compared`, and the marginal of which it is a draw where the posterior makes both at once."""
        if not draws_with_marginal(self.online):
            return self.compared(generator), None
        values, marginal = self.online.draw_and_marginal(self.x, self.task, generator=generator)
        return self.masked(self._arms(values)), marginal

    def compared_draws(self, num: int, generator: Generator) -> Tensor:
        """The same `num` times, `(num, n, arms)`."""
        n = len(self.x)
        if draws_many(self.online):
            return self.masked(self._arms(self.online.draw_many_on_link(num, self.x, self.task, generator=generator)))
        if isinstance(self.task, int):
            task: Task = self.task
        else:
            each = torch.arange(n) if self.task is None else self.task
            task = each.repeat(num)
        values = self._arms(self._on_link(self.x.repeat(num, *[1] * (self.x.ndim - 1)), task, generator))
        return self.masked(values.unflatten(0, (num, n)))

    def best(self, values: Tensor, generator: Generator) -> Tensor:
        """Position of the greatest value of each decision `(n,)`; one of several, each as often.

        Raises:
            ValueError: a value is not a number.
        """
        greatest, position = values.max(-1, keepdim=True)
        is_best = values == greatest
        if int(is_best.sum()) == len(values):
            return position[:, 0]
        if bool(greatest.isnan().any()):
            raise ValueError(f"what the posterior says of the arms is not a number. {TOO_LARGE}")
        ranks = rand(values.shape, like=values, generator=generator)
        return torch.where(is_best, ranks, -1.0).argmax(-1)

    def marginal(self) -> Distribution:
        """Of each arm's expected reward: batch_shape `(n, arms, 1)` where they are separate, else `(n, arms)`."""
        return self.online.marginal(self.x, self.task)

    def mean(self) -> Tensor:
        return self.masked(self._arms(self.marginal().mean))

    def upper(self, num_deviations: float) -> Tensor:
        """Mean and as many standard deviations, `(n, arms)`."""
        marginal = self.marginal()
        return self.masked(self._arms(marginal.mean + num_deviations * marginal.stddev))

    def quantile(self, probability: Tensor, *, on_its_link: bool = False) -> Tensor:
        """Of each arm's expected reward `(n, arms)`, or of its link, `probability` being `(n,)`."""
        marginal = on_link(self.marginal()) if on_its_link else self.marginal()
        axes = (1,) * (len(marginal.batch_shape) - 1)
        return self.masked(self._arms(marginal.icdf(probability.reshape(-1, *axes).expand(marginal.batch_shape))))

    def some(self, index: slice) -> "Prospects":
        """Those of some of the decisions."""
        task: Task = self.task
        if not isinstance(task, int):
            task = (torch.arange(len(self.x)) if task is None else task)[index]
        available = None if self.available is None else self.available[index]
        return Prospects(self.online, self.x[index], task, self.separate, available, self.history)

    def masked(self, scores: Tensor) -> Tensor:
        return scores if self.available is None else scores.masked_fill(~self.available, -torch.inf)

    def _of_tasks(self, value: np.ndarray) -> Tensor:
        return torch.from_numpy(value)[... if self.task is None else self.task]

    def _on_link(self, x: Tensor, task: Task, generator: Generator) -> Tensor:
        if draws_on_link(self.online):
            return self.online.draw_on_link(x, task, generator=generator)
        return self.online.draw(x, task, generator=generator)

    def _arms(self, value: Tensor) -> Tensor:
        return value[..., 0] if self.separate else value
