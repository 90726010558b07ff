r"""Mixtures of multivariate Student t distributions: proposals whose tails are heavier than those of a target.

With $x = \mu + L z \sqrt{\nu / g}$, z standard normal and g chi-squared with $\nu$ degrees of freedom,

$$ \log t(x) = \log\Gamma(\tfrac{\nu + d}2) - \log\Gamma(\tfrac\nu2) - \tfrac d2 \log(\nu\pi) - \log|L|
   - \tfrac{\nu + d}2 \log(1 + |L^{-1}(x - \mu)|^2 / \nu). $$

Source: Kotz and Nadarajah, Multivariate t Distributions and Their Applications (2004), section 1.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.fields import TensorFields
from bayesmeta.random import categorical, gamma

__all__ = ["DEGREES", "StudentMixture", "student_log_density"]

DEGREES = 8.0  # of freedom: heavy enough for weights to stay bounded, light enough that few draws are lost
MOST_FACTORS = 8  # uniforms whose product gives a chi-squared; from there on the gamma distribution is drawn


@dataclass(frozen=True, eq=False)
class StudentMixture(TensorFields):
    """A mixture of K Student t distributions in d dimensions.

    Args:
        logits: log weights of the components, up to a constant; minus infinity for one that is not there.
        loc: their centres.
        scale_tril: factors of their scale matrices, lower triangular.
        df: degrees of freedom, the same for all.
    """

    logits: Float[Tensor, "*batch K"]
    loc: Float[Tensor, "*batch K d"]
    scale_tril: Float[Tensor, "*batch K d d"]
    df: float = DEGREES

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[:-1]

    @property
    def num_components(self) -> int:
        return self.logits.shape[-1]

    @property
    def mean(self) -> Tensor:
        """`(*batch, d)`."""
        return (self.logits.softmax(-1)[..., None] * self.loc).sum(-2)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        if self.num_components == 1:
            return self.draw(num_draws, generator=generator)[0]
        return self._mixed(*self._spherical(num_draws, generator), generator)

    def draw(self, num_draws: int, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draws `(num_draws, *batch, d)` and their log density `(num_draws, *batch)`.

        Coordinates vary slowest in memory, and draws fastest: what is done to many draws of a task is fast.
        """
        d = self.loc.shape[-1]
        z, stretch = self._spherical(num_draws, generator)
        if self.num_components == 1:
            distance = z.square().sum(-2) * stretch
            x = torch.baddbmm(
                self.loc.reshape(-1, d, 1),
                self.scale_tril.reshape(-1, d, d),
                (z * stretch.sqrt()[..., None, :]).reshape(-1, d, num_draws),
            ).reshape(z.shape)
            log_prob = self._log_density(distance, self.scale_tril[..., 0, :, :])
            return _draws_first(x), log_prob.movedim(-1, 0)
        x = self._mixed(z, stretch, generator)
        return x, self.log_prob(x)

    def _spherical(self, num_draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Normal draws `(*batch, d, n)`, and squares of the factors that make them a Student t's `(*batch, n)`."""
        z = _normal((*self.batch_shape, self.loc.shape[-1], num_draws), self.loc, generator)
        return z, self.df / _chi_squared(self.df, (*self.batch_shape, num_draws), self.loc, generator)

    def _mixed(self, z: Tensor, stretch: Tensor, generator: Generator | None) -> Tensor:
        """Draws `(n, *batch, d)` of components chosen at random, from spherical ones."""
        z = z * stretch.sqrt()[..., None, :]
        chosen = categorical(z.shape[-1], self.logits, generator=generator).movedim(0, -1)
        x = torch.empty_like(z)
        for k in range(self.num_components):
            of_k = self.loc[..., k, :, None] + self.scale_tril[..., k, :, :] @ z
            x = of_k if k == 0 else torch.where((chosen == k)[..., None, :], of_k, x)
        return _draws_first(x)

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density `(..., *batch)` of `(..., *batch, d)`."""
        d, batch = self.loc.shape[-1], self.batch_shape
        num = math.prod(params.shape[: params.ndim - len(batch) - 1])
        x = params.reshape(num, *batch, d).movedim(0, -1)
        # inverses of small factors, once, cost half of solving with them for each draw
        inverse = torch.linalg.solve_triangular(self.scale_tril, torch.eye(d).to(x), upper=False)
        volume = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) - self.logits.log_softmax(-1)
        each = []
        for k in range(self.num_components):
            distance = (inverse[..., k, :, :] @ (x - self.loc[..., k, :, None])).square().sum(-2)
            each.append(student_log_density(distance, volume[..., k, None], d, self.df))
        total = each[0] if len(each) == 1 else torch.stack(each).logsumexp(0)
        return total.movedim(-1, 0).reshape(params.shape[:-1])

    def _log_density(self, distance: Tensor, root: Tensor) -> Tensor:
        """Of one component at squared distances `(*batch, n)`."""
        volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return student_log_density(distance, volume[..., None], root.shape[-1], self.df)

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"position": params}


def student_log_density(distance: Tensor, log_volume: Tensor, d: int, df: float) -> Tensor:
    """Of a Student t in d dimensions at squared distances in units of its scale, whose log determinant is given."""
    constant = math.lgamma(0.5 * (df + d)) - math.lgamma(0.5 * df) - 0.5 * d * math.log(df * math.pi)
    return constant - log_volume - 0.5 * (df + d) * torch.log1p(distance / df)


def _normal(shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal draws, of the floats of float32, which cost a quarter: densities are of what was drawn."""
    return torch.randn(tuple(shape), dtype=torch.float32, device=like.device, generator=generator).to(like)


def _chi_squared(df: float, shape: Sequence[int], like: Tensor, generator: Generator | None) -> Tensor:
    """Chi-squared draws; with few and even degrees of freedom minus twice the log of a product of uniforms."""
    factors = round(0.5 * df)
    if df != 2.0 * factors or factors > MOST_FACTORS:
        return 2.0 * gamma(shape, like.new_full((), 0.5 * df), generator=generator)
    product = torch.ones(tuple(shape), dtype=like.dtype, device=like.device)
    for _ in range(factors):
        product *= 1.0 - torch.rand(tuple(shape), dtype=torch.float32, device=like.device, generator=generator)
    return product.log_().mul_(-2.0)


def _draws_first(x: Tensor) -> Tensor:
    """`(*batch, d, n)` as `(n, *batch, d)`, a view."""
    return x.movedim(-1, 0)
