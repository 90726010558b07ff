r"""The probability that the arm which was chosen is the best of independent ones, by zooming on what is integrated.

On the scale of their link, arms with normal, beta and gamma posteriors have log-concave densities, and so log-concave
distribution functions. The integrand $f_a(v) \prod_b F_b(v)$ is log-concave too: it has one top, and falls the faster
the farther from it. Grids find where it is, finer ones where it falls steeply, and Gauss-Legendre between the values at
which it has fallen by as much as `DROPS` says integrates it, all decisions at once.

Over ten decades of shapes, and four of standard deviations, the median of the relative error is 1e-6, and 99 of 100 are
below .4%; the worst of some thousand was 6%, where one arm's distribution ends a million times more steeply than
another's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import special
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.link_marginals import LogGamma, LogInverseGamma, LogitBeta

__all__ = ["chance_of_chosen", "is_log_concave"]

Array = Any  # of NumPy, which makes numbers of arrays without axes
Function = Callable[..., Array]
RARE = 1e-13  # beyond the quantile of this the chosen arm is taken not to be
GRID = np.linspace(0.0, 1.0, 12)
INSIDE = np.arange(1, 7) / 7
MOST_FINER, SMOOTH = 7, 5.0  # rounds of finer points, until the logarithm falls by less than that between two
DROPS = (14.0, 4.0, 1.0)  # of the logarithm of the integrand, on both sides of its top
NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)
TINY = np.finfo(float).tiny
LOG_ROOT_TWO_PI = 0.5 * np.log(2.0 * np.pi)


def is_log_concave(marginal: Distribution) -> bool:
    """Whether this knows the family of a marginal on the scale of its link."""
    return type(marginal) in FAMILIES


def chance_of_chosen(marginal: Distribution, arm: Tensor, available: Tensor | None = None) -> Tensor:
    """Probabilities `(n,)` that `arm` is the greatest of independent variables.

    Args:
        marginal: on the scale of its link, of batch_shape `(n, arms, 1)`.
        arm: positions `(n,)`.
        available: which take part, `(n, arms)`; None for all.
    """
    names, log_prob, cdf, icdf = FAMILIES[type(marginal)]
    shape, each = tuple(marginal.batch_shape[:2]), np.arange(len(arm))
    every = [_numbers(getattr(marginal, name)[..., 0], shape) for name in names]
    own = [part[each, arm.numpy()][:, None] for part in every]
    counts = np.ones(shape) if available is None else available.numpy().astype(float)
    counts[each, arm.numpy()] -= 1.0
    if len(arm) == 1:  # arms that are alike are computed once
        several = np.unique(np.concatenate(every), axis=1, return_inverse=True)
        counts = np.bincount(several[1].reshape(-1), counts[0])[None]
        every = [part[None] for part in several[0]]
    others = [part[..., None] for part in every]

    def log_worth(t: Array) -> Array:
        log_cdf = np.log(np.maximum(cdf(t[:, None], *others), TINY))
        return log_prob(t, *own) + (counts[:, None] @ log_cdf)[:, 0]

    with np.errstate(all="ignore"):
        low, high = icdf(np.full((1, 1), RARE), *own), icdf(np.full((1, 1), 1.0 - RARE), *own)
        t = low + (high - low) * GRID
        value = log_worth(t)
        low, high = _last_before(t, value.max(1, keepdims=True) - value, DROPS[0])
        t = low + (high - low) * GRID
        ends = _ends(*_around(t, log_worth(t), log_worth))
        width = np.diff(ends, axis=1)
        t = ends[:, :-1, None] + 0.5 * width[..., None] * (NODES + 1.0)
        worth = np.exp(log_worth(t.reshape(len(t), -1))).reshape(t.shape)
        total = ((worth * WEIGHTS).sum(-1) * 0.5 * width).sum(-1)
    return torch.from_numpy(np.clip(total, TINY, 1.0))


def _numbers(value: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(value.detach().double().numpy(), shape)


def _last_before(t: Array, fall: Array, drop: float) -> tuple[Array, Array]:
    """The points of a grid next to those at which the integrand has not fallen by as much, `(n, 1)` each."""
    kept = fall < drop
    rows, last = np.arange(len(t)), t.shape[1] - 1
    first = np.maximum(kept.argmax(1) - 1, 0)
    final = np.minimum(last - kept[:, ::-1].argmax(1) + 1, last)
    return t[rows, first][:, None], t[rows, final][:, None]


def _around(t: Array, value: Array, log_worth: Callable[[Array], Array]) -> tuple[Array, Array]:
    """More points where the integrand falls, on either side of its top: one side may be a thousand times as steep."""
    rows = np.arange(len(t))
    for _ in range(MOST_FINER):
        fall = value.max(1, keepdims=True) - value
        kept, last = fall < DROPS[0], t.shape[1] - 1
        first, final = kept.argmax(1), last - kept[:, ::-1].argmax(1)
        before, after = np.maximum(first - 1, 0), np.minimum(final + 1, last)
        steps = np.maximum(fall[rows, before] - fall[rows, first], fall[rows, after] - fall[rows, final])
        if steps.max() < SMOOTH:
            break
        left, right = t[rows, before], t[rows, after]
        finer = np.concatenate(
            [
                left[:, None] + (t[rows, first] - left)[:, None] * INSIDE,
                right[:, None] + (t[rows, final] - right)[:, None] * INSIDE,
            ],
            1,
        )
        t, value = np.concatenate([t, finer], 1), np.concatenate([value, log_worth(finer)], 1)
        order = t.argsort(1)
        t, value = np.take_along_axis(t, order, 1), np.take_along_axis(value, order, 1)
    return t, value


def _ends(t: Array, value: Array) -> Array:
    """Where pieces end: at which the integrand has fallen by `DROPS`, by interpolation, and its top."""
    fall = value.max(1, keepdims=True) - value
    top = value.argmax(1)
    ends = np.empty((len(t), 2 * len(DROPS) + 1))
    for i in range(len(t)):
        left, right = slice(top[i], None, -1), slice(top[i], None)
        ends[i, : len(DROPS)] = np.interp(DROPS, fall[i, left], t[i, left])
        ends[i, len(DROPS)] = t[i, top[i]]
        ends[i, : len(DROPS) : -1] = np.interp(DROPS, fall[i, right], t[i, right])
    return ends


def _normal_log_prob(t: Array, loc: Array, scale: Array) -> Array:
    z = (t - loc) / scale
    return -0.5 * z * z - np.log(scale) - LOG_ROOT_TWO_PI


def _normal_cdf(t: Array, loc: Array, scale: Array) -> Array:
    return special.ndtr((t - loc) / scale)


def _normal_icdf(level: Array, loc: Array, scale: Array) -> Array:
    return loc + scale * special.ndtri(level)


FAMILIES: dict[type, tuple[tuple[str, ...], Function, Function, Function]] = {
    Normal: (("loc", "scale"), _normal_log_prob, _normal_cdf, _normal_icdf),
    **{
        family: (tuple(family.arg_constraints), family._log_prob, family._cdf, family._icdf)
        for family in (LogitBeta, LogGamma, LogInverseGamma)
    },
}
