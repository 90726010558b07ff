r"""The probability that the arm which was chosen is the best of independent ones, by zooming on what is integrated.

Of a few decisions, even points do where what is integrated is smooth (`bandits.prospects.even_points`). Elsewhere the
draw by which the arm was chosen says where to look, as it has the integrand for its density. Points around it, more of
them where the integrand falls steeply, say where it has fallen by as much as `DROPS`, and Gauss-Legendre integrates
between those, all decisions at once.

Over ten decades of shapes of beta variables, and four of standard deviations of normal ones, the median of the relative
error is 1e-5, 97 of 100 are below .1%, and the worst of some thousand was 2.2%.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from bandits.prospects.even_points import by_even_points
from bandits.prospects.log_concave import CHUNK, TINY, Array, Variables
from bandits.prospects.prospects import TOO_LARGE

__all__ = ["chance_of_chosen"]

Worth = Callable[[Array, Array], Array]  # the logarithm of the integrand at points `(m, k)` of some rows `(m,)`
OFFSETS = np.array([0.2, 0.8, 1.8, 3.2, 5.2])  # of the first points, in standard deviations of the arm
LEVELS = np.linspace(-6.0, 6.0, 25)  # the same, of the arm itself, where no draw is known
MOST_WIDER = 60  # rounds of wider points
INSIDE = np.arange(1, 5) / 5
MOST_FINER, SMOOTH = 12, 5.0  # rounds of finer points, until the logarithm falls by less than that between two
SIDES = np.array([-1, 1])[:, None, None]
DROPS = np.array([14.0, 4.0, 1.0])  # of the logarithm of the integrand, on both sides of its top
NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)
ROOT_HALF = np.sqrt(0.5)
FEW = 16  # decisions
MANY = 50_000  # values of normal distribution functions, from which float32 does: 1e-7 of one, at a tenth of the time
RARE = 1e-3  # probabilities below which it does not
SURELY = 10.0  # standard deviations


def chance_of_chosen(
    marginal: Distribution, arm: Tensor, available: Tensor | None = None, at: Tensor | None = None
) -> Tensor:
    """Probabilities `(n,)` that `arm` is the greatest of independent variables.

    Args:
        marginal: on the scale of its link, of batch_shape `(n, arms, 1)`, of a family that `is_log_concave` knows.
        arm: positions `(n,)`.
        available: which take part, `(n, arms)`; None for all.
        at: the draw of the arm by which it was chosen `(n,)`; None where it is not known.

    Raises:
        ValueError: means or variances overflow.
    """
    variables = Variables.of(marginal, arm, available)
    draw = None if at is None else at.double().numpy()
    with np.errstate(all="ignore"):
        total = _by_zooming(variables, draw) if len(arm) > FEW else _evenly_if_smooth(variables, draw)
    if bool(np.isnan(total).any()):
        raise ValueError(f"propensities are not numbers. {TOO_LARGE}")
    # a probability; one that is alone is sure
    return torch.from_numpy(np.where(variables.counts.any(1), np.minimum(np.maximum(total, TINY), 1.0), 1.0))


def _evenly_if_smooth(variables: Variables, at: Array | None) -> Array:
    """Integrals by even points where these are right, else by zooming; for few decisions, whose calls are the cost."""
    total, is_right = by_even_points(variables)
    if not is_right.all():
        rows = np.flatnonzero(~is_right)
        total[rows] = _by_zooming(variables.some(rows), None if at is None else at[rows])
    return total


def _by_zooming(variables: Variables, at: Array | None) -> Array:
    start = _first_points(variables, at)
    if not variables.normal or start.size * variables.counts.shape[1] <= MANY:
        return _integrals(start, variables.worth)
    total = _integrals(start, _Quick(variables, start[:, start.shape[1] // 2, None]).worth)
    again = np.flatnonzero(~(total > RARE))
    if len(again):
        total[again] = _integrals(start[again], lambda t, rows: variables.worth(t, again[rows]))
    return total


def _integrals(t: Array, worth: Worth) -> Array:
    """The integral of each row, by pieces around the top of its integrand."""
    rows = np.arange(len(t))
    t, value = _wider(t, worth(t, rows), worth)
    ends = _ends(*_finer(t, value, worth))
    width = np.diff(ends, axis=1)
    t = ends[:, :-1, None] + 0.5 * width[..., None] * (NODES + 1.0)
    value = np.exp(worth(t.reshape(len(t), -1), rows)).reshape(t.shape)
    return ((value * WEIGHTS).sum(-1) * 0.5 * width).sum(-1)


class _Quick:
    """`Variables.worth` of normal variables, in float32 from what their means differ from a point near all others."""

    def __init__(self, variables: Variables, near: Array) -> None:
        (loc, scale), (self._own_loc, self._own_scale) = variables.others, variables.own
        self._near, self._log_prob = near, variables.family.log_prob
        start, slope = (near - loc) / scale * ROOT_HALF, self._own_scale / scale * ROOT_HALF
        absent = variables.counts == 0.0
        start[absent], slope[absent] = SURELY, 0.0
        self._start, self._slope = (torch.from_numpy(part.astype(np.float32)) for part in (start, slope))
        self._half = torch.tensor(0.5)

    def worth(self, t: Array, rows: Array) -> Array:
        own_loc, own_scale = self._own_loc[rows], self._own_scale[rows]
        z = torch.from_numpy(((t - self._near[rows]) / own_scale)[..., None].astype(np.float32))
        chance, is_all = np.empty(t.shape), len(rows) == len(self._start)
        step = max(1, CHUNK // (t.shape[1] * self._start.shape[1]))
        for i in range(0, len(t), step):
            part = slice(i, i + step)
            some = part if is_all else rows[part]
            start, slope = self._start[some, None], self._slope[some, None]
            below = torch.addcmul(start, slope, z[part]).erf_()
            chance[part] = torch.add(self._half, below, alpha=0.5, out=below).prod(-1).numpy()
        return self._log_prob(t, own_loc, own_scale) + np.log(chance)


def _first_points(variables: Variables, at: Array | None) -> Array:
    """Points `(n, k)` around the draw, or around the median of the arm where no draw is known."""
    icdf, own = variables.family.icdf, variables.own
    low, high = icdf(np.array([[0.16]]), *own), icdf(np.array([[0.84]]), *own)
    spread = np.maximum(0.5 * (high - low), TINY)
    if at is None:
        return 0.5 * (high + low) + spread * LEVELS
    return np.clip(at, -1e300, 1e300)[:, None] + spread * np.concatenate([-OFFSETS[::-1], [0.0], OFFSETS])


def _wider(t: Array, value: Array, worth: Worth) -> tuple[Array, Array]:
    """More points on either side, until the integrand has fallen there."""
    for side, last in ((-1.0, 0), (1.0, -1)):
        reach = np.abs(t[:, -1] - t[:, 0])
        for _ in range(MOST_WIDER):
            rows = np.flatnonzero(value.max(1) - value[:, last] < DROPS[0])
            if not len(rows):
                break
            reach[rows] *= 2.0
            new = t[:, last].copy()
            new[rows] += side * reach[rows]
            values = value[:, last].copy()
            values[rows] = worth(new[rows, None], rows)[:, 0]
            pairs = ((new[:, None], t), (values[:, None], value))
            t, value = (np.concatenate(pair if side < 0 else pair[::-1], 1) for pair in pairs)
    return t, value


def _finer(t: Array, value: Array, worth: Worth) -> tuple[Array, Array]:
    """More points where the integrand falls, on either side of its top: one side may be a thousand times as steep."""
    for _ in range(MOST_FINER):
        rows, before, first, final, after = _where_it_falls(t, value)
        if not len(rows):
            break
        left, right = t[rows, before], t[rows, after]
        finer = np.concatenate(
            [
                left[:, None] + (t[rows, first] - left)[:, None] * INSIDE,
                right[:, None] + (t[rows, final] - right)[:, None] * INSIDE,
            ],
            1,
        )
        # as many more of each row; those of others repeat its last
        more_t, more_value = (np.repeat(part[:, -1:], finer.shape[1], 1) for part in (t, value))
        more_t[rows], more_value[rows] = finer, worth(finer, rows)
        t, value = np.concatenate([t, more_t], 1), np.concatenate([value, more_value], 1)
        order = t.argsort(1, kind="stable")
        t, value = np.take_along_axis(t, order, 1), np.take_along_axis(value, order, 1)
    return t, value


def _where_it_falls(t: Array, value: Array) -> tuple[Array, ...]:
    """Rows in which the integrand falls by much between two points, and those points, on both sides."""
    fall = value.max(1, keepdims=True) - value
    kept, last = fall < DROPS[0], t.shape[1] - 1
    first, final = kept.argmax(1), last - kept[:, ::-1].argmax(1)
    before, after = np.maximum(first - 1, 0), np.minimum(final + 1, last)
    every = np.arange(len(t))
    steps = np.maximum(fall[every, before] - fall[every, first], fall[every, after] - fall[every, final])
    rows = np.flatnonzero(steps >= SMOOTH)
    return rows, before[rows], first[rows], final[rows], after[rows]


def _ends(t: Array, value: Array) -> Array:
    """Where pieces end: at which the integrand has fallen by `DROPS`, by interpolation, and its top."""
    fall = (value.max(1, keepdims=True) - value)[:, None]
    kept, last = fall < DROPS[:, None], t.shape[1] - 1
    near = np.stack([kept.argmax(2), last - kept[:, :, ::-1].argmax(2)])  # of both sides and each drop, (2, n, drops)
    far = np.clip(near + SIDES, 0, last)
    rows = np.arange(len(t))[:, None]
    fallen, further = fall[rows, 0, near], fall[rows, 0, far]
    share = np.where(further > fallen, (DROPS - fallen) / (further - fallen), 0.0)
    left, right = t[rows, near] + np.clip(share, 0.0, 1.0) * (t[rows, far] - t[rows, near])
    top = t[rows, value.argmax(1)[:, None]]
    return np.concatenate([left, top, right[:, ::-1]], 1)
