"""Exact values of small problems against published ones, enumeration, and simulation with the library's policies."""

import itertools
import math

import numpy as np
import pytest
import torch

import bandits
from bandits.evaluation.bayes_optimal import greedy, thompson, ucb1
from bandits.prospects.propensity import best_of_independent
from bayesmeta import BetaBernoulli
from bayesmeta.distributions.marginals import BetaMarginal
from tests.seeds import shifted


def test_fifty_rounds_of_two_coins() -> None:
    assert bandits.bayes_optimal_value(50) == pytest.approx(31.997, abs=5e-4)
    assert bandits.expected_reward(thompson, 50) == pytest.approx(31.2, abs=0.05)
    assert bandits.expected_reward(ucb1, 50) == pytest.approx(29.8, abs=0.05)
    assert bandits.expected_reward(greedy, 50) == pytest.approx(31.67, abs=0.02)


def test_twenty_rounds_of_two_coins() -> None:
    assert bandits.bayes_optimal_value(20) == pytest.approx(12.431, abs=5e-4)
    assert bandits.expected_reward(thompson, 20) == pytest.approx(11.930, abs=5e-3)
    assert bandits.expected_reward(ucb1, 20) == pytest.approx(11.527, abs=5e-3)
    assert bandits.expected_reward(lambda s, f, prior: np.full(s[0].shape, 0.5), 20) == pytest.approx(10.0)


def by_recursion(state: tuple[int, int, int, int], rounds: int, a: float, b: float) -> float:
    if not rounds:
        return 0.0
    values = []
    for arm in range(2):
        paid, failed = state[2 * arm], state[2 * arm + 1]
        p = (paid + a) / (paid + failed + a + b)
        up, down = list(state), list(state)
        up[2 * arm] += 1
        down[2 * arm + 1] += 1
        values.append(
            p * (1 + by_recursion((up[0], up[1], up[2], up[3]), rounds - 1, a, b))
            + (1 - p) * by_recursion((down[0], down[1], down[2], down[3]), rounds - 1, a, b)
        )
    return max(values)


@pytest.mark.parametrize("prior", [(1.0, 1.0), (0.5, 2.0)])
def test_the_value_is_that_of_a_recursion_over_states(prior: tuple[float, float]) -> None:
    for rounds in (1, 2, 5):
        assert bandits.bayes_optimal_value(rounds, prior=prior) == pytest.approx(
            by_recursion((0, 0, 0, 0), rounds, *prior), rel=1e-12
        )


def test_the_probability_that_one_coin_is_better() -> None:
    for s1, f1, s2, f2 in itertools.product((0, 3), (1, 4), (0, 2), (5, 0)):
        ours = thompson((np.array(s1), np.array(s2)), (np.array(f1), np.array(f2)), (1.0, 1.0))
        both = BetaMarginal(
            torch.tensor([[[s1 + 1.0], [s2 + 1.0]]]).double(), torch.tensor([[[f1 + 1.0], [f2 + 1.0]]]).double()
        )
        assert float(ours) == pytest.approx(float(best_of_independent(both)[0, 0]), rel=1e-6)


def test_the_librarys_policies_gain_what_the_exact_values_say() -> None:
    ones = BetaBernoulli(torch.tensor(1.0), torch.tensor(1.0))
    tasks, rounds = 6000, 20
    environment = bandits.FromPrior(ones, range(2), tasks, seed=shifted(0))
    policies = {
        "thompson": bandits.ThompsonSampling(ones, range(2), tasks=tasks, seed=shifted(1), propensities=False),
        "ucb1": bandits.UCB1(range(2), tasks=tasks, seed=shifted(1), propensities=False),
        "greedy": bandits.EpsilonGreedy(ones, range(2), epsilon=0.0, tasks=tasks, seed=shifted(1), propensities=False),
    }
    for name, chooser in (("thompson", thompson), ("ucb1", ucb1), ("greedy", greedy)):
        total = bandits.simulate(policies[name], environment, rounds).rewards.sum(-1)
        error = float(total.std()) / math.sqrt(tasks)
        assert abs(float(total.mean()) - bandits.expected_reward(chooser, rounds)) < 5 * error, name


@pytest.mark.parametrize(("discount", "index"), [(0.9, 0.7029), (0.95, 0.7614), (0.99, 0.8699)])
def test_gittins_indices(discount: float, index: float) -> None:
    assert bandits.gittins_index(1.0, 1.0, discount) == pytest.approx(index, abs=5e-5)


def test_gittins_indices_at_their_limits() -> None:
    assert bandits.gittins_index(3.0, 1.0, 0.0) == pytest.approx(0.75)
    assert bandits.gittins_index(3e6, 1e6, 0.9) == pytest.approx(0.75, abs=1e-3)
    assert bandits.gittins_index(1.0, 1.0, 0.9) > bandits.gittins_index(2.0, 2.0, 0.9) > 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bandits.bayes_optimal_value(0), "rounds must be from 1 to 400; got 0"),
        (lambda: bandits.bayes_optimal_value(5, prior=(0.0, 1.0)), "prior must be above 0"),
        (lambda: bandits.expected_reward(thompson, 5, prior=(0.5, 0.5)), "needs whole successes in the prior; got 0.5"),
        (lambda: bandits.gittins_index(0.0, 1.0, 0.9), "successes and failures must be above 0; got 0.0 and 1.0"),
        (lambda: bandits.gittins_index(1.0, 1.0, 1.0), "discount must be at least 0 and below 1; got 1.0"),
    ],
)
def test_bad_problems(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
