"""Columns of numbers that a formula stands for in a table, and in later tables by the same coding.

Categories become contrasts, polynomials and splines become their bases, by `formulaic`. What was learned from the first
table, such as levels, means and knots, is kept, so that a row means the same wherever it comes from.
"""

import difflib
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np

from bayesmeta.mixed_models.expressions import ELEMENTWISE, Column, Expression, label_of, shown
from bayesmeta.mixed_models.formula import Formula

__all__ = ["Design", "Table"]

DEPENDENT = 1e-9  # share of a column's length that others do not span, below which they are taken to span it


class Table:
    """Columns of a table as numbers or as labels, each with a value in every row."""

    def __init__(self, frame: nw.DataFrame[Any]) -> None:
        self.frame = frame
        if not len(frame):
            raise ValueError("the table has no rows")

    def __len__(self) -> int:
        return len(self.frame)

    def series(self, name: str) -> nw.Series[Any]:
        """A column without gaps.

        Raises:
            ValueError: there is no such column, or values are missing.
        """
        if name not in self.frame.columns:
            close = difflib.get_close_matches(name, self.frame.columns, 1)
            hint = f". Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"column {name!r} does not exist: the columns are {', '.join(self.frame.columns)}{hint}")
        series = self.frame[name]
        missing = series.is_null().to_numpy()
        if series.dtype.is_float():
            missing = missing | series.is_nan().fill_null(True).to_numpy()
        if missing.any():
            rows = "row" if missing.sum() == 1 else f"{missing.sum()} rows, the first of them row"
            raise ValueError(
                f"column {name!r} must have a value in every row; it has none in {rows} {missing.argmax()}. "
                "Fill the gaps, or leave these rows out of the table"
            )
        return series

    def holds_numbers(self, name: str) -> bool:
        dtype = self.series(name).dtype
        return bool(dtype.is_numeric() or dtype == nw.Boolean)

    def numbers(self, name: str, way_out: str = "As categories: C({})") -> np.ndarray:
        """A column of numbers, float64; true is 1.

        Raises:
            ValueError: it holds something else.
        """
        series = self.series(name)
        if not self.holds_numbers(name):
            way_out = way_out.format(name) if _is_text(series.dtype) else "Convert it"
            raise ValueError(f"column {name!r} must hold numbers here; it holds {series.dtype}. {way_out}")
        return np.asarray(series.cast(nw.Float64).to_numpy(), dtype=float)

    def labels(self, name: str) -> list[str]:
        """A column of categories as text."""
        series = self.series(name)
        values = series.to_list()
        if not (self.holds_numbers(name) or _is_text(series.dtype) or all(isinstance(v, str) for v in values)):
            raise ValueError(
                f"column {name!r} must hold text, categories or numbers; it holds {series.dtype}. Convert it"
            )
        return [label_of(value) for value in values]

    def levels(self, name: str) -> tuple[str, ...]:
        """The categories that occur: in the order of pandas' categories or of an Enum, else ascending."""
        series, present = self.series(name), set(self.labels(name))
        if self.holds_numbers(name):
            return tuple(dict.fromkeys(label_of(value) for value in sorted(set(series.to_list()))))
        ordered = getattr(series.dtype, "categories", None)
        if ordered is None:
            ordered = getattr(getattr(series.to_native(), "cat", None), "categories", None)
        if ordered is None:
            return tuple(sorted(present))
        return tuple(label for label in map(label_of, ordered) if label in present)

    def evaluate(self, expression: Expression, what: str) -> np.ndarray:
        """An expression at every row.

        Raises:
            ValueError: a value is not finite; the message names the row.
        """
        way_out = "Convert it, yes and no to 1 and 0"
        values = expression({alias: self.numbers(each.name, way_out) for alias, each in expression.columns.items()})
        return require_finite(np.broadcast_to(values, len(self)).astype(float), f"{what} {expression.text!r}")


def require_finite(values: np.ndarray, what: str) -> np.ndarray:
    """The same values, all finite."""
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{what} must be finite in every row; it is {values[row]:g} in row {row}")
    return values


def _is_text(dtype: Any) -> bool:
    return dtype in (nw.String, nw.Categorical, nw.Enum)


@dataclass(frozen=True, eq=False)
class Design:
    """Columns of a formula: one weight each.

    Args:
        formula: what they stand for.
        levels: levels of each column of categories, by its alias.
        fixed: formulaic's description of the columns of the mean.
        varying: the same for the columns whose weights vary between groups.
        picks: the columns in use, by their places in the fixed and then the varying ones.
        shared: places in `picks` of columns whose weight all groups share.
        names: of the columns in use.
        fixed_names: of the columns of the mean, as the formula has them.
        to_fixed: the weights of the mean's columns from those in use, `(fixed, columns)`.
    """

    formula: Formula
    levels: Mapping[str, tuple[str, ...]]
    fixed: Any
    varying: Any
    picks: tuple[int, ...]
    shared: tuple[int, ...]
    names: tuple[str, ...]
    fixed_names: tuple[str, ...]
    to_fixed: np.ndarray

    @classmethod
    def of(cls, formula: Formula, table: Table) -> "Design":
        """The columns that a formula stands for in a table, whose coding later tables will have.

        Raises:
            ValueError: columns depend on each other, or weights vary between groups that have no mean.
        """
        _formulaic()
        levels = {
            alias: table.levels(column.name)
            for alias, column in formula.columns.items()
            if column.role == "category" or (column.role == "any" and not table.holds_numbers(column.name))
        }
        for alias, each in levels.items():
            if len(each) < 2:
                name = formula.columns[alias].name
                raise ValueError(f"column {name!r} must have two categories or more; all rows hold {each[0]!r}")
        frame = _aliased(formula.columns, levels, table)
        (fixed, fixed_names, x), (varying, varying_names, z) = (
            _materialised(_spec(terms, formula), frame, formula) for terms in (formula.fixed, formula.varying)
        )
        # columns of the triangular factor have the lengths and angles of those of the table, and are short
        root = np.asarray(np.linalg.qr(np.concatenate([x, z], 1), mode="r"))
        of_x, of_z = root[:, : x.shape[1]], root[:, x.shape[1] :]
        _require_independent(of_x, fixed_names, "")
        _require_independent(of_z, varying_names, f", of what varies between {formula.group},")
        _require_means(of_x, of_z, varying_names, formula)
        if not formula.correlated and len(varying_names) > 1:
            raise ValueError(
                f"(... || {formula.group}) keeps weights from being correlated, which is not covered. "
                f"Write one bar, (... | {formula.group}): the correlation is learned"
            )
        picks, shared = _picked(of_x, of_z)
        names = tuple((*fixed_names, *varying_names)[i] for i in picks)
        as_written = picks == tuple(range(x.shape[1]))
        to_fixed = np.eye(len(picks)) if as_written else np.linalg.lstsq(of_x, root[:, picks], rcond=None)[0]
        return cls(formula, levels, fixed, varying, picks, shared, names, fixed_names, to_fixed)

    def __call__(self, table: Table) -> np.ndarray:
        """The columns `(rows, columns)` for the rows of a table, by the coding of the first one.

        Raises:
            ValueError: a category occurs that the first table did not have.
        """
        frame = _aliased(self.formula.columns, self.levels, table)
        parts = [_materialised(spec, frame, self.formula)[-1] for spec in (self.fixed, self.varying)]
        return np.concatenate(parts, 1)[:, self.picks]


def _aliased(columns: Mapping[str, Column], levels: Mapping[str, tuple[str, ...]], table: Table) -> Any:
    """The columns in use, by alias, as formulaic's kind of table."""
    import pandas as pd

    found: dict[str, Any] = {}
    for alias, column in columns.items():
        if alias not in levels:
            found[alias] = table.numbers(column.name)
            continue
        labels, known = table.labels(column.name), set(levels[alias])
        if not known.issuperset(labels):
            new = [i for i, label in enumerate(labels) if label not in known]
            raise ValueError(
                f"column {column.name!r} must hold categories that the first table has, {', '.join(levels[alias])}; "
                f"row {new[0]} holds {labels[new[0]]!r}, of which nothing is known"
            )
        found[alias] = pd.Categorical(labels, categories=list(levels[alias]))
    return pd.DataFrame(found, index=range(len(table)))


def _formulaic() -> Any:
    try:
        import formulaic
    except ImportError:
        raise ImportError(
            "formulas need the package formulaic, which is not installed. Try pip install 'bayesmeta[formula]'"
        ) from None
    return formulaic


def _spec(terms: str, formula: Formula) -> Any:
    formulaic = _formulaic()
    from formulaic.parser import DefaultFormulaParser

    parser = DefaultFormulaParser(feature_flags=DefaultFormulaParser.FeatureFlags.NONE)

    def build() -> Any:
        return formulaic.ModelSpec.from_spec(formulaic.Formula(terms, _parser=parser), na_action="ignore")

    return _explained(build, formula)


def _materialised(spec: Any, frame: Any, formula: Formula) -> tuple[Any, tuple[str, ...], np.ndarray]:
    """The description with all that was learned from the rows; names of columns; the columns."""
    if not len(spec.formula):
        return spec, (), np.zeros((len(frame), 0))
    matrix = _explained(lambda: spec.get_model_matrix(frame, context=ELEMENTWISE), formula)
    values, names = np.asarray(matrix, dtype=float), tuple(map(formula.names, matrix.model_spec.column_names))
    for name, column in zip(names, values.T, strict=True):
        require_finite(column, f"column {name!r} of {shown(formula.text)}")
    return matrix.model_spec, names, values


def _explained(build: Callable[[], Any], formula: Formula) -> Any:
    """What `build` returns; its errors as ours, with the names of columns and without colours."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error")
            return build()
    except (Exception, RecursionError) as error:
        reason = formula.names(" ".join(re.sub(r"\x1b\[[0-9;]*m|⧛|⧚", "", str(error)).split()))
        raise ValueError(f"cannot make columns of {shown(formula.text)}: {reason or type(error).__name__}") from None


# ---- which columns have weights of their own


def _independent(columns: np.ndarray, basis: Sequence[np.ndarray] = ()) -> tuple[list[int], list[np.ndarray]]:
    """Columns, in order, that neither `basis` nor the columns before them span; and the basis with them."""
    found, basis = [], list(basis)
    for i, column in enumerate(columns.T):
        length = np.linalg.norm(column)
        rest = column / (length or 1.0)
        for _ in range(2):
            for each in basis:
                rest = rest - each * (each @ rest)
        if np.linalg.norm(rest) > DEPENDENT:
            found.append(i)
            basis.append(rest / np.linalg.norm(rest))
    return found, basis


def _require_independent(columns: np.ndarray, names: Sequence[str], where: str) -> None:
    found, _ = _independent(columns)
    over = [name for i, name in enumerate(names) if i not in found]
    if over:
        raise ValueError(
            f"columns{where} must not depend on each other; the others determine {', '.join(map(repr, over))}. "
            "Leave it out, or merge categories that always come together"
        )


def _require_means(x: np.ndarray, z: np.ndarray, names: Sequence[str], formula: Formula) -> None:
    _, basis = _independent(x)
    without = [names[i] for i in _independent(z, basis)[0]]
    if without:
        raise ValueError(
            f"what varies between {formula.group} must be in the fixed part too, where its mean is; "
            f"{', '.join(map(repr, without))} is not. A mean of zero is not covered: write it in both parts, "
            "as in y ~ x + (x | group)"
        )


def _picked(x: np.ndarray, z: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Columns in use among those of x and z, and the places in them of weights that groups share.

    Those of x as they are, where each of z is one of them; else those of z, and as many of x as complete them.
    """
    size = x.shape[1]
    lengths = np.linalg.norm(x, axis=0)
    same = [[i for i in range(size) if np.linalg.norm(x[:, i] - each) <= DEPENDENT * lengths[i]] for each in z.T]
    if all(same):
        varying = {places[0] for places in same}
        return tuple(range(size)), tuple(i for i in range(size) if i not in varying)
    _, basis = _independent(z)
    rest, _ = _independent(x, basis)
    picks = (*rest, *(size + i for i in range(z.shape[1])))
    return picks, tuple(range(len(rest)))
