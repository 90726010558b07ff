r"""Two worked examples of Bayesian Data Analysis under its own hyperpriors: published numbers, and exact ones.

**Rat tumours** (section 5.3): 71 groups, $p(\alpha, \beta) \propto (\alpha + \beta)^{-5/2}$. **Eight schools** (section
5.5): estimates with standard errors, flat on the mean and on the standard deviation $\tau$ between schools. Both
hyperpriors are improper, both posteriors are proper.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), chapter 5; data of the schools: Rubin (1981).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import optimize, special, stats
from torch import Tensor
from torch.nn.functional import logsigmoid

from bayesmeta import BetaBernoulli, Data
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.hyperparameters.vector import Hyperparameters

__all__ = [
    "EFFECTS",
    "ERRORS",
    "PUBLISHED_MEANS",
    "PUBLISHED_QUANTILES",
    "QUANTILES",
    "SchoolsPosterior",
    "mode_under",
    "published_z",
    "rats",
    "rats_log_hyperprior",
    "rats_means",
    "rats_vector_means",
    "schools",
    "schools_log_hyperprior",
]

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
PUBLISHED_MEANS = (2.4, 14.3)  # of alpha and beta, on the grid of figure 5.3
PUBLISHED_RANGE = ((-2.3, -1.3), (1.0, 5.0))  # of log(alpha / beta) and log(alpha + beta)
QUANTILES = np.array([0.025, 0.25, 0.5, 0.75, 0.975])
# table 5.3: quantiles of 200 simulated effects of each school, in whole numbers
PUBLISHED_DRAWS = 200
PUBLISHED_QUANTILES = np.array(
    [
        [-2, 7, 10, 16, 31],
        [-5, 3, 8, 12, 23],
        [-11, 2, 7, 11, 19],
        [-7, 4, 8, 11, 21],
        [-9, 1, 5, 10, 18],
        [-7, 2, 6, 10, 28],
        [-1, 7, 10, 15, 26],
        [-6, 3, 8, 13, 33],
    ]
)


def rats(tumours: np.ndarray, animals: np.ndarray) -> Data:
    """One task per group, one row of zero or one per animal."""
    return Data.pad([(None, torch.arange(n) < y) for y, n in zip(tumours.tolist(), animals.tolist(), strict=True)]).to(
        torch.float64
    )


def rats_log_hyperprior(vector: Tensor) -> Tensor:
    r"""Of $(\log \alpha / \beta, \log(\alpha + \beta))$, the vector of `BetaBernoulli`: BDA3's equation 5.10."""
    logit, log_total = vector.unbind(-1)
    jacobian = 2.0 * log_total + logsigmoid(logit) + logsigmoid(-logit)  # log of alpha beta
    return jacobian - 2.5 * log_total


def rats_means(tasks: Data, *, points: int = 100) -> tuple[float, float]:
    """Posterior means of alpha and beta over the range of BDA3's grid, by quadrature.

    Over all numbers the mean of beta is infinite: as the total grows, tasks share one probability, and the evidence
    ends at that of complete pooling, not at zero. The range ends where the density is small but not yet this tail.
    """
    weights, prior, _ = _rats_grid(tasks, *PUBLISHED_RANGE, points)
    return float((weights * prior.successes).sum()), float((weights * prior.failures).sum())


def rats_vector_means(tasks: Data, *, points: int = 150) -> Tensor:
    """Posterior means of log(alpha / beta) and log(alpha + beta), which are finite, by quadrature: `(2,)`."""
    weights, _, grid = _rats_grid(tasks, (-3.5, -0.5), (-1.0, 16.0), points)
    return (weights[..., None] * grid).sum((0, 1))


def schools() -> Data:
    """One task per school with one row; the column of x is the variance of its estimate."""
    return Data.of(torch.as_tensor(ERRORS).square()[:, None, None], torch.as_tensor(EFFECTS)[:, None])


def schools_log_hyperprior(vector: Tensor) -> Tensor:
    r"""Of (mean, log of $\tau^2$) in the units of `NormalKnownVariance`: $\tau$ is flat; its Jacobian is $\tau / 2$."""
    return 0.5 * vector[..., 1]


def mode_under(prior: Any, tasks: Data, log_hyperprior: Callable[[Tensor], Tensor]) -> Tensor:
    """The mode of the hyperposterior with another hyperprior."""
    return most_probable(_under(prior.hyperparameters(tasks), log_hyperprior))


class SchoolsPosterior:
    """The exact posterior of the schools' effects: normal given tau, and a sum over tau.

    Source: BDA3, equations 5.20 and 5.21.
    """

    def __init__(self, *, points: int = 4001) -> None:
        # the trapezoidal rule in log tau; density per unit of log tau falls as tau below and as tau^-6 above
        log_tau = np.linspace(np.log(1e-7), np.log(1e5), points)
        precision = 1.0 / (ERRORS**2 + np.exp(2.0 * log_tau)[:, None])
        total = precision.sum(-1)
        mean = precision @ EFFECTS / total
        distance = (precision * (EFFECTS - mean[:, None]) ** 2).sum(-1)
        log_density = log_tau + 0.5 * (np.log(precision).sum(-1) - np.log(total) - distance)
        self.weights = special.softmax(log_density)
        shrink = ERRORS**2 * precision  # towards the mean of the schools
        self.loc = shrink * mean[:, None] + (1.0 - shrink) * EFFECTS
        self.scale = np.sqrt((1.0 - shrink) * ERRORS**2 + shrink**2 / total[:, None])

    def cdf(self, school: int, effect: float) -> float:
        return float(self.weights @ stats.norm.cdf(effect, self.loc[:, school], self.scale[:, school]))

    def mean(self) -> np.ndarray:
        """Expected effect of each school."""
        return self.weights @ self.loc

    def quantile(self, school: int, share: float) -> float:
        return float(optimize.brentq(lambda effect: self.cdf(school, effect) - share, -500.0, 500.0, xtol=1e-10))


def published_z(posterior: SchoolsPosterior) -> np.ndarray:
    """How many standard errors each published quantile is from the exact one, `(8, 5)`; both count BDA3's rounding.

    The k-th of 200 draws has a probability below it that is Beta(k, 201 - k): its place there, as that of a standard
    normal. Zero where a number that rounds to the published one is at its centre.
    """
    z = np.zeros(PUBLISHED_QUANTILES.shape)
    for j, row in enumerate(PUBLISHED_QUANTILES):
        for i, value in enumerate(row):
            rank = QUANTILES[i] * PUBLISHED_DRAWS + 0.5
            ends = [
                stats.norm.ppf(stats.beta.cdf(posterior.cdf(j, end), rank, PUBLISHED_DRAWS + 1 - rank))
                for end in (value - 0.5, value + 0.5)
            ]
            z[j, i] = 0.0 if ends[0] <= 0.0 <= ends[1] else min(ends, key=abs)
    return z


def _under(unknown: Hyperparameters, log_hyperprior: Callable[[Tensor], Tensor]) -> Hyperparameters:
    return dataclasses.replace(unknown, hyperprior=log_hyperprior)


def _rats_grid(
    tasks: Data, logit: tuple[float, float], log_total: tuple[float, float], points: int
) -> tuple[Tensor, BetaBernoulli, Tensor]:
    """Normalised weights of a grid, its priors, and its vectors."""
    unknown = _under(BetaBernoulli.initial(tasks).hyperparameters(tasks), rats_log_hyperprior)
    axes = (torch.linspace(*ends, points, dtype=torch.float64) for ends in (logit, log_total))
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    log_density = torch.stack([unknown.log_density(row) for row in grid])
    return log_density.flatten().softmax(0).reshape(log_density.shape), unknown.build(grid), grid
