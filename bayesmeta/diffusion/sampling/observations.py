"""What rows of a task say of the vector theta: linear in it, each with noise of standard deviation one.

`ArmRows` see one coordinate each, which costs no product with a matrix; `Functionals` see any linear function.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from bayesmeta.data.statistics import Statistics

__all__ = ["ArmRows", "Functionals", "Observations"]

ROUNDING = 1e-12  # of the largest singular value


@runtime_checkable
class Observations(Protocol):
    """Rows `y = H theta + noise` of tasks, in units of their noise; pads have a zero row and y zero."""

    @property
    def y(self) -> Tensor:
        """`(b, m)`."""
        ...

    @property
    def log_unit(self) -> Tensor:
        """What the log density of y has beside that in units of the noise, `(b,)`."""
        ...

    def of(self, theta: Tensor) -> Tensor:
        """H theta: `(b, n, k)` to `(b, n, m)`."""
        ...

    def times(self, matrix: Tensor) -> Tensor:
        """H M, of a matrix `(k, j)`: `(b, m, j)`."""
        ...

    def both(self, cov: Tensor) -> Tensor:
        """H C H': `(b, m, m)`."""
        ...

    def among(self, noise: Tensor) -> Tensor:
        """Noise of rows out of noise of theta, the same whatever pads there are: `(#b, n, k)` to `(b, n, m)`."""
        ...

    def left_out(self, theta: Tensor) -> Tensor:
        """Log density of what these rows stand for over their own, zero where they are what was observed: `(b, n)`."""
        ...


@dataclass(frozen=True)
class ArmRows:
    """Means of arms that were observed.

    Args:
        arm: which `(b, m)`.
        root: of the precision of each mean `(b, m)`, zero for pads.
        y: the mean times that.
        log_unit: `(b,)`.
    """

    arm: Tensor
    root: Tensor
    y: Tensor
    log_unit: Tensor

    @classmethod
    def of_statistics(cls, statistics: Statistics, loc: Tensor, noise_var: Tensor) -> "ArmRows":
        """From statistics of each arm of each task `(b, k)`, about a mean of theta `(k,)`."""
        count = statistics.count
        num = int((count > 0).sum(-1).max()) if count.numel() else 0
        arm = count.topk(num, -1, sorted=False).indices.sort(-1).values
        seen, shift = count.gather(-1, arm), statistics.mean_from(loc[:, None])[..., 0]
        root = (seen / noise_var).sqrt()
        within = statistics.scatter.sum((-3, -2, -1)) / noise_var
        # rows of one arm are as informative as their mean, and beside it have a density that knows no theta
        extra = count.sum(-1) * (2.0 * math.pi * noise_var).log() + within
        return cls(arm, root, root * shift.gather(-1, arm), -0.5 * extra)

    def of(self, theta: Tensor) -> Tensor:
        return _gathered(theta, self.arm) * self.root[:, None]

    def times(self, matrix: Tensor) -> Tensor:
        return matrix[self.arm] * self.root[..., None]

    def both(self, cov: Tensor) -> Tensor:
        return cov[self.arm[:, :, None], self.arm[:, None, :]] * (self.root[:, :, None] * self.root[:, None, :])

    def among(self, noise: Tensor) -> Tensor:
        return _gathered(noise, self.arm)

    def left_out(self, theta: Tensor) -> Tensor:
        return torch.zeros_like(theta[..., 0])


@dataclass(frozen=True)
class Functionals:
    """Linear functions of theta.

    Args:
        matrix: in units of the noise `(b, m, k)`, zero for pads.
        y: in units of the noise `(b, m)`.
        log_unit: `(b,)`.
    """

    matrix: Tensor
    y: Tensor
    log_unit: Tensor

    @classmethod
    def of_rows(cls, x: Tensor, y: Tensor, mask: Tensor, loc: Tensor, noise_var: Tensor) -> "Functionals":
        """From rows `y = x'theta + noise`, about a mean of theta: x `(b, n, k)`, y and mask `(b, n)`.

        More rows than k are as informative as k of them.
        """
        root = noise_var.sqrt()
        matrix = (x / root).where(mask[..., None], 0.0)
        rows = cls.in_units_of_noise(matrix, ((y - x @ loc) / root).where(mask, 0.0), mask.sum(-1))
        return replace(rows, log_unit=rows.log_unit - 0.5 * mask.sum(-1).to(y) * noise_var.log())

    @classmethod
    def in_units_of_noise(cls, matrix: Tensor, y: Tensor, count: Tensor) -> "Functionals":
        """From rows in units of their noise, zero for pads: matrix `(b, n, k)`, y `(b, n)`; and their number `(b,)`."""
        log_unit = -0.5 * math.log(2.0 * math.pi) * count.to(y)
        if matrix.shape[-2] > matrix.shape[-1]:
            turn, matrix = torch.linalg.qr(matrix)
            before, y = y.square().sum(-1), (turn.mT @ y[..., None])[..., 0]
            log_unit = log_unit - 0.5 * (before - y.square().sum(-1))
        return cls(matrix, y, log_unit)

    def of(self, theta: Tensor) -> Tensor:
        return theta @ self.matrix.mT

    def times(self, matrix: Tensor) -> Tensor:
        return self.matrix @ matrix

    def both(self, cov: Tensor) -> Tensor:
        return self.matrix @ cov @ self.matrix.mT

    def among(self, noise: Tensor) -> Tensor:
        return noise @ self._turn.mT

    @cached_property
    def _turn(self) -> Tensor:
        """Of noise of theta into noise of rows, `(b, m, k)`: the rows of H made orthonormal, as near to it as can be.

        It turns as rows turn: their order, pads and repeated rows do not change what noise does to theta. In what is
        not of the range of H there is none, and noise there would do nothing.
        """
        left, size, right = torch.linalg.svd(self.matrix, full_matrices=False)
        return (left * (size > ROUNDING * size[..., :1])[..., None, :]) @ right

    def left_out(self, theta: Tensor) -> Tensor:
        return torch.zeros_like(theta[..., 0])


def _gathered(values: Tensor, place: Tensor) -> Tensor:
    """Some of the values of each particle: values `(#b, n, k)`, place `(b, m)`; `(b, n, m)`."""
    b, m = place.shape
    return values.expand(b, -1, -1).gather(-1, place[:, None].expand(b, values.shape[-2], m))
