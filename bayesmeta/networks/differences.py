"""What attention may know of where rows lie: differences of their inputs, and nothing else.

Each difference d is seen through bumps of several widths, odd bumps, |d| and d^2 / 2, which tell near from far; and
through waves, a cos(w d) + b sin(w d), which tell how functions repeat. A wave of a difference is a product of waves of
the two inputs, so that waves are a few more columns of queries and keys, where bumps are numbers of each pair.

Source: distances: Ashman et al., Translation equivariant transformer neural processes (2024); products of waves: Su et
al., RoFormer (2021), here with amplitudes that a query chooses and frequencies that are learned.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["NUM_DISTANCES", "Differences", "distance_functions", "first_frequencies", "waves"]

WIDTHS = (0.03, 0.08, 0.2, 0.5, 1.2)  # of bumps, in standard deviations of the inputs
NUM_DISTANCES = 2 * len(WIDTHS) + 2  # functions of each input
FREQUENCIES = (0.8, 20.0)  # of waves before learning, in radians per standard deviation of the inputs


class Differences(NamedTuple):
    """Differences of queries' inputs and keys' inputs, as attention sees them.

    Args:
        distances: functions of each pair `(b, q, d * NUM_DISTANCES, k)`.
        asked, known: waves of queries `(b, q, 2 n)` and of keys `(b, k, 2 n)`.
    """

    distances: Tensor
    asked: Tensor
    known: Tensor

    @classmethod
    def of(cls, queries: Tensor, keys: Tensor, frequencies: Tensor) -> "Differences":
        """Of inputs `(b, q, d)` and `(b, k, d)`; frequencies `(m,)`, the same for each of the n / m inputs."""
        return cls(distance_functions(queries, keys), waves(queries, frequencies), waves(keys, frequencies))

    def rows(self, which: slice) -> "Differences":
        """Of these queries alone."""
        return Differences(self.distances[:, which], self.asked[:, which], self.known)


def distance_functions(queries: Tensor, keys: Tensor) -> Tensor:
    """Functions of the differences of inputs `(b, q, d)` and `(b, k, d)`: `(b, q, d * NUM_DISTANCES, k)`."""
    difference = (queries[:, :, :, None] - keys.mT[:, None])[:, :, :, None]
    ratio = difference / torch.tensor(WIDTHS).to(difference)[:, None]
    bumps = torch.exp(-0.5 * ratio.square())
    return torch.cat([bumps, ratio * bumps, difference.abs(), 0.5 * difference.square()], 3).flatten(2, 3)


def waves(x: Tensor, frequencies: Tensor) -> Tensor:
    """Cosines and then sines of inputs `(b, q, d)` at each frequency `(m,)`: `(b, q, 2 d m)`."""
    angles = (x[..., None] * frequencies).flatten(-2)
    return torch.cat([angles.cos(), angles.sin()], -1)


def first_frequencies(num: int) -> Tensor:
    """Of waves before learning, evenly on the scale of logarithms: `(num,)`."""
    low, high = FREQUENCIES
    return torch.logspace(math.log10(low), math.log10(high), num)
