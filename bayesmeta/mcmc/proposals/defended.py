"""A proposal with a share of another in it, whose weights are bounded wherever the other covers the target."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.targets import Proposal
from bayesmeta.random import rand

__all__ = ["Defended", "defended"]


@dataclass(frozen=True, eq=False)
class Defended:
    """(1 - share) of `main` and `share` of `defence`."""

    main: Proposal
    defence: Proposal
    share: float

    @property
    def batch_shape(self) -> torch.Size:
        return self.main.batch_shape  # type: ignore[attr-defined]

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        main = self.main.sample_params(num_draws, generator=generator)
        chosen = rand(main.shape[:-1], like=main, generator=generator) < self.share
        most = int(chosen.sum(0).max())
        if not most:
            return main
        # as many draws of the defence as any task needs, each task's own in the order of its places
        other = self.defence.sample_params(most, generator=generator).to(main)
        place = chosen.cumsum(0).sub(1).clamp(min=0)
        picked = other.gather(0, place[..., None].expand(main.shape))
        return torch.where(chosen[..., None], picked, main)

    def log_prob(self, params: Tensor) -> Tensor:
        return torch.logaddexp(
            self.main.log_prob(params) + math.log1p(-self.share),
            self.defence.log_prob(params) + math.log(self.share),
        )

    def __getitem__(self, index: Any) -> "Defended":
        return Defended(self.main[index], self.defence[index], self.share)


def defended(main: Proposal, defence: Proposal, share: float) -> Proposal:
    """`main` with a share of `defence` in it; `main` itself where the share is zero."""
    return Defended(main, defence, share) if share > 0.0 else main
