"""What a posterior says of the arms at the decisions that are to be made: all that a policy sees."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.link_marginals import on_link
from bayesmeta.online import Online, Task
from bayesmeta.random import rand

__all__ = ["Prospects"]


@dataclass(frozen=True, eq=False)
class Prospects:
    """Expected rewards of the arms at n decisions.

    Args:
        online: the posterior.
        x: rows of the arms, as `Arms.rows` gives them.
        task: of each decision, as of `Online`.
        separate: whether arms have a posterior each.
        available: which arms can be chosen, `(n, arms)`; None for all.
        history: rewards that each arm of each task has had `(tasks, arms)`, and decisions of each task `(tasks,)`.
    """

    online: Online
    x: Tensor
    task: Task
    separate: bool
    available: Tensor | None
    history: tuple[Tensor, Tensor]

    @property
    def pulls(self) -> Tensor:
        """Rewards that each arm has had, `(n, arms)`."""
        return self.history[0][... if self.task is None else self.task].expand(len(self.x), -1)

    @property
    def rounds(self) -> Tensor:
        """Decisions that the task of each has had before, `(n,)`."""
        return self.history[1][... if self.task is None else self.task].expand(len(self.x))

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

    def compared_draws(self, num: int, generator: Generator) -> Tensor:
        """The same `num` times, `(num, n, arms)`."""
        n = len(self.x)
        if isinstance(self.task, int):
            task: Task = self.task
        else:
            each = torch.arange(n) if self.task is None else self.task
            task = each.repeat(num)
        values = self._arms(self._on_link(self.x.repeat(num, *[1] * (self.x.ndim - 1)), task, generator))
        return self.masked(values.unflatten(0, (num, n)))

    def best(self, values: Tensor, generator: Generator) -> Tensor:
        """Position of the greatest value of each decision `(n,)`; one of several, each as often."""
        is_best = values == values.amax(-1, keepdim=True)
        if int(is_best.sum()) == len(values):
            return values.argmax(-1)
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

    def _on_link(self, x: Tensor, task: Task, generator: Generator) -> Tensor:
        draw = getattr(self.online, "draw_on_link", self.online.draw)
        values: Tensor = draw(x, task, generator=generator)
        return values

    def _arms(self, value: Tensor) -> Tensor:
        return value[..., 0] if self.separate else value
