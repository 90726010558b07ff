"""Heads: what the last numbers of a network mean, as a distribution of y.

A head also knows the scale of y. Networks see y standardised by all rows of past tasks, and answer in these units; the
distribution is in the units of the rows. No standard deviation of a head is below `FLOOR`, which is in units of the
standard deviation of past rows: it is far below the noise of any data that a network can learn from, and the same for
all heads and members, so that their scores can be compared.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, NegativeBinomial, Normal, OneHotCategorical
from torch.nn.functional import softplus

from bayesmeta.data.rows import Data, describe_rows
from bayesmeta.data.validation import require_binary, require_columns, require_positive
from bayesmeta.distributions.histogram import Histogram
from bayesmeta.distributions.marginals import StudentMarginal
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.fields import TensorFields
from bayesmeta.networks.features import centre_and_scale_with_digits

__all__ = [
    "FLOOR",
    "BernoulliHead",
    "CategoricalHead",
    "CountHead",
    "GaussianHead",
    "Head",
    "HistogramHead",
    "MixtureHead",
    "RealHead",
    "StudentHead",
]

FLOOR = 1e-3  # of a standard deviation, in those of past rows
LARGEST_LOG = 8.0  # of a standard deviation, a rate or a concentration: what a network says before it has learned
LEAST_DF = 2.1  # so that the variance is finite
NUM_COMPONENTS, NUM_BINS = 3, 100
LEAST_SHARE = 1e-4  # of the variance of y, that the function has at least

H = TypeVar("H", bound="Head")
R = TypeVar("R", bound="RealHead")


@dataclass(frozen=True, eq=False)
class Head(TensorFields):
    """What heads share.

    Args:
        centre, scale: of y, or of what networks see of it; scale above zero.
        temperature: above one, predictions are wider than the network says; below, narrower.
    """

    centre: Float[Tensor, ""]
    scale: Float[Tensor, ""]
    temperature: float = 1.0

    event_shape: ClassVar[torch.Size] = torch.Size()
    num_y: ClassVar[int] = 1  # columns of y, as networks see it

    def __post_init__(self) -> None:
        require_positive("scale", self.scale)
        if not 0.0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be above zero and finite; got {self.temperature}")

    @classmethod
    def initial(cls: type[H], tasks: Data, **sizes: Any) -> H:
        """On the scale of all rows of tasks."""
        require_columns(tasks, num_inputs=tasks.x.shape[-1], event_shape=())
        return cls(*_centre_and_scale(_real(tasks)), **sizes)

    @property
    def num_outputs(self) -> int:
        """Numbers that it takes from a network for one row."""
        raise TypeError("each head says how many numbers it takes")

    @property
    def num_locations(self) -> int:
        """How many of these, the first, say where y is."""
        return 1

    @property
    def noise_sd(self) -> Tensor:
        """Standard deviation of y about the function, zero where it is not known."""
        return torch.zeros_like(self.scale)

    def noise_free(self, prediction: Distribution) -> Normal:
        """The function at each row, by the moments of what is predicted of y there.

        Raises:
            TypeError: the head is not of real numbers, and then y is no function of x with noise.
        """
        raise TypeError(
            f"a function without noise is known of heads of real numbers alone; this is {type(self).__name__}"
        )

    def seen(self, y: Tensor) -> Tensor:
        """y `(...)` as networks see it, `(..., num_y)`."""
        return ((y - self.centre) / self.scale)[..., None]

    def standardised(self, y: Tensor) -> Tensor:
        """y in the units of `in_standard_units`: its own, but for real numbers."""
        return y

    def in_standard_units(self: H) -> H:
        """The same head for y that is standardised."""
        return self

    def distribution(self, outputs: Tensor) -> Distribution:
        """Of y, from outputs `(..., num_outputs)`: batch_shape `(...)`."""
        raise TypeError("each head says which distribution it is")

    def require(self, data: Data) -> None:
        """Refuse y that cannot be.

        Raises:
            ValueError: a row is none that the head has a probability for.
        """


@dataclass(frozen=True, eq=False)
class RealHead(Head):
    """What heads of real numbers share: y is a function of x, and noise.

    Args:
        noise_var: variance of y about that function, in its own units; `fit` learns it.
    """

    noise_var: Float[Tensor, ""] | None = None

    def standardised(self, y: Tensor) -> Tensor:
        return (y - self.centre) / self.scale

    def in_standard_units(self: R) -> R:
        return replace(self, centre=torch.zeros_like(self.centre), scale=torch.ones_like(self.scale))

    @property
    def noise_sd(self) -> Tensor:
        return super().noise_sd if self.noise_var is None else self.noise_var.sqrt()

    def noise_free(self, prediction: Distribution) -> Normal:
        var = prediction.variance
        left = var if self.noise_var is None else var - self.noise_var
        return Normal(prediction.mean, torch.maximum(left, LEAST_SHARE * var).sqrt(), validate_args=False)


@dataclass(frozen=True, eq=False)
class GaussianHead(RealHead):
    """A normal distribution."""

    @property
    def num_outputs(self) -> int:
        return 2

    def distribution(self, outputs: Tensor) -> Normal:
        loc, log_sd = outputs.unbind(-1)
        return Normal(
            self.centre + self.scale * loc, self.scale * self.temperature * _spread(log_sd), validate_args=False
        )


@dataclass(frozen=True, eq=False)
class StudentHead(RealHead):
    """A Student t distribution, whose tails the network chooses."""

    @property
    def num_outputs(self) -> int:
        return 3

    def distribution(self, outputs: Tensor) -> StudentMarginal:
        loc, log_sd, log_df = outputs.unbind(-1)
        scale = self.scale * self.temperature * _spread(log_sd)
        return StudentMarginal(LEAST_DF + softplus(log_df), self.centre + self.scale * loc, scale, validate_args=False)


@dataclass(frozen=True, eq=False)
class MixtureHead(RealHead):
    """A mixture of normal distributions.

    Args:
        num_components: at least one.
    """

    num_components: int = NUM_COMPONENTS

    @property
    def num_outputs(self) -> int:
        return 3 * self.num_components

    @property
    def num_locations(self) -> int:
        return self.num_components

    def distribution(self, outputs: Tensor) -> MixtureDistribution:
        loc, log_sd, logits = outputs.unflatten(-1, (3, self.num_components)).unbind(-2)
        scale = self.scale * self.temperature * _spread(log_sd)
        # apart from the start on, for components that are the same stay the same
        apart = torch.linspace(-1.0, 1.0, self.num_components).to(loc) if self.num_components > 1 else 0.0
        return MixtureDistribution(logits.log_softmax(-1), Normal(self.centre + self.scale * (loc + apart), scale), -1)


@dataclass(frozen=True, eq=False)
class HistogramHead(RealHead):
    """A density in steps, with normal tails: any shape, and some probability everywhere.

    Args:
        edges: of the bins, standardised and increasing; `initial` takes quantiles of past rows.
    """

    edges: Float[Tensor, "edges"] = torch.zeros(0)  # noqa: RUF009 - a tensor without numbers

    @classmethod
    def initial(cls, tasks: Data, *, num_bins: int = NUM_BINS, **sizes: Any) -> "HistogramHead":
        require_columns(tasks, num_inputs=tasks.x.shape[-1], event_shape=())
        y = _real(tasks)
        centre, scale = _centre_and_scale(y)
        quantiles = torch.quantile(_some((y - centre) / scale), torch.linspace(0.0, 1.0, num_bins + 1).to(y))
        # values that repeat make no bins; a little beyond the extremes is still among the bins
        least = FLOOR * torch.arange(num_bins + 1).to(y)
        return cls(centre, scale, edges=(quantiles - least).cummax(0).values + least, **sizes)

    @property
    def num_outputs(self) -> int:
        return len(self.edges) + 1

    @property
    def num_locations(self) -> int:
        return 0

    def distribution(self, outputs: Tensor) -> Histogram:
        log_mass = (outputs / self.temperature).log_softmax(-1)
        tail = self.scale * (self.edges[-1] - self.edges[0]) / 2.0
        return Histogram(log_mass, self.centre + self.scale * self.edges, tail)


@dataclass(frozen=True, eq=False)
class BernoulliHead(Head):
    """Zero or one."""

    @classmethod
    def initial(cls, tasks: Data, **sizes: Any) -> "BernoulliHead":
        half = tasks.y.new_full((), 0.5)
        head = cls(half, half, **sizes)
        head.require(tasks)
        return head

    @property
    def num_outputs(self) -> int:
        return 1

    def distribution(self, outputs: Tensor) -> Bernoulli:
        return Bernoulli(logits=outputs[..., 0] / self.temperature, validate_args=False)

    def require(self, data: Data) -> None:
        require_binary(data)


@dataclass(frozen=True, eq=False)
class CategoricalHead(Head):
    """One of several categories, y being vectors with a one in its place.

    Args:
        num_categories: at least two.
    """

    num_categories: int = 2

    @classmethod
    def initial(cls, tasks: Data, **sizes: Any) -> "CategoricalHead":
        if len(tasks.event_shape) != 1 or tasks.event_shape[0] < 2:
            raise ValueError(
                f"y must be vectors of two or more, one in one place; got event_shape {tuple(tasks.event_shape)}"
            )
        head = cls(tasks.y.new_zeros(()), tasks.y.new_ones(()), num_categories=tasks.event_shape[0], **sizes)
        head.require(tasks)
        return head

    @property
    def event_shape(self) -> torch.Size:  # type: ignore[override]
        return torch.Size((self.num_categories,))

    @property
    def num_y(self) -> int:  # type: ignore[override]
        return self.num_categories

    @property
    def num_outputs(self) -> int:
        return self.num_categories

    @property
    def num_locations(self) -> int:
        return self.num_categories

    def seen(self, y: Tensor) -> Tensor:
        return y

    def distribution(self, outputs: Tensor) -> OneHotCategorical:
        return OneHotCategorical(logits=outputs / self.temperature, validate_args=False)

    def require(self, data: Data) -> None:
        y = data.y[data.mask]
        if bool(((y != 0) & (y != 1)).any()) or bool((y.sum(-1) != 1).any()):
            raise ValueError("y must be vectors with a one in one place and zeros elsewhere; see one_hot")


@dataclass(frozen=True, eq=False)
class CountHead(Head):
    """A count: a Poisson distribution whose rate is of a gamma distribution."""

    @classmethod
    def initial(cls, tasks: Data, **sizes: Any) -> "CountHead":
        require_columns(tasks, num_inputs=tasks.x.shape[-1], event_shape=())
        require_counts(tasks)
        return cls(*_centre_and_scale(_real(tasks).log1p()), **sizes)

    @property
    def num_outputs(self) -> int:
        return 2

    def seen(self, y: Tensor) -> Tensor:
        return ((y.log1p() - self.centre) / self.scale)[..., None]

    def distribution(self, outputs: Tensor) -> NegativeBinomial:
        log_mean, log_size = outputs.unbind(-1)
        log_mean = self.centre + self.scale * log_mean.clamp(max=LARGEST_LOG)
        # variance over the mean is one plus mean over size, and the temperature widens what exceeds one
        size = log_size.clamp(-LARGEST_LOG, LARGEST_LOG) - 2.0 * math.log(self.temperature)
        return NegativeBinomial(size.exp(), logits=log_mean - size, validate_args=False)

    def require(self, data: Data) -> None:
        require_counts(data)


def require_counts(data: Data) -> None:
    """Every real row of y is a whole number, zero or more."""
    bad = ((data.y < 0) | (data.y != data.y.floor())) & data.mask
    if bool(bad.any()):
        value = data.y[bad][0].item()
        raise ValueError(
            f"y must be a whole number, zero or more, where mask is true; {describe_rows(bad)} with value {value:g}"
        )


def _spread(log_sd: Tensor) -> Tensor:
    """Standard deviations, none below the floor."""
    return (FLOOR**2 + (2.0 * log_sd.clamp(max=LARGEST_LOG)).exp()).sqrt()


def _real(tasks: Data) -> Tensor:
    """y of all rows, in float64."""
    y = tasks.y[tasks.mask].double()
    if not len(y):
        raise ValueError("y is standardised by rows of past tasks, and these have none")
    return y


def _centre_and_scale(y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of all rows."""
    centre, scale = centre_and_scale_with_digits(y[:, None])
    return centre[0], scale[0]


def _some(values: Tensor, most: int = 10**6) -> Tensor:
    """Evenly spaced ones, no more than `torch.quantile` takes."""
    return values[:: max(1, -(-len(values) // most))]
