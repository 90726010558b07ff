"""The prior over arms: without a network the Gaussian one, and better than it where past tasks are of several kinds."""

from dataclasses import replace

import pytest
import torch

from bayesmeta import Data
from bayesmeta.diffusion.denoising.calibration import calibrated, shrunk_covariance
from bayesmeta.diffusion.denoising.denoiser import DenoiserNetwork
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
from bayesmeta.diffusion.denoising.levels import noises
from bayesmeta.diffusion.prior import DiffusionPrior
from bayesmeta.random import randn
from bayesmeta.regression.correlated_arms import CorrelatedArms
from tests.bayesmeta.diffusion.gaussians import ThreeModes
from tests.families import F64, seed

SIZE = 5
ARMS = torch.arange(SIZE, dtype=torch.float64)[:, None]


def past(theta: torch.Tensor, number: int) -> Data:
    y = theta + 0.1 * randn(theta.shape, like=F64, generator=seed(number))
    return Data.of(ARMS.expand(len(theta), SIZE, 1), y)


def gaussian_tasks(num: int, number: int) -> Data:
    mix = torch.eye(SIZE).double() + 0.5
    return past(randn((num, SIZE), like=F64, generator=seed(number)) @ mix, number + 1)


def rows() -> Data:
    return Data.of(torch.tensor([[0.0], [3.0], [0.0]]).double(), torch.tensor([1.0, -1.0, 0.5]).double())


def test_without_a_network_it_is_the_gaussian_prior() -> None:
    prior = DiffusionPrior.initial(gaussian_tasks(50, 1), num_particles=2000)
    after, exact = prior.condition(rows()), prior.arms.condition(rows())
    error = after.marginal(ARMS).mean - exact.marginal(ARMS).mean
    assert (error / exact.marginal(ARMS).stddev).abs().max() < 5.0 / 2000**0.5
    torch.testing.assert_close(prior.log_evidence(rows()), prior.arms.log_evidence(rows()), rtol=1e-6, atol=1e-6)
    assert float(after.ess) == pytest.approx(2000.0)
    assert int(after.num_ancestors) == 2000
    assert after.predict(ARMS).variance.allclose(after.marginal(ARMS).variance + prior.arms.noise_var)


def test_rows_at_once_or_one_by_one_and_draws_of_the_posterior() -> None:
    prior = DiffusionPrior.initial(gaussian_tasks(50, 1), num_particles=300)
    first, last = rows().rows(slice(0, 1)), rows().rows(slice(1, None))
    one_by_one, at_once = prior.condition(first).condition(last), prior.condition(rows())
    torch.testing.assert_close(one_by_one.marginal(ARMS).mean, at_once.marginal(ARMS).mean, rtol=1e-6, atol=1e-6)
    evidence = prior.log_evidence(first) + prior.condition(first).log_evidence(last)
    torch.testing.assert_close(evidence, prior.log_evidence(rows()), rtol=1e-6, atol=1e-6)
    drawn = at_once.sample(4000, generator=seed(3))(ARMS)
    marginal = at_once.marginal(ARMS)
    assert ((drawn.mean(0) - marginal.mean) / (marginal.variance / 4000).sqrt()).abs().max() < 5.0
    assert torch.equal(drawn, at_once.sample(4000, generator=seed(3))(ARMS))


def test_a_batch_is_its_tasks() -> None:
    prior = DiffusionPrior.initial(gaussian_tasks(50, 1), num_particles=100)
    tasks = gaussian_tasks(3, 8)
    after = prior.condition(tasks)
    assert after.batch_shape == (3,)
    assert after.ess.shape == (3,)
    assert after.marginal(ARMS).mean.shape == (3, SIZE)
    assert after.joint(ARMS).log_prob(torch.zeros(3, SIZE).double()).shape == (3,)
    assert after[1].batch_shape == ()
    assert prior.expand((2, 3)).batch_shape == (2, 3)
    torch.testing.assert_close(prior.log_evidence(tasks), prior.arms.log_evidence(tasks), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_past_tasks_of_three_kinds_teach_more_than_their_covariance() -> None:
    modes = ThreeModes(SIZE, 1)
    schedule = DiffusionSchedule(num_steps=800, num_rounds=1)
    learned = DiffusionPrior.initial(past(modes.draw(400, 2), 3), width=48, num_layers=2)
    learned = learned.fit(past(modes.draw(400, 2), 3), schedule=schedule, progress=False)
    tasks = past(modes.draw(100, 5), 6)
    gain = learned.log_evidence(tasks) - learned.arms.log_evidence(tasks)
    assert gain.mean() > 0.2
    assert "400 tasks" in repr(learned)


def test_few_gaussian_tasks_are_not_overrated() -> None:
    tasks, schedule = gaussian_tasks(20, 1), DiffusionSchedule(num_steps=200, num_rounds=2)
    learned = DiffusionPrior.initial(tasks, width=16, num_layers=1).fit(tasks, schedule=schedule, progress=False)
    new = gaussian_tasks(200, 11)
    loss = learned.arms.log_evidence(new) - learned.log_evidence(new)
    assert loss.mean() < 0.3


def test_gates_are_shut_where_a_network_knows_nothing() -> None:
    network = DenoiserNetwork.of(torch.ones(SIZE), width=8, num_layers=1)
    random = {name: value + 0.3 for name, value in network.weights.items()}
    theta = randn((300, 1, SIZE), like=F64, generator=seed(2))
    found = calibrated(network.with_weights(random).module, theta, noises(4), seed(3))
    assert found.gates.mean() < 0.2
    levels = noises(4)
    expected = levels.square() / (1.0 + levels.square())
    each = found.residual_cov.diagonal(dim1=-2, dim2=-1).mean(-1)
    torch.testing.assert_close(each, expected, rtol=0.3, atol=0.0)


def test_a_covariance_of_few_tasks_is_drawn_to_that_of_equal_values() -> None:
    few, many = (randn((num, 1, 20), like=F64, generator=seed(num)) for num in (10, 4000))
    eye = torch.eye(20).double()
    far = ((few[:, 0].mT @ few[:, 0]) / 10 - eye).square().mean()
    assert (shrunk_covariance(few, 1.0) - eye).square().mean() < 0.1 * far
    root = torch.eye(20).double() + torch.ones(20, 20).double() / 4.0
    torch.testing.assert_close(shrunk_covariance(many @ root, 1.0), root @ root, rtol=0.0, atol=0.5)


def test_bad_input() -> None:
    tasks = gaussian_tasks(20, 1)
    prior = DiffusionPrior.initial(tasks)
    with pytest.raises(ValueError, match="fit starts from a prior"):
        prior.condition(rows()).fit(tasks, progress=False)
    with pytest.raises(ValueError, match="two tasks"):
        prior.fit(tasks[:1], progress=False)
    with pytest.raises(IndexError):
        prior.condition(Data.of(torch.tensor([[9.0]]).double(), torch.tensor([1.0]).double()))
    with pytest.raises(IndexError, match="no batch"):
        prior[0]
    with pytest.raises(ValueError, match="noise_var"):
        replace(prior, arms=CorrelatedArms(prior.arms.loc, prior.arms.scale_tril, F64))
