r"""Gaussian weights of linear models, updated in place by rank-one steps.

A row (x, y) with noise variance v moves mean m and covariance S of the weights to

$$ m + g\,(y - x^\top m), \quad S - g\,(S x)^\top, \quad g = S x / (x^\top S x + v). $$

Two forms are kept, each suited to what is asked of it:

- `OnlineWeights`: weights that all arms of a task share. A root R with R R' = S makes a joint draw one product, and
  stays one by Potter's step: with f = R'x and s = f'f + v, it is R - R f f' / (s + sqrt(v s)).
- `OnlineArmWeights`: each arm has weights of its own, and one row is asked about. All that a decision needs of S is the
  number x'Sx, a linear function of its entries, so that the upper triangle is kept, arms last: one product of a vector
  and a matrix per task, which is as fast as memory is read.

Rank-one steps add up rounding. Statistics in float64 are kept beside them, and an entry is computed anew from those
after every `REFRESH_AFTER` of its rows.

Source: Potter (1963), in Bierman, Factorization Methods for Discrete Sequential Estimation (1977), section II.8.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.linalg import cholesky
from bayesmeta.online import Index, Online, State, Task, distinct, statistics_from, statistics_state
from bayesmeta.random import randn
from bayesmeta.statistics import Statistics

__all__ = ["OnlineArmWeights", "OnlineFeatures", "OnlineWeights"]

REFRESH_AFTER = 1000  # rows of one entry
CHECK_EVERY = 64  # calls of `add`, between looks for such entries

Natural = Callable[[Any], tuple[Tensor, Tensor]]


class _Weights:
    """What both forms share: statistics, and when to go back to them.

    Args:
        prior: over the weights, whose batch broadcasts to `batch_shape`.
        batch_shape: tasks, or tasks and arms.
        statistics: without rows, of `batch_shape` and perhaps more axes.
    """

    def __init__(self, prior: Any, batch_shape: Sequence[int], statistics: Statistics) -> None:
        self.batch_shape = torch.Size(batch_shape)
        self.statistics = statistics
        self._prior, self._like = prior.to(torch.float64).expand(batch_shape), prior.loc
        self._noise_var = prior.noise_var.expand(self.batch_shape).contiguous()
        self._since = np.zeros(self.batch_shape, np.int32)
        self._calls = 0

    def posterior(self, index: Any = ...) -> Any:
        return self._prior[index].condition(self.statistics[index]).to(self._like)

    def discount(self, factor: float | Tensor, index: Any = ...) -> None:
        """Let the rows of some entries count `factor` times as much as they did: the posterior moves to the prior."""
        self.statistics.discount(factor, index)
        self._refresh(index)

    def _refresh(self, index: Any) -> None:
        raise TypeError("each form writes its own numbers")

    def _refresh_stale(self, index: Index) -> None:
        """Those that have had enough rows, looked for now and then: a look costs as much as a step."""
        np.add.at(self._since, tuple(part.numpy() for part in index), 1)
        self._calls += 1
        if self._calls % CHECK_EVERY == 0 and (self._since >= REFRESH_AFTER).any():
            self._refresh(tuple(torch.from_numpy(part) for part in (self._since >= REFRESH_AFTER).nonzero()))

    def _forget_since(self, index: Any) -> None:
        where = tuple(part.numpy() for part in index) if isinstance(index, tuple) else index
        self._since[where] = 0


class OnlineWeights(_Weights):
    """One vector of weights per task, of which joint draws are asked.

    Args:
        prior: with `loc`, `noise_var` and `condition`.
        batch_shape: tasks.
        natural: mean and a root of the covariance of the weights, of a posterior.
        by_number: whether x is the number of a weight, and statistics are kept of each weight; else it is what weights
            are multiplied by.
    """

    def __init__(self, prior: Any, batch_shape: Sequence[int], natural: Natural, *, by_number: bool = False) -> None:
        d, device = prior.loc.shape[-1], prior.loc.device
        shape, num_inputs = ((*batch_shape, d), 0) if by_number else (tuple(batch_shape), d)
        super().__init__(prior, batch_shape, Statistics.zeros(shape, num_inputs, 1, device=device))
        self._natural, self._by_number = natural, by_number
        loc, root = natural(prior.to(torch.float64))
        self._loc = loc.to(self._like).expand(*self.batch_shape, d).clone()
        self._root = root.to(self._like).expand(*self.batch_shape, d, d).clone()
        self._every = torch.arange(self.batch_shape[0])

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        (task,) = index
        if self._by_number:
            arm = x[:, 0].long()
            self.statistics.add_rows((task, arm), x[:, :0], y)
        else:
            arm = None
            self.statistics.add_rows((task,), x, y)
        if task.shape[0] == 1 and not y.is_cuda:
            self._step(int(task), x[0].numpy() if arm is None else int(arm), float(y))
        elif torch.equal(task, self._every):
            self._steps(..., self._root, x, arm, y)
        elif len(distinct(index)[0]) < len(task):
            self._refresh(distinct(index))
            return
        else:
            root = self._root[task]
            self._steps(task, root, x, arm, y)
            self._root[task] = root
        self._refresh_stale(index)

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        noise = randn((len(x), self._loc.shape[-1]), like=self._loc, generator=generator)
        if isinstance(task, int):
            weights = self._loc[task] + noise @ self._root[task].mT
        else:
            loc, root = (self._loc, self._root) if task is None else (self._loc[task], self._root[task])
            weights = loc + (root @ noise[..., None])[..., 0]
        if self._by_number:
            return weights.gather(-1, x[..., 0].long())
        return (x @ weights[..., None])[..., 0]

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        mean, root = self.joint(x, task)
        var = root.square().sum(-1)
        return Normal(mean, var.clamp(min=torch.finfo(var.dtype).tiny).sqrt())

    def joint(self, x: Tensor, task: Task = None) -> tuple[Tensor, Tensor]:
        """Mean `(n, q)` and a root `(n, q, d)` of the covariance of f at the q rows of each decision."""
        if not self._by_number and x.shape[-1] != self._loc.shape[-1]:
            raise ValueError(f"x must have {self._loc.shape[-1]} columns; got {x.shape[-1]}")
        index = ... if task is None else task
        loc, root = self._loc[index], self._root[index]
        if not self._by_number:
            return (x @ loc[..., None])[..., 0], x @ root
        arm = x[..., 0].long()
        loc, root = loc.expand(len(x), -1), root.expand(len(x), -1, -1)
        return loc.gather(-1, arm), root.gather(-2, arm[..., None].expand(*arm.shape, root.shape[-1]))

    def state_dict(self) -> State:
        return {
            "statistics": statistics_state(self.statistics),
            "loc": self._loc,
            "root": self._root,
            "since": torch.from_numpy(self._since),
            "calls": self._calls,
        }

    def load_state_dict(self, state: State) -> None:
        statistics = statistics_from(state["statistics"])
        assert statistics is not None
        self.statistics = statistics
        self._loc.copy_(state["loc"])
        self._root.copy_(state["root"])
        self._since[:] = state["since"].numpy()
        self._calls = state["calls"]

    def _refresh(self, index: Any) -> None:
        loc, root = self._natural(self._prior[index].condition(self.statistics[index]))
        self._loc[index], self._root[index] = loc.to(self._like), root.to(self._like)
        self._forget_since(index)

    def _step(self, task: int, x: np.ndarray | int, y: float) -> None:
        """One row, in NumPy on the same memory: torch takes three times as long for numbers this few."""
        loc, root, noise_var = (part.numpy()[task] for part in (self._loc, self._root, self._noise_var))
        f, mean = (root[x].copy(), loc[x]) if isinstance(x, int) else (x @ root, x @ loc)
        var = f @ f + noise_var
        gain = (root @ f) / var
        loc += gain * (y - mean)
        root -= (gain / (1.0 + np.sqrt(noise_var / var)))[:, None] * f

    def _steps(self, task: Any, root: Tensor, x: Tensor, arm: Tensor | None, y: Tensor) -> None:
        """The same for distinct tasks at once, changing `root` in place."""
        loc, noise_var = self._loc[task], self._noise_var[task]
        if arm is None:
            f, mean = (x[:, None] @ root)[:, 0], (x * loc).sum(-1)
        else:
            f = root.gather(-2, arm[:, None, None].expand(-1, 1, root.shape[-1]))[:, 0]
            mean = loc.gather(-1, arm[:, None])[:, 0]
        var = f.square().sum(-1) + noise_var
        gain = (root @ f[..., None])[..., 0] / var[:, None]
        self._loc[task] = loc + gain * (y - mean)[:, None]
        step = gain / (1.0 + (noise_var / var).sqrt())[:, None]
        root.baddbmm_(step[:, :, None], f[:, None], alpha=-1.0)


class OnlineArmWeights(_Weights):
    """A vector of weights for each arm of each task, asked about at one row.

    Args:
        prior: a linear regression with `loc`, `precision` and `noise_var`.
        batch_shape: tasks and arms.
    """

    def __init__(self, prior: Any, batch_shape: Sequence[int]) -> None:
        d, device = prior.loc.shape[-1], prior.loc.device
        super().__init__(prior, batch_shape, Statistics.zeros(batch_shape, d, 1, device=device))
        row, column = torch.triu_indices(d, d)
        self._row, self._column = row, column
        self._times = torch.where(row == column, 1.0, 2.0).to(self._like)
        place = torch.empty(d, d, dtype=torch.long)
        place[row, column] = place[column, row] = torch.arange(len(row))
        self._place = place.reshape(-1)
        tasks, arms = self.batch_shape
        # arms last, in memory too: what a decision needs of all arms is then one product of a vector and a matrix
        self._loc, self._cov = (torch.empty(tasks, size, arms).to(self._like) for size in (d, len(row)))
        loc, cov = self._packed(prior.to(torch.float64))
        self._loc.copy_(_arms_last(loc))
        self._cov.copy_(_arms_last(cov))
        # for single decisions and rows the same memory as NumPy sees it: torch takes three times as long for so little
        self._arrays = (
            None
            if self._cov.is_cuda
            else _Arrays(
                *(
                    part.numpy()
                    for part in (self._loc, self._cov, self._noise_var, row, column, self._times, self._place)
                )
            )
        )

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        self.statistics.add_rows(index, x, y)
        num = y.shape[0]
        if num > 1 and len(distinct(index)[0]) < num:
            self._refresh(distinct(index))
            return
        if num == 1 and self._arrays is not None:
            self._arrays.step(int(index[0]), int(index[1]), x.numpy()[0], float(y))
        else:
            self._steps(index, x, y)
        self._refresh_stale(index)

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        mean, var = self._moments(x, task)
        return (mean + var.sqrt_() * randn(mean.shape, like=mean, generator=generator))[..., None]

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        mean, var = self._moments(x, task)
        return Normal(mean[..., None], var.sqrt_()[..., None])

    def state_dict(self) -> State:
        loc, cov = self._loc.movedim(-1, 1), self._cov.movedim(-1, 1)
        return {
            "statistics": statistics_state(self.statistics),
            "loc": loc,
            "cov": cov,
            "since": torch.from_numpy(self._since),
            "calls": self._calls,
        }

    def load_state_dict(self, state: State) -> None:
        statistics = statistics_from(state["statistics"])
        assert statistics is not None
        self.statistics = statistics
        self._loc.movedim(-1, 1).copy_(state["loc"])
        self._cov.movedim(-1, 1).copy_(state["cov"])
        self._since[:] = state["since"].numpy()
        self._calls = state["calls"]

    def _refresh(self, index: Any) -> None:
        loc, cov = self._packed(self._prior[index].condition(self.statistics[index]))
        self._loc.movedim(-1, 1)[index], self._cov.movedim(-1, 1)[index] = loc.to(self._like), cov.to(self._like)
        self._forget_since(index)

    def _packed(self, posterior: Any) -> tuple[Tensor, Tensor]:
        """Mean of the weights, and the upper triangle of their covariance."""
        cov = torch.cholesky_inverse(cholesky(posterior.precision, "precision"))
        return posterior.loc, cov[..., self._row, self._column]

    def _moments(self, x: Tensor, task: Task) -> tuple[Tensor, Tensor]:
        """Mean and variance of each arm's f, `(n, arms)`."""
        if x.shape[-1] != self._loc.shape[1]:
            raise ValueError(f"x must have {self._loc.shape[1]} columns; got {x.shape[-1]}")
        if x.shape[-2] != 1:
            raise ValueError(f"arms with weights of their own are asked about one row; got {x.shape[-2]}")
        if isinstance(task, int) and x.shape[0] == x.shape[1] == 1 and self._arrays is not None:
            return self._arrays.moments(task, x.numpy()[0, 0, 0])
        x = x[..., 0, :]
        squares = x[..., self._row] * x[..., self._column] * self._times
        if isinstance(task, int):
            loc, cov = self._loc[task], self._cov[task]
            if x.shape[1] == 1:
                return x[:, 0] @ loc, _some(squares[:, 0] @ cov)
        else:
            loc, cov = (self._loc, self._cov) if task is None else (self._loc[task], self._cov[task])
            if x.shape[1] == 1:
                return (x @ loc)[:, 0], _some((squares @ cov)[:, 0])
        return (x * loc.mT).sum(-1), _some((squares * cov.mT).sum(-1))

    def _steps(self, index: Index, x: Tensor, y: Tensor) -> None:
        """The same for distinct entries at once."""
        task, arm = index
        loc, cov = self._loc[task, :, arm], self._cov[task, :, arm]
        shift = (cov[:, self._place].view(*x.shape, -1) @ x[..., None])[..., 0]
        var = (x * shift).sum(-1) + self._noise_var[index]
        self._loc[task, :, arm] = loc + shift * ((y - (x * loc).sum(-1)) / var)[:, None]
        self._cov[task, :, arm] = cov - shift[:, self._row] * (shift / var[:, None])[:, self._column]


class _Arrays(NamedTuple):
    """What `OnlineArmWeights` holds, on the same memory."""

    loc: np.ndarray
    cov: np.ndarray
    noise_var: np.ndarray
    row: np.ndarray
    column: np.ndarray
    times: np.ndarray
    place: np.ndarray

    def moments(self, task: int, x: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and variance of each arm's f at one decision, `(1, arms)`."""
        squares = x[self.row] * x[self.column] * self.times
        mean, var = x @ self.loc[task], squares @ self.cov[task]
        return torch.from_numpy(mean[None]), _some(torch.from_numpy(var[None]))

    def step(self, task: int, arm: int, x: np.ndarray, y: float) -> None:
        """One row of one arm."""
        loc, cov = self.loc[task, :, arm], self.cov[task, :, arm]
        shift = cov[self.place].reshape(len(x), -1) @ x
        gain = shift / (x @ shift + self.noise_var[task, arm])
        loc += gain * (y - x @ loc)
        cov -= shift[self.row] * gain[self.column]


class OnlineFeatures:
    """Any of the above on features of the inputs."""

    def __init__(self, features: Callable[[Tensor], Tensor], weights: Online, prior: Any) -> None:
        self._features, self._weights, self._prior = features, weights, prior
        self.batch_shape = weights.batch_shape

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        self._weights.add(index, self._features(x), y)

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        return self._weights.draw(self._features(x), task, generator=generator)

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        return self._weights.marginal(self._features(x), task)

    def posterior(self, index: Any = ...) -> Any:
        return self._prior._replace(linear=self._weights.posterior(index))

    def state_dict(self) -> State:
        return self._weights.state_dict()

    def load_state_dict(self, state: State) -> None:
        self._weights.load_state_dict(state)


def _arms_last(value: Tensor) -> Tensor:
    """`(size,)`, `(arms, size)` or `(tasks, arms, size)` as one that copies into `(tasks, size, arms)`."""
    return value[:, None] if value.ndim == 1 else value.mT


def _some(var: Tensor) -> Tensor:
    """Rounding can leave a variance at zero or below, and a row of zeros has none: a normal must have some."""
    return var.clamp_(min=torch.finfo(var.dtype).tiny)
