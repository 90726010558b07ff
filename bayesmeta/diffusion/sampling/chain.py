r"""A diffusion prior as a chain of Gaussians, from the highest level of noise down to theta.

At each level the network guesses theta, and past tasks say by how much it errs: theta given u_s is taken to be
$N(h_s(u_s), T_s)$. That makes the chain a distribution that can be written down,

$$ p(u_S) = N(0, (1 + S^2) C), \quad p(u_r \mid u_s) = N(a h_s + b u_s, a^2 T_s + v C), \quad
p(\theta \mid u_1) = N(h_1, T_1), $$

with a, b and v of `Step`. Where theta is Gaussian it is exact with any number of levels. Elsewhere the error of a
constant T_s falls with the number of levels; samplers target the posterior under the chain, whatever its error.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bayesmeta.diffusion.denoising.levels import Step
from bayesmeta.numerics.linalg import cholesky, symmetric

__all__ = ["Chain", "Denoise"]

MIDDLE = 1.5  # standard deviations of theta, of noise half way down

Denoise = Callable[[Tensor, int], Tensor]  # u `(..., k)` and a level to theta `(..., k)`


@dataclass(frozen=True, eq=False)
class Chain:
    """Levels, and how far guesses are off at each.

    Args:
        noises: of the levels, rising `(s,)`.
        root: C = root @ root.mT, `(k, k)`.
        residual_cov: T of each level, in units in which C is the identity `(s, k, k)`.
        denoise: the guesses, about the mean of theta.
        kept: what others have computed of it, by their keys.
    """

    noises: Tensor
    root: Tensor
    residual_cov: Tensor
    denoise: Denoise
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def num_levels(self) -> int:
        return len(self.noises)

    @cached_property
    def cov(self) -> Tensor:
        """C."""
        return self.root @ self.root.mT

    @cached_property
    def residual_roots(self) -> Tensor:
        """Roots of the covariances of theta at each level, `(s, k, k)`."""
        return self.root @ cholesky(self.residual_cov, "covariance of residuals")

    @cached_property
    def _residuals(self) -> Tensor:
        return self.residual_roots @ self.residual_roots.mT

    def residual(self, level: int) -> Tensor:
        """Covariance of theta given u at a level, `(k, k)`."""
        return self._residuals[level]

    @property
    def middle(self) -> int | None:
        """A level from which particles may go down once more when there are more rows; None where none is between.

        There theta is as wide given u as tasks of one shape are, so that a few rows do not spoil the weights.
        """
        level = int((self.noises.log() - math.log(MIDDLE)).abs().argmin())
        return level if 0 < level < self.num_levels - 1 else None

    def step(self, level: int) -> Step:
        """From a level to the one below."""
        return Step.down(float(self.noises[level]), float(self.noises[level - 1]))

    def below(self, u: Tensor, guess: Tensor, level: int) -> Tensor:
        """Mean of u at the level below given u and the guess of theta there; below the lowest is theta itself."""
        if not level:
            return guess
        a, b, _ = self.step(level)
        return a * guess + b * u

    def below_cov(self, level: int) -> Tensor:
        """Covariance about that mean, `(k, k)`."""
        if not level:
            return self.residual(0)
        a, _, var = self.step(level)
        return a * a * self.residual(level) + var * self.cov

    @cached_property
    def _betweens(self) -> list[tuple[Tensor, Tensor]]:
        return [self._between(level) for level in range(1, self.num_levels)]

    def between(self, level: int) -> tuple[Tensor, Tensor]:
        """Of theta, given u at a level and u at the one below: its covariance, and a gain.

        Its mean is `h + (u_below - expected) @ gain.mT`, `expected` being that of u_below given u.
        """
        return self._betweens[level - 1]

    def _between(self, level: int) -> tuple[Tensor, Tensor]:
        a, _, var = self.step(level)
        values, vectors = torch.linalg.eigh(self.residual_cov[level])
        total = a * a * values + var
        basis, inverse = self.root @ vectors, torch.linalg.solve(self.root.mT, vectors)
        cov = (basis * (var * values / total)) @ basis.mT
        return symmetric(cov), (basis * (a * values / total)) @ inverse.mT
