"""Fields of dataclasses by name: what moving, copying, comparing, saving and describing an object go through."""

import dataclasses
from typing import Any, TypeVar

from torch import Tensor

__all__ = ["named_fields", "named_tensors", "with_fields"]

T = TypeVar("T")


def named_fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, in their order; objects inside stay whole."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def named_tensors(value: Any) -> dict[str, Tensor]:
    """The fields of a dataclass that are tensors."""
    return {name: field for name, field in named_fields(value).items() if isinstance(field, Tensor)}


def with_fields(value: T, /, **changes: Any) -> T:
    """A copy of a dataclass with other fields: `dataclasses.replace` without the constructor and its checks."""
    new = object.__new__(type(value))
    for name, field in named_fields(value).items():
        object.__setattr__(new, name, changes.get(name, field))
    return new
