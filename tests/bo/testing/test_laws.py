"""The laws of `bo.testing`, asked of every sampler of ours; and that they fail samplers that break them."""

from dataclasses import dataclass, replace

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from bayesmeta import GaussianProcess
from bo import MetaSampler, SearchSpace, TuningPrior
from bo.acquisition import OnePosterior, StudyState, Suggestion
from bo.samplers.from_scratch import ScratchSampler
from bo.testing import LAWS, Case, Law, laws_of
from bo.values import Near
from tests.bo.past import SPACE, learned
from tests.seeds import shifted


@dataclass(frozen=True, eq=False)
class Middle:
    """A suggester that always wants the same point."""

    def suggest(self, study: StudyState) -> Suggestion:
        return Suggestion("middle", Near(torch.full((study.space.num_columns,), 0.5, dtype=torch.float64)))


def process() -> GaussianProcess:
    width = SearchSpace(SPACE).num_columns
    return GaussianProcess(torch.full((width,), 0.5).double(), torch.ones(()).double(), torch.full((), 1e-3).double())


CASES = {
    "past": Case(lambda seed: MetaSampler(learned(), seed=seed), SPACE, seed=shifted(0)),
    "one posterior": Case(
        lambda seed: MetaSampler(
            TuningPrior(SearchSpace(SPACE), "maximize", OnePosterior(process(), scores=False)), seed=seed
        ),
        SPACE,
        "maximize",
        seed=shifted(0),
    ),
    "a suggester of one's own": Case(
        lambda seed: MetaSampler(TuningPrior(SearchSpace(SPACE), "minimize", Middle()), seed=seed),
        SPACE,
        seed=shifted(0),
    ),
    "scratch": Case(lambda seed: ScratchSampler(SearchSpace(SPACE), seed=seed), SPACE, seed=shifted(0)),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", CASES)
def test_law(name: str, law: Law) -> None:
    law(CASES[name])


class Forgetful(optuna.samplers.BaseSampler):
    """Always the lowest value, and a draw of the global stream."""

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        return SPACE[param_name].choices[0] if param_name == "kind" else SPACE[param_name].low


def test_a_sampler_that_breaks_laws_is_found() -> None:
    case = Case(lambda seed: Forgetful(), SPACE, seed=shifted(0))
    broken = []
    for law in LAWS:
        try:
            law(case)
        except (AssertionError, ValueError):
            broken.append(law.__name__)
    assert set(broken) >= {
        "a_study_may_have_other_ranges",
        "no_configuration_is_tried_twice",
        "workers_that_ask_at_once_go_to_different_places",
    }
    random = Case(lambda seed: optuna.samplers.RandomSampler(), SPACE, seed=shifted(0))
    with pytest.raises(AssertionError):
        next(law for law in LAWS if law.__name__ == "equal_seeds_suggest_the_same")(random)


def test_a_case_names_the_laws_that_it_is_exempt_from() -> None:
    case = CASES["scratch"]
    exempt = replace(case, exempt=frozenset({"no_configuration_is_tried_twice"}))
    assert len(laws_of(exempt)) == len(LAWS) - 1
    with pytest.raises(ValueError, match="there is no 'no_such_law'"):
        laws_of(replace(case, exempt=frozenset({"no_such_law"})))


def test_a_space_of_few_configurations_is_refused() -> None:
    few = {"depth": IntDistribution(1, 9, step=2), "kind": CategoricalDistribution(("a", "b", "c"))}
    with pytest.raises(ValueError, match="this space has 15"):
        Case(lambda seed: optuna.samplers.RandomSampler(seed=seed), few)
    Case(lambda seed: optuna.samplers.RandomSampler(seed=seed), {**few, "rate": FloatDistribution(0.0, 1.0)})
