"""Numbers as people have them: arrays, frames, series, sparse matrices, lists."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["numbers_of"]


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
    try:
        if hasattr(value, "toarray"):  # a sparse matrix, which NumPy would take for one object
            value = value.toarray()
        array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else _of_tensors(value), dtype=np.float64)
    except TypeError as error:
        raise TypeError(f"{what} must be numbers; {error}") from error
    except ValueError as error:
        kind = ValueError if "inhomogeneous" in str(error) else TypeError
        raise kind(f"{what} must be numbers, and as many in each row; {error}") from error
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())


def _of_tensors(value: Any) -> Any:
    return [part.tolist() if isinstance(part, Tensor) else part for part in value] if isinstance(value, list) else value
