"""Particles between rows: as near to the posterior of all rows as new ones, and kept when a policy is."""

import pytest
import torch
from torch import Tensor

from bandits import ThompsonSampling
from bayesmeta import Data
from bayesmeta.diffusion.online import STALE
from bayesmeta.diffusion.prior import DiffusionPrior
from bayesmeta.random import randn
from tests.families import F64, seed
from tests.seeds import shifted

SIZE = 4
ARMS = torch.arange(SIZE, dtype=torch.float64)[:, None]


def gaussian_prior(num_particles: int) -> DiffusionPrior:
    mix = torch.eye(SIZE).double() + 0.5
    theta = randn((60, SIZE), like=F64, generator=seed(1)) @ mix
    tasks = Data.of(ARMS.expand(60, SIZE, 1), theta + 0.1 * randn(theta.shape, like=F64, generator=seed(2)))
    return DiffusionPrior.initial(tasks, num_particles=num_particles)


def rows(num: int, number: int) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Tasks 0 to 2, some more than once, with arms and rewards."""
    task, arm = (torch.randint(most, (num,), generator=seed(number + i)) for i, most in enumerate((3, SIZE)))
    y = 0.3 * randn((num,), like=F64, generator=seed(number + 2)) + arm
    return (task,), arm[:, None].double(), y


def test_particles_agree_with_the_gaussian_posterior() -> None:
    num = 2000
    prior = gaussian_prior(num)
    online, exact = prior.online((3,)), prior.arms.online((3,))
    for number in range(10):
        some = rows(12, 10 * number)
        online.add(*some)
        exact.add(*some)
    x = ARMS.expand(3, SIZE, 1)
    found, expected = online.marginal(x), exact.marginal(x)
    error = (found.mean - expected.mean) / expected.stddev
    assert error.abs().max() < 5.0 * (1.0 / STALE / num) ** 0.5
    assert (found.variance / expected.variance - 1.0).abs().max() < 10.0 * (1.0 / STALE / num) ** 0.5
    assert (online.ess >= STALE * num).all()
    drawn = torch.stack([online.draw(x, generator=seed(i)) for i in range(500)])
    assert ((drawn.mean(0) - found.mean) / (found.variance / 500).sqrt()).abs().max() < 5.0
    anew = online.posterior(1).marginal(ARMS)
    assert ((anew.mean - expected.mean[1]) / expected.stddev[1]).abs().max() < 5.0 * (1.0 / num) ** 0.5


def test_one_decision_at_a_time() -> None:
    online = gaussian_prior(50).online((3,))
    online.add(*rows(5, 3))
    x = ARMS.expand(1, SIZE, 1)
    assert torch.equal(online.draw(x, 2, generator=seed(1)), online.draw(x, torch.tensor([2]), generator=seed(1)))
    assert online.marginal(x, 2).mean.shape == (1, SIZE)


def test_particles_that_were_kept_go_on_to_the_last_bit() -> None:
    prior = gaussian_prior(50)
    first, second = prior.online((3,)), prior.online((3,))
    first.add(*rows(20, 3))
    second.load_state_dict(first.state_dict())
    for online in (first, second):
        online.add(*rows(20, 6))
    x = ARMS.expand(3, SIZE, 1)
    assert torch.equal(first.draw(x, generator=seed(1)), second.draw(x, generator=seed(1)))
    assert torch.equal(first.num_reruns, second.num_reruns)


def test_rows_that_no_arm_can_have_change_nothing() -> None:
    online = gaussian_prior(50).online((3,))
    before = online.marginal(ARMS.expand(3, SIZE, 1)).mean
    with pytest.raises(IndexError):
        online.add((torch.tensor([0]),), torch.tensor([[9.0]]).double(), torch.tensor([1.0]).double())
    assert torch.equal(online.marginal(ARMS.expand(3, SIZE, 1)).mean, before)
    assert not online.statistics.count.any()


def test_thompson_sampling_finds_the_best_arm() -> None:
    policy = ThompsonSampling(gaussian_prior(100), range(SIZE), tasks=3, seed=shifted(0))
    truth = torch.tensor([0.0, 3.0, -1.0, 1.0])
    for _ in range(40):
        choices = policy.choose()
        policy.update(choices, truth[torch.as_tensor([int(arm) for arm in choices.arms])])
    assert [int(arm) for arm in policy.choose().arms] == [1, 1, 1]
