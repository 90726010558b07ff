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
from bayesmeta.fields import LearnedFrom
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.numerics.optimise import VALUE_TOLERANCE, maximise
from bayesmeta.warning_kinds import LimitWarning, warn

__all__ = ["Hierarchical", "Hyperparameter", "Hyperparameters", "LimitWarning", "fit_by_mode", "most_probable"]

MEANS = ("loc", "logit_mean", "log_mean")
FLAT = 1e-12  # of the objective, per row: less than this between a limit and the best value found is no difference


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
        source: the prior, and the arguments of its `hyperparameters` that made this; a copy in another process is made
            from them anew.
    """

    entries: Sequence[Hyperparameter]
    log_evidence: Callable[[Tensor], Tensor]
    build: Callable[[Tensor], Any]
    num_rows: float
    hyperprior: Callable[[Tensor], Tensor] | None = None
    total_log_evidence: Callable[[Tensor], Tensor] | None = None
    tolerance: float = VALUE_TOLERANCE
    source: tuple[Any, tuple[Any, ...], dict[str, Any]] | None = None

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
        like = tasks.y if isinstance(tasks, Data) else tasks.count
        return cls(
            entries,
            lambda vector: build(vector[..., None, :]).log_evidence(tasks),
            lambda vector: build(vector).to(like),
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
        return torch.tensor([entry.start for entry in self.entries], dtype=torch.float64)

    @property
    def scale(self) -> Tensor:
        return torch.tensor([entry.scale for entry in self.entries], dtype=torch.float64)

    @property
    def limit(self) -> Tensor:
        return torch.tensor([entry.limit for entry in self.entries], dtype=torch.float64)

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


def _made_again(prior: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hyperparameters:
    made: Hyperparameters = prior.hyperparameters(*args, **kwargs)
    return made


@runtime_checkable
class Hierarchical(Protocol):
    """A family whose hyperparameters can be learned as one vector: by their mode, by their spread, or by MCMC."""

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """The unknowns given `tasks`, at least two on one axis; `self`, without batch, is the hyperprior's centre."""
        ...


@with_gradients
def most_probable(
    unknown: Hyperparameters,
    *,
    hyperprior_weight: float = 1.0,
    task_weights: Tensor | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """The vector where the log hyperposterior is greatest.

    Args:
        hyperprior_weight: 1 for the mode of the hyperposterior, 0 for plain empirical Bayes.
        task_weights: of the tasks' evidence, see `Hyperparameters.log_density`.
        start: where the search starts, the hyperprior's centre unless given.

    Raises:
        ValueError: the weight is negative, or the evidence grows without bound.

    Warns:
        LimitWarning: an entry ended at its limit.
    """
    if not 0.0 <= hyperprior_weight < math.inf:
        raise ValueError(f"hyperprior_weight must be zero or more; got {hyperprior_weight:g}")

    def objective(vector: Tensor) -> Tensor:
        density = unknown.log_density(vector, hyperprior_weight=hyperprior_weight, task_weights=task_weights)
        return density / unknown.num_rows

    best = maximise(
        objective, unknown.start if start is None else start, limit=unknown.limit, tolerance=unknown.tolerance
    )
    return _at_limits(unknown, objective, best)


def fit_by_mode(prior: Any, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> Any:
    """The most probable prior after `tasks`: a family whose body says `fit = fit_by_mode` has a `fit`.

    Args:
        prior: `Family.initial(tasks)`, without a batch: where the search starts, and the centre of the hyperprior.
        tasks: at least two tasks with rows, on one axis.
        hyperprior_weight: 0 for plain empirical Bayes.

    Warns:
        LimitWarning: a hyperparameter ended at its limit.
    """
    unknown = prior.hyperparameters(tasks)
    fitted = unknown.build(most_probable(unknown, hyperprior_weight=hyperprior_weight))
    return fitted._replace(learned_from=LearnedFrom.counts(tasks.count))


def _at_limits(unknown: Hyperparameters, objective: Callable[[Tensor], Tensor], best: Tensor) -> Tensor:
    """Move entries to the limits that they approach: the search stops on the way, where nothing is gained any more."""
    with torch.no_grad():
        best = _together(objective, best, unknown.limit)
        value, moved = objective(best), torch.zeros(len(best), dtype=torch.bool, device=best.device)
        for i, entry in enumerate(unknown.entries):
            if math.isinf(entry.limit) or abs(best[i]) < 0.5 * entry.limit:
                continue
            there = best.clone()
            there[i] = entry.limit if best[i] > 0 else -entry.limit
            if objective(there) >= value - FLAT:
                moved[i] |= bool(there[i] != best[i])
                best, value = there, objective(there)
                text = f"{entry.name} ended at its limit, {float(there[i]):.3g}: {entry.at_limit}"
                warn(text, LimitWarning)
    return _others(objective, best, moved, unknown.limit) if bool(moved.any()) else best


def _together(objective: Callable[[Tensor], Tensor], best: Tensor, limit: Tensor) -> Tensor:
    """Entries that approach their limits side by side, as a Dirichlet's do, moved alike until the first is there."""
    for sign in (1.0, -1.0):
        near = (sign * best >= 0.5 * limit) & limit.isfinite()
        if near.sum() > 1:
            there = torch.where(near, best + sign * (limit - sign * best)[near].min(), best)
            best = there if objective(there) >= objective(best) - FLAT else best
    return best


def _others(objective: Callable[[Tensor], Tensor], best: Tensor, held: Tensor, limit: Tensor) -> Tensor:
    """The best vector with some entries held where they are."""
    if bool(held.all()):
        return best
    found = maximise(lambda rest: objective(best.masked_scatter(~held, rest)), best[~held], limit=limit[~held])
    return best.masked_scatter(~held, found)
