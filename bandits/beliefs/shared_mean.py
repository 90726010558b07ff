r"""Linear tasks that run together and share an unknown mean: the exact posterior of each task, updated in place.

Task $s$ has weights $w_s \sim N(\mu, \Sigma_0)$, and $\mu \sim N(m, C)$. Given $\mu$ a task is a linear regression of
its own, $w_s \mid \mu \sim N(b_s + P_s \Sigma_0^{-1} \mu, P_s)$. So a row (x, y) of noise variance v is a row about
$\mu$ too,

$$ y - x^\top b_s = g^\top \mu + e, \quad g = \Sigma_0^{-1} P_s x, \quad e \sim N(0, x^\top P_s x + v), $$

and both beliefs move by one rank. What a task knows of $\mu$ is what every task has shown (HierTS), what was known when
it began and what it has shown itself (AdaTS), or one draw from what was known when it began (MetaTS).

Source: Hong et al., Hierarchical Bayesian bandits (2022); Basu et al., No regrets for learning the prior in bandits
(2021), for AdaTS; Kveton et al., Meta-Thompson sampling (2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bandits.beliefs.while_tasks_run import require_how
from bandits.beliefs.wrapped import LearnedByTasks, entries, turns
from bayesmeta.numerics.linalg import cholesky, symmetric
from bayesmeta.numerics.square_root import potter
from bayesmeta.online.protocol import Index, State, Task
from bayesmeta.random import randn
from bayesmeta.regression.linear import LinearGaussian

__all__ = ["SharedMean"]


@dataclass(frozen=True, eq=False)
class SharedMean(LearnedByTasks):
    """The prior of linear tasks whose mean is unknown, and what the tasks make of each other.

    Args:
        task_prior: of a task; `loc` is the expected shared mean, `precision` is about it.
        cov: covariance of the belief in the shared mean, `(d, d)`.
        how: see the module.
    """

    task_prior: LinearGaussian
    cov: Tensor
    how: str

    def __post_init__(self) -> None:
        require_how(self.how)

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def online(self, batch_shape: Sequence[int]) -> "OnlineSharedMean":
        return OnlineSharedMean(self, batch_shape)


class OnlineSharedMean:
    """Each task given a shared mean of zero, and the belief in the shared mean: of all, or of each arm alone."""

    def __init__(self, prior: SharedMean, batch_shape: Sequence[int]) -> None:
        self.batch_shape = torch.Size(batch_shape)
        task = prior.task_prior.to(torch.float64)
        self._how, self._like, self._task_prior = prior.how, prior.task_prior.loc, task
        rest, d = self.batch_shape[1:], task.loc.shape[-1]
        self._loc = torch.zeros(*batch_shape, d, dtype=torch.float64)
        self._root = _root_of_inverse(task.precision, "precision").expand(*batch_shape, d, d).clone()
        # natural parameters of the belief add, however many tasks show a row at once
        precision = symmetric(torch.cholesky_inverse(cholesky(prior.cov.double(), "cov")))
        self._precision = precision.expand(*rest, d, d).clone()
        self._shift = (precision @ task.loc).expand(*rest, d).clone()
        self._begun = torch.zeros(self.batch_shape, dtype=torch.bool)
        self._own_loc, self._own_root = torch.zeros_like(self._loc), torch.zeros_like(self._root)
        self._generator = Generator().manual_seed(0)  # for tasks that learn before they decide
        self._renew()

    def begin(self, tasks: Tensor, generator: Generator) -> None:
        """These tasks decide, or learn, for the first time: they know of the shared mean what is known now."""
        if self._how == "redraw" or bool(self._begun[tasks].all()):
            return
        new = tasks.unique()
        fresh = ~self._begun[new][..., None]  # arms that came later begin later
        loc, root = self._mean.expand_as(self._own_loc[new]), self._shared_root
        if self._how == "keep":
            noise = randn((*loc.shape, 1), like=loc, generator=generator)
            loc, root = loc + (root @ noise)[..., 0], torch.zeros_like(root)
        self._own_loc[new] = torch.where(fresh, loc, self._own_loc[new])
        self._own_root[new] = torch.where(fresh[..., None], root, self._own_root[new])
        self._begun[new] = True

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        x, y = x.double(), y.double()
        self.begin(index[0], self._generator)
        for turn in turns(index[0]):
            self._step(tuple(part[turn] for part in index), x[turn], y[turn])
        self._renew()

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        mean, root = self.joint(x, task)
        noise = randn((*root.shape[:-2], root.shape[-1], 1), like=root, generator=generator)
        return mean + (root @ noise)[..., 0]

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        mean, root = self.joint(x, task)
        return Normal(mean, root.square().sum(-1).clamp(min=torch.finfo(root.dtype).tiny).sqrt())

    def joint(self, x: Tensor, task: Task = None) -> tuple[Tensor, Tensor]:
        """Mean `(n, *rest, q)` and a root `(n, *rest, q, 2d)` of the covariance of f at the rows of each decision."""
        loc, root, shared, shared_root = self._of(entries(task, len(x)))
        x = x.double().expand(*loc.shape[:-1], *x.shape[-2:])
        rows = x @ root
        about = rows @ root.mT @ self._task_prior.precision  # of the shared mean
        mean = (x @ loc[..., None] + about @ shared[..., None])[..., 0]
        return mean.to(self._like), torch.cat([rows, about @ shared_root], -1).to(self._like)

    def posterior(self, index: Any = ...) -> LinearGaussian:
        loc, root, shared, shared_root = self._of(index[0] if isinstance(index, tuple) else index)
        through = root @ root.mT @ self._task_prior.precision
        whole = torch.cat([root, through @ shared_root], -1)
        loc = loc + (through @ shared[..., None])[..., 0]
        precision = symmetric(torch.cholesky_inverse(cholesky(symmetric(whole @ whole.mT), "covariance of weights")))
        noise_var = self._task_prior.noise_var.expand(loc.shape[:-1])
        return _arms(LinearGaussian(loc, precision, noise_var).to(self._like), index)

    def state_dict(self) -> State:
        of_tasks = {name: getattr(self, f"_{name}") for name in ("loc", "root", "own_loc", "own_root", "begun")}
        # arms are the second axis, as of all states
        of_arms = {name: getattr(self, f"_{name}")[None] for name in ("precision", "shift")}
        return {**of_tasks, **of_arms, "whole": {"generator": self._generator.get_state()}}

    def load_state_dict(self, state: State) -> None:
        self._generator.set_state(state["whole"]["generator"])
        for name in ("loc", "own_loc", "begun"):
            setattr(self, f"_{name}", state[name].clone())
        for name in ("root", "own_root"):
            # earlier versions kept covariances
            old = state.get(name.replace("root", "cov"))
            root = state[name].clone() if old is None else torch.linalg.cholesky_ex(old).L
            setattr(self, f"_{name}", root)
        self._precision, self._shift = state["precision"][0].clone(), state["shift"][0].clone()
        self._renew()

    def _step(self, entry: Index, x: Tensor, y: Tensor) -> None:
        """One row of each of some entries of different tasks."""
        root, loc = self._root[entry], self._loc[entry]
        f = (x[:, None] @ root)[:, 0]
        var = f.square().sum(-1) + self._task_prior.noise_var
        left = y - (x * loc).sum(-1)
        gain, moved = potter(root, f, self._task_prior.noise_var.expand(var.shape))
        about = (gain * var[:, None]) @ self._task_prior.precision
        self._loc[entry] = loc + gain * left[:, None]
        self._root[entry] = moved
        outer, moment = about[:, :, None] * (about / var[:, None])[:, None], about * (left / var)[:, None]
        if len(entry) > 1:
            self._precision.index_put_(entry[1:], outer, accumulate=True)
            self._shift.index_put_(entry[1:], moment, accumulate=True)
        else:
            self._precision += outer.sum(0)
            self._shift += moment.sum(0)
        if self._how == "marginal":
            self._own(entry, about, left, var)

    def _own(self, entry: Index, about: Tensor, left: Tensor, var: Tensor) -> None:
        """The same row moves what each task knows of the shared mean by itself."""
        root, loc = self._own_root[entry], self._own_loc[entry]
        gain, moved = potter(root, (about[:, None] @ root)[:, 0], var)
        self._own_loc[entry] = loc + gain * (left - (about * loc).sum(-1))[:, None]
        self._own_root[entry] = moved

    def _renew(self) -> None:
        """Mean and a root of the covariance of the belief in the shared mean."""
        self._shared_root = _root_of_inverse(self._precision, "precision")
        self._mean = (self._shared_root @ (self._shared_root.mT @ self._shift[..., None]))[..., 0]

    def _of(self, index: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of some tasks: mean and root given a shared mean of zero, mean and root of what they know of that."""
        loc, root = self._loc[index], self._root[index]
        shared, shared_root = self._mean.expand_as(loc), self._shared_root.expand_as(root)
        if self._how == "redraw":
            return loc, root, shared, shared_root
        begun = self._begun[index][..., None]
        own_root = self._own_root[index]
        return (
            loc,
            root,
            torch.where(begun, self._own_loc[index], shared),
            torch.where(begun[..., None], own_root, shared_root),
        )


def _root_of_inverse(precision: Tensor, name: str) -> Tensor:
    upper = cholesky(precision, name).mT
    return torch.linalg.solve_triangular(upper, torch.eye(upper.shape[-1]).to(upper).expand_as(upper), upper=True)


def _arms(posterior: LinearGaussian, index: Any) -> LinearGaussian:
    """Some arms of some tasks, where `index` says which."""
    if not isinstance(index, tuple):
        return posterior
    return posterior[index[1]] if isinstance(index[0], int) else posterior[:, index[1]]
