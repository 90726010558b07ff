r"""Hamiltonian Monte Carlo for all tasks at once, each with a step size of its own that dual averaging has found.

The number of leapfrog steps is drawn anew for each step, for all chains together, so that no orbit closes.

Source: Neal, MCMC using Hamiltonian dynamics (2011), section 5.3; Hoffman and Gelman, The No-U-Turn sampler (2014),
section 3.2, for dual averaging.
"""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.kernels.independence import acceptance
from bayesmeta.mcmc.kernels.protocol import Info, State
from bayesmeta.mcmc.targets import Targets
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.random import rand, randint, randn

__all__ = ["Hamiltonian", "slopes", "warm_up"]

TARGET_RATE = 0.8
GAMMA, DELAY, KAPPA = 0.05, 10.0, 0.75  # of dual averaging, as in the source
DIVERGED = 1000.0  # error of the energy from which a path is rejected


@dataclass(frozen=True)
class Hamiltonian:
    """Paths of Hamilton's equations, by leapfrog steps.

    Args:
        targets: what is sampled.
        scale_tril: factors of the rough covariances of the targets `(tasks, d, d)`: momenta are white in its units.
        step_size: `(tasks,)`, in those units.
        most_steps: of a path; each has from one to so many.
    """

    targets: Targets
    scale_tril: Tensor
    step_size: Tensor
    most_steps: int = 8

    def init(self, position: Tensor) -> State:
        log_density, slope = slopes(self.targets, position)
        return State(position, log_density, (slope,))

    @torch.no_grad()
    def step(self, state: State, generator: Generator | None = None) -> tuple[State, Info]:
        start = generator or torch.default_generator
        num_steps = 1 + int(randint(self.most_steps, (), generator=start))
        momentum = randn(state.position.shape, like=state.position, generator=generator)
        position, log_density, slope = state.position, state.log_density, state.known[0]
        energy = 0.5 * momentum.square().sum(-1)
        size = self.step_size[:, None]
        for _ in range(num_steps):
            momentum = momentum + 0.5 * size * self._white(slope)
            position = position + size * (self.scale_tril @ momentum[..., None])[..., 0]
            log_density, slope = slopes(self.targets, position)
            momentum = momentum + 0.5 * size * self._white(slope)
        change = log_density - state.log_density + energy - 0.5 * momentum.square().sum(-1)
        change = change.where(change > -DIVERGED, -torch.inf)  # NaN, too
        rate = acceptance(change, torch.zeros_like(change))
        taken = rand(rate.shape, like=rate, generator=generator) < rate
        new = State(
            torch.where(taken[..., None], position, state.position),
            torch.where(taken, log_density, state.log_density),
            (torch.where(taken[..., None], slope, state.known[0]),),
        )
        return new, Info(rate, taken, torch.full_like(rate, torch.nan))

    def _white(self, slope: Tensor) -> Tensor:
        return (self.scale_tril.mT @ slope[..., None])[..., 0]


@with_gradients
def slopes(targets: Targets, position: Tensor) -> tuple[Tensor, Tensor]:
    """Log density `(..., tasks)` and gradient; minus infinity and zero where either is no number."""
    at = position.detach().requires_grad_()
    value = targets.log_density(at)
    (slope,) = torch.autograd.grad(value.sum(), at)
    good = (value < torch.inf) & slope.isfinite().all(-1)
    return value.detach().where(good, -torch.inf), slope.where(good[..., None], 0.0)


@torch.no_grad()
def warm_up(
    kernel: Hamiltonian, state: State, num_steps: int, generator: Generator | None = None
) -> tuple[Hamiltonian, State]:
    """The kernel with step sizes that are accepted at the target rate, frozen, and where the chains are then."""
    log_size = kernel.step_size.log()
    centre = log_size + 2.302585  # ten times what it begins with: large steps are tried
    average, error = log_size.clone(), torch.zeros_like(log_size)
    for i in range(1, num_steps + 1):
        state, info = replace(kernel, step_size=log_size.exp()).step(state, generator)
        share = 1.0 / (i + DELAY)
        error = (1.0 - share) * error + share * (TARGET_RATE - info.acceptance_rate.mean(0))
        log_size = centre - i**0.5 / GAMMA * error
        weight = i**-KAPPA
        average = weight * log_size + (1.0 - weight) * average
    return replace(kernel, step_size=average.exp()), state
