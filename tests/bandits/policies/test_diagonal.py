"""Diag-LinUCB: its sums by hand, in any order and from many machines."""

import math
from typing import Any

import pytest
import torch

import bandits
import bayesmeta
from bandits.decisions.request import Request
from bayesmeta import Data, LinearGaussian
from tests.families import F64, seed
from tests.seeds import shifted


def test_the_score_is_that_of_the_paper() -> None:
    policy = bandits.DiagLinUCB(["a", "b"], 2, width=1.5, precision=2.0, seed=shifted(0))
    rows = [([1.0, 0.5], 1.0), ([0.2, 0.8], 0.0), ([1.0, 0.0], 3.0)]
    d, b = [2.0, 2.0], [0.0, 0.0]
    for w, r in rows:
        policy.update(policy.choose(w, available=["a"]), r)
        d = [old + x * x for old, x in zip(d, w, strict=True)]
        b = [old + x * r for old, x in zip(b, w, strict=True)]
    w = [0.6, 0.4]
    score = sum(x * s / p for x, s, p in zip(w, b, d, strict=True))
    score += 1.5 * math.sqrt(sum(x * x / p for x, p in zip(w, d, strict=True)))
    prospects = policy._prospects(Request(torch.tensor([w]), 0, 1, True))
    assert float(policy._scores(prospects)[0, 0]) == pytest.approx(score, rel=1e-6)
    fresh = 1.5 * math.sqrt(sum(x * x / 2.0 for x in w))
    assert float(policy._scores(prospects)[0, 1]) == pytest.approx(fresh, rel=1e-6)


def test_it_is_exact_where_a_context_names_one_cluster() -> None:
    generator = seed(0)
    x = torch.eye(3).double()[torch.randint(3, (20,), generator=generator)]
    y = torch.randn(20, generator=generator).double()
    diagonal = bandits.DiagonalWeights(torch.zeros(3).double(), torch.full((3,), 2.0).double(), F64 + 0.5)
    full = LinearGaussian(torch.zeros(3).double(), 2.0 * torch.eye(3).double(), F64 + 0.5)
    ours, exact = (prior.condition(Data.of(x, y)).predict(x) for prior in (diagonal, full))
    torch.testing.assert_close(ours.mean, exact.mean)
    torch.testing.assert_close(ours.variance, exact.variance)
    state = diagonal.online((1,))
    state.add((torch.zeros(20, dtype=torch.long),), x, y)
    torch.testing.assert_close(state.posterior(0).predict(x).mean, exact.mean)


def test_machines_add_what_others_have_learned_in_any_order(tmp_path: Any) -> None:
    generator = seed(1)
    contexts = torch.rand(40, 2, generator=generator)
    rewards = torch.rand(40, generator=generator)

    def machine() -> bandits.DiagLinUCB:
        return bandits.DiagLinUCB(["a", "b", "c"], 2, tasks=2, seed=shifted(0))

    def show(policy: Any, rows: range) -> None:
        for i in rows:
            choice = policy.choose(contexts[i], task=i % 2, available=[("a", "b", "c")[i % 3]])
            policy.update(choice, float(rewards[i]))

    alone, left, right, last = machine(), machine(), machine(), machine()
    show(alone, range(40))
    before = left.sums(), right.sums()
    bayesmeta.save(before[0], tmp_path / "sums")  # as it would be sent
    before = bayesmeta.load(tmp_path / "sums"), before[1]
    show(left, range(17))
    show(right, range(17, 40))
    for policy, start in ((right, before[1]), (left, before[0])):
        last.add(policy.sums() - start)
    torch.testing.assert_close(last.sums().precision, alone.sums().precision)
    torch.testing.assert_close(last.sums().shift, alone.sums().shift)


def test_increments_that_do_not_fit_change_nothing() -> None:
    policy, other = bandits.DiagLinUCB(["a", "b"], 2), bandits.DiagLinUCB(["a", "x"], 2)
    narrow = bandits.DiagLinUCB(["a", "b"], 3)
    before = policy.sums()
    with pytest.raises(ValueError, match="there is no arm 'x'"):
        policy.add(other.sums() - other.sums())
    with pytest.raises(ValueError, match=r"increments must have shape \(1, 2, 2\); got \(1, 2, 3\)"):
        policy.add(narrow.sums() - narrow.sums())
    with pytest.raises(ValueError, match="sums must be of the same arms"):
        policy.sums() - other.sums()
    torch.testing.assert_close(policy.sums().precision, before.precision)
    with pytest.raises(ValueError, match="the prior must know 2 clusters; it knows 3"):
        bandits.DiagLinUCB(["a"], 2, prior=bandits.DiagonalWeights(torch.zeros(3), torch.ones(3), torch.ones(())))


def test_it_is_saved_and_its_arms_come_and_go(tmp_path: Any) -> None:
    policy = bandits.DiagLinUCB(["a", "b"], 2, width=0.7, seed=shifted(0))
    policy.update(policy.choose([1.0, 0.5]), 1.0)
    policy.save(tmp_path / "policy")
    again = bandits.DiagLinUCB.load(tmp_path / "policy")
    for one in (policy, again):
        one.add_arm("c")
        one.remove_arm("a")
    assert again.width == 0.7
    assert policy.choose([0.3, 1.0]).arm == again.choose([0.3, 1.0]).arm
