r"""A Gaussian process per past task and one of the new task, weighted by how well each ranks the rows of the new one.

Each past task j has a process $f_j$ of its standardised objective, fitted once. The new task has a process fitted to
its rows whenever there are more, and the ensemble is the weighted sum of all of them: in units in which the rows of the
new task have mean zero and variance one, a normal with

$$ \text{mean} = \sum_i w_i \mu_i(x), \qquad \text{variance} = \sum_i w_i^2 \sigma_i^2(x). $$

The weight of a process is the share of posterior draws in which it misranks fewest pairs of rows, ties split evenly.
The process of the new task has seen those rows, so each of its pairs is judged with one of the two left out. Among many
useless processes some rank few rows well by luck: so process j is left out with probability
$1 - (1 - n / \text{horizon}) \Pr(\text{loss}_j < \text{loss}_\text{target})$ after n rows, that of the new task never.

Ranks ask for no evidence, so units of past tasks and their noise do not matter. They see the order of what was tried
and nothing else: a past that ranks bad rows well keeps its weight where it misleads about the good ones.

Source: Feurer, Letham and Bakshy, Scalable meta-learning for Bayesian optimization using ranking-weighted Gaussian
process ensembles (2018).
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.distributions import Normal

from bayesmeta.data.rows import Data
from bayesmeta.data.validation import require_columns
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.gp.process import GaussianProcess
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.numerics.linalg import cholesky
from bayesmeta.random import rand, randn
from bo.acquisition.one_posterior import OnePosterior
from bo.priors.families import varying_tasks
from bo.priors.tuning_prior import TuningPrior, starts_of
from bo.single_study.process import plain_gp, some_rows
from bo.space.search_space import SearchSpace

__all__ = ["RankingWeightedEnsemble", "fit_rgpe", "misranked_pairs", "ranking_weights"]

NUM_DRAWS = 256
MAX_SOURCE_ROWS, MAX_ROWS = 128, 64  # of a past task and of the new one: the best, and a share of the rest
JITTER = 1e-6  # relative to the variance of a process: rows may lie close together


@dataclass(frozen=True, eq=False)
class RankingWeightedEnsemble(TensorFields):
    """A weighted sum of Gaussian processes: those of past tasks, and that of the task at hand.

    Args:
        sources: one process per past task, conditioned on its rows, of its standardised objective with more being
            better.
        weights: of the sources, and last of the target.
        maximize: whether more is better in the units of the rows.
        horizon: number of rows from which the target is alone.
        seed: of the draws by which processes are judged, so that the same rows give the same posterior.
        rows: what was conditioned on, None for a prior.
        target: the process of those rows, standardised like the sources; None where there are none.
        level, spread: of those rows.
        learned_from: past tasks and rows.
    """

    sources: GaussianProcess
    weights: Float[Tensor, " models"]
    maximize: bool = True
    horizon: int = 100
    seed: int = 0
    rows: Data | None = None
    target: GaussianProcess | None = None
    level: float = 0.0
    spread: float = 1.0
    learned_from: LearnedFrom | None = None

    def __post_init__(self) -> None:
        num_sources = self.sources.batch_shape.numel()
        if len(self.sources.batch_shape) != 1 or len(self.weights) != num_sources + 1:
            raise ValueError(
                "sources must have one axis of tasks, and weights an entry for each and one more for the target; got "
                f"batch_shape {tuple(self.sources.batch_shape)} and {len(self.weights)} weights"
            )
        if self.horizon < 1:
            raise ValueError(f"horizon must be at least one row; got {self.horizon}")

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size()

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size()

    def condition(self, data: Data) -> "RankingWeightedEnsemble":
        """The ensemble after more rows of one task: all of its rows are standardised and judged again.

        Raises:
            ValueError: `data` has a batch of tasks, x does not have d columns, or y is not one number per row.
        """
        require_columns(data, num_inputs=self.sources.lengthscale.shape[-1], event_shape=())
        if data.batch_shape:
            raise ValueError(f"an ensemble is of one task; got rows of tasks of shape {tuple(data.batch_shape)}")
        rows = data.rows(data.mask) if self.rows is None else self.rows + data.rows(data.mask)
        if not len(rows.y):
            return self
        better = rows.y if self.maximize else -rows.y
        # in one order, so that draws do not depend on that of the rows
        order = better.argsort(descending=True, stable=True)
        order = order[some_rows(better[order], MAX_ROWS)]
        x, better = rows.x[order], better[order]
        level, spread = better.mean(), better.std(correction=0)
        spread = spread if spread > 0 else torch.ones_like(spread)
        target = plain_gp(x, (better - level) / spread, max_rows=MAX_ROWS)
        weights = self._judge(target, len(rows.y))
        return self._replace(rows=rows, target=target, weights=weights, level=float(level), spread=float(spread))

    def predict(self, x: Float[Tensor, "*tasks q d"]) -> Normal:
        """p(y | x) at each row, as if the noise of all processes were drawn apart."""
        return self._sum([each.predict(x.unsqueeze(-3)) for each in self._used()])

    def marginal(self, x: Float[Tensor, "*tasks q d"]) -> Normal:
        """p(f(x)) at each row, noise-free."""
        return self._sum([each.marginal(x.unsqueeze(-3)) for each in self._used()])

    def _judge(self, target: GaussianProcess, num_rows: int) -> Tensor:
        rows = cast(Data, target.rows)
        if len(rows.y) < 2:  # no pair to judge by
            return self.weights
        generator = torch.Generator().manual_seed(self.seed + num_rows)
        draws = _draws(self.sources, rows.x, generator).movedim(1, 0)
        losses = [misranked_pairs(each, each[:, None, :], rows.y) for each in draws]
        left_out = _draws(_without_each_row(target), rows.x, generator)
        losses.append(misranked_pairs(left_out.diagonal(dim1=-2, dim2=-1), left_out, rows.y))
        return ranking_weights(torch.stack(losses, -1), num_rows / self.horizon, generator=generator).to(self.weights)

    def _used(self) -> list[GaussianProcess]:
        """The processes that have weight, those of past tasks as one."""
        used = self.weights[:-1].nonzero()[:, 0]
        sources = [self.sources[used]] if len(used) else []
        return [*sources, self.target] if self.target is not None and self.weights[-1] > 0 else sources

    def _sum(self, each: list[Normal]) -> Normal:
        weights = self.weights[self.weights > 0][:, None]
        mean = (weights * torch.cat([f.mean for f in each], -2)).sum(-2)
        var = (weights * torch.cat([f.stddev for f in each], -2)).square().sum(-2)
        sign = 1.0 if self.maximize else -1.0
        return Normal(sign * (self.level + self.spread * mean), self.spread * var.sqrt())


@with_gradients
def fit_rgpe(space: SearchSpace, tasks: Data, direction: str, *, horizon: int = 100, seed: int = 0) -> TuningPrior:
    """A ranking-weighted ensemble of past tasks as a prior for tuning.

    Learning costs about a tenth of a second for each past task, and a suggestion a few milliseconds for each.

    Args:
        space: of all tasks.
        tasks: `x` encoded by `space`, `y` the objective in its own units; at least one task that varies.
        direction: of the objective.
        horizon: number of trials of a study, after which the past has no weight.
        seed: of the draws by which past tasks are judged.

    Raises:
        ValueError: no task has a target that varies, or `direction` is none.
    """
    past = varying_tasks(tasks, direction)
    every = [past[task] for task in range(len(past.y))]
    each = [plain_gp(task.x[task.mask], task.y[task.mask], max_rows=MAX_SOURCE_ROWS) for task in every]
    prior = GaussianProcess(
        torch.stack([process.lengthscale for process in each]),
        torch.stack([process.outputscale for process in each]),
        torch.stack([process.noise_var for process in each]),
        torch.stack([process.constant for process in each]),
    )
    rows = [cast(Data, process.rows) for process in each]
    functions = RankingWeightedEnsemble(
        prior.condition(Data.pad([(r.x, r.y) for r in rows])),
        torch.tensor([1.0 / len(each)] * len(each) + [0.0], dtype=torch.float64),
        direction == "maximize",
        horizon,
        seed,
        learned_from=LearnedFrom.counts(past.count),
    )
    suggester = OnePosterior(functions, scores=False)
    return TuningPrior(space, direction, suggester, starts_of(past), functions.learned_from)


def misranked_pairs(
    f: Float[Tensor, "*batch n"], others: Float[Tensor, "*batch #n n"], y: Float[Tensor, " n"]
) -> Float[Tensor, "*batch"]:
    """Number of ordered pairs (i, j) of which `f[i] < others[i, j]` says otherwise than `y[i] < y[j]`.

    Args:
        f: values of the rows.
        others: what row i is compared with; the same values for all i, or those of a draw that has not seen row i.
        y: targets.
    """
    return ((f[..., None] < others) != (y[:, None] < y)).sum((-2, -1)).to(y)


def ranking_weights(
    losses: Float[Tensor, "draws models"], elapsed: float, *, generator: Generator | None = None
) -> Float[Tensor, " models"]:
    """The share of draws in which each model has the least loss, of those that the guard against dilution keeps.

    Args:
        losses: the last model is that of the target, which is always kept.
        elapsed: share of the horizon that is over, which makes the guard stricter.
        generator: of which models are left out.
    """
    wins = (losses[:, :-1] < losses[:, -1:]).to(losses).mean(0)
    dropped = rand(wins.shape, like=wins, generator=generator) < 1.0 - max(1.0 - elapsed, 0.0) * wins
    kept = torch.cat([losses[:, :-1].masked_fill(dropped, torch.inf), losses[:, -1:]], -1)
    best = (kept == kept.amin(-1, keepdim=True)).to(losses)
    return (best / best.sum(-1, keepdim=True)).mean(0)


def _without_each_row(process: GaussianProcess) -> GaussianProcess:
    """A batch of n posteriors of the same prior, of which number i has not seen row i."""
    rows = cast(Data, process.rows)
    n = len(rows.y)
    others = ~torch.eye(n, dtype=torch.bool)
    prior = replace(process, rows=None, factor=None, residual=None)
    return prior.condition(Data(rows.x.expand(n, -1, -1), rows.y.expand(n, -1), others))


def _draws(process: GaussianProcess, x: Float[Tensor, "n d"], generator: Generator) -> Float[Tensor, "draws *batch n"]:
    """The process at all rows together."""
    joint = process.joint(x)
    jitter = JITTER * torch.eye(len(x)).to(x)
    factor = cholesky(joint.covariance_matrix + jitter, "covariance of rows given those of a past task")
    noise = randn((*joint.mean.shape, NUM_DRAWS), like=x, generator=generator)
    return (joint.mean[..., None] + factor @ noise).movedim(-1, 0)
