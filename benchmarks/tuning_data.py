"""Search spaces for a benchmark of tuning: finished tables read as pools, and which tasks are the past of which.

Without a folder the tasks are the project's own. A folder may hold, recognised by content and not by name:

- **a table per space**, `SPACE.parquet`: a column `dataset`, parameters in [0, 1], and a target, `accuracy` unless it
  is named. Each task has configurations of its own. This is HPO-B's layout.

Rows without a finite target are left out, and so are tasks whose target does not vary, where there is nothing to win.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import polars as pl
import torch
from optuna.distributions import FloatDistribution
from torch import Tensor

from bo import SearchSpace
from bo.demo import LIVE, hold_out, pools
from bo.replay import Pool, scaled_regret

__all__ = ["NUM_GIVEN", "Source", "Split", "digest", "given_rows", "load", "stable_seed"]

MODELS = ("boosting", "svc", "perceptron")  # of the project's own tables
MINIMISED = {"error", "log_loss", "logloss", "val_cross_entropy"}  # targets that are minimised unless told otherwise
MANY_TASKS = 40  # up to here each task is held out alone
NUM_FOLDS = 5
NUM_GIVEN = 5

Pools = dict[str, Pool]


@dataclass(frozen=True)
class Split:
    """Tasks to judge on, and the tasks that their prior is learned from."""

    held_out: tuple[str, ...]
    past: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where search spaces come from.

    Args:
        folder: of tables, or None for the project's own tasks.
        target: the column or array of the objective, None for the usual one of the layout.
        direction: "minimize" or "maximize"; None decides by the name of the target.
        split: "loto" leaves one task out, "5fold" a fifth of them; None takes folds where there are many tasks.
    """

    folder: Path | None = None
    target: str | None = None
    direction: str | None = None
    split: str | None = None

    def spaces(self) -> list[str]:
        """Names of the search spaces.

        Raises:
            ValueError: the folder holds none.
        """
        return list(MODELS) if self.folder is None else list(self._readers())

    def splits(self, tasks: Sequence[str], num_judged: int) -> list[Split]:
        """Every task of a space is held out once, and the first `num_judged` of them are judged on.

        Of the project's own tasks, those are held out that a fixed seed chose before any method was tried.
        """
        if self.folder is None:
            past, held_out = hold_out(list(tasks))
            return [Split((*held_out, LIVE)[:num_judged], tuple(past))]
        folds = [(task,) for task in tasks]
        if self.split == "5fold" or (self.split is None and len(tasks) > MANY_TASKS):
            order = random.Random(0).sample(list(tasks), len(tasks))
            folds = [tuple(order[start::NUM_FOLDS]) for start in range(NUM_FOLDS)]
        judged = set(tasks[:num_judged])
        splits = [
            Split(tuple(t for t in fold if t in judged), tuple(t for t in tasks if t not in fold)) for fold in folds
        ]
        return [split for split in splits if split.held_out]

    def regret(self, pool: Pool, value: Tensor) -> Tensor:
        """(best - value) / (best - worst); on the project's own tasks the median stands for the worst."""
        if self.folder is None:
            return scaled_regret(pool, value)
        best, worst = pool.y.max(), pool.y.min()
        return (best - value) / (best - worst)

    def read(self, space: str) -> Pools:
        found = pools(space) if self.folder is None else self._readers()[space]()
        return {task: pool for task, pool in found.items() if bool(pool.y.max() > pool.y.min())}

    def _readers(self) -> Mapping[str, Callable[[], Pools]]:
        assert self.folder is not None
        readers: dict[str, Callable[[], Pools]] = {}
        for file in sorted(self.folder.glob("*.parquet")):
            if "dataset" in pl.read_parquet_schema(file):
                readers[file.stem] = lambda file=file: self._table_per_space(file)
        if not readers:
            raise ValueError(f"{self.folder} holds no search spaces in a layout that is known; see --help for those")
        return readers

    def _table_per_space(self, file: Path) -> Pools:
        target = self.target or "accuracy"
        table = pl.read_parquet(file).with_columns(pl.col("dataset").cast(pl.String))
        names = [c for c in table.columns if c not in ("dataset", target)]
        if target not in table.columns:
            raise ValueError(f"{file} has no column {target!r}; its columns are {', '.join(table.columns)}")
        space = SearchSpace({name: FloatDistribution(0.0, 1.0) for name in names})
        sign = self._sign(target)
        found = {}
        for (task,), rows in table.filter(pl.col(target).is_finite()).group_by("dataset", maintain_order=True):
            rows = rows.with_columns(pl.col(names).cast(pl.Float64).clip(0.0, 1.0))
            x = torch.tensor(rows.select(names).to_numpy(), dtype=torch.float64)
            y = sign * torch.tensor(rows[target].to_numpy(), dtype=torch.float64)
            found[str(task)] = Pool(space, rows.select(names).to_dicts(), x, y)
        return found

    def _sign(self, target: str) -> float:
        direction = self.direction or ("minimize" if target in MINIMISED else "maximize")
        return -1.0 if direction == "minimize" else 1.0


@lru_cache(maxsize=1)
def load(source: Source, space: str) -> Pools:
    """The tasks of one space; one space at a time stays in memory."""
    return source.read(space)


def stable_seed(space: str, task: str, seed: int) -> int:
    """A seed of 31 bits that depends on nothing else: not on the process, the order of runs or other tasks."""
    return int.from_bytes(hashlib.sha256(f"{space}/{task}/{seed}".encode()).digest()[:4]) >> 1


def given_rows(space: str, task: str, seed: int, num_rows: int) -> list[int]:
    """The initial rows of a task, the same for every method."""
    generator = torch.Generator().manual_seed(stable_seed(space, task, seed))
    return torch.randperm(num_rows, generator=generator)[:NUM_GIVEN].tolist()


def digest(pool: Pool) -> str:
    """Of the rows of a task, so that runs on another table are not taken for runs on this one."""
    return hashlib.sha256(pool.x.numpy().tobytes() + pool.y.numpy().tobytes()).hexdigest()[:12]
