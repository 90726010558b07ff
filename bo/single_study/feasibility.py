r"""How probable it is that a trial succeeds and is feasible: what its expected improvement is multiplied by.

**Failures** are told by where trials failed and where they did not. With a kernel k that falls off with distance, and
pseudo-counts a and b of a trial that fails and of one that does not,

$$ p(x) = \frac{b + \sum_i w_i s_i k(x, x_i)}{a + b + \sum_i w_i k(x, x_i)}, $$

s being 1 for a trial that was completed and 0 for one that failed. A machine may be at fault, and not the place: one
failure makes a place improbable, several rule it out, and a trial that succeeds there brings it back.

**Constraints** are numbers, of which those above zero are violated. Each has a Gaussian process of this study alone,
which says how probable it is that the number is at most zero (Gardner et al., Bayesian optimization with inequality
constraints, 2014). A constraint that past studies had too is in `bo.past_tasks.constraints`.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bo.single_study.process import plain_gp
from bo.values import Value

__all__ = ["LEAST", "all_of", "chance_of_constraint", "chance_of_success", "comparable", "unit_of"]

FAILS, SUCCEEDS = 0.05, 0.45  # pseudo-counts
REACH = 0.15  # of the kernel, times the root of the number of parameters, in the unit cube
MAX_ROWS = 200  # of a constraint's Gaussian process
MOST = 10.0  # units of a constraint, beyond which a violation is a violation
LEAST = 1e-6  # a probability, for its logarithm


def chance_of_success(
    x: Float[Tensor, "n d"], succeeded: Bool[Tensor, " n"], weight: Float[Tensor, " n"], num_parameters: int
) -> Value:
    """The probability that a trial does not fail, of points in the space of x."""
    reach = REACH * math.sqrt(num_parameters)

    def chance(points: Tensor) -> Tensor:
        near = weight * (-0.5 * (torch.cdist(points, x) / reach).square()).exp()
        return (SUCCEEDS + near @ succeeded.to(near)) / (FAILS + SUCCEEDS + near.sum(-1))

    return chance


def chance_of_constraint(x: Float[Tensor, "n d"], constraint: Float[Tensor, " n"]) -> Value | None:
    """The probability that a constraint is met, of points in the space of x; None where no trial violated it."""
    if not bool((constraint > 0).any()):
        return None
    constraint = comparable(constraint, unit_of(constraint))
    spread, level = constraint.std() if len(constraint) > 1 else constraint.new_zeros(()), constraint.mean()
    posterior = plain_gp(x, -constraint, max_rows=MAX_ROWS)
    unit = torch.where(spread > 0, spread, 1.0)

    def chance(points: Tensor) -> Tensor:
        slack = posterior.marginal(points)  # of minus the constraint, standardised: its zero is at level / unit
        return torch.special.ndtr((slack.mean - level / unit) / slack.stddev).clamp(min=LEAST)

    return chance


def unit_of(values: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """The median size of a constraint's values, zeros and infinite ones aside; 1 where there are no others."""
    sizes = values.abs()[values.isfinite() & (values != 0)]
    return sizes.median() if len(sizes) else values.new_ones(())


def comparable(values: Float[Tensor, "*n"], unit: Float[Tensor, ""]) -> Float[Tensor, "*n"]:
    """A constraint's values, of whatever size, in the scale of `asinh(value / unit)`, which keeps the sign.

    One that is infinite counts as the greatest finite one, and none as more than `MOST` units. Where none is below
    zero, zero says "met" and no more, as in `max(0, used - allowed)`: it counts as one unit below.
    """
    scaled = values / unit
    most = min(max([1.0, *scaled.abs()[scaled.isfinite()].tolist()]), MOST)
    scaled = scaled.clamp(-most, most)
    if not bool((scaled < 0).any()):
        scaled = scaled.masked_fill(scaled == 0, -1.0)
    return scaled.asinh()


def all_of(chances: list[Value]) -> Value | None:
    """The probability that all of several independent things happen; None where there is nothing."""
    if not chances:
        return None

    def together(points: Tensor) -> Tensor:
        return torch.stack([chance(points) for chance in chances]).prod(0)

    return together
