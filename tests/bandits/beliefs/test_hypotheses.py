"""Hypotheses about a task, against Bayes' rule written out; and the way back from a past that misleads."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import bandits
from bayesmeta import BetaBernoulli, CorrelatedArms, Data, LinearGaussian, fit_kinds
from bayesmeta.data.statistics import Statistics
from tests.families import F64, seed
from tests.seeds import shifted

LOW, HIGH = BetaBernoulli(F64 + 2.0, F64 + 8.0), BetaBernoulli(F64 + 8.0, F64 + 2.0)
NONE = torch.zeros(1, 0).double()


def evidence(prior: BetaBernoulli, y: list[float]) -> float:
    return float(
        prior.log_evidence(Statistics.of(Data.of(torch.zeros(len(y), 0).double(), torch.tensor(y).double()), order=1))
    )


def test_rewards_of_one_arm_say_which_hypothesis_holds_for_the_others() -> None:
    policy = bandits.ThompsonSampling(
        bandits.Hypotheses.of([LOW, HIGH], [0.3, 0.7]), ["a", "b"], tasks=2, seed=shifted(0)
    )
    for y in (0.0, 0.0, 1.0):
        policy.update(policy.choose(task=1, available=["a"]), y)
    weights = policy.posterior().weights
    log_odds = math.log(0.3 / 0.7) + evidence(LOW, [0, 0, 1]) - evidence(HIGH, [0, 0, 1])
    for arm in range(2):
        assert float(weights[1, arm, 0]) == pytest.approx(1 / (1 + math.exp(-log_odds)))
        assert float(weights[0, arm, 0]) == pytest.approx(0.3)
    untouched = policy.posterior(["b"], task=1).predict(NONE).mean
    low = float(weights[1, 0, 0])
    assert float(untouched) == pytest.approx(0.2 * low + 0.8 * (1 - low))


def test_draws_are_of_one_hypothesis_for_all_arms() -> None:
    sharp = [BetaBernoulli(F64 * 0 + a, F64 * 0 + b) for a, b in ((1.0, 1e6), (1e6, 1.0))]
    state = bandits.Hypotheses.of(sharp).online((2000, 3))
    draws = state.draw(torch.zeros(2000, 1, 1, 0).double(), generator=seed(1))[..., 0].round()
    assert torch.equal(draws.amin(-1), draws.amax(-1))
    assert abs(float(draws[:, 0].mean()) - 0.5) < 5 * 0.5 / math.sqrt(2000)


def test_priors_can_differ_between_arms() -> None:
    by_arm = BetaBernoulli(torch.tensor([1.0, 9.0]).double(), torch.tensor([9.0, 1.0]).double())
    policy = bandits.ThompsonSampling(bandits.Hypotheses.of([by_arm, LOW]), ["a", "b"], tasks=3, seed=shifted(0))
    torch.testing.assert_close(
        policy.posterior().predict(NONE).mean[..., 0], torch.tensor([[0.15, 0.55]]).double().expand(3, 2)
    )
    policy.remove_arm("a")
    torch.testing.assert_close(policy.posterior(task=0).predict(NONE).mean[..., 0], torch.tensor([0.55]).double())


def test_arms_that_share_weights_have_hypotheses_too() -> None:
    generator = seed(2)
    x, y = torch.randn(5, 2, generator=generator).double(), torch.randn(5, generator=generator).double()
    priors = [LinearGaussian(torch.full((2,), loc).double(), torch.eye(2).double(), F64 + 1.0) for loc in (-1.0, 2.0)]
    state = bandits.Hypotheses.of(priors).online((2,))
    state.add((torch.ones(5, dtype=torch.long),), x, y)
    log_weights = torch.stack([p.log_evidence(Data.of(x, y)) for p in priors]).log_softmax(0)
    torch.testing.assert_close(state.posterior(1).log_weights, log_weights)
    mean = sum(w * p.condition(Data.of(x, y)).predict(x).mean for w, p in zip(log_weights.exp(), priors, strict=True))
    torch.testing.assert_close(state.posterior(1).predict(x).mean, mean)


def regret(prior: Any, tables: Tensor, rounds: int) -> Tensor:
    tasks, arms = tables.shape
    policy = bandits.ThompsonSampling(prior, range(arms), tasks=tasks, seed=shifted(0), propensities=False)
    generator, total = seed(3), torch.zeros(tasks).double()
    for _ in range(rounds):
        choices = policy.choose()
        value = tables[torch.arange(tasks), choices.arm]
        total += tables.amax(-1) - value
        policy.update(choices, value + torch.randn(tasks, generator=generator).double())
    return total


def world(tasks: int, number: int) -> Tensor:
    """Ten arms whose means go up and down together about a slope."""
    generator = seed(number)
    slope = torch.linspace(-1, 1, 10).double()
    common = torch.randn(tasks, 1, generator=generator).double()
    return slope + slope * common + 0.3 * torch.randn(tasks, 10, generator=generator).double()


def past(tables: Tensor) -> Data:
    """Three rewards of each arm of each task."""
    arms = torch.arange(10.0).double().repeat(3)[:, None].expand(len(tables), 30, 1)
    noisy = tables.repeat(1, 3) + torch.randn(len(tables), 30, generator=seed(4)).double()
    return Data(arms, noisy, torch.ones(len(tables), 30, dtype=torch.bool))


def test_a_past_that_misleads_costs_little_and_one_that_helps_still_does() -> None:
    vague, rounds = CorrelatedArms(torch.zeros(10).double(), 2.0 * torch.eye(10).double(), F64 + 1.0), 200
    plain, helped, misled, alone = [], [], [], []
    for number in range(3):
        new, data = world(160, 5 + 100 * number), past(world(200, 6 + 100 * number))
        shuffled = data.y.gather(1, torch.rand(data.y.shape, generator=seed(7 + number)).argsort(-1))
        permuted_data = Data(data.x, shuffled, data.mask)
        learned = CorrelatedArms.initial(data).fit(data)
        permuted = CorrelatedArms.initial(permuted_data).fit(permuted_data)
        plain.append(regret(vague, new, rounds))
        helped.append(regret(bandits.Hypotheses.of([learned, vague]), new, rounds))
        misled.append(regret(bandits.Hypotheses.of([permuted, vague]), new, rounds))
        alone.append(regret(permuted, new, rounds))
    usual = torch.cat(plain).mean()
    # about 1.21 +- .04 and .64 +- .01 times the usual regret
    assert torch.cat(misled).mean() <= 1.45 * usual
    assert torch.cat(helped).mean() <= 0.83 * usual
    # the extra regret is .32 +- .1 of that without the way back
    assert torch.cat(misled).mean() - usual <= 0.85 * (torch.cat(alone).mean() - usual)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bandits.Hypotheses.of([LOW, HIGH], [1.0]), ValueError, "weights must be above 0, one for each of 2"),
        (lambda: bandits.Hypotheses.of([LOW, HIGH], [1.0, 0.0]), ValueError, "weights must be above 0"),
        (lambda: bandits.Hypotheses(LOW, torch.zeros(2)), ValueError, "there must be a weight for each hypothesis"),
    ],
)
def test_bad_hypotheses(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_task_is_of_one_kind() -> None:
    """Two kinds of tasks, learned from the past: the first rewards say which one this is."""
    generator = seed(8)
    kind = torch.rand(60, generator=generator) < 0.5
    chance = torch.where(kind, 0.15, 0.85)
    y = (torch.rand(60, 12, generator=generator) < chance[:, None]).double()
    tasks = Data(torch.zeros(60, 12, 0).double(), y, torch.ones(60, 12, dtype=torch.bool))
    kinds = fit_kinds(BetaBernoulli.initial(tasks), tasks, max_kinds=2, generator=generator)
    assert kinds.num_kinds == 2
    policy = bandits.ThompsonSampling(bandits.Hypotheses.of_mixture(kinds.prior), ["a", "b", "c"], seed=shifted(0))
    before = policy.posterior(["c"]).predict(NONE).mean
    for _ in range(4):
        policy.update(policy.choose(available=["a", "b"]), 1.0)
    after = policy.posterior(["c"]).predict(NONE).mean
    assert abs(float(before) - float(chance.mean())) < 0.15  # of the tasks that were drawn
    assert float(after) > 0.75
