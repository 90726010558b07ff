"""Runs of tuning methods on held-out tasks: in worker processes, each kept in a file as soon as it is finished.

The file is JSON lines: first the settings that all runs share, then a run a line. A run is done when the file has it
with as many trials as are wanted, so whatever ends a benchmark costs the runs in flight and no others.
"""

import json
import multiprocessing
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import torch

from bayesmeta.io import write_whole
from benchmarks.tuning.data import NUM_GIVEN, Source, digest, given_rows, load, stable_seed
from benchmarks.tuning.methods import BASELINES, DRAW_NOTHING, LEARNED
from bo.replay.pool import Pool

__all__ = ["Failure", "Job", "Journal", "Key", "Plan", "Run", "make_jobs", "play", "play_all"]

Key = tuple[str, str, str, int | None]  # space, task, method, seed
# rough seconds, to start what takes long first
SECONDS_PER_TRIAL = {"gp": 0.05, "gpsampler": 0.1}
SECONDS_PER_LEARNED_TRIAL, SECONDS_TO_LEARN = 0.05, 20.0


@dataclass(frozen=True)
class Run:
    """One method on one task.

    Args:
        seed: None where the method draws nothing and no rows are given: one run stands for all seeds.
        table: digest of the task's table.
        chosen: indices in the pool, without the rows given.
        regret: of the best so far; the first is that of the given rows, where rows are given.
        cpu_s: CPU-seconds of all trials; what a method learns before it sees the task is not among them.
    """

    space: str
    task: str
    method: str
    seed: int | None
    table: str
    chosen: list[int]
    regret: list[float]
    cpu_s: float

    @property
    def key(self) -> Key:
        return self.space, self.task, self.method, self.seed


@dataclass(frozen=True)
class Plan:
    """What all runs share: the tables, whether rows are given, and the number of trials."""

    source: Source
    given: bool
    trials: int

    def given_rows(self, space: str, task: str, seed: int, pool: Pool) -> list[int]:
        return given_rows(space, task, seed, len(pool.y)) if self.given else []

    def num_trials(self, pool: Pool) -> int:
        """As many as are wanted, or as the pool has."""
        return max(min(self.trials, len(pool.y) - (NUM_GIVEN if self.given else 0)), 0)


@dataclass(frozen=True)
class Job:
    """Runs of one method in one space that share one past, which is learned once."""

    plan: Plan
    past: tuple[str, ...]
    runs: tuple[Key, ...]

    @property
    def method(self) -> str:
        return self.runs[0][2]

    @property
    def seconds(self) -> float:
        """What it may take."""
        num_trials = self.plan.trials * len(self.runs)
        if self.method in LEARNED:
            return SECONDS_TO_LEARN + SECONDS_PER_LEARNED_TRIAL * num_trials
        return SECONDS_PER_TRIAL.get(self.method, 0.01) * num_trials


@dataclass(frozen=True)
class Failure:
    """A job that raised."""

    job: Job
    reason: str


def make_jobs(
    plan: Plan, space: str, methods: Sequence[str], seeds: Sequence[int], num_judged: int, done: Mapping[Key, Run]
) -> tuple[list[Job], list[Key]]:
    """What is still to be run in one space, and the keys of all runs that are wanted, also those that are done.

    Raises:
        ValueError: the space has not two tasks.
    """
    pools = load(plan.source, space)
    if len(pools) < 2:
        raise ValueError(f"{space} needs two tasks or more whose target varies, one to judge on; got {len(pools)}")

    def is_done(key: Key) -> bool:
        run, pool = done.get(key), pools[key[1]]
        return run is not None and run.table == digest(pool) and len(run.chosen) >= plan.num_trials(pool)

    jobs, keys = [], []
    for split in plan.source.splits(list(pools), num_judged):
        for method in methods:
            every_seed = [None] if method in DRAW_NOTHING and not plan.given else seeds
            wanted = [(space, task, method, seed) for task in split.held_out for seed in every_seed]
            keys += wanted
            left = tuple(key for key in wanted if not is_done(key))
            if method in LEARNED:
                jobs += [Job(plan, split.past, left)] if left else []
            else:
                jobs += [Job(plan, (), (key,)) for key in left]
    return jobs, keys


def play(job: Job) -> Iterator[Run]:
    """The runs of a job, one after another.

    Raises:
        RuntimeError: the method chose a configuration twice, one that was given, or too few.
    """
    plan, space = job.plan, job.runs[0][0]
    pools = load(plan.source, space)
    if job.method in LEARNED:
        past = [pools[name] for name in job.past]
        method = LEARNED[job.method](past, past[0].space)
    else:
        method = BASELINES[job.method]
    for _, task, _, seed in job.runs:
        pool = pools[task]
        given, num_trials = plan.given_rows(space, task, seed or 0, pool), plan.num_trials(pool)
        start = time.process_time()
        chosen = method(pool, given, num_trials, stable_seed(space, task, seed or 0))
        cpu_s = time.process_time() - start
        if len(set(given + chosen)) != len(given) + num_trials or len(chosen) != num_trials:
            raise RuntimeError(f"{job.method} must choose {num_trials} new configurations of {task}; got {chosen}")
        best = pool.y[given + chosen].cummax(0).values[max(len(given) - 1, 0) :]
        regret = plan.source.regret(pool, best).tolist()
        yield Run(space, task, job.method, seed, digest(pool), chosen, regret, cpu_s)


def play_all(jobs: Iterable[Job], num_processes: int) -> Iterator[Run | Failure]:
    """Runs of all jobs as they finish, the longest jobs begun first; one process is this one."""
    ordered = sorted(jobs, key=lambda job: -job.seconds)
    if num_processes == 1:
        _one_thread()
        for job in ordered:
            yield from _attempt(job)
    else:
        yield from _in_processes(ordered, min(num_processes, len(ordered)))


class Journal:
    """Finished runs, in a file where there is one.

    Args:
        file: of JSON lines; None keeps runs in memory.
        settings: that all runs in the file share.

    Raises:
        ValueError: the file is of other settings.
    """

    def __init__(self, file: Path | None, settings: Mapping[str, Any], redo: Sequence[str] = ()) -> None:
        self._file = file
        self.runs: dict[Key, Run] = {}
        if file is None:
            return
        lines = _readable(file.read_text().splitlines()) if file.exists() else []
        if lines and lines[0] != dict(settings):
            raise ValueError(f"{file} holds runs of {lines[0]}, not of {dict(settings)}; give another --out")
        kept = [Run(**line) for line in lines[1:] if line["method"] not in redo]
        self.runs = {run.key: run for run in kept}
        # written anew, for its last line may be half of one
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = [json.dumps(dict(settings)), *(json.dumps(asdict(run)) for run in self.runs.values())]
        write_whole(file, ("\n".join(whole) + "\n").encode())

    def add(self, run: Run) -> None:
        self.runs[run.key] = run
        if self._file is not None:
            with self._file.open("a") as file:
                file.write(json.dumps(asdict(run)) + "\n")


def _readable(lines: Sequence[str]) -> list[dict[str, Any]]:
    """All lines, but for a last one that was cut short."""
    found = [json.loads(line) for line in lines[:-1]]
    try:
        return [*found, json.loads(lines[-1])] if lines else []
    except json.JSONDecodeError:
        return found


def _attempt(job: Job) -> Iterator[Run | Failure]:
    try:
        yield from play(job)
    except Exception:
        yield Failure(job, traceback.format_exc())


def _in_processes(jobs: Sequence[Job], num: int) -> Iterator[Run | Failure]:
    context = multiprocessing.get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for job in [*jobs, *[None] * num]:
        todo.put(job)
    # daemons end with this process, also where it is interrupted
    workers = [context.Process(target=_work, args=(todo, done), daemon=True) for _ in range(num)]
    for worker in workers:
        worker.start()
    try:
        yield from _results(done, workers)
    finally:
        for worker in workers:
            worker.terminate()


def _results(done: Any, workers: Sequence[Any]) -> Iterator[Run | Failure]:
    """What workers send until each has sent None.

    Raises:
        RuntimeError: one died before that.
    """
    working = len(workers)
    while working:
        try:
            result = done.get(timeout=5.0)
        except queue.Empty:
            if dead := [worker for worker in workers if worker.exitcode not in (None, 0)]:
                raise RuntimeError(f"a worker process died with exit code {dead[0].exitcode}; start again") from None
            continue
        if result is None:
            working -= 1
        else:
            yield result


def _work(todo: Any, done: Any) -> None:
    """A worker process: jobs until there are none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _one_thread()
    for job in iter(todo.get, None):
        for result in _attempt(job):
            done.put(result)
    done.put(None)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _one_thread() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
