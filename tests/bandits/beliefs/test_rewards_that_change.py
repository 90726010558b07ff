"""Rewards that change, against definitions written out: forgetting, windows, and a partition tree by recursion."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import bandits
from bandits.beliefs.wrapped import turns
from bayesmeta import BetaBernoulli, CorrelatedArms, Data, LinearGaussian, NormalInverseGamma
from bayesmeta.data.statistics import Statistics
from bayesmeta.online.start import online
from tests.families import F64, seed
from tests.seeds import shifted

ONES = BetaBernoulli(F64 + 2.0, F64 + 1.0)
LINEAR = LinearGaussian(torch.zeros(2, dtype=F64.dtype), torch.eye(2, dtype=F64.dtype), F64 + 0.5)
NONE = torch.zeros(0, dtype=F64.dtype)


def add(
    state: Any, task: Sequence[int], arm: Sequence[int] | None, y: Sequence[float], x: Tensor | None = None
) -> None:
    rows = torch.zeros(len(y), 0, dtype=F64.dtype) if x is None else x
    index = (torch.tensor(task),) if arm is None else (torch.tensor(task), torch.tensor(arm))
    state.add(index, rows, torch.tensor(y, dtype=F64.dtype))


def mean_of(state: Any, task: int, arms: int = 2) -> list[float]:
    means: list[float] = (
        state.marginal(torch.zeros(1, 1, 1, 0, dtype=F64.dtype), task).mean.expand(1, arms, 1).flatten().tolist()
    )
    return means


def test_turns_name_each_task_once_and_keep_the_order() -> None:
    task = torch.tensor([3, 1, 3, 3, 0, 1])
    assert [part.tolist() for part in turns(task)] == [[0, 1, 4], [2, 5], [3]]


def test_forgetting_weighs_rows_by_age_in_rows_of_their_task() -> None:
    state = bandits.Forgetting(ONES, 0.5).online((2, 2))
    add(state, [0, 0, 1, 0], [0, 0, 1, 1], [1.0, 0.0, 1.0, 1.0])
    # the rows of task 0 have ages 2, 1 and 0
    assert mean_of(state, 0) == pytest.approx([(2 + 0.25) / (3 + 0.75), 3 / 4])
    assert mean_of(state, 1) == pytest.approx([2 / 3, 3 / 4])
    add(state, [0], [1], [0.0])
    assert mean_of(state, 0) == pytest.approx([(2 + 0.125) / (3 + 0.375), 2.5 / 4.5])
    one_by_one = bandits.Forgetting(ONES, 0.5).online((2, 2))
    for task, arm, y in [(0, 0, 1.0), (0, 0, 0.0), (1, 1, 1.0), (0, 1, 1.0), (0, 1, 0.0)]:
        add(one_by_one, [task], [arm], [y])
    assert mean_of(one_by_one, 0) == pytest.approx(mean_of(state, 0))


def test_what_is_forgotten_goes_back_to_the_prior_and_not_to_nothing() -> None:
    prior = BetaBernoulli(F64 + 8.0, F64 + 2.0)
    state = bandits.Forgetting(prior, 0.9).online((1, 2))
    add(state, [0] * 30, [0] * 30, [0.0] * 30)
    assert mean_of(state, 0)[0] < 0.5
    add(state, [0] * 200, [1] * 200, [1.0] * 200)
    assert mean_of(state, 0)[0] == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize(
    ("prior", "x"),
    [
        (LINEAR, torch.randn(7, 2, generator=seed(1), dtype=F64.dtype)),
        (NormalInverseGamma(F64, F64 + 1, F64 + 3, F64 + 2), None),
    ],
)
def test_forgetting_nothing_is_the_plain_posterior(prior: Any, x: Tensor | None) -> None:
    y = torch.randn(7, generator=seed(2), dtype=F64.dtype).tolist()
    plain, forgetting = online(prior, (3,)), bandits.Forgetting(prior, 1.0).online((3,))
    for state in (plain, forgetting):
        add(state, [0, 1, 0, 2, 0, 1, 0], None, y, x)
    rows = torch.ones(3, 1, 0 if x is None else 2, dtype=F64.dtype)
    for name in ("mean", "variance"):
        torch.testing.assert_close(
            getattr(forgetting.marginal(rows), name), getattr(plain.marginal(rows), name), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("prior", [ONES, LINEAR])
def test_a_window_is_the_posterior_of_its_rows(prior: Any) -> None:
    d = 0 if prior is ONES else 2
    x = torch.randn(9, d, generator=seed(3), dtype=F64.dtype)
    y = (torch.rand(9, generator=seed(4)) < 0.5).double()
    state = bandits.SlidingWindow(prior, 4).online((2, 2))
    task, arm = [0, 0, 1, 0, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0, 1, 1, 1]
    add(state, task, arm, y.tolist(), x)
    latest = [[4, 5, 7, 8], [2, 6]]
    rows = torch.ones(1, d, dtype=F64.dtype)
    for t in range(2):
        for a in range(2):
            of_arm = [i for i in latest[t] if arm[i] == a]
            exact = prior.condition(Data.of(x[of_arm], y[of_arm])).marginal(rows)
            got = state.marginal(rows.expand(1, 1, 1, d), t)
            torch.testing.assert_close(got.mean[0, a], exact.mean)
            torch.testing.assert_close(got.variance[0, a], exact.variance)


def test_a_window_over_arms_by_number() -> None:
    prior = CorrelatedArms(torch.zeros(3).double(), torch.linalg.cholesky(torch.eye(3).double() + 0.5), F64 + 1.0)
    state = bandits.SlidingWindow(prior, 2).online((1,))
    add(state, [0, 0, 0], None, [5.0, 1.0, 2.0], torch.tensor([[0.0], [1.0], [2.0]]).double())
    x = torch.arange(3.0).double()[:, None]
    exact = prior.condition(Data.of(x[1:], torch.tensor([1.0, 2.0]).double())).marginal(x)
    torch.testing.assert_close(state.marginal(x[None], 0).mean[0], exact.mean)


def evidence(rows: Sequence[tuple[int, float]]) -> float:
    """log p of a stretch without change, two arms."""
    total = 0.0
    for arm in range(2):
        y = [r for a, r in rows if a == arm]
        data = Data.of(torch.zeros(len(y), 0).double(), torch.tensor(y).double())
        total += float(ONES.log_evidence(Statistics.of(data, order=1)))
    return total


def tree(rows: Sequence[tuple[int, float]], depth: int) -> float:
    """log w of a node, as it is defined."""
    if depth == 0 or not rows:
        return evidence(rows)
    half = 2 ** (depth - 1)
    split = tree(rows[:half], depth - 1) + tree(rows[half:], depth - 1)
    return math.log(0.5 * math.exp(evidence(rows)) + 0.5 * math.exp(split))


def test_a_partition_tree_predicts_as_its_recursion_does() -> None:
    depth, generator = 4, seed(5)
    arm = torch.randint(2, (16,), generator=generator).tolist()
    y = (torch.rand(16, generator=generator) < 0.3).double().tolist()
    state = bandits.ChangePoints(ONES, depth).online((2, 2))
    for t in range(16):
        rows = list(zip(arm[:t], y[:t], strict=True))
        for a in range(2):
            exact = math.exp(tree([*rows, (a, 1.0)], depth) - tree(rows, depth))
            assert mean_of(state, 1)[a] == pytest.approx(exact, rel=1e-9)
        add(state, [1], [arm[t]], [y[t]])
    # the tree is full: what comes begins anew
    assert mean_of(state, 1) == pytest.approx([2 / 3, 2 / 3])
    assert mean_of(state, 0) == pytest.approx([2 / 3, 2 / 3])


def test_a_partition_tree_takes_rows_together_as_one_by_one() -> None:
    generator = seed(6)
    task, arm = torch.randint(3, (40,), generator=generator), torch.randint(2, (40,), generator=generator)
    y = (torch.rand(40, generator=generator) < 0.4).double()
    together, single = (bandits.ChangePoints(ONES, 5).online((3, 2)) for _ in range(2))
    together.add((task, arm), torch.zeros(40, 0).double(), y)
    for i in range(40):
        single.add((task[i : i + 1], arm[i : i + 1]), torch.zeros(1, 0).double(), y[i : i + 1])
    for t in range(3):
        assert mean_of(together, t) == pytest.approx(mean_of(single, t), rel=1e-12)


CHANGING = {
    "forgetting": lambda prior: bandits.Forgetting(prior, 0.95),
    "window": lambda prior: bandits.SlidingWindow(prior, 50),
    "change points": lambda prior: bandits.ChangePoints(prior, 12),
}


def regret(prior: Any, rounds: int = 600, tasks: int = 60) -> Tensor:
    """Of Thompson sampling on two arms that change places every 200 rounds, per task."""
    policy = bandits.ThompsonSampling(prior, ["a", "b"], tasks=tasks, seed=shifted(0), propensities=False)
    generator, total = seed(7), torch.zeros(tasks)
    for t in range(rounds):
        good = (t // 200) % 2
        choices = policy.choose()
        chance = torch.where(choices.arm == good, 0.8, 0.2)
        total += 0.8 - chance
        policy.update(choices, (torch.rand(tasks, generator=generator) < chance).float())
    return total


def test_policies_that_expect_change_regret_less_where_there_is_some() -> None:
    ones = BetaBernoulli(torch.tensor(1.0), torch.tensor(1.0))
    still = regret(ones)
    for name, changing in CHANGING.items():
        less = still - regret(changing(ones))
        assert less.mean() > 5 * less.std() / math.sqrt(len(less)), name
        assert less.mean() > 0.2 * still.mean(), name


@pytest.mark.parametrize("name", CHANGING)
def test_changing_policies_are_saved_and_have_arms_that_come_and_go(name: str, tmp_path: Any) -> None:
    policy = bandits.ThompsonSampling(CHANGING[name](ONES), ["a", "b", "c"], tasks=2, seed=shifted(0))
    generator = seed(8)
    for _ in range(20):
        policy.update(policy.choose(available=["a", "c"]), (torch.rand(2, generator=generator) < 0.5).double())
    policy.save(tmp_path / "policy")
    again = bandits.ThompsonSampling.load(tmp_path / "policy")
    before = policy.posterior(["a", "c"], task=1).marginal(torch.zeros(1, 0).double()).mean
    for one in (policy, again):
        one.remove_arm("b")
        one.add_arm("d")
    torch.testing.assert_close(policy.posterior(["a", "c"], task=1).marginal(torch.zeros(1, 0).double()).mean, before)
    torch.testing.assert_close(
        policy.posterior(["d"], task=0).marginal(torch.zeros(1, 0).double()).mean, ONES.predict().mean.expand(1, 1)
    )
    for _ in range(5):
        choices = policy.choose(), again.choose()
        assert choices[0].arms == choices[1].arms
        torch.testing.assert_close(choices[0].propensity, choices[1].propensity)
        for one, chosen in zip((policy, again), choices, strict=True):
            one.update(chosen, [1.0, 0.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bandits.Forgetting(ONES, 1.5), "factor must be above 0, and at most 1; got 1.5"),
        (lambda: bandits.Forgetting(ONES, 0.0), "factor must be above 0"),
        (lambda: bandits.SlidingWindow(ONES, 0), "size must be at least 1 row; got 0"),
        (lambda: bandits.ChangePoints(ONES, 0), "depth must be from 1 to 40; got 0"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", CHANGING)
def test_bad_rows_change_nothing(name: str) -> None:
    policy = bandits.ThompsonSampling(CHANGING[name](ONES), ["a", "b"], seed=shifted(0))
    policy.update(policy.choose(), 1.0)
    before = policy.posterior().marginal(torch.zeros(1, 0).double()).mean
    choices = policy.choose(num=2)
    with pytest.raises(ValueError, match="y must be 0 or 1"):
        policy.update(choices, [1.0, 0.3])
    torch.testing.assert_close(policy.posterior().marginal(torch.zeros(1, 0).double()).mean, before)
