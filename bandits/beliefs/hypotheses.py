"""Hypotheses about a task: which kind it is of, or whether the past says anything about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from bandits.beliefs.alternatives import OnlineAlternatives
from bandits.beliefs.families import HypothesesOfFamilies, require_hypotheses
from bandits.beliefs.wrapped import WeighableSums, Wrapped
from bayesmeta.mixture import Mixture
from bayesmeta.online.protocol import Index, State, distinct
from bayesmeta.online.sums import RowStatistics
from bayesmeta.protocol import Expandable

__all__ = ["Hypotheses", "stacked"]

B = TypeVar("B", bound=Expandable)


@dataclass(frozen=True, eq=False)
class Hypotheses(Wrapped):
    """One prior of several holds for a task, all its arms together, and its rewards say which.

    With a learned prior and a vague one it is a check of the past against the task, and a way back where the past
    misleads; with the components of `bayesmeta.fit_kinds` it is a task of unknown kind.

    Args:
        prior: with additive statistics and `log_evidence`, of batch_shape `(hypotheses,)` or `(hypotheses, arms)`.
        log_weights: before the first reward, normalised `(hypotheses,)`.

    Raises:
        ValueError: there is not one weight for each hypothesis.
    """

    prior: WeighableSums
    log_weights: Tensor

    def __post_init__(self) -> None:
        if self.log_weights.ndim != 1 or self.prior.batch_shape[:1] != self.log_weights.shape:
            raise ValueError(
                f"there must be a weight for each hypothesis; got {tuple(self.log_weights.shape)} for a prior of "
                f"batch_shape {tuple(self.prior.batch_shape)}"
            )

    @classmethod
    def of(
        cls, priors: Sequence[Any], weights: Sequence[float] | Tensor | None = None
    ) -> "Hypotheses | HypothesesOfFamilies":
        """From priors over the same arms, each without a batch or with one entry per arm.

        Args:
            priors: of one family, or of several, such as a `DiffusionPrior` and `CorrelatedArms`.
            weights: how likely each is before the first reward; by default all the same.

        Returns:
            Priors of one family stand side by side in `Hypotheses`; others are `HypothesesOfFamilies`, which do the
            same, one family after the other.

        Raises:
            TypeError: something is no prior.
            ValueError: a weight is not above 0, or the priors do not know the same arms.
        """
        chances = torch.ones(len(priors)) if weights is None else torch.as_tensor(weights)
        if not len(priors) or len(chances) != len(priors) or not bool((chances > 0).all()):
            raise ValueError(f"weights must be above 0, one for each of {len(priors)} priors; got {chances.tolist()}")
        require_hypotheses(priors)
        log_weights = chances.double().log().log_softmax(0)
        if all(type(prior) is type(priors[0]) and isinstance(prior, WeighableSums) for prior in priors):
            batch = torch.broadcast_shapes(*(prior.batch_shape for prior in priors))
            whole = stacked([prior.expand(batch) for prior in priors])
            if whole.batch_shape == (len(priors), *batch):  # else there is more to a prior than tensors of its batch
                return cls(whole, log_weights)
        return HypothesesOfFamilies(tuple(priors), log_weights)

    @classmethod
    def of_mixture(cls, mixture: Mixture) -> "Hypotheses":
        """From a mixture without a batch, such as `fit_kinds(...).prior`: a task is of one kind."""
        return cls(cast(WeighableSums, mixture.components), mixture.log_weights.double())

    @property
    def batch_shape(self) -> torch.Size:
        return self.prior.batch_shape[1:]

    def expand(self, batch_shape: Sequence[int]) -> "Hypotheses":
        return self.around(self._with_axes(len(batch_shape)).expand((len(self.log_weights), *batch_shape)))

    def __getitem__(self, index: Any) -> "Hypotheses":
        return self.around(self.prior[(slice(None), *(index if isinstance(index, tuple) else (index,)))])

    def online(self, batch_shape: Sequence[int]) -> "OnlineHypotheses":
        return OnlineHypotheses(self, batch_shape)

    def _with_axes(self, num: int) -> WeighableSums:
        """The prior with as many axes after that of hypotheses, of size one where it had none."""
        prior = self.prior
        for _ in range(num - len(self.batch_shape)):
            prior = prior[:, None]
        return prior


class OnlineHypotheses(OnlineAlternatives):
    """Statistics of each entry, and their evidence under each hypothesis."""

    def __init__(self, prior: Hypotheses, batch_shape: Sequence[int]) -> None:
        self.batch_shape = torch.Size(batch_shape)
        rest = self.batch_shape[1:]
        self._start = prior.log_weights
        self._priors = prior.expand(rest).prior  # (hypotheses, *rest)
        self._rows = RowStatistics(self._priors[0].expand(batch_shape))
        self._evidence = torch.zeros(*batch_shape, len(prior.log_weights), dtype=torch.float64)

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        self._rows.add(index, x, y)
        entry = distinct(index)
        each = self._priors[(slice(None), *entry[1:])] if len(entry) > 1 else self._priors[:, None]
        evidence = each.log_evidence(self._rows[entry])
        self._evidence[entry] = evidence.double().mT

    def state_dict(self) -> State:
        return {"rows": self._rows.state_dict(), "evidence": self._evidence}

    def load_state_dict(self, state: State) -> None:
        self._rows.load_state_dict(state["rows"])
        self._evidence = state["evidence"].clone()

    def _log_weights(self, index: Any) -> Tensor:
        evidence = self._evidence[index]
        return (
            self._start + evidence.flatten(1, -2).sum(1) if evidence.ndim > 2 else self._start + evidence
        ).log_softmax(-1)

    def _given(self, index: Any, which: Tensor) -> Any:
        prior = self._priors[which]
        return prior if self._rows.are_none else prior.condition(self._rows[index])

    def _each(self, index: Any) -> Any:
        num = len(self._evidence[index])
        prior = self._priors[None].expand((num, *self._priors.batch_shape))
        return prior if self._rows.are_none else prior.condition(self._rows[index][:, None])


def stacked(priors: Sequence[B]) -> B:
    """Priors of one family and batch_shape along a new first axis."""
    first: Any = priors[0]
    fields: dict[str, Any] = {}
    for name, value in vars(first).items():
        if isinstance(value, Tensor):
            fields[name] = torch.stack([getattr(prior, name) for prior in priors])
        elif isinstance(value, Expandable) and value.batch_shape:
            fields[name] = stacked([getattr(prior, name) for prior in priors])
    whole: B = first._replace(**fields)
    return whole
