"""What the laws are asked of: a policy, and decisions and rewards that it can have."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from bandits.decisions.policy import Policy

__all__ = ["Case"]


@dataclass(frozen=True)
class Case:
    """A policy over at least two arms, and how to draw contexts and rewards for it.

    Args:
        make: takes `tasks` and `seed`, as `Policy` does, and returns the policy.
        width: of contexts, 0 where arms need none.
        new_arm: what `add_arm` takes of a new arm beside its name, such as its features; None where arms cannot change.
        bad_rewards: that the prior cannot have; such as are no numbers are tried in any case.
        exempt: names of laws that the policy does not obey; say beside it why that is right.
        rtol: to which expected rewards agree.
        num_draws: of the law about frequencies.
        shift: added to every seed, so that a test need not depend on one.
    """

    make: Callable[..., Policy]
    width: int = 0
    new_arm: Mapping[str, Any] | None = field(default_factory=dict)
    bad_rewards: tuple[float, ...] = ()
    exempt: frozenset[str] = frozenset()
    rtol: float = 1e-5
    num_draws: int = 4000
    shift: int = 0

    def seed(self, number: int) -> Generator:
        return Generator().manual_seed(number + self.shift)

    def policy(self, tasks: int | None = None) -> Policy:
        """The same one each time."""
        return self.make(tasks=tasks, seed=1 + self.shift)

    def draw_contexts(self, n: int, generator: Generator) -> Tensor:
        """Contexts of n decisions `(n, width)`, normal; for subclasses whose contexts are of another kind."""
        return torch.randn(n, self.width, dtype=torch.float64, generator=generator)

    def draw_rewards(self, n: int, generator: Generator) -> Tensor:
        """Rewards of n decisions `(n,)`, 0 or 1; for subclasses whose rewards are of another kind."""
        return torch.randint(2, (n,), generator=generator).double()

    def rewards(self, n: int, number: int) -> Tensor:
        return self.draw_rewards(n, self.seed(number))

    def one(self, number: int) -> dict[str, Any]:
        """What `choose` is given for one decision of one task."""
        return {"context": self.draw_contexts(1, self.seed(number))[0]} if self.width else {}

    def several(self, n: int, number: int) -> dict[str, Any]:
        """What it is given for n decisions of one task."""
        return {"context": self.draw_contexts(n, self.seed(number))} if self.width else {"num": n}

    def same(self, n: int, number: int) -> dict[str, Any]:
        """The same for n decisions in one context."""
        return {"context": self.one(number)["context"].expand(n, -1)} if self.width else {"num": n}

    def of_each(self, tasks: int, number: int) -> dict[str, Any]:
        """What it is given for one decision of each task."""
        return {"context": self.draw_contexts(tasks, self.seed(number))} if self.width else {}
