r"""Normal rows whose variance is known, their mean differing between tasks: estimates with standard errors.

For each task, with rows y whose variance is `noise_var`, or is given row by row as the one column of x,

$$ y_i \sim N(\text{mean}, v_i), \quad \text{mean} \sim N(\text{loc}, \text{var}). $$

With one row per task this is the model of meta-analysis, and of the eight schools.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), sections 2.5 and 5.4.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Normal

from bayesmeta.data.rows import Data, describe_rows
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_columns, require_enough_tasks, require_finite, require_positive
from bayesmeta.distributions.constant import Constant, repeat_rows, row_shape
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.mode import fit_by_mode
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.random import randn

__all__ = ["KnownVarianceFunctions", "NormalKnownVariance"]

LEAST_VAR = 1e-12  # relative to the variance of all rows: the variance between tasks that do not differ stops here
SAME_MEAN = "tasks do not differ in their mean by more than chance, and are taken to share it"


@dataclass(frozen=True, eq=False)
class NormalKnownVariance(TensorFields):
    """Normal over the mean of a task's rows, whose variance is known.

    Args:
        loc: expected mean, in units of y.
        var: variance of the mean between tasks, above zero, in squared units of y.
        noise_var: variance of one row, above zero; rows of data with one column in x have that variance instead.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    loc: Float[Tensor, "*#batch"]
    var: Float[Tensor, "*#batch"]
    noise_var: Float[Tensor, "*#batch"]
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        names = ("loc", "var", "noise_var")
        values = [torch.as_tensor(getattr(self, name)) for name in names]
        self._spread(torch.broadcast_shapes(*(v.shape for v in values)), values[0], *names)
        require_finite("loc", self.loc)
        require_positive("var", self.var)
        require_positive("noise_var", self.noise_var)

    @classmethod
    def initial(cls, tasks: Data | Statistics) -> "NormalKnownVariance":
        """The mean of all rows, half of their variance between tasks; `noise_var` is the variance within tasks.

        Where tasks have one row each, which says nothing of the variance within, `noise_var` is the other half.
        """
        stats = Statistics.of(tasks)
        pooled = stats.pooled()
        var = pooled.scatter[-1, -1] / pooled.count.clamp(min=1.0)
        var = var.where(var > 0, 1.0)  # rows that do not vary say nothing of their scale
        freedom = (stats.count - 1.0).clamp(min=0.0).sum()
        within = stats.scatter[..., -1, -1].sum() / freedom.clamp(min=1.0)
        noise_var = within.where((freedom > 0) & (within > 0), 0.5 * var)
        return cls(pooled.mean[-1], 0.5 * var, noise_var).to(tasks.dtype)

    @property
    def batch_shape(self) -> torch.Size:
        return self.loc.shape

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self, data: Data | Statistics) -> "NormalKnownVariance":
        """Posterior of the mean after the rows of `data`; batch_shape broadcasts with its tasks.

        Raises:
            ValueError: x has more than one column, or a variance in it is not above zero.
        """
        weighted = self._weighted(data)
        loc, var = _update(self.loc.double(), self.var.double(), weighted)
        noise_var = self.noise_var.expand(loc.shape)
        return self._replace(loc=loc.to(self.loc), var=var.to(self.loc), noise_var=noise_var)

    def predict(self, x: Tensor | None = None) -> Normal:
        """p(y) at each row, with the row's variance: a normal with batch_shape `(*batch, q)`."""
        noise_var = _row_variances(x, self.noise_var)
        return Normal(self.loc[..., None].expand_as(noise_var), (self.var[..., None] + noise_var).sqrt())

    def marginal(self, x: Tensor | None = None) -> Normal:
        """p(mean) at each row."""
        rows = row_shape(_without_columns(x), self.batch_shape)
        return Normal(self.loc[..., None].expand(rows), self.var.sqrt()[..., None].expand(rows))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "KnownVarianceFunctions":
        """Draws of the mean, the same at every row."""
        return KnownVarianceFunctions(self.sample_params(num_draws, generator=generator)[..., 0], self.noise_var)

    def joint(self, x: Tensor | None = None) -> Constant:
        """The mean at all rows together."""
        return Constant(Normal(self.loc, self.var.sqrt()), row_shape(_without_columns(x), self.batch_shape))

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y), the mean integrated out, for each task."""
        weighted = self._weighted(data)
        evidence = _log_evidence(self.loc.double(), self.var.double(), weighted)
        return (evidence + self._log_volume(data)).to(self.loc)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Means, `(num_draws, *batch, 1)`."""
        noise = randn((num_draws, *self.loc.shape), like=self.loc, generator=generator)
        return (self.loc + self.var.sqrt() * noise)[..., None]

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of means `(..., *batch, 1)`."""
        return Normal(self.loc, self.var.sqrt()).log_prob(params[..., 0])

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"mean": params[..., 0]}

    def fit(self, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> "NormalKnownVariance":
        """The most probable `loc` and `var` after `tasks`; `noise_var` is known, and stays.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes, where `var` often ends at zero; see
                `bayesmeta.hyperparameters.vector`.

        Raises:
            ValueError: fewer than two tasks have rows.

        Warns:
            LimitWarning: at weight 0, tasks do not differ by more than chance.
        """
        return fit_by_mode(self, tasks, hyperprior_weight=hyperprior_weight)

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """Loc in standard deviations of all rows from where it is, and the log of the variance in their variance."""
        weighted, volume = self._weighted(tasks), self._log_volume(tasks)
        require_enough_tasks(tasks.count, self.batch_shape)
        centre, noise_var = self.loc.double(), self.noise_var.double()
        spread = Statistics.of(tasks).pooled()
        unit = (spread.scatter[-1, -1] / spread.count).sqrt()
        unit = unit.where(unit > 0, noise_var.sqrt())

        def natural(vector: Tensor) -> tuple[Tensor, Tensor]:
            return centre + unit * vector[..., 0], unit.square() * vector[..., 1].exp()

        def evidence(vector: Tensor) -> Tensor:
            return _log_evidence(*natural(vector[..., None, :]), weighted) + volume

        def build(vector: Tensor) -> "NormalKnownVariance":
            return NormalKnownVariance(*natural(vector), noise_var).to(self.loc)

        log_var = (self.var.double() / unit.square()).log().item()
        entries = [
            Hyperparameter("loc", 0.0, 2.0),
            Hyperparameter("log_var", log_var, 2.0, -math.log(LEAST_VAR), SAME_MEAN),
        ]
        return Hyperparameters(entries, evidence, build, float(tasks.count.sum()))

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`, which have no variances of their own."""
        require_columns(data, num_inputs=0, event_shape=())
        return Statistics.of(data)

    def _weighted(self, data: Data | Statistics) -> Statistics:
        """Statistics of y whose count is the sum of the rows' precisions."""
        num_inputs = data.num_inputs if isinstance(data, Statistics) else data.x.shape[-1]
        if num_inputs > 1 or (num_inputs == 1 and isinstance(data, Statistics)):
            raise ValueError(
                f"x must have one column, the variance of each row, or none; got {num_inputs}"
                + ("" if num_inputs > 1 else " in statistics, which do not know single rows: give Data")
            )
        require_columns(data, num_inputs=num_inputs, event_shape=())
        if num_inputs == 0:
            stats = Statistics.of(data)
            precision = 1.0 / self.noise_var.double()
            first, second = stats.first * precision[..., None], stats._second() * precision[..., None, None]
            origin = stats.origin.expand(first.shape)
            return Statistics(stats.count * precision, origin, first, second)
        assert isinstance(data, Data)
        _require_variances(data)
        weight = (1.0 / data.x[..., 0].double()).where(data.mask, 0.0)
        y = data.y.double().where(data.mask, 0.0)
        total = weight.sum(-1)
        origin = (weight * y).sum(-1) / total.where(total > 0, 1.0)
        centred = y - origin[..., None]
        first, second = (weight * centred).sum(-1), (weight * centred.square()).sum(-1)
        return Statistics(total, origin[..., None], first[..., None], second[..., None, None])

    def _log_volume(self, data: Data | Statistics) -> Tensor:
        """The densities of the rows at their means: -1/2 sum of log(2 pi v)."""
        count = data.count.double()
        if isinstance(data, Data) and data.x.shape[-1]:
            log_var = data.x[..., 0].double().where(data.mask, 1.0).log().sum(-1)
        else:
            log_var = count * self.noise_var.double().log()
        return -0.5 * (count * math.log(2.0 * math.pi) + log_var)


@dataclass(frozen=True, eq=False)
class KnownVarianceFunctions(Draws):
    """Draws of one mean per task, `(draws, *batch)`; noise_var `(*batch,)`."""

    mean: Float[Tensor, "draws *batch"]
    noise_var: Float[Tensor, "*batch"]

    def __call__(self, x: Tensor | None = None) -> Tensor:
        return repeat_rows(self.mean, _without_columns(x))

    def predict(self, x: Tensor | None = None) -> Normal:
        mean = self(x)
        return Normal(mean, _row_variances(x, self.noise_var).sqrt().expand_as(mean))


def _update(loc: Tensor, var: Tensor, weighted: Statistics) -> tuple[Tensor, Tensor]:
    # in variances, not precisions: exact where the prior is vague beside the rows and the other way round
    shrink = 1.0 + var * weighted.count
    return loc + var * weighted.count / shrink * _shift(loc, weighted), var / shrink


def _log_evidence(loc: Tensor, var: Tensor, weighted: Statistics) -> Tensor:
    """log p(y) of each task, without the terms that loc and var do not enter: those of the noise variances."""
    shrink = 1.0 + var * weighted.count
    between = weighted.count / shrink * _shift(loc, weighted).square()
    # about the origin the second moment is the centred one but for rounding
    within = weighted._second()[..., 0, 0] - _over(weighted.first[..., 0].square(), weighted.count)
    return -0.5 * (shrink.log() + within + between)


def _shift(loc: Tensor, weighted: Statistics) -> Tensor:
    return weighted.origin[..., 0] - loc + _over(weighted.first[..., 0], weighted.count)


def _over(total: Tensor, precision: Tensor) -> Tensor:
    """Zero where there are no rows; `Statistics.mean` would take a precision below one for one."""
    return total / precision.where(precision > 0, 1.0)


def _without_columns(x: Tensor | None) -> Tensor | None:
    return None if x is None else x[..., :0]


def _row_variances(x: Tensor | None, noise_var: Tensor) -> Tensor:
    """`(*batch, q)`."""
    rows = row_shape(_without_columns(x), noise_var.shape)
    if x is None or not x.shape[-1]:
        return noise_var[..., None].expand(rows)
    if x.shape[-1] != 1 or not bool((x > 0).all()):
        raise ValueError(f"x must have one column of variances above zero, or none; got shape {tuple(x.shape)}")
    return x[..., 0].expand(rows)


def _require_variances(data: Data) -> None:
    bad = (data.x[..., 0] <= 0) & data.mask
    if bool(bad.any()):
        raise ValueError(
            f"variances, the column of x, must be above zero where mask is true; {describe_rows(bad)} "
            f"with value {data.x[..., 0][bad][0].item():g}"
        )
