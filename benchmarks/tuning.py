"""Does a learned prior tune better? Regret on held-out tasks by trial, beside the baselines, and CPU per suggestion.

    python -m benchmarks.tuning --budget quick|full --out FILE [--data DIR] [--methods default,gp,...]

Without --data the tasks are the project's own: the prior is learned from 31 data sets, and judged on 13 that were held
out by a fixed seed. With --data DIR, a folder in HPO-B's layout (one Parquet per search space: a column `dataset`,
columns in [0, 1], and `accuracy`), every task is held out in turn and the others of its space are the past.

Protocol `cold`: no given points; every method counts from its first evaluation, GP and TPE begin with five Sobol
points. Methods see raw values of what they chose, never the range of a task. Regret is (best - value)/(best - median)
on the project's tasks, and (best - value)/(best - worst) with --data, as is usual there.

`permuted` and `negated` are the default method with a past that says nothing (its targets permuted within each task)
or misleads (its targets negated): what a learned prior costs where it does not help.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import optuna
import polars as pl
import torch
from optuna.distributions import FloatDistribution
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bayesmeta import Data
from benchmarks.report import Figure, environment, write_json
from bo import MetaSampler, SearchSpace, TuningPrior
from bo.demo import LIVE, hold_out, interval, pools
from bo.replay import METHODS, Method, Pool, greedy_list, learned, regret
from bo.scratch import ScratchSampler

PACKAGES = ["bayesmeta", "torch", "gpytorch", "botorch", "optuna", "scikit-learn"]
# what a prior is told of its past: the truth, nothing, or the contrary
PASTS = ("default", "permuted", "negated")
ORDER = (*PASTS, "zero_shot", "gp", "tpe", "random")
TRIALS = (1, 3, 5, 10, 15, 25, 50)


@dataclass(frozen=True)
class Budget:
    """How much to run: tasks and spaces up to a number, seeds of methods that draw, trials of each run."""

    spaces: int
    tasks: int
    seeds: int
    trials: int


BUDGETS = {"quick": Budget(1, 4, 1, 8), "full": Budget(99, 99, 3, 25)}


@dataclass(frozen=True, eq=False)
class Case:
    """One held-out task and its past."""

    space: str
    task: str
    pool: Pool
    past: tuple[Pool, ...]
    shared: bool  # whether all tasks have the same configurations, which a list needs
    prior_of: str  # cases of one name have one past, and so one prior


def own_cases(budget: Budget) -> Iterator[Case]:
    """The project's tasks: one split per model."""
    # the middle model first: a quick run takes only that
    for model in ("boosting", "svc", "perceptron")[: budget.spaces]:
        every = pools(model)
        past, held_out = hold_out(list(every))
        for task in [*held_out, LIVE][: budget.tasks]:
            yield Case(model, task, every[task], tuple(every[name] for name in past), True, model)


def folder_cases(folder: Path, budget: Budget) -> Iterator[Case]:
    """A folder in HPO-B's layout: every task held out in turn."""
    files = sorted(folder.glob("*.parquet"))
    if not files:
        raise SystemExit(f"{folder} holds no search spaces; expected one Parquet per space, with dataset and accuracy")
    for file in files[: budget.spaces]:
        table = pl.read_parquet(file).with_columns(pl.col("dataset").cast(pl.String))
        missing = {"dataset", "accuracy"} - set(table.columns)
        if missing:
            raise SystemExit(f"{file} lacks the columns {sorted(missing)}; it has {table.columns}")
        names = [c for c in table.columns if c not in ("dataset", "accuracy")]
        space = SearchSpace({name: FloatDistribution(0.0, 1.0) for name in names})
        tasks = {str(k[0]): g for k, g in table.group_by("dataset", maintain_order=True)}
        found = {name: _pool(space, names, rows) for name, rows in tasks.items()}
        for task in list(found)[: budget.tasks]:
            past = tuple(pool for name, pool in found.items() if name != task)
            yield Case(file.stem, task, found[task], past, False, f"{file.stem} without {task}")


def learn(past: Sequence[Pool], story: str) -> TuningPrior:
    """The prior that `bayesmeta fit` would learn from the past tasks, or from a past made to say nothing or mislead."""
    generator = torch.Generator().manual_seed(0)

    def told(y: torch.Tensor) -> torch.Tensor:
        if story == "permuted":
            return y[torch.randperm(len(y), generator=generator)]
        return -y if story == "negated" else y

    return TuningPrior.fit(past[0].space, Data.pad([(pool.x, told(pool.y)) for pool in past]), "maximize")


def curve(pool: Pool, chosen: list[int], *, by_median: bool) -> list[float]:
    """Regret of the best so far after each trial."""
    if by_median:
        return regret(pool, chosen)
    best, worst = pool.y.max(), pool.y.min()
    return ((best - pool.y[chosen].cummax(0).values) / (best - worst)).tolist()


def play(case: Case, method: str, seeds: int, trials: int, prior: TuningPrior | None) -> list[list[float]]:
    """Regret curves of one method on one task, one per seed; methods that draw nothing run once."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    methods: dict[str, Method] = dict(METHODS)
    if prior is not None:
        methods[method] = learned(prior)
    if method == "zero_shot":
        methods["zero_shot"] = greedy_list(list(case.past))
    trials = min(trials, len(case.pool.y))
    draws = method in METHODS
    runs = [methods[method](case.pool, trials, seed) for seed in range(seeds if draws else 1)]
    return [curve(case.pool, chosen, by_median=case.shared) for chosen in runs]


def suggestion_cost(prior: TuningPrior, sizes: Sequence[int] = (25, 50)) -> list[Figure]:
    """CPU-seconds of one suggestion in a continuous space, ours and BoTorch's, with n finished trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = {
        "default": lambda: MetaSampler(prior, seed=0),
        "gp": lambda: ScratchSampler(prior.space, maximize=prior.direction == "maximize", seed=0),
    }
    figures = []
    for n in sizes:
        for method, make in samplers.items():
            study = optuna.create_study(direction=prior.direction, sampler=make())
            x = prior.space.sobol(n, generator=torch.Generator().manual_seed(0))
            for params, value in zip(prior.space.from_unit(x), (x - 0.4).square().sum(-1).neg().tolist(), strict=True):
                distributions = dict(prior.space.distributions)
                study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
            seconds = []
            for _ in range(5):
                start = time.process_time()
                trial = study.ask(dict(prior.space.distributions))
                seconds.append(time.process_time() - start)
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            cost = float(torch.tensor(seconds).median())
            figures.append(Figure(f"suggest_cpu_s/{method}/{n}", cost, f"CPU-s of a suggestion after {n} trials"))
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", choices=sorted(BUDGETS), default="quick")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    parser.add_argument("--data", type=Path, help="a folder in HPO-B's layout; none takes the project's own tasks")
    parser.add_argument("--methods", default=",".join(ORDER))
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    wanted = options.methods.split(",")
    if unknown := sorted(set(wanted) - set(ORDER)):
        parser.error(f"unknown methods {unknown}; there are {', '.join(ORDER)}")
    budget, console = BUDGETS[options.budget], Console()
    torch.set_num_threads(1)
    cases = list(folder_cases(options.data, budget) if options.data else own_cases(budget))
    results: dict[tuple[str, str, str], list[list[float]]] = {}
    priors: dict[tuple[str, str], TuningPrior] = {}
    workers = ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn"))
    with Progress(console=console) as progress, workers as pool:
        pasts = {case.prior_of: case.past for case in cases}
        stories = [story for story in PASTS if story in wanted]
        learning = {pool.submit(learn, pasts[name], story): (name, story) for name in pasts for story in stories}
        for done in progress.track(as_completed(learning), total=len(learning), description="learning priors"):
            priors[learning[done]] = done.result()
        playing = {
            pool.submit(play, case, method, budget.seeds, budget.trials, priors.get((case.prior_of, method))): (
                case,
                method,
            )
            for case in cases
            for method in wanted
            if method != "zero_shot" or case.shared
        }
        for done in progress.track(as_completed(playing), total=len(playing), description="playing"):
            case, method = playing[done]
            results[case.space, case.task, method] = done.result()
    figures, tables = summarise(results, wanted)
    if "default" in wanted:
        figures += suggestion_cost(next(prior for (_, story), prior in priors.items() if story == "default"))
    for table in tables:
        console.print(table)
    for figure in figures:
        if figure.name.startswith("suggest"):
            console.print(f"{figure.name}: {figure.value:.4f}")
    if options.out:
        curves = {"|".join(key): runs for key, runs in results.items()}
        write_json(options.out, figures, environment(PACKAGES), budget=options.budget, curves=curves)


def summarise(
    results: dict[tuple[str, str, str], list[list[float]]], methods: Sequence[str]
) -> tuple[list[Figure], list[Table]]:
    """Means over tasks per space with intervals clustered by task, and the mean over spaces."""
    figures, tables = [], []
    macro: dict[tuple[str, int], list[float]] = defaultdict(list)
    for space in sorted({key[0] for key in results}):
        tasks = sorted({key[1] for key in results if key[0] == space})
        title = f"{space}: regret, mean over {len(tasks)} held-out tasks [90% interval over tasks]"
        shown = [t for t in TRIALS if t <= max(len(runs[0]) for runs in results.values())]
        table = Table("method", *[f"trial {t}" for t in shown], title=title)
        for method in methods:
            if (space, tasks[0], method) not in results:
                continue
            # a pool that ran out of configurations has found its best: its last regret holds
            means = [_mean_curve(results[space, task, method]) for task in tasks]
            longest = max(map(len, means))
            grid = torch.stack([torch.cat([m, m[-1:].expand(longest - len(m))]) for m in means])
            low, high = interval(grid)
            cells = []
            for t in shown:
                if t > grid.shape[1]:  # a small pool has ended
                    cells.append("")
                    continue
                value = float(grid[:, t - 1].mean())
                macro[method, t].append(value)
                figures.append(Figure(f"cold/regret/{space}/{method}/{t}", value, f"regret after {t} trials"))
                cells.append(f"{value:.3f} [{low[t - 1]:.3f}, {high[t - 1]:.3f}]")
            table.add_row(method, *cells)
        tables.append(table)
    for (method, t), values in macro.items():
        figures.append(Figure(f"cold/macro/{method}/{t}", sum(values) / len(values), "mean over spaces"))
    return figures, tables


def _mean_curve(runs: list[list[float]]) -> torch.Tensor:
    return torch.tensor(runs, dtype=torch.float64).mean(0)


def _pool(space: SearchSpace, names: list[str], rows: pl.DataFrame) -> Pool:
    x = torch.tensor(rows.select(names).to_numpy(), dtype=torch.float64).clamp(0.0, 1.0)
    return Pool(space, rows.select(names).to_dicts(), x, torch.tensor(rows["accuracy"].to_numpy(), dtype=torch.float64))


if __name__ == "__main__":
    main()
