"""The trials of a study as rows: each read once, and what each kind of ending says."""

import math
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from bo import SearchSpace
from bo.samplers.history import History
from tests.bo.past import OPTIMUM, SPACE

KNOWN = SearchSpace(SPACE)


def configuration(number: int) -> dict[str, Any]:
    """Far from each other, where numbers are from 0 to 3; close to each other and far from those, where negative."""
    if number < 0:
        return {**OPTIMUM, "drop": 0.3 - 0.02 * number}
    return {**OPTIMUM, "rate": (1e-4, 1.0)[number % 2], "depth": (1, 12)[number // 2]}


def add(study: optuna.Study, number: int, value: float | None, state: TrialState = TrialState.COMPLETE) -> None:
    params = configuration(number)
    study.add_trial(optuna.trial.create_trial(params=params, distributions=SPACE, value=value, state=state))


def read(study: optuna.Study, history: History | None = None) -> History:
    maximize = study.direction == optuna.study.StudyDirection.MAXIMIZE
    history = history or History(KNOWN, maximize=maximize)
    history.read(study.get_trials(deepcopy=False))
    return history


def encoded(*numbers: int) -> torch.Tensor:
    return KNOWN.to_unit([configuration(number) for number in numbers])


def test_completed_trials_are_rows_with_their_values() -> None:
    study = optuna.create_study()
    for number, value in enumerate((3.0, -math.inf, 1.0)):
        add(study, number, value)
    rows, y = read(study).evaluated()
    torch.testing.assert_close(KNOWN.encode(rows), encoded(0, 1, 2), rtol=0, atol=1e-12)
    assert y.tolist() == [3.0, 1.0, 1.0]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_an_infinitely_bad_trial_failed(direction: str) -> None:
    study = optuna.create_study(direction=direction)
    for number, value in enumerate((3.0, math.inf if direction == "minimize" else -math.inf)):
        add(study, number, value)
    history = read(study)
    assert history.evaluated()[1].tolist() == [3.0]
    torch.testing.assert_close(KNOWN.encode(history.unevaluated), encoded(1), rtol=0, atol=1e-12)
    outcomes = history.outcomes()
    assert outcomes is not None
    assert outcomes[1].tolist() == [True, False]


@pytest.mark.parametrize(("maximize", "worst"), [(False, 5.0), (True, 2.0)])
def test_pruned_trials_are_as_bad_as_the_worst(maximize: bool, worst: float) -> None:
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    add(study, 0, None, TrialState.PRUNED)
    before = read(study)
    assert len(before.evaluated()[1]) == 0
    torch.testing.assert_close(KNOWN.encode(before.unevaluated), encoded(0), rtol=0, atol=1e-12)
    add(study, 1, 5.0)
    add(study, 2, 2.0)
    history = read(study, before)
    rows, y = history.evaluated()
    torch.testing.assert_close(KNOWN.encode(rows), encoded(0, 1, 2), rtol=0, atol=1e-12)
    assert y.tolist() == [worst, 5.0, 2.0]
    assert len(history.unevaluated) == 0


def test_failed_trials_have_been_tried_and_no_more() -> None:
    study = optuna.create_study()
    add(study, 0, None, TrialState.FAIL)
    history = read(study)
    assert len(history.evaluated()[1]) == 0
    torch.testing.assert_close(KNOWN.encode(history.unevaluated), encoded(0), rtol=0, atol=1e-12)


def test_a_place_where_most_trials_fail_is_as_bad_as_the_worst() -> None:
    study = optuna.create_study()
    add(study, 1, 7.0)
    add(study, 2, 3.0)
    add(study, -1, None, TrialState.FAIL)
    add(study, 0, None, TrialState.FAIL)
    history = read(study)
    assert history.evaluated()[1].tolist() == [7.0, 3.0]
    assert len(history.unevaluated) == 2
    add(study, -2, None, TrialState.FAIL)
    assert read(study, history).evaluated()[1].tolist() == [7.0, 3.0, 7.0, 7.0]
    assert len(history.unevaluated) == 1
    for number in (-3, -4):
        add(study, number, 1.0)
    assert read(study, history).evaluated()[1].tolist() == [7.0, 3.0, 1.0, 1.0]
    assert len(history.unevaluated) == 3


def test_a_pruned_trial_is_half_of_a_failure_once_it_can_have_been_poorer_than_another() -> None:
    study = optuna.create_study()
    add(study, 0, None, TrialState.PRUNED)
    add(study, 1, None, TrialState.FAIL)
    history = read(study)
    outcomes = history.outcomes()
    assert outcomes is not None
    assert outcomes[2].tolist() == [1.0, 1.0]
    add(study, 2, 5.0)
    outcomes = read(study, history).outcomes()
    assert outcomes is not None
    assert outcomes[2].tolist() == [0.5, 1.0, 1.0]
    assert outcomes[1].tolist() == [False, False, True]


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_a_study_that_only_fails(state: TrialState) -> None:
    study = optuna.create_study()
    history = History(KNOWN, maximize=False)
    for number in range(3):
        assert not history.only_fails
        add(study, number, None, state)
        read(study, history)
    assert history.only_fails
    add(study, 3, 1.0)
    assert not read(study, history).only_fails


def test_trials_without_a_known_parameter_say_nothing() -> None:
    study = optuna.create_study()
    other = {"other": FloatDistribution(0.0, 1.0)}
    study.add_trial(optuna.trial.create_trial(params={"other": 0.5}, distributions=other, value=1.0))
    study.add_trial(optuna.trial.create_trial(value=1.0))
    history = read(study)
    assert len(history.evaluated()[1]) == 0
    assert history.asked == {}


def test_what_trials_asked_for() -> None:
    study = optuna.create_study()
    wide, narrow = FloatDistribution(0.0, 9.0), FloatDistribution(0.0, 1.0)
    study.tell(study.ask({"drop": wide}), 0.0)
    running = study.ask({"drop": narrow, "depth": SPACE["depth"]})
    history = read(study)
    assert history.asked == {"drop": narrow, "depth": SPACE["depth"]}
    assert history.asked_by_finished == {"drop"}
    assert list(history.running) == [running.number]


def test_a_finished_trial_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which trials end."""
    times_read: list[float] = []
    to_internal_repr = FloatDistribution.to_internal_repr
    study = optuna.create_study()
    trials = [study.ask(SPACE) for _ in range(6)]
    history = read(study)
    monkeypatch.setattr(
        FloatDistribution,
        "to_internal_repr",
        lambda dist, value: times_read.append(value) or to_internal_repr(dist, value),
    )
    for index in (3, 0, 5, 1, 2, 4):
        study.tell(trials[index], float(index))
        read(study, history)
        read(study, history)
    rates = [trial.params["rate"] for trial in trials]
    assert sorted(value for value in times_read if value in rates) == sorted(rates)
    assert history.evaluated()[1].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert history.running == {}
    assert OPTIMUM.keys() == history.asked_by_finished
