"""Where in a search space a function is greatest: candidates everywhere, then local moves that stay valid."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from bo.space import SearchSpace

__all__ = ["Value", "climb", "masked"]

Value = Callable[[Tensor], Tensor]  # points (n, d) -> (n,), more is better

NUM_LOCAL = 5  # best rows, and best candidates, around which more candidates are tried
NUM_NEIGHBOURS = 32
STEPS = (0.1, 0.03)  # sizes of the two rounds of local moves


def climb(
    value: Value,
    space: SearchSpace,
    starts: Tensor,
    x: Tensor,
    better: Tensor,
    taken: Tensor,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """The best point found, `(d,)`.

    Categories and whole numbers have no gradient, so moves are random and valid rather than steepest.

    Args:
        value: what to climb.
        space: in which the point must be valid.
        starts: candidates from all over the space, `(n, d)`.
        x: rows seen, whose best have neighbours among the candidates.
        better: how good these rows were, more being better.
        taken: points that are not to be proposed again.
    """
    candidates = starts
    if len(x):
        top = x[better.topk(min(NUM_LOCAL, len(x))).indices]
        near = space.neighbours(top, NUM_NEIGHBOURS, STEPS[0], generator=generator).flatten(0, 1)
        candidates = torch.cat([candidates, near])
    worth = masked(value(candidates), candidates, taken)
    for step in STEPS:
        top = worth.topk(min(NUM_LOCAL, len(candidates))).indices
        near = space.neighbours(candidates[top], NUM_NEIGHBOURS, step, generator=generator).flatten(0, 1)
        worth = torch.cat([worth[top], masked(value(near), near, taken)])
        candidates = torch.cat([candidates[top], near])
    return candidates[worth.argmax()]


def masked(worth: Tensor, candidates: Tensor, taken: Tensor) -> Tensor:
    """-inf for candidates that equal a taken point."""
    if not len(taken):
        return worth
    distance = torch.cdist(candidates, taken, compute_mode="donot_use_mm_for_euclid_dist")
    return worth.masked_fill(distance.amin(-1) < 1e-9, -torch.inf)
