"""A policy as one file: safetensors that are safe to open, written whole or not at all."""

import dataclasses
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bandits.decisions.arms import NamedArms
from bayesmeta import io
from bayesmeta.fields import TensorFields

__all__ = ["PolicyState", "load", "save"]


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


def save(policy: Any, path: str | Path) -> None:
    """Write `policy` to `path`; whatever stood there stays until the new file is complete.

    Raises:
        TypeError: a name of an arm is no string, number, or tuple of them.
        FileNotFoundError: the folder does not exist.
    """
    io.save(policy_state(policy), path)


def load(path: str | Path, base: type) -> Any:
    """The policy that `save` wrote to `path`; `base` is what all policies derive from.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something else.
    """
    state = io.load(path)
    if not isinstance(state, PolicyState):
        raise ValueError(f"cannot load {path}: it holds a {type(state).__name__}, not a policy. Try bayesmeta.load")
    try:
        return policy_of(state, base)
    except Exception as error:  # content that was made up may fail in any way
        raise ValueError(f"cannot load {path}: {error}") from error


def policy_state(policy: Any) -> PolicyState:
    """All of `policy`, sharing its tensors."""
    for name in policy.arms:
        _require_plain(name)
    arms = {field.name: getattr(policy._arms, field.name) for field in dataclasses.fields(policy._arms)}
    numbers = {
        "tasks": None if policy._is_single else policy.num_tasks,
        "propensities": policy.propensities,
        "keys": list(policy._keys),
        "next_key": policy._next_key,
        "pulls": torch.from_numpy(policy._pulls),
        "rounds": torch.from_numpy(policy._rounds),
        "rewards": torch.from_numpy(policy._rewards),
        "generator": policy._generator.get_state(),
        "log_generator": policy._log_generator.get_state(),
    }
    return PolicyState(
        _key(type(policy)),
        policy.prior,
        {"kind": _key(type(policy._arms)), **arms},
        policy._settings(),
        policy._state.state_dict(),
        policy._pending.state_dict(),
        numbers,
    )


def policy_of(state: PolicyState, base: Any) -> Any:
    """The policy again, with copies of the tensors of `state`; `base` is what all policies derive from."""
    kind = _class_of(state.kind, base)
    fields = dict(state.arms)
    arms = _class_of(fields.pop("kind"), NamedArms)(**fields)
    numbers = state.numbers
    policy = kind.__new__(kind)
    base.__init__(
        policy,
        state.prior,
        arms,
        tasks=numbers["tasks"],
        seed=0,
        propensities=numbers["propensities"],
        max_pending=state.pending["capacity"],
    )
    for name, value in state.settings.items():
        setattr(policy, name, value)
    policy._state.load_state_dict(state.posterior)
    policy._pending.load_state_dict(state.pending)
    policy._keys, policy._next_key = list(numbers["keys"]), numbers["next_key"]
    policy._pulls, policy._rounds = numbers["pulls"].numpy().copy(), numbers["rounds"].numpy().copy()
    # earlier versions did not keep it, and arms had no pulls but their own
    policy._rewards = numbers["rewards"].numpy().copy() if "rewards" in numbers else policy._pulls.sum(-1)
    policy._generator.set_state(numbers["generator"])
    policy._log_generator.set_state(numbers["log_generator"])
    return policy


def _key(kind: type) -> str:
    """The name by which a file knows a class; one of people's own has its module before it."""
    if getattr(_own_package(), kind.__name__, None) is kind:
        return kind.__name__
    return f"{kind.__module__}:{kind.__qualname__}"


def _class_of(key: str, base: type) -> Any:
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
