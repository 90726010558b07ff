"""Shape annotations, checked on the first calls of each function in each test.

A chain, a fit or a study calls a few small functions many thousand times, with the same shapes, and checking them all
takes more time than the arithmetic. What differs from call to call differs between tests, and there each function is
checked anew.

jaxtyping's own check looks at arguments twice, before a call and with what it returned, and keeps sizes for functions
that have none. Here each is looked at once, and where it is wrong jaxtyping says so.
"""

import dataclasses
import functools
import inspect
import types
import typing
from collections import Counter
from collections.abc import Callable
from types import CodeType
from typing import Any

import jaxtyping
from beartype.roar import BeartypeCallHintParamViolation, BeartypeCallHintReturnViolation

__all__ = ["CALLS", "check_anew", "install"]

CALLS = 100  # of each function in each test: as many as hypothesis draws examples

IN_CHECKER = "__beartype_func"  # the argument by which what beartype makes calls the function

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
        return _looked_at_once(function, typechecker)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _checked[code] >= CALLS:
            return function(*args, **kwargs)
        _checked[code] += 1
        return with_check()(*args, **kwargs)

    return call


def _looked_at_once(function: Any, typechecker: Any) -> Callable[..., Any]:
    hints = {name: _resolved(hint, function) for name, hint in function.__annotations__.items()}
    in_full = functools.cache(lambda: _every_call(function, typechecker=typechecker))
    if inspect.isgeneratorfunction(function):
        return in_full()
    checked = _checker(function, hints, typechecker)
    has_sizes = any(map(_has_sizes, hints.values()))

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            if not has_sizes:
                return checked(*args, **kwargs)
            with _every_call("context"):
                return checked(*args, **kwargs)
        except BeartypeCallHintParamViolation:
            return in_full()(*args, **kwargs)  # which raises before it calls
        except BeartypeCallHintReturnViolation as error:
            raise jaxtyping.TypeCheckError(f"Type-check error whilst checking the return value of {error}") from error

    return call


_checkers: dict[CodeType, Any] = {}


def _checker(function: Any, hints: dict[str, Any], typechecker: Any) -> Any:
    """What beartype makes of a function, made once for all closures of one definition: each is put into a copy."""
    plain = _copy(function, {"__annotations__": hints, "__kwdefaults__": function.__kwdefaults__})
    made = _checkers.get(function.__code__)
    if made is None:
        made = _checkers[function.__code__] = typechecker(plain)
    if IN_CHECKER not in (made.__kwdefaults__ or {}):  # nothing is annotated
        return plain
    return _copy(made, {"__kwdefaults__": made.__kwdefaults__ | {IN_CHECKER: plain}})


def _copy(function: Any, changes: dict[str, Any]) -> Any:
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    for name, value in ({"__module__": function.__module__, "__qualname__": function.__qualname__} | changes).items():
        setattr(copy, name, value)
    return copy


def _resolved(hint: Any, function: Any) -> Any:
    """As jaxtyping reads it: names that only type checkers know may be anything."""
    try:
        names = types.SimpleNamespace(__annotations__={"hint": hint})
        return typing.get_type_hints(names, function.__globals__, include_extras=True)["hint"]
    except Exception:
        return Any


def _has_sizes(hint: Any) -> bool:
    is_array = isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray)
    return is_array or any(map(_has_sizes, typing.get_args(hint)))
