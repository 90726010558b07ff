r"""A denoiser over any set of arms with features: each arm attends to all of them.

Guesses are as of `bayesmeta.diffusion.denoising.denoiser`, in coordinates in which mean rewards are white. There an arm
is no coordinate, so the network sees and says what is of each arm: with eigenvalues $\lambda$ and eigenvectors V of the
covariance C of the arms, over its mean variance,

$$ \text{values} = V \lambda^{1/2} u, \quad \text{pulls} = V \frac{\lambda^{1/2}}{\lambda + \rho} u, \quad
F = \frac{\lambda^{1/2}}{\lambda + \rho} V^\top \text{out}. $$

Values are what noisy arms show. Pulls are about $C^{-1}$ times these, whose sums are evidence where arms are
correlated. Answers are in units of arms, so that they are of order one however many arms there are, and
$\rho$ keeps them out of directions in which arms hardly vary.

Arms in another order have the answers in that order. The number of arms is free, and pads count for nothing.

Source: Dutordoir et al., Neural diffusion processes (2023), for denoising function values by attention over points.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from bayesmeta.diffusion.denoising.denoiser import NUM_WAVES, AtLevel, level_waves
from bayesmeta.fields import TensorFields
from bayesmeta.networks.modules import Weights
from bayesmeta.networks.multihead import SelfAttentionLayer
from bayesmeta.networks.perceptron import zeroed

__all__ = ["ArmDenoiser", "ArmSets", "AtArms", "AttentionDenoiser"]

RIDGE = 0.1  # rho: eigenvalues below it, in units of the mean variance of arms, are hardly answered in


class ArmSets(NamedTuple):
    """Arms as the network sees them: one set, or one of each task, padded.

    Args:
        features: standardised `(*batch, k, d)`.
        values, pulls: of arms, from coordinates `(*batch, k, r)`; zero for pads of either.
        mask: which arms are real `(*batch, k)`.
    """

    features: Tensor
    values: Tensor
    pulls: Tensor
    mask: Tensor

    @classmethod
    def of(cls, features: Tensor, variances: Tensor, basis: Tensor, mean_var: Tensor) -> "ArmSets":
        """One set.

        Args:
            features: standardised `(k, d)`.
            variances, basis: of the coordinates, eigenvalues `(r,)` and eigenvectors `(k, r)` of the covariance.
            mean_var: of arms.
        """
        eigenvalues = variances / mean_var
        values, pulls = basis * eigenvalues.sqrt(), basis * (eigenvalues.sqrt() / (eigenvalues + RIDGE))
        return cls(features, values, pulls, torch.ones(len(basis), dtype=torch.bool, device=basis.device))

    def to(self, dtype: torch.dtype) -> "ArmSets":
        return ArmSets(self.features.to(dtype), self.values.to(dtype), self.pulls.to(dtype), self.mask)

    def some(self, tasks: slice | Tensor) -> "ArmSets":
        """Of some of the tasks."""
        return ArmSets(self.features[tasks], self.values[tasks], self.pulls[tasks], self.mask[tasks])


@dataclass(frozen=True, eq=False)
class AttentionDenoiser(Weights):
    """Sizes of a network over arms with features, with its weights.

    Args:
        centre, scale: of features, in their units `(d,)`.
        width, num_heads, num_layers: of the stream of each arm.
    """

    centre: Tensor
    scale: Tensor
    width: int = 48
    num_heads: int = 4
    num_layers: int = 2

    @property
    def num_features(self) -> int:
        return len(self.centre)

    def standardised(self, features: Tensor) -> Tensor:
        return (features.to(self.centre) - self.centre) / self.scale

    def anew(self, generator: Generator | None) -> "AttentionDenoiser":
        """Of the same sizes, that has learned nothing."""
        sizes = {"width": self.width, "num_heads": self.num_heads, "num_layers": self.num_layers}
        return AttentionDenoiser.initial(generator=generator, centre=self.centre, scale=self.scale, **sizes)

    def build(self) -> "AttentionDenoiserModule":
        return AttentionDenoiserModule(self)


class AttentionDenoiserModule(nn.Module):
    """See `AttentionDenoiser`."""

    def __init__(self, sizes: AttentionDenoiser) -> None:
        super().__init__()
        self.first = nn.Linear(sizes.num_features + 3 + 2 * NUM_WAVES, sizes.width)
        self.layers = nn.ModuleList(SelfAttentionLayer(sizes.width, sizes.num_heads) for _ in range(sizes.num_layers))
        self.norm = nn.LayerNorm(sizes.width)
        self.last = zeroed(nn.Linear(sizes.width, 1))

    def forward(self, u: Tensor, noise: Tensor, arms: ArmSets) -> Tensor:
        """F: coordinates u `(*batch, r)` and noise `(*batch)`, of sets of arms that broadcast; `(*batch, r)`."""
        white = (u / (1.0 + noise.square()).sqrt()[..., None])[..., None]
        of_each = torch.cat([arms.values @ white, arms.pulls @ white], -1)
        batch = of_each.shape[:-1]
        count = arms.mask.sum(-1).to(u).log()[..., None, None]
        beside = (arms.features, count, level_waves(noise)[..., None, :])
        stream = self.first(torch.cat([of_each, *(part.expand(*batch, -1) for part in beside)], -1))
        for layer in self.layers:
            stream = layer(stream, arms.mask)
        return (arms.pulls.mT @ self.last(self.norm(stream)))[..., 0]


@dataclass(frozen=True, eq=False)
class ArmDenoiser(TensorFields):
    """A network over arms, at one set of them: what a `DiffusionPrior` over that set asks.

    Args:
        network: that learned from other sets.
        features: of the arms, standardised.
        values, pulls: see `ArmSets`.
    """

    network: AttentionDenoiser
    features: Float[Tensor, "k d"]
    values: Float[Tensor, "k r"]
    pulls: Float[Tensor, "k r"]

    @property
    def num_values(self) -> int:
        """Coordinates."""
        return self.values.shape[-1]

    @cached_property
    def module(self) -> AtLevel:
        """From coordinates and noise to coordinates, without gradients of weights."""
        mask = torch.ones(len(self.features), dtype=torch.bool, device=self.features.device)
        arms = ArmSets(self.features, self.values, self.pulls, mask)
        return AtArms(self.network.module, arms.to(self.network.dtype))


class AtArms(AtLevel):
    """A network of which the sets of arms are given."""

    def __init__(self, inner: nn.Module, arms: ArmSets) -> None:
        super().__init__()
        self.inner, self.arms = inner, arms

    def forward(self, u: Tensor, noise: Tensor) -> Tensor:
        return self.inner(u, noise, self.arms)
