"""The weights of a regression as hyperparameters see them: in a frame, some shared by all tasks, the others varying."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from bayesmeta.data.columns import Columns
from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.weighted_rows import WeightedRows, pooled
from bayesmeta.hyperparameters.vector import Hyperparameter
from bayesmeta.numerics.linalg import cholesky, positive, symmetric
from bayesmeta.regression.correlations import LARGEST_TILT, TOGETHER, pack_scales, scale_tril
from bayesmeta.regression.frame import Frame

__all__ = ["LARGEST_LOG", "WeightSpace", "frame_of_all", "weak_precision"]

KNOWN = 1e-8  # standard deviation of a weight that is known, in units of its frame
LARGEST_LOG = math.log(1e4)  # a standard deviation that ends as far from where the search starts is zero, or endless
SAME_WEIGHT = "tasks share this weight but for chance, or it grows without end"


def weak_precision(frame: Frame) -> Tensor:
    """Precision of weights of x of which each could explain all variance of y, in units of y_scale, `(d, d)`."""
    tilt = frame.tilt
    eye = torch.eye(len(tilt), dtype=tilt.dtype, device=tilt.device)
    inverse = eye - tilt[:, None] * tilt / (1.0 + tilt.square().sum())
    return symmetric(frame.from_weights.mT @ inverse @ frame.from_weights)


def frame_of_all(tasks: Data | Statistics, columns: Columns | None) -> tuple[Frame, WeightedRows, torch.dtype]:
    """The frame of all rows, these as rows of one task, and their dtype: where `initial` starts."""
    num = tasks.num_inputs if isinstance(tasks, Statistics) else tasks.x.shape[-1]
    rows = WeightedRows.of(pooled(tasks, columns), num if columns is None else len(columns.inputs))
    return Frame.of(rows.stats, fixed=() if columns is None else columns.fixed, dtype=tasks.dtype), rows, tasks.dtype


@dataclass(frozen=True)
class WeightSpace:
    """Weights of z = frame(x): their centre and units, where a search starts, and which of them vary between tasks.

    Weights that vary have the units of the start's covariance. Those that tasks share have the units of the frame, one
    standard deviation of y per standard deviation of the column, so that a prior that knows them can be learned anew.

    Args:
        frame: of the rows.
        loc: centre `(d, m)`, m being the number of outputs.
        unit: factor of the covariance between tasks, in the frame `(d, d)`.
        varying: weights that differ between tasks.
        fixed: weights that tasks share.
    """

    frame: Frame
    loc: Float64[Tensor, "d m"]
    unit: Float64[Tensor, "d d"]
    varying: Sequence[int]
    fixed: Sequence[int]

    @classmethod
    def of(
        cls,
        stats: Statistics,
        loc: Tensor,
        precision: Tensor,
        columns: Columns | None = None,
        *,
        relative: bool = False,
    ) -> "WeightSpace":
        """The space about a prior of weights.

        Args:
            stats: of the rows of all tasks: inputs and outputs.
            loc: mean of the prior `(d, m)`, whose dtype says what counts as rounding.
            precision: of the prior `(d, d)`.
            columns: which weights tasks share.
            relative: whether the covariance is relative to that of the noise, and has no unit of y.
        """
        fixed = () if columns is None else columns.fixed
        varying = tuple(range(loc.shape[0])) if columns is None else columns.varying
        frame = Frame.of(stats, fixed=fixed, dtype=loc.dtype)
        frame.warn(stats, loc.dtype)
        back = frame.to_weights
        outside = positive(precision.double(), loc.dtype)  # the frame makes more of what rounding left
        inside = positive(symmetric(back.mT @ outside @ back))
        cov = torch.cholesky_inverse(cholesky(inside, "precision"))
        unit = torch.eye(len(cov), dtype=cov.dtype, device=cov.device)
        at = torch.tensor(varying)
        factor = cholesky(cov[at[:, None], at], "covariance")
        unit[at[:, None], at] = factor if relative else factor / frame.y_scale
        return cls(frame, frame.enter(loc.double()), unit, varying, fixed)

    @property
    def num_pairs(self) -> int:
        return len(self.varying) * (len(self.varying) - 1) // 2

    def scale_entries(self, same_weight: str = SAME_WEIGHT) -> list[Hyperparameter]:
        """Log standard deviations of the weights that vary, and what correlates them."""
        return [
            *(Hyperparameter(f"log_scale[{i}]", 0.0, 2.0, LARGEST_LOG, same_weight) for i in self.varying),
            *(Hyperparameter(f"below_diagonal[{i}]", 0.0, 1.0, LARGEST_TILT, TOGETHER) for i in range(self.num_pairs)),
        ]

    def root(self, scales: Tensor) -> Tensor:
        """Lower factor `(*draws, d, d)` of the covariance between tasks; zero rows for weights that tasks share.

        Args:
            scales: values of `scale_entries`, `(*draws, v + v (v - 1) / 2)`.
        """
        v, at = len(self.varying), torch.tensor(self.varying)
        varying = self.unit[at[:, None], at] @ scale_tril(scales[..., :v], scales[..., v:])
        if not self.fixed:
            return varying
        root = torch.zeros(*scales.shape[:-1], *self.unit.shape).to(varying)
        root[..., at[:, None], at] = varying
        return root

    def scales(self, root: Tensor) -> Tensor:
        """The inverse of `root`."""
        at = torch.tensor(self.varying)
        unit = self.unit[at[:, None], at]
        return pack_scales(torch.linalg.solve_triangular(unit, root[..., at[:, None], at], upper=False))

    def precision(self, root: Tensor) -> Tensor:
        """Precision of weights of x, `(*draws, d, d)`, in units of y_scale, from a lower factor of `root`'s kind.

        Weights that tasks share are known: their standard deviation is 1e-8 of a unit, which no figure shows.
        """
        known = torch.zeros(len(self.unit), dtype=root.dtype, device=root.device)
        known[list(self.fixed)] = KNOWN
        half = torch.linalg.solve_triangular(
            root + torch.diag_embed(known), self.frame.from_weights.expand_as(root), upper=False
        )
        return positive(symmetric(half.mT @ half))
