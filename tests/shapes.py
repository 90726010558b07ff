"""Shape annotations, checked on the first calls of each function in each test.

A chain, a fit or a study calls a few small functions many thousand times, with the same shapes, and checking them all
takes more time than the arithmetic. What differs from call to call differs between tests, and there each function is
checked anew.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from types import CodeType
from typing import Any

import jaxtyping

__all__ = ["CALLS", "check_anew", "install"]

CALLS = 100  # of each function in each test: as many as hypothesis draws examples

_checked: Counter[CodeType] = Counter()
_every_call = jaxtyping.jaxtyped


def install(packages: list[str]) -> None:
    """To be called before any of `packages` is imported."""
    # the import hook decorates with the name that it finds here
    jaxtyping.jaxtyped = _first_calls  # type: ignore[assignment]
    jaxtyping.install_import_hook(packages, "beartype.beartype")


def check_anew() -> None:
    """Check the first calls again: a test begins."""
    _checked.clear()


def _first_calls(*args: Any, typechecker: Any = None) -> Any:
    if args:  # not the import hook, but the library's own use
        return _every_call(*args)

    def decorate(what: Any) -> Any:
        if not isinstance(what, type):
            return _checked_at_first(what, typechecker)
        if dataclasses.is_dataclass(what) and "__init__" in vars(what):
            what.__init__ = _checked_at_first(what.__init__, typechecker)  # type: ignore[misc]
        return what

    return decorate


def _checked_at_first(function: Callable[..., Any], typechecker: Any) -> Callable[..., Any]:
    code = function.__code__  # one for all closures of one definition

    @functools.cache  # decorating costs more than hundreds of calls, and most functions are never called
    def with_check() -> Callable[..., Any]:
        return _every_call(function, typechecker=typechecker)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _checked[code] >= CALLS:
            return function(*args, **kwargs)
        _checked[code] += 1
        return with_check()(*args, **kwargs)

    return call
