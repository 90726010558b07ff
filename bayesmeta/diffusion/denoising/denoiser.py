r"""Guesses of theta from theta with noise: what a Gaussian would guess, plus what a network has to say.

In units in which theta has mean zero and covariance I, at a level of noise s,

$$ h(u, s) = \frac{u}{1 + s^2} + g_s \odot \frac{s}{\sqrt{1 + s^2}} F\left(\frac{u}{\sqrt{1 + s^2}}, s\right), $$

whose first part is exact for a Gaussian. The network F has inputs and targets of variance one at every level and begins
as zero, and the gates g, one for each direction, are what held-out tasks say that its answers are worth: so few past
tasks do no harm. Directions in which theta varies little are small inputs, and count little in what is learned.

Source: Karras et al., Elucidating the design space of diffusion-based generative models (2022), for the scales.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from bayesmeta.networks.modules import Weights
from bayesmeta.networks.perceptron import ResidualPerceptron, zeroed

__all__ = [
    "NUM_WAVES",
    "AtLevel",
    "Denoiser",
    "DenoiserNetwork",
    "gaussian_guess",
    "level_waves",
    "network_guess",
    "network_scale",
    "relative",
]

NUM_WAVES = 6  # of the logarithm of the level


@dataclass(frozen=True, eq=False)
class Denoiser(Weights):
    """A network from vectors and a level to vectors, which at first are zero: `module(u, noise)`.

    Args:
        scales: standard deviations of theta in the directions of the values of a vector, whose squares add up to one:
            the network errs as little in wide ones `(r,)`.
    """

    scales: Tensor

    @property
    def num_values(self) -> int:
        """Of a vector."""
        return len(self.scales)

    def anew(self, variances: Tensor, directions: Tensor, generator: Generator) -> "Denoiser":
        """One of the same kind and sizes that has learned nothing, of vectors of these variances `(r,)`.

        Args:
            directions: orthonormal ones of theta, of which a vector has its values `(k, r)`.
        """
        raise TypeError("each denoiser says how another one of its kind begins")


@dataclass(frozen=True, eq=False)
class DenoiserNetwork(Denoiser):
    """A residual perceptron: of values without an order, which it sees as wide as they are in theta.

    Args:
        width, num_layers: hidden layers.
    """

    width: int = 192
    num_layers: int = 3

    @classmethod
    def of(cls, variances: Tensor, **options: Any) -> "DenoiserNetwork":
        """That has learned nothing, of vectors of these variances `(r,)`."""
        return cls.initial(scales=relative(variances), **options)

    def anew(self, variances: Tensor, directions: Tensor, generator: Generator) -> "DenoiserNetwork":
        return DenoiserNetwork.of(variances, width=self.width, num_layers=self.num_layers, generator=generator)

    def build(self) -> "DenoiserModule":
        return DenoiserModule(self)


class AtLevel(nn.Module):
    """A network from vectors and noise to vectors, `forward(u, noise)`."""

    def between(self, into: Tensor, out_of: Tensor, noise: Tensor) -> Callable[[Tensor], Tensor]:
        """The network at one level, among linear maps: u `(..., k)` to `(..., k)`.

        Args:
            into: before it `(k, r)`.
            out_of: behind it `(r, k)`.
            noise: the level, one number.
        """
        return lambda u: self(u @ into, noise.expand(u.shape[:-1])) @ out_of


class DenoiserModule(AtLevel):
    """See `DenoiserNetwork`."""

    def __init__(self, sizes: DenoiserNetwork) -> None:
        super().__init__()
        num = sizes.num_values
        self.widths = (num**0.5 * sizes.scales).tolist()
        self.perceptron = ResidualPerceptron(num + 2 * NUM_WAVES, num, width=sizes.width, num_layers=sizes.num_layers)
        self.perceptron.last = zeroed(self.perceptron.last)

    def forward(self, u: Tensor, noise: Tensor) -> Tensor:
        """F: u `(..., k)` in units in which theta is white, noise `(...)`; `(..., k)`."""
        scaled = u * (u.new_tensor(self.widths) / (1.0 + noise.square()).sqrt()[..., None])
        return self.perceptron(torch.cat([scaled, level_waves(noise)], -1))

    def between(self, into: Tensor, out_of: Tensor, noise: Tensor) -> Callable[[Tensor], Tensor]:
        """In one product with its first layer, and one with its last, where that is less work."""
        (k, r), first, last = into.shape, self.perceptron.first, self.perceptron.last
        width = first.out_features
        if k * width > r * (k + width):
            return super().between(into, out_of, noise)
        of_values, of_waves = first.weight.double().split([r, 2 * NUM_WAVES], -1)
        scale = into.new_tensor(self.widths).double() / (1.0 + noise.double().square()).sqrt()
        before = (into.double() * scale) @ of_values.mT, first.bias + of_waves @ level_waves(noise.double())
        behind = last.weight.double().mT @ out_of.double(), last.bias.double() @ out_of.double()
        (weight, bias), (out_weight, out_bias) = (tuple(part.to(into) for part in parts) for parts in (before, behind))

        def said(u: Tensor) -> Tensor:
            hidden = self.perceptron.hidden(torch.addmm(bias, u.reshape(-1, k), weight))
            return torch.addmm(out_bias, hidden, out_weight).reshape(u.shape)

        return said


def relative(variances: Tensor) -> Tensor:
    """Standard deviations whose squares add up to one, in the proportions of these variances, float32."""
    return (variances / variances.sum()).sqrt().float()


def level_waves(noise: Tensor) -> Tensor:
    """What a network is told of its level: `(..., 2 NUM_WAVES)`."""
    angles = noise.log()[..., None] * (math.pi / 8.0) * torch.arange(1, NUM_WAVES + 1).to(noise)
    return torch.cat([angles.sin(), angles.cos()], -1)


def gaussian_guess(u: Tensor, noise: Tensor) -> Tensor:
    """The mean of theta given u, were theta N(0, I)."""
    return u / (1.0 + noise.square())[..., None]


def network_scale(noise: Tensor) -> Tensor:
    """Standard deviation of theta about that guess."""
    return noise / (1.0 + noise.square()).sqrt()


def network_guess(module: nn.Module, u: Tensor, noise: Tensor) -> Tensor:
    """What the network adds to the guess, before its gate: computed in its own dtype; its weights have no gradients."""
    dtype = next(module.parameters()).dtype
    said = module(u.to(dtype), noise.to(dtype))
    return (network_scale(noise.to(dtype))[..., None] * said).to(u)
