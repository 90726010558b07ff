"""Hypotheses of different families: as those of one family where they are, and Bayes' rule where they are not."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bandits
from bandits.beliefs.families import HypothesesOfFamilies
from bandits.beliefs.hypotheses import Hypotheses
from bandits.testing import Case, Law, laws_of
from bayesmeta import (
    BetaBernoulli,
    CorrelatedArms,
    Data,
    GammaPoisson,
    LinearGaussian,
    LinearNormalInverseGamma,
    NormalInverseGamma,
    NormalKnownVariance,
)
from bayesmeta.diffusion.prior import DiffusionPrior
from bayesmeta.distributions.side_by_side import SideBySide
from bayesmeta.random import randn, seeded
from tests.families import F64, FAMILIES, seed
from tests.seeds import shifted

K = 4
ARMS = torch.arange(K, dtype=torch.float64)[:, None]
KNOWN = NormalKnownVariance(F64 + 1.0, F64 + 2.0, F64 + 1.0)
UNKNOWN = NormalInverseGamma(F64, F64 + 1.0, F64 + 3.0, F64 + 2.0)
EYE = torch.eye(3, dtype=torch.float64)
LINEAR = LinearGaussian(EYE[0], EYE, F64 + 1.0)
NOISY = LinearNormalInverseGamma(EYE[1], EYE, F64 + 2.0, F64 + 1.0)
NONE = torch.zeros(1, 0).double()


def rows(num: int, number: int, arms: int = K) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Tasks 0 to 2 with arms, some more than once, and rewards."""
    task, arm = (torch.randint(most, (num,), generator=seed(number + i)) for i, most in enumerate((3, arms)))
    return (task, arm), randn((num,), like=F64, generator=seed(number + 2)) + arm


def diffusion(num_particles: int, arms: int = K) -> DiffusionPrior:
    theta = randn((60, arms), like=F64, generator=seed(1)) @ (torch.eye(arms).double() + 0.5)
    noisy = theta + 0.3 * randn(theta.shape, like=F64, generator=seed(2))
    return DiffusionPrior.initial(Data.of(ARMS[:arms].expand(60, arms, 1), noisy), num_particles=num_particles)


VAGUE = CorrelatedArms(torch.zeros(K).double(), 3.0 * torch.eye(K).double(), F64 + 1.0)
NARROW = CorrelatedArms(torch.arange(K).double(), 0.5 * torch.eye(K).double(), F64 + 1.0)


@pytest.mark.parametrize("separate", [True, False])
def test_priors_of_one_family_are_what_they_are_when_stacked(separate: bool) -> None:
    priors = [KNOWN, NormalKnownVariance(F64 - 1.0, F64 + 0.5, F64 + 2.0)] if separate else [VAGUE, NARROW]
    stacked = Hypotheses.of(priors, [0.3, 0.7])
    assert isinstance(stacked, Hypotheses)
    families = HypothesesOfFamilies(tuple(priors), stacked.log_weights)
    shape = (3, K) if separate else (3,)
    one, other = stacked.online(shape), families.online(shape)
    for number in range(3):
        index, y = rows(7, number)
        x = torch.zeros(7, 0).double() if separate else index[1][:, None]
        for state in (one, other):
            state.add(index if separate else index[:1], x, y)
    x = NONE.expand(3, 1, 1, 0) if separate else ARMS.expand(3, K, 1)
    expected, found = one.marginal(x), other.marginal(x)
    for name in ("mean", "variance"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    level = torch.full(found.batch_shape, 0.9).double()
    torch.testing.assert_close(found.icdf(level), expected.icdf(level))
    torch.testing.assert_close(found.cdf(level), expected.cdf(level))
    torch.testing.assert_close(found.log_prob(level), expected.log_prob(level))
    index = (1, torch.tensor([2, 0])) if separate else 1
    torch.testing.assert_close(other.posterior(index).weights, one.posterior(index).weights)
    at = NONE if separate else ARMS
    torch.testing.assert_close(other.posterior(index).predict(at).mean, one.posterior(index).predict(at).mean)


def test_weights_are_the_exact_odds_of_two_families() -> None:
    policy = bandits.ThompsonSampling(Hypotheses.of([KNOWN, UNKNOWN], [0.2, 0.8]), ["a", "b"], tasks=2, seed=shifted(0))
    y = {arm: randn((5,), like=F64, generator=seed(i)) for i, arm in enumerate("ab")}
    for arm, values in y.items():
        for value in values.tolist():
            policy.update(policy.choose(task=1, available=[arm]), value)
    evidence = [
        sum(prior.log_evidence(Data.of(torch.zeros(5, 0).double(), values)) for values in y.values())
        for prior in (KNOWN, UNKNOWN)
    ]
    expected = (torch.stack([torch.as_tensor(part) for part in evidence]) + torch.tensor([0.2, 0.8]).log()).softmax(-1)
    weights = policy.posterior().weights
    torch.testing.assert_close(weights[1], expected.expand(2, 2), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(weights[0], torch.tensor([0.2, 0.8]).double().expand(2, 2), rtol=1e-6, atol=0.0)
    each = [prior.condition(Data.of(torch.zeros(5, 0).double(), y["a"])) for prior in (KNOWN, UNKNOWN)]
    mean = sum(w * one.predict(NONE).mean for w, one in zip(expected, each, strict=True))
    torch.testing.assert_close(policy.posterior(["a"], task=1).predict(NONE).mean[0], mean)


def test_a_frozen_belief_weighs_rows_as_one_in_place_does() -> None:
    prior = Hypotheses.of([KNOWN, UNKNOWN])
    y = randn((6,), like=F64, generator=seed(3))
    data = Data.of(torch.zeros(6, 0).double(), y)
    state = prior.online((1, 1))
    state.add((torch.zeros(6, dtype=torch.long),) * 2, data.x, y)
    found, expected = prior.condition(data), state.posterior((0, 0))
    torch.testing.assert_close(found.weights, expected.weights)
    torch.testing.assert_close(found.predict(NONE).variance, expected.predict(NONE).variance)
    first, last = data.rows(slice(0, 2)), data.rows(slice(2, None))
    total = prior.log_evidence(first) + prior.condition(first).log_evidence(last)
    torch.testing.assert_close(prior.log_evidence(data), total)
    draws = found.sample(4000, generator=seed(4))
    values, marginal = draws(NONE)[:, 0], found.marginal(NONE)
    assert (values.mean() - marginal.mean).abs() < 5.0 * values.std() / 4000**0.5
    assert draws.predict(NONE).mean.shape == (4000, 1)
    assert found.expand((2, 3)).batch_shape == (2, 3)
    assert found.expand((2, 3))[1].batch_shape == (3,)


def test_a_diffusion_prior_is_weighed_by_its_evidence() -> None:
    learned = diffusion(50)
    prior = Hypotheses.of([learned, VAGUE])
    state = prior.online((3,))
    (task, arm), y = rows(12, 5)
    state.add((task,), arm[:, None], y)
    for number in range(3):
        data = Data.of(arm[task == number][:, None].double(), y[task == number])
        exact = torch.stack([learned.log_evidence(data), VAGUE.log_evidence(data)])
        own = state.posterior(number).log_weights
        # 50 particles stand for the prior of the rows since the filter was run last
        assert ((own[0] - own[1]) - (exact[0] - exact[1])).abs() < 1.0
    assert state.posterior().batch_shape == (3,)


def test_evidence_of_many_particles_is_that_of_the_filter() -> None:
    learned = diffusion(4000)
    state = learned.online((3,))
    (task, arm), y = rows(12, 5)
    state.add((task,), arm[:, None], y)
    for number in range(3):
        data = Data.of(arm[task == number][:, None].double(), y[task == number])
        # half of the particles at worst, of each row: the variance of the log is 1 / 2000 a row at most
        assert (state.log_evidence[number] - learned.log_evidence(data)).abs() < 5.0 * (12 / 2000) ** 0.5


def test_thompson_sampling_on_a_diffusion_prior_and_a_gaussian_one(tmp_path: Path) -> None:
    prior = Hypotheses.of([diffusion(50), VAGUE])
    policy = bandits.ThompsonSampling(prior, range(K), tasks=3, seed=shifted(0), propensities=False)
    truth = torch.tensor([0.0, 3.0, -1.0, 1.0]).double()
    for _ in range(30):
        choices = policy.choose()
        policy.update(choices, truth[choices.arm])
    assert policy.choose().arms == [1, 1, 1]
    told = policy.probabilities().probability
    assert (told[:, 1] > 0.5).all()
    policy.save(tmp_path / "policy")
    loaded = bandits.Policy.load(tmp_path / "policy")
    assert loaded.state().equals(policy.state(), rtol=0.0, atol=0.0)
    for _ in range(5):
        one, other = policy.choose(), loaded.choose()
        assert one.arms == other.arms
        policy.update(one, truth[one.arm])
        loaded.update(other, truth[other.arm])
    assert loaded.state().equals(policy.state(), rtol=0.0, atol=0.0)
    assert repr(policy).startswith("ThompsonSampling for 3 tasks over 4 arms")


@pytest.mark.parametrize("policy", [bandits.MarginalThompson, bandits.BayesUCB])
def test_policies_by_marginals_on_a_diffusion_prior_and_a_gaussian_one(policy: Any) -> None:
    prior = diffusion(40)
    policy = policy(Hypotheses.of([prior, prior.arms]), range(K), tasks=3, seed=shifted(0))
    truth = [0.0, 1.0, -1.0, 4.0]
    for task in range(3):
        policy.learn(list(range(K)), truth, task=task)
    for _ in range(5):
        choices = policy.choose()
        assert [int(arm) for arm in choices.arms] == [3, 3, 3]
        policy.update(choices, torch.full((3,), truth[3]))


def test_two_diffusion_priors_are_not_stacked() -> None:
    prior = Hypotheses.of([diffusion(20), diffusion(30)])
    assert isinstance(prior, HypothesesOfFamilies)
    assert prior.online((2,)).draw(ARMS.expand(2, K, 1), generator=seed(0)).shape == (2, K)


GOES = "an_arm_that_goes_leaves_the_others_as_they_were"  # it takes along what it said of the task
ORDER = "rewards_come_late_and_in_any_order"
LOOP = "a_batch_of_tasks_equals_a_loop"


def case(*priors: Any, exempt: tuple[str, ...] = (GOES,), dtype: torch.dtype = torch.float64, **options: Any) -> Case:
    arms = ["a", "b", "c"]
    prior: Any = Hypotheses.of(priors)
    if dtype != torch.float64:
        prior = prior.to(dtype)
    return Case(
        lambda **others: bandits.ThompsonSampling(prior, arms, **others),
        exempt=frozenset(exempt),
        shift=shifted(0),
        **options,
    )


def flat(prior: LinearGaussian) -> LinearGaussian:
    return LinearGaussian(prior.loc[:2], prior.precision[:2, :2], prior.noise_var)


THREE = CorrelatedArms(EYE[0], EYE, F64 + 1.0)
CASES = {
    "normal": case(KNOWN, UNKNOWN),
    "coins and counts": case(
        BetaBernoulli(F64 + 1.0, F64 + 2.0), GammaPoisson(F64 + 1.0, F64 + 1.0), bad_rewards=(0.5, -1.0, 2.0)
    ),
    "single precision": case(LINEAR, NOISY, width=3, dtype=torch.float32, rtol=1e-4),
    "process": case(flat(LINEAR), FAMILIES["gaussian_process"].prior, width=2, num_draws=500),
    # rewards change with time
    "forgetting": case(bandits.Forgetting(KNOWN, 0.9), UNKNOWN, exempt=(GOES, ORDER)),
    # particles are drawn of all tasks together, and of the rows as they came
    "numbers": case(THREE, diffusion(50, 3), new_arm={"features": 1}, exempt=(LOOP, ORDER)),
}
PAIRS = [(name, law) for name, case in CASES.items() for law in laws_of(case)]


@pytest.mark.parametrize(("name", "law"), PAIRS, ids=[f"{name}-{law.__name__}" for name, law in PAIRS])
def test_laws(name: str, law: Law) -> None:
    law(CASES[name])


@pytest.mark.parametrize(
    ("priors", "error", "message"),
    [
        ([KNOWN, BetaBernoulli], TypeError, "a hypothesis is a prior; got <class"),
        ([KNOWN, "prior"], TypeError, "a hypothesis is a prior; got 'prior'"),
        ([VAGUE, KNOWN], ValueError, "CorrelatedArms knows 4 by number, and NormalKnownVariance knows none by number"),
        ([VAGUE, THREE], ValueError, "CorrelatedArms knows 4 by number, and CorrelatedArms knows 3 by number"),
        ([KNOWN, Hypotheses.of([KNOWN, KNOWN])], TypeError, "Hypotheses has hypotheses of its own"),
        ([KNOWN, FAMILIES["normal_inverse_wishart"].prior], ValueError, "has event_shape"),
        ([], ValueError, "one for each of 0 priors"),
    ],
)
def test_bad_families(priors: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Hypotheses.of(priors)


def test_what_has_hypotheses_of_its_own_is_refused() -> None:
    with pytest.raises(TypeError, match="a ChangePoints has hypotheses of its own"):
        Hypotheses.of([bandits.ChangePoints(KNOWN, 4), UNKNOWN]).online((1, 2))
    with pytest.raises(ValueError, match="each of 2 priors needs a weight"):
        HypothesesOfFamilies((KNOWN, UNKNOWN), torch.zeros(3))


def test_what_one_family_refuses_no_other_learns() -> None:
    state = Hypotheses.of([UNKNOWN, BetaBernoulli(F64 + 1.0, F64 + 1.0)]).online((2, 2))
    zero = torch.zeros(1, dtype=torch.long)
    state.add((zero, zero), NONE, torch.ones(1).double())
    before = state.posterior()
    with pytest.raises(ValueError, match="0 or 1"):
        state.add((zero, zero), NONE, torch.tensor([0.5]).double())
    assert state.posterior().equals(before, rtol=0.0, atol=0.0)


def test_distributions_side_by_side() -> None:
    both = SideBySide(
        [torch.distributions.Normal(F64, F64 + 1.0), torch.distributions.Laplace(F64 + 1.0, F64 + 2.0)], -1
    )
    assert both.mean.tolist() == [0.0, 1.0]
    assert both.batch_shape == (2,)
    level = torch.tensor([0.3, 0.6]).double()
    torch.testing.assert_close(both.cdf(both.icdf(level)), level)
    with seeded(seed(0)):
        assert both.sample((5,)).shape == (5, 2)
    with pytest.raises(ValueError, match="axis is counted from the right"):
        SideBySide([], -1)
