"""Propensities where draws round to one or to zero, and estimates that must never be zero."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

import bandits
from bandits.decisions.policy import Policy
from bandits.prospects.even_points import by_even_points
from bandits.prospects.log_concave import Variables
from bandits.prospects.propensity import best_of_independent
from bandits.prospects.zoom import chance_of_chosen
from bayesmeta import (
    BetaBernoulli,
    GammaExponential,
    GammaPoisson,
    GaussianProcess,
    LinearGaussian,
    NormalKnownVariance,
)
from bayesmeta.distributions.link_marginals import LogGamma, LogInverseGamma, LogitBeta
from bayesmeta.distributions.marginals import BetaMarginal, InverseGammaMarginal
from bayesmeta.random import rand, randn
from tests.bandits.prospects.test_propensity import OnlyDraws
from tests.families import F64, seed
from tests.seeds import shifted

SEED, DRAWS = shifted(1), 40_000
FAMILIES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "beta": BetaBernoulli,
    "counts": GammaPoisson,
    "times": GammaExponential,
}


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def within_five_standard_errors(policy: Policy, num: int = DRAWS) -> None:
    exact = policy.probabilities().probability[0]
    share = torch.bincount(policy.choose(num=num, propensities=False).arm, minlength=len(exact)) / num
    assert exact.isfinite().all()
    assert exact.sum().item() == pytest.approx(1.0)
    error = (exact * (1 - exact) / num).sqrt()
    assert ((share - exact).abs() <= 5 * error + 5 / num).all(), (exact, share)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("policy", [bandits.ThompsonSampling, bandits.MarginalThompson])
def test_they_are_frequencies_over_ten_decades_of_shapes(name: str, policy: type[Policy]) -> None:
    for number in range(8):
        first, second = 10.0 ** (10.0 * rand((2, 3), like=F64, generator=seed(number)) - 5.0)
        within_five_standard_errors(policy(FAMILIES[name](first, second), ["a", "b", "c"], seed=SEED))


@pytest.mark.parametrize(
    ("successes", "failures", "expected"),
    [
        ([1.0, 1.0], [0.2, 0.2], [0.5, 0.5]),
        ([616.0, 8.8, 0.32], [1.9, 0.0096, 0.0101], [0.0028, 0.536, 0.461]),  # the second: 8.8 and .0096
        ([1e5, 1e5], [1e-4, 1e-4], [0.5, 0.5]),
        ([1e-3] * 4, [5.0] * 4, [0.25] * 4),
    ],
)
def test_draws_that_round_to_the_same_number_are_told_apart(
    successes: list[float], failures: list[float], expected: list[float]
) -> None:
    names = range(len(successes))
    for kind in (bandits.ThompsonSampling, bandits.TopTwoThompson):
        policy = kind(BetaBernoulli(numbers(*successes), numbers(*failures)), names, seed=SEED)
        within_five_standard_errors(policy)
        if kind is bandits.ThompsonSampling:
            torch.testing.assert_close(policy.probabilities().probability[0], numbers(*expected), rtol=0, atol=2e-3)


def test_two_like_arms_are_as_likely_for_any_shapes() -> None:
    shapes = 10.0 ** (10.0 * rand((400, 2), like=F64, generator=seed(3)) - 5.0)
    for kind in (BetaMarginal, InverseGammaMarginal):
        twice = kind(*(shapes[:, i, None, None].expand(-1, 2, 1) for i in range(2)))
        torch.testing.assert_close(best_of_independent(twice), torch.full((400, 2), 0.5).double(), rtol=0, atol=1e-3)


def test_arms_that_nothing_tells_apart_are_chosen_as_often() -> None:
    """A context of zeros: all arms are worth exactly nothing."""
    prior = LinearGaussian(torch.zeros(2).double(), torch.eye(2).double(), F64 + 1.0)
    features = {"a": [0.0, 0.0], "b": [0.0, 0.0], "c": [0.0, 0.0]}
    choices = bandits.ThompsonSampling(prior, features, seed=SEED).choose(num=6000)
    share = torch.bincount(choices.arm, minlength=3) / 6000
    assert (share - 1 / 3).abs().max() < 5 * (2 / 9 / 6000) ** 0.5
    torch.testing.assert_close(choices.propensity, torch.full((6000,), 1 / 3).double())


def linear(arms: int) -> Policy:
    features = dict(enumerate(randn((arms, 10), like=F64, generator=seed(0))))
    prior = LinearGaussian(torch.zeros(10).double(), torch.eye(10).double(), F64 + 0.5)
    return bandits.ThompsonSampling(prior, features, seed=SEED)


def drawn(arms: int) -> Policy:
    return bandits.ThompsonSampling(OnlyDraws(BetaBernoulli(F64 + 1.0, F64 + 1.0)), range(arms), seed=SEED)


@pytest.mark.parametrize("rewards", [0, 30])
@pytest.mark.parametrize(("build", "arms", "num"), [(linear, 100, 8000), (drawn, 5, 800)])
def test_inverse_propensities_are_right_on_average(
    build: Callable[[int], Policy], arms: int, num: int, rewards: int
) -> None:
    """E[1{A = a} / p] is one for each arm that is chosen often enough, and p is never zero."""
    policy = build(arms)
    for reward in rand((rewards,), like=F64, generator=seed(1)).round().tolist():
        policy.update(policy.choose(propensities=False), reward)
    choices = policy.choose(num=num)
    propensity = choices.propensity.double()
    assert ((propensity > 0) & (propensity <= 1)).all()
    for arm in torch.bincount(choices.arm).argsort(descending=True)[:3].tolist():
        inverse = torch.where(choices.arm == arm, 1 / propensity, 0.0)
        assert (inverse.mean() - 1.0).abs() < 5 * inverse.std() / num**0.5


@pytest.mark.parametrize("arms", [2, 5, 30])
@pytest.mark.parametrize("name", ["beta", "gamma", "inverse gamma", "normal"])
def test_the_chosen_arm_alone_is_as_probable_as_among_all(name: str, arms: int) -> None:
    """Over ten decades of shapes, and four of standard deviations: by zooming, and by all arms' quantiles."""
    generator = seed(arms)
    first, second = (rand((100, arms, 1), like=F64, generator=generator) for _ in range(2))
    line = {
        "beta": lambda: LogitBeta(10 ** (10 * first - 5), 10 ** (10 * second - 5)),
        "gamma": lambda: LogGamma(10 ** (10 * first - 5), 10 ** (10 * second - 5)),
        "inverse gamma": lambda: LogInverseGamma(10 ** (10 * first - 5), 10 ** (10 * second - 5)),
        "normal": lambda: Normal(3 * first, 10 ** (4 * second - 3)),
    }[name]()
    every = best_of_independent(line)
    arm = torch.multinomial(every, 1, generator=generator)[:, 0]
    available = rand((100, arms), like=F64, generator=generator) < 0.8
    available[torch.arange(100), arm] = True
    for mask in (None, available):
        expected = best_of_independent(line, mask).gather(1, arm[:, None])[:, 0]
        error = (chance_of_chosen(line, arm, mask) / expected - 1).abs()
        assert error.median() < 1e-4
        assert error.quantile(0.9) < 5e-3
        assert error.max() < 0.5  # mostly below .05, and .1 in one set of fifty


KINDS: dict[str, Callable[[Tensor, Tensor], Distribution]] = {
    "beta": LogitBeta,
    "gamma": LogGamma,
    "inverse gamma": LogInverseGamma,
    "normal": lambda first, second: Normal(first.log(), second.sqrt()),
}


@pytest.mark.parametrize("arms", [1, 2, 100])
@pytest.mark.parametrize("name", KINDS)
def test_one_decision_is_as_probable_as_among_many(name: str, arms: int) -> None:
    """Few decisions take even points, and skip arms that are alike; many are zoomed on."""
    generator = seed(arms)
    shapes = (30.0 * rand((2, 30, arms, 1), like=F64, generator=generator) ** 3).ceil()
    every = KINDS[name](*shapes)
    draws = every.icdf(rand((30, arms, 1), like=F64, generator=generator).clamp(1e-12, 1 - 1e-12))[..., 0]
    at, arm = draws.max(-1)
    available = (rand((30, arms), like=F64, generator=generator) < 0.8).scatter(1, arm[:, None], True)
    for mask in (None, available):
        together = chance_of_chosen(every, arm, mask, at)
        for i in range(30):
            one = slice(i, i + 1)
            alone = chance_of_chosen(
                KINDS[name](*shapes[:, one]), arm[one], None if mask is None else mask[one], at[one]
            )
            torch.testing.assert_close(alone, together[one], rtol=2e-3, atol=0)


@pytest.mark.parametrize("name", KINDS)
def test_even_points_are_right_where_they_say_so(name: str) -> None:
    shapes = 10.0 ** (2.0 * rand((2, 400, 5, 1), like=F64, generator=seed(7)))
    every = KINDS[name](*shapes)
    expected = best_of_independent(every)
    arm = expected.argmax(-1)
    with np.errstate(all="ignore"):
        found, is_right = by_even_points(Variables.of(every, arm, None))
    assert is_right.mean() > 0.3
    exact = expected.gather(1, arm[:, None])[:, 0].numpy()
    assert np.abs(found / exact - 1.0)[is_right].max() < 3e-3


def one_choice_each(policy: Policy, num: int = 60) -> None:
    """Single decisions, and as many at once, log what all arms' probabilities say: to .1%, and seldom 2%."""
    exact = policy.probabilities().probability[0]
    together = policy.choose(num=num)
    alone = [policy.choose() for _ in range(num)]
    torch.testing.assert_close(together.propensity, exact[together.arm], rtol=0.03, atol=1e-9)
    logged = torch.tensor([choice.propensity for choice in alone], dtype=torch.float64)
    arm = torch.tensor([policy.arms.index(choice.arm) for choice in alone])
    torch.testing.assert_close(logged, exact[arm], rtol=0.03, atol=1e-9)
    assert (logged / exact[arm] - 1.0).abs().median() < 2e-3


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        (BetaBernoulli, [5.001, 0.001, 0.001], [0.001, 1.001, 2.001]),  # logits of hundreds beside one near zero
        (BetaBernoulli, [1664.0, 0.0243, 0.0243], [0.00146, 0.314, 0.314]),
        (BetaBernoulli, [9.1, 0.1], [10.1, 3.1]),  # the second is rare, where errors of F are not small
        (GammaPoisson, [3.1, 0.1], [6.1, 10.1]),
        (GammaExponential, [0.001, 13.001], [100.001, 26.001]),
    ],
)
def test_a_single_choice_logs_what_is_right(kind: Any, first: list[float], second: list[float]) -> None:
    one_choice_each(bandits.ThompsonSampling(kind(numbers(*first), numbers(*second)), range(len(first)), seed=SEED))


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 0.1])
def test_an_arm_beside_much_surer_ones_logs_what_is_right(scale: float) -> None:
    """What is integrated leaps where the surer ones are, also where a point happens to be."""
    for loc in (-2.0, -0.3, 0.0, 0.125):
        prior = NormalKnownVariance(numbers(0.0, loc), numbers(1.0, scale), F64 + 1.0)
        one_choice_each(bandits.ThompsonSampling(prior, ["a", "b"], seed=SEED))


def test_many_equal_decisions_of_a_gaussian_process_take_no_more_than_one() -> None:
    prior = GaussianProcess(torch.ones(3).double(), F64 + 1.0, F64 + 0.1)
    features = bandits.Joined(tuple("abcd"), randn((4, 3), like=F64, generator=seed(0)))
    policy = bandits.ThompsonSampling(prior, features, seed=SEED)
    for reward in (0.0, 1.0, 2.0):
        policy.update(policy.choose(propensities=False), reward)
    choices = policy.choose(num=3000)
    for arm in torch.bincount(choices.arm, minlength=4).nonzero()[:, 0].tolist():
        of_arm = choices.propensity[choices.arm == arm]
        assert (of_arm == of_arm[0]).all()
        share = (choices.arm == arm).double().mean()
        error = (share * (1 - share) * (1 / 3000 + 1 / 1000)).sqrt() + 1 / 1000
        assert abs(of_arm[0] - share) < 5 * error


def test_contexts_that_overflow_are_refused() -> None:
    prior = LinearGaussian(torch.zeros(2).double(), torch.eye(2).double(), F64 + 1.0)
    policy = bandits.ThompsonSampling(prior, ["a", "b", "c"], seed=SEED)
    for contexts in (torch.full((2,), 1e155, dtype=torch.float64), torch.full((20, 2), 1e155, dtype=torch.float64)):
        with pytest.raises(ValueError, match="contexts are too large"):
            policy.choose(contexts)
