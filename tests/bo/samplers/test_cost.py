"""Long studies: what a suggestion costs, and what a sampler keeps, with thousands of trials."""

import gc
import statistics
import time
from itertools import count

import optuna
import pytest
from optuna.distributions import FloatDistribution
from torch import Tensor

from bo import MetaSampler, SearchSpace
from bo.samplers.point_sampler import Proposal
from bo.space.scalars import Scalars
from bo.space.study_space import View
from tests.bo.past import SPACE, learned, loss, random_params
from tests.seeds import shifted


def long_study(num: int) -> optuna.Study:
    """With finished trials, and one suggestion made."""
    study = optuna.create_study(sampler=MetaSampler(learned(), seed=shifted(0)))
    extend(study, num)
    one_more(study)
    return study


def extend(study: optuna.Study, num: int) -> None:
    for number in range(num):
        params = random_params(number)
        study.add_trial(optuna.trial.create_trial(params=params, distributions=SPACE, value=loss(params)))


def one_more(study: optuna.Study) -> None:
    trial = study.ask(SPACE)
    study.tell(trial, loss(trial.params))


def test_a_suggestion_reads_new_trials_only(monkeypatch: pytest.MonkeyPatch) -> None:
    study, num_read = long_study(300), count()
    to_internal_repr = FloatDistribution.to_internal_repr
    monkeypatch.setattr(
        FloatDistribution, "to_internal_repr", lambda dist, value: next(num_read) and to_internal_repr(dist, value)
    )
    for _ in range(3):
        one_more(study)
    assert next(num_read) < 60  # of two floats of three trials, by Optuna and by the sampler


@pytest.mark.slow
def test_the_time_of_a_suggestion_grows_slowly() -> None:
    """Less than with the square of the number of trials; about 1.6 times where it was measured."""

    def seconds(study: optuna.Study) -> float:
        found = []
        for _ in range(5):
            start = time.process_time()
            one_more(study)
            found.append(time.process_time() - start)
        return statistics.median(found)

    study = long_study(500)
    few = seconds(study)
    extend(study, 1500)
    one_more(study)
    assert seconds(study) < 6 * few


def test_nothing_is_kept_of_trials_that_ended() -> None:
    """No object of the package and no tensor, while rows are one tensor of all."""

    def num_objects() -> int:
        gc.collect()
        return sum(type(each) in (Tensor, Proposal, View, SearchSpace, Scalars) for each in gc.get_objects())

    study = long_study(20)
    one_more(study)
    before = num_objects()
    for _ in range(6):
        one_more(study)
    assert num_objects() <= before + 2
