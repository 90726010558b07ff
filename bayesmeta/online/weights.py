r"""Gaussian weights of linear models, updated in place by rank-one steps on a root of their covariance.

Two forms are kept, each suited to what is asked of it:

- `OnlineWeights`: weights that all arms of a task share. A root R with R R' = S makes a joint draw one product.
- `OnlineArmWeights`: each arm has weights of its own, and one row is asked about: x'Sx is the square of R'x. Arms come
  last in memory, so that R'x of all arms is one product of a vector and a matrix.

Everything is float64, and roots are what is stepped (`bayesmeta.numerics.square_root`): contexts such as [1, seconds
since 1970] leave no digit of S in float32, and none of x'Sx in float64. Beside them stand the statistics of the rows,
which a frozen posterior and a discount are made of.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.data.statistics import Statistics
from bayesmeta.numerics.square_root import after_rows, potter
from bayesmeta.online.protocol import Index, Online, State, Task, rows_before
from bayesmeta.online.sums import Summed, statistics_from, statistics_state
from bayesmeta.random import randn

if TYPE_CHECKING:  # which makes `OnlineFeatures`
    from bayesmeta.networks.learned_features import LearnedFeatures

__all__ = ["OnlineArmWeights", "OnlineFeatures", "OnlineWeights"]

FEW_TURNS = 8  # rows of one entry, up to which they are added one after the other
BLOCK = 256  # rows of one entry that are added at once
CHUNK = 500_000  # numbers that are made at once: a few megabytes, so that they stay in cache
TINY = torch.finfo(torch.float64).tiny  # rounding can leave a variance at zero, and a row of zeros has none

Natural = Callable[[Any], tuple[Tensor, Tensor]]  # of a posterior of the family in question
W = TypeVar("W", bound="NormalWeights")


@runtime_checkable
class NormalWeights(Summed, Protocol):
    """A family with normal weights, whose posterior follows from sums over rows."""

    @property
    def loc(self) -> Tensor:
        """Mean of the weights, `(*batch, d)`."""
        ...

    @property
    def noise_var(self) -> Tensor:
        """Variance of a row about its mean, `(*batch,)`."""
        ...

    def to(self: W, *args: Any, **kwargs: Any) -> W: ...


class _Weights:
    """What both forms share: statistics, and rows that are added to each entry one after the other.

    Args:
        prior: over the weights, whose batch broadcasts to `batch_shape`.
        batch_shape: tasks, or tasks and arms.
        statistics: without rows, of `batch_shape` and perhaps more axes.
        natural: mean and a root of the covariance of the weights, of a posterior.
    """

    _loc: Tensor
    _root: Tensor

    def __init__(
        self, prior: NormalWeights, batch_shape: Sequence[int], statistics: Statistics, natural: Natural
    ) -> None:
        self.batch_shape = torch.Size(batch_shape)
        self.statistics, self._natural = statistics, natural
        self._prior, self._like = prior.to(torch.float64).expand(batch_shape), prior.loc
        self._noise_var = self._prior.noise_var.expand(self.batch_shape).contiguous()
        loc, root = natural(prior.to(torch.float64))  # once, where all entries have the same
        self._largest = float(root.square().sum((-2, -1)).max())  # variance of f per square of x
        self._keep(loc.expand(*self.batch_shape, -1), root.expand(*self.batch_shape, -1, -1))

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        if y.shape[0] == 1 and not y.is_cuda:
            row, reward = x[0].double(), float(y)
            _require_finite(float(row @ row) * self._largest + reward * reward)
            self._step(tuple(int(part) for part in index), row.numpy(), reward)
        else:
            _require_finite(float(x.double().square().sum() * self._largest + y.double().square().sum()))
            self._steps(index, x, y.double())
        self._count(index, x, y)

    def log_predictive(self, index: Index, x: Tensor, y: Tensor) -> Tensor:
        """log p(y | x) of one row of each of distinct entries, before it is added."""
        f, mean = self._told(*self._read(index), x[:, None])
        var = f.square().sum(-1)[:, 0] + self._noise_var[index]
        return Normal(mean[:, 0], var.sqrt()).log_prob(y.double())

    def posterior(self, index: Any = ...) -> "NormalWeights":
        return self._prior[index].condition(self.statistics[index]).to(self._like)

    def discount(self, factor: float | Tensor, index: Any = ...) -> None:
        """Let the rows of some entries count `factor` times as much as they did: the posterior moves to the prior."""
        self.statistics.discount(factor, index)
        self._renew(index)

    def state_dict(self) -> State:
        statistics = statistics_state(self.statistics)
        return {"statistics": statistics, "loc": self._arms_second(self._loc), "root": self._arms_second(self._root)}

    def load_state_dict(self, state: State) -> None:
        statistics = statistics_from(state["statistics"])
        assert statistics is not None
        self.statistics = statistics
        if state.get("root") is None or state["root"].dtype != torch.float64:  # of a version that kept other numbers
            self._renew(...)
            return
        self._arms_second(self._loc).copy_(state["loc"])
        self._arms_second(self._root).copy_(state["root"])

    def _renew(self, index: Any) -> None:
        """Make mean and root of some entries anew, from their statistics."""
        self._write(index, *self._natural(self._prior[index].condition(self.statistics[index])))

    def _steps(self, index: Index, x: Tensor, y: Tensor) -> None:
        """Rows of any entries, each entry's in their order: one after the other, or many at once."""
        turn = rows_before(index)
        num = int(turn.max()) + 1
        if num == 1:
            self._step_each(index, x, y)
        elif num <= FEW_TURNS:
            for i in range(num):
                rows = turn == i
                self._step_each(tuple(part[rows] for part in index), x[rows], y[rows])
        else:
            for first in range(0, num, BLOCK):
                rows = (turn >= first) & (turn < first + BLOCK)
                self._step_blocks(tuple(part[rows] for part in index), turn[rows] - first, x[rows], y[rows])

    def _step_blocks(self, index: Index, turn: Tensor, x: Tensor, y: Tensor) -> None:
        """Several rows of each entry, `turn` being their order."""
        every, entry = torch.stack(index).unique(dim=1, return_inverse=True)
        named = tuple(every)
        shape = (every.shape[1], int(turn.max()) + 1)
        rows, values, mask = x.new_zeros(*shape, x.shape[-1]), y.new_zeros(shape), y.new_zeros(shape)
        rows[entry, turn], values[entry, turn], mask[entry, turn] = x, y, 1.0
        loc, root = self._read(named)
        f, mean = self._told(loc, root, rows)
        left = (values - mean) * mask
        self._write(named, *after_rows(loc, root, f * mask[..., None], left, self._noise_var[named]))

    def _step_each(self, index: Index, x: Tensor, y: Tensor) -> None:
        """One row of each of distinct entries."""
        loc, root = self._read(index)
        f, mean = self._told(loc, root, x[:, None])
        gain, root = potter(root, f[:, 0], self._noise_var[index])
        self._write(index, loc + gain * (y - mean[:, 0])[:, None], root)

    def _count(self, index: Index, x: Tensor, y: Tensor) -> None:
        self.statistics.add_rows(index, x, y)

    def _told(self, loc: Tensor, root: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """R'x `(*batch, q, r)` and x'loc `(*batch, q)` of rows `(*batch, q, d)`."""
        x = x.to(loc)
        return x @ root, (x @ loc[..., None])[..., 0]

    def _arms_second(self, value: Tensor) -> Tensor:
        """The value as files keep it: axes of the batch first."""
        return value

    def _keep(self, loc: Tensor, root: Tensor) -> None:
        """Copies of what all entries start from."""
        self._loc, self._root = (part.clone(memory_format=torch.contiguous_format) for part in (loc, root))

    def _step(self, entry: tuple[int, ...], x: np.ndarray, y: float) -> None:
        """One row, in NumPy on the same memory: torch takes three times as long for numbers this few."""
        raise TypeError("each form has its own memory")

    def _read(self, index: Any) -> tuple[Tensor, Tensor]:
        """Mean `(*batch, d)` and root `(*batch, d, r)` of some entries."""
        raise TypeError("each form has its own memory")

    def _write(self, index: Any, loc: Tensor, root: Tensor) -> None:
        raise TypeError("each form has its own memory")


class OnlineWeights(_Weights):
    """One vector of weights per task, of which joint draws are asked.

    Args:
        prior: with `loc`, `noise_var` and `condition`.
        batch_shape: tasks.
        natural: mean and a root of the covariance of the weights, of a posterior.
        by_number: whether x is the number of a weight, and statistics are kept of each weight; else it is what weights
            are multiplied by.
    """

    def __init__(
        self, prior: NormalWeights, batch_shape: Sequence[int], natural: Natural, *, by_number: bool = False
    ) -> None:
        d, device = prior.loc.shape[-1], prior.loc.device
        shape, num_inputs = ((*batch_shape, d), 0) if by_number else (tuple(batch_shape), d)
        super().__init__(prior, batch_shape, Statistics.zeros(shape, num_inputs, 1, device=device), natural)
        self._by_number = by_number

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        noise = randn((len(x), self._root.shape[-1]), like=self._loc, generator=generator)
        if isinstance(task, int):
            weights = self._loc[task] + noise @ self._root[task].mT
        else:
            loc, root = self._read(... if task is None else task)
            weights = loc + (root @ noise[..., None])[..., 0]
        if self._by_number:
            return weights.gather(-1, x[..., 0].long())
        return (x.to(weights) @ weights[..., None])[..., 0]

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        mean, root = self.joint(x, task)
        return Normal(mean, root.square().sum(-1).clamp(min=TINY).sqrt())

    def joint(self, x: Tensor, task: Task = None) -> tuple[Tensor, Tensor]:
        """Mean `(n, q)` and a root `(n, q, d)` of the covariance of f at the q rows of each decision."""
        if not self._by_number and x.shape[-1] != self._loc.shape[-1]:
            raise ValueError(f"x must have {self._loc.shape[-1]} columns; got {x.shape[-1]}")
        loc, root = self._read(... if task is None else task)
        root, mean = self._told(loc, root, x)
        return mean, root

    def _told(self, loc: Tensor, root: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self._by_number:
            return super()._told(loc, root, x)
        arm = x[..., 0].long()
        loc, root = loc.expand(len(arm), -1), root.expand(len(arm), -1, -1)
        return root.gather(-2, arm[..., None].expand(*arm.shape, root.shape[-1])), loc.gather(-1, arm)

    def _count(self, index: Index, x: Tensor, y: Tensor) -> None:
        if self._by_number:
            index, x = (*index, x[:, 0].long()), x[:, :0]
        self.statistics.add_rows(index, x, y)

    def _step(self, entry: tuple[int, ...], x: np.ndarray, y: float) -> None:
        loc, root, noise_var = (part.numpy()[entry] for part in (self._loc, self._root, self._noise_var))
        f, mean = (root[int(x[0])], loc[int(x[0])]) if self._by_number else (x @ root, x @ loc)
        gain, moved = potter(root, f, noise_var)
        loc += gain * (y - mean)
        root[...] = moved

    def _read(self, index: Any) -> tuple[Tensor, Tensor]:
        return self._loc[index], self._root[index]

    def _write(self, index: Any, loc: Tensor, root: Tensor) -> None:
        self._loc[index], self._root[index] = loc, root


class OnlineArmWeights(_Weights):
    """A vector of weights for each arm of each task, asked about at one row.

    Args:
        prior: a linear regression with `loc`, `precision` and `noise_var`.
        batch_shape: tasks and arms.
        natural: as of `OnlineWeights`.
    """

    def __init__(self, prior: NormalWeights, batch_shape: Sequence[int], natural: Natural) -> None:
        d, device = prior.loc.shape[-1], prior.loc.device
        super().__init__(prior, batch_shape, Statistics.zeros(batch_shape, d, 1, device=device), natural)

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        return self.draw_and_marginal(x, task, generator=generator)[0]

    def draw_and_marginal(
        self, x: Tensor, task: Task = None, *, generator: Generator | None = None
    ) -> tuple[Tensor, Normal]:
        """A draw of each arm, and what it is drawn from."""
        marginal = self.marginal(x, task)
        noise = randn(marginal.loc.shape, like=marginal.loc, generator=generator)
        return marginal.loc + marginal.scale * noise, marginal

    def marginal(self, x: Tensor, task: Task = None) -> Normal:
        mean, var = self._moments(x, task)
        return Normal(mean[..., None], var.sqrt_()[..., None], validate_args=False)

    def _moments(self, x: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        """Mean and variance of each arm's f, `(n, arms)`."""
        if x.shape[-1] != self._loc.shape[1]:
            raise ValueError(f"x must have {self._loc.shape[1]} columns; got {x.shape[-1]}")
        if x.shape[-2] != 1:
            raise ValueError(f"arms with weights of their own are asked about one row; got {x.shape[-2]}")
        if isinstance(task, int) and x.shape[0] == x.shape[1] == 1 and not self._root.is_cuda:
            return self._moments_of_one(x[0, 0, 0].double().numpy(), task)
        x = x[..., 0, :].to(self._loc)
        mean, var = x.new_empty(2, len(x), self._loc.shape[-1])
        step = max(1, CHUNK // self._loc[0].numel())
        for i in range(0, len(x), step):
            some = slice(i, i + step)
            index = task if isinstance(task, int) else some if task is None else task[some]
            loc, root = self._loc[index], self._root[index]
            if x.shape[1] == 1:
                mean[some] = (x[some, 0] @ loc) if isinstance(task, int) else (x[some] @ loc)[:, 0]
                f = (x[some] @ root.flatten(-2)).unflatten(-1, root.shape[-2:])[:, 0]
            else:
                mean[some] = (x[some] * loc.mT).sum(-1)
                f = (x[some].mT[..., None, :] * root).sum(-3)
            var[some] = f.square_().sum(-2)
        return mean, var.clamp_(min=TINY)

    def _moments_of_one(self, x: np.ndarray, task: int) -> tuple[Tensor, Tensor]:
        """Mean and variance of each arm's f for one decision, in NumPy on the same memory."""
        root = self._root.numpy()[task]
        f = (x @ root.reshape(len(x), -1)).reshape(root.shape[1:])
        mean, var = x @ self._loc.numpy()[task], np.einsum("ja,ja->a", f, f)
        return torch.from_numpy(mean[None]), torch.from_numpy(np.maximum(var, TINY)[None])

    def _step(self, entry: tuple[int, ...], x: np.ndarray, y: float) -> None:
        task, arm = entry
        loc, root = self._loc.numpy()[task, :, arm], self._root.numpy()[task, :, :, arm]
        own = root.copy()  # side by side, for products
        gain, root[...] = potter(own, x @ own, self._noise_var.numpy()[entry])
        loc += gain * (y - x @ loc)

    def _keep(self, loc: Tensor, root: Tensor) -> None:
        # arms last, in memory too: what a decision needs of all arms is then one product of a vector and a matrix
        super()._keep(loc.movedim(1, -1), root.movedim(1, -1))

    def _read(self, index: Any) -> tuple[Tensor, Tensor]:
        return self._arms_second(self._loc)[index], self._arms_second(self._root)[index]

    def _write(self, index: Any, loc: Tensor, root: Tensor) -> None:
        self._arms_second(self._loc)[index], self._arms_second(self._root)[index] = loc, root

    def _arms_second(self, value: Tensor) -> Tensor:
        return value.movedim(-1, 1)


def _require_finite(bound: float) -> None:
    if not math.isfinite(bound):
        raise ValueError("rows are so large that what they say overflows; scale the inputs, or the rewards")


class OnlineFeatures:
    """Any of the above on features of the inputs."""

    def __init__(self, features: Callable[[Tensor], Tensor], weights: Online, prior: "LearnedFeatures") -> None:
        self._features, self._weights, self._prior = features, weights, prior
        self.batch_shape = weights.batch_shape

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        self._weights.add(index, self._features(x), y)

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        return self._weights.draw(self._features(x), task, generator=generator)

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return self._weights.marginal(self._features(x), task)

    def posterior(self, index: Any = ...) -> "LearnedFeatures":
        return self._prior._replace(linear=self._weights.posterior(index))

    def state_dict(self) -> State:
        return self._weights.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._weights.load_state_dict(state)
