"""Estimates from logs: by hand, without bias, and inside their intervals as often as these say."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from torch import Tensor

import bandits
from bandits.evaluation.estimates import FewSamplesWarning
from bayesmeta import BetaBernoulli, LinearGaussian
from tests.families import F64, seed
from tests.seeds import shifted

REPLICATIONS, ROWS, ARMS = 400, 250, 4
WEIGHTS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5], [0.3, 0.3]]).double()


def world(number: int, rows: int = ROWS) -> tuple[bandits.Log, Tensor, Tensor]:
    """A log, the probabilities of another policy, and its expected reward at each context."""
    generator = seed(number)
    context = torch.randn(rows, 2, generator=generator).double()
    means = context @ WEIGHTS.mT
    behaviour = (0.3 * means).softmax(-1)
    target = (-0.3 * means).softmax(-1)
    arm = torch.multinomial(behaviour, 1, generator=generator)[:, 0]
    reward = means.gather(1, arm[:, None])[:, 0] + torch.randn(rows, generator=generator).double()
    propensity = behaviour.gather(1, arm[:, None])[:, 0]
    return bandits.Log(arm, reward, propensity, tuple(range(ARMS)), context), target, means


def truth() -> float:
    """The value of the other policy, over so many contexts that the error does not matter."""
    context = torch.randn(4_000_000, 2, generator=seed(123)).double()
    means = context @ WEIGHTS.mT
    return float(((-0.3 * means).softmax(-1) * means).sum(-1).mean())


Estimator = Callable[[bandits.Log, Tensor, Tensor], bandits.Estimate]
ESTIMATORS: dict[str, Estimator] = {
    "ips": lambda log, target, means: bandits.ips(log, target),
    "snips": lambda log, target, means: bandits.snips(log, target),
    "doubly robust, right model": lambda log, target, means: bandits.doubly_robust(log, target, means),
    "doubly robust, wrong model": lambda log, target, means: bandits.doubly_robust(log, target, means.abs() + 0.5),
}


def test_estimates_are_without_bias_and_intervals_cover() -> None:
    value = truth()
    errors = {}
    for name, estimator in ESTIMATORS.items():
        estimates = [estimator(*world(number)) for number in range(REPLICATIONS)]
        values = torch.tensor([e.value for e in estimates])
        error = float(values.std()) / math.sqrt(REPLICATIONS)
        assert abs(float(values.mean()) - value) < 5 * error + (0.005 if name == "snips" else 0.0), name
        inside = [low <= value <= high for low, high in (e.interval(0.95) for e in estimates)]
        share = sum(inside) / REPLICATIONS
        assert abs(share - 0.95) < 5 * math.sqrt(0.95 * 0.05 / REPLICATIONS), (name, share)
        errors[name] = float(values.std())
    assert errors["doubly robust, right model"] < 0.8 * errors["ips"]


def test_estimates_by_hand() -> None:
    log = bandits.Log(
        torch.tensor([0, 1, 0]), torch.tensor([1.0, 2.0, 4.0]).double(), torch.tensor([0.5, 0.25, 0.5]).double(), (0, 1)
    )
    target = torch.tensor([0.2, 0.8]).double()
    with pytest.warns(FewSamplesWarning, match="too few for an interval"):
        one = bandits.ips(log, target)
    weights = [0.4, 3.2, 0.4]
    assert one.value == pytest.approx((0.4 * 1 + 3.2 * 2 + 0.4 * 4) / 3)
    assert one.effective == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights))
    with pytest.warns(FewSamplesWarning):
        assert bandits.snips(log, target).value == pytest.approx((0.4 * 1 + 3.2 * 2 + 0.4 * 4) / 4.0)
    with pytest.warns(FewSamplesWarning):
        assert bandits.ips(log, target, clip=1.0).value == pytest.approx((0.4 + 2.0 + 1.6) / 3)
    predicted = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 3.0]]).double()
    direct = [0.2 * 1 + 0.8 * 2, 0.8 * 1, 3.0]
    left = [0.4 * 0.0, 3.2 * 1.0, 0.4 * 1.0]
    with pytest.warns(FewSamplesWarning):
        robust = bandits.doubly_robust(log, target, predicted)
    assert robust.value == pytest.approx(sum(a + b for a, b in zip(direct, left, strict=True)) / 3)


def test_decisions_of_one_user_are_not_independent() -> None:
    log, target, _ = world(0)
    twice = bandits.Log(*(v.repeat(2) for v in (log.arm, log.reward, log.propensity)), log.names)
    users = torch.arange(ROWS).repeat(2)
    single = bandits.snips(log, target)
    pooled = bandits.snips(twice, target.repeat(2, 1), cluster=users)
    assert pooled.value == pytest.approx(single.value)
    assert pooled.standard_error == pytest.approx(single.standard_error)
    assert bandits.snips(twice, target.repeat(2, 1)).standard_error < 0.75 * single.standard_error


def test_a_log_of_thompson_sampling_tells_what_another_policy_would_have_gained() -> None:
    """Exact propensities of a policy that learns are as good as those of one that does not."""
    values = []
    for number in range(40):
        environment = bandits.FromPrior(BetaBernoulli(F64 + 2, F64 + 2), range(3), 1, seed=shifted(number))
        policy = bandits.ThompsonSampling(BetaBernoulli(F64 + 1, F64 + 1), range(3), seed=shifted(number))
        writer = bandits.LogWriter(policy.arms)
        for t in range(60):
            choice = policy.choose()
            writer.record(choice)
            reward = float(environment.scene(t).rewards[0, choice.arm])
            policy.update(choice, reward)
            writer.reward(choice, reward)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewSamplesWarning)
            even = bandits.ips(writer.log(), torch.full((3,), 1 / 3).double())
        values.append(even.value - float(environment.scene(0).means.mean()))
    errors = torch.tensor(values)
    assert abs(float(errors.mean())) < 5 * float(errors.std()) / math.sqrt(40)


def test_a_fitted_model_is_of_the_other_decisions() -> None:
    log, target, _ = world(1, rows=2000)
    prior = LinearGaussian(torch.zeros(2).double(), torch.eye(2).double(), F64 + 1.0)
    predicted = bandits.fitted_rewards(log, prior, folds=4, seed=shifted(0))
    assert log.context is not None
    means = log.context @ WEIGHTS.mT
    assert (predicted - means).abs().mean() < 0.15
    assert bandits.doubly_robust(log, target, predicted).standard_error < bandits.ips(log, target).standard_error
    # a decision's own reward does not reach its prediction
    changed = bandits.Log(log.arm, log.reward.clone(), log.propensity, log.names, log.context)
    changed.reward[7] += 1000.0
    again = bandits.fitted_rewards(changed, prior, folds=4, seed=shifted(0))
    torch.testing.assert_close(again[7], predicted[7])
    assert not torch.equal(again, predicted)


@pytest.mark.filterwarnings("ignore::bandits.FewSamplesWarning")  # an arm may always pay, and its estimate say so
def test_replay_is_as_if_the_policy_had_run() -> None:
    """A policy that learns, along logs that chose at random and along logs that did not."""
    values: dict[str, list[float]] = {"even": [], "uneven": [], "live": []}
    for number in range(40):
        p = torch.rand(3, generator=seed(number)).double()
        for name, behaviour in (("even", [1 / 3] * 3), ("uneven", [0.5, 0.25, 0.25])):
            generator = seed(1000 + number)
            chances = torch.tensor(behaviour).double()
            arm = torch.multinomial(chances, 300, replacement=True, generator=generator)
            reward = (torch.rand(300, generator=generator) < p[arm]).double()
            log = bandits.Log(arm, reward, chances[arm], (0, 1, 2))
            policy = bandits.ThompsonSampling(BetaBernoulli(F64 + 1, F64 + 1), range(3), seed=shifted(number))
            values[name].append(float(bandits.replay(policy, log, seed=shifted(number)).rewards[:40].mean()))
        policy = bandits.ThompsonSampling(
            BetaBernoulli(F64 + 1, F64 + 1), range(3), seed=shifted(number), propensities=False
        )
        generator, total = seed(2000 + number), 0.0
        for _ in range(40):
            choice = policy.choose()
            reward_now = float(torch.rand((), generator=generator) < p[int(choice.arm)])
            policy.update(choice, reward_now)
            total += reward_now / 40
        values["live"].append(total)
    live = torch.tensor(values["live"])
    for name in ("even", "uneven"):
        gap = torch.tensor(values[name]) - live
        assert abs(float(gap.mean())) < 5 * float(gap.std()) / math.sqrt(40), name


def test_probabilities_of_a_policy_follow_the_names_of_the_log() -> None:
    log, _, _ = world(2, rows=30)
    prior = LinearGaussian(torch.zeros(2).double(), torch.eye(2).double(), F64 + 1.0)
    policy = bandits.ThompsonSampling(prior, [3, 1, 0, 2], seed=shifted(0))
    policy.learn([3] * 20, torch.full((20,), 5.0), context=torch.ones(20, 2))
    ours = bandits.policy_probabilities(policy, log)
    assert log.context is not None
    torch.testing.assert_close(ours[:, 3], policy.probabilities(log.context).probability[:, 0])
    with pytest.raises(ValueError, match="the policy must have the arms of the log"):
        bandits.policy_probabilities(bandits.UniformlyRandom(range(3)), log)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda log, target: bandits.ips(log, target[:, :3]), r"probabilities must have shape \(250, 4\)"),
        (lambda log, target: bandits.ips(log, 2 * target), "must be at least 0 and add to one; those of decision 0"),
        (lambda log, target: bandits.snips(log, target, cluster=torch.zeros(3)), "cluster must have a number for each"),
        (lambda log, target: bandits.doubly_robust(log, target, target[:3]), r"predicted must have shape \(250, 4\)"),
        (
            lambda log, target: bandits.fitted_rewards(log, None, folds=1, seed=shifted(0)),
            "folds must be at least 2; got 1",
        ),
        (lambda log, target: bandits.ips(log, target * math.nan), "add to one; those of decision 0 do not: .nan, nan"),
        (lambda log, target: bandits.snips(log, [math.nan] * 4), "must be at least 0 and add to one"),
        (lambda log, target: bandits.ips(log, [math.inf, -math.inf, 0.0, 1.0]), "must be at least 0 and add to one"),
        (
            lambda log, target: bandits.doubly_robust(log, target, torch.full((ROWS, ARMS), math.nan)),
            r"predicted must be finite; got nan at \(0, 0\)",
        ),
        (lambda log, target: bandits.ips(log, target, clip=-1.0), "clip must be above 0; got -1.0"),
        (lambda log, target: bandits.snips(log, target, clip=math.nan), "clip must be above 0; got nan"),
        (lambda log, target: bandits.doubly_robust(log, target, target, clip=0), "clip must be above 0; got 0"),
        (lambda log, target: bandits.ips(log[:0], target), "the log has no decisions"),
        (lambda log, target: bandits.snips(log[:0], target[:0]), "the log has no decisions"),
        (lambda log, target: bandits.doubly_robust(log[:0], target[:0], target[:0]), "the log has no decisions"),
        (lambda log, target: bandits.replay(bandits.UniformlyRandom(range(4)), log[:0]), "the log has no decisions"),
        (lambda log, target: bandits.fitted_rewards(log[:0], None, seed=shifted(0)), "the log has no decisions"),
        (
            lambda log, target: bandits.fitted_rewards(log[:3], None, seed=shifted(0)),
            r"each of 5 folds needs a decision; the log has 3\. Try folds=3",
        ),
        (
            lambda log, target: bandits.ips(log, target, cluster=[None, *range(1, ROWS)]),
            "cluster must say of each decision whose it is; that of decision 0 is missing",
        ),
        (
            lambda log, target: bandits.ips(log, target, cluster=pd.Series([1, pd.NA] * (ROWS // 2), dtype="Int64")),
            "that of decision 1 is missing",
        ),
        (
            lambda log, target: bandits.ips(log, target, cluster=torch.zeros(ROWS, 1)),
            r"cluster must have a number for each of 250 decisions; got shape \(250, 1\)",
        ),
        (lambda log, target: bandits.ips(log, target).interval(95.0), "level must be between 0 and 1; got 95.0"),
        (lambda log, target: bandits.replay(bandits.UniformlyRandom(range(4), tasks=2), log), "policy for one task"),
    ],
)
def test_bad_evaluations(call: Any, message: str) -> None:
    log, target, _ = world(0)
    with pytest.raises(ValueError, match=message):
        call(log, target)


def test_an_interval_without_width_is_no_certainty() -> None:
    arm = torch.arange(600) % 3
    log = bandits.Log(arm, torch.full((600,), 0.3).double(), torch.full((600,), 1 / 3).double(), ("a", "b", "c"))
    with pytest.warns(bandits.FewSamplesWarning, match="all 600 decisions that count say the same"):
        assert bandits.ips(log, torch.full((3,), 1 / 3).double()).value == pytest.approx(0.3)
    with pytest.warns(bandits.FewSamplesWarning, match="an interval without width"):
        bandits.replay(bandits.UniformlyRandom(["a", "b", "c"], seed=shifted(0)), log, seed=shifted(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda log, target: bandits.ips(log, target, clip="1"), "clip must be a number; got '1'"),
        (lambda log, target: bandits.ips(log, ["a", "b", "c", "d"]), "probabilities must be numbers; got 'a'"),
        (lambda log, target: bandits.fitted_rewards(log, None, folds=2.5, seed=shifted(0)), "folds must be a whole"),
        (
            lambda log, target: bandits.ips(log, target, cluster=np.array(["a", 1] * (ROWS // 2), object)),
            "cluster must be numbers, or names, all of one kind",
        ),
    ],
)
def test_evaluations_of_what_is_no_number(call: Any, message: str) -> None:
    log, target, _ = world(0)
    with pytest.raises(TypeError, match=message):
        call(log, target)


@pytest.mark.parametrize("kind", [np.asarray, lambda v: v.tolist(), pd.DataFrame, pl.DataFrame, torch.tensor])
def test_estimates_from_arrays_frames_and_lists(kind: Any) -> None:
    log, target, means = world(0)
    users = torch.arange(ROWS) // 2
    made = [kind(v.numpy()) for v in (target, means)]
    named = [f"user {i:03}" for i in users.tolist()]  # in the order of the numbers
    for cluster in (users.numpy(), users.tolist(), pd.Series(users.numpy()), named):
        assert bandits.ips(log, made[0], cluster=cluster) == bandits.ips(log, target, cluster=users)
    assert bandits.snips(log, made[0]) == bandits.snips(log, target)
    assert bandits.doubly_robust(log, *made) == bandits.doubly_robust(log, target, means)


def test_users_whose_numbers_are_long_are_told_apart() -> None:
    log, target, _ = world(0)
    users = 2**60 + torch.arange(ROWS)  # which float64 rounds to a few
    assert bandits.ips(log, target, cluster=users).clusters == ROWS
    assert bandits.ips(log, target, cluster=users.tolist()).clusters == ROWS


def test_one_user_says_nothing_of_others() -> None:
    log, target, means = world(0)
    one = torch.zeros(ROWS)
    for estimator, others in ((bandits.ips, ()), (bandits.snips, ()), (bandits.doubly_robust, (means,))):
        with pytest.warns(FewSamplesWarning, match="all 250 decisions are of one cluster"):
            estimate = estimator(log, target, *others, cluster=one)
        assert estimate.clusters == 1
        assert estimate.interval() == (-math.inf, math.inf)
        assert math.isfinite(estimate.value)
