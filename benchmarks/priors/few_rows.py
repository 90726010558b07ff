"""How well are rows of a new task predicted after none, five and twenty others of it were shown?

Priors are learned from past tasks alone. Rows of new tasks are put in random order once, and those after the first
twenty are predicted: the same ones whatever was shown.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta import Data
from bayesmeta.checks.predictive_checks import TaskMean, log_score
from bayesmeta.random import rand
from benchmarks.report import Figure

__all__ = ["SHOWN", "Method", "Prediction", "compare", "figures", "hidden", "joined", "predict", "shown", "shuffled"]

SHOWN = (0, 5, 20)  # rows of a new task
HALF_WIDTH = 1.6448536269514722  # of a central 90% interval, in standard deviations of a normal


@dataclass(frozen=True)
class Prediction:
    """How well the hidden rows of new tasks are predicted, by task.

    Args:
        log_score: mean log predictive density of a row.
        squared_error: mean square of y less the mean of its prediction.
        coverage: share inside central 90% intervals.
    """

    log_score: TaskMean
    squared_error: TaskMean
    coverage: TaskMean


@dataclass(frozen=True)
class Method:
    """One prior: seconds that learning it took, and predictions by the number of rows shown."""

    seconds: float
    after: dict[int, Prediction]


def shuffled(tasks: Data, generator: Generator) -> Data:
    """Rows of each task in random order, the real ones first."""
    keys = rand(tasks.mask.shape, like=tasks.y, generator=generator).masked_fill(~tasks.mask, math.inf)
    order = keys.argsort(-1)
    x = tasks.x.gather(-2, order[..., None].expand(tasks.x.shape))
    return Data(x, tasks.y.gather(-1, order), tasks.mask.gather(-1, order))


def shown(new: Data, number: int) -> Data:
    """The first rows of shuffled tasks, all of those that have fewer."""
    return new.rows(slice(number))


def hidden(new: Data) -> Data:
    """The rows of shuffled tasks that are never shown."""
    return new.rows(slice(max(SHOWN), None))


def compare(methods: Mapping[str, Callable[[Data], Any]], past: Data, new: Data) -> dict[str, Method]:
    """Every method, learned from `past` alone.

    Args:
        methods: from past tasks to a prior whose predictions are normal.
        new: tasks as `shuffled` gives them.
    """
    results = {}
    for name, learn in methods.items():
        start = time.perf_counter()
        prior = learn(past)
        seconds = time.perf_counter() - start
        results[name] = Method(seconds, {number: predict(prior, new, number) for number in SHOWN})
    return results


def predict(prior: Any, new: Data, number: int) -> Prediction:
    """The hidden rows of all tasks, after the first `number` of each."""
    posterior, rows = prior.condition(shown(new, number)), hidden(new)
    y = posterior.predict(rows.x)
    error = rows.y - y.mean
    inside = (error / y.stddev).abs() < HALF_WIDTH
    by_task = (_by_task(value, rows.mask) for value in (error.square(), inside))
    return Prediction(log_score(posterior, rows), *by_task)


def joined(parts: Sequence[dict[str, Method]]) -> dict[str, Method]:
    """Results on several sets of new tasks as those on all of them; seconds are the mean."""
    return {
        name: Method(
            sum(part[name].seconds for part in parts) / len(parts),
            {number: _all_tasks([part[name].after[number] for part in parts]) for number in SHOWN},
        )
        for name in parts[0]
    }


def figures(name: str, results: Mapping[str, Method], *, beside: str) -> list[Figure]:
    """As `name/method/log_score/number shown`; means over tasks with standard errors clustered by task.

    Args:
        beside: the method that log scores of the others are compared with, task by task.
    """
    found = []
    for method, result in results.items():
        stem = f"{name}/{method}"
        found.append(Figure(f"{stem}/fit_s", result.seconds, "to learn the prior, seconds"))
        for number, each in result.after.items():
            score, square = each.log_score, each.squared_error
            ahead = TaskMean(score.by_task - results[beside].after[number].log_score.by_task)
            rmse = math.sqrt(square.value)
            found += [
                Figure(f"{stem}/log_score/{number}", score.value, f"per row; to `{beside}` {ahead}"),
                Figure(f"{stem}/log_score_se/{number}", score.standard_error, "clustered by task"),
                Figure(f"{stem}/log_score_difference_se/{number}", ahead.standard_error, f"of that to `{beside}`"),
                Figure(f"{stem}/rmse/{number}", rmse, f"+- {0.5 * square.standard_error / rmse:.2g}"),
                Figure(f"{stem}/coverage/{number}", each.coverage.value, f"+- {each.coverage.standard_error:.2g}"),
            ]
    return found


def _all_tasks(parts: Sequence[Prediction]) -> Prediction:
    def cat(field: str) -> TaskMean:
        return TaskMean(torch.cat([getattr(part, field).by_task for part in parts]))

    return Prediction(cat("log_score"), cat("squared_error"), cat("coverage"))


def _by_task(values: Tensor, mask: Tensor) -> TaskMean:
    return TaskMean(values.double().masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1))
