r"""What past tasks showed on configurations that they share: a table of values rather than smooth functions.

Benchmarks and grids evaluate the same configurations on every task. There the values of past tasks need no surrogate:

$$ y = c + \beta\, m_i + D_i u + g(x) + e, \qquad u \sim N(0, v I), $$

where i is the stored configuration that is nearest to x (at a stored one, itself), $m$ the mean of the past tasks'
values, and $D D^\top$ their empirical covariance, of low rank as there are fewer tasks than configurations. A
Matern-5/2 process g, a level c and noise e are for what no past task showed: they are what the empirical covariance is
shrunk to. How much of each there is maximises the evidence of each past task under the others.

Tasks need not have been evaluated everywhere. Missing entries are completed by expectation-maximisation: under the
current mean and covariance of the whole table, each task's missing entries have a mean and a covariance given those
that it has; the means complete the table, the sum over tasks of the covariances is added to the scatter of the
completed tasks, and with a hyperprior that gives the next mean and covariance. It starts from the smooth functions that
`GaussianProcess` learns; the hyperprior is as if their mean had been seen once, and the covariance that is left
without them in a few tasks more.

Sources: Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM algorithm (1977), section 4.1;
Wang et al., Pre-trained Gaussian processes for Bayesian optimization (2024), for tasks that share their inputs.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.gp.fit import Numbers, fit_strength
from bayesmeta.gp.past_functions import PastFunctions
from bayesmeta.gp.process import GaussianProcess
from bayesmeta.numerics.linalg import cholesky

__all__ = ["PastValues", "SharedConfigurations", "complete"]

MAX_CONFIGURATIONS = 2048  # in the table: a covariance of all of them is factorised where entries are missing
MAX_TASKS, MAX_ROWS = 64, 128  # by which the parts are weighed
NUM_ROUNDS = 5  # of expectation-maximisation
PRIOR_TASKS = 3  # that the hyperprior over the covariance is worth
MAX_UNCERTAIN = 32  # directions in which missing entries are uncertain, of those that are kept


@dataclass(frozen=True, eq=False)
class PastValues(PastFunctions):
    """Past functions as their values on stored configurations, and elsewhere those of the nearest one.

    Args:
        points: the configurations.
        lengthscale: the units in which configurations are near.
        mean: of the values of past tasks.
        directions: in which the values differ, one column each.
        loadings: as of `PastFunctions`.
    """

    def __call__(self, x: Float[Tensor, "*batch n d"]) -> tuple[Tensor, Tensor]:
        at = self.nearest(x)
        return self.mean[at], self.directions[at]

    def nearest(self, x: Float[Tensor, "*batch n d"]) -> Int64[Tensor, "*batch n"]:
        """The stored configuration that is nearest to each row of x; the first of those that are equally near."""
        # the faster way by products would take one of two close configurations for the other
        exactly = "donot_use_mm_for_euclid_dist"
        return torch.cdist(x / self.lengthscale, self.points / self.lengthscale, compute_mode=exactly).argmin(-1)


@dataclass(frozen=True, eq=False)
class SharedConfigurations(GaussianProcess):
    """A Gaussian process whose past functions are tables: `SharedConfigurations.initial(tasks).fit(tasks)`."""

    def fit(self, tasks: Data, *, generator: Generator | None = None) -> "SharedConfigurations":
        """Learn the kernel as `GaussianProcess` does, complete the table, and weigh its parts.

        Args:
            tasks: at least two tasks with rows, on one axis. Of more than `MAX_CONFIGURATIONS` configurations those
                are kept that most tasks share, at random among equals.
            generator: chooses rows where there are more than are needed; None takes a fixed choice.

        Raises:
            ValueError: as `GaussianProcess.fit`, or the configurations that are kept are of one task alone.
        """
        smooth = super().fit(tasks, generator=generator).to(torch.float64)
        generator = generator or torch.Generator(device=tasks.y.device).manual_seed(0)
        table = _Table.of(tasks[tasks.count > 0].to(torch.float64), generator)
        values, uncertain = complete(smooth, table.x, table.y, table.seen)
        own = torch.randperm(len(values), generator=generator, device=generator.device)[:MAX_TASKS]
        rows, at = table.rows(own, generator)
        # a task's own level is no part of the past functions, as that of the prior is not
        functions = values - smooth.constant
        # of a task's own entries none is uncertain where it has rows
        at_rows = 0.0 if uncertain is None else uncertain[at[:, :, None], at[:, None, :]]
        kernel = Numbers(smooth.lengthscale, smooth.outputscale, smooth.noise_var, smooth.constant, smooth.constant_var)
        strength = fit_strength(kernel, rows, own, functions.mT[at], at_rows)
        spread = math.sqrt(max(len(values) - 1, 1))
        mean = functions.mean(0)
        directions = (functions - mean).mT / spread
        if uncertain is not None:
            directions = torch.cat([directions, _root(uncertain) / spread], -1)
        loadings = spread * torch.eye(directions.shape[-1], len(values)).to(values)
        past = PastValues(table.x, smooth.lengthscale, mean, directions, loadings)
        learned = SharedConfigurations(
            strength.lengthscale,
            strength.outputscale,
            strength.noise_var,
            strength.constant,
            strength.constant_var,
            past=past,
            past_weight=strength.past_weight,
            past_var=strength.past_var,
            learned_from=smooth.learned_from,
        )
        return learned.to(self.lengthscale)


def complete(
    prior: GaussianProcess,
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "tasks n"],
    seen: Bool[Tensor, "tasks n"],
    *,
    num_rounds: int = NUM_ROUNDS,
) -> tuple[Float[Tensor, "tasks n"], Float[Tensor, "n n"] | None]:
    """A table with the expected values of its missing entries, and the sum over tasks of their covariances.

    Args:
        prior: with past functions, where expectation-maximisation starts.
        x: the configurations.
        y: their values; those that are not `seen` mean nothing.
        seen: which entries there are.

    Returns:
        Both, with None for covariances where nothing is missing.
    """
    if bool(seen.all()):
        return y, None
    noise = prior.noise_var * torch.eye(len(x)).to(x)
    start = prior.joint(x)
    mean, cov = start.mean, start.covariance_matrix + noise
    own = replace(prior, past=None).joint(x).covariance_matrix + noise
    for _ in range(num_rounds):
        values, uncertain = _expectation(mean, cov, y, seen)
        known = torch.cat([values, start.mean[None]])
        mean = known.mean(0)
        scatter = (known - mean).mT @ (known - mean) + uncertain
        cov = (PRIOR_TASKS * own + scatter) / (PRIOR_TASKS + len(values))
    return values, uncertain


def _expectation(mean: Tensor, cov: Tensor, y: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Each task's entries given those seen, and the sum over tasks of the covariances of the others."""
    values, uncertain = y.clone(), torch.zeros_like(cov)
    precision = torch.cholesky_inverse(cholesky(cov, "covariance of configurations"))
    for value, is_seen in zip(values, seen, strict=True):
        known, missing = is_seen.nonzero()[:, 0], (~is_seen).nonzero()[:, 0]
        gap = value[known] - mean[known]
        # by the smaller of two matrices: that of what is missing, or that of what is known
        if len(missing) < len(known):
            between = torch.cholesky_inverse(cholesky(precision[missing][:, missing], "precision of missing entries"))
            shift = -between @ (precision[missing][:, known] @ gap)
        else:
            factor = cholesky(cov[known][:, known], "covariance of known entries")
            root = torch.linalg.solve_triangular(factor, cov[known][:, missing], upper=False)
            between = cov[missing][:, missing] - root.mT @ root
            shift = root.mT @ torch.linalg.solve_triangular(factor, gap[:, None], upper=False)[:, 0]
        value[missing] = mean[missing] + shift
        uncertain[missing[:, None], missing] += between
    return values, uncertain


def _root(cov: Tensor) -> Tensor:
    """The leading directions of a covariance: `(n, r)`, whose product with its transpose is close to it."""
    scale, direction = torch.linalg.eigh(cov)
    return direction[:, -MAX_UNCERTAIN:] * scale[-MAX_UNCERTAIN:].clamp(min=0.0).sqrt()


class _Table(NamedTuple):
    """Configurations `(n, d)`, and the mean value of each task on each, `(tasks, n)`, where it was `seen`."""

    x: Tensor
    y: Tensor
    seen: Tensor

    @classmethod
    def of(cls, tasks: Data, generator: Generator) -> "_Table":
        x, at = tasks.x[tasks.mask].unique(dim=0, return_inverse=True)
        place = (tasks.mask.nonzero()[:, 0], at)
        rows = tasks.y[tasks.mask]
        empty = rows.new_zeros(len(tasks.mask), len(x))
        count = empty.index_put(place, torch.ones_like(rows), accumulate=True)
        y = empty.index_put(place, rows, accumulate=True) / count.clamp(min=1.0)
        shared_by = (count > 0).sum(0) + torch.rand(len(x), generator=generator, device=generator.device)
        kept = shared_by.topk(min(MAX_CONFIGURATIONS, len(x))).indices.sort().values
        is_known = (count[:, kept] > 0).any(-1)
        if int(is_known.sum()) < 2:
            raise ValueError(
                f"fit needs two tasks with values on the {len(kept)} configurations that it keeps; got one, as tasks "
                "share none. Use GaussianProcess"
            )
        return cls(x[kept], y[is_known][:, kept], count[is_known][:, kept] > 0)

    def rows(self, tasks: Tensor, generator: Generator) -> tuple[Data, Tensor]:
        """Some rows of some tasks, and which configurations they are, `(tasks, rows)`."""
        y, seen = self.y[tasks], self.seen[tasks]
        keys = torch.rand(seen.shape, generator=generator, device=generator.device).masked_fill(~seen, 2.0)
        at = keys.argsort(-1)[:, :MAX_ROWS]
        return Data(self.x[at], y.gather(-1, at), seen.gather(-1, at)), at
