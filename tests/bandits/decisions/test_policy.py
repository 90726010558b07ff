"""A policy as people use it: names, numbers of choices, late rewards, arms that come and go, faults, files."""

import copy
import dataclasses
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from torch import Tensor

import bandits
import bayesmeta
from bandits.decisions.policy import Policy
from bayesmeta import (
    BetaBernoulli,
    CorrelatedArms,
    Data,
    DirichletCategorical,
    GammaPoisson,
    LinearGaussian,
    LinearHyperposterior,
    LinearNormalInverseGamma,
)
from bayesmeta.random import randn
from tests.bandits.states import same, snapshot
from tests.families import F64, FAMILIES, seed
from tests.seeds import shifted

NAN = float("nan")
ONES = BetaBernoulli(F64 + 1.0, F64 + 1.0)
LINEAR = LinearGaussian(torch.zeros(2), torch.eye(2), torch.tensor(0.5))
NOISY = LinearNormalInverseGamma(LINEAR.loc, LINEAR.precision, torch.tensor(2.0), torch.tensor(1.0))
FEATURES = {"a": [1.0, 0.0], "b": [0.0, 1.0]}


def test_one_decision_after_another() -> None:
    policy = bandits.ThompsonSampling(ONES, ["red", "blue"], seed=shifted(0))
    for _ in range(200):
        choice = policy.choose()
        policy.update(choice, float(choice.arm == "blue"))
    assert policy.pulls[1] > 150
    assert policy.choose(num=100).arms.count("blue") > 90  # of one choice in 200 red remains possible
    assert policy.posterior(["blue"]).marginal().mean.item() > 0.95


def test_names_may_be_anything_hashable() -> None:
    names = [3, ("a", 1), None, frozenset({1})]
    policy = bandits.UniformlyRandom(names, seed=shifted(0))
    assert {policy.choose().arm for _ in range(100)} == set(names)


def test_rewards_come_late_in_any_order_and_some_never() -> None:
    policy = bandits.ThompsonSampling(ONES, ["a", "b"], seed=shifted(0))
    choices = [policy.choose() for _ in range(10)]
    rewarded = [choices[i] for i in (7, 2, 9, 0)]
    for choice in rewarded[:2]:
        policy.update(choice.id, 1.0)
    policy.update(rewarded[2:], [1.0, 0.0])
    assert policy.num_pending == 6
    for name in "ab":
        ones = sum(c.arm == name for c in rewarded[:3])
        zeros = sum(c.arm == name for c in rewarded[3:])
        posterior = policy.posterior([name])
        assert (posterior.successes.item(), posterior.failures.item()) == (1 + ones, 1 + zeros)


def test_some_tasks_decide_more_often_than_others() -> None:
    policy = bandits.ThompsonSampling(ONES, ["a", "b"], tasks=5, seed=shifted(0))
    choices = policy.choose(task=[3, 3, 0])
    assert choices.task.tolist() == [3, 3, 0]
    policy.update(choices, [1.0, 1.0, 0.0])
    single = policy.choose(task=4)
    policy.update(single, 1.0)
    assert policy.pulls.sum(1).tolist() == [1, 0, 0, 2, 1]


def test_a_choice_of_many_is_a_choice() -> None:
    policy = bandits.ThompsonSampling(ONES, ["a", "b"], seed=shifted(0))
    choices = policy.choose(num=5)
    assert len(choices) == 5
    assert [c.id for c in choices] == [0, 1, 2, 3, 4]
    assert choices[1:3].ids.tolist() == [1, 2]
    assert choices[0].arm == choices.arms[0]
    policy.update(choices[4], 1.0)
    policy.update(choices[:4], [0.0] * 4)
    assert policy.num_pending == 0


def test_only_available_arms_are_chosen() -> None:
    policy = bandits.ThompsonSampling(ONES, ["a", "b", "c"], seed=shifted(0))
    assert {policy.choose(available=["a", "c"]).arm for _ in range(60)} == {"a", "c"}
    mask = torch.tensor([[True, False, False], [False, False, True]])
    assert policy.choose(num=2, available=mask).arms == ["a", "c"]
    assert policy.choose(available=["b"]).propensity == 1.0


@pytest.mark.parametrize("prior", [ONES, LINEAR, GammaPoisson(F64 + 1, F64 + 1)])
def test_a_new_arm_starts_from_the_prior(prior: Any) -> None:
    context = torch.ones(2) if prior is LINEAR else None
    policy = bandits.ThompsonSampling(prior, ["a", "b"], seed=shifted(0))
    for _ in range(20):
        policy.update(policy.choose(context), 1.0)
    waiting = policy.choose(context, available=["a"])
    policy.add_arm("c")
    policy.remove_arm("a")
    assert policy.arms == ("b", "c")
    rows = None if context is None else context[None, None]
    fresh = bandits.ThompsonSampling(prior, ["c"]).posterior(["c"])
    torch.testing.assert_close(policy.posterior(["c"]).predict(rows).mean, fresh.predict(rows).mean)
    with pytest.raises(ValueError, match="choice 20 was of an arm that was removed since"):
        policy.update(waiting, 1.0)


def test_a_new_arm_starts_from_a_prior_of_its_own() -> None:
    policy = bandits.ThompsonSampling(ONES, ["a", "b"], seed=shifted(0))
    policy.update(policy.choose(available=["a"]), 1.0)
    with pytest.raises(ValueError, match="must be a BetaBernoulli, as the others are; got a GammaPoisson"):
        policy.add_arm("c", prior=GammaPoisson(F64 + 1.0, F64 + 1.0))
    policy.add_arm("c", prior=BetaBernoulli(F64 + 90.0, F64 + 10.0))
    torch.testing.assert_close(policy.posterior(["c"]).marginal().mean.squeeze(), F64 + 0.9)
    torch.testing.assert_close(policy.posterior(["a"]).marginal().mean.squeeze(), F64 + 2 / 3)
    with pytest.raises(ValueError, match="arms have priors that differ: give one of the new arm"):
        policy.add_arm("d")


def test_a_new_arm_starts_from_what_its_features_say() -> None:
    policy = bandits.ThompsonSampling(LINEAR, FEATURES, seed=shifted(0))
    for _ in range(100):
        choice = policy.choose()
        policy.update(choice, 2.0 if choice.arm == "b" else 0.0)
    policy.add_arm("like b", features=[0.0, 1.1])
    policy.remove_arm("a")
    assert policy.choose().arm == "like b"
    policy.remove_arm("b")
    assert policy.choose().arm == "like b"


def test_arms_of_a_prior_over_all_of_them_come_and_go_by_number() -> None:
    prior = CorrelatedArms(torch.tensor([0.0, 1.0, 50.0]), torch.eye(3), torch.tensor(1.0))
    policy = bandits.ThompsonSampling(prior, bandits.Numbered(("a", "b"), (0, 1)), seed=shifted(0))
    policy.update(policy.choose(), 1.0)
    for number in (3, -1, 1.5):
        with pytest.raises(ValueError, match=r"whole one from 0 on|knows arms 0 to 2"):
            policy.add_arm("best", features=number)
    policy.add_arm("best", features=2)
    assert policy.choose().arm == "best"
    policy.remove_arm("a")
    assert policy.arms == ("b", "best")
    assert policy.choose(available=["b"]).arm == "b"


def test_hybrid_arms_share_some_weights() -> None:
    prior = LinearGaussian(torch.zeros(2 * 2 + 2 * 2), torch.eye(8), torch.tensor(0.1))
    policy = bandits.LinUCB(prior, bandits.Hybrid(("a", "b"), torch.eye(2)), seed=shifted(0))
    x = policy._learner.roster.arms.rows(torch.tensor([[2.0, 3.0]]), 1)
    assert x.tolist() == [[[2.0, 0.0, 3.0, 0.0, 2.0, 3.0, 0.0, 0.0], [0.0, 2.0, 0.0, 3.0, 0.0, 0.0, 2.0, 3.0]]]
    policy.update(policy.choose([1.0, 0.5]), 1.0)
    with pytest.raises(ValueError, match="a new arm would need weights"):
        policy.add_arm("c", features=[1.0, 1.0])


# bad input: an error that says what to do, and nothing changed


def ready(**options: Any) -> tuple[Policy, Any]:
    policy = bandits.ThompsonSampling(ONES, ["a", "b"], seed=shifted(0), **options)
    policy.update(policy.choose(), 1.0)
    return policy, policy.choose()


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (float("nan"), "a reward must be finite; got nan"),
        (float("inf"), "a reward must be finite"),
        (3.5, "y must be 0 or 1"),
        ([1.0, 0.0], "each choice has one reward; got 1 choices and 2 rewards"),
    ],
)
def test_bad_rewards(reward: Any, message: str) -> None:
    policy, choice = ready()
    before = snapshot(policy)
    with pytest.raises(ValueError, match=message):
        policy.update(choice, reward)
    assert same(snapshot(policy), before)
    policy.update(choice, 1.0)


def test_negative_counts() -> None:
    policy = bandits.ThompsonSampling(GammaPoisson(F64 + 1, F64 + 1), ["a", "b"], seed=shifted(0))
    choice = policy.choose()
    before = snapshot(policy)
    with pytest.raises(ValueError, match="counts y must be whole numbers, zero or more"):
        policy.update(choice, -2)
    assert same(snapshot(policy), before)


def test_one_bad_reward_of_many_changes_nothing() -> None:
    policy, _ = ready()
    choices = policy.choose(num=3)
    before = snapshot(policy)
    with pytest.raises(ValueError, match="y must be 0 or 1"):
        policy.update(choices, [1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="rewards must be finite"):
        policy.update(choices, torch.tensor([1.0, float("nan"), 0.0]))
    assert same(snapshot(policy), before)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (99, "choice 99 was never made: 2 were"),
        (-1, "choice -1 was never made"),
        (0, "choice 0 has had its reward"),
        ([1, 1], "choice 1 is given two rewards"),
        ([1, 0], "choice 0 has had its reward"),
    ],
)
def test_rewards_for_choices_that_do_not_wait(choice: Any, message: str) -> None:
    policy, _ = ready()
    before = snapshot(policy)
    with pytest.raises(ValueError, match=message):
        policy.update(choice, [1.0] * len(choice) if isinstance(choice, list) else 1.0)
    assert same(snapshot(policy), before)


def test_a_choice_that_is_none() -> None:
    policy, _ = ready()
    with pytest.raises(TypeError, match="a choice is what choose returned, or its number; got 'a'"):
        policy.update("a", 1.0)


def test_only_the_latest_choices_are_remembered() -> None:
    policy = bandits.ThompsonSampling(ONES, ["a", "b"], seed=shifted(0), max_pending=3)
    choices = [policy.choose() for _ in range(5)]
    with pytest.raises(
        ValueError, match=r"choice 1 is too old: only the latest 3 are remembered\. Try a larger max_pending"
    ):
        policy.update(choices[1], 1.0)
    policy.update(choices[2:], [1.0] * 3)


def test_memory_of_choices_without_reward_grows_to_its_limit() -> None:
    policy = bandits.UniformlyRandom(["a", "b"], seed=shifted(0), max_pending=5000)
    first = policy.choose()
    for _ in range(4):
        policy.choose(num=1000)
    policy.update(first, 1.0)
    policy.choose(num=4000)
    assert policy.num_pending == 5000
    policy.choose(num=20_000)
    assert policy.num_pending == 20_000  # one batch is remembered whole


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"available": ["z"]}, ValueError, "there is no arm 'z'; there are 'a', 'b'"),
        ({"available": []}, ValueError, "no arm is available at decision 0"),
        ({"available": torch.tensor([False, False])}, ValueError, "no arm is available"),
        ({"available": torch.tensor([True])}, ValueError, r"a mask must have shape \(2,\) or \(1, 2\)"),
        ({"available": [True]}, ValueError, r"a mask must have shape \(2,\) or \(1, 2\)"),
        ({"available": [[True, False], [True]]}, ValueError, "a mask must be True and False, as many in each row"),
        ({"available": "ab"}, ValueError, "there is no arm 'ab'"),
        ({"available": 3}, TypeError, r"arms must be a list of names; got 3\. Try \[3\]"),
        ({"context": [float("nan"), 0.0]}, ValueError, "contexts must be finite"),
        ({"context": torch.zeros(1, 2, 2)}, ValueError, r"a context must have shape \(c,\)"),
        (
            {"context": [1.0]},
            ValueError,
            "contexts must be as wide as those before: rows of arms have 1 columns, and had 2",
        ),
        ({"task": 7}, IndexError, "task 7 does not exist: there are 1"),
        ({"context": [[1.0, 2.0]], "num": 3}, ValueError, "num says 3 decisions; got contexts for 1"),
    ],
)
def test_bad_decisions(options: dict[str, Any], error: type[Exception], message: str) -> None:
    policy = bandits.ThompsonSampling(LINEAR, ["a", "b"], seed=shifted(0))
    policy.update(policy.choose([1.0, 2.0]), 1.0)
    before = snapshot(policy)
    with pytest.raises(error, match=message):
        policy.choose(**{"context": [1.0, 2.0], **options})
    assert same(snapshot(policy), before)


@pytest.mark.parametrize(
    ("build", "context"),
    [
        (lambda: bandits.ThompsonSampling(LINEAR, ["a", "b"]), [1.0, 2.0, 3.0]),
        (lambda: bandits.ThompsonSampling(LINEAR, ["a", "b"]), [1.0]),
        (lambda: bandits.ThompsonSampling(LINEAR, ["a", "b"]), None),
        (lambda: bandits.ThompsonSampling(LINEAR, FEATURES), [1.0]),
        (lambda: bandits.ThompsonSampling(ONES, ["a", "b"]), [1.0]),
        (lambda: bandits.ThompsonSampling(bandits.Forgetting(LINEAR, 0.9), ["a", "b"]), [1.0]),
        (lambda: bandits.ThompsonSampling(bandits.Hypotheses.of([LINEAR, LINEAR]), ["a", "b"]), [1.0]),
        (lambda: bandits.HierTS(LinearHyperposterior(LINEAR, torch.eye(2)), ["a", "b"]), [1.0]),
        (lambda: bandits.DiagLinUCB(["a", "b"], 2), [1.0]),
        (lambda: bandits.BayesUCB(NOISY, ["a", "b"]), [1.0]),
    ],
)
def test_a_first_context_that_does_not_fit_the_prior_is_refused(build: Any, context: Any) -> None:
    policy = build()
    before = snapshot(policy)
    with pytest.raises(ValueError, match=r"rows of arms have \d columns, which the prior does not take"):
        policy.choose(context)
    if context is not None:
        with pytest.raises(ValueError, match="which the prior does not take"):
            policy.learn(["a"], [1.0], context=[context])
    assert same(snapshot(policy), before)


def test_tasks_need_a_context_each() -> None:
    policy = bandits.ThompsonSampling(LINEAR, ["a", "b"], tasks=3)
    with pytest.raises(ValueError, match="there must be a context for each of 3 tasks; got 2"):
        policy.choose(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="this policy has 3 tasks: say which by task"):
        policy.choose([0.0, 0.0])


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: bandits.ThompsonSampling(ONES, []), ValueError, "at least one arm"),
        (lambda: bandits.ThompsonSampling(ONES, ["a", "a"]), ValueError, "'a' is named twice"),
        (lambda: bandits.ThompsonSampling(ONES, 3), TypeError, r"Try range\(3\)"),
        (lambda: bandits.ThompsonSampling(ONES, ["a"], tasks=0), ValueError, "tasks must be at least 1"),
        (
            lambda: bandits.ThompsonSampling(ONES, ["a"], max_pending=0),
            ValueError,
            "max_pending must be at least 1; got 0",
        ),
        (
            lambda: bandits.ThompsonSampling(DirichletCategorical(torch.ones(3)), ["a"]),
            ValueError,
            "a reward is one number",
        ),
        (
            lambda: bandits.ThompsonSampling(BetaBernoulli(torch.ones(3), torch.ones(3)), ["a", "b"]),
            ValueError,
            r"batch_shape \(3,\) does not broadcast to \(1, 2\)",
        ),
        (lambda: bandits.ThompsonSampling(LINEAR, {"a": [1.0], "b": [1.0, 2.0]}), ValueError, "vectors of one length"),
        (lambda: bandits.ThompsonSampling(LINEAR, {"a": [1.0, float("nan")]}), ValueError, "features must be finite"),
        (
            lambda: bandits.ThompsonSampling(CorrelatedArms(torch.zeros(2), torch.eye(2), torch.tensor(1.0)), ["a"]),
            ValueError,
            "the prior knows 2 arms; got 1 names",
        ),
        (lambda: bandits.TopTwoThompson(ONES, ["a"], share=0.0), ValueError, "share must be above 0"),
        (lambda: bandits.EpsilonGreedy(ONES, ["a"], epsilon=2.0), ValueError, "epsilon must be from 0 to 1"),
        (lambda: bandits.LinUCB(LINEAR, ["a"], width=-1.0), ValueError, "width must be at least 0; got -1.0"),
        (lambda: bandits.BayesUCB(ONES, ["a"], horizon=1), ValueError, "horizon must be at least 2"),
        (lambda: bandits.LinUCB(LINEAR, ["a"], width=NAN), ValueError, "width must be at least 0; got nan"),
        (lambda: bandits.UCB1(["a"], width=NAN), ValueError, "width must be at least 0; got nan"),
        (lambda: bandits.UCB1(["a"], width=float("inf")), ValueError, "width must be finite; got inf"),
        (lambda: bandits.UCB1(["a"], width="1"), TypeError, "width must be a number; got '1'"),
        (lambda: bandits.BayesUCB(ONES, ["a"], horizon=NAN), ValueError, "horizon must be at least 2; got nan"),
        (lambda: bandits.BayesUCB(ONES, ["a"], power=NAN), ValueError, "power must be at least 0; got nan"),
        (lambda: bandits.BayesUCB(ONES, ["a"], power=-5), ValueError, "power must be at least 0; got -5"),
        (lambda: bandits.EpsilonGreedy(ONES, ["a"], epsilon=NAN), ValueError, "epsilon must be from 0 to 1; got nan"),
        (lambda: bandits.EpsilonGreedy(ONES, ["a"], epsilon=None), TypeError, "epsilon must be a number; got None"),
        (lambda: bandits.TopTwoThompson(ONES, ["a"], share=NAN), ValueError, "share must be above 0 and at most 1"),
        (lambda: bandits.UCB1(["a"], seed=shifted(0) + 0.5), TypeError, r"seed must be a whole number; got \d+\.5"),
        (lambda: bandits.UCB1(["a"], seed=shifted(2**64)), ValueError, "seed must be below"),
        (lambda: bandits.UCB1(["a"], max_pending=1.5), TypeError, "max_pending must be a whole number; got 1.5"),
    ],
)
def test_bad_policies(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_bad_arms_change_nothing() -> None:
    policy, _ = ready()
    before = snapshot(policy)
    for change, message in (
        (lambda: policy.add_arm("a"), "there is an arm 'a' already"),
        (lambda: policy.remove_arm("z"), "there is no arm 'z'"),
        (lambda: policy.add_arm("c", features=[1.0]), "have no features"),
        (lambda: policy.posterior(["z"]), "there is no arm 'z'"),
    ):
        with pytest.raises(ValueError, match=message):
            change()
    assert same(snapshot(policy), before)
    policy.remove_arm("a")
    with pytest.raises(ValueError, match="'b' is the only arm left"):
        policy.remove_arm("b")


# files


def play(policy: Policy, rounds: int) -> list[Any]:
    record: list[Any] = []
    for _ in range(rounds):
        choice = policy.choose()
        record.append((choice.arm, choice.propensity))
        policy.update(choice, 1.0)
    return record


class Cautious(bandits.ThompsonSampling):
    """A policy of one's own, with a setting."""

    def __init__(self, prior: Any, arms: Any, *, caution: float = 1.0, **options: Any) -> None:
        super().__init__(prior, arms, **options)
        self.caution = caution

    def _settings(self) -> dict[str, Any]:
        return {"caution": self.caution}


@dataclasses.dataclass(frozen=True)
class Places(bandits.Separate):
    """Arms of one's own."""


def test_a_policy_of_ones_own_is_loaded_where_it_is_defined(tmp_path: Path) -> None:
    policy = Cautious(ONES, Places(("a", "b")), caution=3.0, seed=shifted(0))
    play(policy, 5)
    policy.save(tmp_path / "policy")
    again = Policy.load(tmp_path / "policy")
    assert isinstance(again, Cautious)
    assert isinstance(again._learner.roster.arms, Places)
    assert again.caution == 3.0
    assert same(snapshot(again), snapshot(policy))
    elsewhere = "import sys, bandits\nbandits.Policy.load(sys.argv[1])"
    run = subprocess.run([sys.executable, "-c", elsewhere, tmp_path / "policy"], capture_output=True, text=True)
    assert f"its class 'Cautious' is not defined in this process. Import {__name__} before you load it" in run.stderr


def test_threads_share_a_policy() -> None:
    """Rewards that are lost, or counted twice, and choices that share a number would show in the counts."""
    policy = bandits.ThompsonSampling(ONES, ["a", "b", "c"], seed=shifted(0), propensities=False)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for i in range(100):
                policy.update(policy.choose(), float(i % 2))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert int(policy.pulls.sum()) == 400
    assert policy.num_pending == 0
    copied = copy.deepcopy(policy)  # a lock is no part of what is copied
    assert play(copied, 3) == play(policy, 3)


def test_files_that_hold_no_policy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the file does not exist"):
        Policy.load(tmp_path / "none")
    bayesmeta.save(ONES, tmp_path / "prior")
    with pytest.raises(ValueError, match="it holds a BetaBernoulli, not a policy"):
        Policy.load(tmp_path / "prior")
    policy, _ = ready()
    policy.save(tmp_path / "policy")
    with pytest.raises(ValueError, match="holds a ThompsonSampling, not a UCB1"):
        bandits.UCB1.load(tmp_path / "policy")
    raw = (tmp_path / "policy").read_bytes()
    for damaged in (raw[:-9], raw[: len(raw) // 2], raw[:300] + b"xxxx" + raw[304:], b""):
        (tmp_path / "policy").write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot load"):
            Policy.load(tmp_path / "policy")


def test_a_policy_whose_names_no_file_can_hold(tmp_path: Path) -> None:
    policy = bandits.UniformlyRandom([frozenset({1}), "b"])
    with pytest.raises(TypeError, match="names of arms that are saved must be strings, numbers or tuples"):
        policy.save(tmp_path / "policy")
    assert not list(tmp_path.iterdir())


def _save_for_ever(path: str) -> None:
    policy = bandits.ThompsonSampling(ONES, ["a", "b"], seed=shifted(0))
    while True:
        policy.update(policy.choose(num=500, propensities=False), torch.ones(500))
        policy.save(path)


def test_a_reader_never_sees_half_a_file_and_a_kill_leaves_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "policy"
    writer = multiprocessing.get_context("spawn").Process(target=_save_for_ever, args=(str(path),))
    writer.start()
    try:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        counts = []
        for _ in range(40):
            counts.append(int(Policy.load(path).pulls.sum()))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
    finally:
        writer.kill()
        writer.join()
    assert counts == sorted(counts)
    assert all(count % 500 == 0 for count in counts)
    assert int(Policy.load(path).pulls.sum()) % 500 == 0


def test_thousands_of_rewards_take_no_more_memory() -> None:
    """Nothing that is kept grows with rewards: the state has the same size, and is that of a refit."""
    policy = bandits.ThompsonSampling(LINEAR, ["a", "b"], seed=shifted(0), propensities=False)
    x = randn((4000, 2), like=torch.zeros(()), generator=seed(1))
    sizes = []
    rows: dict[Any, list[int]] = {"a": [], "b": []}
    y = x @ torch.tensor([1.0, -1.0]) + randn((len(x),), like=x, generator=seed(2))
    for i in range(len(x)):
        choice = policy.choose(x[i])
        policy.update(choice, float(y[i]))
        rows[choice.arm].append(i)
        if i in (1000, 3999):
            sizes.append(sum(t.numel() for t in _tensors(policy.state().state_dict())))
    assert sizes[0] == sizes[1]
    for name, which in rows.items():
        exact = LINEAR.to(torch.float64).condition(Data.of(x[which].double(), y[which].double()))
        torch.testing.assert_close(policy.posterior([name]).loc[0].double(), exact.loc, rtol=0, atol=1e-4)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for inner in value.values() for t in _tensors(inner)]
    if isinstance(value, bayesmeta.fields.TensorFields):
        return _tensors(value.state_dict())
    return []


@pytest.mark.slow
def test_an_update_takes_as_long_among_many_tasks_and_arms_as_among_few() -> None:
    def seconds(tasks: int, arms: int) -> float:
        policy = bandits.ThompsonSampling(LINEAR, range(arms), tasks=tasks, seed=shifted(0), propensities=False)
        context, times = torch.ones(2), []
        for _ in range(300):
            choice = policy.choose(context, task=0)
            start = time.process_time()
            policy.update(choice, 1.0)
            times.append(time.process_time() - start)
        return statistics.median(times)

    assert seconds(2000, 200) < 3 * seconds(2, 2)


@pytest.mark.parametrize("kind", [list, torch.tensor, np.array, lambda v: np.array(v, np.float32)])
def test_contexts_of_whole_numbers(kind: Any) -> None:
    policy = bandits.ThompsonSampling(FAMILIES["linear_gaussian"].prior, ["a", "b"], seed=shifted(0))
    policy.update(policy.choose(kind([1, 0, 2])), 1)
    policy.update(policy.choose(torch.tensor([True, False, True])), True)
    assert int(policy.pulls.sum()) == 2


@pytest.mark.parametrize("prior", [None, BetaBernoulli, Data.of(None, [1.0, 0.0]), 0.5])
def test_what_is_no_prior(prior: Any) -> None:
    with pytest.raises(TypeError, match=r"ThompsonSampling needs a prior, such as .*; got"):
        bandits.ThompsonSampling(prior, ["a", "b"])


@pytest.mark.parametrize("kind", ["pandas", "polars", "sparse", "array", "lists", "tensors"])
def test_contexts_and_rewards_as_people_have_them(kind: str) -> None:
    rows, rewards = [[1.0, 0.5], [0.0, 2.0], [3.0, 1.0]], [1.0, 0.0, 2.0]
    made: dict[str, tuple[Any, Any]] = {
        "pandas": (pd.DataFrame(rows, columns=["u", "v"]), pd.Series(rewards, index=[7, 8, 9])),
        "polars": (pl.DataFrame(rows, schema=["u", "v"], orient="row"), pl.Series(rewards)),
        "sparse": (scipy.sparse.csr_matrix(rows), np.array(rewards, np.float32)),
        "array": (np.array(rows, order="F", dtype=np.float32), np.array([1, 0, 2])),
        "lists": (rows, rewards),
        "tensors": (torch.tensor(rows), torch.tensor(rewards)),
    }
    policy = bandits.ThompsonSampling(LINEAR, ["a", "b"], seed=shifted(0), propensities=False)
    expected = bandits.ThompsonSampling(LINEAR, ["a", "b"], seed=shifted(0), propensities=False)
    context, reward = made[kind]
    choices = policy.choose(context)
    policy.update(choices, reward)
    expected.update(expected.choose(rows), rewards)
    names = {"pandas": pd.Series(["a", "b", "a"]), "polars": pl.Series(["a", "b", "a"])}.get(kind, ["a", "b", "a"])
    policy.learn(names, reward, context=context)
    expected.learn(["a", "b", "a"], rewards, context=rows)
    assert torch.equal(policy.expected_rewards(rows), expected.expected_rewards(rows))


def test_names_may_be_scalars_of_numpy() -> None:
    policy = bandits.ThompsonSampling(ONES, [1, 2], seed=shifted(0))
    policy.learn(np.array([1, 2, 2]), np.array([1, 0, 1]))
    policy.learn([np.int64(1), np.int64(2)], [0, 1])
    assert policy.pulls.tolist() == [2, 3]
    assert policy.choose(available=[np.int64(2)]).arm == 2


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda policy: policy.update(policy.choose(), None), TypeError, "rewards must be numbers; got None"),
        (lambda policy: policy.learn(["a"], [None]), TypeError, "rewards must be numbers; got None"),
        (lambda policy: policy.update(policy.choose(), "1"), TypeError, "rewards must be numbers; got '1'"),
        (lambda policy: policy.update(policy.choose(), 1j), TypeError, "rewards must be numbers; got 1j"),
        (lambda policy: policy.update(policy.choose(), torch.tensor(1j)), TypeError, "rewards must be real numbers"),
        (
            lambda policy: policy.update(policy.choose(), pl.Series(["1"])),
            TypeError,
            "rewards must be numbers; got '1'",
        ),
        (lambda policy: policy.update(policy.choose(), np.array(["1"], object)), TypeError, "rewards must be numbers"),
        (lambda policy: policy.update(policy.choose(), np.array(["2026"], "M8[D]")), TypeError, "rewards must be numb"),
        (lambda policy: policy.choose(["1.0"]), TypeError, "contexts must be numbers; got '1.0'"),
        (lambda policy: policy.learn("ab", [1, 0]), ValueError, "there is no arm 'ab'"),
        (lambda policy: policy.posterior("ab"), ValueError, "there is no arm 'ab'"),
        (lambda policy: policy.choose(task=torch.tensor(0.5)), TypeError, "task must be whole numbers; got 0.5"),
        (lambda policy: policy.learn(["a"], ["x"]), TypeError, "rewards must be numbers; got 'x'"),
        (lambda policy: policy.choose([[1.0], [1.0, 2.0]]), ValueError, "contexts must be numbers, as many in each"),
        (lambda policy: policy.choose(task=np.array([0.5])), TypeError, "task must be whole numbers; got 0.5"),
    ],
)
def test_what_is_no_number_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(bandits.ThompsonSampling(ONES, ["a", "b"], seed=shifted(0)))


@pytest.mark.parametrize(
    "kind",
    [list, tuple, np.array, pd.Series, pl.Series, lambda mask: pd.Series(mask, dtype="boolean"), torch.tensor],
    ids=["list", "tuple", "array", "pandas", "polars", "nullable", "tensor"],
)
def test_a_mask_may_be_of_any_kind(kind: Any) -> None:
    policy = bandits.UniformlyRandom(range(3), seed=shifted(0))  # whose names True and False are equal to
    assert {policy.choose(available=kind([True, False, True])).arm for _ in range(60)} == {0, 2}


def test_a_mask_has_a_row_for_each_decision() -> None:
    policy = bandits.UniformlyRandom(["a", "b"], seed=shifted(0))
    rows = [[True, False], [False, True]]
    for mask in (rows, np.array(rows), pd.DataFrame(rows), scipy.sparse.csr_matrix(rows)):
        assert policy.choose(num=2, available=mask).arms == ["a", "b"]
    assert policy.choose(available="a").arm == "a"
    told = bandits.UniformlyRandom([True, False], seed=shifted(0))
    assert told.choose(available=[True]).arm is True  # the name, where arms have such names


@pytest.mark.parametrize("kind", [int, np.int64, np.array, torch.tensor])
def test_a_task_may_be_a_scalar_of_any_kind(kind: Any) -> None:
    policy = bandits.TopTwoThompson(ONES, ["a", "b"], tasks=3, seed=shifted(np.int64(0)))
    choice = policy.choose(task=kind(1))
    assert choice.task == 1
    policy.update(choice, 1)
    assert policy.best(task=kind(1)).arm == choice.arm
    assert policy.posterior([choice.arm], task=kind(1)).successes.item() == 2.0
    for ask in (policy.choose, policy.posterior, policy.best):
        for task in (-1, 3):
            with pytest.raises(IndexError, match=f"task {task} does not exist: there are 3, numbered from 0"):
                ask(task=kind(task))


def test_the_best_arm_is_told_of_each_task() -> None:
    policy = bandits.TopTwoThompson(ONES, ["a", "b"], tasks=3, seed=shifted(0))
    policy.learn(["a", "b", "b"], [1.0, 1.0, 1.0], task=[0, 1, 1])
    assert [best.arm for best in policy.best()[:2]] == ["a", "b"]
    assert [best.probability for best in policy.best()] == pytest.approx([2 / 3, 3 / 4, 1 / 2], abs=1e-5)
    assert policy.best()[1] == policy.best(task=1)
    alone = bandits.TopTwoThompson(ONES, ["a", "b"], seed=shifted(0))
    assert alone.best().probability == pytest.approx(0.5, abs=1e-5)


def test_a_policy_in_another_dtype() -> None:
    policy = bandits.ThompsonSampling(LINEAR, ["a", "b"], seed=shifted(0), propensities=False)
    policy.update(policy.choose([1.0, 2.0]), 1.0)
    before = policy.expected_rewards([1.0, 2.0])
    assert policy.to(torch.float64) is policy
    after = policy.expected_rewards([1.0, 2.0])
    assert (before.dtype, after.dtype, policy.posterior().dtype) == (torch.float32, torch.float64, torch.float64)
    torch.testing.assert_close(after.float(), before)
    with pytest.raises(TypeError, match="a dtype of floating-point numbers"):
        policy.to(torch.int64)
