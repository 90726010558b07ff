"""Are learned priors right? Real data, published answers, coverage on new tasks, and another author's mixed models.

    python -m benchmarks.priors --data DIR --budget quick|full --out FILE

DIR holds the folders `hierarchical` with the tables as Parquet files, `jester` with ratings and `lcbench` with tuning
runs; what is missing is said and left out. A section is a function from the budget to figures; `--sections` runs some
of them and keeps what FILE has of the others.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import bayesmeta as bm
from benchmarks.priors import bda3, few_rows, jester, shared_features
from benchmarks.priors.coverage import SIMULATIONS, Coverage, measure
from benchmarks.priors.hierarchical import DATA_SETS, HeldOut, efron_morris, held_out
from benchmarks.priors.mixed_models import Fit, disagreement, fit_ours, fit_statsmodels, timed_against
from benchmarks.report import Figure, MissingPeerError, environment, write_json

PACKAGES = ["bayesmeta", "torch", "numpy", "scipy", "polars", "pyro-ppl", "arviz", "statsmodels"]

# lme4's maximum-likelihood fit of Reaction ~ Days + (Days | Subject): Bates et al. (2015), Fitting linear mixed-effects
# models using lme4; fixed effects, standard deviations of intercept, slope and residual, correlation
LME4_SLEEPSTUDY = {"intercept": 251.405, "slope": 10.467, "sd_0": 23.78, "sd_1": 5.717, "sd_noise": 25.59, "corr": 0.08}


@dataclass(frozen=True)
class Budget:
    """How much: tasks against statsmodels, NUTS draws of a chain and chains, data sets, families, replications.

    Of Jester, `past_users` are learned from, and the first `jokes` are taken; of LCBench, `folds` are held out.
    """

    tasks: int
    repeats: int
    draws: int
    chains: int
    data_sets: Sequence[str]
    families: Sequence[str]
    past: Sequence[tuple[int, int]]  # past tasks, replications
    new: int
    past_users: int
    jokes: int
    folds: int


BUDGETS = {
    "quick": Budget(
        tasks=100,
        repeats=5,
        draws=60,
        chains=1,
        data_sets=("rat_tumours", "sleepstudy"),
        families=("beta_bernoulli", "gamma_exponential"),
        past=((5, 10),),
        new=200,
        past_users=300,
        jokes=40,
        folds=1,
    ),
    "full": Budget(
        tasks=1000,
        repeats=21,
        draws=500,
        chains=2,
        data_sets=tuple(DATA_SETS),
        families=tuple(SIMULATIONS),
        past=((5, 200), (200, 200)),
        new=8000,
        past_users=10_000,
        jokes=100,
        folds=shared_features.NUM_FOLDS,
    ),
}


class Missing(Exception):
    """A file is not in the data folder."""


@dataclass(frozen=True)
class Job:
    """What a section is given: the budget, where tables are, where progress and remarks go."""

    budget: Budget
    data: Path | None
    console: Console
    jobs: int

    def file(self, name: str) -> Path:
        path = self.data / name if self.data else None
        if path is None or not path.exists():
            raise Missing(f"{path or name} is not there; give the folder that holds {Path(name).parent}/ by --data")
        return path

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.file(f"hierarchical/{name}.parquet"))


def against_statsmodels(job: Job) -> list[Figure]:
    """Hierarchical linear regression, d = 5 and n = 50, by maximum likelihood on both sides."""
    tasks = job.budget.tasks
    ratio, apart, ours, theirs = timed_against(tasks, repeats=job.budget.repeats)
    suffix = "" if tasks == 1000 else f"_{tasks}_tasks"
    return [
        Figure(f"speed/hier_lr_vs_statsmodels{suffix}", ratio, f"fit of {tasks} tasks, times faster than MixedLM"),
        Figure(f"speed/hier_lr_s{suffix}", ours.seconds, "from rows to prior, CPU seconds"),
        Figure(f"speed/hier_lr_statsmodels_s{suffix}", theirs.seconds, "MixedLM.fit by lbfgs, CPU seconds"),
        Figure(
            f"speed/hier_lr_difference{suffix}", apart, "largest difference of the estimates, in standard deviations"
        ),
    ]


def known_answers(job: Job) -> list[Figure]:
    """Sleepstudy by lme4, schools by statsmodels, batting averages by James and Stein."""
    figures = []
    for name in ("sleepstudy", "exam", "hsb82"):
        if name not in job.budget.data_sets:
            continue
        tasks = DATA_SETS[name].read(job.table(DATA_SETS[name].file))
        ours = fit_ours(tasks, repeats=1)
        # lbfgs ends below the maximum on hsb82
        theirs = max((fit_statsmodels(tasks, method=m) for m in ("lbfgs", "powell")), key=lambda f: f.log_likelihood)
        apart = disagreement(ours, theirs)
        figures.append(Figure(f"known/{name}_vs_statsmodels", apart, "largest difference, in standard deviations"))
        if name == "sleepstudy":
            worst = max(abs(found / LME4_SLEEPSTUDY[key] - 1.0) for key, found in named(ours).items())
            figures += [
                Figure(f"known/sleepstudy/{k}", v, f"lme4: {LME4_SLEEPSTUDY[k]}") for k, v in named(ours).items()
            ]
            figures.append(
                Figure("known/sleepstudy_vs_lme4", worst, "largest relative difference; lme4 gives 2-6 digits")
            )
    for method, error in efron_morris(job.table("pscl_EfronMorris")).items():
        figures.append(Figure(f"known/efron_morris/{method}", error, "squared error over the season, 18 batters"))
    return figures


def named(fit: Fit) -> dict[str, float]:
    """As lme4 reports an intercept and a slope."""
    sd = np.sqrt(np.diag(fit.covariance))
    values = [*fit.loc, *sd, math.sqrt(fit.noise_var), fit.covariance[0, 1] / (sd[0] * sd[1])]
    return {name: float(value) for name, value in zip(LME4_SLEEPSTUDY, values, strict=True)}


def eight_schools(job: Job) -> list[Figure]:
    """BDA3's eight schools: its table, the exact posterior, and NUTS."""
    exact, tasks = bda3.SchoolsPosterior(), bda3.schools()
    z = np.abs(bda3.published_z(exact))
    drawn = _nuts(bm.NormalKnownVariance.initial(tasks), tasks, bda3.schools_log_hyperprior, job.budget)
    means = np.asarray(drawn["task_mean"])
    errors = []
    for school in range(8):
        for share in bda3.QUANTILES:
            below = means[..., school] < exact.quantile(school, share)
            errors.append(abs(below.mean() - share) / _mcse(below.astype(float)))
    # one cell of 40, 97.5% of school F, has 28 where 18.6 is exact
    return [
        Figure("bda3/schools/nuts_z", max(errors), "NUTS against exact quantiles, largest of 40, in standard errors"),
        Figure(
            "bda3/schools/published_z", float(np.sort(z.ravel())[-2]), "table 5.3 against exact, second largest of 40"
        ),
        Figure("bda3/schools/published_z_F_97.5", float(z[5, 4]), "the largest: 28 in the table, 18.6 exact"),
    ]


def rat_tumours(job: Job) -> list[Figure]:
    """BDA3's rat tumours: its posterior means, quadrature, and NUTS."""
    table = job.table("bda_rat_tumour")
    tasks = bda3.rats(table["y"].to_numpy(), table["n"].to_numpy())
    alpha, beta = bda3.rats_means(tasks)
    initial = bm.BetaBernoulli.initial(tasks)
    mode = bda3.mode_under(initial, tasks, bda3.rats_log_hyperprior)
    drawn = _nuts(initial, tasks, bda3.rats_log_hyperprior, job.budget)
    a, b = np.asarray(drawn["successes"]), np.asarray(drawn["failures"])
    exact = bda3.rats_vector_means(tasks).tolist()
    pairs = zip((np.log(a / b), np.log(a + b)), exact, strict=True)
    z = max(abs(float(v.mean()) - mean) / _mcse(v) for v, mean in pairs)
    return [
        Figure("bda3/rats/alpha", alpha, "posterior mean on BDA3's grid; published: 2.4"),
        Figure("bda3/rats/beta", beta, "posterior mean on BDA3's grid; published: 14.3"),
        Figure("bda3/rats/alpha_nuts", float(a.mean()), "by NUTS, over all numbers"),
        Figure("bda3/rats/beta_nuts", float(b.mean()), "by NUTS, over all numbers, where the mean has no limit"),
        Figure("bda3/rats/mode_logit", float(mode[0]), "mode of log(alpha / beta); published: -1.75 on a contour plot"),
        Figure("bda3/rats/mode_log_total", float(mode[1]), "mode of log(alpha + beta); published: 2.8"),
        Figure("bda3/rats/nuts_z", z, "NUTS against quadrature in those coordinates, in standard errors"),
    ]


def real_data(job: Job) -> list[Figure]:
    """Held-out log score by task, before and after half of its rows, and coverage."""
    figures = []
    for name in job.budget.data_sets:
        source = DATA_SETS[name]
        try:
            data = source.read(job.table(source.file))
        except Missing as missing:
            job.console.print(f"{name}: left out, {missing}")
            continue
        with job.console.status(f"{name}: {len(data.mask)} tasks, {int(data.mask.sum())} rows"):
            results = held_out(data, source.family, generator=torch.Generator().manual_seed(0))
        for method, result in results.items():
            figures += _scores(f"real/{name}/{method}", result, results["integrated"])
    return figures


def _scores(name: str, result: HeldOut, best: HeldOut) -> list[Figure]:
    figures = []
    for label, part, other in (("before", result.before, best.before), ("after", result.after, best.after)):
        behind = type(part)(part.by_task - other.by_task)
        figures.append(Figure(f"{name}/{label}", part.value, f"log score per row; to `integrated` {behind}"))
        figures.append(Figure(f"{name}/{label}_se", part.standard_error, "clustered by task"))
        figures.append(
            Figure(f"{name}/{label}_difference_se", behind.standard_error, "of the difference to `integrated`")
        )
    figures.append(
        Figure(f"{name}/coverage", result.coverage.value, f"of 90% intervals, +- {result.coverage.standard_error:.2g}")
    )
    return figures


def simulated_coverage(job: Job) -> list[Figure]:
    """Intervals on new tasks of every family."""
    cells = []
    for num_tasks, most in job.budget.past:
        for family in job.budget.families:
            replications = max(most // SIMULATIONS[family].cost, 2)
            new = job.budget.new // replications
            cells += [(family, num_tasks, new, replications, plain) for plain in (False, True)]
    found: dict[tuple[Any, ...], Coverage] = {}
    workers = ProcessPoolExecutor(job.jobs, mp_context=multiprocessing.get_context("spawn"))
    with Progress(console=job.console) as progress, workers as pool:
        running = {pool.submit(_cover, *cell): cell for cell in cells}
        for done in progress.track(as_completed(running), total=len(running), description="coverage"):
            found[running[done]] = done.result()
    figures = []
    for cell in cells:
        family, num_tasks, *_, plain = cell
        result, name = found[cell], f"coverage{'_eb' if plain else ''}/{family}/{num_tasks}"
        meaning = f"+- {result.each.standard_error:.2g}; before rows {result.before}, after three {result.after}"
        figures.append(Figure(name, result.each.value, meaning))
        figures.append(Figure(f"{name}/se", result.each.standard_error, "clustered by replication"))
        figures.append(Figure(f"{name}/before", result.before.value, "before the first row"))
        figures.append(Figure(f"{name}/after", result.after.value, "after three rows"))
        if result.failed:
            figures.append(Figure(f"{name}/failed", result.failed, "replications without a prior, left out"))
    return figures


def ratings(job: Job) -> list[Figure]:
    """Jester: ratings of new users, from a few of theirs and what past users taught; then from a fifth of the past."""
    every = jester.read(job.file("jester/jester_users_0_2499.npz")).rows(slice(job.budget.jokes))
    past, new = jester.split_users(every, torch.Generator().manual_seed(0))
    past = past[: job.budget.past_users]
    new = few_rows.shuffled(new, torch.Generator().manual_seed(1))
    fewer = jester.thinned(past, 0.2, torch.Generator().manual_seed(2))
    figures = []
    for name, rows in (("jester", past), ("jester_20", fewer)):
        with job.console.status(f"{name}: {len(rows.mask)} past users, {int(rows.mask.sum())} ratings"):
            results = few_rows.compare(jester.METHODS, rows, new)
        figures += few_rows.figures(name, results, beside="correlated")
    return figures


def features(job: Job) -> list[Figure]:
    """LCBench: new data sets after a few configurations, from 200 and from 50 rows of each past one."""
    tasks = shared_features.read(job.file("lcbench/lcbench_final_val_accuracy.npz"))
    figures = []
    for name, num_rows in (("features", 200), ("features_50", 50)):
        generator = torch.Generator().manual_seed(0)
        with job.console.status(f"{name}: {job.budget.folds} folds"):
            results = shared_features.held_out(tasks, num_rows, job.budget.folds, generator)
        figures += few_rows.figures(name, results, beside="learned_features")
    return figures


def _cover(family: str, num_tasks: int, num_new: int, replications: int, plain: bool) -> Coverage:
    torch.set_num_threads(1)
    return measure(
        SIMULATIONS[family],
        num_tasks=num_tasks,
        num_new=num_new,
        replications=replications,
        plain=plain,
        seed=num_tasks,
    )


def _nuts(prior: Any, tasks: bm.Data, log_hyperprior: Callable[[torch.Tensor], torch.Tensor], budget: Budget) -> Any:
    return bm.sample_posterior(
        prior,
        tasks,
        num_draws=budget.draws,
        num_warmup=max(budget.draws // 3, 60),
        num_chains=budget.chains,
        log_hyperprior=log_hyperprior,
        progress=False,
        generator=torch.Generator().manual_seed(0),
    ).posterior


def _mcse(values: np.ndarray) -> float:
    """Standard error of the mean of chains `(chain, draw)`, autocorrelation counted."""
    import arviz

    return float(values.std() / math.sqrt(arviz.ess(values, method="mean")))


SECTIONS: dict[str, Callable[[Job], list[Figure]]] = {
    "speed": against_statsmodels,
    "known": known_answers,
    "schools": eight_schools,
    "rats": rat_tumours,
    "real": real_data,
    "coverage": simulated_coverage,
    "jester": ratings,
    "features": features,
}


def kept(out: Path | None, budget: str, sections: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `out` has of sections that are not run now, with the same budget: section to its figures and date."""
    if out is None or not out.exists():
        return {}
    content = json.loads(out.read_text())
    if content.get("budget") != budget:
        return {}
    return {name: found for name, found in content.get("sections", {}).items() if name not in sections}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.priors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", choices=sorted(BUDGETS), default="quick")
    parser.add_argument("--data", type=Path, help="the folder that holds hierarchical/, jester/ and lcbench/")
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that simulate coverage")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    options = parser.parse_args(arguments)
    wanted = options.sections.split(",")
    if unknown := sorted(set(wanted) - set(SECTIONS)):
        parser.error(f"unknown sections {unknown}; there are {', '.join(SECTIONS)}")
    torch.set_num_threads(1)
    console, left_out = Console(), {}
    job = Job(BUDGETS[options.budget], options.data, console, options.jobs)
    results = kept(options.out, options.budget, wanted)
    for name in wanted:
        try:
            figures = SECTIONS[name](job)
        except (MissingPeerError, Missing) as missing:
            left_out[name] = str(missing)
            console.print(f"{name}: left out, {missing}")
            continue
        table = Table("figure", "value", "meaning", title=f"Priors, {name}, {options.budget} budget")
        for figure in figures:
            table.add_row(figure.name, f"{figure.value:.4g}", figure.meaning)
        console.print(table)
        date = datetime.now(UTC).isoformat(timespec="seconds")
        results[name] = {"date": date, "figures": {figure.name: figure.value for figure in figures}}
    if options.out:
        every = [Figure(n, v, "") for found in results.values() for n, v in found["figures"].items()]
        rest = {"budget": options.budget, "left_out": left_out, "sections": results}
        write_json(options.out, every, environment(PACKAGES), **rest)
