"""Statistics of a regression's rows whose noise has known relative variances: weighted sums, and what they leave out.

A row of weight w counts as w rows in every moment. The evidence asks for two sums more: how many rows there were, and
their summed log weights. Both travel as inputs 1 / w and log(w) / w, whose weighted sums they are, so that statistics
still add.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesmeta.data.columns import Columns
from bayesmeta.data.rows import Data, describe_rows
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_columns

__all__ = ["WeightedRows", "pooled", "regression_statistics", "row_statistics"]

EXTRA = 2  # inputs that stand for sums


@dataclass(frozen=True)
class WeightedRows:
    """Rows of a regression by their sums.

    Args:
        stats: of inputs and outputs, weighted; its count is the sum of weights `(*batch,)`.
        count: rows `(*batch,)`.
        log_weights: summed `(*batch,)`.
    """

    stats: Statistics
    count: Tensor
    log_weights: Tensor

    @classmethod
    def of(cls, stats: Statistics, num_weights: int) -> "WeightedRows":
        """Weighted rows of what `row_statistics` returned."""
        d = num_weights
        if stats.num_inputs == d:
            return cls(stats, stats.count, torch.zeros_like(stats.count))
        keep = [*range(d), *range(d + EXTRA, stats.first.shape[-1])]
        second = None if stats.second is None else stats.second[..., keep, :][..., keep]
        inner = Statistics(stats.count, stats.origin[..., keep], stats.first[..., keep], second, d)
        extra = stats.mean[..., d : d + EXTRA] * stats.count[..., None]
        return cls(inner, extra[..., 0], extra[..., 1])

    @property
    def mean_weight(self) -> Tensor:
        return (self.stats.count / self.count).where(self.count > 0, 1.0)


def pooled(tasks: Data | Statistics, columns: Columns | None) -> Statistics:
    """Statistics of all rows as those of one task."""
    if isinstance(tasks, Statistics):
        return tasks.pooled()
    if columns is not None and not columns.all_inputs:
        return row_statistics(tasks, columns).pooled()
    y = tasks.y if tasks.event_shape else tasks.y[..., None]
    full = bool(tasks.mask.all())
    # one matrix of all rows: `Statistics.of` would lay each column out for many tasks, of which there is one
    x, y = (v.flatten(0, -2) if full else v[tasks.mask] for v in (tasks.x, y))
    z = torch.cat([x, y], -1).double()
    count = torch.full((), len(z), dtype=torch.float64, device=z.device)
    origin = z.sum(0) / count.clamp(min=1.0)
    z -= origin
    return Statistics(count, origin, z.sum(0), z.mT @ z, x.shape[-1])


def row_statistics(data: Data, columns: Columns | None) -> Statistics:
    """Statistics of the rows of `data` as `columns` read them: of inputs and of y less its offset.

    Raises:
        ValueError: a weight or a variance is not above zero.
    """
    if columns is None or columns.all_inputs:
        return Statistics.of(data)
    read = columns.read(data.x)
    y = data.y if read.offset is None else data.y.double() - read.offset
    if read.weight is None:
        return Statistics.of(Data(read.x, y, data.mask))
    bad = ~(read.weight > 0) & data.mask
    if bool(bad.any()):
        raise ValueError(f"weights and variances of rows must be above zero where mask is true; {describe_rows(bad)}")
    weight = read.weight.where(data.mask, 0.0)
    inverse = 1.0 / read.weight.where(data.mask, 1.0)
    extra = torch.stack([inverse, -inverse.log() * inverse], -1)
    z = torch.cat([read.x.double(), extra, y.double()[..., None]], -1).masked_fill(~data.mask[..., None], 0.0)
    count = weight.sum(-1)
    origin = (weight[..., None] * z).sum(-2) / count.where(count > 0, 1.0)[..., None]
    centred = z - origin[..., None, :]
    scaled = weight[..., None] * centred
    return Statistics(count, origin, scaled.sum(-2), scaled.mT @ centred, read.x.shape[-1] + EXTRA)


def regression_statistics(data: Data | Statistics, columns: Columns | None, loc: Tensor) -> Statistics:
    """Statistics of checked rows; statistics pass through.

    Args:
        loc: weights `(..., d)`, one per input.

    Raises:
        ValueError: the rows do not have the columns, or y is a vector.
    """
    d = loc.shape[-1]
    if isinstance(data, Statistics):
        extra = EXTRA if columns is not None and columns.weighs else 0
        require_columns(data, num_inputs=d + extra, event_shape=())
        return data
    require_columns(data, num_inputs=d if columns is None else columns.num, event_shape=())
    return row_statistics(data, columns)
