"""Is this prior better than the last one? Evidence of tasks left out, and prequential code length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.predictive_checks import TaskMean, filled
from bayesmeta.protocol import Evidence, Learnable, Predictive

__all__ = ["Comparison", "code_length", "compare", "leave_one_task_out"]

SLOW = 50  # tasks from which on refits take seconds, and show their progress


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
    if len(tasks.batch_shape) != 1 or len(tasks.mask) < 3:
        raise ValueError(
            "to leave one task out and learn from the others takes three tasks or more on one axis; "
            f"got tasks of shape {tuple(tasks.batch_shape)}"
        )
    count = len(tasks.mask)
    everyone = torch.arange(count, device=tasks.y.device)
    out = []
    for s in track(range(count), "leaving tasks out", disable=not progress or count < SLOW, transient=True):
        learned = prior.fit(_tasks(tasks, everyone[everyone != s]))
        out.append(learned.log_evidence(_tasks(tasks, everyone[s : s + 1])))
    return torch.cat(out)


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


def _tasks(data: Data, index: Tensor) -> Data:
    return Data(data.x[index], data.y[index], data.mask[index])
