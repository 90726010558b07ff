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
import re
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

from bayesmeta.data.bad_rows import BadRow, naming_lines
from bayesmeta.data.csv_tables import not_numbers
from bayesmeta.describe import listed, plural
from bayesmeta.doors import require_count
from bayesmeta.fields import TensorFields
from bayesmeta.warning_kinds import BayesmetaWarning, warn
from bo.space.choices import as_choice, category_of, same_distribution, with_tuples
from bo.space.conditions import (
    Between,
    Conditions,
    Values,
    from_json,
    learn_conditions,
    require_conditions,
    to_json,
)
from bo.space.scalars import Scalars

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["MixedColumnWarning", "SearchSpace"]

Params = Mapping[str, Any]

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
                    found[name] = _widened(name, found.get(name, dist), dist)
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
            return cls._inferred(read_frame(frame), columns)

    @classmethod
    def _inferred(cls, table: Any, columns: Sequence[str]) -> "SearchSpace":
        for name in columns:
            if list(columns).count(name) > 1:
                raise ValueError(f"every parameter must be one column; {name!r} is named more than once")
            if name not in table.columns:
                raise ValueError(f"parameter {name!r} is not a column; the table has {', '.join(table.columns)}")
        entries = {name: table[name].to_list() for name in columns}
        found = {name: _inferred(name, values) for name, values in entries.items()}
        present = [
            {name: value for name, value in zip(columns, row, strict=True) if not _is_missing(value)}
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
            [_internal(name, dist, row[name], i) if name in row else math.nan for i, row in enumerate(rows)]
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
            {name: _external(dist, value) for (name, dist), value in zip(items, row, strict=True) if value == value}
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


def _internal(name: str, dist: BaseDistribution, value: Any, row: int) -> float:
    """The number that stands for a value: itself, the index of a choice, the cell of a single value; NaN if missing."""
    try:
        number = float(dist.to_internal_repr(as_choice(value)))
        valid = dist._contains(number)
    except (ValueError, TypeError):
        number, valid = math.nan, _is_missing(value)
    if not valid:
        raise ValueError(f"{name} of row {row} must be a value of {dist}; got {value!r}")
    return number * 0.0 if dist.single() else number


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA is neither equal nor unequal to anything
        return True


def _external(dist: Any, value: float) -> Any:
    """The inverse of `_internal`, from a cell where there are steps, clipped to the ends that rounding may miss."""
    if isinstance(dist, CategoricalDistribution):
        return dist.choices[int(value)]
    if dist.single():
        return dist.low
    if isinstance(dist, IntDistribution):
        return min(dist.low + int(value) * dist.step, dist.high)
    return min(max(dist.low + value * dist.step if dist.step else value, dist.low), dist.high)


def _widened(name: str, old: Any, new: Any) -> BaseDistribution:
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


def _inferred(name: str, entries: list[Any]) -> BaseDistribution:
    """The distribution of one column of a table."""
    present = [v.item() if hasattr(v, "item") else v for v in entries if not _is_missing(v)]
    kinds = {type(v) for v in present}
    if len(kinds - {int}) > 1 or not kinds <= {bool, int, float, str} or kinds in ({int, bool}, {int, str}):
        got = " and ".join(sorted(k.__name__ for k in kinds))
        raise ValueError(f"parameter {name!r} must hold numbers, or strings, or booleans; got {got}")
    values = sorted(set(present))
    if len(values) < 2:
        what = f"only the value {values[0]!r}" if values else "no value"
        raise ValueError(f"parameter {name!r} must vary over the table; it has {what}. Leave the column out")
    if kinds == {str}:
        _require_choices(name, [None if _is_missing(v) else str(v) for v in entries])
    if kinds <= {bool, str}:
        return CategoricalDistribution(values)
    low, median, high = values[0], sorted(present)[len(present) // 2], values[-1]
    if not (math.isfinite(low) and math.isfinite(high)):
        row = next(i for i, v in enumerate(entries) if not _is_missing(v) and math.isinf(v))
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


def _one_hot(choice: np.ndarray | np.intp, columns: slice) -> np.ndarray:
    return _identity(columns.stop - columns.start)[choice]


@cache
def _identity(n: int) -> np.ndarray:
    return np.eye(n)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy().astype(np.float64, copy=False)


def _like(x: Tensor, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(x)
