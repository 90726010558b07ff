"""Numbers as people give them, as tensors: arrays, lists, whole numbers and booleans too."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["as_floats"]


def as_floats(name: str, value: Any, *, like: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """`value` as a tensor of floating-point numbers, the one place that says which.

    The dtype is `dtype` or that of `like`; without either that of `value`, and float64 where `value` holds whole
    numbers or booleans, or is a list.

    Raises:
        TypeError: `value` is nothing that holds real numbers.
        ValueError: `value` is on another device than `like`.
    """
    if isinstance(value, Tensor) and dtype is None and value.is_floating_point() and _is_like(value, like):
        return value
    if not isinstance(value, Tensor):
        tensor = _of_array(name, value)
        # numbers that have no place of their own go where they are needed
        value = tensor if like is None else tensor.to(like.device)
    if value.is_complex():
        raise TypeError(f"{name} must hold real numbers; got {value.dtype}")
    if like is not None and value.device != like.device:
        raise ValueError(
            f"{name} is on {value.device} and what it belongs to on {like.device}; move it by .to({str(like.device)!r})"
        )
    wanted = dtype or (like.dtype if like is not None else value.dtype if value.is_floating_point() else torch.float64)
    return value.to(wanted)


def _is_like(value: Tensor, like: Tensor | None) -> bool:
    return like is None or (value.dtype == like.dtype and value.device == like.device)


def _of_array(name: str, value: Any) -> Tensor:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # lists of different lengths
        raise TypeError(f"{name} must be a tensor, an array or a list of numbers. {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} must be a tensor, an array or a list of numbers; got {type(value).__name__} of {array.dtype}"
        )
    if not hasattr(value, "dtype") or array.dtype.itemsize > np.dtype(float).itemsize:
        array = array.astype(float)
    # a copy where torch would refuse the array, or warn of it
    ours = array.dtype.isnative and array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if ours else np.array(array, array.dtype.newbyteorder("=")))
