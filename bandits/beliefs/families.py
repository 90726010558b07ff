r"""Hypotheses of different families about a task: each has a posterior of its own, and evidence weighs them.

Hypothesis $h$ of a task has log weight $\log w_h + \sum_i \log p_h(y_i \mid \text{rows before})$. A posterior in place
that estimates the whole sum itself (`Weighs`) is asked for it, since estimates of its terms would add up their errors.
A draw is of one hypothesis, and of all arms under it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Distribution

from bandits.beliefs.wrapped import LearnedByTasks, Wrapped, entries
from bayesmeta.data.rows import Data
from bayesmeta.distributions.mixture import MixtureDistribution, pick
from bayesmeta.distributions.side_by_side import SideBySide
from bayesmeta.doors import Draws
from bayesmeta.fields import TensorFields
from bayesmeta.online.protocol import Foretells, Index, InPlace, Online, State, Task, Weighs, rows_before
from bayesmeta.online.start import online
from bayesmeta.protocol import Additive, Evidence, Functions, Predictive, num_arms_of
from bayesmeta.random import categorical

__all__ = ["FamilyFunctions", "HypothesesOfFamilies", "OnlineFamilies", "require_hypotheses"]


@dataclass(frozen=True, eq=False)
class HypothesesOfFamilies(TensorFields):
    """One prior of several, of any families over the same arms, holds for a task; `Hypotheses.of` makes it.

    Args:
        priors: of batch shapes that broadcast.
        log_weights: normalised over the last axis.

    Raises:
        TypeError: something is no prior, or a prior that tasks learn together, or of several hypotheses itself.
        ValueError: the priors do not know the same arms, or there is not one weight for each.
    """

    priors: tuple[Any, ...]
    log_weights: Float[Tensor, "*#batch hypotheses"]

    def __post_init__(self) -> None:
        require_hypotheses(self.priors)
        if self.log_weights.shape[-1] != len(self.priors):
            raise ValueError(f"each of {len(self.priors)} priors needs a weight; got {tuple(self.log_weights.shape)}")

    @property
    def batch_shape(self) -> torch.Size:
        return torch.broadcast_shapes(*(prior.batch_shape for prior in self.priors))

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def num_arms(self) -> int | None:
        """Of priors that know arms by number, else None."""
        return num_arms_of(self.priors[0])

    @property
    def weights(self) -> Tensor:
        """Probabilities of the hypotheses, `(*batch, hypotheses)`."""
        return self.log_weights.exp()

    def condition(self, data: Data) -> "HypothesesOfFamilies":
        """Condition every prior, and weigh each by how likely the rows were."""
        log_weights = self.log_weights + self._evidence(data)
        return self._replace(
            priors=tuple(prior.condition(data) for prior in self.priors), log_weights=log_weights.log_softmax(-1)
        )

    def predict(self, x: Tensor) -> MixtureDistribution:
        """p(y | x) at each row, averaged over hypotheses."""
        return self._mixed([prior.predict(x) for prior in self.priors])

    def marginal(self, x: Tensor) -> MixtureDistribution:
        """p(f(x)) at each row, noise-free, where the families have it."""
        return self._mixed([prior.marginal(x) for prior in self.priors])

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "FamilyFunctions":
        """Draws, each of one hypothesis drawn by weight."""
        log_weights = self.log_weights.expand(*self.batch_shape, -1)
        index = categorical(num_draws, log_weights, generator=generator)
        return FamilyFunctions(tuple(prior.sample(num_draws, generator=generator) for prior in self.priors), index)

    def log_evidence(self, data: Data) -> Tensor:
        """log of the weighted mean of the families' evidence, one number per task."""
        return (self.log_weights + self._evidence(data)).logsumexp(-1)

    def online(self, batch_shape: Sequence[int]) -> "OnlineFamilies":
        """The posterior of tasks, to be updated in place."""
        return OnlineFamilies(self, batch_shape)

    def to(self, *args: Any, **kwargs: Any) -> "HypothesesOfFamilies":
        """The same with every floating-point tensor moved as by `Tensor.to`."""
        priors = tuple(prior.to(*args, **kwargs) for prior in self.priors)
        return self._replace(priors=priors, log_weights=self.log_weights.to(*args, **kwargs))

    def expand(self, batch_shape: Sequence[int]) -> "HypothesesOfFamilies":
        priors = tuple(prior.expand(batch_shape) for prior in self.priors)
        return self._replace(priors=priors, log_weights=self.log_weights.expand(*batch_shape, -1))

    def __getitem__(self, index: Any) -> "HypothesesOfFamilies":
        batch = self.batch_shape
        if not batch:
            raise IndexError("these HypothesesOfFamilies have no batch to index")
        own = self.log_weights if self.log_weights.ndim == 1 else self.log_weights.expand(*batch, -1)[index]
        return self._replace(priors=tuple(prior.expand(batch)[index] for prior in self.priors), log_weights=own)

    def _title(self) -> str:
        return f"of {', '.join(type(prior).__name__ for prior in self.priors)}"

    def _parts(self) -> dict[str, Any]:
        return {"weights": self.weights, **{f"prior {i}": prior for i, prior in enumerate(self.priors)}}

    def _evidence(self, data: Data) -> Tensor:
        return torch.stack(torch.broadcast_tensors(*(_evidence(prior, data).double() for prior in self.priors)), -1)

    def _mixed(self, each: Sequence[Distribution]) -> MixtureDistribution:
        return MixtureDistribution(self.log_weights[..., None], SideBySide(each, -2), -2)


@dataclass(frozen=True, eq=False)
class FamilyFunctions(Draws):
    """Draws of all families, of which each draw keeps those of one: `index` is `(draws, *batch)`."""

    functions: tuple[Functions, ...]
    index: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        each = torch.broadcast_tensors(*(functions(x) for functions in self.functions))
        return pick(torch.stack(each, self.index.ndim), self.index, self.index.ndim)

    def predict(self, x: Tensor) -> MixtureDistribution:
        chosen = torch.nn.functional.one_hot(self.index, len(self.functions)).double().log()
        return MixtureDistribution(chosen[..., None], SideBySide([each.predict(x) for each in self.functions], -2), -2)


class OnlineFamilies:
    """A posterior in place under each hypothesis, and how likely its rows were of each entry."""

    def __init__(self, prior: HypothesesOfFamilies, batch_shape: Sequence[int]) -> None:
        self.batch_shape, self._prior = torch.Size(batch_shape), prior
        self._states: list[Online] = [online(each, batch_shape) for each in prior.priors]
        for state, each in zip(self._states, prior.priors, strict=True):
            if hasattr(state, "alternatives"):
                raise TypeError(f"a {type(each).__name__} has hypotheses of its own, and cannot be one of several")
        self._evidence = torch.zeros(*batch_shape, len(self._states), dtype=torch.float64)

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        for prior in self._prior.priors:  # what one family cannot have is refused before any has it
            _require_rows(prior, index, x, y)
        turn = rows_before(index[:1])  # to some it matters in which order all rows of a task come
        for i in range(int(turn.max()) + 1 if len(turn) else 0):
            rows = turn == i
            self._step(tuple(part[rows] for part in index), x[rows], y[rows])

    def draw(self, x: Tensor, task: Task = None, *, generator: Generator | None = None) -> Tensor:
        of_each = (
            torch.arange(len(x)) if task is None else torch.full((len(x),), task) if isinstance(task, int) else task
        )
        which = categorical(1, self._log_weights(of_each), generator=generator)[0]
        values = torch.empty(len(x), *self.batch_shape[1:], x.shape[-2], dtype=torch.float64)
        for number, state in enumerate(self._states):
            mine = (which == number).nonzero()[:, 0]
            if len(mine):
                values[mine] = state.draw(x[mine], of_each[mine], generator=generator).double()
        return values

    def marginal(self, x: Tensor, task: Task = None) -> Distribution:
        log_weights, each = self.alternatives(x, task)
        rest = len(self.batch_shape)  # axes after that of hypotheses
        log_weights = log_weights.reshape(*log_weights.shape, *[1] * rest)
        return MixtureDistribution(log_weights, SideBySide(each, -1 - rest), -1 - rest)

    def alternatives(self, x: Tensor, task: Task = None) -> tuple[Tensor, list[Distribution]]:
        """Log weights `(n, hypotheses)`, and f under each hypothesis, of batch_shape `(n, *rest, q)`."""
        each = [state.marginal(x, task) for state in self._states]
        return self._log_weights(entries(task, len(x))), each

    def posterior(self, index: Any = ...) -> HypothesesOfFamilies:
        every = self._log_weights(...)
        axes = [1] * (len(self.batch_shape) - 1)
        log_weights = every.reshape(len(every), *axes, -1).expand(*self.batch_shape, -1)[index]
        return self._prior._replace(
            priors=tuple(state.posterior(index) for state in self._states), log_weights=log_weights
        )

    def state_dict(self) -> State:
        states = {str(number): state.state_dict() for number, state in enumerate(self._states)}
        return {"states": states, "evidence": self._evidence}

    def load_state_dict(self, state: State) -> None:
        for number, each in enumerate(self._states):
            each.load_state_dict(state["states"][str(number)])
        self._evidence = state["evidence"].clone()

    def _step(self, index: Index, x: Tensor, y: Tensor) -> None:
        """One row of each of distinct entries."""
        for number, state in enumerate(self._states):
            place: Any = (*index, number)
            if isinstance(state, Weighs):
                state.add(index, x, y)
                self._evidence[place] = state.log_evidence[index]
            else:
                self._evidence[place] += _foretold(state, index, x, y)
                state.add(index, x, y)

    def _log_weights(self, index: Any) -> Tensor:
        """Normalised, of some tasks `(n, hypotheses)`."""
        evidence = self._evidence[index]
        total = evidence.flatten(1, -2).sum(1) if evidence.ndim > 2 else evidence
        return (self._prior.log_weights + total).log_softmax(-1)


def _foretold(state: Online, index: Index, x: Tensor, y: Tensor) -> Tensor:
    """log p(y) of one row of each entry before it is added, `(m,)`."""
    if isinstance(state, Foretells):
        return state.log_predictive(index, x, y)
    return state.posterior(index).predict(x[:, None]).log_prob(y[:, None])[:, 0].double()


def _evidence(prior: Any, data: Data) -> Tensor:
    """log p(rows) of each task: the family's own, or the sum of what it says of each row given those before."""
    if isinstance(prior, Evidence):
        return prior.log_evidence(data)
    total = torch.zeros(data.mask.shape[:-1], dtype=torch.float64)
    for i in range(data.mask.shape[-1]):
        row = data.rows(slice(i, i + 1))
        each = prior.predict(row.x).log_prob(row.y)
        total = total + each.where(row.mask, 0.0)[..., 0]
        prior = prior.condition(row)
    return total


def _require_rows(prior: Any, index: Index, x: Tensor, y: Tensor) -> None:
    """Refuse rows that the family cannot have, by its own error."""
    while isinstance(prior, Wrapped):
        prior = prior.prior
    data = Data.of(x[:, None], y[:, None])
    if isinstance(prior, Additive):
        prior.statistics(data)
    else:
        (prior[index[1:]] if prior.batch_shape else prior).condition(data)


def require_hypotheses(priors: Sequence[Any]) -> None:
    """Each is a prior of one task, and all know the same arms.

    Raises:
        TypeError: something is no prior, or a prior that tasks learn together, or of several hypotheses itself.
        ValueError: the priors do not know the same arms, or are of vectors.
    """
    for prior in priors:
        _require_one(prior)
    first = priors[0]
    other = next((prior for prior in priors if num_arms_of(prior) != num_arms_of(first)), None)
    if other is not None:
        raise ValueError(f"hypotheses must be about the same arms; {_arms_of(first)}, and {_arms_of(other)}")


def _require_one(prior: Any) -> None:
    if isinstance(prior, type) or not isinstance(prior, Predictive | InPlace):
        raise TypeError(f"a hypothesis is a prior; got {prior!r}")
    if isinstance(prior, LearnedByTasks):
        raise TypeError(f"hypotheses are about one task; tasks learn from each other by {type(prior).__name__}")
    if hasattr(prior, "log_weights") and isinstance(prior, Wrapped | HypothesesOfFamilies):
        raise TypeError(f"a {type(prior).__name__} has hypotheses of its own; give the priors of all of them together")
    event_shape = getattr(prior, "event_shape", None)
    if event_shape:
        raise ValueError(f"a reward is one number; {type(prior).__name__} has event_shape {tuple(event_shape)}")


def _arms_of(prior: Any) -> str:
    num = num_arms_of(prior)
    return f"{type(prior).__name__} knows " + ("none by number" if num is None else f"{num} by number")
