"""Regret on reward tables: a row is a task, a column an arm, and no arm is shown to a task twice.

Priors and orders are learned from past tasks, three quarters of all at random, and judged on new ones that know enough
of their rewards. Regret is the sum of a task's best rewards less the sum of those obtained; an arm whose reward the
table does not know is not available.

- `correlated`: `CorrelatedArms.fit`, the arm of the greatest expected reward; `correlated_thompson`, Thompson sampling.
- `independent_thompson`: the same without correlations; `means`: the order by past means, which is the greedy policy on
  it.
- `vague_thompson`: independent arms of the mean and variance of all rewards.
- `mabwiser_*`: MABWiser's policies, anew for each task as it knows no prior. What it has no reward of comes in random
  order.
- `random`.

A table is a NumPy archive with one matrix, or one named `ratings`, NaN where unknown, or a Parquet of (task, arm,
reward) whose most frequent arms are taken.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.progress import track
from torch import Generator, Tensor

import bandits
from bayesmeta import CorrelatedArms, Data
from benchmarks.priors import jester
from benchmarks.report import Figure

__all__ = ["BUDGETS", "METHODS", "TableBudget", "is_table", "read_table", "regret_on_table"]

ROUNDS = 25
MOST_ARMS = 150
PAST_SHARE = 0.75
NAMED = "ratings"

Play = Callable[["World"], Tensor]
Learn = Callable[[Data], CorrelatedArms]


@dataclass(frozen=True)
class TableBudget:
    """Splits into past and new tasks, and past and new tasks of each at most."""

    splits: int
    past: int
    new: int


BUDGETS = {"quick": TableBudget(1, 300, 12), "full": TableBudget(5, 10**6, 10**6)}


@dataclass(frozen=True)
class World:
    """Past tasks, and the rewards `(tasks, arms)` of new ones, NaN where unknown; and which rows of all these are."""

    past: Data
    table: Tensor
    rows: Tensor
    seed: int
    learned: dict[Learn, CorrelatedArms] = field(default_factory=dict)

    def prior(self, learn: "Learn") -> CorrelatedArms:
        """What `learn` learns from the past, once."""
        if learn not in self.learned:
            self.learned[learn] = learn(self.past)
        return self.learned[learn]


def is_table(path: Path) -> bool:
    """Whether an archive holds one matrix and nothing else, or a matrix that is named so."""
    with np.load(path) as arrays:
        return _matrix(arrays) is not None


def read_table(path: Path) -> Tensor:
    """Rewards `(tasks, arms)`, float64, NaN where unknown.

    Raises:
        ValueError: the file has no matrix, or not the three columns.
    """
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            matrix = _matrix(arrays)
        if matrix is None:
            raise ValueError(f"{path} must hold a matrix of tasks and arms, by the name of {NAMED} if there are others")
        return torch.from_numpy(matrix).double()
    frame = pl.read_parquet(path)
    if len(frame.columns) < 3:
        raise ValueError(f"{path} must have columns for task, arm and reward; it has {frame.columns}")
    task, arm, reward = frame.columns[:3]
    frequent = frame.group_by(arm).len().sort("len", arm, descending=[True, False]).head(MOST_ARMS)[arm]
    wide = frame.filter(pl.col(arm).is_in(frequent.implode())).pivot(arm, index=task, values=reward).sort(task)
    return torch.from_numpy(wide.drop(task).to_numpy()).double()


def _matrix(arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    names = list(arrays)
    name = NAMED if NAMED in names else names[0] if len(names) == 1 else None
    matrix = None if name is None else arrays[name]
    return matrix if matrix is not None and matrix.ndim == 2 and np.issubdtype(matrix.dtype, np.number) else None


def regret_on_table(
    name: str, table: Tensor, budget: TableBudget, methods: Sequence[str] | None = None, *, share: float = 1.0
) -> Iterator[Figure]:
    """`regret/<name>/<policy>`, the ratio to `means`, and standard errors of both between tasks.

    Args:
        share: of the past rewards that are kept.
    """
    chosen = [method for method in METHODS if methods is None or method in methods or method == "means"]
    regrets: dict[str, list[Tensor]] = {method: [] for method in chosen}
    rows: list[Tensor] = []
    for split in track(range(budget.splits), description=f"{name}, past and new tasks"):
        world = _split(table, budget, split, share)
        rows.append(world.rows)
        for method in chosen:
            regrets[method].append(_best(world.table) - METHODS[method](world))
    means, task = torch.cat(regrets["means"]), torch.cat(rows)
    for method in chosen:
        each = torch.cat(regrets[method])
        num = f"{len(task.unique())} tasks in {budget.splits} splits"
        yield Figure(f"regret/{name}/{method}", float(each.mean()), f"over {ROUNDS} rounds, {num}")
        yield Figure(f"regret_se/{name}/{method}", _error(each - each.mean(), task), "standard error, between tasks")
        ratio = each.mean() / means.mean()
        yield Figure(f"regret_ratio/{name}/{method}", float(ratio), "to the order by past means")
        ratio_error = _error((each - ratio * means) / means.mean(), task)
        yield Figure(f"regret_ratio_se/{name}/{method}", ratio_error, "standard error, paired")


def _error(influence: Tensor, task: Tensor) -> float:
    """Standard error of a mean, a task that is new in several splits counting once."""
    _, place = task.unique(return_inverse=True)
    total = influence.new_zeros(int(place.max()) + 1).index_add_(0, place, influence)
    return math.sqrt(float(total.square().sum())) / len(influence)


def _split(table: Tensor, budget: TableBudget, seed: int, share: float) -> World:
    generator = Generator().manual_seed(seed)
    order = torch.randperm(len(table), generator=generator)
    num_past = int(PAST_SHARE * len(table))
    past, rows = jester.as_tasks(table[order[:num_past][: budget.past]]), order[num_past:]
    new = table[rows]
    if share < 1.0:
        past = jester.thinned(past, share, generator)
    complete = ~new.isnan().any(-1)
    enough = complete if int(complete.sum()) >= 2 * ROUNDS else (~new.isnan()).sum(-1) >= 2 * ROUNDS
    return World(past, new[enough][: budget.new], rows[enough][: budget.new], seed)


def _best(table: Tensor) -> Tensor:
    return table.nan_to_num(nan=-torch.inf).sort(-1, descending=True).values[:, :ROUNDS].sum(-1)


def _total(policy: bandits.Policy, table: Tensor) -> Tensor:
    """What a policy for all tasks obtains."""
    every, left = torch.arange(len(table)), ~table.isnan()
    total = torch.zeros(len(table), dtype=torch.float64)
    for _ in range(ROUNDS):
        arm = policy.choose(available=left)
        reward = table[every, arm.arm]
        policy.update(arm, reward)
        total += reward
        left[every, arm.arm] = False
    return total


def _ours(learn: Learn, kind: Callable[..., bandits.Policy]) -> Play:
    def play(world: World) -> Tensor:
        arms = range(world.table.shape[1])
        policy = kind(world.prior(learn), arms, tasks=len(world.table), seed=world.seed, propensities=False)
        return _total(policy, world.table)

    return play


def _vague(past: Data) -> CorrelatedArms:
    rewards = past.y[past.mask]
    arms = past.mask.shape[-1]
    half = rewards.var() / 2.0
    return CorrelatedArms(
        torch.full((arms,), float(rewards.mean())).double(), half.sqrt() * torch.eye(arms).double(), half
    )


def _greedy(prior: Any, arms: Any, **options: Any) -> bandits.Policy:
    return bandits.EpsilonGreedy(prior, arms, epsilon=0.0, **options)


def _random(world: World) -> Tensor:
    arms = range(world.table.shape[1])
    policy = bandits.UniformlyRandom(arms, tasks=len(world.table), seed=world.seed, propensities=False)
    return _total(policy, world.table)


def _mabwiser(policy: str, **settings: Any) -> Play:
    """One of MABWiser's policies for each task, arms that it has no reward of in random order after their scores."""

    def play(world: World) -> Tensor:
        from mabwiser.mab import MAB, LearningPolicy

        rng = np.random.default_rng(world.seed)
        totals = []
        for row in track(world.table.numpy(), description=f"mabwiser {policy}", transient=True):
            left = {int(arm) for arm in np.flatnonzero(~np.isnan(row))}
            mab = MAB(sorted(left), getattr(LearningPolicy, policy)(**settings), seed=int(rng.integers(2**31)))
            total, first = 0.0, int(rng.choice(sorted(left)))
            for t in range(ROUNDS):
                if t:
                    scores = mab.predict_expectations()
                    tied = rng.permutation(sorted(left))
                    first = int(max(tied, key=lambda arm: scores[int(arm)]))
                (mab.partial_fit if t else mab.fit)([first], [row[first]])
                left.discard(first)
                total += row[first]
            totals.append(total)
        return torch.tensor(totals, dtype=torch.float64)

    return play


def _positive(arm: Any, reward: float) -> int:
    return int(reward > 0)


METHODS: dict[str, Play] = {
    "correlated": _ours(jester.METHODS["correlated"], _greedy),
    "correlated_thompson": _ours(jester.METHODS["correlated"], bandits.ThompsonSampling),
    "independent_thompson": _ours(jester.METHODS["independent"], bandits.ThompsonSampling),
    "means": _ours(jester.METHODS["independent"], _greedy),
    "vague_thompson": _ours(_vague, bandits.ThompsonSampling),
    "mabwiser_ucb1": _mabwiser("UCB1", alpha=1.0),
    "mabwiser_epsilon_greedy": _mabwiser("EpsilonGreedy", epsilon=0.1),
    "mabwiser_thompson": _mabwiser("ThompsonSampling", binarizer=_positive),
    "random": _random,
}
