r"""A Gaussian process on features that a deep network learned from past tasks.

$$ y = c + g(\varphi(x)) + e, \qquad g \sim GP(0, \text{outputscale} \cdot \text{Matern-5/2}), $$

with $\varphi$ a network that all tasks share. Where past tasks turn sharply, or hardly depend on an input, features
stretch or shrink the space so that one stationary kernel fits; elsewhere two inputs that have alike features have alike
values in every task. What tasks have in common is thus the shape of the covariance: there is no mean function but a
constant.

Given the features all is exact, and is that of `GaussianProcess`. The source also trains features further on the rows
of the new task; here they stay as past tasks left them, so that rows can be added one at a time at little cost.

Source: Wistuba and Grabocka, Few-shot Bayesian optimization with deep kernel surrogates (2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from gpytorch.distributions import MultivariateNormal as LazyMultivariateNormal
from jaxtyping import Shaped
from torch import Generator, Tensor
from torch.distributions import Normal

from bayesmeta.data.rows import Data
from bayesmeta.data.validation import require_columns, require_enough_tasks
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.gp.process import GaussianProcess
from bayesmeta.networks.deep_kernel_fit import meta_train
from bayesmeta.networks.features import FeatureFunctions, ReluNetwork
from bayesmeta.online.process import ExtendedByRows

__all__ = ["DeepKernel"]


@dataclass(frozen=True, eq=False)
class DeepKernel(TensorFields, ExtendedByRows):
    """A Gaussian process on learned features: `DeepKernel.initial(tasks).fit(tasks)`.

    Args:
        features: shared by all tasks, without a batch.
        process: over functions of the features, and after `condition` their posterior.
        learned_from: what `fit` learned this prior from, None for one written by hand.

    Raises:
        ValueError: `process` has another number of inputs than there are features.
    """

    features: ReluNetwork
    process: GaussianProcess
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        num_features, num_inputs = self.features.biases.shape[-1], self.process.lengthscale.shape[-1]
        if num_inputs != num_features:
            raise ValueError(f"process must have one input per feature, {num_features}; got {num_inputs}")

    @classmethod
    def initial(
        cls, tasks: Data, *, width: int = 32, num_layers: int = 4, generator: Generator | None = None
    ) -> "DeepKernel":
        """A random network, and a process on the scale of `tasks` with noise of a tenth of the variance.

        Args:
            tasks: whose rows set the scales.
            width, num_layers: of the network.
            generator: draws the network; None draws the same one each time.
        """
        require_columns(tasks, num_inputs=tasks.x.shape[-1], event_shape=())
        features = ReluNetwork.initial(tasks, width=width, num_layers=num_layers, generator=generator)
        x, y = features(tasks.x[tasks.mask]).double(), tasks.y[tasks.mask].double()
        # rows that do not vary say nothing of their scale
        spread, var = (v.where(v > 0, 1.0) for v in (x.var(0, correction=0).sum(), y.var(correction=0)))
        process = GaussianProcess(spread.sqrt().expand(width), var, 0.1 * var, constant=y.mean())
        return cls(features, process.to(tasks.y))

    @property
    def batch_shape(self) -> torch.Size:
        return self.process.batch_shape

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def num_inputs(self) -> int:
        """Columns of x."""
        return self.features.centre.shape[-1]

    def condition(self, data: Data) -> "DeepKernel":
        """Posterior after more rows: `GaussianProcess.condition` on their features."""
        return self._replace(process=self.process.condition(self.features.of(data)))

    def predict(self, x: Shaped[Tensor, "*tasks q d"]) -> Normal:
        """p(y | x) at each row: a normal with batch_shape `(*batch, q)`."""
        return self.process.predict(self.features(x))

    def marginal(self, x: Shaped[Tensor, "*tasks q d"]) -> Normal:
        """p(f(x)) at each row, noise-free."""
        return self.process.marginal(self.features(x))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> FeatureFunctions:
        """Draws of f, as those of `GaussianProcess`."""
        return FeatureFunctions(self.features, self.process.sample(num_draws, generator=generator))

    def joint(self, x: Shaped[Tensor, "*tasks q d"]) -> LazyMultivariateNormal:
        """f at all rows together, noise-free."""
        return self.process.joint(self.features(x))

    def log_evidence(self, data: Data) -> Tensor:
        """log p(y | x) of each task's rows, given the rows conditioned on already."""
        return self.process.log_evidence(self.features.of(data))

    def fit(self, tasks: Data, *, generator: Generator | None = None, progress: bool = True) -> "DeepKernel":
        """Features, scales and level by which past tasks are most probable, starting from those of `self`.

        A fifth of the tasks is held out to say when learning ends; then it is made again over all.

        Args:
            tasks: at least two tasks with rows, on one axis.
            generator: chooses the tasks and rows of each step; None takes a fixed choice.
            progress: show that learning goes on.

        Raises:
            ValueError: fewer than two tasks have rows, x does not have d columns, y is not one number per row, or
                `self` has a batch or has seen rows.
        """
        require_columns(tasks, num_inputs=len(self.features.centre), event_shape=())
        require_enough_tasks(tasks.count, self.batch_shape)
        if self.process.rows is not None:
            raise ValueError("fit starts from a prior; got a posterior, which has seen rows. Use DeepKernel.initial")
        generator = generator or torch.Generator(device=tasks.y.device).manual_seed(0)
        some = tasks[tasks.count > 0].to(torch.float64)
        start = self.to(torch.float64)
        network = [start.features.first, start.features.rest, start.features.biases]
        found = meta_train(network, start._evidence, some, generator, progress=progress)
        learned = start._with(*found)
        return learned.to(self.process.lengthscale)._replace(learned_from=LearnedFrom.counts(tasks.count))

    def _evidence(self, values: Sequence[Tensor], tasks: Data) -> Tensor:
        """Log evidence of tasks, were the network's tensors and the scales these."""
        return self._with(*values).log_evidence(tasks)

    def _with(self, first: Tensor, rest: Tensor, biases: Tensor, scales: Tensor) -> "DeepKernel":
        """Another network; variances times the exponentials of the first two scales, a level moved by the third."""
        process, (log_outputscale, log_noise, shift) = self.process, scales
        changed = replace(
            process,
            outputscale=process.outputscale * log_outputscale.exp(),
            noise_var=process.noise_var * log_noise.exp(),
            constant=process.constant + process.outputscale.sqrt() * shift,
        )
        return replace(self, features=replace(self.features, first=first, rest=rest, biases=biases), process=changed)
