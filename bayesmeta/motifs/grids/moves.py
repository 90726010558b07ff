"""Moves of blocks of a grid network given what is around them: by a learned proposal, or by all states of a block."""

from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from bayesmeta.doors import require_count
from bayesmeta.mcmc.kernels.independence import accept_in_turn
from bayesmeta.motifs.blocks import Blocks
from bayesmeta.motifs.grids.conditioned import Conditioned
from bayesmeta.motifs.networks import BernoulliProposal
from bayesmeta.random import rand

__all__ = ["BlockMove", "ExactMove", "LearnedMove", "block_states", "exact_log_probs", "log_weights"]

MOST_NODES = 12  # of a block whose states are listed


@runtime_checkable
class BlockMove(Protocol):
    """A move that leaves the distribution of a block given the rest unchanged."""

    def move(self, block: Conditioned, values: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Where blocks `(n, m)` go, and the rates at which moves were accepted `(n,)`."""
        ...


@dataclass(frozen=True)
class LearnedMove:
    """Metropolis-Hastings with what a network proposes.

    Args:
        num_proposals: that are tried in turn, all drawn from what one pass of the network says.
    """

    proposal: BernoulliProposal
    num_proposals: int = 2

    def __post_init__(self) -> None:
        require_count("num_proposals", self.num_proposals)

    def move(self, block: Conditioned, values: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        q = self.proposal.blocks(block.inputs())
        new = q.sample(self.num_proposals, generator=generator).to(values)
        every = torch.cat([values[None], new])
        weights = log_weights(block, q, every)
        places, rates = accept_in_turn(weights[1:], weights[0], generator)
        last = (places[-1] + 1)[None, :, None].expand(1, *values.shape)
        return every.gather(0, last)[0], rates.mean(0)


def log_weights(block: Conditioned, q: Blocks, values: Tensor) -> Tensor:
    """Log p - log q of `(k, n, m)`, shape `(k, n)`: by their differences moves are accepted."""
    return block.log_density(values) - q.log_prob(values).to(block.logits.dtype)


@dataclass(frozen=True)
class ExactMove:
    """A draw from all 2^m states of a block: Gibbs sampling of blocks."""

    def move(self, block: Conditioned, values: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        below = exact_log_probs(block).exp().cumsum(-1)
        uniform = rand((len(below), 1), like=below, generator=generator) * below[:, -1:]
        chosen = (uniform >= below[:, :-1]).sum(-1)
        return block_states(*block.evidence.shape[-2:])[0].to(values)[chosen], below.new_ones(len(below))


def exact_log_probs(block: Conditioned) -> Tensor:
    """Log probabilities of all states of blocks with one leading axis, `(n, 2^m)`."""
    _, by_one, by_zero, ones = block_states(*block.evidence.shape[-2:])
    logits = block.logits.flatten(1)
    log_zero = -torch.nn.functional.softplus(logits)
    density = (log_zero + logits) @ by_one.to(logits) + log_zero @ by_zero.to(logits)
    return (density + block.evidence.flatten(1) @ ones.to(logits)).log_softmax(-1)


@cache
def block_states(height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All states `(2^m, m)`; which logits each takes for ones, and for zeros `(4 m, 2^m)`; and its ones `(m, 2^m)`.

    Raises:
        ValueError: the block has more than 12 nodes.
    """
    m = height * width
    if m > MOST_NODES:
        raise ValueError(f"states of a block are listed: it has at most {MOST_NODES} nodes; got {m}")
    states = torch.arange(2**m)[:, None] >> torch.arange(m - 1, -1, -1) & 1
    x = states.reshape(-1, height, width)
    up, left = torch.zeros_like(x), torch.zeros_like(x)
    up[:, 1:], left[..., 1:] = x[:, :-1], x[..., :-1]
    taken = torch.nn.functional.one_hot(2 * up + left, 4).flatten(1).float()
    is_one = states.float().repeat_interleave(4, -1)
    return states.float(), (taken * is_one).mT.contiguous(), (taken * (1.0 - is_one)).mT.contiguous(), states.float().mT
