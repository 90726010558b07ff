"""Gradients inside the library, whatever mode the caller is in: learning works under `no_grad` and `inference_mode`."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from bayesmeta.named_fields import named_fields, with_fields

__all__ = ["gradients", "ordinary", "outside_inference", "with_gradients"]

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def gradients() -> Iterator[None]:
    """Gradients can be taken within, and tensors that are made within can be changed in place later."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def ordinary(value: Any) -> Any:
    """`value` with copies of the tensors in it that were made under `inference_mode`: they have no gradients.

    Looks into tuples, lists, dicts and dataclasses; to be called within `gradients`.
    """
    if isinstance(value, Tensor):
        return value.clone() if value.is_inference() else value
    if isinstance(value, tuple | list):
        items = [ordinary(item) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return type(value)(items) if type(value) in (tuple, list) else type(value)(*items)
    if isinstance(value, dict):
        entries = {key: ordinary(item) for key, item in value.items()}
        return entries if any(entries[key] is not item for key, item in value.items()) else value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _ordinary_fields(value)
    return value


def with_gradients(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run within `gradients` on `ordinary` arguments."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with gradients():
            return function(*(ordinary(arg) for arg in args), **{name: ordinary(arg) for name, arg in kwargs.items()})

    return call


def outside_inference(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose tensors can be changed in place later, also where it is called under `inference_mode`."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            return function(*args, **kwargs)

    return call


def _ordinary_fields(value: Any) -> Any:
    changed = {name: new for name, old in named_fields(value).items() if (new := ordinary(old)) is not old}
    return with_fields(value, **changed) if changed else value
