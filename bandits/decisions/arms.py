"""What arms are to a posterior: entries of its batch, numbers, or rows of features.

A policy asks for the rows of all arms at n decisions, and whether arms have a posterior each (`separate`); it knows no
more of them. Names may be anything hashable.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from bayesmeta.describe import Described
from bayesmeta.protocol import num_arms_of

__all__ = [
    "Arms",
    "Crossed",
    "Hybrid",
    "Joined",
    "NamedArms",
    "Numbered",
    "Separate",
    "arms_of",
    "require_different",
    "rows_of_chosen",
]

T = TypeVar("T")


@runtime_checkable
class Arms(Protocol):
    """The arms of a policy."""

    @property
    def names(self) -> tuple[Hashable, ...]: ...

    @property
    def separate(self) -> bool:
        """Whether each arm has a posterior of its own; else all of a task's arms share one."""
        ...

    def rows(self, context: Tensor | None, num: int) -> Tensor:
        """Inputs of all arms at `num` decisions: `(num, 1, 1, d)` for separate arms, else `(num, arms, d)`.

        Args:
            context: `(num, c)`, or None.

        Raises:
            ValueError: a context is missing, or given where there is no use for one.
        """
        ...

    def without(self, position: int) -> "Arms": ...

    def with_arm(self, name: Hashable, features: Tensor | None) -> "Arms": ...


@dataclass(frozen=True)
class NamedArms(Described):
    """What all kinds of arms have: names, of which no two are equal."""

    names: tuple[Hashable, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names:
            raise ValueError("a policy needs at least one arm; got none")
        require_different(self.names)

    def without(self, position: int) -> Any:
        return replace(self, names=_without(self.names, position))


@dataclass(frozen=True)
class Separate(NamedArms):
    """Each arm has a posterior of its own: rewards of one say nothing of another. A context is the input of all.

    Draws of arms are independent, so that a draw for each arm is a draw of all of them together.
    """

    separate = True

    def rows(self, context: Tensor | None, num: int) -> Tensor:
        return torch.zeros(1, 1, 1, 0).expand(num, -1, -1, -1) if context is None else context[:, None, None]

    def with_arm(self, name: Hashable, features: Tensor | None) -> "Separate":
        if features is not None:
            raise ValueError("arms that have a posterior each have no features; give the arm a prior instead")
        return Separate((*self.names, name))


@dataclass(frozen=True)
class Numbered(NamedArms):
    """Arms are the numbers that a prior over all of them knows, such as `CorrelatedArms`: by default 0, 1, ...

    Args:
        names: of the arms.
        numbers: of each arm; a prior may know more arms than there are now.
    """

    numbers: tuple[int, ...] = ()
    separate = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.numbers:
            object.__setattr__(self, "numbers", tuple(range(len(self.names))))
        if len(self.numbers) != len(self.names):
            raise ValueError(f"each of the {len(self.names)} arms needs a number; got {len(self.numbers)}")

    def rows(self, context: Tensor | None, num: int) -> Tensor:
        if context is not None:
            raise ValueError("arms that are numbers have no context; got one")
        return torch.tensor(self.numbers)[:, None].expand(num, -1, -1)

    def without(self, position: int) -> "Numbered":
        return Numbered(_without(self.names, position), _without(self.numbers, position))

    def with_arm(self, name: Hashable, features: Tensor | None) -> "Numbered":
        if features is None or features.numel() != 1:
            raise ValueError("say which arm of the prior this is: features must be its number")
        if float(features) != int(features) or int(features) < 0:
            raise ValueError(f"the number of an arm must be a whole one from 0 on; got {float(features):g}")
        return Numbered((*self.names, name), (*self.numbers, int(features)))


@dataclass(frozen=True, eq=False)
class Joined(NamedArms):
    """Arms are rows of features, which follow those of the context: for functions of (context, arm).

    Args:
        names: of the arms.
        features: one row per arm, `(arms, p)`.
    """

    features: Tensor
    separate = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_features(self.features, len(self.names))

    def rows(self, context: Tensor | None, num: int) -> Tensor:
        features = self.features.expand(num, -1, -1)
        if context is None:
            return features
        return torch.cat([context[:, None].expand(-1, len(self.names), -1), features.to(context)], -1)

    def without(self, position: int) -> "Joined":
        others = _without(range(len(self.names)), position)
        return replace(self, names=_without(self.names, position), features=self.features[list(others)])

    def with_arm(self, name: Hashable, features: Tensor | None) -> "Joined":
        known = self.features
        if features is None or features.reshape(-1).shape != known[0].shape:
            got = "none" if features is None else f"shape {tuple(features.shape)}"
            raise ValueError(f"a new arm needs {known.shape[-1]} features, as the others have; got {got}")
        both = torch.cat([known, features.reshape(1, -1).to(known)])
        return replace(self, names=(*self.names, name), features=both)


@dataclass(frozen=True, eq=False)
class Crossed(Joined):
    """Arms are rows of features, each multiplied by each of the context's: weights are shared by all arms.

    Put a one into the context for what features say by themselves, and one into the features for what it says.
    """

    def rows(self, context: Tensor | None, num: int) -> Tensor:
        if context is None:
            raise ValueError("crossed arms need a context; got none. Use Joined for arms without")
        return (context[:, None, :, None] * self.features[:, None, :].to(context)).flatten(-2)


@dataclass(frozen=True, eq=False)
class Hybrid(Crossed):
    """As `Crossed`, and each arm has weights of the context besides: c p + arms c inputs.

    One regression knows both, so that they are told apart exactly. `with_arm` would widen it, and is refused.
    """

    def rows(self, context: Tensor | None, num: int) -> Tensor:
        shared = super().rows(context, num)
        assert context is not None
        own = torch.eye(len(self.names)).to(shared)[:, :, None] * context[:, None, None].to(shared)
        return torch.cat([shared, own.flatten(-2)], -1)

    def without(self, position: int) -> "Hybrid":
        raise ValueError("weights of single arms are part of the prior: make its choice unavailable instead")

    def with_arm(self, name: Hashable, features: Tensor | None) -> "Hybrid":
        raise ValueError("a new arm would need weights that the prior has not; learn one that has them")


def arms_of(arms: Any, prior: object) -> Arms:
    """The arms that a policy was given: arms, features by name, or names.

    Names are numbers to a prior that has `num_arms`, and have a posterior each with any other.
    """
    if isinstance(arms, NamedArms):
        return arms  # type: ignore[return-value]
    if isinstance(arms, Mapping):
        rows = [torch.as_tensor(row) for row in arms.values()]
        if any(row.ndim != 1 or row.shape != rows[0].shape for row in rows):
            shapes = sorted({tuple(row.shape) for row in rows})
            raise ValueError(f"features of arms must be vectors of one length; got shapes {shapes}")
        return Joined(tuple(arms), torch.stack(rows).to(torch.get_default_dtype()))
    if isinstance(arms, int) or not isinstance(arms, Sequence) or isinstance(arms, str):
        raise TypeError(f"arms must be names, features by name, or Arms; got {arms!r}. Try range({arms!r})")
    known = num_arms_of(prior)
    if known is None:
        return Separate(tuple(arms))
    if len(arms) != known:
        raise ValueError(
            f"the prior knows {known} arms; got {len(arms)} names. Say which they are: Numbered(names, numbers)"
        )
    return Numbered(tuple(arms))


def rows_of_chosen(x: Tensor, position: Tensor, *, separate: bool) -> Tensor:
    """Of the rows of all arms at n decisions, those of the arms at `position` `(n,)`: `(n, d)`."""
    return x[:, 0, 0] if separate else x[torch.arange(len(position)), position]


def require_different(names: Sequence[Hashable]) -> None:
    """No two arms have one name.

    Raises:
        ValueError: two have.
    """
    seen: set[Hashable] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"arms must have different names; {name!r} is named twice")
        seen.add(name)


def _without(values: Sequence[T], position: int) -> tuple[T, ...]:
    return (*values[:position], *values[position + 1 :])


def _require_features(features: Tensor, num_arms: int) -> None:
    if features.ndim != 2 or len(features) != num_arms:
        raise ValueError(f"features must have shape ({num_arms}, p), a row per arm; got {tuple(features.shape)}")
    if not bool(features.isfinite().all()):
        raise ValueError(
            f"features must be finite; those of arm {(~features.isfinite().all(-1)).nonzero()[0].item()} are not"
        )
