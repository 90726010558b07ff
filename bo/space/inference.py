"""Distributions of parameters, guessed from the values of a table or widened to hold those of several studies."""

import math
import re
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from bayesmeta.data.csv_tables import BadRow, not_numbers
from bayesmeta.warning_kinds import BayesmetaWarning, warn
from bo.space.choices import as_choice, category_of, same_distribution

__all__ = ["MixedColumnWarning", "inferred", "is_missing", "widened"]

TIME = r"(\d+ days?,? )?\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?"
MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
DATE = re.compile(
    rf"\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}([T ].*)?$|\d{{1,2}}[./-]\d{{1,2}}[./-]\d{{2,4}}([T ].*)?$|{TIME}$"
    rf"|{MONTH} \d{{1,2}},? \d{{4}}|\d{{1,2}}[. -]+{MONTH}[ -]\d{{2,4}}",
    re.IGNORECASE,
)
MIN_MEASURED = 10  # different numbers in a column, half of its entries or more, from which it holds no choices
LOG_SPAN = 10.0  # high / low from which a column of a table may be on a log scale


class MixedColumnWarning(BayesmetaWarning):
    """A column of a table holds numbers for the most part, and something else besides: it is taken for a category."""


def widened(name: str, old: Any, new: Any) -> BaseDistribution:
    """The least distribution that holds the values of both; a log scale or step is kept where they share it."""
    if same_distribution(old, new):
        return old
    if isinstance(old, CategoricalDistribution) != isinstance(new, CategoricalDistribution):
        raise ValueError(f"trials disagree on parameter {name!r}: {old} and {new}; rename it in one of the studies")
    if isinstance(old, CategoricalDistribution):
        known = {as_choice(choice) for choice in old.choices}
        return category_of(old.choices + tuple(c for c in new.choices if as_choice(c) not in known))
    both_whole = isinstance(old, IntDistribution) and isinstance(new, IntDistribution)
    kind: Any = IntDistribution if both_whole else FloatDistribution
    step = 1 if both_whole else None
    if type(old) is type(new) and old.step == new.step and old.step:
        shift = (new.low - old.low) / old.step
        step = old.step if abs(shift - round(shift)) < 1e-8 else step
    return kind(min(old.low, new.low), max(old.high, new.high), log=old.log and new.log, step=step)


def inferred(name: str, entries: list[Any]) -> BaseDistribution:
    """The distribution of one column of a table."""
    present = [v.item() if hasattr(v, "item") else v for v in entries if not is_missing(v)]
    kinds = {type(v) for v in present}
    if len(kinds - {int}) > 1 or not kinds <= {bool, int, float, str} or kinds in ({int, bool}, {int, str}):
        got = " and ".join(sorted(k.__name__ for k in kinds))
        raise ValueError(f"parameter {name!r} must hold numbers, or strings, or booleans; got {got}")
    values = sorted(set(present))
    if len(values) < 2:
        what = f"only the value {values[0]!r}" if values else "no value"
        raise ValueError(f"parameter {name!r} must vary over the table; it has {what}. Leave the column out")
    if kinds == {str}:
        _require_choices(name, [None if is_missing(v) else str(v) for v in entries])
    if kinds <= {bool, str}:
        return CategoricalDistribution(values)
    low, median, high = values[0], sorted(present)[len(present) // 2], values[-1]
    if not (math.isfinite(low) and math.isfinite(high)):
        row = next(i for i, v in enumerate(entries) if not is_missing(v) and math.isinf(v))
        raise BadRow(f"parameter {name!r} must be finite; its values span {low} to {high}, as in ", row, "")
    if len({float(v) for v in values}) < len(values):
        raise ValueError(
            f"parameter {name!r} holds whole numbers too large to tell apart, up to {high}: names, not values. Leave "
            "the column out"
        )
    log = low > 0 and high >= LOG_SPAN * low
    if log:
        log = _off_centre([math.log(v) for v in (low, median, high)]) < _off_centre([low, median, high])
    has_gaps = len(present) < len(entries)
    if all(isinstance(v, int) or (has_gaps and v.is_integer()) for v in values):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def _require_choices(name: str, entries: list[str | None]) -> None:
    """Text that can be choices: no dates, and no measured numbers; few numbers and a word are, with a warning."""
    present = [entry for entry in entries if entry is not None]
    if all(DATE.match(entry) for entry in present):
        raise ValueError(
            f"parameter {name!r} holds dates or times, such as {present[0]!r}, which no trial chooses. Leave it out"
        )
    wrong = not_numbers(entries)
    if not 0 < 2 * len(wrong) < len(present):
        return
    first = entries[wrong[0]]
    how_many = f"{len(present) - len(wrong)} of its {len(present)} entries are numbers"
    if len({*present} - {first}) >= max(MIN_MEASURED, len(present) / 2):
        raise BadRow(
            f"parameter {name!r} must hold numbers alone, or choices; {how_many}, and others are not, the first in ",
            wrong[0],
            f": {first!r}. Write a number, or leave it empty where the value is missing",
        )
    warn(
        f"parameter {name!r} is taken for a category: {how_many}, and others are not, such as {first!r}. If that marks "
        "a missing value, leave it empty",
        MixedColumnWarning,
    )


def _off_centre(ends: list[Any]) -> float:
    low, middle, high = ends
    return abs((middle - low) / (high - low) - 0.5)


def is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither equal nor unequal to anything
        return True
