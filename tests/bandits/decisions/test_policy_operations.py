"""Any order of decisions, late rewards, arms that come and go, and files: every policy keeps its promises."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import bandits
from bandits.decisions.policy import Policy
from bayesmeta import (
    BetaBernoulli,
    LinearGaussian,
    LinearHyperposterior,
    LinearNormalInverseGamma,
    LogisticGaussian,
    NormalInverseGamma,
)
from tests.seeds import seed, shifted

SEED = shifted(1)
ONE = torch.tensor(1.0)
COIN = BetaBernoulli(ONE, ONE)
LINEAR = LinearGaussian(torch.zeros(3), torch.eye(3), ONE)
OTHER = LinearGaussian(torch.ones(3), torch.eye(3), ONE)
ARMS = ["a", "b", "c"]
# each with the width of its contexts
POLICIES: dict[str, tuple[Callable[[], Policy], int]] = {
    "coins": (lambda: bandits.ThompsonSampling(COIN, ARMS, tasks=3, seed=SEED), 0),
    "linear": (lambda: bandits.ThompsonSampling(LINEAR, ARMS, tasks=3, seed=SEED), 3),
    "top two": (lambda: bandits.TopTwoThompson(LINEAR, ARMS, tasks=3, seed=SEED), 3),
    "bayes ucb": (
        lambda: bandits.BayesUCB(NormalInverseGamma(0 * ONE, ONE, 2 * ONE, ONE), ARMS, tasks=3, seed=SEED),
        0,
    ),
    "forgetting": (lambda: bandits.ThompsonSampling(bandits.Forgetting(LINEAR, 0.9), ARMS, tasks=3, seed=SEED), 3),
    "window": (lambda: bandits.ThompsonSampling(bandits.SlidingWindow(LINEAR, 5), ARMS, tasks=3, seed=SEED), 3),
    "change points": (lambda: bandits.ThompsonSampling(bandits.ChangePoints(LINEAR, 4), ARMS, tasks=3, seed=SEED), 3),
    "hypotheses": (
        lambda: bandits.ThompsonSampling(bandits.Hypotheses.of([LINEAR, OTHER]), ARMS, tasks=3, seed=SEED),
        3,
    ),
    "linucb": (
        lambda: bandits.LinUCB(
            LinearNormalInverseGamma(LINEAR.loc, LINEAR.precision, 2 * ONE, ONE), ARMS, tasks=3, seed=SEED
        ),
        3,
    ),
    "ucb1": (lambda: bandits.UCB1(ARMS, tasks=3, seed=SEED), 0),
    "diagonal": (lambda: bandits.DiagLinUCB(ARMS, 3, tasks=3, seed=SEED), 3),
    "hierarchical": (
        lambda: bandits.HierTS(LinearHyperposterior(LINEAR, torch.eye(3)), ARMS, tasks=3, seed=SEED),
        3,
    ),
    "logistic": (
        lambda: bandits.EpsilonGreedy(LogisticGaussian(LINEAR.loc, LINEAR.precision), ARMS, tasks=3, seed=SEED),
        3,
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_any_order_of_operations(name: str, tmp_path: Path) -> None:
    build, width = POLICIES[name]
    policy, chance = build(), random.Random(f"{name} {SEED}")
    generator, waiting, rewards = seed(0), [], 0
    for step in range(80):
        context = torch.randn(3, width, generator=generator) if width else None
        operation = chance.random()
        if operation < 0.45:
            waiting += list(policy.choose(context, propensities=chance.random() < 0.3))
        elif operation < 0.75 and waiting:
            choice = waiting.pop(chance.randrange(len(waiting)))
            if choice.arm in policy.arms:
                policy.update(choice, float(chance.random() < 0.5))
                rewards += 1
            else:
                with pytest.raises(ValueError, match="was of an arm that was removed since"):
                    policy.update(choice, 1.0)
        elif operation < 0.8 and len(policy.arms) > 1:
            gone = chance.choice(policy.arms)
            rewards -= int(policy.pulls[:, policy.arms.index(gone)].sum())
            policy.remove_arm(gone)
        elif operation < 0.87:
            policy.add_arm(f"arm {step}")
        elif operation < 0.94:
            policy.save(tmp_path / "policy")
            again = type(policy).load(tmp_path / "policy")
            ours, theirs = (one.choose(context, propensities=False) for one in (policy, again))
            assert ours.arms == theirs.arms
            waiting += list(ours)
        else:
            mask = torch.rand(3, len(policy.arms), generator=generator) < 0.5
            mask[:, 0] = True
            choices = policy.choose(context, available=mask, propensities=False)
            assert mask[torch.arange(3), choices.arm].all()
            waiting += list(choices)
    assert int(policy.pulls.sum()) == rewards
    probability = policy.probabilities(torch.randn(3, width, generator=generator) if width else None).probability
    torch.testing.assert_close(probability.sum(-1), torch.ones(3).to(probability))
