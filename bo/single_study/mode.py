r"""The most probable hyperparameters of a Gaussian process of one task, under the hyperpriors that BoTorch takes.

Rows are $y = c + f(x) + e$, with $f$ of variance one and a lengthscale per input, $y$ standardised. Lengthscales are
log-normal about values that grow with the square root of the number of inputs, noise is log-normal about .02. With
$K = k(x, x; \ell) + \sigma^2 I$, $a = K^{-1} (y - c)$ and $M = a a^\top - K^{-1}$,

$$ n \, \text{loss} = \tfrac12 (y - c)^\top a + \tfrac12 \log |K| + \tfrac n2 \log 2 \pi
   - \log p(\ell) - \log p(\sigma^2), $$

and the derivative of the first three terms by a hyperparameter $h$ is
$-\tfrac12 \operatorname{tr}(M\, \partial K / \partial h)$. In closed form, and searched over logarithms, that is many
times faster than going back through lazily evaluated kernels.

Sources: Hvarfner et al., Vanilla Bayesian optimization performs great in high dimensions (2024), for the hyperpriors;
Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equation 5.9.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize

__all__ = ["Mode", "find_mode", "matern52_and_slope", "rbf_and_slope"]

Array = np.ndarray[Any, np.dtype[np.float64]]
# squared scaled distances -> correlations, and -2 times their derivatives by the squared distance
Correlation = Callable[[Array], tuple[Array, Array]]

NOISE_PRIOR = (-4.0, 1.0)  # mean and standard deviation of the logarithm
LENGTHSCALE_FLOOR, NOISE_FLOOR, CEILING = 0.025, 1e-4, 1e6
MAX_DIRECT_STEPS = 100


class Mode(NamedTuple):
    """Of one Gaussian process of variance one."""

    lengthscale: Array
    noise_var: float
    constant: float


def rbf_and_slope(squared: Array) -> tuple[Array, Array]:
    """The squared exponential kernel."""
    correlation = np.exp(-0.5 * squared)
    return correlation, correlation


def matern52_and_slope(squared: Array) -> tuple[Array, Array]:
    """The Matern-5/2 kernel."""
    r = np.sqrt(5.0 * squared)
    decay = np.exp(-r)
    return (1.0 + r + r * r / 3.0) * decay, (5.0 / 3.0) * (1.0 + r) * decay


def find_mode(x: Array, y: Array, correlation: Correlation, *, thorough: bool = False) -> Mode:
    """The mode that a search from the modes of the hyperpriors finds.

    Args:
        x: rows `(n, d)`, of the unit cube.
        y: standardised targets `(n,)`.
        correlation: `rbf_and_slope` or `matern52_and_slope`.
        thorough: search also by lengthscales as they are, which finds other modes, and take the better.
    """
    d = x.shape[1]
    loc, width = math.sqrt(2.0) + 0.5 * math.log(d), math.sqrt(3.0)
    problem = (np.square(x[:, None, :] - x[None, :, :]).reshape(-1, d), y, correlation, ((loc, width), NOISE_PRIOR))
    start = np.array([math.exp(loc - width**2)] * d + [math.exp(NOISE_PRIOR[0] - NOISE_PRIOR[1] ** 2), 0.0])
    floor = np.array([LENGTHSCALE_FLOOR] * d + [NOISE_FLOOR, -np.inf])
    starts = [start]
    if thorough:
        starts.append(_search(_loss, start, floor, CEILING, problem, max_steps=MAX_DIRECT_STEPS).x)
    searches = [
        _search(_loss_of_logarithms, _to_logarithms(each), _to_logarithms(floor), math.log(CEILING), problem)
        for each in starts
    ]
    found = _from_logarithms(min(searches, key=lambda search: search.fun).x)
    return Mode(found[:d], float(found[d]), float(found[-1]))


def _search(
    loss: Any, start: Array, floor: Array, ceiling: float, problem: Any, max_steps: int = 1000
) -> scipy.optimize.OptimizeResult:
    # a line search may leap: the hyperpriors leave nothing to find beyond the ceiling
    bounds = scipy.optimize.Bounds(floor, np.full(len(floor), ceiling))
    options = {"maxiter": max_steps}
    return scipy.optimize.minimize(loss, start, problem, jac=True, method="L-BFGS-B", bounds=bounds, options=options)


def _to_logarithms(vector: Array) -> Array:
    return np.concatenate([np.log(vector[:-1]), vector[-1:]])


def _from_logarithms(vector: Array) -> Array:
    return np.concatenate([np.exp(vector[:-1]), vector[-1:]])


def _loss_of_logarithms(vector: Array, *problem: Any) -> tuple[float, Array]:
    natural = _from_logarithms(vector)
    loss, gradient = _loss(natural, *problem)
    return loss, np.concatenate([gradient[:-1] * natural[:-1], gradient[-1:]])


def _loss(
    vector: Array, squares: Array, y: Array, correlation: Correlation, priors: tuple[tuple[float, float], ...]
) -> tuple[float, Array]:
    """Loss and gradient by lengthscales, noise and the constant."""
    n = len(y)
    scale, noise, constant = vector[:-2], vector[-2], vector[-1]
    kernel, slope = correlation(squares @ scale**-2)
    factor = scipy.linalg.cho_factor(kernel.reshape(n, n) + noise * np.eye(n), lower=True, check_finite=False)
    inverse = scipy.linalg.cho_solve(factor, np.eye(n), check_finite=False)
    pull = inverse @ (y - constant)
    loss = 0.5 * (y - constant) @ pull + np.log(factor[0].diagonal()).sum() + 0.5 * n * math.log(2.0 * math.pi)
    by_kernel = 0.5 * (inverse - np.outer(pull, pull))
    by_scale = ((by_kernel.ravel() * slope) @ squares) * scale**-3
    gradient = np.concatenate([by_scale, [by_kernel.trace(), -pull.sum()]])
    for part, (loc, width) in zip((slice(0, -2), slice(-2, -1)), priors, strict=True):
        value, z = vector[part], (np.log(vector[part]) - loc) / width
        loss += (0.5 * z**2 + np.log(value * width * math.sqrt(2.0 * math.pi))).sum()
        gradient[part] += (z / width + 1.0) / value
    return loss / n, gradient / n
