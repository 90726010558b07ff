"""Is this prior better than the last one? Evidence of tasks left out, and prequential code length."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta.checks.predictive_checks import TaskMean, filled
from bayesmeta.data.rows import Data
from bayesmeta.describe import Described
from bayesmeta.doors import counted
from bayesmeta.hyperparameters.hyperposterior import Hyperposterior
from bayesmeta.hyperparameters.vector import Hierarchical
from bayesmeta.progress import tracked
from bayesmeta.protocol import Evidence, Learnable, Predictive

__all__ = ["Comparison", "LeftOut", "code_length", "compare", "leave_one_task_out", "psis_leave_one_task_out"]

SLOW = 50  # tasks from which on refits take seconds, and show their progress
UNRELIABLE = 0.7  # Pareto k above which draws given all tasks say too little of the hyperposterior given all but one


@dataclass(frozen=True)
class Comparison:
    """One prior of several.

    Args:
        name: of the prior.
        score: mean over tasks of the log density of a whole task, in nats.
        difference: score less that of the best prior, task by task; its standard error is that of pairs.
    """

    name: str
    score: TaskMean
    difference: TaskMean

    def __str__(self) -> str:
        return f"{self.name}: {self.score}, from the best {self.difference}"


@dataclass(frozen=True, eq=False)
class LeftOut(Described):
    """What the hyperposterior given all other tasks makes of each task.

    Args:
        log_evidence: log p(rows of a task | rows of all others), hyperparameters integrated out, `(tasks,)`.
        error: its Monte Carlo standard error, `(tasks,)`.
        pareto_k: tail of the importance ratios, `(tasks,)`; the larger, the more the task moves the hyperposterior.
        refitted: where the hyperposterior was fitted anew to all other tasks, `(tasks,)`.
    """

    log_evidence: Tensor
    error: Tensor
    pareto_k: Tensor
    refitted: Tensor


def leave_one_task_out(prior: Any, tasks: Data, *, progress: bool = True) -> Tensor:
    """log p(rows of a task) under the prior learned from all other tasks, for each task: shape `(tasks,)`.

    Each is an exact refit that never sees the task it is held to.

    Args:
        prior: where learning starts; one that does not depend on `tasks`, or only through its scale.
        tasks: at least three, on one axis.
        progress: show a bar where there are many tasks.

    Raises:
        ValueError: fewer than three tasks, or more than one axis of tasks.
    """
    if not (isinstance(prior, Learnable) and isinstance(prior, Evidence)):
        raise ValueError(f"leaving tasks out needs a prior with fit and log_evidence; got {type(prior).__name__}")
    _require_three(tasks)
    out = []
    for s in _tracked(range(len(tasks.mask)), progress):
        learned = prior.fit(_without(tasks, s))
        out.append(learned.log_evidence(_tasks(tasks, slice(s, s + 1))))
    return torch.cat(out)


@counted(num_draws=2)
def psis_leave_one_task_out(
    prior: Any,
    tasks: Data,
    *,
    num_draws: int = 1000,
    refit_above: float = UNRELIABLE,
    generator: Generator | None = None,
    progress: bool = True,
) -> LeftOut:
    r"""log p(rows of a task) under the hyperposterior given all other tasks, from one fit to all of them.

    Draws of hyperparameters are weighed by $1 / p(D_s \mid v)$, and the largest weights are smoothed by a generalised
    Pareto. Where its shape k is too large for that, the hyperposterior is fitted anew without the task.
    The answer is that of `Hyperposterior.marginal`, where `leave_one_task_out` has that of the most probable prior.

    Args:
        prior: where learning starts, `Hierarchical`; see `leave_one_task_out`. Some families take the units of their
            hyperprior from the tasks: from all of them here, from all others in a refit.
        tasks: at least three, on one axis.
        num_draws: of hyperparameters.
        refit_above: a Pareto k; infinity for no refits, minus infinity for refits only.
        progress: show a bar where there are many refits.

    Raises:
        ValueError: fewer than three tasks, more than one axis of tasks, or a prior that is not `Hierarchical`.

    Source: Vehtari, Gelman and Gabry, Practical Bayesian model evaluation using leave-one-out cross-validation and WAIC
    (2017); Vehtari et al., Pareto smoothed importance sampling (2024).
    """
    if not isinstance(prior, Hierarchical):
        raise ValueError(
            f"leaving tasks out by importance needs a prior with hyperparameters; got {type(prior).__name__}. "
            "leave_one_task_out refits any prior with fit and log_evidence"
        )
    _require_three(tasks)
    fitted = Hyperposterior.fit(prior, tasks, num_draws=num_draws, generator=generator)
    evidence = fitted.task_log_evidence().mT
    log_weights, pareto_k = _pareto_smoothed((fitted.log_weights - evidence).nan_to_num(nan=-torch.inf))
    log_evidence, error = _weighted_mean(log_weights, evidence)
    refitted = ~(pareto_k <= refit_above)  # a k that is not a number is no reason to trust
    for s in _tracked(refitted.nonzero()[:, 0].tolist(), progress):
        others = Hyperposterior.fit(prior, _without(tasks, s), num_draws=num_draws, generator=generator)
        alone = others.priors.log_evidence(tasks[s]).double()
        log_evidence[s], error[s] = _weighted_mean(others.log_weights, alone)
    return LeftOut(log_evidence, error, pareto_k, refitted)


def compare(scores: Mapping[str, Tensor]) -> list[Comparison]:
    """Priors from best to worst, by log densities `(tasks,)` of the same tasks, such as `leave_one_task_out` returns.

    Raises:
        ValueError: there are no scores, or they are of different tasks.
    """
    shapes = {tuple(score.shape) for score in scores.values()}
    if len(shapes) != 1:
        raise ValueError(f"scores must be of the same tasks for every prior; got shapes {sorted(shapes)}")
    best = max(scores.values(), key=lambda score: float(score.nanmean()))
    rows = [Comparison(name, TaskMean(score), TaskMean(score - best)) for name, score in scores.items()]
    return sorted(rows, key=lambda row: -row.score.value)


def code_length(prior: Predictive, tasks: Data) -> Tensor:
    """Nats it takes to tell the rows of each task one after another, each by its prediction from those before it.

    For an exact family the length of all rows is minus the log evidence; for any other predictive it is what its
    predictions are worth, whether or not it has an evidence. All tasks at once, row after row.

    Args:
        prior: without a batch, or with that of `tasks`.
        tasks: ragged; the order of rows is theirs.

    Returns:
        Cumulative lengths `(*batch, n)`, constant over padding, so that the last is that of all rows.

    Source: Dawid, Present position and potential developments: the prequential approach (1984).
    """
    tasks, axis = filled(tasks), tasks.mask.ndim - 1
    lengths = torch.zeros(tasks.mask.shape, dtype=torch.float64, device=tasks.y.device)
    for i in range(tasks.mask.shape[-1]):
        before = Data(tasks.x.narrow(axis, 0, i), tasks.y.narrow(axis, 0, i), tasks.mask[..., :i])
        prediction = prior.condition(before).predict(tasks.x.narrow(axis, i, 1))
        log_prob = prediction.log_prob(tasks.y.narrow(axis, i, 1)).double()
        lengths[..., i : i + 1] = -log_prob.masked_fill(~tasks.mask[..., i : i + 1], 0.0)
    return lengths.cumsum(-1)


def _pareto_smoothed(log_ratios: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised log weights `(tasks, draws)` and Pareto k `(tasks,)` of importance ratios."""
    from arviz import psislw

    log_weights, pareto_k = psislw(log_ratios.cpu().numpy())
    return torch.as_tensor(log_weights).to(log_ratios), torch.as_tensor(pareto_k).to(log_ratios)


def _weighted_mean(log_weights: Tensor, log_values: Tensor) -> tuple[Tensor, Tensor]:
    """Log of the mean over the last axis under normalised weights, and its Monte Carlo standard error."""
    log_mean = (log_weights + log_values).logsumexp(-1)
    relative = (log_values - log_mean[..., None]).exp() - 1.0
    return log_mean, (log_weights.exp() * relative).square().sum(-1).sqrt()


def _require_three(tasks: Data) -> None:
    if len(tasks.batch_shape) != 1 or len(tasks.mask) < 3:
        raise ValueError(
            "to leave one task out and learn from the others takes three tasks or more on one axis; "
            f"got tasks of shape {tuple(tasks.batch_shape)}"
        )


def _tracked(which: Sequence[int], progress: bool) -> Iterable[int]:
    return tracked(which, "leaving tasks out", shown=progress and len(which) >= SLOW)


def _without(tasks: Data, s: int) -> Data:
    return _tasks(tasks, torch.arange(len(tasks.mask), device=tasks.mask.device) != s)


def _tasks(data: Data, index: Tensor | slice) -> Data:
    return Data(data.x[index], data.y[index], data.mask[index])
