"""Studies whose parameters differ from the past's: what applies is used, the rest is learned, one warning says so."""

import copy
import math
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from torch import Tensor
from torch.distributions import Normal

import bayesmeta as bm
from bayesmeta import Data
from bo import MetaSampler, SearchSpace, TuningPrior, UnlikePastWarning
from bo.space.choices import as_choice
from tests.bo.past import SPACE, learned, loss, objective
from tests.bo.space.test_search_space import kinds
from tests.seeds import shifted

Space = dict[str, BaseDistribution]


def run(
    space: Space, num: int, value: Callable[[dict[str, Any]], float] = lambda params: 0.0, *, number: int = 0
) -> list[dict[str, Any]]:
    """What is suggested, in one study of another space, by its number."""
    study = optuna.create_study(sampler=MetaSampler(learned(), seed=shifted(number)))
    for _ in range(num):
        trial = study.ask(space)
        study.tell(trial, value(trial.params))
    return [t.params for t in study.trials]


def told(space: Space, num: int = 3) -> list[str]:
    """The warnings of one study."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(space, num)
    return [str(each.message) for each in caught]


# ---- ranges and scales

DIFFERENT: Space = {
    "narrower": FloatDistribution(0.05, 0.1, log=True),
    "wider": FloatDistribution(1e-8, 1e3, log=True),
    "linear": FloatDistribution(1e-4, 1.0),
    "below zero": FloatDistribution(-1.0, 1.0),
    "stepped": FloatDistribution(0.1, 0.9, step=0.2),
    "whole": IntDistribution(0, 3),
    "one value": FloatDistribution(0.5, 0.5),
}


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
@pytest.mark.parametrize("rate", DIFFERENT.values(), ids=DIFFERENT)
def test_other_ranges_are_obeyed(rate: BaseDistribution) -> None:
    for params in run({**SPACE, "rate": rate}, 4):
        assert rate._contains(rate.to_internal_repr(params["rate"]))
        assert isinstance(params["rate"], int if isinstance(rate, IntDistribution) else float)


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
def test_a_narrower_range_is_searched_for_the_best_that_is_in_it() -> None:
    """Near the past's optimum, not at the end of the range where the past's own optimum would be clipped to."""
    first = run({**SPACE, "kind": CategoricalDistribution(("linear",)), "depth": IntDistribution(1, 3)}, 1)[0]
    assert abs(math.log10(first["rate"]) + 2) < 1
    assert first["depth"] == 3


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
def test_an_optimum_outside_the_past_ranges_is_found() -> None:
    space = {**SPACE, "drop": FloatDistribution(0.0, 2.0)}
    seen = run(space, 20, lambda params: loss({**params, "drop": params["drop"] - 1.3}))
    assert min(abs(params["drop"] - 1.6) for params in seen) < 0.1


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
@pytest.mark.parametrize(("low", "high", "best"), [(0.0, 30.0, 21.0), (-900.0, -100.0, -444.0)])
def test_an_optimum_far_outside_the_past_ranges_is_found(low: float, high: float, best: float) -> None:
    """Where the past's range is a small part of the study's, or none of it."""
    space, width = {**SPACE, "drop": FloatDistribution(low, high)}, high - low

    def fifth_nearest(number: int) -> float:
        seen = run(space, 25, lambda p: loss({**p, "drop": 0.3 + 2.0 * (p["drop"] - best) / width}), number=number)
        return sorted(abs(params["drop"] - best) for params in seen)[4]

    # .02 +- .01 over most seeds, and .11 in some; random search has five of 25 as near in one study of two
    assert statistics.median(fifth_nearest(number) for number in range(3)) < 0.1 * width


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
def test_nothing_is_repeated_in_a_narrower_range() -> None:
    narrow = {"drop": FloatDistribution(0.0, 1.0, step=0.5), "depth": IntDistribution(1, 3), "kind": SPACE["kind"]}
    seen = [tuple(params.values()) for params in run(narrow, 27)]
    assert len(set(seen)) == 27


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
def test_ranges_may_change_from_trial_to_trial() -> None:
    study = optuna.create_study(sampler=MetaSampler(learned(), seed=shifted(0)))
    for number in range(6):
        rate, depth = FloatDistribution(1e-4, 0.01 * (number + 1), log=True), IntDistribution(number, number + 4)
        trial = study.ask({**SPACE, "rate": rate, "depth": depth})
        assert trial.params["rate"] <= rate.high
        assert depth.low <= trial.params["depth"] <= depth.high
        study.tell(trial, loss(trial.params))


# ---- categories


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
def test_choices_that_the_past_lacks_are_learned() -> None:
    """Two new kinds, of which one is better than any that the past had."""
    space = {**SPACE, "kind": CategoricalDistribution(("linear", "boosted", "forest", "tree", "neural"))}
    worse = {"boosted": -0.5, "neural": 0.9}
    seen = run(space, 25, lambda params: loss({**params, "kind": "tree"}) + worse.get(params["kind"], 0.3))
    kinds = [params["kind"] for params in seen]
    assert seen[0]["kind"] == "tree"
    assert {"boosted", "neural"} <= set(kinds)
    assert kinds.count("boosted") > 2 * kinds.count("neural")
    assert kinds.count("boosted") > kinds.count("tree")


# ---- parameters that are new, missing, or of another kind


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
def test_a_new_parameter_is_learned_while_the_study_runs() -> None:
    space = {**SPACE, "new": FloatDistribution(0.0, 100.0)}
    seen = run(space, 60, lambda params: loss(params) + (params["new"] - 70.0) ** 2 / 1000)
    distance = torch.tensor([abs(params["new"] - 70.0) for params in seen[20:]])
    assert distance.median() < 18.0  # about 9.5 +- 1.6; a few points explore, and uniform ones have 25
    assert abs(math.log10(seen[0]["rate"]) + 2) < 1


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
def test_new_parameters_may_be_left_to_any_sampler() -> None:
    grid = optuna.samplers.GridSampler({"new": [1.0, 2.0, 3.0]})
    study = optuna.create_study(sampler=MetaSampler(learned(), independent_sampler=grid, seed=shifted(0)))
    study.optimize(lambda trial: objective(1)(trial) + trial.suggest_float("new", 0.0, 9.0), n_trials=3)
    assert {t.params["new"] for t in study.trials} == {1.0, 2.0, 3.0}


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
def test_a_parameter_that_is_not_asked_for_is_no_obstacle() -> None:
    seen = run({"rate": SPACE["rate"], "depth": SPACE["depth"]}, 4)
    assert all(set(p) == {"rate", "depth"} for p in seen)
    assert abs(math.log10(seen[0]["rate"]) + 2) < 1


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
def test_a_study_without_anything_in_common_is_left_to_the_other_sampler() -> None:
    space: Space = {"a": FloatDistribution(0.0, 1.0), "kind": FloatDistribution(0.0, 1.0)}
    alone = optuna.samplers.TPESampler(seed=shifted(0), multivariate=False)
    study = optuna.create_study(sampler=copy.deepcopy(alone))
    for _ in range(12):
        trial = study.ask(space)
        study.tell(trial, trial.params["a"])
    assert run(space, 12, lambda params: params["a"]) == [t.params for t in study.trials]


# ---- whatever is asked for


class Level:
    """The least that a sampler asks of a posterior: the same everywhere, whatever was seen."""

    def condition(self, data: Data) -> "Level":
        return self

    def marginal(self, x: Tensor) -> Normal:
        return Normal(x.new_zeros(len(x)), x.new_ones(len(x)), validate_args=False)


@pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning")
@settings(max_examples=25)
@given(data=st.data())
def test_whatever_a_study_asks_for_it_gets(data: st.DataObject) -> None:
    """Any past, any study, parameters that differ from trial to trial, and trials that end in any way or do not."""
    distribution = st.one_of(*kinds.values())
    names = ("a", "b", "c")
    known = SearchSpace({name: data.draw(distribution) for name in names})
    study = optuna.create_study(sampler=MetaSampler(TuningPrior(known, "minimize", Level()), seed=shifted(0)))
    asked = {name: data.draw(distribution) for name in (*names, "d")}
    for value in (1.0, None, math.inf, 0.0, 2.0):
        trial = study.ask({name: asked[name] for name in data.draw(st.permutations(list(asked)))[:3]})
        for name, found in trial.params.items():
            assert asked[name]._contains(asked[name].to_internal_repr(found))
        if data.draw(st.booleans()):
            study.tell(trial, value, state=None if value is not None else TrialState.FAIL)


# ---- what is said about it


def test_nothing_is_said_where_nothing_differs() -> None:
    assert told(SPACE) == []


def test_one_warning_names_what_differs() -> None:
    space: Space = {
        "drop": FloatDistribution(0.0, 2.0),
        "kind": CategoricalDistribution(("tree", "boosted")),
        "depth": CategoricalDistribution((1, 2)),
        "new": FloatDistribution(0.0, 1.0),
        "constant": IntDistribution(3, 3),
    }
    (message,) = told(space)
    assert "says nothing of 'depth', 'new', left to TPESampler" in message
    assert "also had 'rate', taken as missing" in message
    assert "of 'drop', 'kind' the past had other values" in message
    assert "constant" not in message


def test_each_study_is_told_of_once() -> None:
    sampler = MetaSampler(learned(), seed=shifted(0))
    for _ in range(2):
        study = optuna.create_study(sampler=sampler)
        with pytest.warns(UserWarning, match="also had 'drop', 'depth', 'kind'"):
            study.tell(study.ask({"rate": SPACE["rate"]}), 0.0)
        study.tell(study.ask({"rate": SPACE["rate"]}), 0.0)


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_a_trial_that_ended_early_is_not_what_a_study_asks_for(state: TrialState) -> None:
    study = optuna.create_study(sampler=MetaSampler(learned(), seed=shifted(0)))
    study.tell(study.ask({"rate": SPACE["rate"]}), state=state)
    study.tell(study.ask(SPACE), 0.0)


# ---- conditional parameters


def conditional(trial: optuna.Trial, shift: float = 0.0) -> float:
    kernel = trial.suggest_categorical("kernel", ["linear", "poly", "rbf"])
    value = (math.log10(trial.suggest_float("c", 1e-3, 1e3, log=True)) - 1 - shift) ** 2
    if kernel == "poly":
        return value + 0.5 + 0.3 * (trial.suggest_int("degree", 2, 6) - 3) ** 2
    if kernel == "rbf":
        return value + (math.log10(trial.suggest_float("gamma", 1e-4, 1.0, log=True)) + 2) ** 2
    return value + 2.0


@pytest.fixture(scope="module")
def kernels() -> TuningPrior:
    past = []
    for task in range(4):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=shifted(task)))
        study.optimize(lambda trial, shift=0.1 * task: conditional(trial, shift), n_trials=30)
        past.append(study)
    return TuningPrior.from_studies(past)


def test_conditions_are_learned_and_kept_to(kernels: TuningPrior) -> None:
    assert kernels.space.conditions == {"degree": ("kernel", ("poly",)), "gamma": ("kernel", ("rbf",))}
    study = optuna.create_study(sampler=MetaSampler(kernels, seed=shifted(0)))
    study.optimize(conditional, n_trials=8)
    assert study.trials[0].value < 1  # by chance one time in thirteen
    assert study.best_value < 0.3


def test_a_study_without_the_conditions_gets_all_that_it_asks_for(kernels: TuningPrior) -> None:
    space = {**kernels.space.distributions, "kernel": CategoricalDistribution(("poly", "rbf", "linear"))}
    study = optuna.create_study(sampler=MetaSampler(kernels, seed=shifted(0)))
    with pytest.warns(UserWarning, match="of 'kernel' the past had other values"):
        study.tell(study.ask(dict(reversed(space.items()))), 1.0)
    for _ in range(2):
        study.tell(study.ask(space), 1.0)
    assert all(set(t.params) == set(space) for t in study.trials)


def by_stage(trial: optuna.Trial, shift: float = 0.0) -> float:
    """Categories that are there with some whole numbers, or with choices of others, and a number under them."""
    value = 0.2 * abs(trial.suggest_int("stages", 1, 3) - 2)
    if trial.params["stages"] == 1:
        return value
    kind = trial.suggest_categorical("second", ["plain", "gated", "none"])
    value += {"plain": 0.2, "gated": 0.0, "none": 0.4}[kind]
    if kind != "gated":
        return value
    if trial.suggest_categorical("is_warm", [True, False]):
        return value + abs(trial.suggest_float("gate", 0.0, 1.0) - 0.6 - shift)
    return value + 0.3


def test_categories_that_are_conditional_themselves() -> None:
    past = []
    for task in range(4):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=shifted(task)))
        study.optimize(lambda trial, shift=0.02 * task: by_stage(trial, shift), n_trials=60)
        past.append(study)
    prior = TuningPrior.from_studies(past)
    assert {name: decider for name, (decider, _) in prior.space.conditions.items()} == {
        "second": "stages",
        "is_warm": "second",
        "gate": "is_warm",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study = optuna.create_study(sampler=MetaSampler(prior, seed=shifted(0)))
        study.optimize(by_stage, n_trials=12)
        study.enqueue_trial({"stages": 1})
        study.enqueue_trial({"stages": 3, "second": "plain"})
        study.optimize(by_stage, n_trials=2)
    assert study.best_value < 0.1  # random search has .2


LAYERS = [(50,), (100,), (50, 50), (100, (20, 20))]


def by_layers(trial: optuna.Trial) -> float:
    layers = as_choice(trial.suggest_categorical("layers", LAYERS))  # a list after its way through a database
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    extra = trial.suggest_float("extra", 0.0, 1.0) if len(layers) == 2 else 0.5
    return (6.0, 5.0, 0.0, 4.0)[LAYERS.index(layers)] + abs(math.log10(rate) + 2) + 0.1 * extra


def database() -> optuna.storages.RDBStorage:
    """One that writes no files, whose waits for the disk take longer than all else."""
    return optuna.storages.RDBStorage("sqlite:///:memory:")


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution:UserWarning")
@pytest.mark.parametrize("past_is_stored", [False, True])
@pytest.mark.parametrize("is_stored", [False, True])
def test_choices_that_are_tuples_are_known_again(past_is_stored: bool, is_stored: bool, tmp_path: Any) -> None:
    """A database makes lists of them, and so does a file."""
    storage = database() if past_is_stored else None
    past = []
    for number in range(4):
        sampler = optuna.samplers.RandomSampler(seed=shifted(number))
        past.append(optuna.create_study(storage=storage, study_name=f"past {number}", sampler=sampler))
        past[-1].optimize(by_layers, n_trials=25)
    bm.save(TuningPrior.from_studies(past), tmp_path / "prior.safetensors")
    prior = bm.load(tmp_path / "prior.safetensors")
    assert set(prior.space.distributions["layers"].choices) == set(LAYERS)
    category, choices = prior.space.conditions["extra"]
    assert (category, set(choices)) == ("layers", set(LAYERS[2:]))
    new = optuna.create_study(storage=database() if is_stored else None, sampler=MetaSampler(prior, seed=shifted(0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnlikePastWarning)
        new.optimize(by_layers, n_trials=3)
    # each was one of the choices as the study has them, and the past's best comes first
    assert as_choice(new.trials[0].params["layers"]) == (50, 50)
