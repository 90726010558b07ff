"""Priors from past bandit tasks are those of the rows of each arm."""

import pytest
import torch

import bandits
from bayesmeta import BetaBernoulli, Data, LinearGaussian
from tests.families import seed
from tests.seeds import shifted


def logged(width: int = 0) -> bandits.Log:
    generator = seed(0)
    n = 600
    arm, task = torch.randint(3, (n,), generator=generator), torch.randint(30, (n,), generator=generator)
    chance = torch.tensor([0.1, 0.5, 0.9])[arm]
    reward = (torch.rand(n, generator=generator) < chance).double()
    context = torch.randn(n, width, generator=generator).double() if width else None
    return bandits.Log(arm, reward, torch.full((n,), 1 / 3).double(), ("a", "b", "c"), context, task)


def of_arm(log: bandits.Log, arm: int) -> Data:
    assert log.task is not None
    pairs = []
    for task in log.task.unique().tolist():
        row = (log.task == task) & (log.arm == arm)
        x = torch.zeros(len(log), 0).double() if log.context is None else log.context
        if bool(row.any()):
            pairs.append((x[row], log.reward[row]))
    return Data.pad(pairs)


def test_a_prior_of_each_arm_is_learned_from_its_rows() -> None:
    log = logged()
    prior = bandits.prior_of_each_arm(BetaBernoulli, log.to_tasks(), 3)
    for arm in range(3):
        rows = of_arm(log, arm)
        alone = BetaBernoulli.initial(rows).fit(rows)
        for name in ("successes", "failures"):  # as far as either search goes on
            torch.testing.assert_close(getattr(prior, name)[arm], getattr(alone, name), rtol=1e-3, atol=0)
    policy = bandits.ThompsonSampling(prior, log.names, seed=shifted(0))
    mean = policy.posterior().marginal().mean.squeeze()
    assert mean[2] > mean[1] + 0.15  # about .39 +- .036
    assert policy.probabilities().probability[0].argmax() == 2


def test_contexts_stay_with_their_rows() -> None:
    log = logged(width=2)
    prior = bandits.prior_of_each_arm(LinearGaussian, log.to_tasks(), 3)
    alone = LinearGaussian.initial(of_arm(log, 1)).fit(of_arm(log, 1))
    torch.testing.assert_close(prior.loc[1], alone.loc, rtol=1e-3, atol=1e-3)


def test_every_arm_of_every_task_is_a_task() -> None:
    log = logged()
    data = bandits.arms_as_tasks(log.to_tasks(), 3)
    assert log.task is not None
    assert len(data.mask) == len(torch.stack([log.task, log.arm]).unique(dim=1).T)
    assert int(data.mask.sum()) == len(log)
    assert float(data.y[data.mask].sum()) == float(log.reward.sum())


def test_what_cannot_be_learned_from() -> None:
    with pytest.raises(ValueError, match="at least two tasks must show arm 3; 0 do"):
        bandits.prior_of_each_arm(BetaBernoulli, logged().to_tasks(), 4)
    nothing = Data(torch.zeros(2, 3, 0), torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="rows must have the number of an arm as their first input"):
        bandits.arms_as_tasks(nothing, 2)
