"""Particles of the mean rewards of arms, updated in place."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.data.statistics import Statistics
from bayesmeta.diffusion.online import ParticlesInPlace, at
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.online.protocol import Index, State, Task
from bayesmeta.online.sums import statistics_from, statistics_state
from bayesmeta.random import categorical, randn
from bayesmeta.regression.arms_by_number import arm_index

if TYPE_CHECKING:
    from bayesmeta.diffusion.prior import DiffusionPrior

__all__ = ["OnlineParticles"]


class OnlineParticles(ParticlesInPlace):
    """See `ParticlesInPlace`; rows are kept as statistics of each arm."""

    def __init__(self, prior: "DiffusionPrior", batch_shape: Sequence[int]) -> None:
        super().__init__(prior, batch_shape)
        self.prior = prior
        self.statistics = Statistics.zeros((*self.batch_shape, prior.num_arms), 0, 1, device=prior.device)
        self._noise_var = prior.arms.noise_var.double()

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        chosen = categorical(1, at(self._log_weights, x, task), generator=generator)[0]
        own = self._mean[_numbers(x, task), chosen]  # one particle of each decision: all would be many numbers
        noise = randn(own.shape, like=own, generator=generator)
        theta = own + (at(self._root, x, task) @ noise[..., None])[..., 0]
        return theta.gather(-1, x[..., 0].long()).to(self.prior.arms.loc)

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        arm, like = x[..., 0].long(), self.prior.arms.loc
        mean, log_weights = (at(part, x, task) for part in (self._mean, self._log_weights))
        each = mean.gather(-1, arm[:, None].expand(-1, mean.shape[1], -1))
        root = self._root if task is None else self._root[task]
        var = root.square().sum(-1).expand(len(x), -1).gather(-1, arm)
        sd = var.sqrt()[:, None].expand_as(each)
        return MixtureDistribution(log_weights[..., None], Normal(each.to(like), sd.to(like)), -2)

    def posterior(self, index: Any = ...) -> "DiffusionPrior":
        return self._of(index).condition(self.statistics[index])

    def state_dict(self) -> State:
        return super().state_dict() | {"statistics": statistics_state(self.statistics)}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        statistics = statistics_from(state["statistics"])
        assert statistics is not None
        self.statistics = statistics

    def _read(self, x: Tensor, y: Tensor) -> Tensor:
        return arm_index(x[:, None], self.prior.num_arms)[:, 0]

    def _keep(self, index: Index, x: Tensor, y: Tensor) -> None:
        self.statistics.add_rows((*index, x), y.new_zeros(len(y), 0), y)

    def _step(self, index: Index, x: Tensor, y: Tensor) -> None:
        expected = self._mean.movedim(-1, len(index))[(*index, x)]
        self._step_of_normal(index, self._root[(*index, x)], expected, y, self._noise_var)


def _numbers(x: Tensor, task: Task) -> Tensor:
    """Of the task of each decision."""
    if isinstance(task, Tensor):
        return task
    return torch.arange(len(x), device=x.device) if task is None else torch.full((len(x),), task, device=x.device)
