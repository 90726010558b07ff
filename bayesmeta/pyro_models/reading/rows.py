"""What a Pyro model is given: its arguments by name for many data sets, and which of their rows are real."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.fields import TensorFields

__all__ = ["Given", "arguments", "as_given", "with_rows"]

MASK = "mask"  # key of a mapping that says which rows are real


@dataclass(frozen=True, eq=False)
class Given(TensorFields):
    """Arguments of a model for T data sets.

    Args:
        tensors: by name, data sets first. Floating-point ones are float64.
        mask: which rows are real.
        with_rows: the names of those whose second axis is the rows.
        alone: whether they came as one data set, without an axis of data sets.
    """

    tensors: dict[str, Tensor]
    mask: Bool[Tensor, "T n"]
    with_rows: tuple[str, ...]
    alone: bool = False

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size() if self.alone else torch.Size((self.num_tasks,))

    @property
    def num_tasks(self) -> int:
        return len(self.mask)

    @property
    def is_ragged(self) -> bool:
        return not bool(self.mask.all())

    def __getitem__(self, index: Any) -> "Given":
        """Some of the data sets."""
        return self._some(index) if not isinstance(index, int) else replace(self._some([index]), alone=True)

    def _some(self, index: Any) -> "Given":
        return self._replace(
            tensors={name: value[index] for name, value in self.tensors.items()}, mask=self.mask[index], alone=False
        )

    def __add__(self, other: "Given") -> "Given":
        """The rows of both; what is not by row is that of `self`.

        Raises:
            ValueError: the data sets are not the same, or nothing is by row.
        """
        if not self.with_rows:
            raise ValueError("rows cannot be added: the model has no data plate. Condition once, on all there is")
        if self.num_tasks != other.num_tasks:
            few, many = sorted((self, other), key=lambda given: given.num_tasks)
            if few.num_tasks != 1:
                raise ValueError(
                    f"both sides must have the same data sets, or one of them one; got {few.num_tasks} and "
                    f"{many.num_tasks}"
                )
            again = [0] * many.num_tasks
            return self._some(again) + other if few is self else self + other._some(again)
        tensors = {
            name: torch.cat([value, other.tensors[name]], 1) if name in self.with_rows else value
            for name, value in self.tensors.items()
        }
        return Given(tensors, torch.cat([self.mask, other.mask], 1), self.with_rows, self.alone and other.alone)

    def filled(self) -> "Given":
        """The same, with padded rows that repeat a real one: arithmetic on them is no worse than on real ones."""
        if not self.is_ragged or not bool(self.mask.any()):
            return self
        has_rows = self.mask.any(1)
        first = self.mask.to(torch.int8).argmax(1)
        task = torch.where(has_rows, torch.arange(self.num_tasks), int(has_rows.to(torch.int8).argmax()))
        first = first[task]

        def fill(value: Tensor) -> Tensor:
            mask = self.mask.reshape(*self.mask.shape, *[1] * (value.ndim - 2))
            return torch.where(mask, value, value[task, first][:, None])

        return self._replace(
            tensors={name: fill(value) if name in self.with_rows else value for name, value in self.tensors.items()}
        )

    def one(self, task: int = 0) -> dict[str, Tensor]:
        """The tensors of one data set."""
        return {name: value[task] for name, value in self.tensors.items()}


def arguments(model: Any) -> tuple[str, ...]:
    """Names of the arguments of a model; empty where it takes whatever it is given."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(model).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return ()
    return tuple(parameter.name for parameter in parameters if parameter.kind in kinds)


def as_given(model: Any, data: Any) -> tuple[dict[str, Tensor], Tensor | None, bool]:
    """Tensors by name with data sets first, the mask where there is one, and whether it was one data set.

    Args:
        data: `Data` for a model with arguments `x` and `y`, or `y` alone; else a mapping of tensors with data sets
            first, with which rows are real under "mask", or a sequence of mappings, one for each data set.

    Raises:
        TypeError: it is none of these.
        ValueError: tensors differ in their number of data sets, or the model has no such arguments.
    """
    tensors, mask, alone = _read(model, data)
    if not len(next(iter(tensors.values()))):
        raise ValueError("data must hold at least one data set; got none")
    return *_with_a_row(tensors, mask), alone


def _read(model: Any, data: Any) -> tuple[dict[str, Tensor], Tensor | None, bool]:
    names = arguments(model)
    if isinstance(data, Data):
        if names and "y" not in names:
            raise ValueError(f"Data has x and y, and the model takes {', '.join(names)}: give a mapping of these")
        tensors = {"y": data.y} if names and "x" not in names else {"x": data.x, "y": data.y}
        shape = data.batch_shape
        if len(shape) > 1:
            raise ValueError(f"data sets must be on one axis; got batch_shape {tuple(shape)}")
        if not shape:
            return {name: _number(value)[None] for name, value in tensors.items()}, data.mask[None], True
        return {name: _number(value) for name, value in tensors.items()}, data.mask, False
    if isinstance(data, Mapping):
        tensors = {name: _number(torch.as_tensor(value)) for name, value in data.items() if name != MASK}
        mask = torch.as_tensor(data[MASK]).bool() if MASK in data else None
        _require_one_number(tensors if mask is None else {**tensors, MASK: mask})
    elif isinstance(data, Sequence) and data and all(isinstance(item, Mapping) for item in data):
        tensors, mask = _padded(data)
    else:
        kind = type(data).__name__
        raise TypeError(f"a Pyro model needs Data, a mapping of tensors, or a list of mappings; got {kind}")
    unknown = [name for name in tensors if names and name not in names]
    if unknown:
        raise ValueError(f"the model has no argument {unknown[0]!r}; it takes {', '.join(names)}")
    return tensors, mask, False


def with_rows(tensors: dict[str, Tensor], mask: Tensor | None, size: int | None, alone: bool) -> Given:
    """Tensors, those told apart that have a row for each index of the data plate.

    Args:
        mask: which rows are real; None where all are.
        size: of the data plate, None where the model has none.

    Raises:
        ValueError: a mask has no plate, or has other rows than it.
    """
    tasks = len(next(iter(tensors.values())))
    if size is None:
        if mask is not None and not bool(mask.all()):
            raise ValueError(
                "data sets of different lengths need a data plate: put the observed sites into "
                'with pyro.plate("rows", n)'
            )
        return Given(tensors, torch.ones(tasks, 1, dtype=torch.bool), (), alone)
    names = tuple(name for name, value in tensors.items() if value.ndim > 1 and value.shape[1] == size)
    if mask is None:
        mask = torch.ones(tasks, size, dtype=torch.bool)
    if mask.shape != (tasks, size):
        raise ValueError(f"mask must have shape {(tasks, size)}, as the data plate has it; got {tuple(mask.shape)}")
    return Given(tensors, mask, names, alone)


def _with_a_row(tensors: dict[str, Tensor], mask: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
    """The same, with one padded row where there are none: a plate must have a size."""
    empty = [name for name, value in tensors.items() if value.ndim > 1 and not value.shape[1]]
    if not empty:
        return tensors, mask
    padded = {
        name: value.new_zeros(len(value), 1, *value.shape[2:]) for name, value in tensors.items() if name in empty
    }
    return {**tensors, **padded}, torch.zeros(len(tensors[empty[0]]), 1, dtype=torch.bool)


def _number(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _require_one_number(tensors: Mapping[str, Tensor]) -> None:
    if not tensors:
        raise ValueError("data must hold tensors by name; got none")
    for name, value in tensors.items():
        if not value.ndim:
            raise ValueError(f"{name} must have data sets on its first axis; got a single number")
    lengths = {name: len(value) for name, value in tensors.items()}
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"all tensors must have the same number of data sets on their first axis; {each}")


def _padded(data: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Tensor], Tensor | None]:
    """Data sets one by one, padded where their first axes differ."""
    names = list(data[0])
    for index, item in enumerate(data):
        if set(item) != set(names):
            raise ValueError(f"every data set must have {', '.join(names)}; data set {index} has {', '.join(item)}")
    tensors, mask = {}, None
    for name in names:
        each = [_number(torch.as_tensor(item[name])) for item in data]
        if len({value.shape for value in each}) == 1:
            tensors[name] = torch.stack(each)
            continue
        lengths = torch.tensor([len(value) for value in each])
        tensors[name] = torch.nn.utils.rnn.pad_sequence(each, batch_first=True)
        found = torch.arange(int(lengths.max())) < lengths[:, None]
        if mask is not None and not torch.equal(mask, found):
            raise ValueError(f"{name} must have the rows that other tensors have, in every data set")
        mask = found
    return tensors, mask
