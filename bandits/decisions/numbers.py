"""Numbers as people have them: arrays, frames, series, sparse matrices, lists."""

import math
import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesmeta.doors import require_count

__all__ = ["numbers_of", "require_number", "require_seed", "truths_of", "whole_numbers_of"]


def numbers_of(value: Any, what: str) -> Tensor:
    """A tensor of float64 with the numbers of `value`; a frame has a row per decision.

    Args:
        value: a tensor, NumPy array, pandas or polars frame or series, sparse matrix of SciPy, or nested lists.
        what: the numbers are, for the error.

    Raises:
        TypeError: it holds something that is no real number; text is none, even where it reads as one.
        ValueError: rows are of different lengths.
    """
    if isinstance(value, Tensor):
        if value.is_complex():
            raise TypeError(f"{what} must be real numbers; got {value.dtype}. Try .real")
        return value.double()
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return torch.from_numpy(value.astype(np.float64, order="C"))
    try:
        array = _array_of(value)
    except ValueError as error:
        raise ValueError(f"{what} must be numbers, as many in each row; {error}") from error
    _require_real(array, what)
    try:
        return torch.from_numpy(array.astype(np.float64, order="C"))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} must be numbers; {error}") from error


def whole_numbers_of(value: Any, what: str) -> Tensor:
    """The same as whole numbers.

    Raises:
        TypeError: one is not whole.
    """
    is_whole = isinstance(value, Tensor) and not (value.is_floating_point() or value.is_complex())
    given = value if is_whole else numbers_of(value, what)
    whole = given.long()
    if not bool((whole == given).all()):
        raise TypeError(f"{what} must be whole numbers; got {given[whole != given][0].item():g}")
    return whole


def truths_of(value: Any) -> Tensor | None:
    """A Boolean tensor of the truth values in `value`, which may be all that `numbers_of` takes; None for other things.

    Raises:
        ValueError: rows are of different lengths.
    """
    if isinstance(value, Tensor):
        return value if value.dtype == torch.bool else None
    if hasattr(value, "toarray") or hasattr(value, "to_numpy"):
        value = _array_of(value)
    if isinstance(value, np.ndarray) and value.dtype == object:  # as of series in which values may be missing
        value = value.tolist()
    if not _is_true_or_false(value):
        return None
    try:
        return torch.from_numpy(np.array(_of_tensors(value), dtype=bool))
    except ValueError as error:
        raise ValueError(f"a mask must be True and False, as many in each row; {error}") from error


def require_number(
    name: str, value: Any, low: float, high: float = math.inf, *, above: bool = False, finite: bool = True
) -> int | float:
    """`value`, a number from `low` to `high`.

    Args:
        above: whether `low` itself is too small.
        finite: whether infinity is too large.

    Raises:
        TypeError: it is no number.
        ValueError: it is NaN, or too small or large.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; got {value!r}")
    number = float(value)
    if finite and math.isinf(number):
        raise ValueError(f"{name} must be finite; got {value}")
    if not (low < number <= high if above else low <= number <= high):
        least = f"{'above' if above else 'at least'} {low:g}"
        room = least if high == math.inf else f"{least} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} must be {room}; got {value}")
    return value if isinstance(value, int | float) else number


def require_seed(seed: Any) -> int:
    """A seed as generators of torch take it.

    Raises:
        TypeError: it is no whole number.
        ValueError: it has more than 64 bits.
    """
    number = require_count("seed", seed, -(2**63))
    if number >= 2**64 - 1:  # a policy seeds another stream by the number after it
        raise ValueError(f"seed must be below 2^64 - 1; got {number}")
    return number


def _array_of(value: Any) -> np.ndarray:
    if hasattr(value, "toarray"):  # a sparse matrix, which NumPy would take for one object
        value = value.toarray()
    return np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else _of_tensors(value))


def _of_tensors(value: Any) -> Any:
    return [part.tolist() if isinstance(part, Tensor) else part for part in value] if isinstance(value, list) else value


def _require_real(array: np.ndarray, what: str) -> None:
    """NumPy would read text, count days, and drop what is imaginary."""
    odd = array.size > 0 and array.dtype.kind not in "biufO"
    if odd or array.dtype == object:
        kinds = (object,) if odd else (type(None), str, bytes, complex, np.complexfloating)
        wrong = [item for item in array.reshape(-1).tolist() if isinstance(item, kinds)]
        if wrong:
            raise TypeError(f"{what} must be numbers; got {wrong[0]!r}")


def _is_true_or_false(value: Any) -> bool:
    if isinstance(value, Tensor | np.ndarray):
        return value.dtype in (torch.bool, np.bool_)
    if isinstance(value, list | tuple):
        return bool(value) and all(map(_is_true_or_false, value))
    return isinstance(value, bool | np.bool_)
