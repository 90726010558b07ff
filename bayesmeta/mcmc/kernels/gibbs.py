r"""Gibbs sampling of binary variables one by one, those that do not see each other at once.

The odds of a variable depend on its Markov blanket alone. With k variables in it these are $2^k$ numbers, which are
looked up: an update is an index, a uniform draw and a comparison.

Source: Geman and Geman, Stochastic relaxation, Gibbs distributions, and the Bayesian restoration of images (1984).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.kernels.protocol import Info, State
from bayesmeta.random import rand

__all__ = ["BinaryGibbs", "from_bits", "to_bits"]


@dataclass(frozen=True, eq=False)
class BinaryGibbs:
    """Each step updates each variable once, colour by colour.

    Args:
        blanket: the k variables on which each one depends, `(d, k)`; d stands for one that is not there, and is zero.
        log_odds: of one against zero for each task, variable and value of its blanket `(tasks, d, 2^k)`; the value has
            the first variable of the blanket as its highest bit.
        colours: `(d,)`, equal only for variables of which none is in the blanket of another.
        log_density: of positions `(chains, tasks, d)`, shape `(chains, tasks)`.

    Raises:
        ValueError: two variables of one colour see each other, or the table has another shape.
    """

    blanket: Tensor
    log_odds: Tensor
    colours: Tensor
    log_density: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        d, k = self.blanket.shape
        if tuple(self.log_odds.shape[1:]) != (d, 2**k):
            raise ValueError(f"log_odds must have shape (tasks, {d}, {2**k}); got {tuple(self.log_odds.shape)}")
        painted = torch.cat([self.colours, self.colours.new_full((1,), -1)])
        if bool((painted[self.blanket] == self.colours[:, None]).any()):
            raise ValueError("colours must differ between a variable and those of its blanket")

    @cached_property
    def _parts(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each colour: its variables, their blankets `(k, n)`, and probabilities of one `(n, tasks, 2^k)`."""
        probs = self.log_odds.sigmoid().float().movedim(1, 0).contiguous()
        groups = [(self.colours == colour).nonzero()[:, 0] for colour in self.colours.unique()]
        return [(group, self.blanket[group].mT.contiguous(), probs[group].contiguous()) for group in groups]

    def init(self, position: Tensor) -> State:
        return State(position, self.log_density(position))

    def move(self, bits: Tensor, generator: Generator | None = None) -> Tensor:
        """One sweep of `(d + 1, tasks, chains)`, see `to_bits`, in place."""
        for group, blanket, probs in self._parts:
            index = bits[blanket[0]]
            for each in blanket[1:]:
                index = torch.add(bits[each], index, alpha=2)
            p = probs.gather(-1, index.long())
            bits[group] = (rand(p.shape, like=p, generator=generator) < p).to(bits.dtype)
        return bits

    def step(self, state: State, generator: Generator | None = None) -> tuple[State, Info]:
        position = from_bits(self.move(to_bits(state.position), generator), state.position)
        density = self.log_density(position)
        one = torch.ones_like(density)
        return State(position, density), Info(one, one.bool(), torch.full_like(density, torch.nan))


def to_bits(position: Tensor) -> Tensor:
    """Positions `(chains, tasks, d)` of zeros and ones as bytes `(d + 1, tasks, chains)`, the last of them zero."""
    bits = torch.zeros(position.shape[2] + 1, *position.shape[1::-1], dtype=torch.uint8, device=position.device)
    bits[:-1] = position.permute(2, 1, 0)
    return bits


def from_bits(bits: Tensor, like: Tensor) -> Tensor:
    """The positions of bytes, with the dtype of `like`."""
    return bits[:-1].permute(2, 1, 0).to(like.dtype, memory_format=torch.contiguous_format)
