"""What a benchmark of tuning is run on: search spaces, their tasks as pools, and which tasks are the past of which."""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.tuning.layouts import Objective, Pools, find
from bo.replay.demo import LIVE, hold_out, pools
from bo.replay.pool import Pool, scaled_regret

__all__ = ["NUM_GIVEN", "Source", "Split", "digest", "given_rows", "load", "stable_seed"]

MODELS = ("boosting", "svc", "perceptron")  # of the project's own tables
MANY_TASKS = 40  # up to here, each task is held out alone
NUM_FOLDS = 5
NUM_GIVEN = 5


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
        objective: of the tables in the folder.
        split: "loto" leaves one task out, "5fold" a fifth of them; None takes folds where there are many tasks.
    """

    folder: Path | None = None
    objective: Objective = field(default_factory=Objective)
    split: str | None = None

    def spaces(self) -> list[str]:
        """Names of the search spaces.

        Raises:
            ValueError: the folder holds none.
        """
        return list(MODELS) if self.folder is None else list(self._readers)

    def splits(self, tasks: Sequence[str], num_judged: int) -> list[Split]:
        """Every task of a space is held out once, and the first `num_judged` of them are judged on.

        Of the project's own tasks, those are held out that a fixed seed chose before any method was tried.
        """
        if self.folder is None:
            past, held_out = hold_out(list(tasks))
            return [Split((*held_out, LIVE)[:num_judged], tuple(past))]
        folds: list[tuple[str, ...]] = [(task,) for task in tasks]
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
        """The tasks of a space whose target varies; where it does not, there is nothing to win."""
        found = pools(space) if self.folder is None else self._readers[space]()
        return {task: pool for task, pool in found.items() if bool(pool.y.max() > pool.y.min())}

    @cached_property
    def _readers(self) -> Mapping[str, Callable[[], Pools]]:
        return find(self.folder, self.objective) if self.folder else {}


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
