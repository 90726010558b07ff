"""A policy as one file: safetensors that are safe to open, written whole or not at all."""

import dataclasses
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bandits.decisions.arms import NamedArms
from bandits.decisions.learner import Learner
from bayesmeta import io
from bayesmeta.fields import TensorFields

__all__ = ["PolicyState", "arms_of", "class_of", "key_of", "load", "load_state", "save", "state_of"]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class PolicyState(TensorFields):
    """All of a policy.

    Args:
        kind: the class of the policy: its name, after its module where that is not of this package.
        prior: of its tasks.
        arms: kind and fields of its arms.
        settings: what the class takes beside what every policy does.
        posterior: the state of `bayesmeta.online.protocol.Online`.
        pending: choices that wait for their reward.
        numbers: counts, and the states of both streams of random numbers.
    """

    kind: str
    prior: Any
    arms: dict[str, Any]
    settings: dict[str, Any]
    posterior: dict[str, Any]
    pending: dict[str, Any]
    numbers: dict[str, Any]


def save(state: PolicyState, path: str | Path) -> None:
    """Write `state` to `path`; whatever stood there stays until the new file is complete.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    io.save(state, path)


def load(path: str | Path, build: Callable[[PolicyState], T]) -> T:
    """What `build` makes of the state that `save` wrote to `path`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something else.
    """
    state = io.load(path)
    if not isinstance(state, PolicyState):
        raise ValueError(f"cannot load {path}: it holds a {type(state).__name__}, not a policy. Try bayesmeta.load")
    try:
        return build(state)
    except Exception as error:  # content that was made up may fail in any way
        raise ValueError(f"cannot load {path}: {error}") from error


def state_of(learner: Learner, kind: str, settings: dict[str, Any], numbers: dict[str, Any]) -> PolicyState:
    """All of a policy, sharing its tensors; `settings` and `numbers` are those that its learner has not.

    Raises:
        TypeError: a name of an arm is no string, number, or tuple of them.
    """
    arms, posterior = learner.roster.arms, learner.posterior
    for name in arms.names:
        _require_plain(name)
    fields: Any = dataclasses.fields(arms)  # type: ignore[arg-type]
    return PolicyState(
        kind,
        posterior.prior,
        {"kind": key_of(type(arms)), **{field.name: getattr(arms, field.name) for field in fields}},
        settings,
        posterior.online.state_dict(),
        learner.pending.state_dict(),
        {
            "tasks": None if learner.tasks.is_single else learner.tasks.num,
            **learner.roster.state_dict(),
            **learner.tallies.state_dict(),
            **numbers,
        },
    )


def arms_of(state: PolicyState) -> Any:
    """The arms of `state_of`."""
    fields = dict(state.arms)
    return class_of(fields.pop("kind"), NamedArms)(**fields)


def load_state(learner: Learner, state: PolicyState) -> None:
    """All that rewards and arms have changed, into a learner of the same prior and arms, with copies of the tensors."""
    learner.posterior.online.load_state_dict(state.posterior)
    learner.pending.load_state_dict(state.pending)
    learner.roster.load_state_dict(state.numbers)
    learner.tallies.load_state_dict(state.numbers)


def key_of(kind: type) -> str:
    """The name by which a file knows a class; one of people's own has its module before it."""
    if getattr(_own_package(), kind.__name__, None) is kind:
        return kind.__name__
    return f"{kind.__module__}:{kind.__qualname__}"


def class_of(key: str, base: type) -> Any:
    """The class of that name: one of this package's, or any subclass of `base` that is defined in this process.

    A file names a class, and never has one imported: that would run code which a stranger chose.
    """
    package = _own_package()
    kind: Any = getattr(package, key) if key in package.__all__ else None
    if isinstance(kind, type) and issubclass(kind, base):
        return kind
    module, _, name = key.rpartition(":")
    own: list[Any] = [each for each in _subclasses(base) if module and each.__qualname__ == name]
    # the latest of that module; a class of a script or a notebook may have moved since
    found = [each for each in own if each.__module__ == module] or own
    if key in package.__all__:
        raise ValueError(f"it holds a {key}, and not a {base.__name__}. Try bandits.{key}.load")
    if not found:
        raise ValueError(
            f"its class {name!r} is not defined in this process. Import {module} before you load it"
            if module
            else f"there is no policy {key!r} in this version of bandits"
        )
    return found[-1]


def _own_package() -> Any:
    """The package as people see it, which defines all policies of its own, and imports each when it is asked for."""
    return importlib.import_module("bandits")


def _subclasses(base: Any) -> Iterator[Any]:
    kind: Any
    for kind in base.__subclasses__():
        yield kind
        yield from _subclasses(kind)


def _require_plain(name: Any) -> None:
    if isinstance(name, tuple):
        for part in name:
            _require_plain(part)
    elif name is not None and not isinstance(name, str | int | float | bool):
        raise TypeError(f"names of arms that are saved must be strings, numbers or tuples of them; got {name!r}")
