r"""What is known of the shared mean of linear tasks, exactly and online: the Gaussian hyperposterior.

With task weights $w_s \sim N(\mu, \Sigma_0)$, $\mu \sim N(\text{loc}, \text{cov})$ and rows of task $s$ reduced to the
precision $G_s = X_s^\top X_s / \sigma^2$ and shift $B_s = X_s^\top (y_s - X_s \text{loc}) / \sigma^2$,

$$ \Lambda = \text{cov}^{-1} + \sum_s (I + G_s \Sigma_0)^{-1} G_s, \quad
\Lambda\, (\text{mean} - \text{loc}) = \sum_s (I + G_s \Sigma_0)^{-1} B_s, $$

which holds where $G_s$ is singular too. Each task's term is kept, so that its next update replaces it.

Source: Hong et al., Hierarchical Bayesian bandits (2022), section 4.
"""

from collections.abc import Hashable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_positive_definite
from bayesmeta.data.weighted_rows import WeightedRows
from bayesmeta.describe import Described, plural
from bayesmeta.doors import counted, require_rows
from bayesmeta.numerics.as_floats import as_floats
from bayesmeta.numerics.linalg import cholesky, solve, symmetric
from bayesmeta.random import randn
from bayesmeta.regression.linear import LinearGaussian
from bayesmeta.regression.linear_evidence import normal_equations

__all__ = ["LinearHyperposterior"]


class LinearHyperposterior(Described):
    """The shared mean of linear tasks, whose spread between tasks and noise are known.

    It changes as tasks run; what `sample` and `marginal` return does not.

    Args:
        task_prior: weights of a task about the shared mean: `precision` between tasks and `noise_var` are used, and
            `loc` is the expected shared mean.
        cov: covariance of the belief in the shared mean, `(d, d)`.

    Raises:
        ValueError: the prior has a batch, or `cov` is not symmetric positive definite.
    """

    def __init__(self, task_prior: LinearGaussian, cov: Float[Tensor, "d d"]) -> None:
        if not isinstance(task_prior, LinearGaussian):
            raise TypeError(f"task_prior must be a LinearGaussian; got {type(task_prior).__name__}")
        cov = as_floats("cov", cov, like=task_prior.loc)
        if task_prior.batch_shape:
            raise ValueError(f"task_prior must have no batch; got batch_shape {tuple(task_prior.batch_shape)}")
        require_positive_definite("cov", cov, task_prior.loc.shape[-1])
        self._task_prior = task_prior.to(torch.float64)
        self._dtype = task_prior.loc.dtype
        self._between = torch.cholesky_inverse(cholesky(self._task_prior.precision, "precision"))
        self._precision = torch.cholesky_inverse(cholesky(cov.double(), "cov"))
        self._shift = torch.zeros_like(self._task_prior.loc)
        self._terms: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def update(self, task: Hashable, statistics: Data | Statistics) -> None:
        """All rows that `task` has shown so far replace what it had shown at its last update; costs O(d^3).

        Raises:
            ValueError: `statistics` are of several tasks.
        """
        require_rows("LinearHyperposterior.update", statistics)
        d = len(self._shift)
        stats = WeightedRows.of(self._task_prior.statistics(statistics), d).stats
        if stats.batch_shape:
            raise ValueError(f"statistics must be of one task; got batch_shape {tuple(stats.batch_shape)}")
        # about the expected mean: moments about zero would cancel where rows sit far from it
        gram, moment = (value / self._task_prior.noise_var for value in normal_equations(self._task_prior.loc, stats))
        both = torch.linalg.solve(
            torch.eye(d, dtype=torch.float64) + gram @ self._between, torch.cat([gram, moment[:, None]], -1)
        )
        new = symmetric(both[:, :d]), both[:, d]
        old = self._terms.get(task, (torch.zeros_like(new[0]), torch.zeros_like(new[1])))
        self._precision = self._precision + new[0] - old[0]
        self._shift = self._shift + new[1] - old[1]
        self._terms[task] = new

    def _title(self) -> str:
        return f"of {plural(len(self._shift), 'weight')}, {plural(len(self._terms), 'task')} so far"

    def _parts(self) -> dict[str, Tensor]:
        return {"loc": self.loc, "sd": self.cov.diagonal().sqrt(), "noise_var": self._task_prior.noise_var}

    @property
    def task_prior(self) -> LinearGaussian:
        """Prior of a task whose shared mean is the expected one: `precision` is about the shared mean."""
        return replace(self._task_prior, loc=self.loc.double()).to(self._dtype)

    @property
    def loc(self) -> Tensor:
        """Mean of the belief in the shared mean, `(d,)`."""
        step = solve(cholesky(self._precision, "precision"), self._shift)
        return (self._task_prior.loc + step).to(self._dtype)

    @property
    def cov(self) -> Tensor:
        """Covariance of the belief in the shared mean, `(d, d)`."""
        return torch.cholesky_inverse(cholesky(self._precision, "precision")).to(self._dtype)

    @counted(num_draws=1)
    def sample(self, num_draws: int, *, generator: Generator | None = None) -> LinearGaussian:
        """Priors of tasks with drawn shared means, batch_shape `(num_draws,)`; MetaTS and HierTS condition one."""
        noise = randn((num_draws, len(self._shift), 1), like=self._shift, generator=generator)
        upper = cholesky(self._precision, "precision").mT
        loc = self.loc.double() + torch.linalg.solve_triangular(upper, noise, upper=True)[..., 0]
        d = loc.shape[-1]
        precision = self._task_prior.precision.expand(num_draws, d, d)
        return replace(
            self._task_prior, loc=loc, precision=precision, noise_var=self._task_prior.noise_var.expand(num_draws)
        ).to(self._dtype)

    def marginal(self) -> LinearGaussian:
        """The prior of the next task with the shared mean integrated out: again Gaussian, exactly (AdaTS)."""
        total = self._between + self.cov.double()
        precision = symmetric(torch.cholesky_inverse(cholesky(total, "covariance of weights")))
        return replace(self._task_prior, loc=self.loc.double(), precision=precision).to(self._dtype)
