"""Optuna's own test cases for samplers, of those with a past, like the study or not, and of the one without."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from unittest.mock import Mock

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.testing import pytest_samplers

import bo.acquisition.search
import bo.samplers.point_sampler
import bo.samplers.request
from bo import MetaSampler, SearchSpace, TuningPrior
from bo.samplers.from_scratch import ScratchSampler
from tests.seeds import shifted

pytestmark = [
    pytest.mark.slow,
    # most cases ask for another x or y than the prior knows, which one warning per study says
    pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning"),
]

SPACES: dict[str, dict[str, BaseDistribution]] = {
    "numbers": {"x": FloatDistribution(-10.0, 10.0), "y": IntDistribution(-10, 10), "z": FloatDistribution(-1.0, 1.0)},
    "categories": {
        "x": CategoricalDistribution((1, 10, 100)),
        "y": CategoricalDistribution(("a", "b")),
        "category": CategoricalDistribution(("x", "y")),
    },
}


# MultiObjectiveSamplerTestCase asks for values of studies with several objectives, which bo's samplers refuse
DO_NOT_APPLY = {"MultiObjectiveSamplerTestCase"}
STUDIES = """
import optuna
from tests.bo.samplers.test_optuna_cases import SAMPLERS, SPACES
for make in SAMPLERS.values():
    study = optuna.create_study(sampler=make())
    for value in (3.0, 1.0, 2.0):
        study.tell(study.ask(SPACES["numbers"]), value)
    print([trial.params for trial in study.trials])
"""


@cache
def learned(space: str) -> TuningPrior:
    """From three studies of random trials."""
    past = [optuna.create_study(sampler=RandomSampler(seed=shifted(task))) for task in range(3)]
    for study in past:
        for _ in range(8):
            trial = study.ask(SPACES[space])
            numbers = (d.to_internal_repr(trial.params[name]) for name, d in trial.distributions.items())
            study.tell(trial, sum(numbers))
    return TuningPrior.from_studies(past)


SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    **{space: lambda space=space: MetaSampler(learned(space), seed=shifted(0)) for space in SPACES},
    "no past": lambda: ScratchSampler(SearchSpace(SPACES["numbers"]), seed=shifted(0)),
}


class TestOptunasCases(
    pytest_samplers.BasicSamplerTestCase,
    pytest_samplers.RelativeSamplerTestCase,
    pytest_samplers.SingleOnlySamplerTestCase,
):
    @pytest.fixture(params=SAMPLERS)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return SAMPLERS[request.param]

    @pytest.fixture(autouse=True)
    def _few_candidates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """These cases are about how a sampler speaks with Optuna, not about what it finds."""
        monkeypatch.setattr(bo.samplers.request, "NUM_SOBOL", 8)
        monkeypatch.setattr(bo.acquisition.search, "STEPS", (0.1,))
        # nor about the hundred trials that run in some of them
        monkeypatch.setattr(bo.samplers.request, "MAX_PENDING", 4)
        monkeypatch.setattr(bo.samplers.point_sampler, "NUM_LATE", 4)
        monkeypatch.setattr(bo.samplers.point_sampler, "MAX_GUESSED", 1)


def test_all_of_optunas_cases_are_run() -> None:
    shipped = {name for name in vars(pytest_samplers) if name.endswith("TestCase") and not name.startswith("_")}
    assert shipped == {case.__name__ for case in TestOptunasCases.__bases__} | DO_NOT_APPLY


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_other_sampler_is_told_of_each_trial(name: str) -> None:
    sampler = SAMPLERS[name]()
    other = Mock(wraps=RandomSampler(seed=shifted(0)))
    sampler._independent = other
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("new", 0.0, 1.0), n_trials=3)
    calls = [other.before_trial, other.sample_independent, other.after_trial, other.reseed_rng]
    assert [call.call_count for call in calls] == [3, 3, 3, 0]
    sampler.reseed_rng()
    assert other.reseed_rng.call_count == 1


def test_suggestions_are_the_same_in_a_process_with_another_order_of_sets() -> None:
    one, other = (
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", STUDIES],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "42")
    )
    assert one.count("'x'") == 3 * len(SAMPLERS)
    assert one == other
