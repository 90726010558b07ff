r"""Features of a task inform its prior: hyperparameters that are linear in them, learned from past tasks.

With features $u_s$ of task $s$, standardised over the past tasks, and hyperparameters as the vector $v$ of
`bayesmeta.hyperparameters`,

$$ v_s = v + B u_s, \quad B_{ij} \sim N(0, (\text{share} \cdot \text{scale}_i)^2), $$

so that features which say nothing are shrunk to nothing. `v` and `B` are learned together, by their mode.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 15.1, group-level predictors.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.gradients import with_gradients
from bayesmeta.hyperparameters import Hierarchical, Hyperparameters, most_probable
from bayesmeta.optimise import maximise
from bayesmeta.statistics import Statistics
from bayesmeta.validation import require_finite, require_positive

__all__ = ["FeaturePrior", "fit_with_features"]

SHARE = 0.5  # of a hyperprior's width that one standard deviation of a feature may move its hyperparameter


@dataclass(frozen=True, eq=False)
class FeaturePrior(TensorFields):
    """A prior that depends on features of the task; `given` tells it.

    Args:
        prior: where learning started, the family and the centre of its hyperprior.
        units: rows from which `prior.hyperparameters` takes the units of the vector as it did from the past tasks: sums
            over all of them, or two rows, where the family asks for no more, else the past tasks.
        names: of the hyperparameters, h in all.
        intercept: hyperparameters of a task with the mean features, `(h,)`.
        coefficients: change per standard deviation of each feature, `(h, p)`.
        centre: mean of the features of the past tasks, `(p,)`.
        scale: standard deviation of the features of the past tasks, `(p,)`.
        learned_from: the past tasks.
    """

    prior: TensorFields
    units: Data | Statistics
    names: list[str]
    intercept: Float64[Tensor, "h"]
    coefficients: Float64[Tensor, "h p"]
    centre: Float64[Tensor, "p"]
    scale: Float64[Tensor, "p"]
    learned_from: LearnedFrom

    def __post_init__(self) -> None:
        if not isinstance(self.prior, Hierarchical):
            raise ValueError(f"prior must have hyperparameters; got {type(self.prior).__name__}")
        require_finite("coefficients", self.coefficients)
        require_positive("scale", self.scale)

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
        return self._build(self.intercept + standard @ self.coefficients.mT)

    def to(self, *args: Any, **kwargs: Any) -> "FeaturePrior":
        """The same, whose priors are moved as by `Tensor.to`; what it learned stays in float64."""
        return replace(self, prior=self.prior.to(*args, **kwargs))

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if isinstance(self.units, Statistics):
            state["units"] = {field.name: getattr(self.units, field.name) for field in fields(self.units)}
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "FeaturePrior":
        units = state["units"]
        return cls(**{**state, "units": Statistics(**units) if isinstance(units, dict) else units})

    @cached_property
    def _build(self) -> Callable[[Tensor], Any]:
        prior: Any = self.prior  # Hierarchical, as the constructor saw
        return prior.hyperparameters(self.units).build


@with_gradients
def fit_with_features(prior: Any, tasks: Data) -> FeaturePrior:
    """Learn how the prior of a task depends on the features of the task.

    Args:
        prior: `Family.initial(tasks)`, the centre of the hyperprior; any family that is `Hierarchical`.
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
    units = _units(prior, tasks, unknown)
    return FeaturePrior(prior, units, unknown.names, best[:h], coefficients, centre, spread, learned_from)


def _units(prior: Any, tasks: Data, unknown: Hyperparameters) -> Data | Statistics:
    """The least from which `prior` takes the same units as from `tasks`.

    Families take them from themselves, from pooled rows, or from more than that; which, is found by trying.
    """
    probes = unknown.start + torch.tensor([[0.0], [0.3]], dtype=torch.float64)
    expected = unknown.build(probes).state_dict()
    for smaller in (_two_rows, _halves_of_all):
        try:
            units = smaller(tasks)
            found = prior.hyperparameters(units).build(probes).state_dict()
        except (ValueError, TypeError, AttributeError):  # two rows may not vary, and some families need single rows
            continue
        if all(torch.allclose(found[k], v, 1e-12) for k, v in expected.items() if isinstance(v, Tensor)):
            return units
    return Data(tasks.x, tasks.y, tasks.mask)


def _two_rows(tasks: Data) -> Data:
    """The first row of two tasks."""
    task = tasks.mask.any(-1).nonzero()[:2, 0]
    row = tasks.mask[task].int().argmax(-1)
    return Data(tasks.x[task, row][:, None], tasks.y[task, row][:, None], tasks.mask[task, row][:, None])


def _halves_of_all(tasks: Data) -> Statistics:
    """Two tasks, each of which has half of all rows, whatever task they are of: pooled, they are the rows of all."""
    pooled = Statistics.of(tasks).pooled()
    second = None if pooled.second is None else (0.5 * pooled.second).expand(2, -1, -1)
    count, first = (0.5 * pooled.count).expand(2), (0.5 * pooled.first).expand(2, -1)
    return Statistics(count, pooled.origin.expand(2, -1), first, second, pooled.num_inputs)
