"""Probabilities of being the best against quadrature by another author's code, and of choices against frequencies."""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

import bandits
from bandits.decisions.policy import Policy
from bandits.prospects.propensity import best_of_independent
from bayesmeta import (
    BetaBernoulli,
    CorrelatedArms,
    Data,
    GammaExponential,
    GammaPoisson,
    GaussianProcess,
    Hyperposterior,
    LinearGaussian,
    LinearHyperposterior,
    LinearNormalInverseGamma,
    LogisticGaussian,
    NormalInverseGamma,
    NormalKnownVariance,
)
from bayesmeta.distributions.marginals import BetaMarginal, GammaMarginal, StudentMarginal
from bayesmeta.fields import TensorFields
from tests.families import F64, seed
from tests.seeds import shifted

SEED = shifted(1)
A = torch.tensor([[1.0, 5.0, 300.0, 0.5]], dtype=torch.float64)[..., None]
B = torch.tensor([[2.0, 4.0, 290.0, 0.5]], dtype=torch.float64)[..., None]
NARROW = torch.tensor([[0.3, 0.01, 4.0, 0.05]], dtype=torch.float64)[..., None]
CASES: dict[str, tuple[Distribution, Callable[[int], scipy.stats.rv_continuous]]] = {
    "beta": (BetaMarginal(A, B), lambda i: scipy.stats.beta(A[0, i, 0], B[0, i, 0])),
    "normal": (Normal(A.log(), NARROW), lambda i: scipy.stats.norm(A[0, i, 0].log(), NARROW[0, i, 0])),
    "student": (
        StudentMarginal(A, B.log(), NARROW),
        lambda i: scipy.stats.t(A[0, i, 0], B[0, i, 0].log(), NARROW[0, i, 0]),
    ),
    "gamma": (GammaMarginal(A, B), lambda i: scipy.stats.gamma(A[0, i, 0], scale=1 / B[0, i, 0])),
}


def by_quadrature(each: list[scipy.stats.rv_continuous]) -> list[float]:
    """p_a as an integral over the uniform variable that F_a makes of arm a, split where the others turn."""

    def probability(a: int) -> float:
        def others(u: float) -> float:
            value = each[a].ppf(u)
            product = 1.0
            for b, other in enumerate(each):
                product *= 1.0 if b == a else other.cdf(value)
            return product

        turns = [each[a].cdf(other.ppf(level)) for other in each for level in (0.01, 0.2, 0.5, 0.8, 0.99)]
        points = sorted({min(max(point, 0.0), 1.0) for point in turns} | {0.0, 1.0})
        pieces = itertools.pairwise(points)
        return sum(scipy.integrate.quad(others, low, high, epsabs=1e-11, limit=200)[0] for low, high in pieces)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scipy.integrate.IntegrationWarning)  # the sum below says whether it matters
        found = [probability(a) for a in range(len(each))]
    assert sum(found) == pytest.approx(1.0, abs=1e-6)
    return found


@pytest.mark.parametrize("name", CASES)
def test_probabilities_of_the_best_are_those_of_quadrature(name: str) -> None:
    marginal, frozen = CASES[name]
    got = best_of_independent(marginal)[0]
    expected = torch.tensor(by_quadrature([frozen(i) for i in range(4)]), dtype=torch.float64)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=5e-6)
    assert float(got.sum()) == pytest.approx(1.0, abs=1e-12)


def test_arms_that_are_not_available_have_none() -> None:
    available = torch.tensor([[True, False, True, True]])
    marginal, frozen = CASES["beta"]
    got = best_of_independent(marginal, available)[0]
    assert got[1] == 0.0
    expected = by_quadrature([frozen(i) for i in (0, 2, 3)])
    torch.testing.assert_close(got[[0, 2, 3]], torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=5e-6)


def test_many_like_arms_share_evenly() -> None:
    marginal = Normal(torch.zeros(3, 50, 1), torch.ones(3, 50, 1))
    torch.testing.assert_close(best_of_independent(marginal), torch.full((3, 50), 0.02))


def test_one_arm_is_the_best() -> None:
    assert best_of_independent(Normal(torch.zeros(2, 1, 1), torch.ones(2, 1, 1))).tolist() == [[1.0], [1.0]]


BERNOULLI = BetaBernoulli(F64 + 1.0, F64 + 2.0)
LINEAR = LinearGaussian(
    torch.tensor([0.3, -0.2], dtype=torch.float64), 2 * torch.eye(2, dtype=torch.float64), F64 + 0.5
)
NOISY = LinearNormalInverseGamma(LINEAR.loc, LINEAR.precision, F64 + 2.0, F64 + 1.0)
CORRELATED = CorrelatedArms(
    torch.tensor([0.1, 0.0, 0.2], dtype=torch.float64),
    torch.linalg.cholesky(torch.tensor([[1.0, 0.9, 0.1], [0.9, 1.0, 0.2], [0.1, 0.2, 1.0]], dtype=torch.float64)),
    F64 + 0.5,
)
PROCESS = GaussianProcess(torch.tensor([0.5], dtype=torch.float64), F64 + 1.0, F64 + 0.3)
LOGISTIC = LogisticGaussian(LINEAR.loc, LINEAR.precision)
FEATURES = {"a": [1.0, 0.2], "b": [0.3, 1.0], "c": [0.5, 0.5]}
TWO = {"a": [1.0, 0.2], "b": [0.3, 1.0]}
POLICIES: dict[str, tuple[Callable[[], Policy], Tensor | None]] = {
    "thompson": (lambda: bandits.ThompsonSampling(BERNOULLI, ["a", "b", "c"], seed=SEED), None),
    "thompson counts": (
        lambda: bandits.ThompsonSampling(GammaPoisson(F64 + 2, F64 + 1), ["a", "b", "c"], seed=SEED),
        None,
    ),
    "thompson times": (
        lambda: bandits.ThompsonSampling(GammaExponential(F64 + 3, F64 + 1), ["a", "b"], seed=SEED),
        None,
    ),
    "thompson normal": (
        lambda: bandits.ThompsonSampling(
            NormalInverseGamma(F64, F64 + 1, F64 + 2, F64 + 1), ["a", "b", "c"], seed=SEED
        ),
        None,
    ),
    "thompson known variance": (
        lambda: bandits.ThompsonSampling(NormalKnownVariance(F64, F64 + 1, F64 + 2), ["a", "b", "c"], seed=SEED),
        None,
    ),
    "thompson disjoint": (
        lambda: bandits.ThompsonSampling(LINEAR, ["a", "b", "c"], seed=SEED),
        torch.tensor([1.0, -0.5]),
    ),
    "thompson noise unknown": (
        lambda: bandits.ThompsonSampling(NOISY, ["a", "b", "c"], seed=SEED),
        torch.tensor([1.0, -0.5]),
    ),
    "thompson shared": (lambda: bandits.ThompsonSampling(LINEAR, FEATURES, seed=SEED), None),
    "thompson two shared": (lambda: bandits.ThompsonSampling(LINEAR, TWO, seed=SEED), None),
    "thompson correlated": (lambda: bandits.ThompsonSampling(CORRELATED, ["a", "b", "c"], seed=SEED), None),
    "thompson logistic disjoint": (
        lambda: bandits.ThompsonSampling(LOGISTIC, ["a", "b", "c"], seed=SEED),
        torch.tensor([1.0, -0.5]),
    ),
    "epsilon greedy logistic": (lambda: bandits.EpsilonGreedy(LOGISTIC, FEATURES, seed=SEED), None),
    "thompson logistic": (lambda: bandits.ThompsonSampling(LOGISTIC, FEATURES, seed=SEED), None),
    "marginal": (lambda: bandits.MarginalThompson(CORRELATED, ["a", "b", "c"], seed=SEED), None),
    "top two": (lambda: bandits.TopTwoThompson(BERNOULLI, ["a", "b", "c"], share=0.6, seed=SEED), None),
    "top two correlated": (lambda: bandits.TopTwoThompson(CORRELATED, ["a", "b", "c"], seed=SEED), None),
    "bayes ucb": (lambda: bandits.BayesUCB(BERNOULLI, ["a", "b", "c"], seed=SEED), None),
    "epsilon greedy": (lambda: bandits.EpsilonGreedy(BERNOULLI, ["a", "b", "c"], epsilon=0.3, seed=SEED), None),
    "linucb": (lambda: bandits.LinUCB(LINEAR, ["a", "b", "c"], seed=SEED), torch.tensor([1.0, -0.5])),
    "ucb1": (lambda: bandits.UCB1(["a", "b", "c"], seed=SEED), None),
    "random": (lambda: bandits.UniformlyRandom(["a", "b", "c"], seed=SEED), None),
    "diagonal": (lambda: bandits.DiagLinUCB(["a", "b", "c"], 2, seed=SEED), torch.tensor([1.0, 0.5])),
    "hypotheses": (
        lambda: bandits.ThompsonSampling(
            bandits.Hypotheses.of([BERNOULLI, BetaBernoulli(F64 + 8.0, F64 + 1.0)]), ["a", "b", "c"], seed=SEED
        ),
        None,
    ),
    "forgetting": (
        lambda: bandits.ThompsonSampling(bandits.Forgetting(BERNOULLI, 0.8), ["a", "b", "c"], seed=SEED),
        None,
    ),
    "window": (lambda: bandits.ThompsonSampling(bandits.SlidingWindow(BERNOULLI, 3), ["a", "b"], seed=SEED), None),
    "change points": (
        lambda: bandits.ThompsonSampling(bandits.ChangePoints(BERNOULLI, 4), ["a", "b", "c"], seed=SEED),
        None,
    ),
    "hierarchical shared": (lambda: bandits.HierTS(_linear_belief(), FEATURES, seed=SEED), None),
    "hierarchical": (lambda: bandits.HierTS(_coins(), ["a", "b"], seed=SEED), None),
    "adaptive": (lambda: bandits.AdaTS(_coins(), ["a", "b"], seed=SEED), None),
    "meta": (lambda: bandits.MetaTS(_coins(), ["a", "b", "c"], seed=SEED), None),
    "demonstrations": (
        lambda: bandits.ThompsonSampling(
            bandits.informed_prior(
                LINEAR,
                torch.tensor([*FEATURES.values()]).double(),
                torch.tensor([0, 0, 1]),
                num_draws=20,
                generator=seed(0),
            ),
            FEATURES,
            seed=SEED,
        ),
        None,
    ),
}


def _linear_belief() -> LinearHyperposterior:
    return LinearHyperposterior(LINEAR, torch.eye(2, dtype=torch.float64))


def _coins() -> Hyperposterior:
    y = (torch.rand(12, 8, generator=seed(2)) < 0.4).double()
    past = Data(y.new_zeros(12, 8, 0), y, torch.ones(12, 8, dtype=torch.bool))
    return Hyperposterior.fit(BetaBernoulli.initial(past), past, num_draws=100, generator=seed(3))


def learned(policy: Policy, context: Tensor | None) -> None:
    """A few rewards, more of one arm than of others."""
    for i in range(7):
        choice = policy.choose(context, available=[policy.arms[0]] if i < 4 else None, propensities=False)
        policy.update(choice, float(i % 3 == 0))


SLOW = {"top two", "top two correlated", "adaptive"}


@pytest.mark.parametrize("name", POLICIES)
def test_propensities_are_the_frequencies_of_choices(name: str) -> None:
    """Many choices, within five standard errors of the frequency and, where it was drawn, of the probability."""
    build, context = POLICIES[name]
    policy, num = build(), 5_000 if "logistic" in name else 20_000 if name in SLOW else 100_000
    learned(policy, context)
    asked = None if context is None else context.expand(num, -1)
    propensities = policy.probabilities(context)
    choices = policy.choose(asked, num=None if asked is not None else num, propensities=False)
    share = torch.bincount(choices.arm, minlength=len(policy.arms)).double() / num
    probability = propensities.probability[0].double()
    error = (probability * (1 - probability) / num).sqrt()
    if propensities.error is not None:
        # of the share of draws; one that was never drawn states no error, and has the frequency's
        either = torch.maximum(share, probability)
        drawn = torch.maximum(propensities.error[0].double().square(), either * (1 - either) / 1000)
        error = (error.square() + drawn).sqrt()
    if name == "top two correlated":  # given its own draws the probability is exact, and differs from draw to draw
        error = error + (probability * (1 - probability) / 1000).sqrt()
    assert (share - probability).abs().le(5 * error + 1e-12).all()


@pytest.mark.parametrize("name", POLICIES)
def test_a_choice_carries_the_propensity_of_its_arm(name: str) -> None:
    build, context = POLICIES[name]
    policy = build()
    learned(policy, context)
    expected = policy.probabilities(context)
    choice = policy.choose(context)
    position = policy.arms.index(choice.arm)
    if expected.error is None and name != "top two correlated":
        assert choice.propensity == pytest.approx(float(expected.probability[0, position]), rel=1e-4)
        assert choice.propensity_error is None
    else:
        assert abs(choice.propensity - float(expected.probability[0, position])) < 0.12


def test_marginal_draws_are_another_policy_where_arms_are_correlated() -> None:
    joint = bandits.ThompsonSampling(CORRELATED, ["a", "b", "c"], seed=SEED).probabilities()
    alone = bandits.MarginalThompson(CORRELATED, ["a", "b", "c"], seed=SEED).probabilities()
    assert (joint.probability - alone.probability).abs().max() > 0.02


def test_processes_over_context_and_arm_choose_by_joint_draws() -> None:
    policy = bandits.ThompsonSampling(
        GaussianProcess(torch.tensor([0.5, 0.5], dtype=torch.float64), F64 + 1.0, F64 + 0.3),
        {"a": [0.0], "b": [1.0]},
        seed=SEED,
    )
    for _ in range(3):
        choice = policy.choose([0.2])
        policy.update(choice, 1.0 if choice.arm == "b" else -1.0)
    posterior = policy.posterior()
    rows = torch.tensor([[0.2, 0.0], [0.2, 1.0]], dtype=torch.float64)
    draws = posterior.sample(4000, generator=seed(3))(rows)
    expected = float((draws[:, 1] > draws[:, 0]).double().mean())
    got = policy.probabilities([0.2])
    assert got.error is not None
    assert (got.error > 0.0).all(), "though all draws may agree"
    spread = (expected * (1 - expected) / 4000) ** 0.5 + float(got.error[0, 1])
    assert abs(float(got.probability[0, 1]) - expected) < 5 * spread


def test_averages_over_many_hypotheses_are_drawn_and_agree_with_the_exact_ones() -> None:
    few, many = (bandits.HierTS(_coins(), ["a", "b", "c"], tasks=tasks, seed=SEED) for tasks in (1, 40))
    for policy in (few, many):
        for reward in (1.0, 0.0, 1.0):
            policy.learn(["b"], [reward], task=0)
    exact, drawn = few.probabilities(task=0), many.probabilities()
    assert exact.error is None
    assert drawn.error is not None
    gap = (drawn.probability[0] - exact.probability[0]).abs()
    assert (gap < 5 * drawn.error[0] + 1e-12).all()


@dataclass(frozen=True, eq=False)
class OnlyDraws(TensorFields):
    """A family of somebody else that can be conditioned, predicted and drawn from."""

    inside: BetaBernoulli

    event_shape = torch.Size()

    @property
    def batch_shape(self) -> torch.Size:
        return self.inside.batch_shape

    def condition(self, data: Data) -> "OnlyDraws":
        return OnlyDraws(self.inside.condition(data))

    def predict(self, x: Tensor | None = None) -> Distribution:
        return self.inside.predict(x)

    def sample(self, num_draws: int, *, generator: torch.Generator | None = None) -> Any:
        return self.inside.sample(num_draws, generator=generator)


def test_a_family_without_marginals_has_propensities_that_are_drawn() -> None:
    drawn, exact = (
        bandits.ThompsonSampling(prior, ["a", "b", "c"], seed=SEED) for prior in (OnlyDraws(BERNOULLI), BERNOULLI)
    )
    for policy in (drawn, exact):
        policy.learn(["a", "b", "b"], [1.0, 0.0, 1.0])
    ours, truth = drawn.probabilities(), exact.probabilities()
    assert ours.error is not None
    assert ((ours.probability - truth.probability).abs() < 5 * ours.error + 1e-12).all()
    with pytest.raises(TypeError, match="has no marginal"):
        bandits.BayesUCB(OnlyDraws(BERNOULLI), ["a", "b"]).choose()


@pytest.mark.parametrize("kind", [bandits.UCB1, bandits.UniformlyRandom])
def test_exact_propensities_are_exact_in_float64(kind: Any) -> None:
    """Also where nothing of the policy is: thirds in float32 add up to one and 3e-8."""
    for policy in (
        kind(["a", "b", "c"], seed=shifted(0)),
        bandits.EpsilonGreedy(BetaBernoulli(torch.ones(()), torch.ones(())), ["a", "b", "c"], seed=shifted(0)),
        bandits.BayesUCB(BetaBernoulli(torch.ones(()), torch.ones(())), ["a", "b", "c"], seed=shifted(0)),
    ):
        for available in (None, ["a", "c", "b"]):
            exact = policy.probabilities(available=available).probability
            assert exact.dtype == torch.float64
            torch.testing.assert_close(exact, torch.full((1, 3), 1.0 / 3.0, dtype=torch.float64), rtol=1e-15, atol=0)
