r"""The probability that the arm which was chosen is the best of independent ones, by the trapezoidal rule.

Where what is integrated is smooth between points, and next to nothing at both ends, the rule is exact but for
$2 \exp(-2 \pi^2 \sigma^2 / h^2)$ of a bell of standard deviation $\sigma$ and points h apart (Trefethen and Weideman,
The exponentially convergent trapezoidal rule, 2014). Whether it is smooth is seen in two ways: between points next to
each other it does not leap, and half of the points say nearly the same. Where others are far surer than the one that
was chosen it does leap.

Distribution functions other than the normal one take SciPy a hundred times as long as densities, and so are integrals
of these, by the rule that is corrected for slopes at the ends of each interval. What the last of them is wrong by says
how wrong the integral can be.
"""

from typing import NamedTuple

import numpy as np

from bandits.prospects.log_concave import TINY, Array, Variables

__all__ = ["by_even_points"]

LAST = 64  # of the points, from zero
EDGES = np.array([[1e-8, 1.0 - 1e-8]])  # levels of the chosen variable, beyond which nothing counts
RIGHT = 1e-3  # of the integral: what half of the points may change, and what distribution functions may add
ROUGHLY = 0.03  # the same, where it is only asked where the integrand lies
LEAP = 3.5  # of the logarithm between two points, above which there is a corner
COUNTS = 4.6  # of the logarithm below its greatest value: where leaps are looked for, from a hundredth on
RARE = 1e-3  # probabilities below which what is beyond the edges may count
LOG_NOTHING = np.log(1e-8)  # next to the greatest value: below it a point does not count
STEPS = np.arange(LAST + 1)


def by_even_points(variables: Variables) -> tuple[Array, Array]:
    """Probabilities `(n,)` that the chosen variables are the greatest, and whether each is right, to .1% or better."""
    first = _integrals(variables, variables.family.icdf(EDGES, *variables.own))
    total, is_right = first.total, first.is_right
    rows = np.flatnonzero(first.is_known & ~is_right)
    if len(rows):  # others may leave much less of the line
        again = _integrals(variables.some(rows), _inside(first.t[rows], first.log_value[rows]))
        total[rows], is_right[rows] = again.total, again.is_right
    return total, is_right


class _Integrals(NamedTuple):
    """Of each row, by points `(n, points)` and the logarithm of the integrand there.

    `is_known` says whether that tells where the integrand lies, `is_right` whether the integral is right, `(n,)` each.
    """

    t: Array
    log_value: Array
    total: Array
    is_known: Array
    is_right: Array


def _integrals(variables: Variables, edges: Array) -> _Integrals:
    step = (edges[:, 1:] - edges[:, :1]) / LAST
    t = edges[:, :1] + step * STEPS
    cdf, wrong = _cdfs(variables, t, step)
    together = (np.log(cdf) @ variables.counts[..., None])[..., 0]
    log_value = variables.family.log_prob(t, *variables.own) + together
    value, greatest = np.exp(log_value), log_value.max(1, keepdims=True)
    total = value.sum(1)
    error = ((value[:, None] @ (1.0 / cdf))[:, 0] * wrong * variables.counts).sum(1)
    change = np.abs(2.0 * value[:, ::2].sum(1) - total)
    higher = np.maximum(log_value[:, 1:], log_value[:, :-1])
    leap = np.where(higher > greatest - COUNTS, np.abs(np.diff(log_value)), 0.0).max(1)
    integral = total * step[:, 0]
    is_right = (error <= RIGHT * total) & (leap <= LEAP) & (change <= RIGHT * total) & (integral > RARE)
    is_known = error <= ROUGHLY * total
    return _Integrals(t, log_value, integral, is_known, is_right)


def _inside(t: Array, log_value: Array) -> Array:
    """Edges `(n, 2)` beyond which the integrand is nothing, next to its greatest value."""
    counts = log_value > log_value.max(1, keepdims=True) + LOG_NOTHING
    first, last = counts.argmax(1) - 1, LAST + 1 - counts[:, ::-1].argmax(1)
    return np.take_along_axis(t, np.stack([np.maximum(first, 0), np.minimum(last, LAST)], 1), 1)


def _cdfs(variables: Variables, t: Array, step: Array) -> tuple[Array, Array]:
    """Of the others at points `(n, points)`, `(n, points, arms)`, and by how much each is wrong, `(n, arms)`."""
    family, at = variables.family, t[..., None]
    others = [part[:, None] for part in variables.others]
    if variables.normal:
        return np.maximum(family.cdf(at, *others), TINY), np.zeros(variables.counts.shape)
    density = np.exp(family.log_prob(at, *others))
    slope = density * family.slope(at, *others)
    width = step[..., None]
    each = 0.5 * width * (density[:, 1:] + density[:, :-1]) - width**2 / 12.0 * (slope[:, 1:] - slope[:, :-1])
    ends = family.cdf(at[:, ::LAST], *others)
    below = np.concatenate([ends[:, :1], each], 1).cumsum(1)
    return np.minimum(np.maximum(below, TINY), 1.0), np.abs(below[:, -1] - ends[:, 1])
