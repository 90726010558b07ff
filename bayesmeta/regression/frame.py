r"""Coordinates in which a regression is learned: columns centred and scaled, so that it does not matter where they lie.

Where the columns of x span a constant, $x^\top c = 1$ in every row for some c, the model is the same in

$$ z_j = (x_j - \text{centre}_j) / \text{scale}_j, \quad z_p = 1, \quad (y - \text{centre}_y) / \text{scale}_y, $$

one column p of those that c needs being replaced by the constant. Weights of z give those of x by one linear map. In z
no digits are lost, and a search and its hyperprior start from the same place wherever x and y lie.

Weights that all tasks share stand for a constant of their own: where only they span it, the columns of the weights that
vary are left where they are, because there a shift is another model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from bayesmeta.data.statistics import Statistics
from bayesmeta.warning_kinds import PlacementWarning, warn

__all__ = ["Frame"]

CONSTANT = 1e-12  # a column whose standard deviation is less of its mean is a constant
COLLINEAR = {torch.float64: 1e-13, torch.float32: 1e-9}  # least eigenvalue of a correlation that rounding leaves
ROUNDING = 1e-15  # of a mean: a spread that is less is none
FAR = 10.0  # standard deviations from zero
LOST = 1e-3  # of the digits: what a dtype may lose before that is worth a warning


@dataclass(frozen=True)
class Frame:
    """A map from rows (x, y) to rows of order one about zero, and of weights back.

    Args:
        centre: of each column of x; zero where a column is only scaled.
        scale: of each column of x, above zero.
        constant: c with x'c = 1 in every row; zeros where there is none.
        pivot: the column that the constant replaces, None where there is none.
        y_centre: of each output.
        y_scale: of each output, above zero.
    """

    centre: Float64[Tensor, "d"]
    scale: Float64[Tensor, "d"]
    constant: Float64[Tensor, "d"]
    pivot: int | None
    y_centre: Float64[Tensor, "m"]
    y_scale: Float64[Tensor, "m"]

    @classmethod
    def of(cls, stats: Statistics, *, fixed: Sequence[int] = (), dtype: torch.dtype = torch.float64) -> "Frame":
        """The frame of all rows of `stats`, of any tasks.

        Args:
            fixed: columns of x whose weights all tasks share.
            dtype: of the rows, which says what counts as rounding.
        """
        pooled, d = stats.pooled(), stats.num_inputs
        mean, var = pooled.mean, (pooled.scatter / pooled.count.clamp(min=1.0)).diagonal().clamp(min=0.0)
        sd, size = var.sqrt(), (var + mean.square()).sqrt()
        size = size.where(size > 0, 1.0)  # a column of zeros says nothing of its scale
        still = sd <= CONSTANT * mean.abs()
        movable: Sequence[int] = range(d)
        found = _constant(pooled, [i for i in range(d) if i not in fixed], still, dtype)
        if found is None and fixed:
            movable = fixed
            found = _constant(pooled, fixed, still, dtype)
        if found is None:
            none = torch.zeros_like(mean)
            return cls(none[:d], size[:d], none[:d], None, none[d:], size[d:])
        constant, pivot = found
        centred = torch.tensor([i in movable for i in range(d)], device=mean.device) & ~still[:d]
        centre = mean[:d].where(centred, 0.0)
        centre[pivot] = mean[pivot]
        y_scale = sd[d:].where(sd[d:] > ROUNDING * mean[d:].abs(), size[d:])
        return cls(centre, sd[:d].where(centred, size[:d]), constant, pivot, mean[d:], y_scale)

    @property
    def to_weights(self) -> Tensor:
        """T with x'w = z'b for w = T b, `(d, d)`; outputs aside."""
        matrix = torch.diag_embed(1.0 / self.scale)
        if self.pivot is not None:
            matrix = matrix - self.constant[:, None] * (self.centre / self.scale)
            matrix[:, self.pivot] = self.constant
        return matrix

    @property
    def from_weights(self) -> Tensor:
        """The inverse of `to_weights`, written out: a numerical inverse would lose what the frame saves."""
        matrix = torch.diag_embed(self.scale)
        if self.pivot is not None:
            matrix[:, self.pivot] = -self.scale * self.constant / self.constant[self.pivot]
            matrix[self.pivot] = self.centre
        return matrix

    @property
    def log_volume(self) -> Tensor:
        """Log of the absolute determinant of `to_weights`."""
        return torch.linalg.slogdet(self.to_weights).logabsdet

    @property
    def tilt(self) -> Tensor:
        """r, such that z-weights of covariance I + r r' treat alike all columns that together make the constant."""
        if self.pivot is None:
            return torch.zeros_like(self.scale)
        share = self.constant * self.scale
        share = share / share[self.pivot]
        share[self.pivot] = 0.0
        return share

    def rows(self, stats: Statistics) -> Statistics:
        """The statistics of the rows in this frame."""
        d = len(self.scale)
        centre, scale = torch.cat([self.centre, self.y_centre]), torch.cat([self.scale, self.y_scale])
        origin, first = (stats.origin - centre) / scale, stats.first / scale
        second = None if stats.second is None else stats.second / (scale[:, None] * scale)
        if self.pivot is not None:
            origin[..., self.pivot], first[..., self.pivot] = 1.0, 0.0
            if second is not None:
                second[..., self.pivot, :], second[..., :, self.pivot] = 0.0, 0.0
        return Statistics(stats.count, origin, first, second, d)

    def enter(self, loc: Tensor) -> Tensor:
        """Weights of x, `(..., d, m)`, as weights of z."""
        level = self.constant[:, None] * self.y_centre
        return self.from_weights @ (loc - level) / self.y_scale

    def leave(self, loc: Tensor) -> Tensor:
        """Weights of z, `(..., d, m)`, as weights of x."""
        return self.to_weights @ loc * self.y_scale + self.constant[:, None] * self.y_centre

    def warn(self, stats: Statistics, dtype: torch.dtype) -> None:
        """Warn where the place of the rows decides the answer: without a constant, or beyond the digits of `dtype`."""
        if self.pivot is None:
            pooled = stats.pooled()
            sd = (pooled.scatter.diagonal() / pooled.count.clamp(min=1.0)).clamp(min=0.0).sqrt()
            far = (pooled.mean.abs() > FAR * sd) & (pooled.mean != 0)
            if bool(far.any()):
                warn(
                    f"{_name(int(far.nonzero()[0]), stats.num_inputs)} lies {FAR:g} standard deviations or more from "
                    "zero, and no combination of the columns of x is constant: weights and predictions depend on where "
                    "zero is. Add a column of ones to x, or centre the columns",
                    PlacementWarning,
                )
            return
        eps = torch.finfo(dtype).eps
        ratio = torch.cat([self.centre / self.scale, self.y_centre / self.y_scale]).abs()
        ratio[self.pivot] = 0.0
        d = len(self.scale)
        lost = torch.cat([eps * ratio[:d].square(), eps * ratio[d:]])
        if bool((lost > LOST).any()):
            worst = int(lost.argmax())
            warn(
                f"{_name(worst, d)} lies {float(ratio[worst]):.3g} standard deviations from zero, too far for the "
                f"digits of {str(dtype).removeprefix('torch.')}: predictions may be off. Use float64, or centre it",
                PlacementWarning,
            )


def _name(column: int, num_inputs: int) -> str:
    return f"column {column} of x" if column < num_inputs else "y"


def _constant(
    pooled: Statistics, allowed: Sequence[int], still: Tensor, dtype: torch.dtype
) -> tuple[Tensor, int] | None:
    """c with x'c = 1 in every row, zero outside `allowed`, and the column that the constant replaces."""
    mean = pooled.mean[: pooled.num_inputs]
    for i in allowed:
        if bool(still[i]) and bool(mean[i] != 0):
            constant = torch.zeros_like(mean)
            constant[i] = 1.0 / mean[i]
            return constant, i
    moving = [i for i in allowed if not bool(still[i])]
    if len(moving) < 2:
        return None
    scatter = pooled.scatter[moving][:, moving]
    sd = scatter.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(scatter / (sd[:, None] * sd))
    null = vectors[:, values <= COLLINEAR.get(dtype, COLLINEAR[torch.float32]) * len(moving)]
    standard = mean[moving] / sd
    share = null @ (null.mT @ standard)  # of the columns in units of their spread
    level = share @ standard
    if not bool(level > torch.finfo(dtype).eps * standard.square().sum()):
        return None
    share = share / level
    constant = torch.zeros_like(mean)
    constant[moving] = share / sd
    # the first of the columns that matter: which one is settled by no rounding
    first = int((share.abs() >= 0.5 * share.abs().max()).nonzero()[0])
    return constant, moving[first]
