r"""The probability that the arm which was chosen is the best of independent ones, by the trapezoidal rule.

Where what is integrated is smooth between points, and next to nothing at both ends, the rule is exact but for
$2 \exp(-2 \pi^2 \sigma^2 / h^2)$ of a bell of standard deviation $\sigma$ and points h apart (Trefethen and Weideman,
The exponentially convergent trapezoidal rule, 2014). Half of the points say whether it is: at corners, where others
are far surer than the one that was chosen, the error is less than a third of what that changes.

Distribution functions other than the normal one take SciPy a hundred times as long as densities, and so are integrals
of these, by the rule that is corrected for slopes at the ends of each interval. The last of them says whether that was
right.
"""

import numpy as np

from bandits.log_concave import TINY, Array, Variables

__all__ = ["by_even_points"]

LAST = 64  # of the points, from zero
EDGES = np.array([[1e-8, 1.0 - 1e-8]])  # levels of the chosen variable, beyond which nothing counts
RIGHT = 4e-3  # of the integral: what half of the points may change
RIGHT_CDF = 3e-4  # of one, summed over the others: what their distribution functions may be wrong by
RARE = 1e-3  # probabilities below which what is beyond the edges may count
NOTHING = 1e-8  # of the greatest value: below it a point does not count
STEPS = np.arange(LAST + 1)


def by_even_points(variables: Variables) -> tuple[Array, Array]:
    """Probabilities `(n,)` that the chosen variables are the greatest, and whether each is right, to .1% or better."""
    edges = variables.family.icdf(EDGES, *variables.own)
    t, value, total, is_right = _integrals(variables, edges)
    if not is_right.all():  # others may leave much less of the line
        rows = np.flatnonzero(~is_right)
        total[rows], is_right[rows] = _integrals(variables.some(rows), _inside(t[rows], value[rows]))[2:]
    return total, is_right


def _integrals(variables: Variables, edges: Array) -> tuple[Array, Array, Array, Array]:
    """Points between edges and the integrand there `(n, points)`, integrals `(n,)`, and whether each is right."""
    step = (edges[:, 1:] - edges[:, :1]) / LAST
    t = edges[:, :1] + step * STEPS
    log_cdf, is_right = _log_cdfs(variables, t, step)
    value = np.exp(variables.family.log_prob(t, *variables.own) + (log_cdf @ variables.counts[..., None])[..., 0])
    total = value.sum(1)
    change = 2.0 * value[:, ::2].sum(1) - total
    is_right &= (np.abs(change) <= RIGHT * total) & (total * step[:, 0] > RARE)
    return t, value, total * step[:, 0], is_right


def _inside(t: Array, value: Array) -> Array:
    """Edges `(n, 2)` beyond which the integrand is nothing, next to its greatest value."""
    counts = value > NOTHING * value.max(1, keepdims=True)
    first, last = counts.argmax(1) - 1, LAST + 1 - counts[:, ::-1].argmax(1)
    return np.take_along_axis(t, np.stack([np.maximum(first, 0), np.minimum(last, LAST)], 1), 1)


def _log_cdfs(variables: Variables, t: Array, step: Array) -> tuple[Array, Array]:
    """Of the others at points `(n, points)`, `(n, points, arms)`, and whether all of a row are right."""
    family, at = variables.family, t[..., None]
    others = [part[:, None] for part in variables.others]
    if variables.normal:
        return np.log(np.maximum(family.cdf(at, *others), TINY)), np.full(len(t), True)
    density = np.exp(family.log_prob(at, *others))
    slope = density * family.slope(at, *others)
    width = step[..., None]
    each = 0.5 * width * (density[:, 1:] + density[:, :-1]) - width**2 / 12.0 * (slope[:, 1:] - slope[:, :-1])
    ends = family.cdf(at[:, ::LAST], *others)
    below = np.concatenate([ends[:, :1], each], 1).cumsum(1)
    is_right = (np.abs(below[:, -1] - ends[:, 1]) * variables.counts).sum(1) <= RIGHT_CDF
    return np.log(np.minimum(np.maximum(below, TINY), 1.0)), is_right
