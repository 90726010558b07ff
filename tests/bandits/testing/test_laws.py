"""The laws of policies, asked of every kind of policy and state; and that they find what is wrong."""

import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import bandits
from bandits.prospects.propensity import Propensities
from bandits.prospects.prospects import Prospects
from bandits.testing import LAWS, Case, Law, laws_of
from bandits.testing.laws import played
from tests.bandits.testing.cases import ARMS, CASES, COIN, case

PAIRS = [(name, law) for name, case in CASES.items() for law in laws_of(case)]


@pytest.mark.parametrize(("name", "law"), PAIRS, ids=[f"{name}-{law.__name__}" for name, law in PAIRS])
def test_laws(name: str, law: Law) -> None:
    law(CASES[name])


SHIFTS = 6
EXEMPT = [(name, law) for name, case in CASES.items() for law in sorted(case.exempt)]


@pytest.mark.parametrize(("name", "law"), EXEMPT)
def test_no_case_is_exempt_from_a_law_that_it_obeys(name: str, law: str) -> None:
    (broken,) = [each for each in LAWS if each.__name__ == law]
    # a few rewards may say nothing of what a law asks, so that a case obeys it by chance
    cases = [dataclasses.replace(CASES[name], shift=CASES[name].shift + more) for more in range(SHIFTS)]
    with pytest.raises(AssertionError):
        _each(broken, cases)


def _each(law: Law, cases: list[Case]) -> None:
    for one in cases:
        law(one)


@pytest.mark.parametrize("name", CASES)
def test_a_pickled_policy_goes_on_as_it_would_have(name: str) -> None:
    policy = CASES[name].policy()
    played(CASES[name], policy, 5)
    again = pickle.loads(pickle.dumps(policy))
    assert played(CASES[name], again, 5, 5) == played(CASES[name], policy, 5, 5)


def test_a_case_is_exempt_from_no_law_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="there is no 'gravity'"):
        laws_of(dataclasses.replace(CASES["coins"], exempt=frozenset({"gravity"})))


class Boaster(bandits.ThompsonSampling):
    """Says that what it chooses was certain."""

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        return Propensities(super()._probabilities(prospects, generator).probability.round(), None)


class Grabber(bandits.ThompsonSampling):
    """Takes what is not there."""

    def _choose(self, prospects: Prospects, generator: Generator) -> Tensor:
        return prospects.online.draw(prospects.x, prospects.task, generator=generator)[..., 0].argmax(-1)


class Forgetful(bandits.EpsilonGreedy):
    """Is saved without its setting."""

    def _settings(self) -> dict[str, Any]:
        return {"epsilon": 1.0}


class Counting(bandits.ThompsonSampling):
    """Learns before it looks whether it may."""

    def update(self, choice: Any, reward: Any) -> None:
        self._learner.tallies.rewards += 1
        super().update(choice, reward)


BROKEN: dict[Callable[..., bandits.Policy], str] = {
    Boaster: "propensities_are_how_often_arms_are_chosen",
    Grabber: "what_is_not_available_is_not_chosen",
    Forgetful: "a_saved_policy_and_a_copy_go_on_as_it_would_have",
    Counting: "what_is_refused_changes_nothing",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_the_laws_find_what_is_wrong(kind: Any) -> None:
    options: dict[str, Any] = {"epsilon": 0.1} if kind is Forgetful else {}
    (law,) = [law for law in LAWS if law.__name__ == BROKEN[kind]]
    with pytest.raises(AssertionError):
        law(case(kind, COIN, ARMS, **options))
    law(case(kind.__base__, COIN, ARMS, **options))


def test_a_case_may_have_contexts_of_its_own() -> None:
    class OfUsers(Case):
        def draw_contexts(self, n: int, generator: Generator) -> Tensor:
            return torch.eye(self.width, dtype=torch.float64)[torch.randint(self.width, (n,), generator=generator)]

    diagonal = CASES["diagonal"]
    users = OfUsers(diagonal.make, width=3, shift=diagonal.shift)
    for law in laws_of(users)[:3]:
        law(users)
