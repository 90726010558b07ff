"""The Optuna sampler: what it suggests first, what it does as Optuna runs a study, what it repeats."""

import copy
import math
import statistics
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

import bayesmeta as bm
from bayesmeta import GaussianProcess
from bo import MetaSampler, SearchSpace, TuningPrior
from tests.bo.past import OPTIMUM, SPACE, learned, loss, objective, random_params, studies
from tests.seeds import shifted


def new_study(sampler: optuna.samplers.BaseSampler, direction: str = "minimize") -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=sampler)


def suggestions(sampler: MetaSampler, num: int) -> list[dict[str, Any]]:
    study = new_study(sampler, sampler.prior.direction)
    sign = 1.0 if sampler.prior.direction == "minimize" else -1.0
    for _ in range(num):
        trial = study.ask(SPACE)
        study.tell(trial, sign * loss(trial.params))
    return [t.params for t in study.trials]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_first_suggestion_is_near_the_optimum_that_past_tasks_share(direction: str) -> None:
    first = [suggestions(MetaSampler(learned(direction), seed=shifted(number)), 1)[0] for number in range(3)]
    assert suggestions(MetaSampler(learned(direction), seed=shifted(0)), 1)[0] == first[0]
    by_chance = sorted(loss(random_params(number)) for number in range(200))
    for params in first:
        assert params["kind"] == "tree"
        assert abs(math.log10(params["rate"]) + 2) < 1
        assert loss(params) < by_chance[10]


def test_few_trials_come_closer() -> None:
    values = [loss(p) for p in suggestions(MetaSampler(learned(), seed=shifted(0)), 10)]
    assert min(values) < 0.02


def test_equal_seeds_give_equal_studies_and_others_differ() -> None:
    a, b, c = (suggestions(MetaSampler(learned(), seed=shifted(number)), 4) for number in (1, 1, 2))
    assert a == b
    assert a != c


def test_a_study_that_is_resumed_goes_on_as_it_would_have() -> None:
    whole = new_study(MetaSampler(learned(), seed=shifted(0)))
    whole.optimize(objective(1), n_trials=6)
    parts = new_study(MetaSampler(learned(), seed=shifted(0)))
    for _ in range(3):
        parts.sampler = MetaSampler(learned(), seed=shifted(0))
        parts.optimize(objective(1), n_trials=2)
    assert [t.params for t in parts.trials] == [t.params for t in whole.trials]


def test_workers_that_reseed_differ() -> None:
    original = MetaSampler(learned(), seed=shifted(0))
    other = copy.deepcopy(original)
    other.reseed_rng()
    assert suggestions(original, 4) != suggestions(other, 4)


def test_a_loaded_prior_suggests_exactly_as_the_saved_one(tmp_path: Path) -> None:
    bm.save(learned(), tmp_path / "prior.safetensors")
    loaded = bm.load(tmp_path / "prior.safetensors")
    assert suggestions(MetaSampler(loaded, seed=shifted(0)), 5) == suggestions(
        MetaSampler(learned(), seed=shifted(0)), 5
    )


def test_from_studies() -> None:
    sampler = MetaSampler.from_studies(studies(num=3), seed=shifted(0))
    assert sampler.prior.learned_from == bm.fields.LearnedFrom(3, 90)
    study = new_study(sampler)
    study.optimize(objective(1), n_trials=3)
    assert len(study.trials) == 3


def test_a_study_of_the_other_direction_is_refused_before_it_wastes_a_trial() -> None:
    study = new_study(MetaSampler(learned()), "maximize")
    with pytest.raises(
        ValueError, match='learned to minimize and the study is to maximize; create it with direction="minimize"'
    ):
        study.ask()


def test_a_prior_without_a_space_is_refused() -> None:
    with pytest.raises(TypeError, match="TuningPrior"):
        MetaSampler(GaussianProcess(torch.ones(2), torch.ones(()), torch.ones(())))


# ---- how Optuna runs studies


def test_failed_and_pruned_trials_are_not_rows() -> None:
    def run(trial: optuna.Trial) -> float:
        value = objective(1)(trial)
        if trial.number == 1:
            raise optuna.TrialPruned
        if trial.number == 2:
            raise ArithmeticError
        return value if trial.number != 3 else math.nan

    study = new_study(MetaSampler(learned(), seed=shifted(0)))
    study.optimize(run, n_trials=6, catch=(ArithmeticError,))
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]


def test_infinite_values_are_rows_like_others() -> None:
    study = new_study(MetaSampler(learned(), seed=shifted(0)))
    study.tell(study.ask(SPACE), math.inf)
    study.tell(study.ask(SPACE), 1.0)
    assert "rate" in study.ask(SPACE).params


def test_enqueued_trials_are_run_as_given() -> None:
    study = new_study(MetaSampler(learned(), seed=shifted(0)))
    study.enqueue_trial({**OPTIMUM, "kind": "linear"})
    study.enqueue_trial({"kind": "forest"})
    study.optimize(objective(1), n_trials=3)
    assert study.trials[0].params == {**OPTIMUM, "kind": "linear"}
    assert study.trials[1].params["kind"] == "forest"


def test_trials_in_parallel_differ() -> None:
    study = new_study(MetaSampler(learned(), seed=shifted(0)))
    trials = [study.ask(SPACE) for _ in range(4)]
    assert len({tuple(t.params.values()) for t in trials}) == 4
    study.optimize(objective(1), n_trials=6, n_jobs=2)
    assert len(study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))) == 6


TINY: dict[str, BaseDistribution] = {"kind": CategoricalDistribution(("a", "b", "c")), "depth": IntDistribution(1, 3)}


def test_nothing_is_repeated_until_the_space_is_exhausted() -> None:
    space = SearchSpace(TINY)
    width = space.num_columns
    prior = TuningPrior(
        space, "minimize", GaussianProcess(torch.ones(width), torch.ones(()), 0.01 * torch.ones(())), scores=False
    )
    study = new_study(MetaSampler(prior, seed=shifted(0)))
    for number in range(12):
        trial = study.ask(TINY)
        study.tell(trial, trial.params["depth"] + number / 100)
    seen = [tuple(t.params.values()) for t in study.trials]
    assert len(set(seen[:9])) == 9
    assert len(seen) == 12


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_posterior_in_the_units_of_the_objective(direction: str) -> None:
    """`scores=False`: the GP sees the values as they are, in the study's own direction."""
    space = SearchSpace({"a": FloatDistribution(0.0, 1.0)})
    process = GaussianProcess(torch.full((1,), 0.3), torch.ones(()), torch.full((), 1e-4))
    prior = TuningPrior(space, direction, process, scores=False)
    sign, distances = 1.0 if direction == "minimize" else -1.0, []
    for number in range(4):
        study = new_study(MetaSampler(prior, seed=shifted(number)), direction)
        study.optimize(lambda trial: sign * (trial.suggest_float("a", 0.0, 1.0) - 0.7) ** 2, n_trials=10)
        distances.append(abs(study.best_params["a"] - 0.7))
    assert statistics.mean(distances) < 0.045  # of one study about .017 +- .011


def test_a_suggestion_is_quick() -> None:
    """At 25 rows and 6 columns; about 0.04 CPU-seconds where it was measured, so this notices disasters only."""
    assert learned().space.num_columns == 6
    study = new_study(MetaSampler(learned(), seed=shifted(0)))
    for number in range(25):
        params = random_params(number)
        study.add_trial(optuna.trial.create_trial(params=params, distributions=SPACE, value=loss(params)))
    seconds = []
    for _ in range(5):
        start = time.process_time()
        trial = study.ask(SPACE)
        seconds.append(time.process_time() - start)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert statistics.median(seconds) < 0.3


def test_a_sampler_takes_the_file_of_a_prior(tmp_path: Path) -> None:
    bm.save(learned(), tmp_path / "prior")
    for path in (tmp_path / "prior", str(tmp_path / "prior")):
        assert MetaSampler(path, seed=shifted(0)).prior.space.names == learned().space.names
    with pytest.raises(FileNotFoundError, match="no prior at"):
        MetaSampler(tmp_path / "none")
