r"""The linear predictor of a row, $\eta = x^\top w$ + offset, and its trials: what roles make of the columns of x."""

from torch import Tensor

from bayesmeta.approximations.laplace import Rows
from bayesmeta.data.columns import Columns
from bayesmeta.data.rows import Data

__all__ = ["predictor", "rows_of", "split"]


def split(x: Tensor, columns: Columns) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs `(*batch, n, d)`, offset and trials, each `(*batch, n)`; without such columns zero, and one.

    Raises:
        ValueError: x does not have as many columns as there are roles.
    """
    rows = columns.read(x)
    offset = x.new_zeros(x.shape[:-1]) if rows.offset is None else rows.offset.to(x)
    trials = x.new_ones(x.shape[:-1]) if rows.trials is None else rows.trials.to(x)
    return rows.x, offset, trials


def predictor(x: Tensor, weights: Tensor, columns: Columns) -> Tensor:
    """x'w + offset `(*batch, n)` of weights `(*batch, d)`; both batches broadcast."""
    inputs, offset, _ = split(x, columns)
    return (inputs @ weights[..., None])[..., 0] + offset


def rows_of(data: Data, columns: Columns) -> Rows:
    """The tasks of `data` on one axis, float64."""
    tasks, n = data.batch_shape.numel(), data.mask.shape[-1]
    mask = data.mask.reshape(tasks, n)
    x, offset, trials = split(data.x.reshape(tasks, n, data.x.shape[-1]).double(), columns)
    return Rows(
        x.mT.masked_fill(~mask[:, None], 0.0).contiguous(),
        data.y.reshape(tasks, n).double().masked_fill(~mask, 0.0),
        offset.masked_fill(~mask, 0.0),
        trials.masked_fill(~mask, 0.0),
    )
