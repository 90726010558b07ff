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
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Distribution, Normal, Poisson

from bayesmeta.data.rows import Data
from bayesmeta.data.validation import require_columns
from bayesmeta.diffusion.denoising.denoiser import DenoiserNetwork
from bayesmeta.diffusion.family import NUM_LEVELS, NUM_PARTICLES, DiffusionFamily, unlearned
from bayesmeta.diffusion.sampling.corrected import corrected, normal_rows
from bayesmeta.diffusion.sampling.gaussians import WeightedGaussians
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Functionals
from bayesmeta.diffusion.sampling.samplers import DEFAULT
from bayesmeta.diffusion.sampling.tempering import RowsOf
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.doors import counted
from bayesmeta.fields import LearnedFrom
from bayesmeta.glm.functions import LogisticFunctions, PoissonFunctions
from bayesmeta.glm.logistic import LogisticGaussian
from bayesmeta.glm.model import Regression
from bayesmeta.glm.poisson import PoissonGaussian
from bayesmeta.glm.predictor import rows_of
from bayesmeta.numerics.linalg import cholesky
from bayesmeta.regression.linear import LinearFunctions, LinearGaussian

__all__ = ["DiffusionRegression"]

KINDS = {"normal": LinearGaussian, "bernoulli": LogisticGaussian, "poisson": PoissonGaussian}


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

    weights: LinearGaussian | LogisticGaussian | PoissonGaussian
    network: DenoiserNetwork
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
        generator: Generator | None = None,
        **sizes: Any,
    ) -> "DiffusionRegression":
        """The Gaussian prior of the regression, with a network that has learned nothing.

        Args:
            tasks: whose rows set the scales.
            y: "normal", "bernoulli" or "poisson".
            num_levels: of noise: 10 are enough for decisions, 25 for evidence.
            num_particles: of a posterior.
            generator: draws the weights of the network; None draws the same ones each time.
            sizes: of the network, see `DenoiserNetwork`.
        """
        if y not in KINDS:
            raise ValueError(f"y must be one of {', '.join(map(repr, KINDS))}; got {y!r}")
        weights = KINDS[y].initial(tasks)
        return cls(weights, *unlearned(weights.loc.shape[-1], num_levels, generator, **sizes), num_particles)

    @property
    def gaussian(self) -> LinearGaussian | LogisticGaussian | PoissonGaussian:
        return self.weights

    def with_gaussian(self, gaussian: Any) -> "DiffusionRegression":
        return replace(self, weights=gaussian)

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
        eta, var, log_weights = self._at(x)
        if isinstance(self.weights, LinearGaussian):
            sd = (var + self.weights.noise_var).sqrt()[..., None, :]
            return MixtureDistribution(log_weights[..., None], Normal(eta, sd.expand_as(eta)), -2)
        if isinstance(self.weights, PoissonGaussian):
            return MixtureDistribution(log_weights[..., None], Poisson(eta.exp()), -2)
        one = torch.nn.functional.logsigmoid(eta).add(log_weights[..., None]).logsumexp(-2)
        zero = torch.nn.functional.logsigmoid(-eta).add(log_weights[..., None]).logsumexp(-2)
        return Bernoulli(logits=one - zero)

    def sample(
        self, num_draws: int, *, generator: Generator | None = None
    ) -> LinearFunctions | LogisticFunctions | PoissonFunctions:
        """Draws of x -> x'w, of the probability of a one, or of the rate."""
        drawn = self.sample_params(num_draws, generator=generator)
        if isinstance(self.weights, LinearGaussian):
            return LinearFunctions(drawn, self.weights.noise_var.expand(self.batch_shape), None)
        kind = PoissonFunctions if isinstance(self.weights, PoissonGaussian) else LogisticFunctions
        return kind(drawn, self.weights.roles)

    def expand(self, batch_shape: Sequence[int]) -> "DiffusionRegression":
        batch, rows = tuple(batch_shape), self.rows
        if rows is None and not batch:
            return self
        if rows is None:
            like = self.weights.loc
            rows = Data(like.new_zeros(0, self.num_values), like.new_zeros(0), torch.zeros(0, dtype=torch.bool))
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

    def kept_of(self, data: Data) -> Data:
        """The rows: all of them are kept."""
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
        return lambda some: normal_rows(likelihood, rows_of(rows[some], roles), loc, precision)

    def _sampled(self, generator: Generator | None) -> WeightedGaussians:
        found = super()._sampled(generator)
        if isinstance(self.weights, LinearGaussian):
            return found
        rows = rows_of(self._flat(), self.weights.roles)
        source = generator or Generator(device=rows.y.device).manual_seed(1)
        each = 1 if generator is None else len(rows.y)
        noise = ParticleNoise(each, self.num_particles, self.num_values, rows.y, source)
        stand_in, loc = self._observations()(slice(None)), self.weights.loc.double()
        assert isinstance(stand_in, Functionals)
        return corrected(found, self.weights.likelihood, rows, stand_in, loc, noise)

    def _count(self, tasks: Data) -> Tensor:
        return tasks.mask.sum(-1)

    def _flat(self) -> Data:
        """Rows of tasks on one axis, float64."""
        d, num = self.num_inputs, self.batch_shape.numel()
        if self.rows is None:
            like = self.weights.loc.double()
            return Data(like.new_zeros(1, 0, d), like.new_zeros(1, 0), torch.zeros(1, 0, dtype=torch.bool))
        n = self.rows.mask.shape[-1]
        return Data(
            self.rows.x.double().reshape(num, n, d),
            self.rows.y.double().reshape(num, n),
            self.rows.mask.reshape(num, n),
        )

    def _at(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x'w of each particle `(*batch, n, q)`, its variance within one `(*batch, q)`, and weights `(*batch, n)`."""
        found, k, n = self._posterior, self.num_values, self.num_particles
        batch = torch.broadcast_shapes(self.batch_shape, x.shape[:-2])
        x = x.double().expand(*batch, *x.shape[-2:])
        mean = found.mean.reshape(*self.batch_shape, n, k).expand(*batch, n, k)
        cov = found.cov.reshape(*self.batch_shape, k, k).expand(*batch, k, k)
        log_weights = found.log_weights.reshape(*self.batch_shape, n).expand(*batch, n)
        like = self.weights.loc
        return (mean @ x.mT).to(like), ((x @ cov) * x).sum(-1).to(like), log_weights.to(like)
