r"""A diffusion prior over arms with features: tasks have arms of their own, as many as they like.

For each task, with rows (x, y) whose x are the features of an arm, y = f(x) + e with normal noise. At the arms of a
task f is what a Gaussian process says, plus what a network has to say that attends from arm to arm: at each set of
arms it is a `DiffusionPrior` whose Gaussian prior is that of the process there, and so is a posterior, a bandit and a
file. Arms in another order, and tasks with more of them or fewer, are asked of the same network.

It is a prior at each set of arms and not one over functions: a subset of the arms of a set has, by itself, another
prior than inside the set, where the network errs. Without a network there is no difference.

Source: Dutordoir et al., Neural diffusion processes (2023); here what is Gaussian is a Gaussian process, noise has its
covariance, and held-out tasks say what the network is worth.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.validation import require_columns, require_enough_tasks, require_positive
from bayesmeta.diffusion.denoising.attention import ArmDenoiser, ArmSets, AttentionDenoiser
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
from bayesmeta.diffusion.denoising.levels import noises
from bayesmeta.diffusion.family import NUM_LEVELS, NUM_PARTICLES, shown
from bayesmeta.diffusion.featured.calibration import SetCalibration, factors, gaussian_set_calibration, widths
from bayesmeta.diffusion.featured.past_sets import Group, groups_of
from bayesmeta.diffusion.prior import DiffusionPrior
from bayesmeta.doors import counted
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.gp.process import GaussianProcess
from bayesmeta.networks.features import centre_and_scale_with_digits
from bayesmeta.numerics.linalg import cholesky, symmetric
from bayesmeta.regression.correlated_arms import CorrelatedArms

__all__ = ["NeuralDiffusionProcess"]

OWN_SHARE = 1e-6  # of the variance of arms, that each has for itself: features may coincide


@dataclass(frozen=True, eq=False)
class NeuralDiffusionProcess(TensorFields):
    """A diffusion prior at any set of arms: `NeuralDiffusionProcess.initial(tasks).fit(tasks).over(features)`.

    Args:
        process: the Gaussian process whose noise, mean and covariance set the scales.
        network: what is not Gaussian, learned.
        noises: levels, rising, in standard deviations of the mean rewards `(s,)`.
        gates: worth of the network's answers at each level, from 0 to 1 `(s,)`.
        residual_factors: of the variance of what guesses leave at each level, see
            `bayesmeta.diffusion.featured.calibration` `(s, 2)`.
        least_var: directions in which arms vary by less are left to the process, in squared units of y.
        num_particles: of a posterior.
        learned_from: what `fit` learned this prior from, None for one written by hand.

    Raises:
        ValueError: the process has a batch or has seen rows, or the network is of other features.
    """

    process: GaussianProcess
    network: AttentionDenoiser
    noises: Float[Tensor, " s"]
    gates: Float[Tensor, " s"]
    residual_factors: Float[Tensor, "s 2"]
    least_var: Float[Tensor, ""]
    num_particles: int = NUM_PARTICLES
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        if self.process.batch_shape or self.process.rows is not None:
            raise ValueError("process must be one prior, without a batch and without rows that it has seen")
        if self.network.num_features != self.num_inputs:
            raise ValueError(
                f"network must be of {self.num_inputs} features, as the process is; got {self.network.num_features}"
            )
        require_positive("least_var", self.least_var)

    @classmethod
    @counted(num_levels=1, num_particles=1)
    def initial(
        cls,
        tasks: Data,
        *,
        num_levels: int = NUM_LEVELS,
        num_particles: int = NUM_PARTICLES,
        generator: Generator | None = None,
        **sizes: Any,
    ) -> "NeuralDiffusionProcess":
        """The process of `GaussianProcess.initial`, with a network that has learned nothing.

        Args:
            tasks: whose rows set the scales.
            num_levels: of noise: 10 are enough for decisions, 25 for evidence.
            num_particles: of a posterior.
            generator: draws the weights of the network; None draws the same ones each time.
            sizes: of the network, see `AttentionDenoiser`.
        """
        process = GaussianProcess.initial(tasks)
        centre, scale = centre_and_scale_with_digits(tasks.x[tasks.mask].double())
        network = AttentionDenoiser.initial(generator=generator, centre=centre.float(), scale=scale.float(), **sizes)
        levels = noises(num_levels)
        least_var = process.noise_var * process.scale.square()
        calibration = gaussian_set_calibration(levels)
        return cls(process, network, levels, *calibration, least_var, num_particles)

    @property
    def num_inputs(self) -> int:
        """Features of an arm, d."""
        return self.process.num_inputs

    @property
    def calibration(self) -> SetCalibration:
        """Gates and factors of residuals, of each level."""
        return SetCalibration(self.gates, self.residual_factors)

    def over(self, features: Float[Tensor, "k d"]) -> DiffusionPrior:
        """The prior over the mean rewards of arms with these features, which are numbered as they come.

        Raises:
            ValueError: there is no arm, or arms do not have d features.
        """
        if not len(features) or features.shape[-1] != self.num_inputs:
            raise ValueError(
                f"features must have shape (k, {self.num_inputs}), of one arm or more; got {tuple(features.shape)}"
            )
        arms, variances, basis, sets = self.at(features)
        var = self.noises.square() / (1.0 + self.noises.square())
        each = var[:, None] * factors(self.residual_factors, widths(variances))
        seen = sets.to(self.network.dtype)
        return DiffusionPrior(
            arms,
            ArmDenoiser(self.network, seen.features, seen.values, seen.pulls),
            self.noises,
            self.gates[:, None].expand(-1, len(variances)),
            torch.diag_embed(each),
            basis,
            self.num_particles,
            learned_from=self.learned_from,
        )

    def at(self, features: Tensor) -> tuple[CorrelatedArms, Tensor, Tensor, ArmSets]:
        """The Gaussian prior at arms, variances `(r,)` and directions `(k, r)`, and arms as the network sees them."""
        features = features.to(self.process.lengthscale)
        joint = self.process.to(torch.float64).joint(features.double())
        loc, cov = joint.loc, symmetric(joint.lazy_covariance_matrix.to_dense())
        mean_var = cov.diagonal().mean()
        cov = cov + OWN_SHARE * mean_var * torch.eye(len(cov)).to(cov)
        noise_var = self.process.noise_var * self.process.scale.square()
        like = self.process.lengthscale
        arms = CorrelatedArms(loc.to(like), cholesky(cov, "covariance of arms").to(like), noise_var)
        factor = arms.scale_tril.double()
        variances, basis = shown(factor @ factor.mT, self.least_var.double())
        sets = ArmSets.of(self.network.standardised(features).double(), variances, basis, mean_var)
        return arms, variances, basis, sets

    def log_evidence(self, tasks: Data) -> Tensor:
        """log p(y | x) of each task at the arms that it shows `(tasks,)`: see `DiffusionPrior.log_evidence`."""
        require_columns(tasks, num_inputs=self.num_inputs, event_shape=())
        found = torch.zeros(len(tasks), dtype=torch.float64, device=tasks.y.device)
        seen = (tasks.count > 0).nonzero()[:, 0]
        for group in groups_of(tasks[seen]):
            found[seen[group.tasks]] = self.of(group).log_evidence(group.rows).double()
        return found.to(self.process.lengthscale)

    def of(self, group: Group) -> DiffusionPrior:
        """At the arms of a group of tasks."""
        return self.over(group.features)

    def fit(
        self,
        tasks: Data,
        *,
        schedule: DiffusionSchedule | None = None,
        generator: Generator | None = None,
        progress: bool = True,
    ) -> "NeuralDiffusionProcess":
        """A prior learned from `tasks`, which may each show arms of their own, through noise.

        It is the Gaussian process where held-out tasks gain nothing from the network. Levels that are worth nothing
        are gone: to learn from other tasks, start from `initial` again.

        Args:
            tasks: at least two tasks with rows, on one axis. Rows with equal x are of the same arm.
            schedule: how long, with how many sets of arms at a time; None is 1000 steps of 64 sets, in three rounds.
            generator: of all that is drawn; None takes a fixed choice.
            progress: show that learning goes on.

        Raises:
            ValueError: fewer than two tasks have rows, or x does not have d columns.

        Warns:
            DivergedWarning: learning diverged, and ended with the best network that it met.
        """
        require_columns(tasks, num_inputs=self.num_inputs, event_shape=())
        require_enough_tasks(tasks.count, torch.Size())
        from bayesmeta.diffusion.featured.fitting import DEFAULT, learned_from_sets

        generator = generator or Generator().manual_seed(0)
        learned = learned_from_sets(self, tasks[tasks.count > 0], schedule or DEFAULT, generator, progress)
        return learned._replace(learned_from=LearnedFrom.counts(tasks.count))
