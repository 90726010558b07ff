"""Functions that are the same at every row: what families without inputs draw.

Such a family takes x with zero features, `(*batch, q, 0)`, which says no more than how many rows are asked about; None
stands for one row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.doors import Draws

__all__ = ["Constant", "LikelihoodFunctions", "repeat_rows", "row_shape"]


def row_shape(x: Tensor | None, batch_shape: Sequence[int]) -> torch.Size:
    """`(*batch, q)`: the rows that x asks about, its tasks broadcast with `batch_shape`."""
    if x is None:
        return torch.Size((*batch_shape, 1))
    if x.ndim < 2 or x.shape[-1]:
        raise ValueError(f"this family has no inputs: x must be None or have shape (..., q, 0); got {tuple(x.shape)}")
    return torch.Size(np.broadcast_shapes((*batch_shape, 1), x.shape[:-1]))  # in a tenth of the time of torch's


def repeat_rows(draws: Tensor, x: Tensor | None, *, event_dim: int = 0) -> Tensor:
    """Values `(draws, *batch, *event)` at the rows of x, as a view `(draws, *batch, q, *event)`."""
    num_draws, *batch = draws.shape[: draws.ndim - event_dim]
    event = draws.shape[draws.ndim - event_dim :]
    rows = row_shape(x, batch)
    new_axes = (1,) * (len(rows) - 1 - len(batch))
    return draws.reshape(num_draws, *new_axes, *batch, 1, *event).expand(num_draws, *rows, *event)


@dataclass(frozen=True, eq=False)
class LikelihoodFunctions(Draws):
    """Draws of one parameter per task as functions: f(x) is the mean of the rows' likelihood.

    Args:
        params: of the draws and tasks, `(draws, *batch)`.
        likelihood: distribution of rows, given `params` repeated at each of them `(draws, *batch, q)`, and x.
    """

    params: Tensor
    likelihood: Callable[[Tensor, Tensor | None], Distribution]

    def __call__(self, x: Tensor | None = None) -> Tensor:
        return self.predict(x).mean

    def predict(self, x: Tensor | None = None) -> Distribution:
        return self.likelihood(repeat_rows(self.params, None if x is None else x[..., :0]), x)


class Constant(Distribution):
    """One variable repeated at q rows: its rows are equal in every draw, so it has no density over them.

    Args:
        base: distribution of the variable, one per task.
        rows: `(*batch, q)`, as `row_shape` gives it.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (as the base class has it)

    def __init__(self, base: Distribution, rows: Sequence[int]) -> None:
        *batch, self.num_rows = rows
        self.base = base.expand(torch.Size(batch))
        super().__init__(self.base.batch_shape, torch.Size((self.num_rows, *base.event_shape)), validate_args=False)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.base.has_rsample

    @property
    def mean(self) -> Tensor:
        return self._repeat(self.base.mean)

    @property
    def variance(self) -> Tensor:
        return self._repeat(self.base.variance)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._repeat(self.base.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._repeat(self.base.rsample(torch.Size(sample_shape)))

    def _repeat(self, value: Tensor) -> Tensor:
        axis = value.ndim - len(self.base.event_shape)
        return value.unsqueeze(axis).expand(*value.shape[:axis], self.num_rows, *value.shape[axis:])
