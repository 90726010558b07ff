r"""A diffusion prior over the weights of a regression: tasks whose weights have any joint distribution.

For each task, with rows (x, y) and weights w,

$$ y = x^\top w + e, \quad y \sim \text{Bernoulli}(\sigma(x^\top w)) \quad \text{or} \quad
y \sim \text{Poisson}(\exp(x^\top w)), $$

as in `LinearGaussian`, `LogisticGaussian` and `PoissonGaussian`, one of which is the Gaussian prior that it starts
from; but w is of any distribution, learned by taking noise away, see `bayesmeta.diffusion.prior`. There is no hidden
intercept: put a column of ones into x. Posteriors are particles: Gaussians where noise is normal, and draws of w
weighted by the rows themselves elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Distribution

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_columns
from bayesmeta.diffusion.denoising.denoiser import Denoiser
from bayesmeta.diffusion.family import NUM_LEVELS, NUM_PARTICLES, DiffusionFamily, unlearned
from bayesmeta.diffusion.sampling.corrected import StandIns, of_draws
from bayesmeta.diffusion.sampling.gaussians import Sampler
from bayesmeta.diffusion.sampling.observations import Functionals
from bayesmeta.diffusion.sampling.samplers import DEFAULT
from bayesmeta.diffusion.sampling.tempering import RowsOf
from bayesmeta.diffusion.weight_particles import GaussianWeights, WeightFunctions, WeightParticles
from bayesmeta.doors import counted, require_rows
from bayesmeta.fields import LearnedFrom
from bayesmeta.glm.logistic import LogisticGaussian
from bayesmeta.glm.model import Regression
from bayesmeta.glm.poisson import PoissonGaussian
from bayesmeta.glm.predictor import rows_of
from bayesmeta.numerics.linalg import cholesky, positive, rounded
from bayesmeta.regression.linear import LinearGaussian

if TYPE_CHECKING:
    from bayesmeta.diffusion.online_weights import OnlineWeightParticles

__all__ = ["DiffusionRegression"]

KINDS: dict[str, Any] = {"normal": LinearGaussian, "bernoulli": LogisticGaussian, "poisson": PoissonGaussian}


@dataclass(frozen=True, eq=False)
class DiffusionRegression(DiffusionFamily):
    """A diffusion model of the weights of a regression: `DiffusionRegression.initial(tasks).fit(tasks)`.

    Args:
        weights: the Gaussian prior over weights, whose class says what y is.
        network, noises, gates, residual_cov, basis: as of `DiffusionPrior`, of the weights.
        num_particles: of a posterior.
        rows: that it was conditioned on.
        learned_from: what `fit` learned this prior from, None for one written by hand.
        sampler: of posteriors, see `with_sampler`.

    Raises:
        ValueError: as of `DiffusionPrior`, or columns of x have roles.
    """

    weights: GaussianWeights
    network: Denoiser
    noises: Float[Tensor, " s"]
    gates: Float[Tensor, "s r"]
    residual_cov: Float[Tensor, "s r r"]
    basis: Float[Tensor, "k r"]
    num_particles: int = NUM_PARTICLES
    rows: Data | None = None
    learned_from: LearnedFrom | None = None
    sampler: str = DEFAULT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights.columns is not None:
            raise ValueError(
                "columns of x must all be inputs, without roles; got roles. Learn the Gaussian prior alone"
            )

    @classmethod
    @counted(num_levels=1, num_particles=1)
    def initial(
        cls,
        tasks: Data,
        *,
        y: str = "normal",
        num_levels: int = NUM_LEVELS,
        num_particles: int = NUM_PARTICLES,
        grid: Any = None,
        generator: Generator | None = None,
        **sizes: Any,
    ) -> "DiffusionRegression":
        """The Gaussian prior of the regression, with a network that has learned nothing.

        Args:
            tasks: whose rows set the scales.
            y: "normal", "bernoulli" or "poisson".
            num_levels: of noise: 10 are enough for decisions, 25 for evidence.
            num_particles: of a posterior.
            grid: where weights lie, as arms in `DiffusionPrior.initial`; None for weights without an order.
            generator: draws the weights of the network; None draws the same ones each time.
            sizes: of the network, see `DenoiserNetwork`, and `GridDenoiser` where there is a grid.
        """
        if y not in KINDS:
            raise ValueError(f"y must be one of {', '.join(map(repr, KINDS))}; got {y!r}")
        weights = KINDS[y].initial(tasks)
        fields = unlearned(len(weights.loc), num_levels, generator, grid=grid, **sizes)
        return cls(weights, num_particles=num_particles, **fields)

    @property
    def gaussian(self) -> GaussianWeights:
        return self.weights

    def with_gaussian(self, gaussian: Any) -> "DiffusionRegression":
        return replace(self, weights=gaussian)

    def with_moments(self, mean: Tensor, cov: Tensor) -> "DiffusionRegression":
        loc, precision = self.weights.loc, torch.cholesky_inverse(cholesky(cov, "covariance of theta"))
        rounded_precision = rounded(positive(precision), loc.dtype)
        return self.with_gaussian(replace(self.weights, loc=mean.to(loc), precision=rounded_precision))

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size() if self.rows is None else self.rows.batch_shape

    @property
    def num_inputs(self) -> int:
        """Columns of x, d."""
        return self.num_values

    def condition(self, data: Data) -> "DiffusionRegression":
        """Posterior of the weights after the rows of `data`, which are kept beside those seen before.

        Raises:
            ValueError: x does not have d columns, or y is not what the likelihood is of.
        """
        rows = self.kept_of(data)
        return self._with_rows(rows if self.rows is None else self.rows + rows)

    def predict(self, x: Float[Tensor, "*tasks q d"]) -> Distribution:
        """p(y | x) at each row: batch_shape `(*batch, q)`."""
        return self._particles.predict(x)

    def marginal(self, x: Float[Tensor, "*tasks q d"]) -> Distribution:
        """p(f(x)) at each row: x'w, the probability of a one, or the rate."""
        return self._particles.marginal(x)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> WeightFunctions:
        """Draws of x -> x'w, of the probability of a one, or of the rate."""
        return self._particles.sample(num_draws, generator)

    def online(self, batch_shape: Sequence[int]) -> "OnlineWeightParticles":
        """The posterior of tasks, to be updated in place."""
        from bayesmeta.diffusion.online_weights import OnlineWeightParticles

        return OnlineWeightParticles(self, batch_shape)

    def expand(self, batch_shape: Sequence[int]) -> "DiffusionRegression":
        batch, rows = tuple(batch_shape), self.rows
        if rows is None and not batch:
            return self
        if rows is None:
            rows = _no_rows(self.weights.loc)
        try:
            x, y, mask = (
                part.expand(*batch, *part.shape[-i:]) for part, i in ((rows.x, 2), (rows.y, 1), (rows.mask, 1))
            )
        except RuntimeError:
            raise ValueError(f"batch_shape {tuple(self.batch_shape)} does not broadcast to {batch}") from None
        return self._with_rows(Data(x, y, mask))

    def __getitem__(self, index: Any) -> "DiffusionRegression":
        if self.rows is None or not self.batch_shape:
            raise IndexError("this DiffusionRegression has no batch to index")
        return self._with_rows(self.rows[index])

    def kept_of(self, data: Data | Statistics) -> Data:
        """The rows: all of them are kept."""
        require_rows(type(self).__name__, data, statistics=False)
        assert isinstance(data, Data)
        require_columns(data, num_inputs=self.num_inputs, event_shape=())
        if isinstance(self.weights, Regression):
            self.weights._require_values(data)
        return data

    def directions(self, tasks: Data) -> tuple[Tensor, Tensor]:
        """See `DiffusionFamily`; rows of a task say as much as the mean of its information."""
        _, cov = self._moments()
        seen = self._with_rows(tasks)._observations()(slice(None))
        assert isinstance(seen, Functionals)
        values, vectors = torch.linalg.eigh(cov)
        told = (seen.matrix @ vectors).square().sum(-2).mean(0)  # information of each direction
        wide = values * told >= min(1.0, float((values * told).max()))
        return values[wide], vectors[:, wide]

    def _moments(self) -> tuple[Tensor, Tensor]:
        precision = self.weights.precision.double().contiguous()
        return self.weights.loc.double(), torch.cholesky_inverse(cholesky(precision, "precision"))

    def _observations(self) -> RowsOf:
        rows, loc = self._flat(), self.weights.loc.double()
        if isinstance(self.weights, LinearGaussian):
            noise_var = self.weights.noise_var.double()
            return lambda some: Functionals.of_rows(rows.x[some], rows.y[some], rows.mask[some], loc, noise_var)
        likelihood, precision, roles = self.weights.likelihood, self.weights.precision.double(), self.weights.roles
        return lambda some: StandIns.at_mode(likelihood, rows_of(rows[some], roles), loc, precision)

    def _around(self, sampler: Sampler) -> Sampler:
        if isinstance(self.weights, LinearGaussian):
            return sampler
        return of_draws(sampler, is_weighted=not self.is_approximate)

    def _count(self, tasks: Data) -> Tensor:
        return tasks.mask.sum(-1)

    def _flat(self) -> Data:
        """Rows of tasks on one axis, float64."""
        d, num = self.num_inputs, self.batch_shape.numel()
        if self.rows is None:
            return _no_rows(self.weights.loc.double(), 1)
        n = self.rows.mask.shape[-1]
        return Data(
            self.rows.x.double().reshape(num, n, d),
            self.rows.y.double().reshape(num, n),
            self.rows.mask.reshape(num, n),
        )

    @property
    def _particles(self) -> WeightParticles:
        found, batch, k = self._posterior, self.batch_shape, self.num_values
        return WeightParticles(
            self.weights,
            found.mean.reshape(*batch, -1, k),
            found.root.reshape(*batch, k, k),
            found.log_weights.reshape(*batch, -1),
        )


def _no_rows(loc: Tensor, *batch: int) -> Data:
    mask = torch.zeros(*batch, 0, dtype=torch.bool, device=loc.device)
    return Data(loc.new_zeros(*batch, 0, len(loc)), loc.new_zeros(*batch, 0), mask)
