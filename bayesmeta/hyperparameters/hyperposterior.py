r"""How sure a learned prior is of itself: the hyperposterior as weighted draws, updated while tasks run.

The log hyperposterior of `bayesmeta.hyperparameters.vector` is expanded to second order at its mode (Laplace). A
Student t of that mode and curvature proposes draws of hyperparameters, and each is weighed by the exact hyperposterior
over its proposal, so the curvature need not be right: it only decides how many draws count (`ess`).

Evidence of tasks adds. So a task that still runs changes the weights by its evidence now less its evidence before, and
draws are renewed where too few of them count.

Source: Tierney and Kadane, Accurate approximations for posterior moments (1986); Geweke, Bayesian inference in
econometric models using Monte Carlo integration (1989).
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.describe import Described, plural
from bayesmeta.doors import counted, require_hierarchical, require_rows
from bayesmeta.fields import LearnedFrom
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.hyperparameters.vector import Hierarchical, Hyperparameters
from bayesmeta.mixture import Mixture
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.numerics.optimise import maximise
from bayesmeta.protocol import Weighable
from bayesmeta.random import gamma, rand, randn

__all__ = ["Hyperposterior", "laplace", "weighted_draws"]

PROPOSAL_DF = 7.0  # tails heavier than the hyperposterior's, which the normal hyperprior bounds
LEAST_CURVATURE = 0.5  # in units of the hyperprior: a proposal is at most 1.4 times as wide as it
LEAST_ESS = 0.25  # of the draws: below, a proposal is refined, and running tasks have the draws renewed
MAX_REFINEMENTS = 3
NEGLIGIBLE = -37.0  # log weight against the best draw's: what rounding takes away in any sum of weights
CHUNK = 100  # draws whose evidence of all tasks is held at once

LogDensity = Callable[[Tensor], Tensor]


class Hyperposterior(Described):
    """Weighted draws of the hyperparameters of a family, given past tasks and tasks that still run.

    `Hyperposterior.fit` makes one. It changes as tasks run; what `sample` and `marginal` return does not.

    Args:
        unknown: the hyperparameters and the evidence of the past tasks.
        draws: vectors of hyperparameters, `(draws, h)`.
        log_weights: normalised, `(draws,)`.
        learned_from: the past tasks.
        source: the prior and the tasks that `unknown` was made of, for what has to make it again.
    """

    def __init__(
        self,
        unknown: Hyperparameters,
        draws: Tensor,
        log_weights: Tensor,
        learned_from: LearnedFrom | None = None,
        source: tuple[Any, Data | Statistics] | None = None,
    ) -> None:
        self.unknown, self.learned_from, self.source = unknown, learned_from, source
        self._running: dict[Hashable, tuple[Data | Statistics, Tensor]] = {}
        self._renew(draws, log_weights)

    @classmethod
    @counted(num_draws=2)
    @with_gradients
    def fit(
        cls, prior: Hierarchical, tasks: Data | Statistics, *, num_draws: int = 1000, generator: Generator | None = None
    ) -> "Hyperposterior":
        """The hyperposterior after `tasks`.

        Args:
            prior: `Family.initial(tasks)`, the centre of the hyperprior; any family that is `Hierarchical`.
            tasks: at least two tasks with rows, on one axis.
            num_draws: of hyperparameters.
        """
        require_hierarchical("Hyperposterior.fit", prior)
        unknown = prior.hyperparameters(tasks)
        draws, log_weights = _weighted_draws(
            unknown.log_density, most_probable(unknown), unknown.scale, num_draws, generator
        )
        return cls(unknown, draws, log_weights, LearnedFrom.counts(tasks.count), (prior, tasks))

    def _title(self) -> str:
        of = f"of {type(self.priors).__name__}: {plural(len(self.draws), 'draw')}, worth {self.ess:.0f} equal ones"
        if self.learned_from is not None:
            of += f"; learned from {plural(self.learned_from.tasks, 'task')}, {plural(self.learned_from.rows, 'row')}"
        return of + (f"; {len(self._running)} running" if self._running else "")

    def _parts(self) -> dict[str, str]:
        weights = self.log_weights.exp()[:, None]
        mean = (weights * self.draws).sum(0)
        sd = (weights * (self.draws - mean).square()).sum(0).sqrt()
        moments = zip(self.unknown.names, mean.tolist(), sd.tolist(), strict=True)
        return {name: f"{centre:.4g}, sd {spread:.3g}" for name, centre, spread in moments}

    @property
    def ess(self) -> float:
        """How many equally weighted draws these are worth, at most their number."""
        return float(1.0 / (2.0 * self.log_weights).exp().sum())

    @property
    def log_weights(self) -> Tensor:
        """Normalised log weights of the draws `(draws,)`, given past tasks and all that running tasks have shown."""
        each = self._log_weights
        for _, evidence in self._running.values():
            each = each + evidence
        return each.log_softmax(-1)

    @with_gradients
    def update(self, task: Hashable, statistics: Data | Statistics, *, generator: Generator | None = None) -> None:
        """All that the running task `task` has shown so far replaces what it had shown at its last update.

        Costs one evidence of one task per draw. Where few draws count any more, all are renewed by `generator`.

        Args:
            task: any name; a new one begins a task.
            statistics: all rows of the task so far, without a batch; its additive statistics where the family has them.
        """
        require_rows("Hyperposterior.update", statistics)
        if statistics.batch_shape:
            raise ValueError(
                f"statistics must be of one task; got batch_shape {tuple(statistics.batch_shape)}. Update task by task"
            )
        evidence = self.priors.log_evidence(statistics).double()
        self._running[task] = (statistics, evidence)
        if self.ess < LEAST_ESS * len(self._log_weights):
            self.renew(generator=generator)

    @with_gradients
    def renew(self, *, generator: Generator | None = None) -> None:
        """Draw hyperparameters afresh, given past tasks and all that running tasks have shown."""
        running = [statistics for statistics, _ in self._running.values()]

        def log_density(vector: Tensor) -> Tensor:
            prior = self.unknown.build(vector)
            return self.unknown.log_density(vector) + sum(prior.log_evidence(s).double() for s in running)

        mean = (self.log_weights.exp()[:, None] * self.draws).sum(0)
        self._renew(*weighted_draws(self.unknown, log_density, mean, len(self.draws), generator))

    @with_gradients
    def task_log_evidence(self) -> Tensor:
        """log p(rows of each past task) at each draw of hyperparameters, `(draws, tasks)`."""
        return _in_chunks(self.unknown.log_evidence, self.draws)

    @counted(num_draws=1)
    def sample(self, num_draws: int, *, generator: Generator | None = None) -> Weighable:
        """Priors of batch_shape `(num_draws,)`, drawn by weight."""
        return self.unknown.build(self.draws[_systematic(self.log_weights, num_draws, generator)])

    @counted(num_components=1)
    def marginal(self, num_components: int = 100, *, generator: Generator | None = None) -> Mixture:
        """The prior with its hyperparameters integrated out: an equal mixture of `num_components` drawn priors.

        Conditioned on rows of a task, the rows weigh the hyperparameters too: exactly what full Bayes gives that task.
        """
        return Mixture.uniform(self.sample(num_components, generator=generator))

    def _renew(self, draws: Tensor, log_weights: Tensor) -> None:
        self.draws = draws
        self.priors = self.unknown.build(draws)
        self._running = {
            task: (statistics, self.priors.log_evidence(statistics).double())
            for task, (statistics, _) in self._running.items()
        }
        # what running tasks have shown is kept apart, so that their next update can replace it
        self._log_weights = log_weights - sum(evidence for _, evidence in self._running.values())


@with_gradients
def weighted_draws(
    unknown: Hyperparameters, log_density: LogDensity, start: Tensor, num_draws: int, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """Draws `(num_draws, h)` of a density like that of `unknown`, and normalised log weights.

    Args:
        log_density: up to a constant, of vectors `(*draws, h)`.
        start: where the search for its mode starts, `(h,)`.
    """
    mode = maximise(lambda vector: log_density(vector) / unknown.num_rows, start, limit=unknown.limit)
    return _weighted_draws(log_density, mode, unknown.scale, num_draws, generator)


@with_gradients
def laplace(log_density: LogDensity, mode: Tensor, scale: Tensor) -> Tensor:
    """Factor R of the covariance R R' of a normal that fits `log_density` at its `mode`, `(h, h)`.

    Args:
        scale: widths of the hyperprior `(h,)`; along directions that the density hardly curves, they take its place.
    """
    hessian = torch.autograd.functional.hessian(log_density, mode)
    values, vectors = torch.linalg.eigh(-hessian * scale[:, None] * scale)
    return scale[:, None] * vectors / values.clamp(min=LEAST_CURVATURE).sqrt()


def _weighted_draws(
    log_density: LogDensity, mode: Tensor, scale: Tensor, num_draws: int, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """Draws and normalised log weights; the proposal takes the moments of its draws where few of them count."""
    centre, root = mode, laplace(log_density, mode, scale)
    for _ in range(1 + MAX_REFINEMENTS):
        draws, log_proposal = _student_draws(centre, root, num_draws, generator)
        log_weights = (_in_chunks(log_density, draws) - log_proposal).nan_to_num(nan=-torch.inf).log_softmax(-1)
        weights = log_weights.exp()
        if 1.0 / weights.square().sum() >= LEAST_ESS * num_draws:
            break
        # a power of the weights lets enough draws speak for their moments
        weights = (0.5 * log_weights).softmax(-1)
        centre = (weights[:, None] * draws).sum(0)
        spread = (draws - centre) / scale
        moments = (weights[:, None] * spread).mT @ spread
        values, vectors = torch.linalg.eigh(moments)
        root = scale[:, None] * vectors * values.clamp(min=1e-12).sqrt()
    # draws that have no say can be so extreme that no prior can be built from them
    best = log_weights.argmax()
    negligible = log_weights < log_weights[best] + NEGLIGIBLE
    draws = draws[best].where(negligible[:, None], draws)
    return draws, log_weights.masked_fill(negligible, -torch.inf)


def _student_draws(centre: Tensor, root: Tensor, num_draws: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Draws `(num_draws, h)` of a multivariate t, and their log density up to a constant."""
    noise = randn((num_draws, len(centre)), like=centre, generator=generator)
    half = torch.full((), 0.5 * PROPOSAL_DF, dtype=centre.dtype)
    noise = noise * (half / gamma((num_draws, 1), half, generator=generator)).sqrt()
    log_density = -0.5 * (PROPOSAL_DF + len(centre)) * torch.log1p(noise.square().sum(-1) / PROPOSAL_DF)
    return centre + noise @ root.mT, log_density


@torch.no_grad()
def _in_chunks(log_density: LogDensity, draws: Tensor) -> Tensor:
    return torch.cat([log_density(part) for part in draws.split(CHUNK)])


def _systematic(log_weights: Tensor, num_draws: int, generator: Generator | None) -> Tensor:
    """Indices of weighted draws, each as often as its weight says to within one."""
    offsets = torch.arange(num_draws, dtype=torch.float64) + rand((1,), like=log_weights, generator=generator)
    cumulative = log_weights.exp().cumsum(-1)
    index = torch.searchsorted(cumulative, offsets / num_draws * cumulative[-1])
    return index.clamp(max=len(log_weights) - 1)
