"""What every family does with what it is given, before its own arithmetic: one rule for all, by the names of methods.

A class that derives from `TensorFields` (families) or `Draws` (what their `sample` returns) has these checks on the
methods that it defines:

- rows (`condition`, `log_evidence`, `statistics`, `fit`, `hyperparameters`, `initial`) must be `Data`, or `Statistics`
  where the method takes them, on the device of the prior, whose dtype they take; a stream that draws tasks passes where
  the method takes one;
- inputs (`predict`, `marginal`, `joint`, and the call of a draw) may be tensors, arrays or lists, of any real numbers,
  and take the dtype of the prior; they have `num_inputs` columns where the class says how many;
- numbers of draws (`sample`, `sample_params`) are whole and at least one;
- what learns (`fit`, `hyperparameters`) takes its gradients under `no_grad` and `inference_mode` too.
"""

import dataclasses
import inspect
import operator
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from bayesmeta.describe import Described
from bayesmeta.named_fields import named_fields
from bayesmeta.numerics.as_floats import as_floats
from bayesmeta.numerics.gradients import gradients, ordinary

__all__ = [
    "Draws",
    "Rows",
    "Sums",
    "counted",
    "first_tensor",
    "guard",
    "require_count",
    "require_hierarchical",
    "require_rows",
]

LEARNING = ("fit", "hyperparameters")
ROWS = ("condition", "log_evidence", "statistics", "initial", *LEARNING)
INPUTS = ("predict", "marginal", "joint")
COUNTS = ("sample", "sample_params")
HOW = "Make it by Data.of(x, y), by Data.pad([(x, y), ...]) for tasks of any lengths, or by Data.from_frame(table, ...)"

Method = Callable[..., Any]
P = ParamSpec("P")
R = TypeVar("R")


class Rows:
    """What `Data` is to the checks."""


class Sums:
    """What `Statistics` are to the checks: sums over rows, which are not there any more."""


class Draws(Described):
    """Mixin of the dataclasses that `sample` returns: they take inputs as the families do."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("__call__", "link", "predict"):
            if name in vars(cls):
                setattr(cls, name, _at_inputs(vars(cls)[name], name))


def guard(cls: type) -> None:
    """Put the checks on the methods that `cls` itself defines."""
    for names, door in ((ROWS, _at_rows), (INPUTS, _at_inputs), (COUNTS, _at_count)):
        for name in names:
            method = vars(cls).get(name)
            if isinstance(method, classmethod):
                if name == "initial":
                    setattr(cls, name, classmethod(door(method.__func__, name)))
            elif inspect.isfunction(method):
                setattr(cls, name, door(method, name))


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor of floating-point numbers in a dataclass, in the order of its fields; the others are like it."""
    for inner in named_fields(value).values():
        if isinstance(inner, Tensor):
            if inner.is_floating_point():
                return inner
        elif dataclasses.is_dataclass(inner) and (found := first_tensor(inner)) is not None:
            return found
    return None


def require_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number that is not too small.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is less than `least`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number; got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}; got {number}")
    return number


def counted(**least: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a function whose parameters of these names are whole numbers, no less than said, or None."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs)
            for name, smallest in least.items():
                if given.arguments.get(name) is not None:
                    given.arguments[name] = require_count(name, given.arguments[name], smallest)
            return function(*given.args, **given.kwargs)

        return call

    return decorate


def require_rows(caller: str, data: Any, *, statistics: bool = True) -> None:
    """`data` is `Data`, or `Statistics` where they will do.

    Raises:
        TypeError: it is not; the message says how to make it.
    """
    if not isinstance(data, Rows | Sums):
        raise TypeError(f"{caller} needs Data; got {_named(data)}. {HOW}")
    if isinstance(data, Sums) and not statistics:
        raise TypeError(f"{caller} needs rows, and Statistics have none: give the Data that they were made of")


def require_hierarchical(caller: str, prior: Any) -> None:
    """`prior` is one of a family that says what its hyperparameters are (`Hierarchical`).

    Raises:
        TypeError: it is not.
    """
    if isinstance(prior, type) or not hasattr(prior, "hyperparameters"):
        raise TypeError(
            f"{caller} needs a prior with hyperparameters, such as BetaBernoulli.initial(tasks); got {_named(prior)}. "
            "Families with `fit` alone, such as GaussianProcess, have none"
        )


def _at_rows(method: Method, name: str) -> Method:
    parameter, annotation = _first_parameter(method)
    if annotation is not None and not any(kind in repr(annotation) for kind in ("Data", "Statistics")):
        return method  # another thing by the same name
    takes_statistics = annotation is None or "Statistics" in repr(annotation)
    takes_streams = "TaskStream" in repr(annotation)

    def checked(self: Any, data: Any) -> Any:
        if takes_streams and callable(getattr(data, "draw", None)):
            return data
        return _rows(self, data, name, takes_statistics)

    @wraps(method)
    def at_door(self: Any, *args: Any, **kwargs: Any) -> Any:
        if name not in LEARNING:
            return method(self, *_with_first(args, kwargs, parameter, lambda data: checked(self, data)), **kwargs)
        with gradients():
            self = ordinary(self)
            args = _with_first(args, kwargs, parameter, lambda data: ordinary(checked(self, data)))
            learned = method(self, *args, **kwargs)
            if name == "hyperparameters" and hasattr(learned, "source"):
                device = (args[0] if args else kwargs[parameter]).device
                learned = dataclasses.replace(learned, device=device, source=(self, args, kwargs))
            return learned

    return at_door


def _at_inputs(method: Method, _name: str) -> Method:
    parameter, _ = _first_parameter(method)
    is_needed = not inspect.unwrap(method).__defaults__

    @wraps(method)
    def at_door(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *_with_first(args, kwargs, parameter, lambda x: _inputs(self, x, is_needed)), **kwargs)

    return at_door


def _at_count(method: Method, _name: str) -> Method:
    parameter, _ = _first_parameter(method)
    if parameter != "num_draws":
        return method

    @wraps(method)
    def at_door(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *_with_first(args, kwargs, parameter, lambda n: require_count(parameter, n)), **kwargs)

    return at_door


def _first_parameter(method: Method) -> tuple[str, Any]:
    """Name and annotation of what follows `self`; no name where nothing does."""
    code = inspect.unwrap(method).__code__
    name = code.co_varnames[1] if code.co_argcount > 1 else ""
    return name, inspect.unwrap(method).__annotations__.get(name)


def _with_first(
    args: tuple[Any, ...], kwargs: dict[str, Any], parameter: str, change: Callable[[Any], Any]
) -> tuple[Any, ...]:
    """Arguments whose first is changed, in `kwargs` where it was given by name; missing, it is left to Python."""
    if args:
        return (change(args[0]), *args[1:])
    if parameter in kwargs:
        kwargs[parameter] = change(kwargs[parameter])
    return args


def _rows(prior: Any, data: Any, method: str, takes_statistics: bool) -> Any:
    family = prior.__name__ if isinstance(prior, type) else type(prior).__name__
    require_rows(f"{family}.{method}", data, statistics=takes_statistics)
    like = None if isinstance(prior, type) else first_tensor(prior)
    if like is None:
        return data
    if data.device != like.device:
        raise ValueError(
            f"rows are on {data.device} and this {family} on {like.device}; move one of them, such as by "
            f"data.to({str(like.device)!r})"
        )
    has_rows = isinstance(data, Rows)
    if has_rows and data.y.dtype != like.dtype:
        widens = torch.promote_types(data.y.dtype, like.dtype) == like.dtype
        # statistics are summed in float64, and would lose digits by way of float32
        if widens or not hasattr(prior, "statistics"):
            return data.to(like.dtype)
    return data


def _inputs(prior: Any, x: Any, is_needed: bool) -> Any:
    if x is None:
        if is_needed:
            raise ValueError(f"x must have shape (..., q, d): {type(prior).__name__} has inputs; got None")
        return None
    like = first_tensor(prior)
    if like is None or isinstance(x, Mapping):  # arguments of a model by name, which it reads itself
        return x
    if not (isinstance(x, Tensor) and x.dtype == like.dtype and x.device == like.device):
        x = as_floats("x", x, like=like)
    if x.ndim < 2:
        raise ValueError(
            f"x must have shape (..., q, d), q rows of d inputs; got {tuple(x.shape)}. Try x.unsqueeze(-2)"
        )
    expected = getattr(prior, "num_inputs", None)
    if expected is not None and x.shape[-1] != expected:
        raise ValueError(f"x must have {expected} columns; got {x.shape[-1]}")
    return x


def _named(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + ("" if shape is None else f" of shape {tuple(shape)}")
