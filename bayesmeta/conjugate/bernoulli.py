r"""Families of counts, conjugate to one probability or rate per task.

**Beta-Bernoulli.** For each task, with rows y of zeros and ones,

$$ y \sim \text{Bernoulli}(\theta), \quad \theta \sim \text{Beta}(\text{successes}, \text{failures}). $$

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), sections 2.4 and 5.3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Bernoulli, Beta
from torch.nn.functional import logsigmoid

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.data.validation import require_binary, require_columns, require_enough_tasks, require_positive
from bayesmeta.distributions.constant import Constant, repeat_rows, row_shape
from bayesmeta.distributions.marginals import BetaMarginal
from bayesmeta.doors import Draws
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.hyperparameters.mode import fit_by_mode
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.numerics.special import lgamma_ratio
from bayesmeta.random import log_gamma

if TYPE_CHECKING:
    from bayesmeta.online.betas import OnlineBetas

__all__ = ["BernoulliFunctions", "BetaBernoulli"]

LARGEST_TOTAL = 1e8  # pseudo-counts stop here where tasks do not differ, and more of them would always be better
LARGEST_LOGIT = 30.0  # of the mean rate: it ends there where every row is alike
ALL_ALIKE = "every row is 0, or every row is 1: the rate of all tasks is taken to be that; add rows, or a hyperprior"
SAME_RATE = "tasks do not differ by more than chance, and are taken to share one probability"


@dataclass(frozen=True, eq=False)
class BetaBernoulli(TensorFields):
    """Beta over the probability of a one, for rows of zeros and ones.

    Args:
        successes: pseudo-count of ones, above zero.
        failures: pseudo-count of zeros, above zero.
        learned_from: what `fit` learned this prior from, None for one written by hand.
    """

    successes: Float[Tensor, "*#batch"]
    failures: Float[Tensor, "*#batch"]
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        successes, failures = torch.broadcast_tensors(torch.as_tensor(self.successes), torch.as_tensor(self.failures))
        self._spread(successes.shape, successes + failures, "successes", "failures")
        require_positive("successes", self.successes)
        require_positive("failures", self.failures)

    @classmethod
    def initial(cls, tasks: Data | Statistics) -> "BetaBernoulli":
        """Two pseudo-counts, divided as the rows of all `tasks` are."""
        stats = Statistics.of(tasks, order=1).pooled()
        rate = (_ones(stats) + 0.5) / (stats.count + 1.0)
        return cls(2.0 * rate, 2.0 * (1.0 - rate)).to(tasks.dtype)

    @property
    def batch_shape(self) -> torch.Size:
        return self.successes.shape

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self, data: Data | Statistics) -> "BetaBernoulli":
        """Posterior after the rows of `data`: adds its ones and zeros. batch_shape broadcasts with its tasks.

        Raises:
            ValueError: a row of y is neither 0 nor 1.
        """
        stats = self.statistics(data)
        successes, failures = _update(self.successes, self.failures, stats)
        return self._replace(successes=successes.to(self.successes), failures=failures.to(self.failures))

    def predict(self, x: Tensor | None = None) -> Bernoulli:
        """p(y) at each row: a Bernoulli with batch_shape `(*batch, q)`."""
        logits = self.successes.log() - self.failures.log()
        return Bernoulli(logits=logits[..., None].expand(row_shape(x, self.batch_shape)))

    def marginal(self, x: Tensor | None = None) -> BetaMarginal:
        """p(probability of a one) at each row."""
        rows = row_shape(x, self.batch_shape)
        return BetaMarginal(self.successes[..., None].expand(rows), self.failures[..., None].expand(rows))

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "BernoulliFunctions":
        """Draws of the probability of a one, the same at every row."""
        return BernoulliFunctions(self.sample_params(num_draws, generator=generator)[..., 0])

    def online(self, batch_shape: Sequence[int]) -> "OnlineBetas":
        """The posterior of tasks, or of tasks and arms, to be updated in place."""
        from bayesmeta.online.betas import OnlineBetas

        return OnlineBetas(self, batch_shape)

    def joint(self, x: Tensor | None = None) -> Constant:
        """The probability of a one at all rows together."""
        return Constant(Beta(self.successes, self.failures), row_shape(x, self.batch_shape))

    def log_evidence(self, data: Data | Statistics) -> Tensor:
        """log p(y) of the rows in their order, without a binomial coefficient, for each task."""
        stats = self.statistics(data)
        return _log_evidence(self.successes.double(), self.failures.double(), stats).to(self.successes)

    def sample_params(self, num_draws: int, *, generator: Generator | None = None) -> Tensor:
        """Logits of the probability, `(num_draws, *batch, 1)`."""
        ones = log_gamma((num_draws,), self.successes, generator=generator)
        zeros = log_gamma((num_draws,), self.failures, generator=generator)
        return (ones - zeros)[..., None]

    def log_prob(self, params: Tensor) -> Tensor:
        """Log density of logits `(..., *batch, 1)`; the Jacobian, theta (1 - theta), adds one to both exponents."""
        logits = params[..., 0]
        powers = self.successes * logsigmoid(logits) + self.failures * logsigmoid(-logits)
        return powers - _log_beta(self.successes, self.failures)

    def constrain(self, params: Tensor) -> dict[str, Tensor]:
        return {"probability": params[..., 0].sigmoid()}

    def fit(self, tasks: Data | Statistics, *, hyperprior_weight: float = 1.0) -> "BetaBernoulli":
        """The most probable pseudo-counts after `tasks`.

        Where tasks do not differ more than their rows do by chance, the total of both grows, at most to 1e8.

        Args:
            tasks: at least two tasks with rows, on one axis. `self`, without a batch, is where the search starts and
                the centre of the hyperprior.
            hyperprior_weight: 0 for plain empirical Bayes; see `bayesmeta.hyperparameters.vector`.

        Raises:
            ValueError: fewer than two tasks have rows, or a row of y is neither 0 nor 1.
        """
        return fit_by_mode(self, tasks, hyperprior_weight=hyperprior_weight)

    def hyperparameters(self, tasks: Data | Statistics) -> Hyperparameters:
        """Logit of the mean, and log of the total of both pseudo-counts."""
        stats = self.statistics(tasks)
        require_enough_tasks(stats.count, self.batch_shape)

        # mean and total: nearly independent, where both pseudo-counts grow together
        def natural(vector: Tensor) -> tuple[Tensor, Tensor]:
            logit, total = vector[..., 0], vector[..., 1].exp()
            return total * logit.sigmoid(), total * (-logit).sigmoid()

        successes, failures = self.successes.double(), self.failures.double()
        total = (successes + failures).log().item()
        entries = [
            Hyperparameter("logit_mean", (successes / failures).log().item(), 2.0, LARGEST_LOGIT, ALL_ALIKE),
            Hyperparameter("log_total", total, 2.0, math.log(LARGEST_TOTAL), SAME_RATE),
        ]
        return Hyperparameters(
            entries,
            lambda vector: _log_evidence(*natural(vector[..., None, :]), stats),
            lambda vector: BetaBernoulli(*natural(vector)).to(self.successes),
            stats.count.sum().item(),
        )

    def statistics(self, data: Data | Statistics) -> Statistics:
        """All that this family knows of the rows of `data`; statistics pass through."""
        require_columns(data, num_inputs=0, event_shape=())
        require_binary(data)
        return Statistics.of(data, order=1)


@dataclass(frozen=True, eq=False)
class BernoulliFunctions(Draws):
    """Draws of one probability per task: logits `(draws, *batch)`."""

    logits: Float[Tensor, "draws *batch"]

    def __call__(self, x: Tensor | None = None) -> Tensor:
        return repeat_rows(self.logits.sigmoid(), x)

    def link(self, x: Tensor | None = None) -> Tensor:
        """Logits, which differ where probabilities round to one."""
        return repeat_rows(self.logits, x)

    def predict(self, x: Tensor | None = None) -> Bernoulli:
        return Bernoulli(logits=repeat_rows(self.logits, x))


def _ones(stats: Statistics) -> Tensor:
    return (stats.count * stats.mean[..., 0]).clamp(min=0.0)  # rounding may leave a little less than none


def _update(successes: Tensor, failures: Tensor, stats: Statistics) -> tuple[Tensor, Tensor]:
    ones = _ones(stats)
    return successes.double() + ones, failures.double() + (stats.count - ones)


def _log_evidence(successes: Tensor, failures: Tensor, stats: Statistics) -> Tensor:
    ones = _ones(stats)
    # all at once: where tasks are few, calls take the time and not the arithmetic
    pseudo_counts = torch.stack([successes, failures, successes + failures], -1)
    counts = torch.stack([ones, stats.count - ones, stats.count], -1)
    of_ones, of_zeros, of_all = lgamma_ratio(pseudo_counts, counts).unbind(-1)
    return of_ones + of_zeros - of_all


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return a.lgamma() + b.lgamma() - (a + b).lgamma()
