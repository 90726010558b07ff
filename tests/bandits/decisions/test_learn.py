"""Policies learn from decisions that others made as from their own."""

from typing import Any

import pytest
import torch

import bandits
from bandits.decisions.request import Request
from bayesmeta import BetaBernoulli, CorrelatedArms, LinearGaussian
from tests.families import F64, seed
from tests.seeds import shifted

LINEAR = LinearGaussian(torch.zeros(2).double(), torch.eye(2).double(), F64 + 0.5)
FEATURES = bandits.Joined(("a", "b", "c"), torch.eye(3)[:, :2].double())
ARMS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("prior", "arms", "width"),
    [
        (BetaBernoulli(F64 + 1, F64 + 1), ARMS, 0),
        (LINEAR, ARMS, 2),
        (LINEAR, FEATURES, 0),
        (CorrelatedArms(torch.zeros(3).double(), torch.eye(3).double(), F64 + 1), ARMS, 0),
    ],
)
def test_learning_is_updating_what_was_chosen(prior: Any, arms: Any, width: int) -> None:
    generator = seed(0)
    learned, updated = (bandits.ThompsonSampling(prior, arms, tasks=2, seed=shifted(0)) for _ in range(2))
    chosen = [ARMS[i] for i in torch.randint(3, (30,), generator=generator).tolist()]
    task = torch.randint(2, (30,), generator=generator)
    rewards = (torch.rand(30, generator=generator) < 0.5).double()
    context = torch.randn(30, width, generator=generator).double() if width else None
    learned.learn(chosen, rewards, context=context, task=task)
    for i, arm in enumerate(chosen):
        row = None if context is None else context[i]
        updated.update(updated.choose(row, task=int(task[i]), available=[arm]), float(rewards[i]))
    assert torch.equal(learned.pulls, updated.pulls)
    next_row = None if context is None else context[:2]
    for _ in range(3):
        torch.testing.assert_close(
            learned.probabilities(next_row).probability,
            updated.probabilities(next_row).probability,
            atol=0.1 if learned._learner.roster.arms.separate is False else 1e-6,
            rtol=1e-6,
        )
    torch.testing.assert_close(_mean(learned, next_row), _mean(updated, next_row))


def _mean(policy: Any, context: Any) -> torch.Tensor:
    mean: torch.Tensor = policy._prospects(Request(context, None, 2, False)).mean()
    return mean


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((["a", "x"], [1.0, 0.0]), {}, "there is no arm 'x'; there are 'a', 'b', 'c'"),
        ((["a", "b"], [1.0]), {}, "each decision has one reward; got 2 arms and 1 rewards"),
        ((["a", "b"], [1.0, float("nan")]), {}, "rewards must be finite"),
        ((["a", "b"], [1.0, 0.5]), {}, "y must be 0 or 1"),
        ((["a"], [1.0]), {"context": [[1.0, 2.0]]}, "which the prior does not take: this family has no inputs"),
        ((["a", "b"], [1.0, 0.0]), {"task": [0]}, "each decision needs its"),
        ((["a"], [1.0]), {"task": 7}, "task 7 does not exist"),
    ],
)
def test_bad_decisions_change_nothing(arguments: Any, options: Any, message: str) -> None:
    policy = bandits.ThompsonSampling(BetaBernoulli(F64 + 1, F64 + 1), ARMS, tasks=2, seed=shifted(0))
    before = policy.posterior().predict().mean.clone()
    with pytest.raises((ValueError, IndexError), match=message):
        policy.learn(*arguments, **({"task": [0] * len(arguments[0])} | options))
    assert torch.equal(policy.posterior().predict().mean, before)
    assert int(policy.pulls.sum()) == 0
