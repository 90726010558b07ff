"""What every diffusion prior is, whatever its rows see of theta: a Gaussian prior, and a network for what it is not."""

from abc import abstractmethod
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_enough_tasks
from bayesmeta.diffusion.denoising import learning
from bayesmeta.diffusion.denoising.attention import ArmDenoiser
from bayesmeta.diffusion.denoising.calibration import Calibration, within
from bayesmeta.diffusion.denoising.checks import require_levels
from bayesmeta.diffusion.denoising.denoiser import Denoiser, DenoiserNetwork
from bayesmeta.diffusion.denoising.grids.grid_denoiser import GridDenoiser
from bayesmeta.diffusion.denoising.grids.places import places_of
from bayesmeta.diffusion.denoising.guesses import guesses
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule, gaussian_calibration
from bayesmeta.diffusion.denoising.levels import noises
from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.gaussians import Sampler, WeightedGaussians
from bayesmeta.diffusion.sampling.middle import Middle, looked_at_again
from bayesmeta.diffusion.sampling.posterior import posterior_of
from bayesmeta.diffusion.sampling.samplers import DEFAULT, sampler_named
from bayesmeta.diffusion.sampling.tempering import RowsOf
from bayesmeta.doors import require_count
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.networks.learning.task_streams import TaskStream
from bayesmeta.numerics.gradients import with_gradients

__all__ = ["NUM_LEVELS", "NUM_PARTICLES", "DiffusionFamily", "shown", "unlearned"]

MOST = 2**22  # numbers of particles that are held at once
NUM_LEVELS = 10
NUM_PARTICLES = 512

D = TypeVar("D", bound="DiffusionFamily")


class DiffusionFamily(TensorFields):
    """Fields and methods of diffusion priors.

    Args:
        network: what is not Gaussian, learned.
        noises: levels, rising, in standard deviations of theta `(s,)`.
        gates: worth of the network's answers at each level in the directions of `basis`, from 0 to 1 `(s, r)`.
        residual_cov: of what guesses leave at each level in the directions of `basis` `(s, r, r)`; as of a Gaussian in
            all others.
        basis: orthonormal directions that the network sees, in units in which theta is white `(k, r)`.
        num_particles: of a posterior.
        rows: that it was conditioned on.
        learned_from: what `fit` learned this prior from, None for one written by hand.
        sampler: of posteriors, see `with_sampler`.

    Raises:
        ValueError: there is no such sampler, levels do not rise or have no gates from 0 to 1 and covariances, or
            `basis` does not belong to theta and `network`.
    """

    network: Denoiser | ArmDenoiser
    noises: Float[Tensor, " s"]
    gates: Float[Tensor, "s r"]
    residual_cov: Float[Tensor, "s r r"]
    basis: Float[Tensor, "k r"]
    num_particles: int
    rows: Any
    learned_from: LearnedFrom | None
    sampler: str

    def __post_init__(self) -> None:
        sampler_named(self.sampler)
        require_count("num_particles", self.num_particles)
        if self.gaussian.batch_shape:
            shape = tuple(self.gaussian.batch_shape)
            raise ValueError(f"the Gaussian prior must be one, without a batch; got batch_shape {shape}")
        if tuple(self.basis.shape) != (self.num_values, self.network.num_values):
            raise ValueError(
                f"basis must have shape {(self.num_values, self.network.num_values)}, for the values of theta and what "
                f"the network sees of them; got {tuple(self.basis.shape)}"
            )
        require_levels(self.noises, self.gates, self.residual_cov, self.network.num_values)

    @property
    @abstractmethod
    def gaussian(self) -> Any:
        """The Gaussian prior whose mean, covariance and noise set the scales."""

    @abstractmethod
    def with_gaussian(self: D, gaussian: Any) -> D:
        """The same with another Gaussian prior."""

    @abstractmethod
    def with_moments(self: D, mean: Tensor, cov: Tensor) -> D:
        """The same with a Gaussian prior of this mean and covariance, float64; its noise stays."""

    @abstractmethod
    def condition(self: D, data: Any) -> D:
        """Posterior of theta after the rows of `data`, which are kept beside those seen before."""

    @abstractmethod
    def kept_of(self, data: Data | Statistics) -> Any:
        """What this family keeps of the rows of `data`."""

    @abstractmethod
    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the Gaussian prior, float64."""

    @abstractmethod
    def _observations(self) -> RowsOf:
        """What the rows say of theta about its mean, of some of the tasks on one axis."""

    @abstractmethod
    def _count(self, tasks: Any) -> Tensor:
        """Rows of each task, of what `kept_of` returned."""

    @abstractmethod
    def directions(self, tasks: Any) -> tuple[Tensor, Tensor]:
        """Variances `(r,)` and directions `(k, r)` in which tasks show theta.

        In these a draw given the rows of a task is more of the rows than of the Gaussian prior.
        """

    def mean_and_whitening(self) -> tuple[Tensor, Tensor]:
        """Mean of theta `(k,)`, and what takes theta about it to white units in directions of the basis `(k, r)`."""
        return self._moments()[0], torch.linalg.solve(self.chain.root, self.basis.double())

    @property
    def calibration(self) -> Calibration:
        """Gates and covariances of residuals, of each level."""
        return Calibration(self.gates, self.residual_cov)

    @property
    def num_values(self) -> int:
        """k, of theta."""
        return self.gaussian.loc.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:
        raise NotImplementedError

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def ess(self) -> Tensor:
        """Effective number of the particles of each task, `batch_shape`."""
        return self._posterior.ess.reshape(self.batch_shape)

    @property
    def num_ancestors(self) -> Tensor:
        """Particles that the first ones left descendants among, of each task: where few are, `ess` says too much."""
        return self._posterior.num_ancestors.reshape(self.batch_shape)

    def with_sampler(self: D, name: str) -> D:
        """The same prior, whose posteriors are drawn in another way; rows that it has seen are kept.

        All but the first are approximate, for comparison: their draws have equal weights and come with no evidence.
        Updated in place, they draw anew after each row.

        Args:
            name: "weighted", the particle filter; "unweighted", its proposals alone; "diffts" (Hsieh et al. 2023);
                "laplace_dps" (Kveton et al. 2024); or "dps" (Chung et al. 2023).

        Raises:
            ValueError: there is no such sampler.
        """
        sampler_named(name)
        return self._with_chain(sampler=name)

    @property
    def is_approximate(self) -> bool:
        """Whether its posteriors are not those of the rows, however many particles they have."""
        return self.sampler != DEFAULT

    def require_weighted(self) -> None:
        """Refuse what samplers without weights do not know.

        Raises:
            ValueError: the sampler is an approximate one.
        """
        if self.is_approximate:
            raise ValueError(
                f"the evidence is the mean weight of particles, and the sampler {self.sampler!r} weighs none; "
                f"use prior.with_sampler({DEFAULT!r})"
            )

    def _with_rows(self: D, rows: Any) -> D:
        return self._with_chain(rows=rows)

    def changed(self: D, **fields: Any) -> D:
        """With other fields, which are validated."""
        return cast(D, replace(cast(Any, self), **fields))

    def _with_chain(self: D, **changes: Any) -> D:
        """Changed in what the chain does not depend on."""
        after = self._replace(**changes)
        after.__dict__["chain"] = self.chain
        return after

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Theta `(num_draws, *batch, k)`."""
        drawn = self._posterior.draw(num_draws, generator)
        return drawn.reshape(num_draws, *self.batch_shape, self.num_values).to(self.gaussian.loc)

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y | x) for each task, given the rows before: what the filter estimates, from a fixed seed.

        The estimate is of the density without bias; its logarithm is below by half of the variance of its error.

        Raises:
            ValueError: the sampler is an approximate one.
        """
        self.require_weighted()
        after = self.condition(data)
        found = after._posterior.log_evidence.reshape(after.batch_shape)
        before = 0.0 if self.rows is None else self._posterior.log_evidence.reshape(self.batch_shape)
        return (found - before).to(self.gaussian.loc)

    def fit(
        self: D,
        tasks: Data | Statistics | TaskStream,
        *,
        schedule: DiffusionSchedule | None = None,
        generator: Generator | None = None,
        progress: bool = True,
    ) -> D:
        """A prior learned from past tasks, which may each show theta in part, through noise; or from a stream of them.

        It is the Gaussian prior where held-out tasks gain nothing from the network. Levels that are worth nothing are
        gone: to learn from other tasks, start from `initial` again.

        Args:
            tasks: at least two tasks with rows, on one axis; or a `TaskStream` that draws new ones, and may say what
                theta is (`KnowsTheta`).
            schedule: how long, with how many vectors at a time.
            generator: of all that is drawn; None takes a fixed choice.
            progress: show that learning goes on.

        Raises:
            TypeError: `tasks` are neither, or a stream returned something else than tasks or theta.
            ValueError: fewer than two tasks have rows, a stream returned other numbers of tasks, rows or values of
                theta than it was asked for, or `self` has seen rows, or is of a `NeuralDiffusionProcess`.

        Warns:
            DivergedWarning: learning diverged, and ended with the best network that it met.
        """
        if self.rows is not None:
            raise ValueError(f"fit starts from a prior; got a posterior. Use {type(self).__name__}.initial")
        if isinstance(self.network, ArmDenoiser):
            raise ValueError("this prior is that of a NeuralDiffusionProcess over some arms: fit the process itself")
        schedule, generator = schedule or learning.DEFAULT, generator or Generator().manual_seed(0)
        if isinstance(tasks, TaskStream):
            from bayesmeta.diffusion.streamed_fitting import learned_from_stream

            return cast(D, learned_from_stream(self, tasks, schedule, generator, progress))
        kept = self.kept_of(tasks)
        require_enough_tasks(self._count(kept), self.batch_shape)
        from bayesmeta.diffusion.past_vectors import learned_from_tasks

        learned = learned_from_tasks(self, kept, schedule, generator, progress)
        return cast(D, learned._replace(learned_from=LearnedFrom.counts(self._count(kept))))

    def _title(self) -> str:
        said = super()._title()
        return f": approximate{said.replace(':', ';', 1)}" if self.is_approximate else said

    @cached_property
    @with_gradients  # a sampler may take them, whatever mode the caller is in
    def chain(self) -> Chain:
        """The prior as a chain of Gaussians, in float64 and about the mean."""
        values, vectors = torch.linalg.eigh(self._moments()[1])
        scale, levels = values.clamp(min=values.max() * 1e-12).sqrt(), self.noises.double()
        root, back = (vectors * scale) @ vectors.mT, (vectors / scale) @ vectors.mT
        basis = self.basis.double()
        denoise = guesses(self.network.module, levels, self.gates.double(), back @ basis, (root @ basis).mT)
        return Chain(levels, root, within(basis, self.residual_cov.double(), levels), denoise)

    @cached_property
    def _posterior(self) -> WeightedGaussians:
        """Tasks on one axis."""
        return self.looked_at(None)

    def looked_at(self, generator: Generator | None) -> WeightedGaussians:
        """By noise of each task's own, or by that which all have."""
        found = posterior_of(
            self.chain,
            self._observations(),
            self.batch_shape.numel(),
            self.num_particles,
            piece=self._piece,
            generator=generator,
            sampler=self._around(sampler_named(self.sampler)),
        )
        return replace(found, mean=found.mean + self._moments()[0])

    def looked_at_again(self, tasks: Tensor, middle: Middle) -> WeightedGaussians:
        """By noise that all tasks have, from where their particles were half way.

        Args:
            tasks: numbers in `middle`, of the tasks that rows are of.
        """
        rows = self._observations()
        found = looked_at_again(self.chain, rows, tasks, middle, piece=self._piece, around=self._around)
        return replace(found, mean=found.mean + self._moments()[0])

    @property
    def _piece(self) -> int:
        """Tasks at a time."""
        return max(1, MOST // (self.num_particles * self.num_values))

    def _around(self, sampler: Sampler) -> Sampler:
        """What a sampler of Gaussians is to rows of this family."""
        return sampler


def unlearned(
    num_values: int, num_levels: int, generator: Generator | None, *, grid: Any = None, **sizes: Any
) -> dict[str, Any]:
    """Fields of a prior that is Gaussian so far, with a network of values on a grid, or of values without order."""
    levels, variances, basis = noises(num_levels), torch.ones(num_values), torch.eye(num_values)
    network: Denoiser
    if grid is None:
        network = DenoiserNetwork.of(variances, generator=generator, **sizes)
    else:
        network = GridDenoiser.of(variances, basis, places_of(grid, num_values), generator=generator, **sizes)
    calibration = gaussian_calibration(levels, num_values)
    return {"network": network, "noises": levels, "basis": basis.to(levels), **calibration._asdict()}


def shown(cov: Tensor, error_var: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of a covariance, those of at least a variance, or the largest one."""
    values, vectors = torch.linalg.eigh(cov)
    wide = values >= error_var.minimum(values[-1])
    return values[wide], vectors[:, wide]
