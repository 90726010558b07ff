r"""The probability of the arm that was chosen, where arms are jointly normal.

Values of the arms are $m + R z$ with z standard normal. Given all of z but its part t along one direction u, they are
lines in t, and an arm is the best between two values of t: its probability is that of an interval of a normal variable.
It is averaged over the draw that chose the arm and others like it.

The draw that chose is exchangeable with the others: given the set of draws, each is as likely to be the one that chose.
So the probability of arm a given the set is the average itself, and E[1{A = a} / average] is the probability that the
average is above zero. Without the draw
that chose, an average of a few could be next to zero where the arm was chosen. The direction may depend on the arm, as
the law holds for each arm alone; it is that in which the arm differs most from the others' average.
"""

import torch
from torch import Generator, Tensor

from bandits.prospects.capabilities import JointlyNormal
from bandits.prospects.propensity import Propensities, of_chosen
from bandits.prospects.prospects import Prospects
from bayesmeta.random import randn

__all__ = ["best_along_lines", "chances_along_lines"]

NUM_LINES = 128  # besides that of the draw that chose
CHUNK = 2_000_000  # numbers that are held at once


def best_along_lines(
    prospects: Prospects, online: JointlyNormal, generator: Generator, log_generator: Generator
) -> tuple[Tensor, Propensities]:
    """The best arm of one joint draw for each decision, and how probable it was, `(n,)` each."""
    mean, root = online.joint(prospects.x, prospects.task)
    mean = mean.expand(root.shape[:-1])
    noise = randn((*root.shape[:-2], root.shape[-1]), like=root, generator=generator)
    values = prospects.masked(mean + (root @ noise[..., None])[..., 0])
    arm = prospects.best(values, generator)
    if prospects.x.shape[1] == 2:
        return arm, of_chosen(prospects, arm, log_generator)
    n, size = len(arm), max(1, CHUNK // (NUM_LINES * root.shape[-2]))
    parts = []
    for i in range(0, n, size):
        some = slice(i, i + size)
        others = randn((len(arm[some]), NUM_LINES, root.shape[-1]), like=root, generator=log_generator)
        every = torch.cat([noise[some, None], others], 1).double()
        available = None if prospects.available is None else prospects.available[some]
        parts.append(chances_along_lines(mean[some].double(), root[some].double(), every, arm[some], available))
    chance = torch.cat(parts)
    error = chance.std(-1) / chance.shape[-1] ** 0.5
    return arm, Propensities(chance.mean(-1).to(mean), error.to(mean))


def chances_along_lines(
    mean: Tensor, root: Tensor, noise: Tensor, arm: Tensor, available: Tensor | None = None
) -> Tensor:
    """How probable it is that `arm` is the best, given each draw but for its part along one direction: `(n, draws)`.

    Args:
        mean, root: of the arms' values at each decision, `(n, arms)` and `(n, arms, r)`, float64.
        noise: standard normal draws `(n, draws, r)`; by the first of them the arm is the best.
        arm: `(n,)`.
        available: which arms take part, `(n, arms)`; None for all.
    """
    each = torch.arange(len(arm))
    direction = _direction(root, arm, available)
    slope = (root @ direction[..., None])[..., 0]
    along = (noise @ direction[..., None])[..., 0]
    level = mean[:, None] + noise @ root.mT - along[..., None] * slope[:, None]
    lead = level[each, :, arm][..., None] - level  # (n, draws, arms), of the arm over each other
    gain = (slope[each, arm][:, None] - slope)[:, None]  # by which the lead grows along the line
    others = torch.ones_like(slope, dtype=torch.bool) if available is None else available.clone()
    others[each, arm] = False
    others = others[:, None]
    crossing = -lead / gain
    low = crossing.masked_fill(~(others & (gain > 0)), -torch.inf).amax(-1)
    high = crossing.masked_fill(~(others & (gain < 0)), torch.inf).amin(-1)
    # of the draw that chose, rounding must not say that it did not
    low[:, 0], high[:, 0] = torch.minimum(low[:, 0], along[:, 0]), torch.maximum(high[:, 0], along[:, 0])
    parallel = others & (gain == 0)
    beaten = (parallel & (lead < 0)).any(-1)
    beaten[:, 0] = False
    shared = 1 + (parallel & (lead == 0)).sum(-1)  # equal arms are chosen as often as each other
    chance = _between(low, high).masked_fill(beaten, 0.0) / shared
    chance[:, 0] = chance[:, 0].clamp(min=torch.finfo(chance.dtype).tiny)
    return chance


def _direction(root: Tensor, arm: Tensor, available: Tensor | None) -> Tensor:
    """Unit vectors `(n, r)` in which the arm differs most from the average of those that take part."""
    own = root[torch.arange(len(arm)), arm]
    weight = torch.ones_like(root[..., 0]) if available is None else available.to(root)
    apart = own - (weight[..., None] * root).sum(1) / weight.sum(-1, keepdim=True)
    length = apart.norm(dim=-1, keepdim=True)
    first = torch.zeros_like(apart)
    first[:, 0] = 1.0
    return torch.where(length > 0, apart / length.clamp(min=torch.finfo(length.dtype).tiny), first)


def _between(low: Tensor, high: Tensor) -> Tensor:
    """Probability that a standard normal variable lies between; by the tail that loses no digits."""
    flip = low > 0
    left, right = torch.where(flip, -high, low), torch.where(flip, -low, high)
    return (torch.special.ndtr(right) - torch.special.ndtr(left)).clamp(min=0.0)
