r"""Features of a task inform its prior: hyperparameters that are linear in them, learned from past tasks.

With features $u_s$ of task $s$, standardised over the past tasks, and hyperparameters as the vector $v$ of
`bayesmeta.hyperparameters.vector`,

$$ v_s = v + B u_s, \quad B_{ij} \sim N(0, (\text{share} \cdot \text{scale}_i)^2), $$

so that features which say nothing are shrunk to nothing. `v` and `B` are learned together, by their mode. Rows of B are
those of the mean alone (`loc`, or the logit or log of a mean), or of all hyperparameters, so that features also say how
tasks spread: whichever has the greater evidence, by Laplace's approximation at its mode.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 15.1, group-level predictors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float64
from torch import Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_finite, require_positive
from bayesmeta.doors import require_hierarchical, require_rows
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.hyperparameters.vector import Hierarchical, Hyperparameters
from bayesmeta.named_fields import named_fields, named_tensors
from bayesmeta.numerics.as_floats import as_floats
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.numerics.optimise import maximise
from bayesmeta.protocol import Additive, Weighable

__all__ = ["FeaturePrior", "fit_with_features"]

MOST_COMPARED = 300  # entries of the vector beyond which the evidence costs more than the search
STEP = 1e-3  # of differences, in units of the hyperprior
LEAST_CURVATURE = 0.5  # in the same units: nothing is wider than its hyperprior by much
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
        moves: what features move, "mean" or "all" hyperparameters.
        log_evidence: of the past tasks where features move "none", the "mean" and "all" of the hyperparameters; of
            those that were tried.
    """

    prior: TensorFields
    units: Data | Statistics
    names: list[str]
    intercept: Float64[Tensor, "h"]
    coefficients: Float64[Tensor, "h p"]
    centre: Float64[Tensor, "p"]
    scale: Float64[Tensor, "p"]
    learned_from: LearnedFrom
    moves: str = "all"
    log_evidence: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.prior, Hierarchical):
            raise ValueError(f"prior must have hyperparameters; got {type(self.prior).__name__}")
        require_finite("coefficients", self.coefficients)
        require_positive("scale", self.scale)

    def given(self, task_x: Any) -> Weighable:
        """The prior of tasks with features `(*batch, p)`, of batch_shape `(*batch,)`.

        Raises:
            ValueError: features are not finite, or not as many as the past tasks had.
        """
        task_x = as_floats("task_x", task_x, like=self.centre)
        if task_x.shape[-1:] != self.centre.shape:
            raise ValueError(f"task_x must have shape (..., {len(self.centre)}); got {tuple(task_x.shape)}")
        if not bool(task_x.isfinite().all()):
            raise ValueError("task_x must be finite; impute what is missing, or use the prior without features")
        standard = (task_x - self.centre) / self.scale
        return self._build(self.intercept + standard @ self.coefficients.mT)

    def to(self, *args: Any, **kwargs: Any) -> "FeaturePrior":
        """The same, whose priors are moved as by `Tensor.to`; what it learned stays in float64."""
        return replace(self, prior=self.prior.to(*args, **kwargs))

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if isinstance(self.units, Statistics):
            state["units"] = named_fields(self.units)
        return state

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "FeaturePrior":
        units = state["units"]
        return cls(**{**state, "units": Statistics(**units) if isinstance(units, dict) else units})

    @cached_property
    def _build(self) -> Callable[[Tensor], Weighable]:
        return cast(Hierarchical, self.prior).hyperparameters(self.units).build  # as the constructor saw


@with_gradients
def fit_with_features(prior: Any, tasks: Data, *, moves: str | None = None) -> FeaturePrior:
    """Learn how the prior of a task depends on the features of the task.

    Args:
        prior: `Family.initial(tasks)`, the centre of the hyperprior; any family that is `Hierarchical`.
        tasks: at least two tasks with rows, on one axis, with `task_x`.
        moves: "mean" lets features move what a task is expected to be, "all" also how tasks and rows spread about it.
            None takes what has the greater evidence; the mean, where hyperparameters and features are too many to
            compare; all, where a family has no hyperparameter of the mean alone (`DirichletCategorical`).

    Raises:
        ValueError: tasks have no features, or `moves` is not one of these.
    """
    require_hierarchical("fit_with_features", prior)
    require_rows("fit_with_features", tasks, statistics=False)
    if tasks.task_x is None or not tasks.task_x.shape[-1]:
        raise ValueError("tasks must have features, task_x of shape (tasks, p); give Data.pad(..., task_x=...)")
    unknown = prior.hyperparameters(tasks)
    features = tasks.task_x.double()
    centre, spread = features.mean(0), features.std(0)
    spread = spread.where(spread > 0, 1.0)  # a feature that never varied says nothing, whatever its value
    search = _Search(unknown, tasks, (features - centre) / spread)
    choices = _choices(unknown, moves, features.shape[-1])
    modes = {"none": most_probable(unknown)}
    for name, moved in choices.items():
        # whatever moves the mean alone is a start for what moves all
        modes[name] = search.mode(moved, modes.get("mean", modes["none"]))
    evidence = {}
    if len(choices) > 1 or len(modes[next(iter(choices))]) <= MOST_COMPARED:
        evidence = {name: search.log_evidence(mode, choices.get(name)) for name, mode in modes.items()}
    best = max(choices, key=lambda name: evidence.get(name, 0.0))
    intercept, coefficients = search.unpack(modes[best], choices[best])
    learned_from = LearnedFrom.counts(tasks.count)
    return FeaturePrior(
        cast(TensorFields, prior),
        _units(prior, tasks, unknown),
        unknown.names,
        intercept,
        coefficients,
        centre,
        spread,
        learned_from,
        best,
        evidence,
    )


def _choices(unknown: Hyperparameters, moves: str | None, num_features: int) -> dict[str, Tensor]:
    """Which hyperparameters features may move, `(h,)`, for each hypothesis that is to be tried."""
    mean = torch.tensor([entry.moves_mean for entry in unknown.entries])
    each = {"mean": mean, "all": torch.ones_like(mean)}
    if moves is None:
        too_many = len(mean) * (1 + num_features) > MOST_COMPARED
        return {"all": each["all"]} if not mean.any() else {"mean": mean} if too_many else each
    if moves not in each:
        raise ValueError(f"moves must be 'mean', 'all' or None; got {moves!r}")
    if moves == "mean" and not mean.any():
        raise ValueError(
            f"no hyperparameter is of the mean alone: they are {', '.join(unknown.names)}. Try moves='all'"
        )
    return {moves: each[moves]}


class _Search(NamedTuple):
    """The log density of hyperparameters and coefficients: points are `(h + moved * p,)`, `features` standardised."""

    unknown: Hyperparameters
    tasks: Data
    features: Tensor

    def unpack(self, point: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        """Hyperparameters `(h,)` and coefficients `(h, p)`."""
        h = len(moved)
        relative = point.new_zeros(h, self.features.shape[-1])
        relative = relative.index_put((moved.nonzero()[:, 0],), point[h:].reshape(int(moved.sum()), -1))
        return point[:h], self.unknown.scale[:, None] * SHARE * relative

    def log_density(self, point: Tensor, moved: Tensor | None) -> Tensor:
        if moved is None:
            return self.unknown.log_density(point)
        vector, coefficients = self.unpack(point, moved)
        prior = self.unknown.build(vector + self.features @ coefficients.mT)
        relative = point[len(moved) :]
        of_coefficients = -0.5 * (relative.square().sum() + len(relative) * math.log(2.0 * math.pi))
        evidence: Tensor = prior.log_evidence(self.tasks).double().sum()
        return evidence + self.unknown.log_hyperprior(vector) + of_coefficients

    def mode(self, moved: Tensor, start: Tensor) -> Tensor:
        """Mode where features move some of the hyperparameters; `start` is a mode of fewer, which come first."""
        h, size = len(moved), len(moved) + int(moved.sum()) * self.features.shape[-1]
        first = torch.zeros(size, dtype=torch.float64)
        first[:h] = start[:h]
        limit = torch.cat([self.unknown.limit, torch.full((size - h,), torch.inf, dtype=torch.float64)])
        rows = self.unknown.num_rows
        return maximise(lambda point: self.log_density(point, moved) / rows, first, limit=limit)

    def log_evidence(self, mode: Tensor, moved: Tensor | None) -> float:
        """Laplace's approximation, from differences of gradients: some evidence has no second derivatives."""
        scale = torch.ones_like(mode)
        scale[: len(self.unknown.entries)] = self.unknown.scale

        def gradient(point: Tensor) -> Tensor:
            point = point.requires_grad_()
            return torch.autograd.grad(self.log_density(point, moved), point)[0] * scale

        steps = (STEP * scale).diag()
        hessian = torch.stack([gradient(mode + step) - gradient(mode - step) for step in steps]) / (2.0 * STEP)
        curvature = torch.linalg.eigvalsh(-0.5 * (hessian + hessian.mT)).clamp(min=LEAST_CURVATURE)
        volume = scale.log().sum() - 0.5 * curvature.log().sum() + 0.5 * len(mode) * math.log(2.0 * math.pi)
        with torch.no_grad():
            return float(self.log_density(mode, moved) + volume)


def _units(prior: Hierarchical, tasks: Data, unknown: Hyperparameters) -> Data | Statistics:
    """The least from which `prior` takes the same units as from `tasks`.

    Families take them from themselves, from pooled rows, or from more than that; which, is found by trying.
    """
    probes = unknown.start + torch.tensor([[0.0], [0.3]], dtype=torch.float64)
    expected = named_tensors(unknown.build(probes))
    for smaller in (_two_rows, _halves_of_all):
        try:
            units = smaller(prior, tasks)
            found = named_tensors(prior.hyperparameters(units).build(probes))
        except (ValueError, TypeError, AttributeError):  # two rows may not vary, and some families need single rows
            continue
        if all(torch.allclose(found[k], v, 1e-12) for k, v in expected.items()):
            return units
    return Data(tasks.x, tasks.y, tasks.mask)


def _two_rows(_prior: Hierarchical, tasks: Data) -> Data:
    """The first row of two tasks."""
    task = tasks.mask.any(-1).nonzero()[:2, 0]
    row = tasks.mask[task].int().argmax(-1)
    return Data(tasks.x[task, row][:, None], tasks.y[task, row][:, None], tasks.mask[task, row][:, None])


def _halves_of_all(prior: Hierarchical, tasks: Data) -> Statistics:
    """Two tasks, each of which has half of all rows, whatever task they are of: pooled, they are the rows of all."""
    pooled = cast(Additive, prior).statistics(tasks).pooled()  # as the family reads its columns
    second = None if pooled.second is None else (0.5 * pooled.second).expand(2, -1, -1)
    count, first = (0.5 * pooled.count).expand(2), (0.5 * pooled.first).expand(2, -1)
    return Statistics(count, pooled.origin.expand(2, -1), first, second, pooled.num_inputs)
