"""Objectives that a simulator draws: what a network can learn of tuning before it sees a past study.

Each is a draw of a Gaussian process with a Matern-5/2 kernel, whose lengthscales are drawn for each objective and
column, so that some columns matter and most do not. Like past tasks, it comes as normal scores of its rows; and since a
study sees a part of a task, they are scaled and shifted, once for each objective.

Source of the idea: Müller et al., PFNs4BO: in-context learning for Bayesian optimization (2023).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.validation import require_finite
from bayesmeta.random import rand, randint, randn
from bo.past_tasks.scores import normal_scores

__all__ = ["SimulatedStudies"]

LENGTHSCALE, SPREAD = 0.5, 1.0  # median in one column, which grows with the root of their number; sd of its log
LOG_SCALE, SHIFT = 0.5, 1.0  # standard deviations of the log of the factor, and of what is added
NOISE = (0.01, 0.3)  # standard deviation of the noise, in that of the function, uniform in its log
JITTER = 1e-6


@dataclass(frozen=True, eq=False)
class SimulatedStudies:
    """A `TaskStream` of objectives on given points.

    Args:
        points: encoded by a search space, of which each objective is evaluated at some.

    Raises:
        ValueError: there are none, or one is not finite.
    """

    points: Float[Tensor, "n d"]

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or not len(self.points):
            raise ValueError(f"points must be rows (n, d), one or more; got shape {tuple(self.points.shape)}")
        require_finite("points", self.points)

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        """Tasks on rows of `points`, each with rows of its own."""
        x = self.points[randint(len(self.points), (num_tasks, num_rows), generator=generator).to(self.points.device)]
        d = x.shape[-1]
        log_lengthscale = SPREAD * randn((num_tasks, 1, d), like=x, generator=generator)
        scaled = x / (LENGTHSCALE * math.sqrt(d) * log_lengthscale.exp())
        low, high = (math.log(each) for each in NOISE)
        noise = (low + (high - low) * rand((num_tasks, 1), like=x, generator=generator)).exp()
        eye = torch.eye(num_rows).to(x)
        factor = torch.linalg.cholesky(_matern52(torch.cdist(scaled, scaled)) + JITTER * eye)
        f = (factor @ randn((num_tasks, num_rows, 1), like=x, generator=generator))[..., 0]
        y = f + noise * randn((num_tasks, num_rows), like=x, generator=generator)
        scores = normal_scores(y, torch.ones_like(y, dtype=torch.bool)).to(y)
        log_factor, added = randn((2, num_tasks, 1), like=x, generator=generator)
        return Data.of(x, (LOG_SCALE * log_factor).exp() * scores + SHIFT * added)


def _matern52(distance: Tensor) -> Tensor:
    r = math.sqrt(5.0) * distance
    return (1.0 + r + r.square() / 3.0) * (-r).exp()
