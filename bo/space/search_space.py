"""A search space as a unit cube: parameters to columns and back, and points that stay valid.

A parameter is scaled to [0, 1], in log terms where its distribution is, and takes one column:

- a float: 0 at `low`, 1 at `high`;
- an integer or a stepped float: half a step is added at both ends, so every value owns a cell of the (log) interval
  and no value is favoured for lying at an end; the value itself is the point that stands for its cell;
- a category of two: 0 or 1; a category of three or more takes one column per choice, one of them 1 and the rest 0;
- a parameter with a single value: 0.5.

A missing parameter (absent, None or NaN) is at 0.5, in the middle, or, if it takes a column per choice, all zeros. No
valid point has a parameter anywhere else where a condition says that it is missing.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import TrialState
from torch import Generator, Tensor

from bayesmeta.data.csv_tables import naming_lines
from bayesmeta.describe import listed, plural
from bayesmeta.doors import require_count
from bayesmeta.fields import TensorFields
from bo.space.choices import as_choice, with_tuples
from bo.space.conditions import (
    Between,
    Conditions,
    Values,
    from_json,
    learn_conditions,
    require_conditions,
    to_json,
)
from bo.space.inference import inferred, is_missing, widened
from bo.space.numbers import number_of, value_of
from bo.space.scalars import Scalars

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["SearchSpace"]

Params = Mapping[str, Any]


@dataclass(frozen=True)
class SearchSpace(TensorFields):
    """Named Optuna distributions, in order, and their encoding as points of the unit cube.

    Args:
        distributions: at least one; floats, integers and categories.
        conditions: for parameters that are there only with some values of a category or a whole number, that one's
            name and these values: `{"degree": ("kernel", ("poly",)), "units2": ("layers", Between(2))}`.

    Raises:
        TypeError: a distribution is of another kind.
        ValueError: there is no distribution, or a condition is not on values of a category or a whole number of
            this space.
    """

    distributions: Mapping[str, BaseDistribution]
    conditions: Conditions = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.distributions:
            raise ValueError("a search space needs at least one parameter; got none")
        known = (FloatDistribution, IntDistribution, CategoricalDistribution)
        for name, dist in self.distributions.items():
            if not isinstance(dist, known):
                raise TypeError(f"parameter {name!r} must be a float, integer or categorical; got {dist!r}")
        distributions = {name: with_tuples(dist) for name, dist in self.distributions.items()}
        conditions = {name: (decider, as_choice(values)) for name, (decider, values) in self.conditions.items()}
        require_conditions(conditions, distributions)
        object.__setattr__(self, "distributions", distributions)
        object.__setattr__(self, "conditions", conditions)

    def _title(self) -> str:
        return f"of {plural(len(self.distributions), 'parameter')}: {listed(self.names)}"

    def _parts(self) -> dict[str, Any]:
        return {name: self._in_words(name) for name in self.distributions}

    def _in_words(self, name: str) -> str:
        distribution: Any = self.distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            text = f"one of {listed(distribution.choices)}"
        else:
            kind = "whole, " if isinstance(distribution, IntDistribution) else ""
            text = f"{kind}{distribution.low:.4g} to {distribution.high:.4g}{', log scale' if distribution.log else ''}"
        if name in self.conditions:
            decider, values = self.conditions[name]
            text += f", where {decider} is {values if isinstance(values, Between) else ' or '.join(map(str, values))}"
        return text

    @classmethod
    def from_studies(cls, studies: Iterable["Study"]) -> "SearchSpace":
        """Every parameter that a trial of one of the studies had; ranges and choices are widened to hold all.

        A parameter that completed trials had with some choices of a category and never with others, or within a range
        of a whole number and never outside, is conditional.

        Raises:
            ValueError: no trial has parameters, or two trials disagree on what kind of thing a parameter is.
        """
        found: dict[str, BaseDistribution] = {}
        configurations: list[Params] = []
        for study in studies:
            for trial in study.get_trials(deepcopy=False):
                for name, dist in trial.distributions.items():
                    found[name] = widened(name, found.get(name, dist), dist)
                if trial.state == TrialState.COMPLETE and trial.params:
                    configurations.append(trial.params)
        if not found:
            raise ValueError("no trial of the studies has parameters; give at least one study with a finished trial")
        return cls(found, learn_conditions(configurations, found))

    @classmethod
    def infer(cls, frame: Any, columns: Sequence[str]) -> "SearchSpace":
        """The space that the values of a table span: a guess, to be replaced by `SearchSpace(...)` where it is wrong.

        Whole numbers become integers (also in a float column with missing entries, which is how pandas keeps them),
        other numbers floats, strings and booleans categories. Numbers are on a log scale if they are positive, span
        a decade, and their median is nearer to the middle in log terms. Ranges end at the values seen. A parameter that
        is there with some choices of a category, or within a range of a whole number, and missing elsewhere is
        conditional.

        Args:
            frame: any dataframe that narwhals knows, or the path of a file, one row per configuration.
            columns: the parameters; entries may be missing.

        Raises:
            TypeError: `frame` is no table, or a column has no string for a name.
            ValueError: a column is named twice, not in the table, constant, empty, infinite or of another type.
        """
        from bayesmeta.data.tables import read_frame

        with naming_lines(frame):
            return cls.inferred(read_frame(frame), columns)

    @classmethod
    def inferred(cls, table: Any, columns: Sequence[str]) -> "SearchSpace":
        for name in columns:
            if list(columns).count(name) > 1:
                raise ValueError(f"every parameter must be one column; {name!r} is named more than once")
            if name not in table.columns:
                raise ValueError(f"parameter {name!r} is not a column; the table has {', '.join(table.columns)}")
        entries = {name: table[name].to_list() for name in columns}
        found = {name: inferred(name, values) for name, values in entries.items()}
        present = [
            {name: value for name, value in zip(columns, row, strict=True) if not is_missing(value)}
            for row in zip(*entries.values(), strict=True)
        ]
        return cls(found, learn_conditions(present, found))

    def state_dict(self) -> dict[str, Any]:
        each = {name: json.loads(distribution_to_json(dist)) for name, dist in self.distributions.items()}
        return {"distributions": json.dumps(each), "conditions": json.dumps(to_json(self.conditions))}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "SearchSpace":
        each = json.loads(state["distributions"])
        conditions = json.loads(state.get("conditions", "{}"))  # which files written before there were any lack
        return cls(
            {name: json_to_distribution(json.dumps(dist)) for name, dist in each.items()},
            from_json(conditions),
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.distributions)

    @cached_property
    def num_columns(self) -> int:
        """Width d of an encoded point."""
        return sum(map(_width, self.distributions.values()))

    @cached_property
    def is_category(self) -> dict[str, bool]:
        """For each parameter with several values, whether it is a category."""
        items = self.distributions.items()
        return {name: isinstance(dist, CategoricalDistribution) for name, dist in items if not dist.single()}

    def slices(self) -> dict[str, slice]:
        """The columns of each parameter."""
        slices, start = {}, 0
        for name, dist in self.distributions.items():
            slices[name] = slice(start, start + _width(dist))
            start += _width(dist)
        return slices

    def contains(self, params: Params) -> bool:
        """Whether `to_unit` accepts `params`: each parameter is missing or a value of its distribution."""
        try:
            self.to_unit([params])
        except ValueError:
            return False
        return True

    def to_unit(self, params: Iterable[Params]) -> Float[Tensor, "n d"]:
        """Encode configurations, in float64. Names that are not of this space are ignored.

        Raises:
            ValueError: a value is not of its distribution; the message names row and parameter.
        """
        rows = list(params)
        columns = [
            [number_of(name, dist, row[name], i) if name in row else math.nan for i, row in enumerate(rows)]
            for name, dist in self.distributions.items()
        ]
        numbers = torch.tensor(columns, dtype=torch.float64).reshape(len(columns), len(rows)).mT
        return self.encode(numbers).clamp(0.0, 1.0)

    def encode(self, numbers: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
        """Encode one number per parameter: its value, the index of its choice (0 if single), NaN where it is missing.

        What this space does not have lies outside the cube: values beyond a range, and choices numbered on from the
        last, which point away from the others. What differs lies apart.
        """
        values = _array(numbers)
        x = np.zeros((len(values), self.num_columns))
        x[:, self._columns] = self._scalars.encode(values[:, self._params])
        for index, columns in self._one_hots:
            choice, width = values[:, index, None], columns.stop - columns.start
            x[:, columns] = choice == np.arange(width)
            with np.errstate(invalid="ignore"):
                x[:, columns] -= np.where(choice % width == np.arange(width), choice // width, 0.0)
        return _like(numbers, x)

    def decode(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        """The numbers of the nearest valid configurations: the inverse of `encode` inside the cube."""
        return _like(x, self._numbers(self._points(x), self._scalars.decode))

    def from_unit(self, x: Float[Tensor, "n d"]) -> list[dict[str, Any]]:
        """The nearest valid configurations: the inverse of `to_unit` for valid points."""
        items = list(self.distributions.items())
        return [
            {name: value_of(dist, value) for (name, dist), value in zip(items, row, strict=True) if value == value}
            for row in self._numbers(self._points(x), self._scalars.cells).tolist()
        ]

    def snap(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """The nearest valid points: steps rounded, one category picked, the rest clipped to [0, 1]."""
        points = self._points(x)
        out = np.empty_like(points)
        out[..., self._columns] = self._scalars.snap(points[..., self._columns])
        for _, columns in self._one_hots:
            out[..., columns] = _one_hot(points[..., columns].argmax(-1), columns)
        return _like(x, self._without_inactive(out))

    def quantile(self, uniform: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
        """Valid points from one number in [0, 1] per parameter, so that uniform numbers give uniform points."""
        return _like(uniform, self._without_inactive(self._anywhere(_array(uniform))))

    def sobol(self, n: int, *, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        """Valid scrambled Sobol points, one dimension per parameter; float64."""
        n = require_count("n", n)
        seed = int(torch.randint(2**31, (), generator=generator))
        engine = torch.quasirandom.SobolEngine(len(self.distributions), scramble=True, seed=seed)
        return self.quantile(engine.draw(n, dtype=torch.float64))

    def neighbours(
        self, x: Float[Tensor, "*n d"], num: int, scale: float = 0.1, *, generator: Generator | None = None
    ) -> Tensor:
        """Valid points near valid points `x`: `(*n, num, d)`.

        A number changes with probability 1/2, a category with one over the count of parameters, and at least one
        parameter changes. Numbers move by a normal step of standard deviation `scale` (clipped to [0, 1]), and steps
        of integers by at least one value. Parameters that are there by the change of a category may be anywhere.
        """
        points = self._points(x)
        shape = (*points.shape[:-1], num, len(self.distributions))
        uniform = torch.rand(2, *shape, dtype=torch.float64, generator=generator).numpy()
        normal = torch.randn(shape, dtype=torch.float64, generator=generator).numpy()
        old = np.repeat(points[..., None, :], num, -2)
        change = self._changes(old, uniform)
        out = old.copy()
        units = old[..., self._columns]
        moved = self._scalars.moved(units, scale * normal[..., self._params])
        out[..., self._columns] = np.where(change[..., self._params], moved, units)
        for index, columns in self._one_hots:
            width, choice = columns.stop - columns.start, old[..., columns].argmax(-1)
            other = (choice + 1 + (uniform[1, ..., index] * (width - 1)).astype(np.intp)) % width
            out[..., columns] = _one_hot(np.where(change[..., index], other, choice), columns)
        if self.conditions:
            appears = (self._active(out) & ~self._active(old))[..., self._param_of_column]
            out = self._without_inactive(np.where(appears, self._anywhere(uniform[1]), out))
        return _like(x, out)

    def _changes(self, x: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Which parameters of which points change, by two uniform numbers each: one or more that are there."""
        chance = self._chance_of_change
        can_change = chance > 0
        if self.conditions:
            can_change = can_change & self._active(x)
        forced = (uniform[1] * can_change).argmax(-1)[..., None]
        return can_change & ((uniform[0] < chance) | (np.arange(len(chance)) == forced))

    def _numbers(self, x: np.ndarray, decode: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """One number per parameter, NaN where it is not there; scalars by `decode`."""
        numbers = np.empty((len(x), len(self.distributions)))
        numbers[:, self._params] = decode(x[:, self._columns])
        for index, columns in self._one_hots:
            numbers[:, index] = x[:, columns].argmax(-1)
        return np.where(self._active(x), numbers, np.nan) if self.conditions else numbers

    def _anywhere(self, uniform: np.ndarray) -> np.ndarray:
        """Points from one number in [0, 1] per parameter, conditions aside."""
        x = np.empty((*uniform.shape[:-1], self.num_columns))
        x[..., self._columns] = self._scalars.snap(uniform[..., self._params])
        for index, columns in self._one_hots:
            width = columns.stop - columns.start
            choice = (uniform[..., index] * width).astype(np.intp).clip(max=width - 1)
            x[..., columns] = _one_hot(choice, columns)
        return x

    def _active(self, x: np.ndarray) -> np.ndarray:
        """Which parameters are there by the conditions, `(*n, p)`."""
        active = np.ones((*x.shape[:-1], len(self.distributions)), dtype=bool)
        for index, decider, is_met in self._rules:
            active[..., index] = active[..., decider] & is_met(x[..., self._slices[decider]])
        return active

    def _without_inactive(self, x: np.ndarray) -> np.ndarray:
        """The same points with parameters that are not there in the place of missing ones."""
        if not self.conditions:
            return x
        return np.where(self._active(x)[..., self._param_of_column], x, self._missing)

    def _points(self, x: Tensor) -> np.ndarray:
        if x.shape[-1] != self.num_columns:
            raise ValueError(f"x must have {self.num_columns} columns, as in slices(); got shape {tuple(x.shape)}")
        return _array(x)

    @cached_property
    def _slices(self) -> list[slice]:
        return list(self.slices().values())

    @cached_property
    def _params(self) -> np.ndarray:
        """The index of each parameter of one column; `_columns` has its column."""
        return np.array([i for i, columns in enumerate(self._slices) if columns.stop - columns.start == 1], np.intp)

    @cached_property
    def _columns(self) -> np.ndarray:
        return np.array([self._slices[index].start for index in self._params], np.intp)

    @cached_property
    def _scalars(self) -> Scalars:
        distributions = list(self.distributions.values())
        return Scalars.of([distributions[index] for index in self._params])

    @cached_property
    def _one_hots(self) -> list[tuple[int, slice]]:
        """Index and columns of each parameter with a column per choice."""
        return [(index, columns) for index, columns in enumerate(self._slices) if columns.stop - columns.start > 1]

    @cached_property
    def _param_of_column(self) -> np.ndarray:
        return np.repeat(np.arange(len(self._slices)), [columns.stop - columns.start for columns in self._slices])

    @cached_property
    def _missing(self) -> np.ndarray:
        """The columns of a point without any parameter."""
        return np.where(np.isin(np.arange(self.num_columns), self._columns), 0.5, 0.0)

    @cached_property
    def _rules(self) -> list[tuple[int, int, Callable[[np.ndarray], np.ndarray]]]:
        """For each conditional parameter what decides, and whether its columns say so; what decides comes first."""
        names = list(self.distributions)
        rules = []
        for name in sorted(self.conditions, key=self._depth):
            decider, values = self.conditions[name]
            rules.append((names.index(name), names.index(decider), _is_met(self.distributions[decider], values)))
        return rules

    def _depth(self, name: str) -> int:
        return 1 + self._depth(self.conditions[name][0]) if name in self.conditions else 0

    @cached_property
    def _chance_of_change(self) -> np.ndarray:
        """For each parameter the chance that a neighbour differs in it, 0 where there is one value alone."""
        dists = self.distributions.values()
        rare = 1.0 / len(self.distributions)
        return np.array([0.0 if d.single() else rare if isinstance(d, CategoricalDistribution) else 0.5 for d in dists])


def _is_met(dist: Any, values: Values) -> Callable[[np.ndarray], np.ndarray]:
    """Whether a parameter's columns `(*n, width)` have one of the values, `(*n,)`."""
    if isinstance(dist, CategoricalDistribution):
        allowed = np.array([choice in values for choice in dist.choices])
        return lambda x: allowed[x.argmax(-1) if x.shape[-1] > 1 else (x[..., 0] > 0.5).astype(np.intp)]
    if dist.single():
        return lambda x: np.full(x.shape[:-1], dist.low in values)
    scalar = Scalars.of([dist])
    if isinstance(values, Between):
        return lambda x: ((number := scalar.decode(x)[..., 0]) >= values.low) & (number <= values.high)
    return lambda x: np.isin(scalar.decode(x)[..., 0], values)


def _width(dist: BaseDistribution) -> int:
    num_choices = len(dist.choices) if isinstance(dist, CategoricalDistribution) else 0
    return num_choices if num_choices > 2 else 1


def _one_hot(choice: np.ndarray | np.intp, columns: slice) -> np.ndarray:
    return _identity(columns.stop - columns.start)[choice]


@cache
def _identity(n: int) -> np.ndarray:
    return np.eye(n)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy().astype(np.float64, copy=False)


def _like(x: Tensor, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(x)
