r"""Gittins indices of Bernoulli arms: the sure payment that an arm is worth, with rewards discounted.

Against an arm that always pays $\lambda$, one plays on as long as that gains; the index is the $\lambda$ at which one
is indifferent. By calibration: for many $\lambda$ at once, the value of optimal stopping from the end of a horizon at
which what remains is below the tolerance.

Source: Gittins, Glazebrook and Weber, Multi-armed bandit allocation indices (2011), section 8.4.
"""

import math

import numpy as np

__all__ = ["gittins_index"]

TOLERANCE = 1e-6
NUM_PAYMENTS = 33  # of which an interval is refined by as many parts at a time


def gittins_index(successes: float, failures: float, discount: float, *, tolerance: float = TOLERANCE) -> float:
    """The index of an arm with a Beta(successes, failures) posterior.

    Args:
        discount: of each later round, at least 0 and below 1.
        tolerance: of the index.

    Raises:
        ValueError: a count is not above zero, or `discount` is out of its range.
    """
    if not (successes > 0 and failures > 0):
        raise ValueError(f"successes and failures must be above 0; got {successes} and {failures}")
    if not 0.0 <= discount < 1.0:
        raise ValueError(f"discount must be at least 0 and below 1; got {discount}")
    mean = successes / (successes + failures)
    if not discount:
        return mean
    # what lies beyond the horizon is worth less than the tolerance, even if it were all of it
    horizon = max(1, math.ceil(math.log(0.1 * tolerance * (1.0 - discount)) / math.log(discount)))
    low, high = mean, 1.0
    while high - low > tolerance:
        payments = np.linspace(low, high, NUM_PAYMENTS)
        gains = _gain(successes, failures, discount, payments, horizon)
        last = int(np.flatnonzero(gains > 0).max(initial=0))
        low, high = payments[last], payments[min(last + 1, NUM_PAYMENTS - 1)]
    return float(0.5 * (low + high))


def _gain(successes: float, failures: float, discount: float, payments: np.ndarray, horizon: int) -> np.ndarray:
    """What playing the arm at least once gains over stopping at once, for each sure payment."""
    payment = payments[:, None]
    paid = np.arange(horizon + 1)
    mean = (successes + paid) / (successes + failures + horizon)
    # at the horizon the posterior no longer moves by much: play on for good, or stop for good
    value = np.maximum(mean - payment, 0.0) / (1.0 - discount)
    for t in range(horizon - 1, -1, -1):
        paid = np.arange(t + 1)
        mean = (successes + paid) / (successes + failures + t)
        goes_on = mean - payment + discount * (mean * value[:, 1 : t + 2] + (1.0 - mean) * value[:, : t + 1])
        value = np.maximum(goes_on, 0.0)
    gain: np.ndarray = goes_on[:, 0]
    return gain
