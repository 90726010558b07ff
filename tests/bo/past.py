"""Six past studies whose optima lie close together, and the prior learned from them."""

import math
import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from bo import TuningPrior
from tests.seeds import shifted

optuna.logging.set_verbosity(optuna.logging.WARNING)

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "drop": FloatDistribution(0.0, 1.0),
    "depth": IntDistribution(1, 12),
    "kind": CategoricalDistribution(("linear", "tree", "forest")),
}
OPTIMUM = {"rate": 1e-2, "drop": 0.3, "depth": 8, "kind": "tree"}
NUM_TASKS, NUM_TRIALS = 6, 30


def loss(params: Mapping[str, Any], shift: float = 0.0, scale: float = 1.0) -> float:
    """Least near `OPTIMUM`, which `shift` moves a little; tasks differ in scale too."""
    rate = (math.log10(params["rate"]) - math.log10(OPTIMUM["rate"]) - shift) / 4
    drop = params["drop"] - OPTIMUM["drop"] - 0.1 * shift
    depth = (params["depth"] - OPTIMUM["depth"]) / 12
    wrong = {"tree": 0.0, "forest": 0.3, "linear": 0.6}[params["kind"]]
    return scale * (4 * rate**2 + drop**2 + depth**2 + wrong)


def objective(task: int, sign: float = 1.0) -> Callable[[optuna.Trial], float]:
    def run(trial: optuna.Trial) -> float:
        params = {
            "rate": trial.suggest_float("rate", 1e-4, 1.0, log=True),
            "drop": trial.suggest_float("drop", 0.0, 1.0),
            "depth": trial.suggest_int("depth", 1, 12),
            "kind": trial.suggest_categorical("kind", ["linear", "tree", "forest"]),
        }
        return sign * loss(params, shift=0.1 * (task % 3 - 1), scale=10.0 ** (task - 3))

    return run


def studies(storage: str | None = None, direction: str = "minimize", num: int = NUM_TASKS) -> list[optuna.Study]:
    """Played in memory; a database gets what came of it, since it would keep each number of each trial by itself."""
    sign = 1.0 if direction == "minimize" else -1.0
    past = []
    for task in range(num):
        study = optuna.create_study(
            study_name=f"past {task}",
            direction=direction,
            sampler=optuna.samplers.RandomSampler(seed=shifted(task)),
        )
        study.optimize(objective(task, sign), n_trials=NUM_TRIALS)
        past.append(study)
    return past if storage is None else kept(past, optuna.storages.get_storage(storage))


def kept(past: list[optuna.Study], storage: optuna.storages.BaseStorage) -> list[optuna.Study]:
    """These studies as a database gives them back."""
    copies = [optuna.create_study(storage=storage, study_name=s.study_name, direction=s.direction) for s in past]
    for study, copy in zip(past, copies, strict=True):
        copy.add_trials(study.trials)
    return copies


def table(past: list[optuna.Study]) -> dict[str, list[Any]]:
    """The completed trials in long form."""
    rows = [{"task": s.study_name, **t.params, "loss": t.value} for s in past for t in s.trials]
    return {name: [row[name] for row in rows] for name in rows[0]}


def random_params(number: int) -> dict[str, Any]:
    rng = random.Random(shifted(number))
    rate, kind = 10 ** rng.uniform(-4, 0), rng.choice(("linear", "tree", "forest"))
    return {"rate": rate, "drop": rng.uniform(0, 1), "depth": rng.randint(1, 12), "kind": kind}


@cache
def learned(direction: str = "minimize") -> TuningPrior:
    return TuningPrior.from_studies(studies(direction=direction))
