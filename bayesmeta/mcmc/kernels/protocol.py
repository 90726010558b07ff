"""What a kernel is: a pure function from where chains are to where they go, for C chains of T tasks at once.

A kernel holds its target and its settings and never changes, so a kernel that is used cannot adapt. `warm_up`
functions return another kernel.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

__all__ = ["Info", "Kernel", "State", "run"]


@dataclass(frozen=True)
class State:
    """Where chains are.

    Args:
        position: `(chains, tasks, d)`.
        log_density: of the target there `(chains, tasks)`.
        known: what else the kernel has computed there, so that it need not be computed again.
    """

    position: Tensor
    log_density: Tensor
    known: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Info:
    """What a step did, each `(chains, tasks)`.

    Args:
        acceptance_rate: probability with which the step was accepted.
        is_accepted: whether it was.
        log_proposal: log density of the proposal where the chain is now, NaN for a kernel that has none.
    """

    acceptance_rate: Tensor
    is_accepted: Tensor
    log_proposal: Tensor


@runtime_checkable
class Kernel(Protocol):
    """A step that leaves its target unchanged."""

    def init(self, position: Tensor) -> State:
        """The state of chains that start at `position` `(chains, tasks, d)`."""
        ...

    def step(self, state: State, generator: Generator | None = None) -> tuple[State, Info]:
        """One step of each chain."""
        ...


@torch.no_grad()
def run(
    kernel: Kernel, state: State, num_draws: int, generator: Generator | None = None
) -> tuple[State, Tensor, Tensor, Info]:
    """`num_draws` steps: the last state, positions `(num_draws, chains, tasks, d)`, log densities, and infos alike."""
    positions, densities, infos = [], [], []
    for _ in range(num_draws):
        state, info = kernel.step(state, generator)
        positions.append(state.position)
        densities.append(state.log_density)
        infos.append(info)
    told = Info(
        torch.stack([info.acceptance_rate for info in infos]),
        torch.stack([info.is_accepted for info in infos]),
        torch.stack([info.log_proposal for info in infos]),
    )
    return state, torch.stack(positions), torch.stack(densities), told
