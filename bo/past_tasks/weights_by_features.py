r"""Which past tasks count for a new one, by what is known of tasks before any trial: rows, columns, class balance, ...

A past task with features like the new task's counts for more. With features as normal scores $u$ of their ranks among
past tasks, so that their units do not matter, past task j has weight

$$ w_j \propto \exp\big(-\tfrac12 \textstyle\sum_i a_i (u_i - u_{ji})^2\big), $$

mixed with a little of equal weights. How much each feature counts is learned: precisions $a$ are those under which the
weighted mean of the other past functions comes closest to each of them, each task counting as one observation of the
logarithm of that error, and shrunk to where features say next to nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.fields import TensorFields
from bayesmeta.gp.process import GaussianProcess
from bayesmeta.numerics.optimise import maximise
from bo.past_tasks.scores import normal_scores

__all__ = ["TaskFeatures"]

EQUAL = 0.1  # share of equal weights, so that no past task is ever ruled out
PRECISION, PRECISION_WIDTH = 0.1, 1.5  # median of the prior of precisions, and the width of its logarithm
LIMIT = 6.0  # in widths


@dataclass(frozen=True, eq=False)
class TaskFeatures(TensorFields):
    """Features of past tasks, and how much each says.

    Args:
        names: of the features.
        learned: the process that the past tasks taught, all of them counting alike.
        values: of the features, one row per past task.
        precision: of each feature, in units of normal scores.
    """

    names: tuple[str, ...]
    learned: GaussianProcess
    values: Float[Tensor, "tasks p"]
    precision: Float[Tensor, " p"]

    @classmethod
    def learn(
        cls, names: tuple[str, ...], learned: GaussianProcess, values: Float[Tensor, "tasks p"]
    ) -> "TaskFeatures":
        """Learn how much each feature says.

        Raises:
            ValueError: there are not as many names as features, or `learned` has no past functions.
        """
        if len(names) != values.shape[1]:
            raise ValueError(f"names must be of {values.shape[1]} features; got {len(names)}")
        if learned.past is None:
            raise ValueError("learned must have past functions; use GaussianProcess.fit(tasks)")
        functions = learned.past.each(learned.past.points)
        inner = functions.mT @ functions / len(functions)
        u = _scores(values)
        apart = (u[:, None] - u).square()
        itself = torch.eye(len(u), dtype=torch.bool)

        def objective(vector: Tensor) -> Tensor:
            likeness = -0.5 * (apart @ _precision(vector)).masked_fill(itself, torch.inf)
            weights = _with_equal(likeness.softmax(-1)).masked_fill(itself, 0.0)
            weights = weights / weights.sum(-1, keepdim=True)
            error = inner.diagonal() - 2.0 * (weights * inner).sum(-1) + (weights @ inner * weights).sum(-1)
            return -0.5 * error.mean().log() - 0.5 * vector.square().sum() / len(u)

        start = torch.zeros(len(names), dtype=torch.float64)
        return cls(names, learned, values, _precision(maximise(objective, start, limit=start + LIMIT)))

    def weights(self, task_x: Mapping[str, float]) -> Float[Tensor, " tasks"]:
        """How much each past task counts for one with these features; all together one.

        Raises:
            ValueError: a feature is missing, or is not a finite number.
        """
        for name in self.names:
            if not math.isfinite(task_x.get(name, math.nan)):
                raise ValueError(f"feature {name!r} of the task must be a finite number; got {task_x.get(name)}")
        known = _scores(self.values)
        columns = zip(self.names, self.values.mT, known.mT, strict=True)
        u = torch.tensor([_score(task_x[name], *column) for name, *column in columns], dtype=torch.float64)
        return _with_equal((-0.5 * (known - u).square() @ self.precision).softmax(-1))


def _precision(vector: Tensor) -> Tensor:
    return PRECISION * (PRECISION_WIDTH * vector).exp()


def _with_equal(weights: Tensor) -> Tensor:
    return (1.0 - EQUAL) * weights + EQUAL / weights.shape[-1]


def _scores(values: Float[Tensor, "tasks p"]) -> Tensor:
    return normal_scores(values.mT, torch.ones_like(values.mT, dtype=torch.bool)).mT


def _score(value: float, values: Tensor, scores: Tensor) -> float:
    """Between those of the past tasks with the next smaller and greater values."""
    order = values.argsort()
    return float(np.interp(value, values[order].numpy(), scores[order].numpy()))
