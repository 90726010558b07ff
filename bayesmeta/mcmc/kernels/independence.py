r"""Metropolis-Hastings with proposals that do not look at the chain, and resampling among several of them.

A move from x to a draw y of q is accepted with probability $\min(1, w(y) / w(x))$, $w = p / q$. Since draws and weights
depend on no chain, all of them are computed at once; what is left of a chain is one comparison a step.

Source: Tierney, Markov chains for exploring posterior distributions (1994), section 2.3.3; Andrieu, Doucet and
Holenstein, Particle Markov chain Monte Carlo methods (2010), section 2.2.2, for iterated resampling.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.kernels.protocol import Info, State
from bayesmeta.mcmc.targets import Proposal, Targets, evaluate
from bayesmeta.random import categorical, rand

__all__ = ["Independence", "Resampling", "accept_in_turn"]


@dataclass(frozen=True)
class Independence:
    """Independence Metropolis-Hastings."""

    targets: Targets
    proposal: Proposal

    def init(self, position: Tensor) -> State:
        log_q = self.proposal.log_prob(position)
        return State(position, evaluate(self.targets, position), (log_q,))

    def step(self, state: State, generator: Generator | None = None) -> tuple[State, Info]:
        new = self.proposal.sample_params(len(state.position), generator=generator)
        log_q, log_p = self.proposal.log_prob(new), evaluate(self.targets, new)
        (old_q,) = state.known
        rate = acceptance(log_p - log_q, state.log_density - old_q)
        accepted = rand(rate.shape, like=rate, generator=generator) < rate
        here_q = torch.where(accepted, log_q, old_q)
        position = torch.where(accepted[..., None], new, state.position)
        state = State(position, torch.where(accepted, log_p, state.log_density), (here_q,))
        return state, Info(rate, accepted, here_q)


@dataclass(frozen=True)
class Resampling:
    """Iterated sampling importance resampling: the chain goes to one of `num_proposals` draws or stays, by weight.

    Args:
        num_proposals: at each step.
    """

    targets: Targets
    proposal: Proposal
    num_proposals: int = 8

    def init(self, position: Tensor) -> State:
        log_q = self.proposal.log_prob(position)
        return State(position, evaluate(self.targets, position), (log_q,))

    def step(self, state: State, generator: Generator | None = None) -> tuple[State, Info]:
        chains, tasks, d = state.position.shape
        n = self.num_proposals
        new = self.proposal.sample_params(n * chains, generator=generator)
        log_q, log_p = self.proposal.log_prob(new), evaluate(self.targets, new)

        def with_old(drawn: Tensor, old: Tensor) -> Tensor:
            return torch.cat([old[None], drawn.reshape(n, *old.shape)])

        log_q, log_p = with_old(log_q, state.known[0]), with_old(log_p, state.log_density)
        log_weight = (log_p - log_q).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        # where nothing has a weight the chain stays
        log_weight[0] = log_weight[0].where((log_weight > -torch.inf).any(0), 0.0)
        chosen = categorical(1, log_weight.movedim(0, -1), generator=generator)
        position = with_old(new, state.position).gather(0, chosen[..., None].expand(1, chains, tasks, d))[0]
        here_q, here_p = log_q.gather(0, chosen)[0], log_p.gather(0, chosen)[0]
        moved = chosen[0] > 0
        rate = 1.0 - log_weight.softmax(0)[0]
        return State(position, here_p, (here_q,)), Info(rate, moved, here_q)


def acceptance(new: Tensor, old: Tensor) -> Tensor:
    """min(1, exp(new - old)) of log weights; a chain that is nowhere, at minus infinity, takes any move that is."""
    return (new - old).nan_to_num(nan=-torch.inf, posinf=0.0).clamp(max=0.0).exp()


def accept_in_turn(log_weights: Tensor, start: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
    """Which proposal each chain is at after each step, -1 for where it started, and acceptance rates.

    Args:
        log_weights: of the proposals of each step `(steps, *chains)`.
        start: log weights where the chains begin `(*chains)`.

    Returns:
        indices `(steps, *chains)`, and probabilities of acceptance alike.
    """
    log_u = rand(log_weights.shape, like=log_weights, generator=generator).log()
    here, place = start.clone(), torch.full(start.shape, -1, dtype=torch.long, device=start.device)
    places = torch.empty(log_weights.shape, dtype=torch.long, device=start.device)
    weights_here = torch.empty_like(log_weights)
    for i in range(len(log_weights)):
        weights_here[i] = here
        accepted = log_weights[i] - here > log_u[i]  # minus infinity less itself compares false
        here = torch.where(accepted, log_weights[i], here)
        place = place.masked_fill(accepted, i)
        places[i] = place
    return places, acceptance(log_weights, weights_here)
