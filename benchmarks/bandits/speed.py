"""How long a decision takes: linear Thompson sampling with 100 arms and 20 inputs, ours and three peers, on one thread.

Ours comes as it is made by default, with propensities, and without. Beside it stand 100 arms of rates, without inputs
and after 100 rewards, and 100 arms that share the weights of 10 features.

Each library first sees the same 1000 rows, then takes turns with the others: one decision and one update at a time, and
a batch of decisions at once. Times are medians over turns, in microseconds of CPU, so that a busy machine slows all.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

import bandits
from bayesmeta import BetaBernoulli, LinearGaussian
from benchmarks.report import Figure

__all__ = ["BUDGETS", "SpeedBudget", "speed"]

ARMS, INPUTS, ROWS, FEATURES = 100, 20, 1000, 10
TASKS = 1000


@dataclass(frozen=True)
class SpeedBudget:
    """Turns of each library, single steps of ours in each turn, decisions in a batch, and rounds of many tasks."""

    turns: int
    steps: int
    batch: int
    rounds: int


BUDGETS = {"quick": SpeedBudget(3, 100, 2000, 5), "full": SpeedBudget(11, 500, 10_000, 20)}


class Library(Protocol):
    """Linear Thompson sampling: weights of each arm, prior precision and noise variance one."""

    def fit(self, x: np.ndarray, arm: np.ndarray, y: np.ndarray) -> None: ...

    def step(self, x: np.ndarray, y: float) -> None:
        """One decision, and an update with its reward."""
        ...

    def decide(self, x: np.ndarray) -> None:
        """A decision for each row."""
        ...


class Ours:
    propensities = False

    def __init__(self) -> None:
        prior = LinearGaussian(torch.zeros(INPUTS), torch.eye(INPUTS), torch.ones(()))
        self.policy = bandits.ThompsonSampling(prior, range(ARMS), seed=0, propensities=self.propensities)

    def fit(self, x: np.ndarray, arm: np.ndarray, y: np.ndarray) -> None:
        self.policy.learn(arm.tolist(), torch.from_numpy(y), context=torch.from_numpy(x))

    def step(self, x: np.ndarray, y: float) -> None:
        self.policy.update(self.policy.choose(x), y)

    def decide(self, x: np.ndarray) -> None:
        self.policy.choose(x)


class OursWithPropensities(Ours):
    propensities = True


class MABWiser:
    def __init__(self) -> None:
        from mabwiser.mab import MAB, LearningPolicy

        self.mab = MAB(list(range(ARMS)), LearningPolicy.LinTS(alpha=1.0, l2_lambda=1.0), n_jobs=1)

    def fit(self, x: np.ndarray, arm: np.ndarray, y: np.ndarray) -> None:
        self.mab.fit(arm, y, x)

    def step(self, x: np.ndarray, y: float) -> None:
        self.mab.partial_fit([self.mab.predict(x[None])], [y], x[None])

    def decide(self, x: np.ndarray) -> None:
        self.mab.predict(x)


class ContextualBandits:
    def __init__(self) -> None:
        from contextualbandits.online import LinTS

        self.model = LinTS(ARMS, fit_intercept=False, random_state=1)

    def fit(self, x: np.ndarray, arm: np.ndarray, y: np.ndarray) -> None:
        self.model.fit(x, arm, y)

    def step(self, x: np.ndarray, y: float) -> None:
        arm = self.model.predict(x[None])
        self.model.partial_fit(x[None], arm, np.array([y]))

    def decide(self, x: np.ndarray) -> None:
        self.model.predict(x)


class BayesianBandits:
    def __init__(self) -> None:
        from bayesianbandits import Arm, ContextualAgent, NormalRegressor, ThompsonSampling

        arms = [Arm(i, learner=NormalRegressor(alpha=1.0, beta=1.0, random_state=i)) for i in range(ARMS)]
        self.agent = ContextualAgent(arms, ThompsonSampling(), random_seed=0)

    def fit(self, x: np.ndarray, arm: np.ndarray, y: np.ndarray) -> None:
        for i in range(ARMS):
            self.agent.select_for_update(i).update(x[arm == i], y[arm == i])

    def step(self, x: np.ndarray, y: float) -> None:
        self.agent.pull(x[None])
        self.agent.update(x[None], np.array([y]))

    def decide(self, x: np.ndarray) -> None:
        self.agent.pull(x)


LIBRARIES: dict[str, Callable[[], Library]] = {
    "ours": Ours,
    "ours_with_propensities": OursWithPropensities,
    "mabwiser": MABWiser,
    "contextualbandits": ContextualBandits,
    "bayesianbandits": BayesianBandits,
}


def speed(budget: SpeedBudget) -> Iterator[Figure]:
    """`speed/<kind>_us/<library>`: single and batch of all, bernoulli, bernoulli_batch, shared and rounds of ours."""
    libraries = dict(_ready())
    rng = np.random.default_rng(1)
    single: dict[str, list[float]] = {name: [] for name in libraries}
    batch: dict[str, list[float]] = {name: [] for name in libraries}
    for _ in range(budget.turns):
        for name, library in libraries.items():
            steps = budget.steps if name.startswith("ours") else max(2, budget.steps // 50)
            x, y = rng.normal(size=(steps, INPUTS)).astype(np.float32), rng.normal(size=steps)
            single[name].append(_seconds(lambda: [library.step(*row) for row in zip(x, y, strict=True)]) / steps)  # noqa: B023
            rows = rng.normal(size=(budget.batch, INPUTS)).astype(np.float32)
            batch[name].append(_seconds(lambda: library.decide(rows)) / budget.batch)  # noqa: B023
    for name in libraries:
        yield Figure(f"speed/single_us/{name}", 1e6 * statistics.median(single[name]), "us")
        yield Figure(f"speed/batch_us/{name}", 1e6 * statistics.median(batch[name]), "us")
    for suffix, propensities in (("ours", False), ("ours_with_propensities", True)):
        for name, seconds in _other_kinds(budget, propensities).items():
            yield Figure(f"speed/{name}_us/{suffix}", 1e6 * seconds, "us")
    yield Figure("speed/rounds_us/ours", 1e6 * _rounds(budget.rounds) / TASKS, "us")


def _ready() -> Iterator[tuple[str, Library]]:
    """The libraries that are installed, each after the same rows."""
    rng = np.random.default_rng(0)
    x, arm = rng.normal(size=(ROWS, INPUTS)).astype(np.float32), rng.integers(ARMS, size=ROWS)
    arm[:ARMS] = np.arange(ARMS)
    y = rng.normal(size=ROWS)
    for name, make in LIBRARIES.items():
        with suppress(ImportError):
            library = make()
            library.fit(x, arm, y)
            yield name, library


def _other_kinds(budget: SpeedBudget, propensities: bool) -> dict[str, float]:
    """CPU seconds of a decision and its update, and of a decision in a batch, of arms that need no context."""
    rng = np.random.default_rng(2)
    one = torch.ones(())
    options: dict[str, Any] = {"seed": 0, "propensities": propensities}

    def rates() -> bandits.Policy:
        policy = bandits.ThompsonSampling(BetaBernoulli(one, one), range(ARMS), **options)
        won = (rng.random(ARMS) < 0.5).astype(float)
        policy.learn(rng.integers(ARMS, size=ARMS).tolist(), torch.from_numpy(won))
        return policy

    features = dict(enumerate(torch.from_numpy(rng.normal(size=(ARMS, FEATURES)))))
    weights = LinearGaussian(torch.zeros(FEATURES), torch.eye(FEATURES), torch.ones(()))
    shared = bandits.ThompsonSampling(weights, features, **options)
    times: dict[str, list[float]] = {"bernoulli": [], "bernoulli_batch": [], "shared": []}
    for _ in range(budget.turns):
        young = rates()
        times["bernoulli_batch"].append(_seconds(lambda: young.choose(num=budget.batch)) / budget.batch)  # noqa: B023
        for name, policy in {"bernoulli": young, "shared": shared}.items():
            rewards = (rng.random(ARMS) < 0.5).astype(float).tolist()
            run = [lambda y=y, policy=policy: policy.update(policy.choose(), y) for y in rewards]
            times[name].append(_seconds(lambda: [step() for step in run]) / len(run))  # noqa: B023
    return {name: statistics.median(each) for name, each in times.items()}


def _rounds(rounds: int) -> float:
    """CPU seconds of one round of 1000 tasks: a context, a decision and an update each."""
    prior = LinearGaussian(torch.zeros(INPUTS), torch.eye(INPUTS), torch.ones(()))
    policy = bandits.MarginalThompson(prior, range(ARMS), tasks=TASKS, seed=0, propensities=False)
    generator = torch.Generator().manual_seed(0)
    times = []
    for _ in range(rounds):
        context, reward = torch.randn(TASKS, INPUTS, generator=generator), torch.randn(TASKS, generator=generator)
        times.append(_seconds(lambda: policy.update(policy.choose(context), reward)))  # noqa: B023
    return statistics.median(times)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start
