r"""Counts and waiting times, one rate per task.

For each task,

$$ \text{rate} \sim \text{Gamma}(\text{shape}, \text{inverse\_scale}), $$

and rows are counts over an exposure, $y \sim \text{Poisson}(\text{exposure} \cdot \text{rate})$ (**gamma-Poisson**),
or times between events, $y \sim \text{Exponential}(\text{rate})$ (**gamma-exponential**). Either way a task is known by
how many events it had, and over how much exposure or time.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 2.6.
"""

import math
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Exponential, NegativeBinomial, Poisson

from bayesmeta.data.rows import Data, describe_rows
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_columns, require_enough_tasks, require_positive
from bayesmeta.distributions.constant import repeat_rows, row_shape
from bayesmeta.distributions.lomax import Lomax
from bayesmeta.distributions.marginals import GammaMarginal, InverseGammaMarginal
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.mode import fit_by_mode
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.numerics.special import lgamma_ratio
from bayesmeta.protocol import Weighable
from bayesmeta.random import log_gamma

__all__ = ["ExponentialFunctions", "GammaExponential", "GammaPoisson", "RateFunctions"]

LARGEST_SHAPE = 1e8
LARGEST_LOG_MEAN = 30.0  # of the mean rate in units of the rows': it ends there where nothing was counted
NOTHING_COUNTED = "every row is zero, and the rate of all tasks is taken to be zero; add rows, or a hyperprior"
SAME_RATE = "tasks do not differ by more than chance, and are taken to share one rate"

G = TypeVar("G", bound="_GammaRate")


@dataclass(frozen=True, eq=False)
class _GammaRate(TensorFields):
    """What both families share: all but how rows become events and exposure, and how a rate becomes rows.

    Args:
        shape: pseudo-count of events, above zero.
        inverse_scale: pseudo-exposure, above zero, in units of the exposure or the waiting times.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    shape: Float[Tensor, "*#batch"]
    inverse_scale: Float[Tensor, "*#batch"]
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        shape, inverse_scale = torch.as_tensor(self.shape), torch.as_tensor(self.inverse_scale)
        batch = torch.broadcast_shapes(shape.shape, inverse_scale.shape)
        # of two numbers, the tensor among them has the dtype
        self._spread(batch, shape if shape.is_floating_point() else inverse_scale, "shape", "inverse_scale")
        require_positive("shape", self.shape)
        require_positive("inverse_scale", self.inverse_scale)

    @classmethod
    def initial(cls: type[G], tasks: Data | Statistics) -> G:
        """One pseudo-event, at the rate of all rows of all `tasks`."""
        events, exposure = (total.sum() for total in cls._events_and_exposure(tasks))
        # half an event more keeps the rate of tasks without any above zero
        inverse_scale = exposure.where(exposure > 0, 1.0) / (events + 0.5)
        prior = cls(torch.ones_like(inverse_scale), inverse_scale)
        return prior.to(tasks.dtype)

    @staticmethod
    def _events_and_exposure(data: Data | Statistics) -> tuple[Tensor, Tensor]:
        raise TypeError("a family says how its rows become events and exposure")

    @property
    def batch_shape(self) -> torch.Size:
        return self.shape.shape

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self: G, data: Data | Statistics) -> G:
        """Posterior after the rows of `data`: adds their events and their exposure. batch_shape broadcasts.

        Raises:
            ValueError: a row is none that the family can have; the message names it.
        """
        events, exposure = self._events_and_exposure(data)
        shape, inverse_scale = self.shape.double() + events, self.inverse_scale.double() + exposure
        return self._replace(shape=shape.to(self.shape), inverse_scale=inverse_scale.to(self.shape))

    def _log_evidence(self, data: Data | Statistics) -> Tensor:
        events, exposure = self._events_and_exposure(data)
        return _log_evidence(self.shape.double(), self.inverse_scale.double(), events, exposure)

    def _log_factors(self, data: Data | Statistics) -> Tensor:
        """Log of what the evidence of each task has under every prior, `(*batch,)`."""
        return torch.zeros(data.batch_shape, dtype=torch.float64, device=data.count.device)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Log rates, `(num_draws, *batch, 1)`."""
        return (log_gamma((num_draws,), self.shape, generator=generator) - self.inverse_scale.log())[..., None]

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of log rates `(..., *batch, 1)`; the Jacobian is the rate."""
        log_rate = params[..., 0]
        scaled = log_rate + self.inverse_scale.log()
        return self.shape * scaled - scaled.exp() - self.shape.lgamma()

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"rate": params[..., 0].exp()}

    def fit(self: G, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> G:
        """The most probable prior after `tasks`.

        Where tasks do not differ more than chance allows, `shape` grows, at most to 1e8.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes; see `bayesmeta.hyperparameters.vector`.

        Raises:
            ValueError: fewer than two tasks have rows, or a row is none that the family can have.
        """
        return fit_by_mode(self, tasks, hyperprior_weight=hyperprior_weight)

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """Logs of the mean rate, in units of that of all rows, and of the shape."""
        events, exposure = self._events_and_exposure(tasks)
        require_enough_tasks(tasks.count, self.batch_shape)
        unit = exposure.sum() / (events.sum() + 0.5)
        unit = unit.where(unit > 0, 1.0)
        exposure, factors = exposure / unit, self._log_factors(tasks) - events * unit.log()

        def natural(vector: Tensor) -> tuple[Tensor, Tensor]:
            return vector[..., 1].exp(), (vector[..., 1] - vector[..., 0]).exp()

        def evidence(vector: Tensor) -> Tensor:
            return _log_evidence(*natural(vector[..., None, :]), events, exposure) + factors

        def build(vector: Tensor) -> Weighable:
            shape, inverse_scale = natural(vector)
            return cast(
                Weighable, type(self)(shape, inverse_scale * unit).to(self.shape)
            )  # a subclass with predictions

        shape, inverse_scale = self.shape.double(), self.inverse_scale.double() / unit
        entries = [
            Hyperparameter("log_mean", (shape / inverse_scale).log().item(), 2.0, LARGEST_LOG_MEAN, NOTHING_COUNTED),
            Hyperparameter("log_shape", shape.log().item(), 2.0, math.log(LARGEST_SHAPE), SAME_RATE),
        ]
        return Hyperparameters(entries, evidence, build, float(tasks.count.sum()))


@dataclass(frozen=True, eq=False)
class GammaPoisson(_GammaRate):
    """Gamma over the rate of events, for rows that are counts.

    The one column of x is each row's exposure, above zero; without a column every row has an exposure of one.

    Args:
        shape: pseudo-count of events, above zero.
        inverse_scale: pseudo-exposure, above zero.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    def predict(self, x: Tensor | None = None) -> NegativeBinomial:
        """p(y) at each row: a negative binomial with batch_shape `(*batch, q)`."""
        log_odds = _log_exposure(x, self.shape) - self.inverse_scale.log()[..., None]
        return NegativeBinomial(self.shape[..., None].expand_as(log_odds), logits=log_odds)

    def marginal(self, x: Tensor | None = None) -> GammaMarginal:
        """p(expected count) at each row: the rate times the row's exposure."""
        exposure = _log_exposure(x, self.shape).exp()
        return GammaMarginal(self.shape[..., None].expand_as(exposure), self.inverse_scale[..., None] / exposure)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "RateFunctions":
        """Draws of the expected count: the rate times a row's exposure."""
        return RateFunctions(self.sample_params(num_draws, generator=generator)[..., 0])

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y) of the rows in their order, for each task.

        Statistics do not know the factors of single rows, exposure^y / y!, which are the same under every prior: from
        statistics, the evidence is without them.
        """
        return (self._log_evidence(data) + self._log_factors(data)).to(self.shape)

    def _log_factors(self, data: Data | Statistics) -> Tensor:
        if isinstance(data, Statistics):
            return torch.zeros_like(data.count)
        log_exposure = data.x[..., 0].double().log() if data.x.shape[-1] else torch.zeros_like(data.y.double())
        each = data.y.double() * log_exposure - (data.y.double() + 1.0).lgamma()
        return each.where(data.mask, 0.0).sum(-1)

    @staticmethod
    def statistics(data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        num_inputs = data.num_inputs if isinstance(data, Statistics) else data.x.shape[-1]
        if num_inputs > 1:
            raise ValueError(f"x must have one column, the exposure, or none; got {num_inputs}")
        require_columns(data, num_inputs=num_inputs, event_shape=())
        _require_counts(data)
        return Statistics.of(data, order=1)

    @staticmethod
    def _events_and_exposure(data: Data | Statistics) -> tuple[Tensor, Tensor]:
        stats = GammaPoisson.statistics(data)
        totals = stats.count[..., None] * stats.mean
        return totals[..., -1].clamp(min=0.0), totals[..., 0] if stats.num_inputs else stats.count


@dataclass(frozen=True, eq=False)
class GammaExponential(_GammaRate):
    """Gamma over the rate of events, for rows that are waiting times.

    Args:
        shape: pseudo-count of events, above zero; predictions have a mean above one, a variance above two.
        inverse_scale: time over which these events were seen, above zero, in units of y.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    def predict(self, x: Tensor | None = None) -> Lomax:
        """p(y) at each row: a Lomax distribution with batch_shape `(*batch, q)`."""
        rows = row_shape(x, self.batch_shape)
        return Lomax(self.shape[..., None].expand(rows), self.inverse_scale[..., None].expand(rows))

    def marginal(self, x: Tensor | None = None) -> InverseGammaMarginal:
        """p(expected waiting time) at each row."""
        rows = row_shape(x, self.batch_shape)
        return InverseGammaMarginal(self.shape[..., None].expand(rows), self.inverse_scale[..., None].expand(rows))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "ExponentialFunctions":
        """Draws of the expected waiting time, one over the rate, the same at every row."""
        return ExponentialFunctions(self.sample_params(num_draws, generator=generator)[..., 0])

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y) of the rows, for each task."""
        return self._log_evidence(data).to(self.shape)

    @staticmethod
    def statistics(data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        require_columns(data, num_inputs=0, event_shape=())
        _require_times(data)
        return Statistics.of(data, order=1)

    @staticmethod
    def _events_and_exposure(data: Data | Statistics) -> tuple[Tensor, Tensor]:
        stats = GammaExponential.statistics(data)
        return stats.count, (stats.count * stats.mean[..., 0]).clamp(min=0.0)


@dataclass(frozen=True, eq=False)
class RateFunctions(Draws):
    """Draws of one rate per task: log rates `(draws, *batch)`."""

    log_rate: Float[Tensor, "draws *batch"]

    def __call__(self, x: Tensor | None = None) -> Tensor:
        exposure = _log_exposure(x, self.log_rate[0]).exp()
        return repeat_rows(self.log_rate.exp(), None if x is None else x[..., :0]) * exposure

    def link(self, x: Tensor | None = None) -> Tensor:
        """Logarithms, which differ where rates round to zero."""
        return repeat_rows(self.log_rate, None if x is None else x[..., :0]) + _log_exposure(x, self.log_rate[0])

    def predict(self, x: Tensor | None = None) -> Poisson:
        return Poisson(self(x))


@dataclass(frozen=True, eq=False)
class ExponentialFunctions(Draws):
    """Draws of one rate per task: log rates `(draws, *batch)`."""

    log_rate: Float[Tensor, "draws *batch"]

    def __call__(self, x: Tensor | None = None) -> Tensor:
        return repeat_rows((-self.log_rate).exp(), x)

    def link(self, x: Tensor | None = None) -> Tensor:
        """Logarithms of the mean, which differ where that rounds to zero or to infinity."""
        return repeat_rows(-self.log_rate, x)

    def predict(self, x: Tensor | None = None) -> Exponential:
        return Exponential(repeat_rows(self.log_rate.exp(), x))


def _log_evidence(shape: Tensor, inverse_scale: Tensor, events: Tensor, exposure: Tensor) -> Tensor:
    """Log of Gamma(a + k) / Gamma(a) b^a / (b + t)^(a + k), for prior fields a, b and k events in exposure t."""
    falling = shape * torch.log1p(exposure / inverse_scale) + events * (inverse_scale + exposure).log()
    return lgamma_ratio(shape, events) - falling


def _log_exposure(x: Tensor | None, like: Tensor) -> Tensor:
    """`(*batch, q)` for tasks of the shape of `like`: zeros where x has no column."""
    if x is None or not x.shape[-1]:
        return like.new_zeros(row_shape(x, like.shape))
    if x.shape[-1] != 1:
        raise ValueError(f"x must have one column, the exposure, or none; got {x.shape[-1]}")
    if not bool((x > 0).all()):
        raise ValueError(f"exposures must be above zero; got {x.min().item():g}")
    rows = torch.broadcast_shapes((*like.shape, 1), x.shape[:-1])
    return x[..., 0].log().expand(rows)


def _require_counts(data: Data | Statistics) -> None:
    if isinstance(data, Statistics):
        wrong = data.mean[..., -1] < 0
        if bool(wrong.any()):
            raise ValueError(f"counts must not be below zero; a task has mean {data.mean[..., -1][wrong][0].item():g}")
        return
    bad = ((data.y < 0) | (data.y != data.y.round())) & data.mask
    if bool(bad.any()):
        value = data.y[bad][0].item()
        raise ValueError(
            f"counts y must be whole numbers, zero or more, where mask is true; {describe_rows(bad)} "
            f"with value {value:g}"
        )
    if data.x.shape[-1]:
        bad = (data.x[..., 0] <= 0) & data.mask
        if bool(bad.any()):
            raise ValueError(
                f"exposures, the column of x, must be above zero where mask is true; {describe_rows(bad)} with value "
                f"{data.x[..., 0][bad][0].item():g}. A row without exposure says nothing: leave it out"
            )


def _require_times(data: Data | Statistics) -> None:
    values = data.mean[..., 0] if isinstance(data, Statistics) else data.y
    bad = values < 0 if isinstance(data, Statistics) else (values < 0) & data.mask
    if bool(bad.any()):
        where = "a task's mean is not" if isinstance(data, Statistics) else describe_rows(bad)
        raise ValueError(f"waiting times y must be zero or more; {where}, with value {values[bad][0].item():g}")
