"""Posteriors of rows that hardly a particle explains: as if the noise of the rows were wider.

Rows can be where no past task was, and a learned guess of theta there is worth little: then one particle has all the
weight, or none is a number. The filter of such a task is run again with the variance of the noise multiplied by the
least of some growing factors with which enough particles have weight; by the last of them the rows say nothing. The
evidence stays that of the rows as they are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bayesmeta.describe import plural
from bayesmeta.diffusion.sampling.gaussians import WeightedGaussians, joined
from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.warning_kinds import BayesmetaWarning, warn

__all__ = ["RowsOf", "Tempered", "TemperedWarning", "is_poor", "tempered"]

LEAST = 4.0  # effective particles that have to carry a posterior, fewer where there are few at all
LEAST_SHARE = 1.0 / 8.0
# powers of four, then squares: only rows far beyond the floats of a network need the last
FACTORS = (*(4.0**i for i in range(1, 17)), *(4.0 ** (2**i) for i in range(5, 9)), math.inf)

RowsOf = Callable[[Any], Observations]  # of some tasks, by a slice or by their numbers


class TemperedWarning(BayesmetaWarning):
    """Hardly a draw from the prior explains the rows of a task, and its posterior takes their noise to be wider."""


@dataclass(frozen=True)
class Tempered:
    """Rows, the variance of whose noise is multiplied.

    Args:
        rows: as they are.
        factor: infinite for rows that say nothing.
    """

    rows: Observations
    factor: float

    @property
    def _share(self) -> float:
        return self.factor**-0.5

    @property
    def y(self) -> Tensor:
        return self._share * self.rows.y

    @property
    def log_unit(self) -> Tensor:
        return self.rows.log_unit

    def of(self, theta: Tensor) -> Tensor:
        return self._share * self.rows.of(theta)

    def times(self, matrix: Tensor) -> Tensor:
        return self._share * self.rows.times(matrix)

    def both(self, cov: Tensor) -> Tensor:
        return self._share**2 * self.rows.both(cov)

    def among(self, noise: Tensor) -> Tensor:
        return self.rows.among(noise)

    def left_out(self, theta: Tensor) -> Tensor:
        return self._share**2 * self.rows.left_out(theta)


def tempered(
    found: WeightedGaussians, rows: RowsOf, sampler: Callable[[Observations], WeightedGaussians], piece: int
) -> WeightedGaussians:
    """Posteriors of tasks, in the place of which tempered ones stand where hardly a particle has weight.

    Args:
        rows: of some tasks, by their numbers.
        sampler: from rows to posteriors.
        piece: tasks at a time.

    Raises:
        ValueError: guesses of theta are no numbers, even without rows.

    Warns:
        TemperedWarning: for how many tasks, and by which factor at most.
    """
    left = is_poor(found).nonzero()[:, 0]
    num, largest = len(left), 1.0
    if not num:
        return found
    for factor in FACTORS:
        again = joined([sampler(Tempered(rows(some), factor)) for some in left.split(piece)])
        found, largest = found.with_tasks(left, again), factor
        left = left[is_poor(again)]
        if not len(left):
            break
    else:
        raise ValueError("the denoiser of this prior guesses no numbers, even without rows: fit it anew")
    warn(
        f"hardly a draw from the prior explains the rows of {plural(num, 'task')}: posteriors are those of rows whose "
        f"noise has up to {largest:.3g} times its variance; see whether y is in the units of the past tasks",
        TemperedWarning,
    )
    return found


def is_poor(found: WeightedGaussians) -> Tensor:
    """Which tasks hardly a particle carries, `(b,)`; true also where there are no numbers."""
    least = min(LEAST, LEAST_SHARE * found.log_weights.shape[-1])
    return ~((found.ess >= least) & found.mean.isfinite().all(-1).all(-1))
