"""Random walk Metropolis: normal steps, of one shape for each task."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.kernels.independence import acceptance
from bayesmeta.mcmc.kernels.protocol import Info, State
from bayesmeta.mcmc.targets import Targets, evaluate
from bayesmeta.random import rand, randn

__all__ = ["RandomWalk"]


@dataclass(frozen=True)
class RandomWalk:
    """Normal steps from where a chain is.

    Args:
        targets: what is sampled.
        step_tril: factors of the covariances of the steps `(tasks, d, d)`; 2.4 / sqrt(d) of a target's own is usual.

    Source: Roberts, Gelman and Gilks, Weak convergence and optimal scaling of random walk Metropolis (1997).
    """

    targets: Targets
    step_tril: Tensor

    def init(self, position: Tensor) -> State:
        return State(position, evaluate(self.targets, position))

    def step(self, state: State, generator: Generator | None = None) -> tuple[State, Info]:
        noise = randn(state.position.shape, like=state.position, generator=generator)
        new = state.position + (self.step_tril @ noise[..., None])[..., 0]
        log_p = evaluate(self.targets, new)
        rate = acceptance(log_p, state.log_density)
        accepted = rand(rate.shape, like=rate, generator=generator) < rate
        position = torch.where(accepted[..., None], new, state.position)
        log_density = torch.where(accepted, log_p, state.log_density)
        return State(position, log_density), Info(rate, accepted, torch.full_like(rate, torch.nan))
