"""What each column of x is to a regression: an input with a weight, or a number that is known of the row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from bayesmeta.describe import listed
from bayesmeta.fields import TensorFields

__all__ = ["Columns", "Reading", "columns_of", "read", "require_columns_fit"]

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
        if self.weight is not None and self.noise_var is not None:
            raise ValueError("a row has a weight or a known variance of its noise, and not both; name one of them")
        if not self.varying:
            raise ValueError(
                f"at least one of the {self.num} columns of x must have a weight that varies between tasks; "
                f"columns {sorted(used)} have other roles. Without such a weight tasks do not differ"
            )

    def _title(self) -> str:
        varying = [column for column in self.inputs if column not in self.shared]
        parts = {"varying": varying, "shared": self.shared, **{role: [i] for role, i in self._known.items()}}
        return ": " + "; ".join(f"{name} {listed(columns)}" for name, columns in parts.items() if columns)

    def _parts(self) -> dict[str, Any]:
        return {}

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
    def all_inputs(self) -> bool:
        """Whether every column has a weight."""
        return not self._known

    @property
    def weighs(self) -> bool:
        """Whether rows have weights, or variances, of their own."""
        return self.weight is not None or self.noise_var is not None

    def read(self, x: Tensor) -> "Reading":
        """The columns of x `(..., num)` by role.

        Raises:
            ValueError: x does not have `num` columns.
        """
        if x.shape[-1] != self.num:
            raise ValueError(f"x must have {self.num} columns; got {x.shape[-1]}")
        known = {role: x[..., column].double() for role, column in self._known.items()}
        if "noise_var" in known:
            known["weight"] = 1.0 / known.pop("noise_var")
        used = self.inputs
        # the first columns are a view of x, any others a copy
        return Reading(x[..., : len(used)] if used == tuple(range(len(used))) else x[..., list(used)], **known)

    @property
    def _known(self) -> dict[str, int]:
        return {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}

    def require_only(self, family: str, *roles: str) -> None:
        """Raise ValueError where a column has a role that `family` does not know."""
        for role in self._known:
            if role not in roles:
                known = ", ".join(("shared", *roles))
                raise ValueError(f"{family} knows no column of role {role!r}; its roles are {known}")


@dataclass(frozen=True)
class Reading:
    """Rows as a regression reads them.

    Args:
        x: inputs `(..., d)`.
        offset: known part of the predictor `(...,)`, float64, None where there is none.
        trials: of binomial counts, likewise.
        weight: the noise has variance noise_var / weight, likewise.
    """

    x: Tensor
    offset: Tensor | None = None
    trials: Tensor | None = None
    weight: Tensor | None = None

    def shifted(self, predictor: Tensor) -> Tensor:
        """The predictor with its known part."""
        return predictor if self.offset is None else predictor + self.offset.to(predictor)

    def noise(self, noise_var: Tensor) -> Tensor:
        """Variance of each row's noise, from that of a row of weight one `(*batch,)`."""
        return noise_var[..., None] if self.weight is None else noise_var[..., None] / self.weight.to(noise_var)


def read(columns: Columns | None, x: Tensor, weights: Tensor) -> Reading:
    """The columns of x by role, all of them inputs where `columns` is None.

    Args:
        weights: `(..., d)`, one per input.

    Raises:
        ValueError: x does not have the columns.
    """
    if columns is not None:
        return columns.read(x)
    if x.shape[-1] != weights.shape[-1]:
        raise ValueError(f"x must have {weights.shape[-1]} columns; got {x.shape[-1]}")
    return Reading(x)


@runtime_checkable
class HasColumns(Protocol):
    """A family whose weights may belong to some of the columns of x."""

    @property
    def loc(self) -> Tensor:
        """Mean of the weights, `(*batch, d, ...)`."""
        ...

    @property
    def columns(self) -> Columns | None:
        """Roles of the columns, None where each has a weight."""
        ...


def require_columns_fit(prior: HasColumns, roles: Sequence[str]) -> None:
    """Raise ValueError where `prior.columns` does not give each entry of `prior.loc` its input, or has other roles."""
    columns, d = prior.columns, prior.loc.shape[-1]
    if columns is None:
        return
    columns.require_only(type(prior).__name__, *roles)
    if len(columns.inputs) != d:
        raise ValueError(f"columns must have {d} inputs, one per entry of loc; got {len(columns.inputs)}")


def columns_of(num: int, shared: Sequence[int] = (), **roles: int | None) -> Columns | None:
    """Columns with these roles, None where no column has one."""
    if not len(shared) and all(column is None for column in roles.values()):
        return None
    return Columns(num, tuple(shared), **roles)
