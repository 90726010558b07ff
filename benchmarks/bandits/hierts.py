"""Hierarchical Thompson sampling in its authors' setting: total regret over ten tasks, runs paired by seed.

- `vague`: each task by itself, from the prior that is known before any task.
- `learned`: `bandits.HierTS`. `reference`: the same in plain NumPy, kept in `tests/bandits/hierts_reference.py`.
- `oracle`: each task knows the shared mean.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from rich.progress import track

import bandits
from bayesmeta import LinearGaussian, LinearHyperposterior
from benchmarks.report import Figure
from tests.bandits.hierts_reference import ARMS, NOISE_VAR, SHARED_SD, TASK_SD, TASKS, D, drawn_run, played, reference

__all__ = ["BUDGETS", "hierts"]

BUDGETS = {"quick": 4, "full": 400}


def hierts(runs: int) -> Iterator[Figure]:
    """`regret/hierts/<vague|learned|reference|oracle>`, standard errors, and the difference to the reference."""
    regrets: dict[str, list[float]] = {name: [] for name in ("vague", "learned", "reference", "oracle")}
    for number in track(range(runs), description="hierarchical Thompson sampling"):
        features, theta, noise = drawn_run(number)
        for name, policy in _policies(features, shared_mean(number), number).items():
            regrets[name].append(float(played(policy, features, theta, noise).sum()))
        rng = np.random.default_rng(1_000_000 + number)
        regrets["reference"].append(float(reference(features, theta, noise, rng).sum()))
    each = {name: np.array(values) for name, values in regrets.items()}
    for name, values in each.items():
        yield Figure(f"regret/hierts/{name}", float(values.mean()), f"total over {TASKS} tasks, {runs} runs")
        yield Figure(f"regret_se/hierts/{name}", float(values.std(ddof=1)) / math.sqrt(runs), "standard error")
    gap = each["learned"] - each["reference"]
    yield Figure("regret_gap/hierts/learned", float(gap.mean()), "learned less reference")
    yield Figure("regret_gap_se/hierts/learned", float(gap.std(ddof=1)) / math.sqrt(runs), "standard error, paired")
    yield Figure("regret_ratio/hierts/learned", float(each["learned"].mean() / each["vague"].mean()), "to vague")


def shared_mean(number: int) -> np.ndarray:
    """The mean that the tasks of `drawn_run` share."""
    rng = np.random.default_rng(number)
    rng.uniform(-0.5, 0.5, (ARMS, D))
    mean: np.ndarray = rng.normal(0.0, SHARED_SD, D)
    return mean


def _policies(features: np.ndarray, shared: np.ndarray, seed: int) -> dict[str, bandits.Policy]:
    arms = bandits.Joined(tuple(range(ARMS)), torch.from_numpy(features))
    eye, noise_var = torch.eye(D, dtype=torch.float64), torch.tensor(NOISE_VAR, dtype=torch.float64)
    zeros = torch.zeros(D, dtype=torch.float64)
    vague = LinearGaussian(zeros, eye / (SHARED_SD**2 + TASK_SD**2), noise_var)
    of_task = LinearGaussian(zeros, eye / TASK_SD**2, noise_var)
    oracle = LinearGaussian(torch.from_numpy(shared), eye / TASK_SD**2, noise_var)
    belief = LinearHyperposterior(of_task, eye * SHARED_SD**2)
    return {
        "vague": bandits.ThompsonSampling(vague, arms, tasks=TASKS, seed=seed, propensities=False),
        "learned": bandits.HierTS(belief, arms, tasks=TASKS, seed=seed, propensities=False),
        "oracle": bandits.ThompsonSampling(oracle, arms, tasks=TASKS, seed=seed, propensities=False),
    }
