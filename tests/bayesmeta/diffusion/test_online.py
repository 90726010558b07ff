"""Particles between rows: as near to the posterior of all rows as new ones, and kept when a policy is."""

import pytest
import torch
from torch import Tensor

from bandits import Hypotheses, MarginalThompson, ThompsonSampling
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
    assert first.num_reruns.any()
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


def of_three_tasks(prior: DiffusionPrior) -> DiffusionPrior:
    theta = randn((3, SIZE), like=F64, generator=seed(50))
    return prior.condition(Data.of(ARMS.expand(3, SIZE, 1), theta))


def test_posteriors_of_tasks_go_on_in_place_each_its_own() -> None:
    num = 1000
    prior = gaussian_prior(num)
    before = of_three_tasks(prior)
    online, exact = before.online((3,)), prior.arms.condition(before._kept).online((3,))
    task, x, y = rows(30, 3)
    for state in (online, exact):
        state.add(task, x, y)
    found, expected = online.marginal(ARMS.expand(3, SIZE, 1)), exact.marginal(ARMS.expand(3, SIZE, 1))
    bound = 5.0 * (1.0 / STALE / num) ** 0.5
    assert ((found.mean - expected.mean) / expected.stddev).abs().max() < bound
    of_some = online.posterior(torch.tensor([2, 0])).marginal(ARMS).mean
    assert ((of_some - expected.mean[[2, 0]]) / expected.stddev[[2, 0]]).abs().max() < bound
    with pytest.raises(ValueError, match=r"batch_shape \(3,\) does not broadcast to \(2,\)"):
        before.online((2,))


def test_evidence_in_place_is_of_the_rows_since_then() -> None:
    prior = gaussian_prior(200)
    before = of_three_tasks(prior)
    task, x, y = rows(60, 3)
    online = before.online((3,))
    online.add(task, x, y)
    online._log_weights[:, 1:] = -torch.inf  # as if one particle had all the weight
    online._look_anew((torch.arange(3),))
    assert online.num_reruns.all()
    each = [Data.of(x[task[0] == i], y[task[0] == i]) for i in range(3)]
    gaussian = prior.arms.condition(before._kept)
    expected = torch.stack([gaussian[i].log_evidence(data) for i, data in enumerate(each)])
    torch.testing.assert_close(online.log_evidence, expected, rtol=1e-6, atol=1e-6)


def test_a_sampler_without_weights_is_no_hypothesis() -> None:
    prior = gaussian_prior(20)
    policy = ThompsonSampling(Hypotheses.of([prior.with_sampler("dps"), prior.arms]), range(SIZE), seed=shifted(0))
    choice = policy.choose()
    with pytest.raises(ValueError, match="the sampler 'dps' weighs none"):
        policy.update(choice, 1.0)


def test_probabilities_of_marginal_thompson_are_its_frequencies() -> None:
    policy = MarginalThompson(gaussian_prior(50), range(SIZE), seed=shifted(0))
    policy.update(policy.choose(), 1.0)
    probability, num = policy.probabilities().probability.flatten(), 1000
    chosen = torch.tensor([int(arm) for arm in policy.choose(num=num).arms]).bincount(minlength=SIZE) / num
    assert float(probability.sum()) == pytest.approx(1.0)
    assert ((chosen - probability).abs() < 5.0 * (probability * (1.0 - probability) / num).sqrt() + 1e-3).all()
