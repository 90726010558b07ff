"""Rows of a mixed model: how those of a table become inputs and outputs of a regression, group by group.

Columns of x are those of the formula, then what is known of a row: its offset, trials, weight or noise variance.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from bayesmeta.data.columns import Columns
from bayesmeta.data.named_tasks import TaskTable, read_tasks
from bayesmeta.mixed_models.design import Design, Table
from bayesmeta.mixed_models.expressions import Expression
from bayesmeta.mixed_models.formula import Formula

__all__ = ["Reader"]


@dataclass(frozen=True, eq=False)
class Reader:
    """How the rows of a table become inputs and outputs.

    Args:
        formula: its parts.
        family: "gaussian", "binomial" or "poisson".
        design: the columns with weights.
        offsets: what is added to the predictor.
        weights: of rows, or None.
        noise_var: of rows, or None.
    """

    formula: Formula
    family: str
    design: Design
    offsets: tuple[Expression, ...]
    weights: Expression | None
    noise_var: Expression | None

    def __post_init__(self) -> None:
        if self.weights is not None and self.family == "poisson":
            raise ValueError(
                "a Poisson regression has no weights of rows. For counts over exposures: offset='log(time)'"
            )
        if self.noise_var is not None and self.family != "gaussian":
            raise ValueError(f"noise_var is of numbers with known variance; family is {self.family!r}")
        kind = self.formula.response.kind
        if kind == "cbind" and self.family != "binomial":
            raise ValueError(f"cbind(successes, failures) needs family='binomial'; family is {self.family!r}")
        if self.weights is not None and kind == "cbind":
            raise ValueError("cbind(successes, failures) says how many trials there are; leave weights out")
        if self.weights is not None and kind == "ratio" and self.family == "binomial":
            raise ValueError("successes / trials says how many trials there are; leave weights out")

    @property
    def roles(self) -> tuple[str, ...]:
        """Columns of x after those of the design."""
        kind = self.formula.response.kind
        trials = self.family == "binomial" and (kind in ("ratio", "cbind") or self.weights is not None)
        return (
            *(["offset"] if self.offsets else []),
            *(["trials"] if trials else []),
            *(["weight"] if self.weights is not None and self.family == "gaussian" else []),
            *(["noise_var"] if self.noise_var is not None else []),
        )

    @property
    def columns(self) -> Columns:
        """Roles of the columns of x."""
        size = len(self.design.names)
        places = {role: size + i for i, role in enumerate(self.roles)}
        return Columns(size + len(places), self.design.shared, **places)

    def inputs(self, table: Table, trials: np.ndarray | None) -> np.ndarray:
        """x `(rows, columns)`; without trials, one each."""
        known = {
            "offset": lambda: np.sum([table.evaluate(each, "offset") for each in self.offsets], 0),
            "trials": lambda: np.ones(len(table)) if trials is None else trials,
            "weight": lambda: _positive(table.evaluate(_there(self.weights), "weights"), "weights"),
            "noise_var": lambda: _positive(table.evaluate(_there(self.noise_var), "noise_var"), "noise_var"),
        }
        return np.column_stack([self.design(table), *(known[role]() for role in self.roles)])

    def rows(self, table: Table) -> TaskTable:
        """Rows by group, with the response."""
        y, trials = self._response(table)
        x = self.inputs(table, trials)
        columns = {str(i): column for i, column in enumerate(x.T)}
        frame = pl.DataFrame({"group": self.groups(table), "y": y, **columns})
        inputs = [str(i) for i in range(x.shape[1])]
        return replace(read_tasks(frame, task="group", target="y", inputs=inputs), inputs=self._input_names())

    def groups(self, table: Table) -> list[Any]:
        """The name of each row's group."""
        name = self.formula.group
        return table.series(name).to_list() if table.holds_numbers(name) else table.labels(name)

    def _input_names(self) -> tuple[str, ...]:
        return (*self.design.names, *self.roles)

    def _response(self, table: Table) -> tuple[np.ndarray, np.ndarray | None]:
        """y, and for counts of successes the trials."""
        response, family = self.formula.response, self.family
        parts = [table.evaluate(part, "response") for part in response.parts]
        if family != "binomial":
            y = parts[0] / parts[1] if response.kind == "ratio" else parts[0]
            if family == "poisson":
                _whole(y, response.text, "counts")
            return y, None
        if response.kind == "number" and self.weights is None:
            bad = ~np.isin(parts[0], (0.0, 1.0))
            if bad.any():
                raise ValueError(
                    f"response {response.text!r} must be 0 or 1 in every row; row {bad.argmax()} holds "
                    f"{parts[0][bad][0]:g}. Counts of successes: successes / trials, or weights='trials'"
                )
            return parts[0], None
        if response.kind == "number":
            trials = table.evaluate(_there(self.weights), "weights")
            product = parts[0] * trials
            # a share that was rounded to float64 gives whole successes but for rounding
            successes = np.where(
                np.abs(product - product.round()) < 1e-6 * np.maximum(1.0, trials), product.round(), product
            )
        else:
            successes, trials = parts[0], parts[1] if response.kind == "ratio" else parts[0] + parts[1]
        _whole(successes, response.text, "successes")
        _whole(trials, response.text, "trials")
        over = successes > trials
        if over.any():
            row = int(over.argmax())
            raise ValueError(
                f"response {response.text!r} must have no more successes than trials; row {row} has "
                f"{successes[row]:g} of {trials[row]:g}"
            )
        return successes, trials


def _there(expression: Expression | None) -> Expression:
    assert expression is not None  # a role is there only where its expression is
    return expression


def _positive(values: np.ndarray, what: str) -> np.ndarray:
    if not (values > 0).all():
        row = int((~(values > 0)).argmax())
        raise ValueError(f"{what} must be above zero in every row; row {row} has {values[row]:g}")
    return values


def _whole(values: np.ndarray, text: str, what: str) -> None:
    bad = (values < 0) | (values != values.round())
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{what} in the response {text!r} must be whole numbers from 0; row {row} has {values[row]:g}")
