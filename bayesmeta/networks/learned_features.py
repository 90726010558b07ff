r"""Regression on features that all tasks share and that are learned from past tasks, linear in each task's own weights.

For each task, with rows (x, y),

$$ y = \varphi(x)^\top w + e, \quad w \sim N(\text{loc}, \text{precision}^{-1}), \quad
e \sim N(0, \text{noise\_var}), $$

with mean function $\varphi(x)^\top \text{loc}$ and features that are the hidden layer of a network, and a constant,

$$ \varphi(x) = (\tanh(A\,(x - \text{centre}) / \text{scale} + b),\ 1). $$

All that follows the features is `LinearGaussian`: exact, in closed form, and as fast. `fit` learns features, the prior
over weights and the noise together, by the evidence of past tasks with their weights integrated out. Far from the
inputs of past tasks features are constant, and so are predictions.

How sure the prior over weights is of itself, given the features, is what `Hyperposterior` says of linear tasks: with
`rows = prior.features.of(tasks)`, `Hyperposterior.fit(LinearGaussian.initial(rows), rows)`, and `sample_posterior`
likewise. They take few features; that the features were learned too they do not know.

Source: Harrison, Sharma and Pavone, Meta-learning priors for efficient online Bayesian regression (2018); Perrone et
al., Scalable hyperparameter transfer learning (2018).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from gpytorch.distributions import MultivariateNormal as LazyMultivariateNormal
from jaxtyping import Float, Shaped
from torch import Generator, Tensor
from torch.distributions import Normal

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_columns, require_enough_tasks
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.networks.features import FeatureFunctions, TanhFeatures, centre_and_scale, on_grid
from bayesmeta.networks.learned_features_fit import most_probable_features, some_of
from bayesmeta.regression.linear import LinearGaussian

if TYPE_CHECKING:
    from bayesmeta.online.weights import OnlineFeatures

__all__ = ["LearnedFeatures"]

# Digits that learning sees, in standard deviations: the search for features turns the last digit of a row, which
# another origin of x or y changes, into other features. No noise below 7e-4 is learned, so that no others count.
GRID_OF_Y = 2.0**-14
ROUNDING = 4.0  # times the precision of a dtype: two numbers that are the same


@dataclass(frozen=True, eq=False)
class LearnedFeatures(TensorFields):
    """Linear regression with Gaussian weights on learned features.

    Args:
        features: shared by all tasks, without a batch.
        linear: over the weights of the features, and the noise.
        learned_from: what `fit` learned this prior from, None for one written by hand.

    Raises:
        ValueError: `linear` has another number of weights than there are features.
    """

    features: TanhFeatures
    linear: LinearGaussian
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        if self.linear.loc.shape[-1] != self.features.num_features:
            raise ValueError(
                f"linear must have one weight per feature, {self.features.num_features} with the constant; "
                f"got {self.linear.loc.shape[-1]}"
            )

    @classmethod
    def initial(cls, tasks: Data, *, width: int = 32, generator: Generator | None = None) -> "LearnedFeatures":
        """Random features on the scale of the inputs, and weights that together could explain all variance of y.

        Args:
            width: number of features beside the constant. More cost time, and hardly overfit: weights are integrated
                out.
            generator: draws the features; None draws the same ones each time.
        """
        require_columns(tasks, num_inputs=tasks.x.shape[-1], event_shape=())
        features = TanhFeatures.initial(tasks, width=width, generator=generator)
        y = tasks.y[tasks.mask].double()
        mean, scale = centre_and_scale(y[:, None])  # rows that do not vary say nothing of their scale
        var = scale[0].square()
        loc = torch.zeros(width + 1).to(y)
        loc[-1] = mean[0]
        precision = torch.eye(width + 1).to(y) * ((width + 1) / var)
        return cls(features, LinearGaussian(loc, precision, 0.5 * var).to(tasks.y))

    @property
    def batch_shape(self) -> torch.Size:
        return self.linear.batch_shape

    def online(self, batch_shape: Sequence[int]) -> "OnlineFeatures":
        """The posterior of tasks, or of tasks and arms with weights of their own, to be updated in place."""
        from bayesmeta.online.weights import OnlineFeatures

        return OnlineFeatures(self.features, self.linear.online(batch_shape), self)

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def num_inputs(self) -> int:
        """Columns of x."""
        return self.features.centre.shape[-1]

    def condition(self, data: Data | Statistics) -> "LearnedFeatures":
        """Posterior of the weights after the rows of `data`; batch_shape broadcasts with its tasks.

        Statistics are those of features, `Statistics.of(prior.features.of(data))`.
        """
        return self._replace(linear=self.linear.condition(self._reduced(data)))

    def predict(self, x: Shaped[Tensor, "*tasks q d"]) -> Normal:
        """p(y | x) at each row: a normal with batch_shape `(*batch, q)`."""
        return self.linear.predict(self.features(x))

    def marginal(self, x: Shaped[Tensor, "*tasks q d"]) -> Normal:
        """p(f(x)) at each row, noise-free."""
        return self.linear.marginal(self.features(x))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "FeatureFunctions":
        """Draws of f."""
        return FeatureFunctions(self.features, self.linear.sample(num_draws, generator=generator))

    def joint(self, x: Shaped[Tensor, "*tasks q d"]) -> LazyMultivariateNormal:
        """f at all rows together; of rank h + 1, and so degenerate for more rows."""
        return self.linear.joint(self.features(x))

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y | x), the weights integrated out, for each task."""
        return self.linear.log_evidence(self._reduced(data))

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Weights `(num_draws, *batch, h + 1)`."""
        return self.linear.sample_params(num_draws, generator=generator)

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of weights `(..., *batch, h + 1)`."""
        return self.linear.log_prob(params)

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return self.linear.constrain(params)

    def fit(self, tasks: Data, *, generator: Generator | None = None, progress: bool = True) -> "LearnedFeatures":
        """Features, prior over weights and noise that are most probable together after `tasks`, near those of `self`.

        A fifth of the tasks is held out to say when the search for features ends; then it is made again over all.
        There are several modes, and it finds one: another `generator` in `initial` may find another. What is learned
        with few tasks depends on which ones are held out: of two to five tasks, in one data set of ten, it was worse
        on new ones than what it started from. A dozen were enough.

        Args:
            tasks: at least two tasks with rows, on one axis. Of more than 256 tasks, or of many rows (64 each of
                256 tasks, more of fewer), a random choice is used.
            generator: chooses tasks and rows; None takes a fixed choice.
            progress: show that learning goes on, where it takes seconds.

        Raises:
            ValueError: fewer than two tasks have rows, or x does not have d columns.
        """
        require_columns(tasks, num_inputs=len(self.features.centre), event_shape=())
        require_enough_tasks(tasks.count, self.batch_shape)
        generator = generator or torch.Generator(device=tasks.y.device).manual_seed(0)
        some = some_of(tasks[tasks.count > 0].to(torch.float64), generator)
        unit = Unit.of(tasks.y[tasks.mask].double(), ROUNDING * torch.finfo(self.linear.loc.dtype).eps)
        reduced = Data(some.x, on_grid(unit.rows(some.y), GRID_OF_Y), some.mask)
        start = unit.reduce(self.to(torch.float64))
        found = most_probable_features(start.features, start.linear, reduced, progress=progress)
        return (
            unit.restore(LearnedFeatures(*found))
            .to(self.linear.loc)
            ._replace(learned_from=LearnedFrom.counts(tasks.count))
        )

    def _reduced(self, data: Data | Statistics) -> Data | Statistics:
        return data if isinstance(data, Statistics) else self.features.of(data)


class Unit(NamedTuple):
    """Location and scale of y: features are learned about its mean, in units of its standard deviation.

    So the digits of y are those of its differences, and neither its units nor its origin change what is learned.

    Args:
        first: a row, from which differences are exact.
        mean, scale: of the differences.
        rounding: relative, by which two levels may differ that are the same.
    """

    first: Tensor
    mean: Tensor
    scale: Tensor
    rounding: float

    @classmethod
    def of(cls, y: Float[Tensor, "n"], rounding: float) -> "Unit":
        return cls(y[0], (y - y[0]).mean(), centre_and_scale(y[:, None])[1][0], rounding)

    def rows(self, y: Tensor) -> Tensor:
        return (y - self.first - self.mean) / self.scale

    def reduce(self, prior: LearnedFeatures) -> LearnedFeatures:
        """The prior of y in these units."""
        linear = prior.linear
        level = linear.loc[-1] - self.first - self.mean
        # a level that differs from the mean by rounding is the mean
        far = torch.maximum(linear.loc[-1].abs(), self.first.abs())
        level = level.where(level.abs() > self.rounding * far, 0.0)
        loc = torch.cat([linear.loc[:-1], level[None]]) / self.scale
        square = self.scale.square()
        return prior._replace(linear=LinearGaussian(loc, linear.precision * square, linear.noise_var / square))

    def restore(self, prior: LearnedFeatures) -> LearnedFeatures:
        """The inverse of `reduce`."""
        linear, square = prior.linear, self.scale.square()
        loc = self.scale * linear.loc
        loc = torch.cat([loc[:-1], (loc[-1] + self.mean + self.first)[None]])
        return prior._replace(linear=LinearGaussian(loc, linear.precision / square, linear.noise_var * square))
