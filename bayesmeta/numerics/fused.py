"""Arithmetic on many small tasks, fused by `torch.compile` where asked for: as few passes over memory as can be."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch

from bayesmeta.warning_kinds import NotFusedWarning, warn

__all__ = ["MOST_COLUMNS", "compiled", "run_fused"]

MOST_COLUMNS = 8  # of a row or a matrix: kernels are unrolled over them, and take minutes to compile beyond

_asked: ContextVar[bool] = ContextVar("compiled", default=False)


@contextmanager
def compiled() -> Iterator[None]:
    """Inside, families in closed form fuse their arithmetic on many small tasks by `torch.compile`.

    The answers are the same up to rounding. The first call for each number of columns takes half a minute to compile;
    torch keeps what was compiled on disk. Where it cannot compile, as without a C++ compiler, it warns once, and the
    answers come the usual way.
    """
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)


def run_fused(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` as a fused kernel; None where that was not asked for, or cannot be.

    Args:
        function: pure, of tensors and of dataclasses of tensors; each is compiled once.
    """
    if not _asked.get() or function in _failed:
        return None
    try:
        return _kernel(function)(*args)
    except torch._dynamo.exc.TorchDynamoException as error:
        _failed.add(function)
        reason = str(error).strip().splitlines()[0]
        warn(f"torch.compile failed, arithmetic is not fused: {reason}", NotFusedWarning)
        return None


_failed: set[Callable[..., Any]] = set()


@cache
def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)
