"""Choices of categories as one thing, whatever a storage made of them.

Optuna keeps choices as JSON, which knows no tuples: `(50, 50)` comes back from a database as `[50, 50]`. Lists cannot
be hashed, and are not equal to the tuples that they were. So all choices are compared as tuples.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

__all__ = ["as_choice", "as_given", "category_of", "same_distribution", "with_tuples"]


def as_choice(value: Any) -> Any:
    """The same with tuples for lists, at any depth."""
    return tuple(map(as_choice, value)) if isinstance(value, list | tuple) else value


def with_tuples(distribution: BaseDistribution) -> BaseDistribution:
    """The same distribution, with tuples for lists among the choices of a category."""
    if not isinstance(distribution, CategoricalDistribution):
        return distribution
    choices: Any = as_choice(distribution.choices)
    if all(new is old or type(new) is type(old) for new, old in zip(choices, distribution.choices, strict=True)):
        return distribution
    return category_of(choices)


def category_of(choices: Sequence[Any]) -> CategoricalDistribution:
    """A distribution without Optuna's warning of tuples, which it gave when the study was made."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Choices for a categorical distribution")
        return CategoricalDistribution(choices)


def as_given(distribution: BaseDistribution, value: Any) -> Any:
    """A value as the distribution has it: the choice that is equal to it."""
    if not isinstance(distribution, CategoricalDistribution) or not isinstance(value, tuple):
        return value
    return next((choice for choice in distribution.choices if as_choice(choice) == value), value)


def same_distribution(one: BaseDistribution, other: BaseDistribution) -> bool:
    """Whether two are equal, lists and tuples aside."""
    return one == other or with_tuples(one) == with_tuples(other)
