"""Who suggests: what a study has shown so far is turned into what points promise for its next trial.

`MetaSampler`, and the replay of finished tables, ask a `Suggester` and take the point that promises most. `Turns` is
the one that `TuningPrior.fit` learns, `OnePosterior` the plain one; a rule that was learned itself would be a third.
The other protocols are what some suggesters can tell besides, of the past or of what they believe.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bo.space.search_space import SearchSpace
from bo.space.study_space import OwnSpace
from bo.values import Value

__all__ = [
    "EachTask",
    "HasPosterior",
    "ReadsFeatures",
    "RemembersTasks",
    "StudyState",
    "Suggester",
    "Suggestion",
    "TaskModel",
]

# TypeVars rather than typing.Self, which beartype cannot check inside undecorated classes
M = TypeVar("M", bound="TaskModel")
R = TypeVar("R", bound="ReadsFeatures")


@dataclass(frozen=True, eq=False)
class StudyState:
    """What a study has shown so far.

    Args:
        space: whose points rows and pending trials are.
        rows: what was evaluated, in the order of the trials, `y` being the objective in its own units.
        pending: points that were tried and have no value.
        maximize: whether more is better.
        turns: how earlier suggestions of the study came about, finished or not: what the suggester called them.
        own: the same rows and points as the study has them, where it is not searched in `space`: what no past can
            mislead sees these.
        feasible: which rows met all constraints; None where all did.
    """

    space: SearchSpace
    rows: Data
    pending: Float[Tensor, "m d"]
    maximize: bool
    turns: Sequence[str] = ()
    own: OwnSpace | None = None
    feasible: Bool[Tensor, " n"] | None = None

    @cached_property
    def better(self) -> Float[Tensor, " n"]:
        """The objectives, more being better."""
        return self.rows.y if self.maximize else -self.rows.y

    def double(self) -> "StudyState":
        """The same in float64, in which points of a space are."""
        return replace(self, rows=self.rows.to(torch.float64), pending=self.pending.double())

    @property
    def as_the_study_has_it(self) -> OwnSpace:
        return OwnSpace(self.space, self.rows.x, self.pending) if self.own is None else self.own


class Suggestion(NamedTuple):
    """How a suggestion comes about, in a word that the next state lists among its turns; and what points promise."""

    turn: str
    value: Value


@runtime_checkable
class Suggester(Protocol):
    """A rule of suggesting. It draws nothing, and keeps nothing of a study."""

    def suggest(self, study: StudyState) -> Suggestion: ...


@runtime_checkable
class TaskModel(Protocol):
    """What expected improvement asks of a posterior over the objective of a task."""

    def condition(self: M, data: Data) -> M: ...

    def marginal(self, x: Tensor) -> Distribution:
        """Of the objective without noise at each point: normal, or a mixture of normals."""
        ...


@runtime_checkable
class HasPosterior(Protocol):
    """A suggester that believes something of a new study before its first trial."""

    @property
    def functions(self) -> TaskModel: ...

    @property
    def scores(self) -> bool:
        """Whether `functions` are of normal scores, more being better, or of the objective in its own units."""
        ...


@runtime_checkable
class EachTask(Protocol):
    """The functions of past tasks."""

    def each(self, x: Tensor) -> Tensor:
        """`(q, d)` to `(q, tasks)`."""
        ...


@runtime_checkable
class RemembersTasks(Protocol):
    """A suggester that knows the functions of past tasks."""

    @property
    def past(self) -> EachTask: ...


@runtime_checkable
class ReadsFeatures(Protocol):
    """A suggester to whom features of a task say which past tasks count for it."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Empty where the past tasks had none."""
        ...

    def given(self: R, task_x: Mapping[str, float]) -> R: ...
