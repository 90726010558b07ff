"""Beta posteriors that are updated in place: two numbers for each entry, and a row adds to one of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from bayesmeta.distributions.constant import row_shape
from bayesmeta.distributions.link_marginals import LogitBeta
from bayesmeta.distributions.marginals import BetaMarginal
from bayesmeta.online.protocol import Index, State, Task
from bayesmeta.random import log_gamma

if TYPE_CHECKING:  # which makes these
    from bayesmeta.conjugate.bernoulli import BetaBernoulli

__all__ = ["OnlineBetas"]


class OnlineBetas:
    """Pseudo-counts of ones and zeros, in float64.

    Args:
        prior: a `BetaBernoulli` whose batch broadcasts to `batch_shape`.
        batch_shape: tasks, or tasks and arms.
    """

    def __init__(self, prior: "BetaBernoulli", batch_shape: Sequence[int]) -> None:
        self._prior, self._like = prior.to(torch.float64).expand(batch_shape), prior.successes
        self._both = torch.stack([self._prior.successes, self._prior.failures])

    # views that are made anew: a pickle would part them from what they are views of

    @property
    def _ones(self) -> Tensor:
        return self._both[0]

    @property
    def _zeros(self) -> Tensor:
        return self._both[1]

    @property
    def batch_shape(self) -> torch.Size:
        return self._ones.shape

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        row_shape(x, x.shape[:-2])
        y = y.double()
        if not bool((y * (1.0 - y) == 0.0).all()):
            raise ValueError(f"y must be 0 or 1; got {y[y * (1.0 - y) != 0.0][0].item():g}")
        self._ones.index_put_(index, y, accumulate=True)
        self._zeros.index_put_(index, 1.0 - y, accumulate=True)

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        return self.draw_on_link(x, task, generator=generator).sigmoid()

    def draw_on_link(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        """Logits of the draws, which differ where the draws round to one."""
        return self._logits(self._of(task), x, task, generator)[..., None].expand(self._rows(x))

    def draw_and_marginal(
        self, x: Tensor, task: Task = None, *, generator: Generator | None = None
    ) -> tuple[Tensor, LogitBeta]:
        """Logits of draws, and what they are drawn from."""
        both, rows = self._of(task), self._rows(x)
        ones, zeros = (part[..., None].expand(rows) for part in both)
        return self._logits(both, x, task, generator)[..., None].expand(rows), LogitBeta(ones, zeros)

    def marginal(self, x: Tensor, task: Task = None) -> BetaMarginal:
        ones, zeros = (part[..., None].expand(self._rows(x)) for part in self._of(task))
        return BetaMarginal(ones, zeros, validate_args=False)

    def posterior(self, index: Any = ...) -> "BetaBernoulli":
        ones, zeros = (part[index].to(self._like, copy=True) for part in (self._ones, self._zeros))
        return self._prior[index]._replace(successes=ones, failures=zeros)

    def discount(self, factor: float | Tensor, index: Any = ...) -> None:
        """Let the rows of some entries count `factor` times as much as they did: the posterior moves to the prior."""
        for now, before in ((self._ones, self._prior.successes), (self._zeros, self._prior.failures)):
            now[index] = before[index] + factor * (now[index] - before[index])

    def state_dict(self) -> State:
        return {"successes": self._ones, "failures": self._zeros}

    def load_state_dict(self, state: State) -> None:
        now = state.get("now", state)  # earlier versions kept statistics beside them
        self._ones.copy_(now["successes"])
        self._zeros.copy_(now["failures"])

    def _of(self, task: Task) -> Tensor:
        """Ones and zeros, `(2, *rest)`."""
        return self._both if task is None else self._both[:, task]

    def _logits(self, both: Tensor, x: Tensor, task: Task, generator: Generator | None) -> Tensor:
        shape = (len(x),) if isinstance(task, int) else ()
        ones, zeros = log_gamma(shape, both, generator=generator).unbind(len(shape))
        return ones - zeros

    def _rows(self, x: Tensor) -> torch.Size:
        """Shape `(n, *rest, q)` of what is the same at each of the q rows of x."""
        return row_shape(x, (len(x), *self.batch_shape[1:]))
