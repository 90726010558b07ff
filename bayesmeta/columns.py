"""What each column of x is to a regression: an input with a weight, or a number that is known of the row."""

from collections.abc import Sequence
from dataclasses import dataclass

from bayesmeta.fields import TensorFields

__all__ = ["Columns", "columns_of"]

ROLES = ("offset", "trials", "weight", "noise_var")


@dataclass(frozen=True)
class Columns(TensorFields):
    """Roles of the columns of x, by index from zero. Every column without a role is an input with a weight.

    Args:
        num: how many columns x has.
        shared: inputs whose weight is the same in all tasks (a fixed effect); the other weights vary between tasks.
        offset: column that is added to the linear predictor as it is.
        trials: column with the number of trials of a binomial count.
        weight: column with the weight of a row: its noise has variance noise_var / weight.
        noise_var: column with the known variance of a row's noise.

    Raises:
        ValueError: a column does not exist, has two roles, or no weight is left that varies between tasks.
    """

    num: int
    shared: tuple[int, ...] = ()
    offset: int | None = None
    trials: int | None = None
    weight: int | None = None
    noise_var: int | None = None

    def __post_init__(self) -> None:
        shared = tuple(sorted(int(i) % self.num if -self.num <= i < 0 else int(i) for i in self.shared))
        object.__setattr__(self, "shared", shared)
        for role in ROLES:
            column = getattr(self, role)
            if column is not None and -self.num <= column < 0:
                object.__setattr__(self, role, column % self.num)
        used = [*self.shared, *self._known.values()]
        for column in used:
            if not 0 <= column < self.num:
                raise ValueError(f"x has {self.num} columns, numbered from 0 to {self.num - 1}; got column {column}")
            if used.count(column) > 1:
                raise ValueError(f"column {column} of x has two roles; give each column one")
        if not self.varying:
            raise ValueError(
                f"at least one of the {self.num} columns of x must have a weight that varies between tasks; "
                f"columns {sorted(used)} have other roles. Without such a weight tasks do not differ"
            )

    @property
    def inputs(self) -> tuple[int, ...]:
        """Columns of x that have a weight, in order: entry i of `loc` is the weight of column `inputs[i]`."""
        known = self._known.values()
        return tuple(i for i in range(self.num) if i not in known)

    @property
    def varying(self) -> tuple[int, ...]:
        """Entries of the weights that vary between tasks."""
        return tuple(i for i, column in enumerate(self.inputs) if column not in self.shared)

    @property
    def fixed(self) -> tuple[int, ...]:
        """Entries of the weights that all tasks share."""
        return tuple(i for i, column in enumerate(self.inputs) if column in self.shared)

    @property
    def _known(self) -> dict[str, int]:
        return {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}

    def require_only(self, family: str, *roles: str) -> None:
        """Raise ValueError where a column has a role that `family` does not know."""
        for role in self._known:
            if role not in roles:
                known = ", ".join(("shared", *roles))
                raise ValueError(f"{family} knows no column of role {role!r}; its roles are {known}")


def columns_of(num: int, shared: Sequence[int] = (), **roles: int | None) -> Columns | None:
    """Columns with these roles, None where no column has one."""
    if not len(shared) and all(column is None for column in roles.values()):
        return None
    return Columns(num, tuple(shared), **roles)
