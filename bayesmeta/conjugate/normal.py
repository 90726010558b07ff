r"""Normal rows whose mean and variance differ between tasks.

For each task, with rows y that are numbers,

$$ y \sim N(\text{mean}, \text{var}), \quad
\text{mean} \mid \text{var} \sim N(\text{loc}, \text{var} / \text{pseudo\_count}), \quad
\text{var} \sim \text{InverseGamma}(\text{concentration}, \text{rate}). $$

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 3.3, with twice our concentration as degrees of
freedom and twice our rate as sum of squares.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Normal, StudentT

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import (
    require_columns,
    require_enough_tasks,
    require_finite,
    require_positive,
    require_spread,
)
from bayesmeta.distributions.constant import Constant, repeat_rows, row_shape
from bayesmeta.distributions.marginals import StudentMarginal
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.mode import fit_by_mode
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.random import log_gamma, randn, within_floats

__all__ = ["NormalFunctions", "NormalInverseGamma"]

LARGEST_COUNT = 1e6  # where tasks share their mean or variance, larger counts are always better: they stop here
SAME_MEAN = "tasks do not differ in their mean by more than chance, and are taken to share it"
SAME_VAR = "tasks do not differ in their variance by more than chance, and are taken to share it"


@dataclass(frozen=True, eq=False)
class NormalInverseGamma(TensorFields):
    """Normal-Inverse-Gamma over the mean and variance of a task's rows.

    Args:
        loc: expected mean, in units of y.
        pseudo_count: how many rows the belief in `loc` is worth, above zero.
        concentration: half the degrees of freedom of the variance, above zero; its mean is finite above one.
        rate: half the sum of squares that the belief in the variance is worth, in squared units of y, above zero.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    loc: Float[Tensor, "*#batch"]
    pseudo_count: Float[Tensor, "*#batch"]
    concentration: Float[Tensor, "*#batch"]
    rate: Float[Tensor, "*#batch"]
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        names = ("loc", "pseudo_count", "concentration", "rate")
        values = [torch.as_tensor(getattr(self, name)) for name in names]
        self._spread(torch.broadcast_shapes(*(v.shape for v in values)), values[0], *names)
        require_finite("loc", self.loc)
        for name in names[1:]:
            require_positive(name, getattr(self, name))

    @classmethod
    def initial(cls, tasks: Data | Statistics) -> "NormalInverseGamma":
        """A weak prior on the scale of `tasks`: half of the variance within tasks, half between them."""
        stats = Statistics.of(tasks).pooled()
        var = stats.scatter[0, 0] / stats.count.clamp(min=1.0)
        var = var.where(var > 0, 1.0)  # rows that do not vary say nothing of their scale
        one = torch.ones_like(var)
        return cls(stats.mean[0], one, 2.0 * one, 0.5 * var).to(tasks.dtype)

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self, data: Data | Statistics) -> "NormalInverseGamma":
        """Posterior of mean and variance after the rows of `data`; batch_shape broadcasts with its tasks."""
        fields = _update(self._natural(), self.statistics(data))
        loc, pseudo_count, concentration, rate = (field.to(self.loc) for field in fields)
        return self._replace(loc=loc, pseudo_count=pseudo_count, concentration=concentration, rate=rate)

    def predict(self, x: Tensor | None = None) -> StudentT:
        """p(y) at each row: a Student t with batch_shape `(*batch, q)`."""
        rows = row_shape(x, self.batch_shape)
        df, loc, scale = (p[..., None].expand(rows) for p in self._student(1.0 + 1.0 / self.pseudo_count))
        return StudentT(df, loc, scale)

    def marginal(self, x: Tensor | None = None) -> StudentMarginal:
        """p(mean) at each row: a Student t."""
        rows = row_shape(x, self.batch_shape)
        df, loc, scale = (p[..., None].expand(rows) for p in self._student(1.0 / self.pseudo_count))
        return StudentMarginal(df, loc, scale)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "NormalFunctions":
        """Draws of the mean, the same at every row."""
        params = self.sample_params(num_draws, generator=generator)
        return NormalFunctions(params[..., 0], params[..., 1].exp())

    def joint(self, x: Tensor | None = None) -> Constant:
        """The mean at all rows together."""
        return Constant(StudentT(*self._student(1.0 / self.pseudo_count)), row_shape(x, self.batch_shape))

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y), mean and variance integrated out, for each task."""
        return _log_evidence(self._natural(), self.statistics(data)).to(self.loc)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Mean and log variance, `(num_draws, *batch, 2)`."""
        log_var = within_floats(self.rate.log() - log_gamma((num_draws,), self.concentration, generator=generator))
        noise = randn(log_var.shape, like=self.loc, generator=generator)
        mean = self.loc + noise * (0.5 * (log_var - self.pseudo_count.log())).exp()
        return torch.stack([mean, log_var], -1)

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of mean and log variance `(..., *batch, 2)`; the Jacobian is the variance."""
        mean, log_var = params[..., 0], params[..., 1]
        distance = self.pseudo_count * (mean - self.loc).square()
        of_mean = 0.5 * (self.pseudo_count.log() - math.log(2.0 * math.pi) - log_var - distance * (-log_var).exp())
        of_log_var = (
            self.concentration * (self.rate.log() - log_var)
            - self.concentration.lgamma()
            - self.rate * (-log_var).exp()
        )
        return of_mean + of_log_var

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"mean": params[..., 0], "var": params[..., 1].exp()}

    def fit(self, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> "NormalInverseGamma":
        """The most probable prior after `tasks`: all four hyperparameters, whatever the units of y.

        Where tasks share their mean (or variance), `pseudo_count` (or `concentration`) grows, at most to 1e6.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes; see `bayesmeta.hyperparameters.vector`.

        Raises:
            ValueError: fewer than two tasks have rows, or rows do not differ within tasks.
        """
        return fit_by_mode(self, tasks, hyperprior_weight=hyperprior_weight)

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """Loc in standard deviations of all rows from their mean, and logs of both counts and the typical variance."""
        stats = self.statistics(tasks)
        require_enough_tasks(stats.count, self.batch_shape)
        require_spread(stats)
        pooled = stats.pooled()
        centre, scale = pooled.mean[0], (pooled.scatter[0, 0] / pooled.count).sqrt()
        standard = stats.standardised(pooled.mean, scale[None, None])

        # the typical variance, rate / concentration, says how far the data are known; the rate alone moves with both
        def natural(vector: Tensor) -> "Natural":
            pseudo_count, concentration, var = vector[..., 1:].exp().unbind(-1)
            return vector[..., 0], pseudo_count, concentration, concentration * var

        def build(vector: Tensor) -> "NormalInverseGamma":
            loc, pseudo_count, concentration, rate = natural(vector)
            prior = NormalInverseGamma(centre + scale * loc, pseudo_count, concentration, rate * scale.square())
            return prior.to(self.loc)

        loc, pseudo_count, concentration, rate = self._natural()
        var = rate / concentration / scale.square()
        largest = math.log(LARGEST_COUNT)
        entries = [
            Hyperparameter("loc", ((loc - centre) / scale).item(), 2.0),
            Hyperparameter("log_pseudo_count", pseudo_count.log().item(), 2.0, largest, SAME_MEAN),
            Hyperparameter("log_concentration", concentration.log().item(), 2.0, largest, SAME_VAR),
            Hyperparameter("log_var", var.log().item(), 2.0),
        ]

        def evidence(vector: Tensor) -> Tensor:
            return _log_evidence(natural(vector[..., None, :]), standard) - stats.count * scale.log()

        return Hyperparameters(entries, evidence, build, pooled.count.item())

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        require_columns(data, num_inputs=0, event_shape=self.event_shape)
        return Statistics.of(data)

    def _natural(self) -> "Natural":
        return self.loc.double(), self.pseudo_count.double(), self.concentration.double(), self.rate.double()

    def _student(self, spread: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """df, loc and scale of the marginal of a normal with mean `loc` and `spread` times the variance."""
        return 2.0 * self.concentration, self.loc, (self.rate / self.concentration * spread).sqrt()


@dataclass(frozen=True, eq=False)
class NormalFunctions(Draws):
    """Draws of one mean and variance per task, each `(draws, *batch)`."""

    mean: Float[Tensor, "draws *batch"]
    var: Float[Tensor, "draws *batch"]

    def __call__(self, x: Tensor | None = None) -> Tensor:
        return repeat_rows(self.mean, x)

    def predict(self, x: Tensor | None = None) -> Normal:
        return Normal(self(x), repeat_rows(self.var.sqrt(), x))


Natural = tuple[Tensor, Tensor, Tensor, Tensor]


def _update(prior: Natural, stats: Statistics) -> Natural:
    loc, pseudo_count, concentration, rate = prior
    shift = stats.mean_from(loc[..., None])[..., 0]
    weight = stats.count / (pseudo_count + stats.count)
    squares = stats.scatter[..., 0, 0] + weight * pseudo_count * shift.square()
    return (
        loc + weight * shift,
        pseudo_count + stats.count,
        concentration + 0.5 * stats.count,
        rate + 0.5 * squares,
    )


def _log_evidence(prior: Natural, stats: Statistics) -> Tensor:
    _, *posterior = _update(prior, stats)
    return _log_normaliser(*posterior) - _log_normaliser(*prior[1:]) - 0.5 * stats.count * math.log(2.0 * math.pi)


def _log_normaliser(pseudo_count: Tensor, concentration: Tensor, rate: Tensor) -> Tensor:
    return concentration.lgamma() - concentration * rate.log() - 0.5 * pseudo_count.log()
