"""Several workers at once: what runs is believed, whoever runs it, and whether or not it will ever end."""

import copy
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import Tensor

from bayesmeta import Data, GaussianProcess
from bo import MetaSampler, SearchSpace, TuningPrior
from bo.acquisition.improvement import believing
from tests.bo.past import OPTIMUM, SPACE, learned, loss, objective, random_params
from tests.families import seed
from tests.seeds import shifted

KNOWN = learned().space


def study_of(sampler: MetaSampler, **kwargs: Any) -> optuna.Study:
    return optuna.create_study(sampler=sampler, **kwargs)


def distances(params: list[dict[str, Any]]) -> Tensor:
    """Between each two of them, in the unit cube."""
    return torch.nn.functional.pdist(KNOWN.to_unit(params))


# ---- what is believed


def rows(num: int) -> Data:
    params = [random_params(number) for number in range(num)]
    return Data.of(KNOWN.to_unit(params), torch.tensor([loss(p) for p in params], dtype=torch.float64))


def test_pending_points_are_rows_with_the_mean_that_was_expected() -> None:
    d = KNOWN.num_columns
    prior = GaussianProcess(torch.full((d,), 0.5).double(), torch.ones(()).double(), torch.full((), 0.01).double())
    x, pending = KNOWN.sobol(50, generator=seed(0)), KNOWN.sobol(3, generator=seed(1))
    for data in (rows(5), rows(0)):
        before = prior.condition(data)
        expected = before.marginal(pending).mean
        after, y = believing(prior, data, pending)
        torch.testing.assert_close(y, torch.cat([data.y, expected]))
        torch.testing.assert_close(after.marginal(x).mean, before.marginal(x).mean, rtol=0, atol=1e-6)
        by_hand = before.condition(Data.of(pending, expected)).marginal(x)
        torch.testing.assert_close(after.marginal(x).variance, by_hand.variance)


@pytest.mark.parametrize("num_rows", [1, 5])  # before any, below: trials asked for at once are apart
def test_less_is_promised_next_to_what_is_pending(num_rows: int) -> None:
    prior, data = learned(), rows(num_rows)
    x, nothing = KNOWN.sobol(512, generator=seed(0)), torch.empty(0, KNOWN.num_columns, dtype=torch.float64)
    turns = ["list"] * min(num_rows, 2)
    _, before = prior.suggest(data, nothing, turns)
    best = x[before(x).argmax()][None]
    turn, after = prior.suggest(data, best, turns)
    if turn == "list":  # what others add to it: nothing is worth less than the same once more
        assert after(best) <= after(x).min() + 1e-9
    else:
        assert after(best) < before(best)


# ---- workers of one process


@pytest.mark.parametrize("num_finished", [0, 4])
def test_trials_asked_for_at_once_are_apart_and_sensible(num_finished: int) -> None:
    study = study_of(MetaSampler(learned(), seed=shifted(0)))
    for number in range(num_finished):
        params = random_params(number)
        study.add_trial(optuna.trial.create_trial(params=params, distributions=SPACE, value=loss(params)))
    params = [study.ask(SPACE).params for _ in range(4)]
    assert distances(params).min() > 0.05
    by_chance = sorted(loss(random_params(number)) for number in range(200))
    assert sum(loss(each) < by_chance[50] for each in params) >= 3


def test_what_a_trial_will_be_given_is_believed_before_it_asks() -> None:
    study = study_of(MetaSampler(learned(), seed=shifted(0)))
    first, second = study.ask(), study.ask()
    first.suggest_categorical("kind", ["linear", "tree", "forest"])
    second.suggest_categorical("kind", ["linear", "tree", "forest"])
    value, _ = (objective(1)(trial) for trial in (first, second))
    assert distances([first.params, second.params]).item() > 0.05
    # the second may be anything where the first is the best of all past tasks: the list has nothing to add
    assert value < sorted(objective(1)(optuna.trial.FixedTrial(random_params(n))) for n in range(40))[10]


def test_threads_do_not_repeat_each_other() -> None:
    study = study_of(MetaSampler(learned(), seed=shifted(0)))
    study.optimize(objective(1), n_trials=12, n_jobs=4)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 12
    assert distances([t.params for t in study.trials]).min() > 1e-6


def test_one_sampler_serves_studies_in_turn_as_if_alone() -> None:
    def run(samplers: list[MetaSampler]) -> list[list[dict[str, Any]]]:
        studies = [study_of(sampler) for sampler in samplers]
        for _ in range(3):
            trials = [study.ask() for study in studies]
            values = [objective(task)(trial) for task, trial in enumerate(trials)]
            for study, trial, value in zip(studies, trials, values, strict=True):
                study.tell(trial, value)
        return [[t.params for t in study.trials] for study in studies]

    shared = MetaSampler(learned(), seed=shifted(0))
    assert run([shared, shared]) == run([MetaSampler(learned(), seed=shifted(0)) for _ in range(2)])


def test_a_sampler_is_copied_to_a_process_with_its_seed() -> None:
    sampler = MetaSampler(learned(), seed=shifted(0))
    study = study_of(sampler)
    study.optimize(objective(1), n_trials=3)
    study.sampler = pickle.loads(pickle.dumps(sampler))
    assert study.ask(SPACE).params == study_of_same(study, sampler).ask(SPACE).params


def study_of_same(study: optuna.Study, sampler: MetaSampler) -> optuna.Study:
    """A copy of a study without its running trials."""
    copy = study_of(sampler)
    copy.add_trials([t for t in study.trials if t.state.is_finished()])
    return copy


# ---- workers of several processes


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def test_workers_of_one_database_see_what_the_other_runs(url: str) -> None:
    """Both with the same seed, which is what a script that is started twice has."""
    workers = [
        study_of(MetaSampler(learned(), seed=shifted(0)), storage=url, study_name="shared", load_if_exists=True)
        for _ in range(2)
    ]
    trials = [workers[number % 2].ask(SPACE) for number in range(4)]
    assert distances([trial.params for trial in trials]).min() > 0.05
    for number, trial in enumerate(trials):
        workers[number % 2].tell(trial.number, loss(trial.params))
    assert distances([worker.ask(SPACE).params for worker in workers]).min() > 1e-3


def asked_at_once(num_finished: int, number: int, num_workers: int = 4) -> Tensor:
    """Distances between what workers with seeds of their own take, where none has seen what another took."""
    study = study_of(MetaSampler(learned(), seed=shifted(number)))
    for _ in range(num_finished):
        trial = study.ask(SPACE)
        study.tell(trial, loss(trial.params))
    begun = [study.ask()._trial_id for _ in range(num_workers)]
    before = study._storage.get_all_trials(study._study_id)
    taken = []
    for worker, trial_id in enumerate(begun):
        sampler = MetaSampler(learned(), seed=shifted(100 * (number + 1) + worker))
        alone = optuna.Study(study.study_name, study._storage, sampler=sampler)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(study._storage, "get_all_trials", lambda *_, **__: copy.deepcopy(before))
            trial = optuna.Trial(alone, trial_id)
            objective(1)(trial)
        taken.append(trial.params)
    return distances(taken)


@pytest.mark.parametrize("num_finished", [0, 3, 9])
def test_workers_that_ask_at_the_same_moment_go_to_different_places(num_finished: int) -> None:
    """They see that others have begun and not where, and so guess it; two corners may promise as much as each other."""
    apart = torch.cat([asked_at_once(num_finished, number) for number in range(3)])
    assert (apart < 1e-3).sum() <= 1
    assert (apart < 0.05).double().mean() < 0.25  # three of four may share a corner once; all would, had they no guess
    assert apart.median() > 0.15


def test_trials_that_never_get_parameters_do_not_stop_others() -> None:
    """Twenty workers that were killed before they asked for anything, and a trial of a study of other parameters."""
    study = study_of(MetaSampler(learned(), seed=shifted(0)))
    for _ in range(20):
        study.ask()
    study.ask().suggest_float("other", 0.0, 1.0)
    for _ in range(5):
        trial = study.ask(SPACE)
        study.tell(trial, loss(trial.params))
    # the last ones may refine the best, and none repeats another
    assert distances([t.params for t in study.trials[-5:]]).min() > 1e-5


WORKER = """
import os, signal, sys
import optuna
import bayesmeta
from bo import MetaSampler

study = optuna.load_study(study_name="shared", storage=sys.argv[1], sampler=MetaSampler(bayesmeta.load(sys.argv[2])))
trial = study.ask(study.trials[0].distributions)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_killed_worker_leaves_a_trial_that_is_believed_for_ever(url: str, tmp_path: Path) -> None:
    import bayesmeta

    bayesmeta.save(learned(), tmp_path / "prior.safetensors")
    study = study_of(MetaSampler(learned(), seed=shifted(0)), storage=url, study_name="shared")
    study.tell(study.ask(SPACE), 1.0)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WORKER, url, str(tmp_path / "prior.safetensors")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL
    for _ in range(3):
        trial = study.ask(SPACE)
        study.tell(trial, loss(trial.params))
    assert [t.state.name for t in study.trials] == ["COMPLETE", "RUNNING", *["COMPLETE"] * 3]
    assert distances([t.params for t in study.trials]).min() > 1e-6


def test_stale_trials_of_a_small_space_are_not_taken_again() -> None:
    space = SearchSpace({"depth": SPACE["depth"]})
    process = GaussianProcess(torch.ones(1).double(), torch.ones(()).double(), torch.full((), 0.01).double())
    study = study_of(MetaSampler(TuningPrior(space, "minimize", process, scores=False), seed=shifted(0)))
    for _ in range(3):
        study.ask(dict(space.distributions))
    for _ in range(9):
        study.tell(study.ask(dict(space.distributions)), OPTIMUM["depth"])
    assert sorted(t.params["depth"] for t in study.trials) == list(range(1, 13))
