"""Parameters that a configuration has only where another one has certain values: a category, or a whole number.

The degree is there where the kernel is polynomial, and the width of the second layer where there are two or more.
Such a parameter says nothing where it is missing, so its place in an encoded point is the same wherever it is. An
optimiser that moved it there all the same would look for the best of many points that are all one.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from bo.space.choices import as_choice

__all__ = [
    "Between",
    "Conditions",
    "Values",
    "from_json",
    "is_ruled_out",
    "learn_conditions",
    "require_conditions",
    "to_json",
]

LEAST_ROWS = 2  # with a parameter and without, before a whole number is taken to decide: few rows split by chance


@dataclass(frozen=True)
class Between:
    """Whole numbers from `low` to `high`, both among them."""

    low: int | float = -math.inf
    high: int | float = math.inf

    def __contains__(self, value: Any) -> bool:
        return bool(self.low <= value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{self.low:g} or more"
        return f"{self.high:g} or less" if math.isinf(self.low) else f"from {self.low:g} to {self.high:g}"


Params = Mapping[str, Any]
Values: TypeAlias = tuple[Any, ...] | Between
# parameter -> what decides whether it is there, and the values of that with which it is
Conditions = Mapping[str, tuple[str, Values]]


def learn_conditions(configurations: Iterable[Params], distributions: Mapping[str, BaseDistribution]) -> Conditions:
    """The conditions that explain, without exception, which of the configurations have which parameters.

    A parameter that is missing for another reason has none, nor has one that is always there. What is also there
    without it decides before what is only ever there with it; then categories come first.
    """
    rows = list(configurations)
    deciders = [name for name, dist in distributions.items() if isinstance(dist, CategoricalDistribution)]
    deciders += [name for name, dist in distributions.items() if isinstance(dist, IntDistribution)]
    found: dict[str, tuple[str, Values]] = {}
    for name in distributions:
        without = [row for row in rows if name not in row]
        only_with_it = {decider: all(decider not in row for row in without) for decider in deciders}
        for decider in sorted(deciders, key=lambda each: only_with_it[each]) if without else []:
            is_category = isinstance(distributions[decider], CategoricalDistribution)
            values = (_choices_with if is_category else _numbers_with)(name, decider, rows)
            if values and decider != name and not _leads_to(decider, name, found):
                found[name] = (decider, values)
                break
    return found


def is_ruled_out(name: str, conditions: Conditions, params: Params) -> bool:
    """Whether a configuration with these parameters, among others that are not known yet, cannot have `name`."""
    if name not in conditions:
        return False
    decider, values = conditions[name]
    return is_ruled_out(decider, conditions, params) or (decider in params and as_choice(params[decider]) not in values)


def require_conditions(conditions: Conditions, distributions: Mapping[str, BaseDistribution]) -> None:
    """Each condition is of a parameter, on values of a category or of a whole number, and none leads back to itself.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, (decider, values) in conditions.items():
        dist = distributions.get(decider)
        if name not in distributions or not isinstance(dist, CategoricalDistribution | IntDistribution):
            raise ValueError(
                f"a condition must be of a parameter on a category or a whole number; got {name!r} on {decider!r}"
            )
        if unknown := [value for value in _listed(values) if not _has(dist, value)]:
            raise ValueError(f"the condition of {name!r} must be on choices of {decider!r}; got {unknown[0]!r}")
        if isinstance(values, Between) and isinstance(dist, CategoricalDistribution):
            raise ValueError(f"the condition of {name!r} must be on choices of {decider!r}; got the numbers {values}")
        if _leads_to(decider, name, conditions):
            raise ValueError(f"the condition of {name!r} must not depend on {name!r} itself; it does by {decider!r}")


def to_json(conditions: Conditions) -> dict[str, Any]:
    """The same as JSON has it."""
    return {
        name: [decider, {"between": [values.low, values.high]} if isinstance(values, Between) else values]
        for name, (decider, values) in conditions.items()
    }


def from_json(conditions: Mapping[str, Any]) -> Conditions:
    """The inverse of `to_json`, after JSON made lists of tuples."""
    return {
        name: (decider, Between(*values["between"]) if isinstance(values, dict) else as_choice(values))
        for name, (decider, values) in conditions.items()
    }


def _listed(values: Values) -> Collection[Any]:
    return () if isinstance(values, Between) else values


def _has(dist: CategoricalDistribution | IntDistribution, value: Any) -> bool:
    if isinstance(dist, CategoricalDistribution):
        return value in dist.choices
    return isinstance(value, int) and dist._contains(value)


def _choices_with(name: str, category: str, rows: Sequence[Params]) -> tuple[Any, ...] | None:
    """The choices of `category` with which `name` is there, None if these do not decide it."""
    with_it = dict.fromkeys(as_choice(row[category]) for row in rows if name in row and category in row)
    without = {as_choice(row[category]) for row in rows if name not in row and category in row}
    if any(name in row and category not in row for row in rows) or any(choice in without for choice in with_it):
        return None
    return tuple(with_it)


def _numbers_with(name: str, decider: str, rows: Sequence[Params]) -> Between | None:
    """From where to where a whole number is with which `name` is there, None if that does not decide it."""
    with_it = [row[decider] for row in rows if name in row and decider in row]
    without = [row[decider] for row in rows if name not in row and decider in row]
    if any(name in row and decider not in row for row in rows) or min(len(with_it), len(without)) < LEAST_ROWS:
        return None
    first, last = min(with_it), max(with_it)
    below, above = [v for v in without if v < first], [v for v in without if v > last]
    if len(below) + len(above) < len(without):
        return None
    # half way to those without it, where no row tells
    low = math.ceil((max(below) + first) / 2) if below else -math.inf
    high = math.floor((min(above) + last) / 2) if above else math.inf
    return Between(low, high)


def _leads_to(decider: str, name: str, conditions: Conditions) -> bool:
    """Whether `decider` is `name`, or depends on it."""
    for _ in conditions:  # no path without a circle is longer
        if decider != name and decider in conditions:
            decider = conditions[decider][0]
    return decider == name
