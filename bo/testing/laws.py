"""The laws that every sampler obeys, unless its case exempts it: functions that fail by an AssertionError.

They say how a sampler behaves in a study, whatever it finds. That it finds good configurations is for benchmarks
(`bo.replay`); that it speaks with Optuna as any sampler is for Optuna's own cases, `optuna.testing.pytest_samplers`.
"""

import pickle
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from bayesmeta.testing.exemptions import held_to
from bo.testing.case import Case

__all__ = ["LAWS", "Law", "laws_of"]

Law = Callable[[Case], None]

LAWS: list[Law] = []


def law(function: Law) -> Law:
    """Decorator that enters a law."""
    LAWS.append(function)
    return function


def laws_of(case: Case) -> list[Law]:
    """The laws that `case` is held to, to be called with it.

    Raises:
        ValueError: it is exempt from a law that there is not.
    """
    return held_to(LAWS, case.exempt)


def quietly(law: Law) -> Law:
    """What a sampler or Optuna warns of on the way does not count."""

    @wraps(law)
    def call(case: Case) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            law(case)

    return call


def has(distribution: BaseDistribution, value: Any) -> bool:
    return distribution._contains(distribution.to_internal_repr(value))


@law
def suggestions_are_in_their_ranges(case: Case) -> None:
    for params in case.run(case.study(), 12):
        assert params.keys() == case.distributions.keys()
        for name, value in params.items():
            assert has(case.distributions[name], value), f"{name} = {value!r}"


@law
@quietly
def a_study_may_have_other_ranges(case: Case) -> None:
    """Half of each range, and the second half of the choices."""
    narrower = {name: _half(distribution) for name, distribution in case.distributions.items()}
    study = case.study()
    for _ in range(8):
        trial = study.ask(narrower)
        assert all(has(narrower[name], value) for name, value in trial.params.items()), trial.params
        study.tell(trial, case.objective(trial.params))


@law
def equal_seeds_suggest_the_same(case: Case) -> None:
    assert case.run(case.study(1), 8) == case.run(case.study(1), 8)


@law
def a_study_goes_on_in_another_process(case: Case) -> None:
    """With a sampler of the same seed, and with a copy of the sampler."""
    storage = InMemoryStorage()
    case.run(case.study(1, storage), 5)
    copied = case.study(1, storage)
    copied.sampler = pickle.loads(pickle.dumps(copied.sampler))
    rest = case.run(copied, 3)
    assert case.run(case.study(1), 8)[5:] == rest


@law
def global_streams_are_left_alone(case: Case) -> None:
    """Those of torch and NumPy; that of Python also moves where a type checker picks what to look at."""
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist()
    case.run(case.study(), 8)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state(legacy=False)["state"]["key"].tolist()


@law
def workers_that_ask_at_once_go_to_different_places(case: Case) -> None:
    study = case.study()
    case.run(study, 5)
    running = [study.ask(dict(case.distributions)).params for _ in range(4)]
    assert all(a != b for i, a in enumerate(running) for b in running[:i])


@law
def no_configuration_is_tried_twice(case: Case) -> None:
    """Where there are more of them than trials."""
    taken = case.run(case.study(), 12)
    assert all(a != b for i, a in enumerate(taken) for b in taken[:i])


@law
@quietly
def trials_without_a_value_do_not_end_a_study(case: Case) -> None:
    """They fail, are pruned, have no number, are infinitely bad or good, or never end."""
    study, worst = case.study(), float("inf") if case.direction == "minimize" else -float("inf")
    for number in range(15):
        trial = study.ask(dict(case.distributions))
        match number % 6:
            case 0:
                study.tell(trial, state=TrialState.FAIL)
            case 1:
                study.tell(trial, state=TrialState.PRUNED)
            case 2:
                study.tell(trial, float("nan"), skip_if_finished=True)
            case 3:
                study.tell(trial, worst)
            case 4:
                study.tell(trial, -worst)
            case _:
                pass
        if number >= 9:
            other = study.ask(dict(case.distributions))
            study.tell(other, case.objective(other.params))
    assert all(has(case.distributions[n], v) for trial in study.trials for n, v in trial.params.items())


@law
def parameters_that_are_set_are_kept(case: Case) -> None:
    study, name = case.study(), next(iter(case.distributions))
    taken = case.run(study, 5)
    study.enqueue_trial({name: taken[0][name]})
    trial = study.ask(dict(case.distributions))
    assert trial.params[name] == taken[0][name]
    assert trial.params.keys() == case.distributions.keys()


@law
def trials_by_others_are_learned_from(case: Case) -> None:
    """Or do no harm: a study may begin with trials that were evaluated elsewhere."""
    study = case.study()
    for params in case.run(case.study(2), 6):
        known = optuna.trial.create_trial(
            params=params, distributions=dict(case.distributions), value=case.objective(params)
        )
        study.add_trial(known)
    for params in case.run(study, 3):
        assert all(has(case.distributions[name], value) for name, value in params.items())


def _half(distribution: BaseDistribution) -> BaseDistribution:
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution(distribution.choices[len(distribution.choices) // 2 :])
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    middle = (low * high) ** 0.5 if distribution.log else 0.5 * (low + high)
    if step is not None:
        middle = low + (middle - low) // step * step
    if isinstance(distribution, IntDistribution):
        return IntDistribution(int(middle), distribution.high, log=distribution.log, step=distribution.step)
    return FloatDistribution(middle, high, log=distribution.log, step=distribution.step)
