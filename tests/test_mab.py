"""The facade says what MABWiser says: to the last digit where nothing is drawn, and in law where something is."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bandits
from bandits.mab import MAB, LearningPolicy
from bayesmeta import BetaBernoulli, LinearGaussian
from tests.seeds import shifted

ARMS = ["a", "b", "c"]
RNG = np.random.default_rng(shifted(0))
DECISIONS = RNG.choice(ARMS, 60)
REWARDS = RNG.integers(0, 2, 60)
CONTEXTS = RNG.normal(size=(60, 3))
NEW = RNG.normal(size=(5, 3))


def pair(name: str, **settings: Any) -> tuple[Any, Any]:
    """Ours and theirs, after the same two fits."""
    mabwiser = pytest.importorskip("mabwiser.mab")
    ours = MAB(ARMS, getattr(LearningPolicy, name)(**settings), seed=shifted(0))
    theirs = mabwiser.MAB(ARMS, getattr(mabwiser.LearningPolicy, name)(**settings), seed=shifted(0))
    contexts = (CONTEXTS[:40], CONTEXTS[40:]) if name.startswith("Lin") else (None, None)
    for mab in (ours, theirs):
        mab.fit(DECISIONS[:40], REWARDS[:40], contexts[0])
        mab.partial_fit(DECISIONS[40:], REWARDS[40:], contexts[1])
    return ours, theirs


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("LinUCB", {"alpha": 1.3, "l2_lambda": 0.7}),
        ("LinGreedy", {"epsilon": 0.0, "l2_lambda": 2.0}),
        ("UCB1", {"alpha": 0.8}),
        ("EpsilonGreedy", {"epsilon": 0.0}),
    ],
)
def test_what_is_not_drawn_is_the_same(name: str, settings: dict[str, Any]) -> None:
    ours, theirs = pair(name, **settings)
    contexts = NEW if name.startswith("Lin") else None
    expected, got = theirs.predict_expectations(contexts), ours.predict_expectations(contexts)
    rows = [[v] if contexts is None else v for v in (got, expected, ours.predict(contexts))]
    for mine, other, arm in zip(*rows, strict=True):
        assert mine == pytest.approx(other, abs=1e-6)
        assert other[arm] == pytest.approx(max(other.values()), abs=1e-6)  # any of those that tie


@pytest.mark.parametrize(("name", "settings"), [("LinTS", {"alpha": 0.6, "l2_lambda": 0.5}), ("ThompsonSampling", {})])
def test_what_is_drawn_has_the_same_law(name: str, settings: dict[str, Any]) -> None:
    ours, theirs = pair(name, **settings)
    n = 4000
    contexts = np.repeat(NEW[:1], n, 0) if name.startswith("Lin") else np.zeros((n, 3))
    for mab in (ours, theirs):
        assert len(mab.predict(contexts)) == n
    mine, other = (pd.DataFrame(mab.predict_expectations(contexts)) for mab in (ours, theirs))
    for arm in ARMS:
        spread = math.hypot(mine[arm].std(), other[arm].std()) / math.sqrt(n)
        assert abs(mine[arm].mean() - other[arm].mean()) < 5 * spread
        assert abs(math.log(mine[arm].std() / other[arm].std())) < 5 / math.sqrt(n)


def test_a_binarizer_decides_what_a_success_is() -> None:
    policy = LearningPolicy.ThompsonSampling(lambda arm, reward: reward > (3 if arm == "a" else 0))
    mab = MAB(ARMS, policy, seed=shifted(0))
    mab.fit(["a", "a", "b"], [2, 5, 1])
    posterior = mab.policy.posterior()
    assert posterior.successes[0].tolist() == [2.0, 2.0, 1.0] or posterior.successes.tolist() == [2.0, 2.0, 1.0]


def test_fit_forgets_and_partial_fit_does_not() -> None:
    mab = MAB(ARMS, LearningPolicy.EpsilonGreedy(0.0), seed=shifted(0))
    mab.fit(["a", "b"], [1, 0])
    mab.partial_fit(["a"], [0])
    assert mab.predict_expectations()["a"] == pytest.approx(0.5)
    mab.fit(["b"], [1])
    assert mab.predict_expectations() == pytest.approx({"a": 0.0, "b": 1.0, "c": 0.0})
    assert mab.cold_arms == ["a", "c"]


def test_arms_come_and_go() -> None:
    mab = MAB(["a", "b"], LearningPolicy.LinUCB(), seed=shifted(0))
    mab.add_arm("c")
    mab.fit(pd.Series(["a", "b", "a"]), pd.Series([1.0, 0.0, 1.0]), pd.DataFrame(CONTEXTS[:3]))
    mab.add_arm("d")
    mab.remove_arm("b")
    assert mab.arms == ["a", "c", "d"]
    assert set(mab.predict_expectations(NEW[:1].tolist())) == {"a", "c", "d"}
    assert set(mab.predict(NEW)) <= {"a", "c", "d"}


def test_a_warm_start_is_that_of_mabwiser() -> None:
    mabwiser = pytest.importorskip("mabwiser.mab")
    features = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.1, 1.0], "d": [-1.0, -0.2]}
    ours = MAB(list(features), LearningPolicy.LinGreedy(0.0), seed=shifted(0))
    theirs = mabwiser.MAB(list(features), mabwiser.LearningPolicy.LinGreedy(0.0), seed=shifted(0))
    for mab in (ours, theirs):
        mab.fit(["a", "b", "a", "b"], [1.0, 2.0, 0.5, 3.0], CONTEXTS[:4])
        mab.warm_start(features, 0.5)
    assert ours.cold_arms == ["d"]
    for mine, other in zip(ours.predict_expectations(NEW), theirs.predict_expectations(NEW), strict=True):
        assert mine == pytest.approx(other, abs=1e-6)


def test_a_learned_prior_takes_the_place_of_a_learning_policy() -> None:
    prior = BetaBernoulli(torch.tensor([1.0, 9.0]).double(), torch.tensor([9.0, 1.0]).double())
    mab = MAB(["bad", "good"], lambda arms, seed: bandits.ThompsonSampling(prior, arms, seed=seed), seed=shifted(0))
    assert [mab.predict() for _ in range(10)].count("good") >= 9
    linear = LinearGaussian(torch.zeros(3).double(), torch.eye(3).double(), torch.tensor(1.0).double())
    mab = MAB(ARMS, lambda arms, seed: bandits.BayesUCB(linear, arms, seed=seed), seed=shifted(0))
    mab.fit(DECISIONS, REWARDS, CONTEXTS)
    assert len(mab.predict(NEW)) == 5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: MAB(ARMS, "LinTS"), TypeError, "learning_policy must be one of LearningPolicy"),
        (
            lambda: MAB(ARMS, LearningPolicy.Random(), "Clusters"),
            ValueError,
            "there are no neighbourhood policies here",
        ),
        (lambda: MAB(ARMS, LearningPolicy.LinTS()).predict(NEW), ValueError, "call fit before predict"),
        (lambda: MAB(ARMS, LearningPolicy.LinTS()).fit(["a"], [1.0]), ValueError, r"LinTS needs contexts \(n, d\)"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).fit(["x"], [1.0]), ValueError, "there is no arm 'x'"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).fit(["a"], [math.nan]), ValueError, "rewards must be finite"),
        (
            lambda: MAB(ARMS, LearningPolicy.UCB1()).warm_start({"a": [1.0]}, 0.5),
            ValueError,
            "the features of every arm",
        ),
        (
            lambda: MAB(["a"], LearningPolicy.UCB1()).warm_start({"a": [1.0]}, 1.5),
            ValueError,
            "distance_quantile must be from 0 to 1; got 1.5",
        ),
    ],
)
def test_bad_calls(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
