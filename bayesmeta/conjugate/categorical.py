r"""Categories, one probability vector per task.

For each task, with rows y that are one-hot vectors over the classes,

$$ y \sim \text{Categorical}(\theta), \quad \theta \sim \text{Dirichlet}(\text{concentration}). $$

`one_hot` makes rows of class numbers.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 3.4; Minka, Estimating a Dirichlet distribution
(2000), for the Newton step on the evidence.
"""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Dirichlet, OneHotCategorical

from bayesmeta.data.rows import Data, describe_rows
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_columns, require_enough_tasks, require_positive, require_vectors
from bayesmeta.distributions.constant import Constant, repeat_rows, row_shape
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.numerics.special import lgamma_ratio
from bayesmeta.random import log_gamma

__all__ = ["CategoricalFunctions", "DirichletCategorical", "one_hot"]

LARGEST_CONCENTRATION = 1e8
MAX_STEPS = 50
NO_GAIN = 1e-14  # of the objective: a Newton step that brings no more is the last
SAME_SHARES = "tasks do not differ by more than chance, and are taken to share it, or no task has the class"
ROUNDING = 1e-9


def one_hot(codes: Any, num_classes: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """Rows `(*shape, num_classes)` of class numbers `(*shape,)`, which go from 0 to num_classes - 1.

    Raises:
        ValueError: a code is not a whole number from 0 to num_classes - 1.
    """
    codes = torch.as_tensor(codes)
    bad = (codes < 0) | (codes >= num_classes) | (codes != codes.round())
    if bool(bad.any()):
        raise ValueError(
            f"classes must be whole numbers from 0 to {num_classes - 1}; got {codes[bad].reshape(-1)[0].item():g}. "
            "A class that past tasks lack still needs its place: give a larger num_classes"
        )
    return torch.nn.functional.one_hot(codes.long(), num_classes).to(dtype)


@dataclass(frozen=True, eq=False)
class DirichletCategorical(TensorFields):
    """Dirichlet over the probabilities of classes, for one-hot rows.

    Args:
        concentration: pseudo-count of each class, above zero.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    concentration: Float[Tensor, "*batch classes"]
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        require_positive("concentration", self.concentration)
        if self.concentration.ndim < 1 or self.concentration.shape[-1] < 2:
            raise ValueError(f"concentration needs at least two classes; got shape {tuple(self.concentration.shape)}")

    @classmethod
    def initial(cls, tasks: Data | Statistics) -> "DirichletCategorical":
        """One pseudo-count per class, divided as the rows of all `tasks` are; classes unseen keep a share."""
        require_vectors(tasks)
        stats = Statistics.of(tasks, order=1).pooled()
        num_classes = stats.first.shape[-1]
        share = (stats.count * stats.mean + 1.0 / num_classes) / (stats.count + 1.0)
        return cls(num_classes * share).to(tasks.dtype)

    @property
    def batch_shape(self) -> torch.Size:
        return self.concentration.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        return self.concentration.shape[-1:]

    def condition(self, data: Data | Statistics) -> "DirichletCategorical":
        """Posterior after the rows of `data`: adds how often each class was seen.

        Raises:
            ValueError: a row of y is not one-hot over the classes.
        """
        counts = self._counts(data)
        return self._replace(concentration=(self.concentration.double() + counts).to(self.concentration))

    def predict(self, x: Tensor | None = None) -> OneHotCategorical:
        """p(y) at each row: one-hot vectors with batch_shape `(*batch, q)`."""
        rows = row_shape(x, self.batch_shape)
        logits = self.concentration.log()[..., None, :]
        return OneHotCategorical(logits=logits.expand(*rows, logits.shape[-1]))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "CategoricalFunctions":
        """Draws of the probabilities, the same at every row."""
        logits = log_gamma((num_draws,), self.concentration, generator=generator)
        return CategoricalFunctions(logits.log_softmax(-1))

    def joint(self, x: Tensor | None = None) -> Constant:
        """The probabilities at all rows together."""
        return Constant(Dirichlet(self.concentration), row_shape(x, self.batch_shape))

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y) of the rows in their order, without a multinomial coefficient, for each task."""
        return _log_evidence(self.concentration.double(), self._counts(data)).to(self.concentration)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Log ratios of each probability to the last, `(num_draws, *batch, classes - 1)`."""
        logits = log_gamma((num_draws,), self.concentration, generator=generator)
        return logits[..., :-1] - logits[..., -1:]

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of log ratios `(..., *batch, classes - 1)`; the Jacobian is the product of all probabilities."""
        log_probs = _log_probabilities(params)
        a = self.concentration
        return (a * log_probs).sum(-1) + a.sum(-1).lgamma() - a.lgamma().sum(-1)

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"probabilities": _log_probabilities(params).exp()}

    def fit(self, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> "DirichletCategorical":
        """The most probable pseudo-counts after `tasks`.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes; see `bayesmeta.hyperparameters.vector`.

        Raises:
            ValueError: fewer than two tasks have rows, or a row is not one-hot.

        Warns:
            LimitWarning: at weight 0, a class that no task has, or tasks that do not differ.
        """
        counts = self._counts(tasks)
        unknown, tallies = self._unknown(counts)
        # Newton's answer is where the search by gradient starts, which confirms it and minds the limits
        start = _newton(unknown, tallies, hyperprior_weight)
        mode = most_probable(unknown, hyperprior_weight=hyperprior_weight, start=start)
        return cast(DirichletCategorical, unknown.build(mode))._replace(learned_from=LearnedFrom.counts(counts.sum(-1)))

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """Logs of the pseudo-counts."""
        return self._unknown(self._counts(tasks))[0]

    def _unknown(self, counts: Tensor) -> "tuple[Hyperparameters, _Tallies]":
        require_enough_tasks(counts.sum(-1), self.batch_shape)
        tallies = _Tallies.of(counts)
        limit = math.log(LARGEST_CONCENTRATION)
        entries = [
            Hyperparameter(f"log_concentration[{i}]", value, 2.0, limit, SAME_SHARES)
            for i, value in enumerate(self.concentration.double().log().tolist())
        ]

        def build(vector: Tensor) -> "DirichletCategorical":
            return DirichletCategorical(vector.exp().to(self.concentration))

        unknown = Hyperparameters(
            entries,
            lambda vector: tallies.by_task(_with_total(vector.exp())),
            build,
            counts.sum().item(),
            total_log_evidence=lambda vector: tallies.sum(_with_total(vector.exp())),
        )
        return unknown, tallies

    def _counts(self, data: Data | Statistics) -> Tensor:
        require_columns(data, num_inputs=0, event_shape=self.event_shape)
        _require_one_hot(data)
        stats = Statistics.of(data, order=1)
        counts = (stats.count[..., None] * stats.mean).clamp(min=0.0)
        whole = counts.round()  # equal counts are to be equal to the last digit, and weighted rows need not be whole
        return whole.where((counts - whole).abs() < ROUNDING * whole.clamp(min=1.0), counts)


@dataclass(frozen=True, eq=False)
class CategoricalFunctions(Draws):
    """Draws of one probability vector per task: log probabilities `(draws, *batch, classes)`."""

    logits: Float[Tensor, "draws *batch classes"]

    def __call__(self, x: Tensor | None = None) -> Tensor:
        return repeat_rows(self.logits.exp(), x, event_dim=1)

    def predict(self, x: Tensor | None = None) -> OneHotCategorical:
        return OneHotCategorical(logits=repeat_rows(self.logits, x, event_dim=1))


@dataclass(frozen=True, eq=False)
class _Tallies:
    """The log evidence of counts that take few values: a term for each distinct count of each class and of the total.

    Terms are log Gamma(a + n) - log Gamma(a) at the concentrations and their total, `(..., classes + 1)`.
    """

    values: Tensor
    times: Tensor  # below zero for the total, whose terms are subtracted
    column: Tensor
    index: Tensor  # of the terms of each task, `(classes + 1, tasks)`

    @classmethod
    def of(cls, counts: Tensor) -> "_Tallies":
        columns = [column.unique(return_inverse=True, return_counts=True) for column in _with_total(counts).unbind(-1)]
        lengths = torch.tensor([len(values) for values, _, _ in columns])
        starts = (lengths.cumsum(0) - lengths).tolist()
        times = [times.double() for _, _, times in columns]
        return cls(
            torch.cat([values for values, _, _ in columns]),
            torch.cat([*times[:-1], -times[-1]]),
            torch.arange(len(columns)).repeat_interleave(lengths),
            torch.stack([start + index for start, (_, index, _) in zip(starts, columns, strict=True)]),
        )

    def _terms(self, a: Tensor) -> Tensor:
        return lgamma_ratio(a[..., self.column], self.values)

    def by_task(self, a: Tensor) -> Tensor:
        each = (self._terms(a) * self.times.sign())[..., self.index]
        return each.sum(-2)

    def sum(self, a: Tensor) -> Tensor:
        return (self._terms(a) * self.times).sum(-1)

    def derivatives(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """First and second derivatives of `sum`, which is a sum of functions of one entry of `a` each."""
        a = a.detach().requires_grad_()
        (first,) = torch.autograd.grad(self.sum(a), a, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), a)
        return first.detach(), second


def _with_total(a: Tensor) -> Tensor:
    return torch.cat([a, a.sum(-1, keepdim=True)], -1)


def _newton(unknown: Hyperparameters, tallies: _Tallies, hyperprior_weight: float) -> Tensor:
    """Log concentrations near the mode: the Hessian is diagonal plus rank one, so that a step costs O(classes).

    Where it is not negative definite, as happens far from the mode, a step of Minka's fixed point takes its place.
    """
    centre, limit = unknown.start, unknown.limit
    weight = hyperprior_weight / unknown.scale.square()

    def objective(vector: Tensor) -> Tensor:
        return unknown.log_density(vector, hyperprior_weight=hyperprior_weight)

    vector = centre.clamp(-limit, limit)
    value = objective(vector)
    for _ in range(MAX_STEPS):
        a = vector.exp()
        first, second = tallies.derivatives(_with_total(a))
        slope = a * (first[:-1] + first[-1])
        gradient = slope - weight * (vector - centre)
        diagonal, shared = slope + a.square() * second[:-1] - weight, second[-1]
        left = 1.0 + shared * (a.square() / diagonal).sum()
        if bool((diagonal < 0).all()) and left > 0:
            step = a / diagonal * (shared * (a * gradient / diagonal).sum() / left) - gradient / diagonal
        else:
            step = gradient / (weight - a * first[-1])
        moved, noise = (vector + step).clamp(-limit, limit), NO_GAIN * value.abs()
        while (reached := objective(moved)) < value - noise and not torch.equal(moved, vector):
            moved = 0.5 * (vector + moved)
        gain, vector, value = reached - value, moved, reached
        if gain <= noise:
            break
    return vector


def _log_probabilities(params: Tensor) -> Tensor:
    return torch.cat([params, torch.zeros_like(params[..., :1])], -1).log_softmax(-1)


def _log_evidence(concentration: Tensor, counts: Tensor) -> Tensor:
    each = lgamma_ratio(concentration, counts).sum(-1)
    return each - lgamma_ratio(concentration.sum(-1), counts.sum(-1))


def _require_one_hot(data: Data | Statistics) -> None:
    if isinstance(data, Statistics):
        wrong = ((data.mean < -ROUNDING).any(-1) | ((data.mean.sum(-1) - 1.0).abs() > ROUNDING)) & (data.count > 0)
        if bool(wrong.any()):
            raise ValueError("y must be one-hot over the classes; a task's means do not add to one. Try one_hot(codes)")
        return
    bad = (((data.y != 0) & (data.y != 1)).any(-1) | (data.y.sum(-1) != 1)) & data.mask
    if bool(bad.any()):
        raise ValueError(f"y must be one-hot where mask is true; {describe_rows(bad)}. Try one_hot(codes, classes)")
