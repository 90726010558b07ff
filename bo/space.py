"""A search space as a unit cube: parameters to columns and back, and points that stay valid.

A parameter is scaled to [0, 1], in log terms where its distribution is, and takes one column:

- a float: 0 at `low`, 1 at `high`;
- an integer or a stepped float: half a step is added at both ends, so every value owns a cell of the (log) interval
  and no value is favoured for lying at an end; the value itself is the point that stands for its cell;
- a category of two: 0 or 1; a category of three or more takes one column per choice, one of them 1 and the rest 0;
- a parameter with a single value: 0.5.

A missing parameter (absent, None or NaN) is at 0.5, in the middle, or, if it takes a column per choice, all zeros.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import narwhals as nw
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
from torch import Generator, Tensor

from bayesmeta.fields import TensorFields
from bayesmeta.random import rand, randn

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["SearchSpace"]

Params = Mapping[str, Any]

LOG_SPAN = 10.0  # high / low from which a column of a table may be on a log scale
REACH = 1.0  # how far outside a range a value may lie, in widths of the range, before it counts as nearer
SMALLEST = torch.finfo(torch.float64).tiny  # what a log scale takes for a value of zero or less


@dataclass(frozen=True)
class SearchSpace(TensorFields):
    """Named Optuna distributions, in order, and their encoding as points of the unit cube.

    Args:
        distributions: at least one; floats, integers and categories.
    """

    distributions: Mapping[str, BaseDistribution]

    def __post_init__(self) -> None:
        if not self.distributions:
            raise ValueError("a search space needs at least one parameter; got none")
        known = (FloatDistribution, IntDistribution, CategoricalDistribution)
        for name, dist in self.distributions.items():
            if not isinstance(dist, known):
                raise TypeError(f"parameter {name!r} must be a float, integer or categorical; got {dist!r}")
        object.__setattr__(self, "distributions", dict(self.distributions))

    @classmethod
    def from_studies(cls, studies: Iterable["Study"]) -> "SearchSpace":
        """Every parameter that a trial of one of the studies had; ranges and choices are widened to hold all.

        Raises:
            ValueError: no trial has parameters, or two trials disagree on what kind of thing a parameter is.
        """
        found: dict[str, BaseDistribution] = {}
        for study in studies:
            for trial in study.get_trials(deepcopy=False):
                for name, dist in trial.distributions.items():
                    found[name] = _widened(name, found.get(name, dist), dist)
        if not found:
            raise ValueError("no trial of the studies has parameters; give at least one study with a finished trial")
        return cls(found)

    @classmethod
    def infer(cls, frame: Any, columns: Sequence[str]) -> "SearchSpace":
        """The space that the values of a table span: a guess, to be replaced by `SearchSpace(...)` where it is wrong.

        Whole numbers become integers (also in a float column with missing entries, which is how pandas keeps them),
        other numbers floats, strings and booleans categories. Numbers are on a log scale if they are positive, span
        a decade, and their median is nearer to the middle in log terms. Ranges end at the values seen.

        Args:
            frame: any dataframe that narwhals knows, one row per configuration.
            columns: the parameters; entries may be missing.

        Raises:
            ValueError: a column is named twice, not in the table, constant, empty, infinite or of another type.
        """
        table = nw.from_native(frame, eager_only=True)
        for name in columns:
            if list(columns).count(name) > 1:
                raise ValueError(f"every parameter must be one column; {name!r} is named more than once")
            if name not in table.columns:
                raise ValueError(f"parameter {name!r} is not a column; the table has {', '.join(table.columns)}")
        return cls({name: _inferred(name, table[name].to_list()) for name in columns})

    def state_dict(self) -> dict[str, Any]:
        each = {name: json.loads(distribution_to_json(dist)) for name, dist in self.distributions.items()}
        return {"distributions": json.dumps(each)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "SearchSpace":
        each = json.loads(state["distributions"])
        return cls({name: json_to_distribution(json.dumps(dist)) for name, dist in each.items()})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.distributions)

    @property
    def num_columns(self) -> int:
        """Width d of an encoded point."""
        return sum(map(_width, self.distributions.values()))

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

        What this space does not have lies outside the cube: values beyond a range, up to one width of it, and choices
        numbered on from the last, which point away from the others.
        """
        x = numbers.new_empty(len(numbers), self.num_columns)
        x[:, self._scalars.columns] = self._scalars.encode(numbers[:, self._scalars.params])
        for index, columns in self._one_hots:
            choice, width = numbers[:, index, None], columns.stop - columns.start
            choices = torch.arange(width)
            x[:, columns] = (choice == choices).to(x) - ((choice >= width) & (choice % width == choices)).to(x)
        return x

    def decode(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        """The numbers of the nearest valid configurations: the inverse of `encode` inside the cube."""
        self._require_width(x)
        numbers = x.new_empty(len(x), len(self.distributions), dtype=torch.float64)
        numbers[:, self._scalars.params] = self._scalars.number(x[:, self._scalars.columns].double())
        for index, columns in self._one_hots:
            numbers[:, index] = x[:, columns].argmax(-1).double()
        return numbers

    def from_unit(self, x: Float[Tensor, "n d"]) -> list[dict[str, Any]]:
        """The nearest valid configurations: the inverse of `to_unit` for complete configurations."""
        self._require_width(x)
        scalars = self._scalars.decode(x[:, self._scalars.columns].double())
        values = x.new_empty(len(x), len(self.distributions), dtype=torch.float64)
        values[:, self._scalars.params] = scalars
        for index, columns in self._one_hots:
            values[:, index] = x[:, columns].argmax(-1).double()
        items = list(self.distributions.items())
        return [
            {name: _external(dist, value) for (name, dist), value in zip(items, row, strict=True)}
            for row in values.tolist()
        ]

    def snap(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """The nearest valid points: steps rounded, one category picked, the rest clipped to [0, 1]."""
        self._require_width(x)
        out = torch.empty_like(x)
        scalars = self._scalars
        out[..., scalars.columns] = scalars.snap(x[..., scalars.columns].double()).to(x)
        for _, columns in self._one_hots:
            out[..., columns] = _one_hot(x[..., columns].argmax(-1), columns, x)
        return out

    def quantile(self, uniform: Float[Tensor, "n p"]) -> Float[Tensor, "n d"]:
        """Valid points from one number in [0, 1] per parameter, so that uniform numbers give uniform points."""
        x = uniform.new_empty(len(uniform), self.num_columns)
        x[:, self._scalars.columns] = self._scalars.snap(uniform[:, self._scalars.params].double()).to(x)
        for index, columns in self._one_hots:
            width = columns.stop - columns.start
            x[:, columns] = _one_hot((uniform[:, index] * width).long().clamp(max=width - 1), columns, x)
        return x

    def sobol(self, n: int, *, generator: Generator | None = None) -> Float[Tensor, "n d"]:
        """Valid scrambled Sobol points, one dimension per parameter; float64."""
        seed = int(torch.randint(2**31, (), generator=generator))
        engine = torch.quasirandom.SobolEngine(len(self.distributions), scramble=True, seed=seed)
        return self.quantile(engine.draw(n, dtype=torch.float64))

    def neighbours(
        self, x: Float[Tensor, "*n d"], num: int, scale: float = 0.1, *, generator: Generator | None = None
    ) -> Tensor:
        """Valid points near valid points `x`: `(*n, num, d)`.

        A number changes with probability 1/2, a category with one over the count of parameters, and at least one
        parameter changes. Numbers move by a normal step of standard deviation `scale` (clipped to [0, 1]), and steps
        of integers by at least one value.
        """
        self._require_width(x)
        scalars = self._scalars
        out = x[..., None, :].repeat(*[1] * (x.ndim - 1), num, 1)
        chance, free = self._chance_of_change
        change = rand((*out.shape[:-1], len(chance)), like=chance, generator=generator) < chance
        if len(free):
            forced = torch.randint(len(free), change.shape[:-1], generator=generator)
            change.scatter_(-1, free[forced][..., None], True)
        old = out[..., scalars.columns].double()
        step = scale * randn(old.shape, like=old, generator=generator)
        out[..., scalars.columns] = torch.where(change[..., scalars.params], scalars.moved(old, step), old).to(x)
        for index, columns in self._one_hots:
            width = columns.stop - columns.start
            choice = out[..., columns].argmax(-1)
            other = (choice + torch.randint(1, width, choice.shape, generator=generator)) % width
            out[..., columns] = _one_hot(torch.where(change[..., index], other, choice), columns, x)
        return out

    def _require_width(self, x: Tensor) -> None:
        if x.shape[-1] != self.num_columns:
            raise ValueError(f"x must have {self.num_columns} columns, as in slices(); got shape {tuple(x.shape)}")

    @cached_property
    def _scalars(self) -> "_Scalars":
        slices = self.slices()
        each = [
            (index, slices[name].start, *_scale(dist))
            for index, (name, dist) in enumerate(self.distributions.items())
            if _width(dist) == 1
        ]
        params, columns, log, edge, span, low, step, last = zip(*each, strict=True) if each else [()] * 8
        numbers = (torch.tensor(v, dtype=torch.float64) for v in (edge, span, low, step, last))
        return _Scalars(_index(params), _index(columns), torch.tensor(log, dtype=torch.bool), *numbers)

    @cached_property
    def _one_hots(self) -> list[tuple[int, slice]]:
        """Index and columns of each parameter with a column per choice."""
        slices = self.slices().values()
        return [(i, s) for i, s in enumerate(slices) if s.stop - s.start > 1]

    @cached_property
    def _chance_of_change(self) -> tuple[Tensor, Tensor]:
        """For each parameter the chance that a neighbour differs in it, and which parameters can differ at all."""
        dists = self.distributions.values()
        rare = 1.0 / len(self.distributions)
        chance = [0.0 if d.single() else rare if isinstance(d, CategoricalDistribution) else 0.5 for d in dists]
        return torch.tensor(chance, dtype=torch.float64), _index([i for i, c in enumerate(chance) if c])


@dataclass(frozen=True, eq=False)
class _Scalars:
    """The m parameters of one column each; a value v sits at (t(v) - edge) / span, t being log where `log`.

    `step` is 0 for floats. Otherwise the values are low + step * cell for cells 0 to `last`.
    """

    params: Tensor
    columns: Tensor
    log: Tensor
    edge: Tensor
    span: Tensor
    low: Tensor
    step: Tensor
    last: Tensor

    def encode(self, value: Tensor) -> Tensor:
        """Values `(..., m)`, NaN where missing, to the unit interval and what is next to it."""
        unit = (self._scaled(value) - self.edge) / self.span
        return torch.where(value.isnan(), 0.5, unit.clamp(-REACH, 1.0 + REACH))

    def decode(self, unit: Tensor) -> Tensor:
        """Valid values; those of a step are given as cells, which are exact."""
        return torch.where(self.step > 0, self._cell(unit), self._value(unit))

    def number(self, unit: Tensor) -> Tensor:
        """Valid values, those of a step as well."""
        return torch.where(self.step > 0, self.low + self._cell(unit) * self.step, self._value(unit))

    def snap(self, unit: Tensor) -> Tensor:
        return torch.where(self.step > 0, self._centre(self._cell(unit)), unit.clamp(0.0, 1.0))

    def moved(self, unit: Tensor, by: Tensor) -> Tensor:
        """Valid units after a move, of at least one cell where there are cells."""
        old, new = self._cell(unit), self._cell(unit + by)
        direction = torch.where(by < 0, -1.0, 1.0)
        beside = old + direction
        beside = torch.where((beside < 0) | (beside > self.last), old - direction, beside)
        cell = torch.where(new == old, beside, new).clamp(min=0.0).minimum(self.last)
        return torch.where(self.step > 0, self._centre(cell), (unit + by).clamp(0.0, 1.0))

    def _value(self, unit: Tensor) -> Tensor:
        scaled = self.edge + unit.clamp(0.0, 1.0) * self.span
        return torch.where(self.log, scaled.exp(), scaled)

    def _cell(self, unit: Tensor) -> Tensor:
        return ((self._value(unit) - self.low) / self.step).round().clamp(min=0.0).minimum(self.last)

    def _centre(self, cell: Tensor) -> Tensor:
        return (self._scaled(self.low + cell * self.step) - self.edge) / self.span

    def _scaled(self, value: Tensor) -> Tensor:
        return torch.where(self.log, value.clamp(min=SMALLEST).log(), value)


def _width(dist: BaseDistribution) -> int:
    num_choices = len(dist.choices) if isinstance(dist, CategoricalDistribution) else 0
    return num_choices if num_choices > 2 else 1


def _scale(dist: Any) -> tuple[bool, float, float, float, float, float]:
    """The fields of `_Scalars` from `log` on, for one parameter."""
    if dist.single():
        return False, -0.5, 1.0, 0.0, 1.0, 0.0
    if isinstance(dist, CategoricalDistribution):
        return False, 0.0, 1.0, 0.0, 1.0, 1.0
    step = dist.step or 0
    low, high = dist.low - step / 2, dist.high + step / 2
    last = round((dist.high - dist.low) / step) if step else 0
    if dist.log:
        low, high = math.log(low), math.log(high)
    return dist.log, low, high - low, float(dist.low), float(step), float(last)


def _internal(name: str, dist: BaseDistribution, value: Any, row: int) -> float:
    """The number that stands for a value: itself, the index of a choice, the cell of a single value; NaN if missing."""
    try:
        number = float(dist.to_internal_repr(value))
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
    if old == new:
        return old
    if type(old) is not type(new):
        raise ValueError(f"trials disagree on parameter {name!r}: {old} and {new}; rename it in one of the studies")
    if isinstance(old, CategoricalDistribution):
        return CategoricalDistribution(old.choices + tuple(c for c in new.choices if c not in old.choices))
    step = 1 if isinstance(old, IntDistribution) else None
    if old.step == new.step and old.step:
        shift = (new.low - old.low) / old.step
        step = old.step if abs(shift - round(shift)) < 1e-8 else step
    return type(old)(min(old.low, new.low), max(old.high, new.high), log=old.log and new.log, step=step)


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
    if kinds <= {bool, str}:
        return CategoricalDistribution(values)
    low, median, high = values[0], sorted(present)[len(present) // 2], values[-1]
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"parameter {name!r} must be finite; its values span {low} to {high}")
    log = low > 0 and high >= LOG_SPAN * low
    if log:
        log = _off_centre([math.log(v) for v in (low, median, high)]) < _off_centre([low, median, high])
    has_gaps = len(present) < len(entries)
    if all(isinstance(v, int) or (has_gaps and v.is_integer()) for v in values):
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


def _off_centre(ends: list[Any]) -> float:
    low, middle, high = ends
    return abs((middle - low) / (high - low) - 0.5)


def _one_hot(choice: Tensor, columns: slice, like: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(choice, columns.stop - columns.start).to(like)


def _index(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long)
