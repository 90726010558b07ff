"""The parameters of a study in terms of a space that is known already, such as that of past studies.

A parameter is shared if both have its name, it is a number in both or a category in both, and it varies in the known
space; ranges, scales, steps and choices may differ. A configuration is then one number per known parameter: its value,
or the index of its choice in the known space, choices which that space lacks being numbered on from its last. It is
NaN where the parameter is missing.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from torch import Tensor

from bo.space.choices import as_choice, same_distribution
from bo.space.conditions import Between, Conditions, Values, is_ruled_out
from bo.space.search_space import SearchSpace

__all__ = ["Configuration", "OwnSpace", "View", "applying_conditions", "differences", "shares", "to_numbers"]

Configuration = tuple[Mapping[str, Any], Mapping[str, BaseDistribution]]  # parameters, and the distribution of each


def shares(known: SearchSpace, name: str, distribution: BaseDistribution) -> bool:
    """Whether what is known of a parameter applies to one of this name and distribution."""
    return known.is_category.get(name) == isinstance(distribution, CategoricalDistribution)


def to_numbers(known: SearchSpace, configurations: Iterable[Configuration]) -> Float[Tensor, "n p"]:
    """One number per parameter of `known`, for configurations of other spaces."""
    places = {name: index for index, name in enumerate(known.names)}
    rows = []
    for params, distributions in configurations:
        row = [math.nan] * len(places)
        for name, value in params.items():
            new: Any = distributions[name]
            if shares(known, name, new):
                number = new.to_internal_repr(value)
                old: Any = known.distributions[name]
                row[places[name]] = _choice_numbers(old, new)[int(number)] if known.is_category[name] else number
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(places))


def applying_conditions(known: SearchSpace, distributions: Mapping[str, BaseDistribution]) -> Conditions:
    """The known conditions among parameters as a study has them; a choice that is not known rules nothing out."""
    found: dict[str, tuple[str, Values]] = {}
    for name, (decider, values) in known.conditions.items():
        old, new = known.distributions[decider], distributions.get(decider)
        if name not in distributions:
            continue
        if isinstance(old, CategoricalDistribution) and isinstance(new, CategoricalDistribution):
            asked = map(as_choice, new.choices)
            found[name] = (decider, tuple(c for c in asked if c in values or c not in old.choices))
        elif isinstance(old, IntDistribution) and isinstance(new, IntDistribution):
            in_both = values if isinstance(values, Between) else tuple(v for v in values if new._contains(v))
            found[name] = (decider, in_both)
    return found


def differences(
    known: SearchSpace, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> tuple[list[str], list[str], list[str]]:
    """How a configuration of a study differs from what is known, by names of parameters.

    Returns:
        Those that are not shared, those that are missing without a condition that says so, and those that are shared
        with another distribution.
    """
    choosable = {name: dist for name, dist in distributions.items() if not dist.single()}
    new = [name for name, dist in choosable.items() if not shares(known, name, dist)]
    missing = [
        name
        for name, dist in known.distributions.items()
        if name not in distributions and not dist.single() and not is_ruled_out(name, known.conditions, params)
    ]
    other = [
        name
        for name, dist in distributions.items()
        if shares(known, name, dist) and not same_distribution(dist, known.distributions[name])
    ]
    return new, missing, other


class OwnSpace(NamedTuple):
    """The rows of a study as points of `View.own`, for methods that ignore the past.

    Args:
        space: ranges and choices as the study has them.
        x: rows that were evaluated `(n, d)`.
        pending: points without an objective `(m, d)`.
    """

    space: SearchSpace
    x: Tensor
    pending: Tensor


@dataclass(frozen=True, eq=False)
class View:
    """The link between the space of a running study and the known space, such as that of past studies.

    A parameter of the known space is *free* if the study searches over it, *fixed* if the study has one value for it,
    and *missing* if the study does not have it. The methods turn points of one space into points of another.

    Args:
        known: the space of the past.
        space: the free parameters, with the ranges and choices of the study; `known` has each of them.
        fixed: one number per parameter of `known`; NaN where it is free or missing.

    Attributes:
        own: the parameters of `known`, of which the free ones have the ranges and choices of the study. Configurations
            that differ in the study differ here too. Methods that ignore the past use this space.
    """

    known: SearchSpace
    space: SearchSpace
    fixed: Float[Tensor, " p"]

    def to_known(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Points of `space` as points of the known space, outside its unit cube where it lacks their values."""
        return x if self._is_known else self.known.encode(self._numbers(x))

    def to_own(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Points of `space` as points of `own`, within its unit cube but for parameters that are fixed elsewhere."""
        return x if self._is_known else self.to_own_from(self._numbers(x))

    def to_own_from(self, numbers: Float[Tensor, "n p"]) -> Float[Tensor, "n k"]:
        """Configurations in terms of the known space as points of `own`."""
        numbers = numbers.clone()
        for column, table in self._choices.items():
            place = self._columns[column]
            number = numbers[:, place]
            same = number[:, None] == table
            # choices that the study lacks are numbered on from its last
            beyond = len(table) + number
            numbers[:, place] = torch.where(same.any(-1), same.double().argmax(-1).to(number), beyond)
        return self.own.encode(numbers)

    def from_own(self, x: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """The nearest points of `space` to points of `own`."""
        return x if self._is_known else self.space.snap(self.space.encode(self.own.decode(x)[:, self._columns]))

    @cached_property
    def own(self) -> SearchSpace:
        if self._is_known:
            return self.known
        distributions = {**self.known.distributions, **self.space.distributions}
        return SearchSpace(distributions, applying_conditions(self.known, distributions))

    def _numbers(self, x: Tensor) -> Float[Tensor, "n p"]:
        """Points of `space` in terms of the known space."""
        numbers = self.fixed.repeat(len(x), 1)
        free = self.space.decode(x)
        for column, table in self._choices.items():
            number = free[:, column]
            free[:, column] = table[number.nan_to_num().long()].where(~number.isnan(), number)
        numbers[:, self._columns] = free
        return numbers

    def from_known(self, numbers: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
        """The nearest points of `space` to configurations in terms of the known space."""
        free = numbers[:, self._columns]
        for column, table in self._choices.items():
            same = free[:, column, None] == table
            free[:, column] = torch.where(same.any(-1), same.double().argmax(-1), math.nan)
        return self.space.snap(self.space.encode(free))

    def from_points(self, x: Float[Tensor, "n k"]) -> Float[Tensor, "n d"]:
        """The nearest points of `space` to points of the known space."""
        return x if self._is_known else self.from_known(self.known.decode(x))

    @cached_property
    def _is_known(self) -> bool:
        if self.space is self.known:
            return True
        return self.space.names == self.known.names and self.space == self.known

    @cached_property
    def _columns(self) -> list[int]:
        """Where the free parameters are among the known ones."""
        return [self.known.names.index(name) for name in self.space.names]

    @cached_property
    def _choices(self) -> dict[int, Tensor]:
        """For each category of `space` the numbers of its choices in the known space."""
        tables = {}
        for column, (name, new) in enumerate(self.space.distributions.items()):
            old = self.known.distributions[name]
            if isinstance(old, CategoricalDistribution) and isinstance(new, CategoricalDistribution):
                tables[column] = torch.tensor(_choice_numbers(old, new), dtype=torch.float64)
        return tables


def _choice_numbers(old: CategoricalDistribution, new: CategoricalDistribution) -> list[float]:
    """The index in `old` of each choice of `new`; those that `old` lacks are numbered on from its last."""
    beyond = count(len(old.choices))
    numbers = []
    for choice in new.choices:
        try:
            numbers.append(float(old.to_internal_repr(as_choice(choice))))
        except ValueError:
            numbers.append(float(next(beyond)))
    return numbers
