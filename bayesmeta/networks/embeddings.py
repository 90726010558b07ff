"""Inputs of mixed kinds as numbers that networks take: standardised numbers, and one column for each category.

`Data` holds finite numbers, so a category is a whole number from 0, and a number that may be missing comes with a
column that says so: `indicate_missing` makes both columns of one. A category that no past task had is a row of zeros,
which is near none of the others and as far from all.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.validation import require_finite, require_positive
from bayesmeta.fields import TensorFields
from bayesmeta.networks.features import centre_and_scale_with_digits
from bayesmeta.numerics.as_floats import as_floats

__all__ = ["Inputs", "indicate_missing"]


@dataclass(frozen=True, eq=False)
class Inputs(TensorFields):
    """How columns of x become numbers of order one.

    Args:
        centre, scale: of each column, in its units; scale above zero. Not used for categories.
        categories: how many there are, by the column that holds them as whole numbers from 0.

    Raises:
        ValueError: a scale is not positive, an entry is not finite, or a column of categories is none.
    """

    centre: Float[Tensor, "d"]
    scale: Float[Tensor, "d"]
    categories: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_finite("centre", self.centre)
        require_positive("scale", self.scale)
        for column, num in self.categories.items():
            if not 0 <= column < len(self.centre) or num < 1:
                raise ValueError(
                    f"categories must be by column, from 0 to {len(self.centre) - 1}, one or more each; "
                    f"got {num} in column {column}"
                )

    @classmethod
    def of(cls, tasks: Data, categories: dict[int, int] | None = None) -> "Inputs":
        """By all rows of tasks."""
        rows = tasks.x[tasks.mask].double()
        if not len(rows):
            raise ValueError("inputs are standardised by rows of past tasks, and these have none")
        nothing = rows.new_zeros(0), rows.new_ones(0)
        return cls(*(centre_and_scale_with_digits(rows) if rows.shape[-1] else nothing), dict(categories or {}))

    @property
    def numbers(self) -> list[int]:
        """Columns of numbers."""
        return [column for column in range(len(self.centre)) if column not in self.categories]

    @property
    def num_outputs(self) -> int:
        """Columns that a network takes."""
        return len(self.numbers) + sum(self.categories.values())

    def __call__(self, x: Shaped[Tensor, "*tasks q d"]) -> Tensor:
        """`(*tasks, q, num_outputs)`: numbers first, then the columns of each category."""
        standard = (x.to(self.centre) - self.centre) / self.scale
        if not self.categories:
            return standard
        parts = [standard[..., self.numbers]]
        for column, num in self.categories.items():
            parts.append((x[..., column, None] == torch.arange(num, device=x.device)).to(standard))
        return torch.cat(parts, -1)


def indicate_missing(x: Any) -> Tensor:
    """Numbers `(*tasks, n, d)` of which some are NaN: with zeros there, and d columns more that are one there.

    A column of which nothing is missing has its indicator too, so that tasks have the same columns.
    """
    x = as_floats("x", x)
    missing = x.isnan()
    return torch.cat([x.masked_fill(missing, 0.0), missing.to(x)], -1)
