r"""Features of a task inform its prior: hyperparameters that are linear in them, learned from past tasks.

With features $u_s$ of task $s$, standardised over the past tasks, and hyperparameters as the vector $v$ of
`bayesmeta.hyperparameters`,

$$ v_s = v + B u_s, \quad B_{ij} \sim N(0, (\text{share} \cdot \text{scale}_i)^2), $$

so that features which say nothing are shrunk to nothing. `v` and `B` are learned together, by their mode.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 15.1, group-level predictors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.fields import LearnedFrom
from bayesmeta.hyperparameters import Hierarchical, most_probable
from bayesmeta.optimise import maximise

__all__ = ["FeaturePrior", "fit_with_features"]

SHARE = 0.5  # of a hyperprior's width that one standard deviation of a feature may move its hyperparameter


@dataclass(frozen=True, eq=False)
class FeaturePrior:
    """A prior that depends on features of the task; `given` tells it. What `given` returns can be saved.

    Args:
        names: of the hyperparameters, h in all.
        intercept: hyperparameters of a task with the mean features, `(h,)`.
        coefficients: change per standard deviation of each feature, `(h, p)`.
        centre: mean of the features of the past tasks, `(p,)`.
        scale: standard deviation of the features of the past tasks, `(p,)`.
        learned_from: the past tasks.
    """

    names: list[str]
    intercept: Tensor
    coefficients: Tensor
    centre: Tensor
    scale: Tensor
    learned_from: LearnedFrom
    build: Callable[[Tensor], Any]

    def given(self, task_x: Tensor) -> Any:
        """The prior of tasks with features `(*batch, p)`, of batch_shape `(*batch,)`.

        Raises:
            ValueError: features are not finite, or not as many as the past tasks had.
        """
        if task_x.shape[-1:] != self.centre.shape:
            raise ValueError(f"task_x must have shape (..., {len(self.centre)}); got {tuple(task_x.shape)}")
        if not bool(task_x.isfinite().all()):
            raise ValueError("task_x must be finite; impute what is missing, or use the prior without features")
        standard = (task_x.double() - self.centre) / self.scale
        return self.build(self.intercept + standard @ self.coefficients.mT)


def fit_with_features(prior: Hierarchical, tasks: Data) -> FeaturePrior:
    """Learn how the prior of a task depends on the features of the task.

    Args:
        prior: `Family.initial(tasks)`, the centre of the hyperprior.
        tasks: at least two tasks with rows, on one axis, with `task_x`.

    Raises:
        ValueError: tasks have no features.
    """
    if tasks.task_x is None or not tasks.task_x.shape[-1]:
        raise ValueError("tasks must have features, task_x of shape (tasks, p); give Data.pad(..., task_x=...)")
    unknown = prior.hyperparameters(tasks)
    features = tasks.task_x.double()
    centre, spread = features.mean(0), features.std(0)
    spread = spread.where(spread > 0, 1.0)  # a feature that never varied says nothing, whatever its value
    standard = (features - centre) / spread
    h, p = len(unknown.entries), features.shape[-1]

    def log_density(point: Tensor) -> Tensor:
        vector, relative = point[:h], point[h:].reshape(h, p)
        each = vector + standard @ (unknown.scale[:, None] * SHARE * relative).mT
        evidence = unknown.build(each).log_evidence(tasks).double().sum()
        return evidence + unknown.log_hyperprior(vector) - 0.5 * relative.square().sum()

    start = torch.cat([most_probable(unknown), torch.zeros(h * p, dtype=torch.float64)])
    limit = torch.cat([unknown.limit, torch.full((h * p,), torch.inf, dtype=torch.float64)])
    best = maximise(lambda point: log_density(point) / unknown.num_rows, start, limit=limit)
    coefficients = unknown.scale[:, None] * SHARE * best[h:].reshape(h, p)
    learned_from = LearnedFrom.counts(tasks.count)
    return FeaturePrior(unknown.names, best[:h], coefficients, centre, spread, learned_from, unknown.build)
