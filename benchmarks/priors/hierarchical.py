"""Real grouped data sets as tasks: what a prior learned from other tasks is worth on a task that was held out.

Tasks are split into folds. The prior of a fold is learned from the tasks of the others; of each held-out task half of
the rows, drawn at random, are shown, and the other half is scored, before and after. Beside the learned prior stand no
pooling, a vague prior updated by the task alone, and complete pooling, one model for all rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data, Hyperposterior, Statistics
from bayesmeta.checks.predictive_checks import TaskMean, coverage, log_score
from bayesmeta.random import rand

__all__ = ["DATA_SETS", "METHODS", "DataSet", "HeldOut", "efron_morris", "held_out", "james_stein", "split_rows"]

NUM_FOLDS = 5
METHODS = ("integrated", "learned", "no_pooling", "complete_pooling")


@dataclass(frozen=True)
class DataSet:
    """One table as tasks.

    Args:
        file: name of the Parquet file, without its ending.
        read: from the table to tasks.
        family: of the prior.
    """

    file: str
    read: Callable[[pl.DataFrame], Data]
    family: Any


@dataclass(frozen=True)
class HeldOut:
    """One method on one data set, by held-out task.

    Args:
        before: mean log predictive density of rows before any row of the task was seen.
        after: after half of its rows.
        coverage: of 90% intervals of those rows, after half.
    """

    before: TaskMean
    after: TaskMean
    coverage: TaskMean


def held_out(data: Data, family: Any, *, generator: torch.Generator) -> dict[str, HeldOut]:
    """Every method on every task, each predicted by priors that never saw it."""
    num_tasks = len(data.mask)
    fold = torch.randperm(num_tasks, generator=generator) % NUM_FOLDS
    seen, hidden = split_rows(data, generator)
    scores = {name: torch.full((3, num_tasks), torch.nan, dtype=torch.float64) for name in METHODS}
    for k in range(NUM_FOLDS):
        past, now = data[fold != k], fold == k
        for name, prior in _priors(family, past, generator).items():
            posterior = prior.condition(seen[now])
            scores[name][0, now] = log_score(prior, hidden[now]).by_task
            scores[name][1, now] = log_score(posterior, hidden[now]).by_task
            inside = coverage(posterior, hidden[now], num_draws=99, generator=generator)
            scores[name][2, now] = inside.by_task
    return {name: HeldOut(*(TaskMean(row) for row in rows)) for name, rows in scores.items()}


def _priors(family: Any, past: Data, generator: torch.Generator) -> dict[str, Any]:
    initial = family.initial(past)
    integrated = Hyperposterior.fit(initial, past, num_draws=400, generator=generator)
    return {
        "integrated": integrated.marginal(50, generator=generator),
        "learned": initial.fit(past),
        "no_pooling": initial,
        "complete_pooling": initial.condition(_pooled(past)),
    }


def _pooled(data: Data) -> Data:
    """All rows as those of one task."""
    return Data.of(data.x[data.mask], data.y[data.mask], event_dim=0)


def split_rows(data: Data, generator: torch.Generator) -> tuple[Data, Data]:
    """Half of each task's rows at random, rounded down, and the others."""
    order = rand(data.mask.shape, like=torch.zeros((), dtype=torch.float64), generator=generator)
    rank = order.masked_fill(~data.mask, torch.inf).argsort(-1).argsort(-1)
    first = (rank < data.count[..., None] // 2) & data.mask
    return Data(data.x, data.y, first), Data(data.x, data.y, data.mask & ~first)


def james_stein(y: Tensor, var: float) -> Tensor:
    """Estimates shrunk towards their mean by the positive part of Efron and Morris's factor, for more than three.

    Source: Efron and Morris, Data analysis using Stein's estimator (1975), equation 2.5.
    """
    spread = (y - y.mean()).square().sum()
    return y.mean() + (1.0 - (len(y) - 3) * var / spread).clamp(min=0.0) * (y - y.mean())


def efron_morris(table: pl.DataFrame) -> dict[str, float]:
    """Total squared error of the batting averages of 18 players over the rest of the season, from 45 times at bat."""
    hits, rest = (torch.tensor(table[name].to_list(), dtype=torch.float64) for name in ("r", "p"))
    at_bat = torch.full_like(hits, 45.0)
    mean = hits / at_bat
    # statistics of 45 rows of zeros and ones
    stats = Statistics(at_bat, mean[:, None], torch.zeros(len(hits), 1).double(), None)
    initial = bm.BetaBernoulli.initial(stats)
    marginal = Hyperposterior.fit(initial, stats, generator=torch.Generator().manual_seed(0)).marginal()
    estimates = {
        "no_pooling": mean,
        "complete_pooling": mean.mean().expand_as(mean),
        "james_stein": james_stein(mean, float(mean.mean() * (1.0 - mean.mean()) / 45.0)),
        "learned": _mean_of(initial.fit(stats).condition(stats)),
        "integrated": _mean_of(marginal.condition(stats)),
    }
    return {name: float((estimate - rest).square().sum()) for name, estimate in estimates.items()}


def _mean_of(posterior: Any) -> Tensor:
    return posterior.predict(torch.zeros(*posterior.batch_shape, 1, 0).double()).mean[..., 0]


def _regression(task: str | list[str], target: str, inputs: list[str]) -> Callable[[pl.DataFrame], Data]:
    """An intercept and `inputs`."""

    def read(table: pl.DataFrame) -> Data:
        return _tasks(table.with_columns(pl.lit(1.0).alias("(intercept)")), task, target, ["(intercept)", *inputs])

    return read


def _tasks(table: pl.DataFrame, task: str | list[str], target: str, inputs: list[str]) -> Data:
    table = table.drop_nulls([target, *inputs])
    groups = [g for _, g in sorted(table.group_by(task), key=lambda pair: tuple(map(str, pair[0])))]
    return Data.pad([(g.select(inputs).to_numpy().astype(float), g[target].to_numpy().astype(float)) for g in groups])


def _animals(table: pl.DataFrame) -> Data:
    return Data.pad([(None, (np.arange(n) < y).astype(float)) for y, n in table.select("y", "n").rows()])


def _home_runs(table: pl.DataFrame) -> Data:
    """Seasons of players at bat, with two seasons or more: home runs over times at bat."""
    seasons = table.group_by("playerID", "yearID").agg(pl.col("AB", "HR").sum()).filter(pl.col("AB") > 0)
    several = seasons.filter(pl.len().over("playerID") > 1)
    return _tasks(several, "playerID", "HR", ["AB"])


DATA_SETS = {
    "rat_tumours": DataSet("bda_rat_tumour", _animals, bm.BetaBernoulli),
    "sleepstudy": DataSet("lme4_sleepstudy", _regression("Subject", "Reaction", ["Days"]), bm.LinearNormalInverseGamma),
    "radon": DataSet("HLMdiag_radon", _regression("county", "log.radon", ["basement"]), bm.LinearNormalInverseGamma),
    "exam": DataSet("mlmRev_Exam", _regression("school", "normexam", ["standLRT"]), bm.LinearNormalInverseGamma),
    "hsb82": DataSet("mlmRev_Hsb82", _regression("school", "mAch", ["cses"]), bm.LinearNormalInverseGamma),
    "chem97": DataSet(
        "mlmRev_Chem97", _regression(["lea", "school"], "score", ["gcsecnt"]), bm.LinearNormalInverseGamma
    ),
    "home_runs": DataSet("lahman_batting", _home_runs, bm.GammaPoisson),
}
