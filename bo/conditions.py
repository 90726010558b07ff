"""Parameters that a configuration has only where a category has certain choices, as the degree of a polynomial kernel.

Such a parameter says nothing where it is missing, so its place in an encoded point is the same wherever it is. An
optimiser that moved it there all the same would look for the best of many points that are all one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from bo.choices import as_choice

__all__ = ["Conditions", "is_ruled_out", "learn_conditions", "require_conditions"]

Params = Mapping[str, Any]
# parameter -> the category that decides whether it is there, and the choices of it with which it is
Conditions = Mapping[str, tuple[str, tuple[Any, ...]]]


def learn_conditions(configurations: Iterable[Params], distributions: Mapping[str, BaseDistribution]) -> Conditions:
    """The conditions that explain, without exception, which of the configurations have which parameters.

    A parameter that is missing for another reason has none, nor has one that is always there.
    """
    rows = list(configurations)
    categories = [name for name, dist in distributions.items() if isinstance(dist, CategoricalDistribution)]
    found: dict[str, tuple[str, tuple[Any, ...]]] = {}
    for name in distributions:
        for category in categories if any(name not in row for row in rows) else []:
            choices = _choices_with(name, category, rows)
            if choices and category != name and not _leads_to(category, name, found):
                found[name] = (category, choices)
                break
    return found


def is_ruled_out(name: str, conditions: Conditions, params: Params) -> bool:
    """Whether a configuration with these parameters, among others that are not known yet, cannot have `name`."""
    if name not in conditions:
        return False
    category, choices = conditions[name]
    return is_ruled_out(category, conditions, params) or (
        category in params and as_choice(params[category]) not in choices
    )


def require_conditions(conditions: Conditions, distributions: Mapping[str, BaseDistribution]) -> None:
    """Each condition is of a parameter, on choices of a category, and none leads back to itself.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, (category, choices) in conditions.items():
        dist = distributions.get(category)
        if name not in distributions or not isinstance(dist, CategoricalDistribution):
            raise ValueError(f"a condition must be of a parameter on a category; got {name!r} on {category!r}")
        if unknown := [choice for choice in choices if choice not in dist.choices]:
            raise ValueError(f"the condition of {name!r} must be on choices of {category!r}; got {unknown[0]!r}")
        if _leads_to(category, name, conditions):
            raise ValueError(f"the condition of {name!r} must not depend on {name!r} itself; it does by {category!r}")


def _choices_with(name: str, category: str, rows: Sequence[Params]) -> tuple[Any, ...]:
    """The choices of `category` with which `name` is there, none if these do not decide it."""
    with_it = dict.fromkeys(as_choice(row[category]) for row in rows if name in row and category in row)
    without = {as_choice(row[category]) for row in rows if name not in row and category in row}
    if any(name in row and category not in row for row in rows) or any(choice in without for choice in with_it):
        return ()
    return tuple(with_it)


def _leads_to(category: str, name: str, conditions: Conditions) -> bool:
    """Whether `category` is `name`, or depends on it."""
    for _ in conditions:  # no path without a circle is longer
        if category != name and category in conditions:
            category = conditions[category][0]
    return category == name
