"""Pathwise Thompson sampling: draw whole functions from a posterior, and go where each of them is greatest.

A draw is a function, so it can be evaluated anywhere, and climbed: there is no grid of points on which the draw must be
made at once, and nothing here knows what draws are made of.

Source: Wilson et al., Efficiently sampling functions from Gaussian process posteriors (2020).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from optuna.distributions import FloatDistribution
from torch import Generator, Tensor

from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.protocol import Posterior
from bo.space.search_space import SearchSpace
from bo.surrogate.paths import Paths

__all__ = ["thompson_points"]

NUM_SOBOL = 2048
NUM_TOP = 6  # points of each draw that are moved
NUM_NEIGHBOURS = 16
SCALES = (0.1, 0.03)  # of moves
NUM_STEPS = 40  # of the ascent
FIRST_STEP, LARGEST_STEP = 0.02, 0.1  # along one axis

Values = Callable[[Tensor], Tensor]  # points of each draw (draws, m, d) -> the draw at its own points (draws, m)


@with_gradients
def thompson_points(
    posterior: Posterior,
    space: SearchSpace,
    q: int = 1,
    *,
    maximize: bool = True,
    starts: Float[Tensor, "n d"] | None = None,
    generator: Generator | None = None,
) -> Float[Tensor, "q d"]:
    """Where each of q draws of f is greatest: valid points, which may coincide.

    Each draw is searched from Sobol points of the whole space, by random valid moves of every parameter, and along the
    gradient in numbers without steps.

    Args:
        posterior: of one task, over points as `space` encodes them, in float64.
        maximize: else where it is least.
        starts: valid points to search from too, such as those evaluated so far.
        generator: of the draws and of the search.

    Raises:
        TypeError: the posterior has no draws.
        ValueError: it has a batch or vectors of outputs, or q is less than one.
    """
    paths = Paths(posterior, q, generator=generator)
    sign = 1.0 if maximize else -1.0

    def values(x: Float[Tensor, "q m d"]) -> Float[Tensor, "q m"]:
        return sign * paths.apart(x)

    with torch.no_grad():
        candidates = space.sobol(NUM_SOBOL, generator=generator)
        candidates = candidates if starts is None else torch.cat([candidates, starts.to(candidates)])
        candidates = candidates.unique(dim=0)  # where all is discrete there are few points
        top = (sign * paths.everywhere(candidates)).topk(min(NUM_TOP, len(candidates))).indices
        x = candidates[top]
        for scale in SCALES:
            near = space.neighbours(x, NUM_NEIGHBOURS, scale, generator=generator).flatten(1, 2)
            x = _best(values, torch.cat([x, near], 1), NUM_TOP)
        if columns := _numbers_without_steps(space):
            x = torch.cat([x, space.snap(_ascent(values, x, columns))], 1)
        return _best(values, x, 1)[:, 0]


def _best(values: Values, x: Tensor, num: int) -> Tensor:
    """The points of greatest value of each draw, `(draws, num, d)`."""
    top = values(x).topk(min(num, x.shape[1])).indices
    return x.gather(1, top[..., None].expand(-1, -1, x.shape[-1]))


def _ascent(values: Values, x: Tensor, columns: list[int]) -> Tensor:
    """Up the gradient in some of the columns, within the unit interval, by steps that no scale of f changes.

    Source: Riedmiller and Braun, A direct adaptive method for faster backpropagation learning: the RPROP algorithm
    (1993).
    """
    part = x[..., columns]
    step, before = torch.full_like(part, FIRST_STEP), torch.zeros_like(part)
    for _ in range(NUM_STEPS):
        with torch.enable_grad():
            x = x.requires_grad_()
            (gradient,) = torch.autograd.grad(values(x).sum(), x)
        slope = gradient[..., columns].sign()
        # longer while the slope keeps its sign, shorter once the step went over the top
        step = (step * torch.where(slope * before < 0, 0.5, 1.2)).clamp(max=LARGEST_STEP)
        part, before = (part + step * slope).clamp(0.0, 1.0), slope
        x = x.detach().clone()
        x[..., columns] = part
    return x


def _numbers_without_steps(space: SearchSpace) -> list[int]:
    """The columns along which there is a gradient."""
    slices = space.slices()
    return [
        slices[name].start
        for name, distribution in space.distributions.items()
        if isinstance(distribution, FloatDistribution) and not distribution.step and not distribution.single()
    ]
