"""Features of x that networks compute: hidden layers whose weights all tasks share."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.data.validation import require_columns, require_finite, require_positive
from bayesmeta.doors import Draws
from bayesmeta.fields import TensorFields
from bayesmeta.protocol import Functions
from bayesmeta.random import randn

__all__ = [
    "GRID_OF_X",
    "FeatureFunctions",
    "ReluNetwork",
    "TanhFeatures",
    "centre_and_scale",
    "centre_and_scale_with_digits",
    "on_grid",
    "tanh_features",
]

GRID_OF_X = 2.0**-20  # digits that learning sees of x, in standard deviations: see `LearnedFeatures`
LEAST_DIGITS = 1e-12  # of a column, that a standard deviation has at least
FIRST_SLOPE = 1.5  # standard deviation of A (x - centre) / scale where the search starts


@dataclass(frozen=True, eq=False)
class TanhFeatures(TensorFields):
    """x -> (tanh(weight (x - centre) / scale + bias), 1): h + 1 features of d inputs.

    Args:
        weight, bias: of the hidden layer.
        centre, scale: of the inputs, in their units; scale above zero.
    """

    weight: Float[Tensor, "h d"]
    bias: Float[Tensor, "h"]
    centre: Float[Tensor, "d"]
    scale: Float[Tensor, "d"]

    def __post_init__(self) -> None:
        for name in ("weight", "bias", "centre"):
            require_finite(name, getattr(self, name))
        require_positive("scale", self.scale)

    @classmethod
    def initial(cls, tasks: Data, *, width: int, generator: Generator | None = None) -> "TanhFeatures":
        """Random directions, each bending at a random row of `tasks`; inputs are standardised by all rows."""
        rows = tasks.x[tasks.mask].double()
        if width < 1 or not rows.shape[-1] or not len(rows):
            raise ValueError(
                f"features need width of one or more, and rows with inputs; got width {width} and {len(rows)} rows "
                f"with {rows.shape[-1]} inputs"
            )
        generator = generator or torch.Generator(device=rows.device).manual_seed(0)
        centre, scale = centre_and_scale(rows)
        at = torch.randint(len(rows), (width,), generator=generator, device=rows.device)
        weight = randn((width, rows.shape[-1]), like=rows, generator=generator)
        weight = weight * (FIRST_SLOPE / math.sqrt(rows.shape[-1]))
        bias = -(weight * on_grid((rows[at] - centre) / scale, GRID_OF_X)).sum(-1)
        return cls(weight, bias, centre, scale).to(tasks.y)

    @property
    def num_features(self) -> int:
        return len(self.bias) + 1

    def __call__(self, x: Shaped[Tensor, "*tasks q d"]) -> Tensor:
        """`(*tasks, q, h + 1)`."""
        return tanh_features(self.standardised(x), self.weight, self.bias)

    def standardised(self, x: Shaped[Tensor, "*tasks q d"]) -> Tensor:
        """Inputs about `centre`, in units of `scale`."""
        return (x.to(self.bias) - self.centre) / self.scale

    def of(self, data: Data) -> Data:
        """The same rows with their features as inputs: what `LinearGaussian` and `Hyperposterior` take."""
        require_columns(data, num_inputs=len(self.centre), event_shape=())
        return Data(self(data.x), data.y, data.mask, data.task_x)


@dataclass(frozen=True, eq=False)
class ReluNetwork(TensorFields):
    """Layers of one width, with positive parts between them; the last is linear.

    Args:
        first: weights of the first layer.
        rest: weights of the other layers.
        biases: of all layers.
        centre, scale: of the inputs, in their units; scale above zero.

    Raises:
        ValueError: there are not as many biases as layers, an entry is not finite, or a scale is not positive.
    """

    first: Float[Tensor, "h d"]
    rest: Float[Tensor, "others h h"]
    biases: Float[Tensor, "layers h"]
    centre: Float[Tensor, "d"]
    scale: Float[Tensor, "d"]

    def __post_init__(self) -> None:
        if len(self.biases) != len(self.rest) + 1:
            raise ValueError(
                f"biases must have a row per layer, {len(self.rest) + 1} with the first; got {len(self.biases)}"
            )
        for name in ("first", "rest", "biases", "centre"):
            require_finite(name, getattr(self, name))
        require_positive("scale", self.scale)

    @classmethod
    def initial(cls, tasks: Data, *, width: int, num_layers: int, generator: Generator | None = None) -> "ReluNetwork":
        """Random weights that keep the size of what passes; inputs are standardised by all rows of `tasks`.

        Source: He et al., Delving deep into rectifiers (2015), equation 10.
        """
        rows = tasks.x[tasks.mask].double()
        if width < 1 or num_layers < 1 or not rows.shape[-1] or not len(rows):
            raise ValueError(
                "a network needs a width and a number of layers of one or more, and rows with inputs; got width "
                f"{width}, {num_layers} layers and {len(rows)} rows with {rows.shape[-1]} inputs"
            )
        generator = generator or torch.Generator(device=rows.device).manual_seed(0)
        first = randn((width, rows.shape[-1]), like=rows, generator=generator) * math.sqrt(2.0 / rows.shape[-1])
        rest = randn((num_layers - 1, width, width), like=rows, generator=generator) * math.sqrt(2.0 / width)
        return cls(first, rest, rows.new_zeros(num_layers, width), *centre_and_scale(rows)).to(tasks.y)

    def __call__(self, x: Shaped[Tensor, "*tasks q d"]) -> Tensor:
        """`(*tasks, q, h)`."""
        hidden = ((x.to(self.biases) - self.centre) / self.scale) @ self.first.mT + self.biases[0]
        for weight, bias in zip(self.rest, self.biases[1:], strict=True):
            hidden = hidden.relu() @ weight.mT + bias
        return hidden

    def of(self, data: Data) -> Data:
        """The same rows with their features as inputs: what `GaussianProcess` takes."""
        require_columns(data, num_inputs=len(self.centre), event_shape=())
        return Data(self(data.x), data.y, data.mask, data.task_x)


@dataclass(frozen=True, eq=False)
class FeatureFunctions(Draws):
    """Draws of functions of features."""

    features: Callable[[Tensor], Tensor]
    functions: Functions

    def __call__(self, x: Shaped[Tensor, "*tasks q d"]) -> Tensor:
        return self.functions(self.features(x))

    def predict(self, x: Shaped[Tensor, "*tasks q d"]) -> Distribution:
        return self.functions.predict(self.features(x))


def on_grid(values: Tensor, spacing: float) -> Tensor:
    return (values / spacing).round() * spacing


def centre_and_scale(rows: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column; that of a column that never varied is one."""
    about_first = rows - rows[:1]  # exact, or nearly, wherever rows lie
    centre, scale = rows[0] + about_first.mean(0), about_first.std(0, correction=0)
    # where a column sits far from zero, rounding looks like spread
    return centre, scale.where(scale > LEAST_DIGITS * centre.abs(), 1.0)


def centre_and_scale_with_digits(rows: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    """The same, but no standard deviation is less than the digits of its column: what is left is rounding."""
    centre, scale = centre_and_scale(rows)
    return centre, torch.maximum(scale, LEAST_DIGITS * centre.abs())


def tanh_features(standard: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Features `(..., q, h + 1)` of standardised inputs `(..., q, d)`."""
    hidden = torch.tanh(standard @ weight.mT + bias)
    return torch.cat([hidden, torch.ones_like(hidden[..., :1])], -1)
