r"""Independent variables with log-concave densities on the scale of their link, one of which was chosen.

Normal, beta and gamma posteriors are of this kind, and so are their distribution functions. What is integrated for the
probability that the chosen one is the greatest, $f_a(v) \prod_b F_b(v)$, is log-concave too: it has one top, and falls
the faster the farther from it. All are NumPy arrays in float64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy import special
from torch import Tensor
from torch.distributions import Distribution, Normal

from bayesmeta.distributions.link_marginals import LogGamma, LogInverseGamma, LogitBeta

__all__ = ["CHUNK", "TINY", "Array", "Variables", "is_log_concave"]

Array = Any  # of NumPy, which makes numbers of arrays without axes
Function = Callable[..., Array]
TINY = np.finfo(float).tiny
LOG_ROOT_TWO_PI = 0.5 * np.log(2.0 * np.pi)
CHUNK = 100_000  # values that are held at once


def is_log_concave(marginal: Distribution) -> bool:
    """Whether `Variables` can be made of a marginal on the scale of its link."""
    return type(marginal) in FAMILIES


class Variables(NamedTuple):
    """Independent variables, and which of them were chosen.

    Args:
        family: its functions.
        own: parameters of the chosen ones, `(n, 1)` each.
        others: of all, `(n, arms)` each; where there is one decision, of those that differ.
        counts: how often each of the others takes part, `(n, arms)`.
    """

    family: "Family"
    own: list[Array]
    others: list[Array]
    counts: Array

    @classmethod
    def of(cls, marginal: Distribution, arm: Tensor, available: Tensor | None) -> "Variables":
        family = FAMILIES[type(marginal)]
        every, chosen = [_numbers(getattr(marginal, name)) for name in family.names], (np.arange(len(arm)), arm.numpy())
        own = [part[chosen][:, None] for part in every]
        counts = np.ones(every[0].shape) if available is None else available.numpy().astype(float)
        counts[chosen] -= 1.0
        if len(arm) == 1 and type(marginal) is not Normal:  # arms that are alike are computed once
            one, two = every  # as one complex number, of which NumPy finds equal ones in a tenth of the time
            both, place = np.unique(one[0] + 1j * two[0], return_inverse=True)
            counts = np.bincount(place, counts[0])[None]
            every = [both.real[None], both.imag[None]]
        return cls(family, own, every, counts)

    @property
    def normal(self) -> bool:
        return self.family is FAMILIES[Normal]

    def some(self, rows: Array) -> "Variables":
        own, others = ([part[rows] for part in parts] for parts in (self.own, self.others))
        return self._replace(own=own, others=others, counts=self.counts[rows])

    def worth(self, t: Array, rows: Array) -> Array:
        """The logarithm of the integrand at points `(m, k)` of some rows `(m,)`."""
        step = max(1, CHUNK // (t.shape[1] * max(self.counts.shape[1], 1)))
        parts = [self._worth(t[i : i + step], rows[i : i + step]) for i in range(0, len(t), step)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _worth(self, t: Array, rows: Array) -> Array:
        others = [part[rows, :, None] for part in self.others]
        log_cdf = np.log(np.maximum(self.family.cdf(t[:, None], *others), TINY))
        together = (self.counts[rows, None] @ log_cdf)[:, 0]
        return self.family.log_prob(t, *(part[rows] for part in self.own)) + together


def _numbers(value: Tensor) -> np.ndarray:
    """Of each arm's one row, `(n, arms)`."""
    numbers: np.ndarray = value.detach().double().numpy()[..., 0]
    return numbers


def _normal_log_prob(t: Array, loc: Array, scale: Array) -> Array:
    z = (t - loc) / scale
    return -0.5 * z * z - np.log(scale) - LOG_ROOT_TWO_PI


def _normal_cdf(t: Array, loc: Array, scale: Array) -> Array:
    return special.ndtr((t - loc) / scale)


def _normal_icdf(level: Array, loc: Array, scale: Array) -> Array:
    return loc + scale * special.ndtri(level)


def _normal_slope(t: Array, loc: Array, scale: Array) -> Array:
    return (loc - t) / (scale * scale)


class Family(NamedTuple):
    """The functions of a family of distributions, each of values and the parameters that `names` says.

    `slope` is that of `log_prob`.
    """

    names: tuple[str, ...]
    log_prob: Function
    cdf: Function
    icdf: Function
    slope: Function


FAMILIES: dict[type, Family] = {
    Normal: Family(("loc", "scale"), _normal_log_prob, _normal_cdf, _normal_icdf, _normal_slope),
    **{
        family: Family(tuple(family.arg_constraints), family._log_prob, family._cdf, family._icdf, family._slope)
        for family in (LogitBeta, LogGamma, LogInverseGamma)
    },
}
