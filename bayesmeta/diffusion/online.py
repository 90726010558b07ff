"""Particles that stay warm between rows: what a policy owns while its tasks run.

Particles are kept at a level of noise. Given u there and all rows, theta is Gaussian with one covariance for all
particles of a task, so a row costs a step of Kalman's filter for the mean of each and one for the covariance, and no
look at the network. Weights follow from what each particle expected of the row. Particles are never moved, so that in
the end few have all the weight: then the task is looked at anew, from all of its rows. With an approximate sampler,
which weighs nothing, it is looked at anew after each row.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_finite
from bayesmeta.diffusion.sampling.particle_filter import effective_size
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.numerics.square_root import potter
from bayesmeta.online.protocol import Index, State, Task, distinct, rows_before
from bayesmeta.online.sums import statistics_from, statistics_state
from bayesmeta.random import categorical, randn
from bayesmeta.regression.arms_by_number import arm_index

if TYPE_CHECKING:
    from bayesmeta.diffusion.prior import DiffusionPrior

__all__ = ["OnlineParticles"]

STALE = 0.25  # share of the particles: where fewer are effective, the task is looked at anew


class OnlineParticles:
    """Particles of tasks, to be updated in place.

    Args:
        prior: without rows.
        batch_shape: tasks.
    """

    def __init__(self, prior: "DiffusionPrior", batch_shape: Sequence[int]) -> None:
        self.batch_shape = torch.Size(batch_shape)
        self.prior = prior.expand(self.batch_shape) if prior.batch_shape else prior
        k = prior.num_arms
        self.statistics = Statistics.zeros((*self.batch_shape, k), 0, 1, device=prior.device)
        self._noise_var = prior.arms.noise_var.double()
        found = self.prior._posterior
        num = self.batch_shape.numel()
        self._mean = found.mean.expand(num, -1, -1).reshape(*self.batch_shape, -1, k).clone()
        self._root = found.root.expand(num, -1, -1).reshape(*self.batch_shape, k, k).clone()
        self._log_weights = found.log_weights.expand(num, -1).reshape(*self.batch_shape, -1).clone()
        self.num_reruns = torch.zeros(self.batch_shape, dtype=torch.long, device=prior.device)
        self._log_evidence = torch.zeros_like(self._log_weights[..., 0])
        self._before = found.log_evidence.expand(num).reshape(self.batch_shape)  # of rows that the prior has seen

    @property
    def log_evidence(self) -> Tensor:
        """log p(rows) of each task: the filter's estimate when it was looked at last, and what later rows added.

        Raises:
            ValueError: the sampler is an approximate one.
        """
        self.prior.require_weighted()
        return self._log_evidence

    @property
    def ess(self) -> Tensor:
        """Effective number of the particles of each task."""
        return effective_size(self._log_weights)

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        arm, turn = arm_index(x[:, None], self.prior.num_arms)[:, 0], rows_before(index)
        require_finite("y", y)
        if not self.prior.is_approximate:
            for i in range(int(turn.max()) + 1):
                rows = turn == i
                self._step(tuple(part[rows] for part in index), arm[rows], y[rows].double())
        self.statistics.add_rows((*index, arm), x[:, :0], y)
        self._look_anew(index)

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        chosen = categorical(1, self._at(self._log_weights, x, task), generator=generator)[0]
        own = self._mean[_numbers(x, task), chosen]  # one particle of each decision: all would be many numbers
        noise = randn(own.shape, like=own, generator=generator)
        theta = own + (self._at(self._root, x, task) @ noise[..., None])[..., 0]
        return theta.gather(-1, x[..., 0].long()).to(self.prior.arms.loc)

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        arm, like = x[..., 0].long(), self.prior.arms.loc
        mean, log_weights = (self._at(part, x, task) for part in (self._mean, self._log_weights))
        each = mean.gather(-1, arm[:, None].expand(-1, mean.shape[1], -1))
        root = self._root if task is None else self._root[task]
        var = root.square().sum(-1).expand(len(x), -1).gather(-1, arm)
        sd = var.sqrt()[:, None].expand_as(each)
        return MixtureDistribution(log_weights[..., None], Normal(each.to(like), sd.to(like)), -2)

    def posterior(self, index: Any = ...) -> "DiffusionPrior":
        return self._of(index).condition(self.statistics[index])

    def state_dict(self) -> State:
        particles = {"mean": self._mean, "root": self._root, "log_weights": self._log_weights}
        particles["log_evidence"] = self._log_evidence
        return {"statistics": statistics_state(self.statistics), "num_reruns": self.num_reruns, **particles}

    def load_state_dict(self, state: State) -> None:
        statistics = statistics_from(state["statistics"])
        assert statistics is not None
        self.statistics, self.num_reruns = statistics, state["num_reruns"].clone()
        self._mean, self._root, self._log_weights = (state[name].clone() for name in ("mean", "root", "log_weights"))
        self._log_evidence = state["log_evidence"].clone()

    def _step(self, index: Index, arm: Tensor, y: Tensor) -> None:
        """One row of each of distinct tasks."""
        mean, root = self._mean[index], self._root[index]
        f = root.gather(-2, arm[:, None, None].expand(-1, 1, root.shape[-1]))[:, 0]
        left = y[:, None] - mean.gather(-1, arm[:, None, None].expand(-1, mean.shape[1], 1))[..., 0]
        var = f.square().sum(-1) + self._noise_var
        gain, moved = potter(root, f, self._noise_var.expand(len(f)))
        self._mean[index] = mean + left[..., None] * gain[:, None]
        self._root[index] = moved
        log_prob = -0.5 * (left.square() / var[:, None] + (2.0 * math.pi * var).log()[:, None])
        weighed = self._log_weights[index] + log_prob
        self._log_evidence[index] += weighed.logsumexp(-1)
        self._log_weights[index] = weighed.log_softmax(-1)

    def _look_anew(self, index: Index) -> None:
        enough = effective_size(self._log_weights[index]) >= STALE * self._log_weights.shape[-1]
        few = torch.ones_like(enough) if self.prior.is_approximate else ~enough  # weights may be no numbers
        if not bool(few.any()):
            return
        poor = distinct(tuple(part[few] for part in index))
        found = self.posterior(poor)._posterior
        self._mean[poor], self._log_weights[poor] = found.mean, found.log_weights
        self._log_evidence[poor] = found.log_evidence - self._before[poor]
        self._root[poor] = found.root
        self.num_reruns[poor] += 1

    def _of(self, index: Any) -> "DiffusionPrior":
        """The prior of some tasks: each its own where it is a posterior of them."""
        return self.prior[index] if self.prior.batch_shape else self.prior

    @staticmethod
    def _at(part: Tensor, x: Tensor, task: Task) -> Tensor:
        """What is kept of the task of each decision; a copy only where decisions name their tasks."""
        if isinstance(task, int):
            return part[task].expand(len(x), *part.shape[1:])
        return part if task is None else part[task]


def _numbers(x: Tensor, task: Task) -> Tensor:
    """Of the task of each decision."""
    if isinstance(task, Tensor):
        return task
    return torch.arange(len(x), device=x.device) if task is None else torch.full((len(x),), task, device=x.device)
