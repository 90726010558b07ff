"""Where in a search space a function is greatest: candidates everywhere, then local moves that stay valid."""

import torch
from torch import Generator, Tensor

from bo.space.search_space import SearchSpace
from bo.values import Value

__all__ = ["climb"]

NUM_NEAR_GOOD = 16
NUM_BEST = 3  # candidates around which more are tried in each round
NUM_NEIGHBOURS = 64
# sizes of local moves, round by round: more rounds come closer to the top, and each costs a call of the value
STEPS = (0.1, 0.07, 0.045, 0.025, 0.012)


def climb(
    value: Value, space: SearchSpace, starts: Tensor, good: Tensor, *, generator: Generator | None = None
) -> Tensor:
    """The best point found, `(d,)`.

    Categories and whole numbers have no gradient, so moves are random and valid rather than steepest.

    Args:
        value: what to climb; -inf where nothing should be proposed.
        space: in which the point must be valid.
        starts: candidates from all over the space, `(n, d)`.
        good: points that did well, `(k, d)`, a few of whose neighbours are among the candidates.

    Raises:
        ArithmeticError: `value` is not a number at any candidate.
    """
    near = space.neighbours(good, NUM_NEAR_GOOD, STEPS[0], generator=generator).flatten(0, 1)
    candidates = torch.cat([starts, near])
    worth = _worth(value, candidates)
    for step in STEPS:
        top = worth.topk(min(NUM_BEST, len(candidates))).indices
        near = space.neighbours(candidates[top], NUM_NEIGHBOURS, step, generator=generator).flatten(0, 1)
        worth = torch.cat([worth[top], _worth(value, near)])
        candidates = torch.cat([candidates[top], near])
    return candidates[worth.argmax()]


def _worth(value: Value, points: Tensor) -> Tensor:
    worth = value(points)
    unknown = worth.isnan()
    if not unknown.any():
        return worth
    if unknown.all():
        raise ArithmeticError("no point has a value that is a number")
    return worth.masked_fill(unknown, -torch.inf)
