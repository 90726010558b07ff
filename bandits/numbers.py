"""Numbers as people have them: arrays, frames, series, sparse matrices, lists."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["numbers_of", "whole_numbers_of"]


def numbers_of(value: Any, what: str) -> Tensor:
    """A tensor of float64 with the numbers of `value`; a frame has a row per decision.

    Args:
        value: a tensor, NumPy array, pandas or polars frame or series, sparse matrix of SciPy, or nested lists.
        what: the numbers are, for the error.

    Raises:
        TypeError: it holds something that is no number.
        ValueError: rows are of different lengths.
    """
    if isinstance(value, Tensor):
        return value.double()
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return torch.from_numpy(value.astype(np.float64, order="C"))
    if hasattr(value, "toarray"):  # a sparse matrix, which NumPy would take for one object
        value = value.toarray()
    try:
        array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else _of_tensors(value))
    except ValueError as error:
        raise ValueError(f"{what} must be numbers, as many in each row; {error}") from error
    if array.dtype == object and any(item is None for item in array.flat):
        raise TypeError(f"{what} must be numbers; got None")
    try:
        numbers = array.astype(np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} must be numbers; {error}") from error
    return torch.from_numpy(numbers)


def _of_tensors(value: Any) -> Any:
    return [part.tolist() if isinstance(part, Tensor) else part for part in value] if isinstance(value, list) else value


def whole_numbers_of(value: Any, what: str) -> Tensor:
    """The same as whole numbers.

    Raises:
        TypeError: one is not whole.
    """
    numbers = value if isinstance(value, Tensor) and not value.is_floating_point() else numbers_of(value, what)
    whole = numbers.long()
    if not bool((whole == numbers).all()):
        raise TypeError(f"{what} must be whole numbers; got {numbers[whole != numbers][0].item():g}")
    return whole
