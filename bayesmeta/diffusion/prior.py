r"""A diffusion prior over the mean rewards of arms: any shape of task distribution, learned from past tasks.

For each task, with rows (x, y) whose x is the index of one of K arms, y = theta_x + e with normal noise, as in
`CorrelatedArms`; but theta is of any distribution, which a network learned by taking noise away. Without its network it
is the Gaussian prior of `CorrelatedArms`, and what the network adds counts as much as held-out tasks gain by it.

A posterior is a mixture of Gaussians: particles of a filter down the levels of noise, weighted by what they leave
unexplained, each with what the rows say of theta given the lowest level. The filter draws from a fixed seed, so a
posterior is a function of its rows. `ess` says how many particles carry it.

Sources: Hsieh et al., Thompson sampling with diffusion generative prior (2023), for the prior; Wu et al., Practical and
asymptotically exact conditional sampling in diffusion models (2023), for weighted particles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from gpytorch.distributions import MultivariateNormal as LazyMultivariateNormal
from jaxtyping import Float, Shaped
from linear_operator import to_linear_operator
from torch import Generator, Tensor
from torch.distributions import Normal

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.diffusion.denoising.attention import ArmDenoiser
from bayesmeta.diffusion.denoising.denoiser import Denoiser
from bayesmeta.diffusion.family import NUM_LEVELS, NUM_PARTICLES, DiffusionFamily, shown, unlearned
from bayesmeta.diffusion.sampling.observations import ArmRows
from bayesmeta.diffusion.sampling.samplers import DEFAULT
from bayesmeta.diffusion.sampling.tempering import RowsOf
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.doors import counted
from bayesmeta.fields import LearnedFrom
from bayesmeta.numerics.linalg import cholesky
from bayesmeta.online.sums import statistics_from, statistics_state
from bayesmeta.regression.arms_by_number import arm_index, per_arm
from bayesmeta.regression.correlated_arms import ArmFunctions, CorrelatedArms

if TYPE_CHECKING:
    from bayesmeta.diffusion.online_arms import OnlineParticles

__all__ = ["DiffusionPrior"]


@dataclass(frozen=True, eq=False)
class DiffusionPrior(DiffusionFamily):
    """A diffusion model of the mean rewards of K arms: `DiffusionPrior.initial(tasks).fit(tasks)`.

    Args:
        arms: the Gaussian prior whose noise, mean and covariance set the scales.
        network: what is not Gaussian, learned.
        noises: levels, rising, in standard deviations of the mean rewards `(s,)`.
        gates: worth of the network's answers at each level in the directions of `basis`, from 0 to 1 `(s, r)`.
        residual_cov: of what guesses leave at each level in the directions of `basis` `(s, r, r)`; as of a Gaussian in
            all others.
        basis: orthonormal directions that the network sees, in units in which mean rewards are white `(k, r)`.
        num_particles: of a posterior.
        rows: of each arm of each task that it was conditioned on: count, mean and scatter.
        learned_from: what `fit` learned this prior from, None for one written by hand.
        sampler: of posteriors, see `with_sampler`.

    Raises:
        ValueError: there is no such sampler, levels do not rise or have no gates from 0 to 1 and covariances, or
            `basis` does not belong to `arms` and `network`.
    """

    arms: CorrelatedArms
    network: Denoiser | ArmDenoiser
    noises: Float[Tensor, " s"]
    gates: Float[Tensor, "s r"]
    residual_cov: Float[Tensor, "s r r"]
    basis: Float[Tensor, "k r"]
    num_particles: int = NUM_PARTICLES
    rows: Statistics | None = None
    learned_from: LearnedFrom | None = None
    sampler: str = DEFAULT

    @classmethod
    @counted(num_arms=1, num_levels=1, num_particles=1)
    def initial(
        cls,
        tasks: Data | Statistics,
        *,
        num_arms: int | None = None,
        num_levels: int = NUM_LEVELS,
        num_particles: int = NUM_PARTICLES,
        grid: Any = None,
        generator: Generator | None = None,
        **sizes: Any,
    ) -> "DiffusionPrior":
        """The Gaussian prior of `CorrelatedArms.initial`, with a network that has learned nothing.

        Args:
            tasks: whose rows set the scales.
            num_arms: K, by default the arms up to the greatest that `tasks` show.
            num_levels: of noise: 10 are enough for decisions, 25 for evidence.
            num_particles: of a posterior.
            grid: where arms lie, for a network that knows which are neighbours: the length of a line `(k,)` or the
                sides of a grid `(h, w)` whose arms are numbered row by row, or the place of each arm, whole numbers
                `(k, 1)` or `(k, 2)`. None for arms without an order.
            generator: draws the weights; None draws the same ones each time.
            sizes: of the network, see `DenoiserNetwork`, and `GridDenoiser` where there is a grid.

        Raises:
            TypeError: `grid` does not hold whole numbers.
            ValueError: `grid` does not have one place for each arm.
        """
        arms = CorrelatedArms.initial(tasks, num_arms=num_arms)
        fields = unlearned(arms.num_arms, num_levels, generator, grid=grid, **sizes)
        return cls(arms, num_particles=num_particles, **fields)

    def state_dict(self) -> dict[str, Any]:
        """Fields, the rows as a dict."""
        return super().state_dict() | {"rows": statistics_state(self.rows)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "DiffusionPrior":
        return cls(**state | {"rows": statistics_from(state["rows"])})

    @property
    def num_arms(self) -> int:
        return self.arms.num_arms

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size() if self.rows is None else self.rows.batch_shape[:-1]

    @property
    def num_inputs(self) -> int:
        """One column of x, the number of the arm."""
        return 1

    def condition(self, data: Data | Statistics) -> "DiffusionPrior":
        """Posterior of the mean rewards after the rows of `data`, which are kept beside those seen before.

        Args:
            data: as of `CorrelatedArms.condition`.

        Raises:
            IndexError: a row names an arm that does not exist.
            ValueError: `x` does not have one column of whole numbers, `y` is not one number per row, or there are
                other tasks than before.
        """
        rows = self.statistics(data)
        return self._with_rows(rows if self.rows is None else _sum(self.rows, rows))

    def predict(self, x: Shaped[Tensor, "*tasks q 1"]) -> MixtureDistribution:
        """p(y | arm) at each row: batch_shape `(*batch, q)`."""
        return self._mixed(x, self.arms.noise_var)

    def marginal(self, x: Shaped[Tensor, "*tasks q 1"]) -> MixtureDistribution:
        """p(mean reward of the arm) at each row."""
        return self._mixed(x, torch.zeros_like(self.arms.noise_var))

    def joint(self, x: Shaped[Tensor, "*tasks q 1"]) -> MixtureDistribution:
        """The mean rewards at all rows together; degenerate where an arm is named twice."""
        mean, cov, log_weights = self._at(x)
        of_each = cov[..., None, :, :].expand(*mean.shape, mean.shape[-1])
        return MixtureDistribution(log_weights, LazyMultivariateNormal(mean, to_linear_operator(of_each)), -1)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> ArmFunctions:
        """Draws of all mean rewards together, as functions of the arm."""
        noise_var = self.arms.noise_var.expand(self.batch_shape)
        return ArmFunctions(self.sample_params(num_draws, generator=generator), noise_var)

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        rows = per_arm(data, self.num_arms)
        if rows.second is None:
            raise ValueError("this family needs second moments; got statistics of order 1. Use Statistics.of(data)")
        return rows

    def kept_of(self, data: Data | Statistics) -> Statistics:
        return self.statistics(data)

    def online(self, batch_shape: Sequence[int]) -> "OnlineParticles":
        """The posterior of tasks, to be updated in place."""
        from bayesmeta.diffusion.online_arms import OnlineParticles

        return OnlineParticles(self, batch_shape)

    def expand(self, batch_shape: Sequence[int]) -> "DiffusionPrior":
        if self.rows is None and not batch_shape:
            return self
        batch = tuple(batch_shape)
        if not _spreads(self.batch_shape, batch):
            raise ValueError(f"batch_shape {tuple(self.batch_shape)} does not broadcast to {batch}")
        return self._with_rows(_shaped(self._kept, (*batch, self.num_arms), Tensor.expand))

    def __getitem__(self, index: Any) -> "DiffusionPrior":
        if self.rows is None or not self.batch_shape:
            raise IndexError("this DiffusionPrior has no batch to index")
        every = torch.arange(self.batch_shape.numel(), device=self.device)
        number = every.reshape(self.batch_shape)[index]  # the last axis is of arms
        return self._with_rows(_shaped(self.rows, (-1, self.num_arms), Tensor.reshape)[number])

    @property
    def _kept(self) -> Statistics:
        return Statistics.zeros((self.num_arms,), 0, 1, device=self.device) if self.rows is None else self.rows

    @property
    def gaussian(self) -> CorrelatedArms:
        return self.arms

    def with_gaussian(self, gaussian: CorrelatedArms) -> "DiffusionPrior":
        return replace(self, arms=gaussian)

    def with_moments(self, mean: Tensor, cov: Tensor) -> "DiffusionPrior":
        scale_tril = cholesky(cov, "covariance of theta")
        return self.with_gaussian(
            replace(self.arms, loc=mean.to(self.arms.loc), scale_tril=scale_tril.to(self.arms.loc))
        )

    def _moments(self) -> tuple[Tensor, Tensor]:
        factor = self.arms.scale_tril.double().contiguous()  # as from a file, to the last bit
        return self.arms.loc.double(), factor @ factor.mT

    def _observations(self) -> RowsOf:
        flat = _shaped(self._kept, (self.batch_shape.numel(), self.num_arms), Tensor.reshape)
        loc, noise_var = self.arms.loc.double(), self.arms.noise_var.double()
        return lambda some: ArmRows.of_statistics(flat[some], loc, noise_var)

    def _count(self, tasks: Statistics) -> Tensor:
        return tasks.count.sum(-1)

    def directions(self, tasks: Statistics) -> tuple[Tensor, Tensor]:
        noise_var = self.arms.noise_var.double() / tasks.count.double().mean()
        return shown(self._moments()[1], noise_var)

    def _at(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means `(*batch, n, q)` and covariance `(*batch, q, q)` of mean rewards at rows, and weights `(*batch, n)`."""
        arm, found = arm_index(x, self.num_arms), self._posterior
        batch = torch.broadcast_shapes(self.batch_shape, arm.shape[:-1])
        arm, k, n = arm.expand(*batch, -1), self.num_arms, self.num_particles
        q = arm.shape[-1]
        mean = found.mean.reshape(*self.batch_shape, n, k).expand(*batch, n, k)
        cov = found.cov.reshape(*self.batch_shape, k, k).expand(*batch, k, k)
        rows = cov.gather(-2, arm[..., None].expand(*batch, q, k))
        both = rows.gather(-1, arm[..., None, :].expand(*batch, q, q))
        log_weights = found.log_weights.reshape(*self.batch_shape, n).expand(*batch, n)
        each = mean.gather(-1, arm[..., None, :].expand(*batch, n, q))
        return each.to(self.arms.loc), both.to(self.arms.loc), log_weights

    def _mixed(self, x: Tensor, noise_var: Tensor) -> MixtureDistribution:
        mean, cov, log_weights = self._at(x)
        sd = (cov.diagonal(dim1=-2, dim2=-1) + noise_var).sqrt()[..., None, :]
        return MixtureDistribution(log_weights[..., None], Normal(mean, sd.expand_as(mean)), -2)


def _shaped(rows: Statistics, shape: tuple[int, ...], change: Callable[..., Tensor]) -> Statistics:
    """Statistics of another batch, by `Tensor.reshape` or `Tensor.expand`."""
    assert rows.second is not None
    return Statistics(
        change(rows.count, shape),
        change(rows.origin, (*shape, 1)),
        change(rows.first, (*shape, 1)),
        change(rows.second, (*shape, 1, 1)),
    )


def _sum(before: Statistics, rows: Statistics) -> Statistics:
    """Rows of both; of tasks, or of one task that all of the others go on from."""
    a, b = tuple(before.count.shape), tuple(rows.count.shape)
    try:
        shape = tuple(torch.broadcast_shapes(a, b))
    except RuntimeError:
        raise ValueError(f"rows must be of the tasks that the posterior is of, {a[:-1]}; got {b[:-1]}") from None
    return _shaped(before, shape, Tensor.expand) + _shaped(rows, shape, Tensor.expand)


def _spreads(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Whether one shape broadcasts to another."""
    same = (a in (1, b) for a, b in zip(small[::-1], large[::-1], strict=False))
    return len(small) <= len(large) and all(same)
