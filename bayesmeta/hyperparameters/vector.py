r"""What a family does not know before it has seen tasks: its hyperparameters as one vector with a proper hyperprior.

For hyperparameters $v$, unconstrained and centred where the search starts, and tasks $D_1, ..., D_S$, all learning of a
prior is about one function,

$$ \log p(v, D) = \lambda \log h(v) + \sum_s \log p(D_s \mid v), $$

the log hyperposterior up to a constant. `fit` finds its mode, `Hyperposterior` its spread, Pyro's NUTS draws from it.
With $\lambda = 0$ its mode is plain empirical Bayes, which with few tasks collapses: the differences between tasks are
estimated as zero as often as not.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_enough_tasks
from bayesmeta.describe import Described, listed, plural
from bayesmeta.numerics.optimise import VALUE_TOLERANCE
from bayesmeta.protocol import Weighable

__all__ = ["Hierarchical", "Hyperparameter", "Hyperparameters"]

MEANS = ("loc", "logit_mean", "log_mean")


@dataclass(frozen=True)
class Hyperparameter:
    """One entry of the vector of hyperparameters.

    Args:
        name: as people read it, such as `log_pseudo_count` or `loc[2]`.
        start: where the search starts, and where the normal hyperprior has its mean.
        scale: standard deviation of the hyperprior.
        limit: bound of the search on the absolute value of the entry, infinite where none is needed.
        at_limit: what it means that the search ended there.
        is_mean: whether it says what a task is expected to be, rather than how tasks or rows spread about it; None
            goes by the name, which for means is `loc`, `logit_mean` or `log_mean`, with or without an index.
    """

    name: str
    start: float
    scale: float
    limit: float = math.inf
    at_limit: str = ""
    is_mean: bool | None = None

    @property
    def moves_mean(self) -> bool:
        return self.name.split("[")[0] in MEANS if self.is_mean is None else self.is_mean


@dataclass(frozen=True, eq=False)
class Hyperparameters(Described):
    """The unknown hyperparameters of a family, given tasks.

    Args:
        entries: one per entry of the vector, h in all.
        log_evidence: of each task under hyperparameters `(*draws, h)`, float64, shape `(*draws, tasks)`; smooth.
        build: the prior at hyperparameters `(*draws, h)`, with batch_shape `(*draws,)`.
        num_rows: rows of all tasks.
        hyperprior: log density of vectors `(*draws, h)`, in place of independent normals at `start`.
        total_log_evidence: the evidence summed over tasks, where tasks that are alike can be counted once.
        tolerance: relative change of the evidence at which a search stops, above what its derivatives are exact to.
        device: of the tasks, and so of vectors.
        source: the prior, and the arguments of its `hyperparameters` that made this; a copy in another process is made
            from them anew.
    """

    entries: Sequence[Hyperparameter]
    log_evidence: Callable[[Tensor], Tensor]
    build: Callable[[Tensor], Weighable]
    num_rows: float
    hyperprior: Callable[[Tensor], Tensor] | None = None
    total_log_evidence: Callable[[Tensor], Tensor] | None = None
    tolerance: float = VALUE_TOLERANCE
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a value
    source: tuple["Hierarchical", tuple[Any, ...], dict[str, Any]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.source is None:
            raise TypeError("these Hyperparameters hold functions and cannot be copied; copy the prior and the tasks")
        return _made_again, self.source

    @classmethod
    def of(
        cls, entries: Sequence[Hyperparameter], build: Callable[[Tensor], Any], tasks: Data | Statistics
    ) -> "Hyperparameters":
        """The evidence is that of the priors that `build` builds, whose `log_evidence` has to be differentiable.

        For families that reduce their rows in little time: each step of a search does it again.

        Args:
            build: in the dtype of its vectors; the priors that are learned have that of `tasks`.

        Raises:
            ValueError: fewer than two tasks have rows.
        """
        require_enough_tasks(tasks.count, torch.Size())
        return cls(
            entries,
            lambda vector: build(vector[..., None, :]).log_evidence(tasks),
            lambda vector: build(vector).to(tasks.device, tasks.dtype),
            float(tasks.count.sum()),
        )

    def _title(self) -> str:
        return f"of {plural(round(self.num_rows), 'row')}, {len(self.entries)} in all: {listed(self.names)}"

    def _parts(self) -> dict[str, Any]:
        return {entry.name: f"{entry.start:.4g}, sd {entry.scale:.4g} of the hyperprior" for entry in self.entries}

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.entries]

    @property
    def start(self) -> Tensor:
        return self._each([entry.start for entry in self.entries])

    @property
    def scale(self) -> Tensor:
        return self._each([entry.scale for entry in self.entries])

    @property
    def limit(self) -> Tensor:
        return self._each([entry.limit for entry in self.entries])

    def _each(self, numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=self.device)

    def log_hyperprior(self, vector: Tensor) -> Tensor:
        """log h(v) of vectors `(*draws, h)`: shape `(*draws,)`; normalised, unless it was given otherwise."""
        if self.hyperprior is not None:
            return self.hyperprior(vector)
        distance = ((vector - self.start.to(vector)) / self.scale.to(vector)).square().sum(-1)
        return -0.5 * distance - self.scale.log().sum().to(vector) - 0.5 * len(self.entries) * math.log(2.0 * math.pi)

    def log_density(
        self, vector: Tensor, *, hyperprior_weight: float = 1.0, task_weights: Tensor | None = None
    ) -> Tensor:
        """log p(v, D) of vectors `(*draws, h)`: shape `(*draws,)`; without the hyperprior where its weight is 0.

        `task_weights` multiply the evidence of each task, as shares of a task that belong to one kind of several do.
        """
        if task_weights is not None:
            evidence = (self.log_evidence(vector) * task_weights).sum(-1)
        elif self.total_log_evidence is not None:
            evidence = self.total_log_evidence(vector)
        else:
            evidence = self.log_evidence(vector).sum(-1)
        return evidence + hyperprior_weight * self.log_hyperprior(vector) if hyperprior_weight else evidence


def _made_again(prior: "Hierarchical", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hyperparameters:
    return prior.hyperparameters(*args, **kwargs)


@runtime_checkable
class Hierarchical(Protocol):
    """A family whose hyperparameters can be learned as one vector: by their mode, by their spread, or by MCMC."""

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """The unknowns given `tasks`, at least two on one axis; `self`, without batch, is the hyperprior's centre."""
        ...
