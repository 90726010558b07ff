"""The demonstration: learn from past tuning tasks, then tune on data sets that none of them used.

Two experiments. *Live*: gradient boosting is tuned on scikit-learn's digits, every trial really fitted, by four
methods of 15 trials each. *Replay*: the same methods choose among the configurations of the shipped table, on the data
sets that were held out, five seeds each. Held-out data sets never reach the prior.
"""

import hashlib
import importlib.util
import json
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bayesmeta.datasets import load_tuning_tasks
from bayesmeta.datasets.sklearn_tuning import PROBLEMS, SEED, cross_validate, make_folds, subsample
from bayesmeta.io import folder, save, write_whole
from bo.priors.tuning_prior import TuningPrior
from bo.replay.methods import METHODS, learned
from bo.replay.pool import Method, Pool, regret, scaled_regret
from bo.samplers.from_scratch import ScratchSampler
from bo.samplers.meta import MetaSampler
from bo.single_study.baseline import NUM_INITIAL
from bo.space.search_space import SearchSpace

__all__ = ["Budget", "hold_out", "pools", "run"]

MODEL = "boosting"
LIVE = "digits"
NUM_HELD_OUT = 12
NAMES = ("learned", "gp", "tpe", "random")
HARMLESS_FACTOR, HARMLESS_SLACK = 1.1, 0.003  # regret at the end, compared with that of a GP from scratch

Job = tuple[str, str, int]  # data set, method, seed
Curve = list[float]  # regret after each trial
Curves = dict[str, dict[str, list[Curve]]]  # data set -> method -> one curve per seed


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


@cache
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
    """Run both experiments; write `prior.safetensors`, `demo.json` and `demo.png` under `out`.

    Raises:
        ModuleNotFoundError: scikit-learn or pandas is missing, which the live study needs.
    """
    for name in ("sklearn", "pandas"):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"the demo fits real models and needs {name}: pip install 'bayesmeta[demo]'")
    folder(out)
    every = pools(MODEL)
    past, held_out = hold_out(list(every))
    held_out = held_out[: budget.data_sets]
    with console.status(f"learning a prior from {len(past)} past tasks"):
        prior = learn_prior(MODEL, past)
        save(prior, out / "prior.safetensors")
    rows = sum(len(every[name].y) for name in past)
    console.print(f"learned a prior for {MODEL} from {len(past)} tasks, {rows} trials")
    work: list[Job] = [(LIVE, method, 0) for method in NAMES]
    work += [(name, method, seed) for name in held_out for method in NAMES for seed in range(budget.seeds)]
    curves: Curves = {name: {method: [] for method in NAMES} for name in (LIVE, *held_out)}
    for (name, method, _), curve in zip(work, _play_all(work, budget.trials, prior, console, jobs), strict=True):
        curves[name][method].append(curve)
    result = {"model": MODEL, "live": LIVE, "past": past, "trials": budget.trials, "data sets": curves}
    write_whole(out / "demo.json", (json.dumps(result, indent=1) + "\n").encode())
    plot(curves, out / "demo.png")
    for table in _tables(curves):
        console.print(table)
    console.print(in_words(curves), soft_wrap=True)
    written = ", ".join(str(out / name) for name in ("demo.json", "demo.png", "prior.safetensors"))
    console.print(f"wrote {written}", soft_wrap=True)
    return result


def _play_all(work: list[Job], num_trials: int, prior: TuningPrior, console: Console, jobs: int | None) -> list[Curve]:
    """Every job in worker processes, with a bar; the curves come in the order of the jobs."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread per worker, scikit-learn's as well
    curves: dict[Job, Curve] = {}
    with Progress(console=console) as progress, _workers(jobs or os.cpu_count() or 1) as pool:
        bar = progress.add_task("tuning", total=len(work))
        with _interrupts_ignored():  # by the workers, which start now: Ctrl-C is for this process, which ends them
            futures = {pool.submit(_play, *job, num_trials, prior): job for job in work}
        for future in as_completed(futures):
            curves[futures[future]] = future.result()
            progress.advance(bar)
    return [curves[job] for job in work]


@contextmanager
def _workers(num: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes end at once where this one fails or is interrupted."""
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(num, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def plot(curves: Curves, path: Path) -> None:
    """Mean regret over data sets by trial, with 90% intervals over data sets; and the live study."""
    # a figure of its own rather than pyplot's, whose backend is the caller's
    from matplotlib.figure import Figure

    colours = dict(zip(NAMES, ("#0b6e4f", "#c84630", "#4062bb", "#8a8a8a"), strict=True))
    # gp and tpe start with the same points, so that one of the two would hide the other
    styles = {name: {"color": colour, "lw": 2} for name, colour in colours.items()}
    styles["gp"] |= {"lw": 3.5, "alpha": 0.8}
    styles["tpe"] |= {"ls": (0, (3, 2))}
    fig = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = fig.subplots(1, 2, sharey=True)
    by_method = replayed(curves)
    live = {method: torch.tensor(curves[LIVE][method], dtype=torch.float64).mean(0) for method in NAMES}
    for method, means in by_method.items():
        trials = range(1, means.shape[1] + 1)
        left.plot(trials, means.mean(0), label=method, **styles[method])
        low, high = interval(means)
        left.fill_between(trials, low, high, color=colours[method], alpha=0.12, lw=0)
        right.plot(trials, live[method], **styles[method])
    left.fill_between([], [], [], color="0.5", alpha=0.3, lw=0, label="90% interval over data sets")
    num_seeds = len(next(each for name, each in curves.items() if name != LIVE)["random"])
    left.set_title(
        f"{len(curves) - 1} held-out data sets, replayed: means over {num_seeds} runs each", fontsize="medium"
    )
    right.set_title(f"{LIVE}, every trial fitted: one run of each method", fontsize="medium")
    # trials that are really fitted may be better than the best of the table
    least = min(0.0, *(float(each.min()) for each in (*live.values(), *(m.mean(0) for m in by_method.values()))))
    unit = "regret of the best so far\n(0: best of the table, 1: its median"
    most = max(float(each.max()) for each in (*live.values(), *(m.mean(0) for m in by_method.values())))
    zero = "best of the table" + (": a trial below it is better still" if least < 0.0 else "")
    for axes in (left, right):
        axes.set(xlabel="trials", ylabel=f"{unit}{'; cut off above 1' if most > 1.0 else ''})")
        axes.set_ylim(least - 0.03, 1.0)
        axes.axhline(0.0, color="black", lw=1, ls=":", label=zero if axes is right else None)
        axes.yaxis.set_tick_params(labelleft=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    right.legend(frameon=False)
    drawn = BytesIO()
    fig.savefig(drawn, format="png", dpi=130, metadata={"Description": f"curves {digest(curves)}"})
    write_whole(path, drawn.getvalue())


def digest(curves: Curves) -> str:
    """Of the curves that a figure shows; the figure has it among its metadata, and so can be held to a table."""
    return hashlib.sha256(json.dumps(curves).encode()).hexdigest()


def interval(means: torch.Tensor, level: float = 0.9) -> tuple[torch.Tensor, torch.Tensor]:
    """Bootstrap interval of the mean over data sets; `means` is `(data sets, trials)`."""
    index = torch.randint(len(means), (2000, len(means)), generator=torch.Generator().manual_seed(0))
    resampled = means[index].mean(1)
    tail = (1.0 - level) / 2.0
    return resampled.quantile(tail, 0), resampled.quantile(1.0 - tail, 0)


def in_words(curves: Curves) -> str:
    """What was found on the replayed data sets, whatever it is."""
    regrets = replayed(curves)
    last = regrets["learned"].shape[1]
    early, half = min(5, last), min(10, last)
    few = regrets["learned"][:, early - 1]
    lines = [f"After {early} trials the learned prior's mean regret is {few.mean():.3f}. It is"]
    for name, method, trial in (("random search", "random", last), ("a GP from scratch", "gp", half)):
        other = regrets[method][:, trial - 1]
        low, high = (float(end) for end in interval((few - other)[:, None]))
        verdict = "below" if high < 0 else "above" if low > 0 else "not clearly different from"
        lines.append(
            f"- {verdict} that of {name} after {trial}, {other.mean():.3f} "
            f"(the difference is {(few - other).mean():+.3f}, 90% interval {low:+.3f} to {high:+.3f});"
        )
    learned_end, gp_end = (regrets[method][:, -1] for method in ("learned", "gp"))
    kept = int((learned_end <= HARMLESS_FACTOR * gp_end + HARMLESS_SLACK).sum())
    lines.append(
        f"- after {last} trials at most {HARMLESS_FACTOR} x that of the GP + {HARMLESS_SLACK} "
        f"on {kept} of {len(gp_end)} data sets."
    )
    return "\n".join(lines)


def replayed(curves: Curves) -> dict[str, torch.Tensor]:
    """Per method the mean regret over seeds, `(data sets, trials)`, of the data sets that were replayed."""
    names = [name for name in curves if name != LIVE]
    return {m: torch.tensor([curves[name][m] for name in names], dtype=torch.float64).mean(1) for m in NAMES}


def _tables(curves: Curves) -> list[Table]:
    by_method = replayed(curves)
    num_trials = by_method["learned"].shape[1]
    at = [*(t for t in (1, 3, 5, 10) if t < num_trials), num_trials]
    means = Table(
        title="regret (0 best of the table, 1 its median), mean over held-out data sets\n[90% interval over data sets]"
    )
    live = Table(
        title=f"regret on {LIVE}, every trial fitted, one run of each\n(below 0 is better than the best of the table)"
    )
    for table in (means, live):
        table.add_column("method")
        for t in at:
            table.add_column(f"trial {t}", justify="right")
    for method in NAMES:
        low, high = interval(by_method[method])
        mean = by_method[method].mean(0)
        # two lines, so that the table fits a terminal of 100 columns
        means.add_row(method, *[f"{mean[t - 1]:.3f}\n[{low[t - 1]:.3f}, {high[t - 1]:.3f}]" for t in at])
        live.add_row(method, *[f"{curves[LIVE][method][0][t - 1]:.3f}" for t in at])
    return [means, live]


def _play(data_set: str, method: str, seed: int, num_trials: int, prior: TuningPrior) -> Curve:
    """One run of one method, in a worker process."""
    torch.set_num_threads(1)
    pool = pools(MODEL)[data_set]
    if data_set == LIVE:
        return _tune_live(pool, method, seed, num_trials, prior)
    play: Method = learned(prior) if method == "learned" else METHODS[method]
    return regret(pool, play(pool, [], num_trials, seed))


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
        "gp": lambda: ScratchSampler(pool.space, seed=seed),
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
    return scaled_regret(pool, -torch.tensor(losses, dtype=torch.float64).cummin(0).values).tolist()
