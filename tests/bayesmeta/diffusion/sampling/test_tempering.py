"""Rows that hardly a particle explains: what is said of them is a number, and a warning says how it came about."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bayesmeta import Data
from bayesmeta.diffusion.prior import DiffusionPrior
from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.noise import SharedNoise
from bayesmeta.diffusion.sampling.observations import Functionals
from bayesmeta.diffusion.sampling.particle_filter import filtered
from bayesmeta.diffusion.sampling.posterior import posterior_of
from bayesmeta.diffusion.sampling.tempering import LEAST, Tempered, TemperedWarning
from bayesmeta.diffusion.sampling.twists import Twist
from bayesmeta.random import randn
from tests.bayesmeta.diffusion.gaussians import gaussian_chain
from tests.families import F64, seed

SIZE = 4
ARMS = torch.arange(SIZE, dtype=torch.float64)[:, None]
EYE = torch.eye(SIZE, dtype=torch.float64)


def rows_of(y: Tensor, noise_var: float) -> Callable[..., Functionals]:
    """One row of each coordinate, of tasks by their numbers."""
    mask, loc = torch.ones(y.shape, dtype=torch.bool), torch.zeros(SIZE).double()
    matrix = EYE.expand(len(y), SIZE, SIZE)
    return lambda some: Functionals.of_rows(matrix[some], y[some], mask[some], loc, F64 + noise_var)


def wrong_far_away() -> Chain:
    """Guesses that are right where theta was, and far apart for particles that are far away but near one another."""
    chain = gaussian_chain(EYE, 5)

    def denoise(u: Tensor, level: int) -> Tensor:
        guess = chain.denoise(u, level)
        far = (u.abs() > 100.0).any(-1, keepdim=True)
        return guess + (30.0 * (1e3 * u).sin()).where(far, 0.0)

    return replace(chain, denoise=denoise)


def test_tempered_rows_are_those_of_wider_noise() -> None:
    y, cov, mean = (randn(shape, like=F64, generator=seed(i)) for i, shape in enumerate(((2, 4), (4, 4), (2, 3, 4))))
    cov = cov @ cov.mT + EYE
    found, expected = Twist(Tempered(rows_of(y, 0.1)(...), 16.0), cov), Twist(rows_of(y, 1.6)(...), cov)
    torch.testing.assert_close(found.log_prob(mean), expected.log_prob(mean), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.given(mean), expected.given(mean), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.cov_given(), expected.cov_given(), rtol=1e-10, atol=1e-10)
    nothing = Twist(Tempered(rows_of(y, 0.1)(...), torch.inf), cov)
    torch.testing.assert_close(nothing.given(mean), mean)


def test_tasks_whose_rows_no_particle_explains() -> None:
    chain, num = wrong_far_away(), 200
    y = randn((3, SIZE), like=F64, generator=seed(1))
    y[1] = 1000.0
    rows = rows_of(y, 1e-2)
    with pytest.warns(TemperedWarning, match=r"the rows of 1 task: .* noise has up to [0-9.e+]+ times") as told:
        found = posterior_of(chain, rows, 3, num, piece=2)
    assert len(told) == 1
    assert (found.ess >= LEAST).all()
    assert found.mean.isfinite().all()
    assert (found.cov[1].diagonal() > 2.0 * found.cov[0].diagonal()).all(), "tempered rows say less"
    plain = posterior_of(gaussian_chain(EYE, 5), rows, 3, num, piece=2)
    assert torch.equal(found.mean[[0, 2]], plain.mean[[0, 2]]), "other tasks are as they were"
    untempered = filtered(chain, rows(slice(0, 2)), SharedNoise.of(chain, num, y))
    assert untempered.ess[1] < LEAST
    assert torch.equal(found.log_evidence[:2], untempered.log_evidence)


def with_network() -> DiffusionPrior:
    """A prior whose network says something, though nothing true."""
    theta = randn((60, SIZE), like=F64, generator=seed(1)) @ (EYE + 0.3)
    tasks = Data.of(ARMS.expand(60, SIZE, 1), theta)
    prior = DiffusionPrior.initial(tasks, num_particles=100, num_levels=5, width=8, num_layers=1)
    weights = {name: value + 0.1 for name, value in prior.network.weights.items()}
    return prior._replace(network=prior.network.with_weights(weights), gates=torch.full((5, SIZE), 0.5).double())


def at_each_arm(value: float) -> Data:
    return Data.of(ARMS, torch.full((SIZE,), value, dtype=torch.float64))


@pytest.mark.parametrize("value", [1e3, 1e6, 1e12, 1e45, 1e100, 1e150])
@pytest.mark.parametrize("noise_var", [0.1, 1e-8])
def test_a_posterior_is_of_numbers_whatever_the_rows(value: float, noise_var: float) -> None:
    prior = with_network()
    prior = prior._replace(arms=replace(prior.arms, noise_var=F64 + noise_var))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TemperedWarning)
        after = prior.condition(at_each_arm(value))
        assert after.ess >= LEAST
        online = prior.online((2,))
        evidence = prior.log_evidence(at_each_arm(value))
        online.add((torch.tensor([0]),), torch.zeros(1, 1).double(), torch.full((1,), value, dtype=torch.float64))
    for moments in (after.marginal(ARMS), online.marginal(ARMS.expand(2, SIZE, 1))):
        assert moments.mean.isfinite().all()
        assert moments.variance.isfinite().all()
    assert online.draw(ARMS.expand(2, SIZE, 1), generator=seed(1)).isfinite().all()
    assert not evidence.isnan()


def test_beyond_the_floats_of_a_network_rows_say_nothing() -> None:
    prior = with_network()
    with pytest.warns(TemperedWarning):
        after = prior.condition(at_each_arm(1e100)).marginal(ARMS)
    before = prior.marginal(ARMS)
    assert ((after.mean - before.mean) / before.stddev).abs().max() < 5.0 * (2.0 / 100) ** 0.5
    assert (after.variance / before.variance).log().abs().max() < 5.0 * (4.0 / 100) ** 0.5


@pytest.mark.parametrize("noise_var", [1.0, 1e-8])
def test_a_gaussian_needs_none(noise_var: float) -> None:
    y = 1e5 * randn((5, SIZE), like=F64, generator=seed(1))
    found = posterior_of(gaussian_chain(EYE, 10), rows_of(y, noise_var), 5, 100, piece=5)
    torch.testing.assert_close(found.ess, torch.full((5,), 100.0, dtype=torch.float64), rtol=1e-2, atol=0.0)


def test_few_particles_are_not_too_few() -> None:
    y = randn((5, SIZE), like=F64, generator=seed(1))
    assert (posterior_of(gaussian_chain(EYE, 3), rows_of(y, 0.1), 5, 2, piece=5).ess > 1.9).all()


def test_a_denoiser_that_guesses_no_numbers() -> None:
    chain = replace(gaussian_chain(EYE, 3), denoise=lambda u, _: u * torch.nan)
    with pytest.raises(ValueError, match="guesses no numbers, even without rows"):
        posterior_of(chain, rows_of(torch.zeros(1, SIZE).double(), 0.1), 1, 20, piece=1)
