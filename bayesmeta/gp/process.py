r"""Gaussian-process prior whose mean and kernel are learned from past tasks. Exact regression, batched over tasks.

$$ y / \text{scale} = c + \beta\, m(x) + \sum_r u_r \varphi_r(x) + g(x) + e, $$

with $c \sim N(\text{constant}, \text{constant\_var})$ a level, $m$ the mean of the functions of the past tasks and
$\varphi$ the directions in which they differ (`PastFunctions`), with
$u_r \sim N(\text{past\_loading}_r, \text{past\_var})$, $g$ what no past task showed: a Matern-5/2 process of variance
`outputscale`, and $e \sim N(0, \text{noise\_var})$. Without past functions this is the usual GP regression.

Past functions fall to zero outside the range of x that past tasks covered. There g has the variance
$\text{outputscale} + (1 - \text{reach}(x)^2)\, \text{beyond\_var}$, reach being one within the range and zero far from
it: where the past knows nothing, the prior is wide.

Every parameter may have a batch of its own, and parameters that differ along one axis only keep size one along the
others: a grid of (structures, scales) factorises one matrix per structure.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), chapter 2 and section 2.7; empirical
mean and covariance of past functions: Wang et al., Pre-trained Gaussian processes for Bayesian optimization (2024).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from gpytorch.distributions import MultivariateNormal as LazyMultivariateNormal
from jaxtyping import Float, Int64
from linear_operator import to_linear_operator
from torch import Generator, Tensor
from torch.distributions import Normal

from bayesmeta.data.rows import Data
from bayesmeta.data.validation import require_columns, require_enough_tasks, require_finite, require_positive
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.gp.covariance import append, matern52, solve_triangular, weighted_sum, whiten, with_noise
from bayesmeta.gp.fit import Numbers, pretrain
from bayesmeta.gp.past_functions import PastFunctions
from bayesmeta.gp.paths import PathFunctions
from bayesmeta.numerics.linalg import cholesky, log_det
from bayesmeta.online.process import ExtendedByRows

__all__ = ["GaussianProcess"]

ROWS = "covariance of rows plus noise_var"  # in the message where it is singular

ZERO, ONE = torch.zeros(()), torch.ones(())  # without axes, so that they take the dtype of what they meet
NO_LOADING = torch.zeros(1)
# the parameters that are one number per member of the batch
NUMBERS = ("outputscale", "noise_var", "constant", "constant_var", "scale", "past_weight", "past_var", "beyond_var")
LAST_AXES = {"lengthscale": 1, "past_loading": 1, "factor": 2, "residual": 1}  # after those of the batch, of the others


class Points(NamedTuple):
    """Points, and what the moments of the prior there need to know of them.

    Args:
        x: `(*tasks, q, d)`.
        past_mean, directions: of past functions, `(*tasks, q)` and `(*tasks, q, r)`; zero, and none, without a past.
        widening: standard deviation of g over that in the range of past inputs, `(*batch, q)`; None where it is one.
    """

    x: Tensor
    past_mean: Tensor
    directions: Tensor
    widening: Tensor | None


@dataclass(frozen=True, eq=False)
class GaussianProcess(TensorFields, ExtendedByRows):
    """A Gaussian process over tasks' functions, and after `condition` its posterior.

    Args:
        lengthscale: of the residual process g, per input, in units of x.
        outputscale: variance of g, in squared units of y / scale.
        noise_var: variance of one row's noise, in squared units of y / scale.
        constant, constant_var: mean and variance of the level of a task.
        scale: what one unit of the model is in units of y.
        past: mean and directions of past functions, or None.
        past_weight: the factor of the mean of past functions.
        past_var: variance along the directions of past functions; 1 takes their empirical covariance as it is.
        past_loading: mean along the directions, zero by default; that of one past task makes its function the mean.
        beyond_var: variance that g has in addition far outside the range of past inputs.
        rows: what was conditioned on, None for a prior.
        factor: Cholesky factor of the covariance of `rows`, with noise.
        residual: y / scale less its mean, whitened: the inverse of `factor` times it.
        learned_from: what `fit` learned this prior from.

    Raises:
        ValueError: a variance, a lengthscale or a scale is not positive (or, for `constant_var`, `past_var` and
            `beyond_var`, is negative), a parameter is not finite, or `past` is of other inputs than `lengthscale`.
    """

    lengthscale: Float[Tensor, "*#batch d"]
    outputscale: Float[Tensor, "*#batch"]
    noise_var: Float[Tensor, "*#batch"]
    constant: Float[Tensor, "*#batch"] = ZERO
    constant_var: Float[Tensor, "*#batch"] = ZERO
    scale: Float[Tensor, "*#batch"] = ONE
    past: PastFunctions | None = None
    past_weight: Float[Tensor, "*#batch"] = ONE
    past_var: Float[Tensor, "*#batch"] = ONE
    past_loading: Float[Tensor, "*#batch #r"] = NO_LOADING
    beyond_var: Float[Tensor, "*#batch"] = ZERO
    rows: Data | None = None
    factor: Float[Tensor, "*#tasks n n"] | None = None
    residual: Float[Tensor, "*#tasks n"] | None = None
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        for name in ("lengthscale", "outputscale", "noise_var", "scale"):
            require_positive(name, getattr(self, name))
        for name in ("constant", "constant_var", "past_weight", "past_var", "past_loading", "beyond_var"):
            require_finite(name, getattr(self, name))
        for name in ("constant_var", "past_var", "beyond_var"):
            if bool((getattr(self, name) < 0).any()):
                raise ValueError(f"{name} must not be negative; got {getattr(self, name).min().item():g}")
        d = self.lengthscale.shape[-1]
        if self.past is not None and self.past.points.shape[-1] != d:
            raise ValueError(
                f"past must be of {d} inputs, as lengthscale has {d} entries; got points of shape "
                f"{tuple(self.past.points.shape)}"
            )

    @classmethod
    def initial(cls, tasks: Data) -> "GaussianProcess":
        """A vague GP on the scale of `tasks`: lengthscales half an input's range, noise a tenth of the variance."""
        x, y = tasks.x[tasks.mask], tasks.y[tasks.mask].double()
        if not len(y):
            raise ValueError("GaussianProcess.initial needs at least one row to know the scale of y; got none")
        span = x.amax(0) - x.amin(0)
        var = y.var(correction=0)
        var = var.where(var > 0, 1.0).to(tasks.y)
        return cls(0.5 * span.where(span > 0, 1.0), var, 0.1 * var, constant=y.mean().to(tasks.y), constant_var=var)

    @property
    def batch_shape(self) -> torch.Size:
        shapes = [getattr(self, name).shape for name in NUMBERS]
        tasks = () if self.rows is None else self.rows.batch_shape
        return torch.broadcast_shapes(self.lengthscale.shape[:-1], self.past_loading.shape[:-1], *shapes, tasks)

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def num_inputs(self) -> int:
        """Columns of x."""
        return self.lengthscale.shape[-1]

    def __getitem__(self, index: slice | Int64[Tensor, " chosen"]) -> "GaussianProcess":
        """Some entries of the first axis of the batch."""
        num_batch = len(self.batch_shape)

        def some(value: Tensor, num_last: int) -> Tensor:
            # a field of fewer axes, or of size one there, is the same for all
            is_shared = value.ndim < num_batch + num_last or value.shape[0] == 1
            return value if is_shared else value[index]

        return self._each_parameter(some)

    def _each_parameter(self, change: Callable[[Tensor, int], Tensor]) -> "GaussianProcess":
        """Everything that has axes of the batch, changed by a function of it and of how many axes follow these."""
        fields = {name: getattr(self, name) for name in (*NUMBERS, *LAST_AXES)}
        changed = {name: change(v, LAST_AXES.get(name, 0)) for name, v in fields.items() if v is not None}
        rows = self.rows
        if rows is not None:
            rows = Data(change(rows.x, 2), change(rows.y, 1), change(rows.mask, 1))
        return self._replace(**changed, rows=rows)

    def condition(self, data: Data) -> "GaussianProcess":
        """Posterior after more rows: the Cholesky factor of the old ones is kept and extended.

        Padded rows become independent rows of unit variance and residual zero, which is exact and costs no case.

        Args:
            data: `y` of shape `(*tasks, n)` in its own units; tasks may be ragged or empty, and broadcast with
                `batch_shape`.

        Raises:
            ValueError: x does not have d columns, y is not one number per row, or rows that (nearly) coincide make
                the covariance singular, as `noise_var` is too small beside the other variances.
        """
        require_columns(data, num_inputs=self.lengthscale.shape[-1], event_shape=())
        at = self._at(data.x)
        cov = with_noise(self._covariance(at, at), self.noise_var, data.mask)
        centred = (data.y / self.scale[..., None] - self._mean(at)) * data.mask
        if self.rows is None or self.factor is None or self.residual is None:
            factor = cholesky(cov, ROWS)
            return self._replace(rows=data, factor=factor, residual=whiten(factor, centred))
        corner = self._root(at) * data.mask[..., None, :]
        new_factor = cholesky(cov - corner.mT @ corner, ROWS)
        new = whiten(new_factor, centred - weighted_sum(corner, self.residual))
        batch = torch.broadcast_shapes(self.residual.shape[:-1], new.shape[:-1])
        residual = torch.cat([self.residual.expand(*batch, -1), new.expand(*batch, -1)], -1)
        return self._replace(rows=self.rows + data, factor=append(self.factor, corner, new_factor), residual=residual)

    def predict(self, x: Float[Tensor, "*tasks q d"]) -> Normal:
        """p(y | x) at each row: a normal with batch_shape `(*batch, q)`."""
        mean, var = self._moments(x)
        scale = self.scale[..., None]
        return Normal(scale * mean, scale * (var + self.noise_var[..., None]).sqrt())

    def marginal(self, x: Float[Tensor, "*tasks q d"]) -> Normal:
        """p(f(x)) at each row, noise-free: a normal with batch_shape `(*batch, q)`."""
        mean, var = self._moments(x)
        scale = self.scale[..., None]
        return Normal(scale * mean, scale * var.sqrt())

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "PathFunctions":
        """Draws of f by random features of the prior, moved to the data exactly.

        Mean and covariance over draws are those of the posterior; one draw is not quite Gaussian, as its residual
        process is a sum of `NUM_FREQUENCIES` waves.
        """
        return PathFunctions.draw(self, num_draws, generator)

    def joint(self, x: Float[Tensor, "*tasks q d"]) -> LazyMultivariateNormal:
        """f at all rows together, noise-free."""
        at = self._at(x)
        mean, cov = self._mean(at), self._covariance(at, at)
        if self.residual is not None:
            root = self._root(at)
            mean = mean + weighted_sum(root, self.residual)
            cov = cov - root.mT @ root
        scale = self.scale[..., None]
        mean, cov = scale * mean, scale[..., None].square() * cov
        batch = torch.broadcast_shapes(mean.shape[:-1], cov.shape[:-2], self.batch_shape)
        # as an operator it is factorised when asked for, and with jitter, for rows of x may coincide
        return LazyMultivariateNormal(mean.expand(*batch, -1), to_linear_operator(cov.expand(*batch, -1, -1)))

    def log_evidence(self, data: Data) -> Tensor:
        """log p(y | x) of each task's rows, given the rows conditioned on already."""
        after = self.condition(data)
        start = 0 if self.residual is None else self.residual.shape[-1]
        whitened = cast(Tensor, after.residual)[..., start:]
        volume = log_det(cast(Tensor, after.factor)[..., start:, start:])
        count = data.count.to(whitened)
        # kept apart from log(2 pi), which a scale left at its float32 default would round
        volume = volume + count * math.log(2.0 * math.pi) + 2.0 * count * self.scale.log()
        return -0.5 * (whitened.square().sum(-1) + volume)

    def fit(self, tasks: Data, *, generator: Generator | None = None) -> "GaussianProcess":
        """Learn kernel, past functions and their weight from `tasks`: see `bayesmeta.gp.fit`.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without batch, is where the search starts; past
                functions that it has are replaced.
            generator: chooses rows and tasks where there are more than are needed; None takes a fixed choice.

        Returns:
            A prior with past functions, of scale 1.

        Raises:
            ValueError: fewer than two tasks have rows, x does not have d columns, y is not one number per row, or
                `self` has a batch or has seen rows.
        """
        require_columns(tasks, num_inputs=self.num_inputs, event_shape=())
        require_enough_tasks(tasks.count, self.batch_shape)
        if self.rows is not None:
            raise ValueError(
                "fit starts from a prior; got a posterior, which has seen rows. Use GaussianProcess.initial"
            )
        generator = generator or torch.Generator(device=tasks.y.device).manual_seed(0)
        start = self.to(torch.float64)
        unit, origin = start.scale * start.outputscale.sqrt(), start.scale * start.constant
        used = tasks[tasks.count > 0].to(torch.float64)
        about = replace(used, y=(used.y - origin) / unit)
        numbers = Numbers(start.lengthscale, start.outputscale, start.noise_var, start.constant, start.constant_var)
        numbers, past, beyond_var = pretrain(numbers, about, generator)
        # from targets about the origin, in units, back to y
        learned = GaussianProcess(
            numbers.lengthscale,
            unit.square() * numbers.outputscale,
            unit.square() * numbers.noise_var,
            origin + unit * numbers.constant,
            unit.square() * numbers.constant_var,
            past=replace(past, mean=unit * past.mean, directions=unit * past.directions),
            past_weight=numbers.past_weight,
            past_var=numbers.past_var,
            beyond_var=unit.square() * beyond_var,
            learned_from=LearnedFrom.counts(used.count),
        )
        return learned.to(self.lengthscale)

    def residual_process_at(self, x: Float[Tensor, "q d"]) -> Tensor:
        """Posterior mean of g alone, without level and past functions, in units of y / scale: `(*batch, q)`."""
        rows, factor, residual = cast(Data, self.rows), cast(Tensor, self.factor), cast(Tensor, self.residual)
        pull = torch.linalg.solve_triangular(factor.mT, residual[..., None], upper=True)
        amplitude = self._amplitude(self._widening(x), self._widening(rows.x))
        cross = amplitude * matern52(x, rows.x, self.lengthscale) * rows.mask[..., None, :]
        return (cross @ pull)[..., 0]

    def _at(self, x: Tensor) -> Points:
        if self.past is None:
            return Points(x, x.new_zeros(x.shape[:-1]), x.new_zeros(*x.shape[:-1], 0), None)
        return Points(x, *self.past(x), self._widening(x))

    def _mean(self, at: Points) -> Tensor:
        """Prior mean of f / scale, `(*batch, q)`."""
        mean = self.constant[..., None] + self.past_weight[..., None] * at.past_mean
        if self.past is None or self.past_loading is NO_LOADING:
            return mean
        loading = self.past_loading.to(at.directions).expand(*self.past_loading.shape[:-1], at.directions.shape[-1])
        return mean + (at.directions @ loading[..., None])[..., 0]

    def _covariance(self, a: Points, b: Points) -> Tensor:
        """Prior covariance of f / scale between points, `(*batch, n, m)`."""
        amplitude, correlation = self._amplitude(a.widening, b.widening), matern52(a.x, b.x, self.lengthscale)
        cov = torch.addcmul(self.constant_var[..., None, None], amplitude, correlation)
        if self.past is None:
            return cov
        return torch.addcmul(cov, self.past_var[..., None, None], a.directions @ b.directions.mT)

    def _amplitude(self, a: Tensor | None, b: Tensor | None) -> Tensor:
        """Prior covariance of g over its correlation, `(*batch, #n, #m)`, given the widening at both."""
        amplitude = self.outputscale[..., None, None]
        amplitude = amplitude if a is None else amplitude * a[..., :, None]
        return amplitude if b is None else amplitude * b[..., None, :]

    def _widening(self, x: Tensor) -> Tensor | None:
        """Standard deviation of g at x over that in the range of past inputs, `(*batch, q)`; None where it is one."""
        if self.past is None or self.beyond_var is ZERO:
            return None
        reach = self.past.reach(x)
        if reach is None:
            return None
        return (1.0 + (self.beyond_var / self.outputscale)[..., None] * (1.0 - reach.square())).sqrt()

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance of f / scale at each row, `(*batch, q)` both, without a covariance of q rows."""
        at = self._at(x)
        mean, residual_var = self._mean(at), self.outputscale[..., None]
        residual_var = residual_var if at.widening is None else residual_var * at.widening.square()
        var = residual_var + self.constant_var[..., None] + self.past_var[..., None] * at.directions.square().sum(-1)
        if self.residual is not None:
            root = self._root(at)
            mean = mean + weighted_sum(root, self.residual)
            # rounding can leave a variance just below zero at a row with little noise
            floor = torch.finfo(var.dtype).eps * var
            var = torch.maximum(var - root.square().sum(-2), floor)
        # a prior's moments lack the axes of parameters that they do not depend on, such as lengthscales
        batch = torch.broadcast_shapes(mean.shape, var.shape, (*self.batch_shape, 1))
        return mean.expand(batch), var.expand(batch)

    def _root(self, at: Points) -> Tensor:
        """factor^-1 k(rows, x), `(*batch, n, q)`: what the data take away and where they pull."""
        rows, factor = cast(Data, self.rows), cast(Tensor, self.factor)
        cross = self._covariance(self._at(rows.x), at).mul_(rows.mask[..., :, None])
        return solve_triangular(factor, cross)
