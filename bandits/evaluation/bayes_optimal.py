r"""Two Bernoulli arms and few rounds: what the best policy gains, and what others do, exactly.

The state is how often each arm paid and did not. The best policy's value follows from the end,

$$ V(s) = \max_a p_a (1 + V(s + \text{success}_a)) + (1 - p_a) V(s + \text{failure}_a), $$

and that of a policy that chooses by probabilities from the same with a mean in place of the maximum. States of one
round are one array, so that a round is a few operations on it.

Source: Bellman, A problem in the sequential design of experiments (1956).
"""

from collections.abc import Callable

import numpy as np
from scipy import special

__all__ = ["bayes_optimal_value", "expected_reward", "greedy", "thompson", "ucb1"]

Array = np.ndarray
# probability of the first arm, from successes and failures of both, arrays of one shape
Chooser = Callable[[tuple[Array, Array], tuple[Array, Array], tuple[float, float]], Array]
TOO_MANY = 400  # rounds: states grow with their cube


def bayes_optimal_value(rounds: int, *, prior: tuple[float, float] = (1.0, 1.0)) -> float:
    """Expected number of successes of the best policy for two arms.

    Args:
        rounds: decisions, at least 1.
        prior: successes and failures of the Beta prior of both arms.

    Raises:
        ValueError: `rounds` is out of range, or the prior is not above zero.
    """
    return _value(rounds, prior, None)


def expected_reward(choose: Chooser, rounds: int, *, prior: tuple[float, float] = (1.0, 1.0)) -> float:
    """The same for a policy, given as the probability with which it chooses the first arm.

    Args:
        choose: takes successes and failures of both arms, each a pair of arrays, and the prior; returns an array.
    """
    return _value(rounds, prior, choose)


def thompson(successes: tuple[Array, Array], failures: tuple[Array, Array], prior: tuple[float, float]) -> Array:
    """Probability that the first arm's Beta draw is the greater, by a finite sum for a prior of whole numbers."""
    a, b = (np.asarray(s) + prior[0] for s in successes), (np.asarray(f) + prior[1] for f in failures)
    (a1, a2), (b1, b2) = a, b
    if prior[0] != int(prior[0]):
        raise ValueError(f"the exact probability needs whole successes in the prior; got {prior[0]}")
    most = int(a1.max())
    i = np.arange(most)
    a1, a2, b1, b2 = (np.asarray(v, dtype=float)[..., None] for v in (a1, a2, b1, b2))
    terms = special.betaln(a2 + i, b1 + b2) - np.log(b1 + i) - special.betaln(1.0 + i, b1) - special.betaln(a2, b2)
    return np.asarray(np.where(i < a1, np.exp(terms), 0.0).sum(-1))


def greedy(successes: tuple[Array, Array], failures: tuple[Array, Array], prior: tuple[float, float]) -> Array:
    """The arm of the greater posterior mean, either where they are equal."""
    means = [(s + prior[0]) / (s + f + sum(prior)) for s, f in zip(successes, failures, strict=True)]
    return _greater(means[0], means[1])


def ucb1(successes: tuple[Array, Array], failures: tuple[Array, Array], prior: tuple[float, float]) -> Array:
    """Each arm once, then the mean of rewards plus sqrt(2 log t / n)."""
    pulls = [s + f for s, f in zip(successes, failures, strict=True)]
    t = np.maximum(pulls[0] + pulls[1], 1)
    scores = [
        np.where(n > 0, s / np.maximum(n, 1) + np.sqrt(2.0 * np.log(t) / np.maximum(n, 1)), np.inf)
        for s, n in zip(successes, pulls, strict=True)
    ]
    return _greater(scores[0], scores[1])


def _greater(a: Array, b: Array) -> Array:
    same = (a == b) | np.isclose(a, b, rtol=1e-12, atol=0.0)
    return np.where(same, 0.5, (a > b).astype(float))


def _value(rounds: int, prior: tuple[float, float], choose: Chooser | None) -> float:
    if not 1 <= rounds <= TOO_MANY:
        raise ValueError(f"rounds must be from 1 to {TOO_MANY}; got {rounds}")
    if not min(prior) > 0:
        raise ValueError(f"successes and failures of the prior must be above 0; got {prior}")
    value = np.zeros((rounds + 1,) * 3)
    for t in range(rounds - 1, -1, -1):
        # after t decisions: n1 of them of the first arm, s1 of these and s2 of the others paid
        n1, s1, s2 = np.meshgrid(*[np.arange(t + 1)] * 3, indexing="ij")
        possible = (s1 <= n1) & (s2 <= t - n1)
        n1, s1, s2 = (part[possible] for part in (n1, s1, s2))
        n2 = t - n1
        p1, p2 = (s1 + prior[0]) / (n1 + sum(prior)), (s2 + prior[0]) / (n2 + sum(prior))
        first = p1 * (1.0 + value[n1 + 1, s1 + 1, s2]) + (1.0 - p1) * value[n1 + 1, s1, s2]
        second = p2 * (1.0 + value[n1, s1, s2 + 1]) + (1.0 - p2) * value[n1, s1, s2]
        share = np.greater(first, second) if choose is None else choose((s1, s2), (n1 - s1, n2 - s2), prior)
        new = np.zeros((t + 1,) * 3)
        new[n1, s1, s2] = share * first + (1.0 - share) * second
        value = new
    return float(value[0, 0, 0])
