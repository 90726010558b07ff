"""The demonstration: learn from past tuning tasks, then tune on data sets that none of them used.

Two experiments. *Live*: gradient boosting is tuned on scikit-learn's digits, every trial really fitted, by four
methods of 15 trials each. *Replay*: the same methods choose among the configurations of the shipped table, on the data
sets that were held out, five seeds each. Held-out data sets never reach the prior.
"""

import json
import multiprocessing
import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import bayesmeta
from bayesmeta.datasets import load_tuning_tasks
from bayesmeta.datasets.sklearn_tuning import PROBLEMS, SEED, cross_validate, make_folds, subsample
from bo.prior import TuningPrior
from bo.replay import METHODS, Method, Pool, learned, regret
from bo.sampler import MetaSampler
from bo.scratch import NUM_INITIAL, ScratchSampler
from bo.space import SearchSpace

__all__ = ["Budget", "hold_out", "pools", "run"]

MODEL = "boosting"
LIVE = "digits"
NUM_HELD_OUT = 12
NAMES = ("learned", "gp", "tpe", "random")

Curves = dict[str, dict[str, list[list[float]]]]  # data set -> method -> seed -> regret after each trial


@dataclass(frozen=True)
class Budget:
    """How much to run: `full` is what the README shows, `quick` a check that all of it works."""

    trials: int = 15
    seeds: int = 5
    data_sets: int = NUM_HELD_OUT

    @classmethod
    def named(cls, name: str) -> "Budget":
        budgets = {"full": cls(), "quick": cls(trials=8, seeds=1, data_sets=8)}
        if name not in budgets:
            raise ValueError(f"budget must be one of {', '.join(budgets)}; got {name!r}")
        return budgets[name]


def pools(model: str) -> dict[str, Pool]:
    """The shipped tasks of one model; the objective is minus the balanced log-loss."""
    space = SearchSpace(PROBLEMS[model].space)
    found = {}
    for (task,), rows in load_tuning_tasks(model).group_by("task", maintain_order=True):
        params = rows.select(*space.names).to_dicts()
        found[str(task)] = Pool(space, params, space.to_unit(params), -torch.tensor(rows["log_loss"].to_numpy()))
    return found


def hold_out(tasks: list[str], live: str = LIVE, num: int = NUM_HELD_OUT) -> tuple[list[str], list[str]]:
    """Past and held-out data sets: drawn once, by a fixed seed, before any method was tried on them."""
    names = sorted(set(tasks) - {live})
    held_out = sorted(random.Random(0).sample(names, num))
    return [name for name in names if name not in held_out], held_out


def learn_prior(model: str, past: list[str]) -> TuningPrior:
    """A prior from the past tasks of the shipped table alone."""
    import polars as pl

    space = SearchSpace(PROBLEMS[model].space)
    table = load_tuning_tasks(model).filter(pl.col("task").is_in(past)).select("task", *space.names, "log_loss")
    return TuningPrior.from_table(table, task="task", target="log_loss", direction="minimize", space=space)


def run(out: Path, budget: Budget, console: Console, *, jobs: int | None = None) -> dict[str, Any]:
    """Run both experiments; write `prior.safetensors`, `demo.json` and `demo.png` under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    every = pools(MODEL)
    past, held_out = hold_out(list(every))
    held_out = held_out[: budget.data_sets]
    with console.status(f"learning a prior from {len(past)} past tasks"):
        prior = learn_prior(MODEL, past)
        bayesmeta.save(prior, out / "prior.safetensors")
    console.print(f"learned from {len(past)} tasks, {prior.learned_from.rows if prior.learned_from else 0} trials")
    curves: Curves = {LIVE: {}, **{name: {} for name in held_out}}
    work: list[tuple[str, str, int]] = [(LIVE, method, 0) for method in NAMES]
    work += [(name, method, seed) for name in held_out for method in NAMES for seed in range(budget.seeds)]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread per worker, scikit-learn's as well
    workers = ProcessPoolExecutor(jobs or os.cpu_count() or 1, mp_context=multiprocessing.get_context("spawn"))
    with Progress(console=console) as progress, workers as pool:
        bar = progress.add_task("tuning", total=len(work))
        futures = {pool.submit(_play, *job, budget.trials, prior): job for job in work}
        done: dict[tuple[str, str, int], list[float]] = {}
        for future in as_completed(futures):
            done[futures[future]] = future.result()
            progress.advance(bar)
    for name, method, seed in work:
        curves[name].setdefault(method, []).append(done[name, method, seed])
    result = {"model": MODEL, "live": LIVE, "past": past, "trials": budget.trials, "data sets": curves}
    (out / "demo.json").write_text(json.dumps(result, indent=1) + "\n")
    console.print(_table(curves, budget.trials))
    plot(curves, out / "demo.png")
    console.print(f"wrote {out / 'demo.json'}, {out / 'demo.png'} and {out / 'prior.safetensors'}")
    return result


def plot(curves: Curves, path: Path) -> None:
    """Mean regret over data sets by trial, with 90% intervals over data sets; and the live study."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = dict(zip(NAMES, ("#0b6e4f", "#c84630", "#4062bb", "#8a8a8a"), strict=True))
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    replayed = {name: by_method for name, by_method in curves.items() if name != LIVE}
    for method in NAMES:
        means = torch.tensor([by_method[method] for by_method in replayed.values()]).mean(1)
        trials = range(1, means.shape[1] + 1)
        left.plot(trials, means.mean(0), color=colours[method], label=method, lw=2)
        low, high = interval(means)
        left.fill_between(trials, low, high, color=colours[method], alpha=0.12, lw=0)
        right.plot(trials, torch.tensor(curves[LIVE][method]).mean(0), color=colours[method], label=method, lw=2)
    left.set(title=f"{len(replayed)} held-out data sets, replayed", xlabel="trials", ylabel="regret (0 best, 1 median)")
    right.set(title=f"{LIVE}: every trial fitted", xlabel="trials", ylabel="regret")
    for axes in (left, right):
        axes.set_ylim(-0.02, 1.0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    fig.savefig(path, dpi=130)
    plt.close(fig)


def interval(means: torch.Tensor, level: float = 0.9) -> tuple[torch.Tensor, torch.Tensor]:
    """Bootstrap interval of the mean over data sets; `means` is `(data sets, trials)`."""
    index = torch.randint(len(means), (2000, len(means)), generator=torch.Generator().manual_seed(0))
    resampled = means[index].mean(1)
    tail = (1.0 - level) / 2.0
    return resampled.quantile(tail, 0), resampled.quantile(1.0 - tail, 0)


def _table(curves: Curves, num_trials: int) -> Table:
    table = Table(title="regret, mean over held-out data sets [90% interval over data sets]")
    table.add_column("method")
    at = [t for t in (1, 3, 5, 10, 15) if t <= num_trials]
    for t in at:
        table.add_column(f"trial {t}", justify="right")
    replayed = [by_method for name, by_method in curves.items() if name != LIVE]
    for method in NAMES:
        means = torch.tensor([by_method[method] for by_method in replayed]).mean(1)
        low, high = interval(means)
        cells = [f"{means[:, t - 1].mean():.3f} [{low[t - 1]:.3f}, {high[t - 1]:.3f}]" for t in at]
        table.add_row(method, *cells)
    table.add_section()
    for method in NAMES:
        curve = torch.tensor(curves[LIVE][method]).mean(0)
        table.add_row(f"{method}, live on {LIVE}", *[f"{curve[t - 1]:.3f}" for t in at])
    return table


def _play(data_set: str, method: str, seed: int, num_trials: int, prior: TuningPrior) -> list[float]:
    """One run of one method, in a worker process."""
    torch.set_num_threads(1)
    pool = pools(MODEL)[data_set]
    if data_set == LIVE:
        return _tune_live(pool, method, seed, num_trials, prior)
    play: Method = learned(prior) if method == "learned" else METHODS[method]
    return regret(pool, play(pool, num_trials, seed))


def _tune_live(pool: Pool, method: str, seed: int, num_trials: int, prior: TuningPrior) -> list[float]:
    """A study in which every trial fits the model; regret is on the scale of the table of the same data set."""
    import optuna
    from sklearn.datasets import load_digits

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    problem = PROBLEMS[MODEL]
    digits = load_digits(as_frame=True)
    folds = make_folds(*subsample(digits.data, digits.target.to_numpy(), seed=SEED), problem.scalings, seed=SEED)
    samplers: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "learned": lambda: MetaSampler(prior, seed=seed),
        "gp": lambda: ScratchSampler(pool.space, maximize=False, seed=seed),
        "tpe": lambda: optuna.samplers.TPESampler(n_startup_trials=NUM_INITIAL, seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    study = optuna.create_study(direction="minimize", sampler=samplers[method]())
    if method == "tpe":
        for params in pool.space.from_unit(
            pool.space.sobol(NUM_INITIAL, generator=torch.Generator().manual_seed(seed))
        ):
            study.enqueue_trial(params)
    losses = []
    for _ in range(num_trials):
        trial = study.ask(problem.space)
        loss, _ = cross_validate(problem, trial.params, folds, seed=SEED)
        study.tell(trial, loss)
        losses.append(loss)
    best, median = pool.y.max(), pool.y.quantile(0.5)
    value = -torch.tensor(losses, dtype=torch.float64).cummin(0).values
    return [float(v) for v in (best - value) / (best - median)]
