"""What goes wrong in a study of hours must not end it: priors that fail, objectives without a value, odd studies."""

import math
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import polars as pl
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from torch import Tensor
from torch.distributions import Normal

from bayesmeta import Data, GaussianProcess
from bo import MetaSampler, SearchSpace, TuningPrior
from tests.bo.past import SPACE, learned, loss, objective, random_params, studies, table
from tests.seeds import shifted

Objective = Callable[[optuna.Trial], float]


def run(sampler: MetaSampler, evaluate: Objective | None = None, num: int = 6, **kwargs: Any) -> optuna.Study:
    study = optuna.create_study(sampler=sampler, direction=sampler.prior.direction)
    study.optimize(evaluate or objective(1), n_trials=num, **kwargs)
    return study


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


# ---- priors that fail


class Failing:
    """A posterior that fails in one of its methods, from the call on of which it is told."""

    def __init__(self, where: str, good_calls: int = 0) -> None:
        self.where, self.good_calls = where, [good_calls]

    def condition(self, data: Data) -> "Failing":
        self._maybe_fail("condition")
        return self

    def marginal(self, x: Tensor) -> Normal:
        self._maybe_fail("marginal")
        return Normal(-x.sum(-1), x.new_ones(len(x)))

    predict = marginal

    def _maybe_fail(self, method: str) -> None:
        if method == self.where:
            self.good_calls[0] -= 1
            if self.good_calls[0] < 0:
                raise torch.linalg.LinAlgError("the input is not positive-definite")


class Undefined(Failing):
    """A posterior whose mean is not a number."""

    def marginal(self, x: Tensor) -> Normal:
        return Normal(x.new_full((len(x),), math.nan), x.new_ones(len(x)), validate_args=False)


def sampler_of(functions: Any) -> MetaSampler:
    return MetaSampler(TuningPrior(SearchSpace(SPACE), "minimize", functions), seed=shifted(0))


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        (Failing("marginal"), "LinAlgError: the input is not positive-definite"),
        (Failing("condition"), "LinAlgError: the input is not positive-definite"),
        (Failing("marginal", good_calls=20), "LinAlgError: the input is not positive-definite"),
        (Undefined("nowhere"), "ArithmeticError: no point has a value that is a number"),
    ],
    ids=["at once", "with rows", "later", "not a number"],
)
def test_a_study_finishes_without_its_prior_and_says_so_once(functions: Any, message: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        study = run(sampler_of(functions), num=8)
    assert states(study) == ["COMPLETE"] * 8
    assert all(set(t.params) == set(SPACE) for t in study.trials)
    (warning,) = caught
    assert message in str(warning.message)
    assert "left to TPESampler" in str(warning.message)


def test_a_prior_that_failed_is_tried_again() -> None:
    functions = Failing("marginal")
    sampler = sampler_of(functions)
    with pytest.warns(UserWarning, match="no suggestion could be made"):
        study = run(sampler, num=2)
    functions.good_calls[0] = 10**6
    study.optimize(objective(1), n_trials=1)
    # where this posterior expects most
    assert study.trials[-1].params["rate"] < 1e-3
    assert study.trials[-1].params["depth"] <= 3


# ---- objectives without a value


def test_nan_and_infinite_objectives() -> None:
    def evaluate(trial: optuna.Trial) -> float:
        objective(1)(trial)
        return next(values)

    for direction in ("minimize", "maximize"):
        values = iter([math.nan, math.inf, 1.0, -math.inf, math.nan, math.inf, 2.0, 3.0])
        study = run(MetaSampler(learned(direction), seed=shifted(0)), evaluate, num=8)
        assert states(study) == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE", "FAIL", *["COMPLETE"] * 3]


def test_objectives_that_are_all_the_same_or_all_infinite() -> None:
    for value in (1.0, math.inf):
        study = run(
            MetaSampler(learned(), seed=shifted(0)), lambda trial, value=value: 0 * objective(1)(trial) + value, num=7
        )
        assert len({tuple(t.params.values()) for t in study.trials}) == 7


def failing_where(bad: Callable[[dict[str, Any]], bool], ending: Callable[[], float]) -> Objective:
    def evaluate(trial: optuna.Trial) -> float:
        value = objective(1)(trial)
        return ending() if bad(trial.params) else value

    return evaluate


def crash() -> float:
    raise MemoryError


@pytest.mark.parametrize("ending", [crash, lambda: math.nan], ids=["crash", "nan"])
def test_a_place_where_trials_fail_is_left(ending: Callable[[], float]) -> None:
    """All around what the past found best; whatever is left is worse, and must be tried nevertheless."""
    evaluate = failing_where(lambda params: loss(params) < 0.2, ending)
    study = run(MetaSampler(learned(), seed=shifted(0)), evaluate, num=20, catch=(MemoryError,))
    num_completed = states(study).count("COMPLETE")
    assert num_completed >= 8
    assert study.best_value < sorted(objective(1)(optuna.trial.FixedTrial(random_params(n))) for n in range(100))[30]


def test_a_study_where_nothing_works_goes_on_looking() -> None:
    study = run(MetaSampler(learned(), seed=shifted(0)), lambda trial: 0 * objective(1)(trial) + math.nan, num=12)
    assert states(study) == ["FAIL"] * 12
    tried = learned().space.to_unit([t.params for t in study.trials])
    assert torch.pdist(tried[3:]).mean() > 0.5  # about 1.2 +- .1


@pytest.mark.parametrize("pruner", [optuna.pruners.MedianPruner(2, 0), optuna.pruners.HyperbandPruner(1, 9, 3)])
def test_pruned_trials(pruner: optuna.pruners.BasePruner) -> None:
    def evaluate(trial: optuna.Trial) -> float:
        value = objective(1)(trial)
        for step in range(1, 10):
            trial.report(value + 1.0 / step, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    study = optuna.create_study(sampler=MetaSampler(learned(), seed=shifted(0)), pruner=pruner)
    study.optimize(evaluate, n_trials=15)
    assert set(states(study)) == {"COMPLETE", "PRUNED"}
    assert torch.pdist(learned().space.to_unit([t.params for t in study.trials])).min() > 1e-6


# ---- studies and priors that do not go together


@pytest.mark.parametrize(
    "only",
    [FloatDistribution(2.0, 2.0), IntDistribution(3, 3), CategoricalDistribution(("a",))],
    ids=["float", "integer", "category"],
)
def test_a_prior_of_a_single_value_has_nothing_to_suggest(only: BaseDistribution) -> None:
    known = SearchSpace({"only": only})
    process = GaussianProcess(torch.ones(1), torch.ones(()), torch.ones(()))
    study = optuna.create_study(sampler=MetaSampler(TuningPrior(known, "minimize", process), seed=shifted(0)))
    trials = [study.ask({"only": only}) for _ in range(3)]
    assert len({trial.params["only"] for trial in trials}) == 1
    with pytest.warns(UserWarning, match="says nothing of 'other'"):
        study.tell(study.ask({"other": FloatDistribution(0.0, 1.0)}), 1.0)


def test_single_values_beside_others() -> None:
    space = {**SPACE, "fixed": FloatDistribution(0.1, 0.1), "one": CategoricalDistribution(("a",))}
    process = GaussianProcess(torch.ones(8).double(), torch.ones(()).double(), torch.full((), 0.1).double())
    study = optuna.create_study(
        sampler=MetaSampler(TuningPrior(SearchSpace(space), "minimize", process), seed=shifted(0))
    )
    for _ in range(4):
        trial = study.ask(space)
        study.tell(trial, loss(trial.params))
    assert all(t.params["fixed"] == 0.1 and t.params["one"] == "a" for t in study.trials)


def test_several_objectives_are_refused_before_a_trial_is_wasted() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=MetaSampler(learned()))
    with pytest.raises(ValueError, match="multi-objective"):
        study.optimize(lambda trial: (1.0, 2.0), n_trials=1)


# ---- sources of past studies


def test_studies_come_from_a_storage_or_its_url(tmp_path: Path) -> None:
    url, memory, past = f"sqlite:///{tmp_path / 'past.db'}", optuna.storages.InMemoryStorage(), studies(num=3)
    for storage in (url, memory):
        copy_to(storage, past)
        optuna.create_study(storage=storage, study_name="without trials")
    listed = [optuna.load_study(study_name=study.study_name, storage=memory) for study in past]
    expected = run(MetaSampler.from_studies(iter(listed), seed=shifted(0)), num=3)
    for source in (url, memory, optuna.storages.RDBStorage(url)):
        again = run(MetaSampler.from_studies(source, seed=shifted(0)), num=3)
        assert [t.params for t in again.trials] == [t.params for t in expected.trials]


def copy_to(storage: str | optuna.storages.BaseStorage, past: list[optuna.Study]) -> None:
    for study in past:
        copy = optuna.create_study(storage=storage, study_name=study.study_name)
        copy.add_trials(study.trials[:12])


def test_a_table_is_a_source() -> None:
    frame = pl.DataFrame(table(studies(num=3)))
    columns = {"task": "task", "target": "loss", "direction": "minimize"}
    sampler = MetaSampler.from_table(frame, **columns, space=SearchSpace(SPACE), seed=shifted(0))
    assert states(run(sampler, num=2)) == ["COMPLETE"] * 2


def test_sources_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        MetaSampler.from_studies(f"sqlite:///{tmp_path / 'missing.db'}")
    for source in (3, [1, 2], [f"sqlite:///{tmp_path / 'past.db'}"]):
        with pytest.raises(TypeError, match="must be Optuna studies, a storage of them, or the URL"):
            MetaSampler.from_studies(source)
    with pytest.raises(ValueError, match="at least two studies with completed trials; got 1 of 1"):
        MetaSampler.from_studies(studies(num=1)[0])
    with pytest.raises(ValueError, match="at least two studies with completed trials; got 0 of 0"):
        MetaSampler.from_studies([])
    with pytest.raises(ValueError, match="must have one direction"):
        MetaSampler.from_studies([*studies(num=1), *studies(num=1, direction="maximize")])
    with pytest.raises(ValueError, match="has 2 objectives; one is needed"):
        MetaSampler.from_studies([*studies(num=2), optuna.create_study(directions=["minimize"] * 2)])


def test_a_locked_database_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'past.db'}?timeout=0.1"
    copy_to(url, studies(num=2))
    with sqlite3.connect(tmp_path / "past.db") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ValueError, match=r"cannot read Optuna studies from .*database is locked"):
            MetaSampler.from_studies(url)
        other.rollback()


# ---- other ways in which Optuna uses a sampler


def test_parameters_that_are_set_elsewhere_are_taken_into_account() -> None:
    """The rest is the best given what is set, whichever is asked for first."""
    study = optuna.create_study(sampler=MetaSampler(learned(), seed=shifted(0)))
    study.enqueue_trial({"kind": "linear"})
    first = study.ask(SPACE)
    assert first.params["kind"] == "linear"
    assert abs(math.log10(first.params["rate"]) + 2) < 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.PartialFixedSampler({"drop": 0.9}, study.sampler)
    study.optimize(objective(1), n_trials=3)
    assert [t.params["drop"] for t in study.trials[1:]] == [0.9] * 3
    assert len({tuple(t.params.values()) for t in study.trials}) == 4
    assert states(study) == ["RUNNING", *["COMPLETE"] * 3]


def test_a_study_goes_on_where_another_sampler_left_it() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=shifted(0)))
    # all of the worst kind: by chance, one of ten trials of any kind may be better than those that follow
    for _ in range(10):
        study.enqueue_trial({"kind": "linear"})
    study.optimize(objective(1), n_trials=10)
    study.sampler = MetaSampler(learned(), seed=shifted(0))
    study.optimize(objective(1), n_trials=5)
    assert study.best_trial.number >= 10


def test_a_trial_that_is_retried_is_run_as_it_was() -> None:
    study = optuna.create_study(sampler=MetaSampler(learned(), seed=shifted(0)))
    study.tell(study.ask(SPACE), state=TrialState.FAIL)
    study.enqueue_trial(study.trials[0].params)
    study.optimize(objective(1), n_trials=2)
    assert study.trials[1].params == study.trials[0].params
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
