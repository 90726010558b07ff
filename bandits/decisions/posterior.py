"""What a policy knows of all its tasks: a posterior in place, whose arms come and go."""

import contextlib
import dataclasses
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from bandits.decisions.joining import joined_state, prior_of_some, prior_with_another
from bayesmeta.fields import TensorFields
from bayesmeta.numerics.gradients import ordinary
from bayesmeta.online.protocol import Begins, Index, InPlace, NoMarginalError, Online
from bayesmeta.online.start import online
from bayesmeta.protocol import Predictive

__all__ = ["PolicyPosterior", "Prior", "require_prior"]

P = TypeVar("P")
Prior = Predictive | InPlace  # of a policy


@runtime_checkable
class Valued(Protocol):
    """What says of which shape its values are."""

    @property
    def event_shape(self) -> torch.Size: ...


class PolicyPosterior:
    """The prior of a policy, and what rewards have made of it, in float64 whatever the prior is in.

    Args:
        prior: of all tasks, see `require_prior`.
        tasks: how many there are.
        arms: how many, if each has a posterior of its own.
        separate: whether that is so; else all arms of a task share one.
    """

    def __init__(self, prior: Prior, tasks: int, arms: int, *, separate: bool) -> None:
        self.prior: Prior = ordinary(prior)  # what was made under inference_mode could not be changed in place
        self.dtype = _dtype_of(prior)
        self._tasks, self._separate = tasks, separate
        self._width: int | None = None
        self._keep(self._begun(self.prior, arms))

    @property
    def width(self) -> int | None:
        """Of the rows of arms, known from the first decision on."""
        return self._width

    def require_rows(self, x: Tensor) -> None:
        """Refuse rows of arms that are not as wide as those before, or that the prior does not take.

        Raises:
            ValueError: they are not.
        """
        width = x.shape[-1] if self._width is None else self._width
        if x.shape[-1] != width:
            raise ValueError(
                f"contexts must be as wide as those before: rows of arms have {x.shape[-1]} columns, and had {width}"
            )
        if self._width is None:
            self._require_fitting(x[:1])
            self._width = width

    @property
    def begins(self) -> Begins | None:
        """The state, if it matters to it when tasks decide first."""
        return self._begins

    def learn(self, task: Tensor, arm: Tensor, x: Tensor, rewards: Tensor) -> None:
        """Add a row `(m, d)` with its reward `(m,)` to each task and arm, `(m,)` each.

        Raises:
            ValueError: a reward is none that the prior can have; nothing was changed.
        """
        index: Index = (task, arm) if self._separate else (task,)
        self.online.add(index, x, rewards.double())

    def frozen(self, index: Any) -> Any:
        """The posterior of the entries that `index` takes, which later rewards do not change."""
        return _in(self.dtype, self.online.posterior(index))

    def to(self, dtype: torch.dtype) -> None:
        """Prior and answers are in `dtype` from now on."""
        self.prior, self.dtype = _in(dtype, self.prior), dtype

    def add_arm(self, arms: int, prior: Any) -> None:
        """One more arm than the `arms` that there are.

        Args:
            prior: of the new one; None for the policy's.

        Raises:
            ValueError: arms have priors that differ, and the new one has none.
        """
        if self._separate:
            before: Any = self.prior  # of separate arms, which can have a batch
            whole, new = prior_with_another(before, arms, prior)
            self._rearrange(whole, arms + 1, list(range(arms)), self._begun(new, 1))
        elif prior is not None:
            raise ValueError("all arms share one posterior here: give features of the new one, not a prior")

    def take_arms(self, positions: list[int]) -> None:
        """Arms are those at `positions` from now on, of which one may be there twice."""
        if self._separate:
            before: Any = self.prior
            self._rearrange(prior_of_some(before, positions), len(positions), positions, None)

    def _begun(self, prior: Prior, arms: int) -> Online:
        # contexts such as seconds since 1970 leave no digits in float32
        return online(_in(torch.float64, prior), (self._tasks, arms) if self._separate else (self._tasks,))

    def _rearrange(self, prior: Prior, arms: int, keep: list[int], fresh: Online | None) -> None:
        state = self._begun(prior, arms)
        added = None if fresh is None else fresh.state_dict()
        state.load_state_dict(joined_state(self.online.state_dict(), torch.tensor(keep), added, adds=fresh is not None))
        self.prior = prior
        self._keep(state)

    def _keep(self, state: Online) -> None:
        self.online = state
        self._begins = state if isinstance(state, Begins) else None

    def _require_fitting(self, x: Tensor) -> None:
        """Ask about one decision, to find out before anything depends on it whether the prior takes such rows."""
        try:
            with contextlib.suppress(NoMarginalError):
                self.online.marginal(x, 0)
        except Exception as error:  # families differ in what they raise
            columns = f"rows of arms have {x.shape[-1]} columns, which the prior does not take"
            hint = "Give a context" if not x.shape[-1] else "Contexts must be as wide as those that it was learned from"
            raise ValueError(f"{columns}: {error}. {hint}") from error


def require_prior(prior: Any, policy: str) -> None:
    """A policy, of the class that is named, needs a prior whose rows are numbers.

    Raises:
        TypeError: this is none.
        ValueError: its rows are vectors, or it is on a GPU.
    """
    if isinstance(prior, type) or not isinstance(prior, Predictive | InPlace):
        what = f"the class {prior.__name__}" if isinstance(prior, type) else type(prior).__name__
        raise TypeError(f"{policy} needs a prior, such as BetaBernoulli.initial(tasks); got {what}")
    if isinstance(prior, Valued) and prior.event_shape:
        raise ValueError(f"a reward is one number; this prior is of vectors, event_shape {tuple(prior.event_shape)}")
    device = getattr(prior, "device", torch.device("cpu"))
    if device.type != "cpu":  # a decision takes microseconds, less than it takes to ask a GPU
        raise ValueError(f"policies decide on the CPU, and this prior is on {device}; give them prior.to('cpu')")


def _in(dtype: torch.dtype, prior: P) -> P:
    return prior.to(dtype) if isinstance(prior, TensorFields) else prior


def _dtype_of(prior: Any) -> torch.dtype:
    """Of the numbers of a prior, which may be inside others."""
    for field in dataclasses.fields(prior):
        value = getattr(prior, field.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.dtype
        first = value[0] if isinstance(value, tuple) and value else value
        if dataclasses.is_dataclass(first) and dataclasses.fields(first):
            return _dtype_of(first)
    return torch.get_default_dtype()
