r"""The probability that the arm which was chosen is the best of independent ones, by zooming on what is integrated.

On the scale of their link, arms with normal, beta and gamma posteriors have log-concave densities, and so log-concave
distribution functions. The integrand $f_a(v) \prod_b F_b(v)$ is log-concave too: it has one top, and falls the faster
the farther from it. The draw by which the arm was chosen has the integrand for its density, so that it says where to
look. Points around it, more of them where the integrand falls steeply, say where it has fallen by as much as `DROPS`,
and Gauss-Legendre integrates between those, all decisions at once.

Over ten decades of shapes of beta variables, and four of standard deviations of normal ones, the median of the relative
error is 1e-6, 95 of 100 are below .06%, and the worst of a thousand was 1.4%.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.link_marginals import LogGamma, LogInverseGamma, LogitBeta

__all__ = ["chance_of_chosen", "is_log_concave"]

Array = Any  # of NumPy, which makes numbers of arrays without axes
Function = Callable[..., Array]
Worth = Callable[[Array, Array], Array]  # the logarithm of the integrand at points `(m, k)` of some rows `(m,)`
# of the first points, in standard deviations of the arm: of many decisions, and of a few, of which calls cost more
COARSE = np.array([0.05, 0.25, 0.7, 1.4, 2.2, 3.1, 4.2, 5.4])
FINE = np.array([0.05, 0.15, 0.3, 0.5, 0.75, 1.05, 1.4, 1.8, 2.3, 2.9, 3.6, 4.4, 5.4])
LEVELS = np.linspace(-6.0, 6.0, 25)  # the same, of the arm itself, where no draw is known
MOST_WIDER = 60  # rounds of wider points
INSIDE = np.arange(1, 7) / 7
MOST_FINER, SMOOTH = 12, 5.0  # rounds of finer points, until the logarithm falls by less than that between two
SIDES = np.array([-1, 1])[:, None, None]
DROPS = np.array([14.0, 4.0, 1.0])  # of the logarithm of the integrand, on both sides of its top
NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)
TINY = np.finfo(float).tiny
ROOT_HALF = np.sqrt(0.5)
LOG_ROOT_TWO_PI = 0.5 * np.log(2.0 * np.pi)
FEW = 16  # decisions
MANY = 50_000  # values of normal distribution functions, from which float32 does: 1e-7 of one, at a tenth of the time
RARE = 1e-3  # probabilities below which it does not
NEGLIGIBLE = 1e-9  # probability that a variable is above all points that count
SURELY = 10.0  # standard deviations
CHUNK = 100_000  # values that are held at once


def is_log_concave(marginal: Distribution) -> bool:
    """Whether this knows the family of a marginal on the scale of its link."""
    return type(marginal) in FAMILIES


def chance_of_chosen(
    marginal: Distribution, arm: Tensor, available: Tensor | None = None, at: Tensor | None = None
) -> Tensor:
    """Probabilities `(n,)` that `arm` is the greatest of independent variables.

    Args:
        marginal: on the scale of its link, of batch_shape `(n, arms, 1)`.
        arm: positions `(n,)`.
        available: which take part, `(n, arms)`; None for all.
        at: the draw of the arm by which it was chosen `(n,)`; None where it is not known.
    """
    variables = _Variables.of(marginal, arm, available)
    with np.errstate(all="ignore"):
        start = _first_points(variables, None if at is None else at.double().numpy())
        many = variables.normal and start.shape[0] * variables.counts.shape[1] * start.shape[1] > MANY
        if not many:
            return _of_those_that_compete(_integrals(start, variables.worth, variables), variables)
        total = _integrals(start, _Quick(variables, start[:, start.shape[1] // 2, None]).worth)
        again = np.flatnonzero(~(total > RARE))
        if len(again):
            total[again] = _integrals(start[again], lambda t, rows: variables.worth(t, again[rows]))
    return _of_those_that_compete(total, variables)


def _of_those_that_compete(total: Array, variables: "_Variables") -> Tensor:
    """A probability; one that is alone is sure."""
    return torch.from_numpy(np.where(variables.counts.any(1), np.clip(total, TINY, 1.0), 1.0))


def _integrals(t: Array, worth: Worth, variables: "_Variables | None" = None) -> Array:
    """Of each row of points.

    Args:
        variables: of one decision, of which those that are certainly less are left out as soon as that is known.
    """
    rows = np.arange(len(t))
    t, value = _wider(t, worth(t, rows), worth)
    if variables is not None and len(t) == 1:
        worth = variables.that_compete(t, value).worth
    ends = _ends(*_finer(t, value, worth))
    width = np.diff(ends, axis=1)
    t = ends[:, :-1, None] + 0.5 * width[..., None] * (NODES + 1.0)
    value = np.exp(worth(t.reshape(len(t), -1), rows)).reshape(t.shape)
    return ((value * WEIGHTS).sum(-1) * 0.5 * width).sum(-1)


class _Variables(NamedTuple):
    """Independent variables, and which of them were chosen.

    Args:
        family: its functions.
        own: parameters of the chosen ones, `(n, 1)` each.
        others: of all, `(n, arms)` each; where there is one decision, of those that differ.
        counts: how often each of the others takes part, `(n, arms)`.
    """

    family: "_Family"
    own: list[Array]
    others: list[Array]
    counts: Array

    @classmethod
    def of(cls, marginal: Distribution, arm: Tensor, available: Tensor | None) -> "_Variables":
        family = FAMILIES[type(marginal)]
        shape, each = tuple(marginal.batch_shape[:2]), np.arange(len(arm))
        every = [_numbers(getattr(marginal, name)[..., 0], shape) for name in family.names]
        own = [part[each, arm.numpy()][:, None] for part in every]
        counts = np.ones(shape) if available is None else available.numpy().astype(float)
        counts[each, arm.numpy()] -= 1.0
        if len(arm) == 1 and type(marginal) is not Normal:  # arms that are alike are computed once
            one, two = every  # as one complex number, of which NumPy finds equal ones in a tenth of the time
            both, place = np.unique(one[0] + 1j * two[0], return_inverse=True)
            counts = np.bincount(place, counts[0])[None]
            every = [both.real[None], both.imag[None]]
        return cls(family, own, every, counts)

    @property
    def normal(self) -> bool:
        return self.family is FAMILIES[Normal]

    def that_compete(self, t: Array, value: Array) -> "_Variables":
        """Of one decision, those that can be above the points at which the integrand has fallen."""
        first = max(int((value.max() - value[0] < DROPS[0]).argmax()) - 1, 0)
        able = self.family.cdf(t[0, first], *(part[0] for part in self.others)) < 1.0 - NEGLIGIBLE
        return self._replace(others=[part[:, able] for part in self.others], counts=self.counts[:, able])

    def worth(self, t: Array, rows: Array) -> Array:
        step = max(1, CHUNK // (t.shape[1] * max(self.counts.shape[1], 1)))
        parts = [self._worth(t[i : i + step], rows[i : i + step]) for i in range(0, len(t), step)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _worth(self, t: Array, rows: Array) -> Array:
        others = [part[rows, :, None] for part in self.others]
        log_cdf = np.log(np.maximum(self.family.cdf(t[:, None], *others), TINY))
        together = (self.counts[rows, None] @ log_cdf)[:, 0]
        return self.family.log_prob(t, *(part[rows] for part in self.own)) + together


class _Quick:
    """`_Variables.worth` of normal variables, in float32 from what their means differ from a point near all others."""

    def __init__(self, variables: _Variables, near: Array) -> None:
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


def _first_points(variables: _Variables, at: Array | None) -> Array:
    """Around what is known, `(n, k)`."""
    icdf, own = variables.family.icdf, variables.own
    low, high = icdf(np.array([[0.16]]), *own), icdf(np.array([[0.84]]), *own)
    spread = np.maximum(0.5 * (high - low), TINY)
    if at is None:
        return 0.5 * (high + low) + spread * LEVELS
    offsets = COARSE if len(at) > FEW else FINE
    return np.clip(at, -1e300, 1e300)[:, None] + spread * np.concatenate([-offsets[::-1], [0.0], offsets])


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


def _numbers(value: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(value.detach().double().numpy(), shape)


def _normal_log_prob(t: Array, loc: Array, scale: Array) -> Array:
    z = (t - loc) / scale
    return -0.5 * z * z - np.log(scale) - LOG_ROOT_TWO_PI


def _normal_cdf(t: Array, loc: Array, scale: Array) -> Array:
    return special.ndtr((t - loc) / scale)


def _normal_icdf(level: Array, loc: Array, scale: Array) -> Array:
    return loc + scale * special.ndtri(level)


class _Family(NamedTuple):
    """The functions of a family of distributions, each of values and the parameters that `names` says."""

    names: tuple[str, ...]
    log_prob: Function
    cdf: Function
    icdf: Function


FAMILIES: dict[type, _Family] = {
    Normal: _Family(("loc", "scale"), _normal_log_prob, _normal_cdf, _normal_icdf),
    **{
        family: _Family(tuple(family.arg_constraints), family._log_prob, family._cdf, family._icdf)
        for family in (LogitBeta, LogGamma, LogInverseGamma)
    },
}
