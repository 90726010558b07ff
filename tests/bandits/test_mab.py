"""The facade says what MABWiser says: to the last digit where nothing is drawn, and in law where something is."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bandits
import bandits.mab
from bandits.mab import MAB, LearningPolicy, NoDirectionWarning
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
        assert mine == pytest.approx(other, abs=1e-11)
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


@pytest.mark.parametrize(("name", "settings"), [("UCB1", {"alpha": 0.9}), ("EpsilonGreedy", {"epsilon": 0.0})])
def test_an_arm_that_starts_from_another_has_its_counts(name: str, settings: dict[str, Any]) -> None:
    mabwiser = pytest.importorskip("mabwiser.mab")
    features = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.1, 1.0]}
    ours = MAB(list(features), getattr(LearningPolicy, name)(**settings), seed=shifted(0))
    theirs = mabwiser.MAB(list(features), getattr(mabwiser.LearningPolicy, name)(**settings), seed=shifted(0))
    for mab in (ours, theirs):
        mab.fit(["a", "b", "a", "b", "b"], [1.0, 0.2, 0.5, 0.3, 0.9])
        mab.warm_start(features, 0.5)
    assert ours.predict_expectations() == pytest.approx(theirs.predict_expectations())
    for mab in (ours, theirs):
        mab.partial_fit(["c", "a"], [0.4, 0.1])
    assert ours.predict_expectations() == pytest.approx(theirs.predict_expectations())
    assert ours.policy.pulls.tolist() == [3, 3, 4]


def test_an_arm_without_direction_does_not_keep_others_from_a_warm_start() -> None:
    mab = MAB(["a", "b", "c"], LearningPolicy.EpsilonGreedy(0.0), seed=shifted(0))
    mab.fit(["a", "a"], [1.0, 0.5])
    with pytest.warns(NoDirectionWarning, match="features of c are all zero"):
        mab.warm_start({"a": [1.0, 0.0], "b": [1.0, 0.1], "c": [0.0, 0.0]}, 1.0)
    assert mab.cold_arms == ["c"]


def test_an_interface_as_that_of_mabwiser() -> None:
    mab = MAB(ARMS, LearningPolicy.LinTS(1.0, 1.0, False), None, 7, 2, "loky")
    assert (mab.seed, mab.n_jobs, mab.backend, mab.neighborhood_policy) == (7, 2, "loky", None)


def test_seeds_and_numbers_may_be_of_numpy() -> None:
    policy = LearningPolicy.EpsilonGreedy(np.float64(0.25))
    mab = MAB(ARMS, policy, seed=shifted(np.int64(0)))
    assert mab.seed == shifted(0)
    mab.fit(DECISIONS, REWARDS)
    assert mab.predict() in ARMS


def test_one_feature_as_a_series() -> None:
    mab = MAB(["a", "b"], LearningPolicy.LinGreedy(0.0), seed=shifted(0))
    mab.fit(["a", "b", "a"], [1.0, 2.0, 3.0], pd.Series([1.0, 2.0, 3.0]))
    again = MAB(["a", "b"], LearningPolicy.LinGreedy(0.0), seed=shifted(0))
    again.fit(["a", "b", "a"], [1.0, 2.0, 3.0], [[1.0], [2.0], [3.0]])
    assert mab.predict_expectations(pd.Series([1.0, 4.0])) == again.predict_expectations([[1.0], [4.0]])
    wide = MAB(["a", "b"], LearningPolicy.LinGreedy(0.0), seed=shifted(0))
    wide.fit(["a"], [1.0], pd.Series([1.0, 2.0, 3.0]))  # one decision: a context of three features
    assert len(wide.predict_expectations(pd.Series([1.0, 2.0, 3.0]))) == 2


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
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).predict(), ValueError, "call fit before predict"),
        (lambda: MAB(ARMS, LearningPolicy.LinTS()).fit(["a"], [1.0]), TypeError, r"LinTS needs contexts \(n, d\)"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).fit(["a"], [1.0], [[1.0]]), TypeError, "UCB1 takes no contexts"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).fit(["a"], [1.0, 0.0]), ValueError, "as many; got 1 and 2"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).fit(["a"], [None]), TypeError, "rewards must be numbers"),
        (lambda: MAB(["a", None], LearningPolicy.UCB1()), ValueError, "an arm cannot be None"),
        (lambda: MAB([1, math.nan], LearningPolicy.UCB1()), ValueError, "an arm cannot be nan"),
        (lambda: MAB([1, math.inf], LearningPolicy.UCB1()), ValueError, "an arm cannot be inf"),
        (lambda: MAB(["a", "a"], LearningPolicy.LinTS()), ValueError, "'a' is named twice"),
        (lambda: MAB("ab", LearningPolicy.UCB1()), TypeError, "arms must be a list"),
        (lambda: MAB(ARMS, LearningPolicy.LinTS), TypeError, "learning_policy must be one of LearningPolicy"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1(), None, "1"), TypeError, "seed must be a whole number; got '1'"),
        (lambda: MAB(ARMS, LearningPolicy.LinUCB(math.nan)), ValueError, "alpha must be at least 0; got nan"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1(math.inf)), ValueError, "alpha must be finite; got inf"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).fit(["a"], ["1"]), TypeError, "rewards must be numbers; got '1'"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).fit(["a"], [1j]), TypeError, "rewards must be numbers; got 1j"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).fit("abc", [1, 0, 1]), ValueError, "as many; got 1 and 3"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1(), n_jobs=0), ValueError, "n_jobs cannot be 0"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1(), n_jobs=1.5), TypeError, "n_jobs must be a whole number|Type-check"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1(), backend=3), TypeError, "backend must be a name|Type-check"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).add_arm(None), ValueError, "an arm cannot be None"),
        (lambda: MAB(ARMS, LearningPolicy.LinTS()).add_arm("a"), ValueError, "'a' is named twice"),
        (lambda: MAB(ARMS, LearningPolicy.LinTS()).remove_arm("x"), ValueError, "there is no arm 'x'"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).add_arm("d", bool), ValueError, "a binarizer is of"),
        (lambda: LearningPolicy.ThompsonSampling(3), TypeError, "a binarizer is a function|Type-check"),
        (lambda: LearningPolicy.EpsilonGreedy(1.5), ValueError, "epsilon must be from 0 to 1; got 1.5"),
        (lambda: LearningPolicy.EpsilonGreedy("1"), TypeError, "epsilon must be a number|Type-check"),
        (lambda: LearningPolicy.UCB1(-1.0), ValueError, "alpha must be at least 0; got -1.0"),
        (lambda: LearningPolicy.LinTS(0.0), ValueError, "alpha must be above 0; got 0.0"),
        (lambda: LearningPolicy.LinUCB(l2_lambda=-1.0), ValueError, "l2_lambda must be above 0; got -1.0"),
        (lambda: LearningPolicy.LinGreedy(scale=True), ValueError, "contexts are not scaled here"),
        (lambda: LearningPolicy.LinGreedy(scale=1), TypeError, "scale must be True or False|Type-check"),
        (
            lambda: MAB(["a"], LearningPolicy.UCB1()).warm_start([1.0], 0.5),
            TypeError,
            "features of each arm by its|Type-check",
        ),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).fit(["x"], [1.0]), ValueError, "there is no arm 'x'"),
        (lambda: MAB(ARMS, LearningPolicy.UCB1()).fit(["a"], [math.nan]), TypeError, "rewards must be finite; got nan"),
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


# what MABWiser's own tests refuse, of the policies that both have; each is asked of both libraries
REFUSED: list[Callable[[Any], Any]] = [
    lambda lib: lib.MAB(1, lib.LearningPolicy.EpsilonGreedy()),
    lambda lib: lib.MAB((0, 1), "policy"),
    lambda lib: lib.MAB([0, None], lib.LearningPolicy.UCB1()),
    lambda lib: lib.MAB([0, math.inf], lib.LearningPolicy.UCB1()),
    lambda lib: lib.MAB([0, 0], lib.LearningPolicy.UCB1()),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.EpsilonGreedy("one")),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.EpsilonGreedy(2.0)),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.ThompsonSampling({0: 1, 1: 1})),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1("one")),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1(-2.0)),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1(epsilon=2)),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.LinTS(epsilon=1)),
    *(
        lambda lib, name=name, settings=settings: lib.MAB([0, 1], getattr(lib.LearningPolicy, name)(**settings))
        for name in ("LinUCB", "LinTS", "LinGreedy")
        for settings in ({"l2_lambda": -1.0}, {"l2_lambda": None}, {"scale": 1})
    ),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.LinUCB(alpha=-1.0)),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.LinTS(alpha=0.0)),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.LinTS(alpha=None)),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1(), None, [0, 1]),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1(), n_jobs=0),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1(), n_jobs="2"),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1(), backend=1),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1()).fit([0, 1, 1], [0, 1]),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1()).fit([0, 1], [0, None]),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1()).fit([0, 1], np.array([0, None])),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1()).fit([0, 1], np.array([0, np.nan])),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1()).fit([0, 1], pd.Series([0, None])),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1()).partial_fit([0, 1], pd.Series([0, np.inf])),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.UCB1()).fit([0, 1], [0, 1], [[1, 1], [1, 1]]),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.ThompsonSampling()).fit([0, 1], [0, 2]),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.LinTS()).fit([0, 1], [0, 1]),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.LinTS()).fit([0, 1], [0, 1], [[1, 1]] * 3),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.LinTS()).fit([0, 1], [0, 1], [1, 1]),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.LinTS()).fit([0, 1], [0, 1], np.array([1, 1])),
    lambda lib: lib.MAB([0, 1], lib.LearningPolicy.LinTS()).fit([0, 1], [0, 1], {0: [1, 1], 1: [1, 1]}),
    lambda lib: fitted(lib).predict(np.array([1, 1])),
    lambda lib: fitted(lib).predict([1, 1]),
    lambda lib: fitted(lib).predict_expectations(),
    lambda lib: fitted(lib).add_arm(None),
    lambda lib: fitted(lib).add_arm(np.nan),
    lambda lib: fitted(lib).add_arm(np.inf),
    lambda lib: fitted(lib).add_arm(1),
    lambda lib: fitted(lib).remove_arm(7),
    lambda lib: fitted(lib).warm_start([[1.0], [2.0]], 0.5),
    lambda lib: fitted(lib).warm_start({0: [1.0], 1: [2.0]}, 1.5),
    lambda lib: fitted(lib).warm_start({0: [1.0]}, 0.5),
]


def fitted(lib: Any) -> Any:
    mab = lib.MAB([0, 1], lib.LearningPolicy.LinTS())
    mab.fit([0, 1, 1], [0, 1, 1], [[1.0, 2.0], [0.0, 1.0], [2.0, 0.5]])
    return mab


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_it_refuses_what_mabwiser_refuses_with_its_errors(number: int) -> None:
    mabwiser = pytest.importorskip("mabwiser.mab")
    with pytest.raises((TypeError, ValueError)) as theirs:
        REFUSED[number](mabwiser)
    with pytest.raises((TypeError, ValueError)) as ours:
        REFUSED[number](bandits.mab)
    by_type_checker = "Type-check" in str(ours.value)  # of the tests, before our own
    assert ours.type is theirs.type or (by_type_checker and theirs.type is TypeError), (ours.value, theirs.value)
