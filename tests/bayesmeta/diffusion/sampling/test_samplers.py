"""Samplers for comparison: the published formulas, written as published, and what holds of all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.diffusion.prior import DiffusionPrior
from bayesmeta.diffusion.sampling.approximate.diffts import diffts
from bayesmeta.diffusion.sampling.approximate.dps import SCALE, dps, guess_and_slope
from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Functionals
from bayesmeta.diffusion.sampling.posterior import posterior_of
from bayesmeta.diffusion.sampling.samplers import SAMPLERS, sampler_named
from bayesmeta.random import randn
from tests.bayesmeta.diffusion.gaussians import ThreeModes, gaussian_chain
from tests.families import F64, seed
from tests.seeds import shifted

APPROXIMATE = [name for name in SAMPLERS if name != "weighted"]
SIZE = 8
ARMS = torch.arange(SIZE, dtype=torch.float64)[:, None]
EYE = torch.eye(SIZE, dtype=torch.float64)


def some_cov(number: int) -> Tensor:
    a = randn((SIZE, SIZE), like=F64, generator=seed(number))
    return a @ a.mT / SIZE + 0.2 * EYE


def arm_rows(arms: list[int], noise_var: float, number: int) -> Functionals:
    """One row of each of some arms, of one task."""
    y = randn((1, len(arms)), like=F64, generator=seed(number))
    mask = torch.ones(1, len(arms), dtype=torch.bool)
    return Functionals.of_rows(EYE[arms][None], y, mask, torch.zeros(SIZE).double(), F64 + noise_var)


def particle_noise(num: int, number: int) -> ParticleNoise:
    return ParticleNoise(1, num, SIZE, F64, seed(number))


def sampled(name: str, chain: Chain, rows: Functionals, num: int) -> tuple[Tensor, Tensor]:
    """Means of particles `(n, k)` and their covariance."""
    found = posterior_of(chain, lambda _: rows, 1, num, piece=1, sampler=sampler_named(name))
    return found.mean[0], found.cov[0]


def test_without_weights_a_gaussian_is_the_same() -> None:
    chain, rows = gaussian_chain(some_cov(1), 10), arm_rows([0, 3, 3, 5], 0.01, 2)
    (weighted, cov), (unweighted, same_cov) = (sampled(name, chain, rows, 100) for name in ("weighted", "unweighted"))
    assert torch.equal(weighted, unweighted)
    assert torch.equal(cov, same_cov)


@pytest.mark.parametrize("name", APPROXIMATE)
def test_without_rows_they_draw_from_the_chain(name: str) -> None:
    modes, num = ThreeModes(SIZE, 1), 20_000
    chain, nothing = modes.chain(6, 2), arm_rows([], 1.0, 3)
    (mean, cov), (expected, same_cov) = (sampled(each, chain, nothing, num) for each in (name, "weighted"))
    torch.testing.assert_close(cov, same_cov)
    for moment in (lambda u: u, lambda u: u.square(), lambda u: u[:, :1] * u, lambda u: u**4):
        a, b = moment(mean), moment(expected)
        error = ((a.var(0) + b.var(0)) / (num / 2)).sqrt()  # pairs of particles have the same squares
        assert ((a.mean(0) - b.mean(0)) / error).abs().max() < 5.0


@pytest.mark.parametrize("name", ["unweighted", "diffts", "laplace_dps"])
def test_rows_without_noise_are_reproduced(name: str) -> None:
    arms = [1, 4, 6]
    rows = arm_rows(arms, 1e-10, 3)
    mean, cov = sampled(name, ThreeModes(SIZE, 1).chain(4, 2), rows, 50)
    torch.testing.assert_close(mean[:, arms], (rows.y * 1e-5).expand(50, -1), rtol=0.0, atol=1e-6)
    assert cov.diagonal()[arms].max() < 1e-9
    assert cov.diagonal()[[0, 2, 3, 5, 7]].min() > 1e-4


def shrinking(chain: Chain) -> Tensor:
    """The published alpha bar of each level, and one below the lowest."""
    return torch.cat([torch.ones(1).double(), 1.0 / (1.0 + chain.noises.square())])


def test_diffts_is_the_published_average() -> None:
    """In the published variables, arm by arm, with the same noise."""
    chain, arms, noise_var, num = ThreeModes(SIZE, 1).chain(5, 2), [0, 3, 5], 0.04, 10
    rows = arm_rows(arms, noise_var, 3)
    found = diffts(chain, rows, particle_noise(num, 4)).mean[0]
    same, abar, y = particle_noise(num, 4), shrinking(chain), rows.y[0] * noise_var**0.5

    def noise() -> Tensor:
        return same.normal()[0]

    x = noise() @ chain.root.mT
    for level in range(chain.num_levels, 0, -1):
        u, below = x / abar[level].sqrt(), abar[level - 1]
        guess, cov = chain.denoise(u, level - 1), below * chain.below_cov(level - 1)
        seen = (x - abar[level].sqrt() * guess) / (1.0 - abar[level]).sqrt()
        drawn = below.sqrt() * chain.below(u, guess, level - 1)
        observed = below.sqrt() * y + (1.0 - below).sqrt() * seen[:, arms]
        if level > 1:
            drawn = drawn + noise() @ torch.linalg.cholesky(cov).mT
            observed = observed - (below * noise_var).sqrt() * noise()[:, arms]
        ours, theirs = 1.0 / cov.diagonal()[arms], 1.0 / (below * noise_var)
        x = drawn.clone()
        x[:, arms] = (ours * drawn[:, arms] + theirs * observed) / (ours + theirs)
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_the_last_average_of_diffts_has_the_covariance_of_its_draws() -> None:
    chain, rows = gaussian_chain(some_cov(1), 3), arm_rows([2, 6], 0.1, 2)
    cov, num = chain.residual(0), 20_000
    _, found = sampled("diffts", chain, rows, 10)
    drawn = randn((num, SIZE), like=F64, generator=seed(3)) @ torch.linalg.cholesky(cov).mT
    observed = 0.1**0.5 * randn((num, 2), like=F64, generator=seed(4))
    share = cov.diagonal()[[2, 6]] / (cov.diagonal()[[2, 6]] + 0.1)
    drawn[:, [2, 6]] += share * (observed - drawn[:, [2, 6]])
    error = (found.diagonal()[:, None] * found.diagonal() + found.square()).sqrt() / num**0.5
    assert ((drawn.mT.cov() - found) / error).abs().max() < 5.0


def test_laplace_dps_is_the_published_product() -> None:
    """On a Gaussian each step is an affine map: its moments in the published variables, by precisions."""
    cov, arms, noise_var, num = some_cov(1), [0, 3, 5], 0.5, 20_000
    chain, rows = gaussian_chain(cov, 5), arm_rows(arms, noise_var, 3)
    mean, last = sampled("laplace_dps", chain, rows, num)
    abar = shrinking(chain)
    evidence, seen = (EYE[arms].mT @ EYE[arms]) / noise_var, EYE[arms].mT @ rows.y[0] / noise_var**0.5

    def product(prior_mean: Tensor, prior_cov: Tensor, below: Tensor) -> tuple[Tensor, Tensor]:
        precision = torch.linalg.inv(prior_cov)
        total = torch.linalg.inv(precision + evidence / below)
        return total @ (precision @ prior_mean + seen / below.sqrt()), total

    m, v = product(torch.zeros(SIZE).double(), cov, abar[-1])
    for level in range(chain.num_levels, 0, -1):
        below, share = abar[level - 1], abar[level]  # h(u) = abar u
        step_cov = below * chain.below_cov(level - 1)
        a = below.sqrt() / share.sqrt() * chain.below(torch.ones(1).double(), share * torch.ones(1).double(), level - 1)
        m, total = product(a * m, step_cov, below)
        slope = a * total @ torch.linalg.inv(step_cov)
        v = slope @ v @ slope.mT + total
    spread = mean.mT.cov() + last
    assert ((mean.mean(0) - m) / (v.diagonal() / num).sqrt()).abs().max() < 5.0
    error = (v.diagonal()[:, None] * v.diagonal() + v.square()).sqrt() / (num / 2) ** 0.5  # of pairs of particles
    assert ((spread - v) / error).abs().max() < 5.0


def test_dps_is_the_published_step() -> None:
    """In the published variables, of a white Gaussian, with the same noise."""
    chain, arms, noise_var, num = gaussian_chain(EYE, 5), [0, 3, 5], 0.04, 10
    rows = arm_rows(arms, noise_var, 3)
    found = dps(chain, rows, particle_noise(num, 4)).mean[0]
    same, abar, y = particle_noise(num, 4), shrinking(chain), rows.y[0] * noise_var**0.5

    def noise() -> Tensor:
        return same.normal()[0]

    x = noise()
    for level in range(chain.num_levels, 0, -1):
        below, share = abar[level - 1], abar[level].sqrt()
        guess = share * x
        left = y - guess[:, arms]
        slope = -share * (left @ EYE[arms]) / left.norm(dim=-1, keepdim=True)
        drawn = below.sqrt() * chain.below(x / share, guess, level - 1)
        if level > 1:
            drawn = drawn + (below * chain.below_cov(level - 1)[0, 0]).sqrt() * noise()
        x = drawn - SCALE * slope
    torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_the_slope_goes_through_the_guess() -> None:
    chain, rows = ThreeModes(SIZE, 1).chain(3, 2), arm_rows([1, 2], 0.3, 3)
    u, step = randn((1, 4, SIZE), like=F64, generator=seed(4)), 1e-5
    norm = torch.linalg.matrix_norm(rows.matrix[0] @ chain.root, 2)
    guess, slope = guess_and_slope(chain, rows, u, 1)
    assert torch.equal(guess, chain.denoise(u, 1))

    def length(u: Tensor) -> Tensor:
        return torch.linalg.vector_norm(rows.y[:, None] - rows.of(chain.denoise(u, 1)), dim=-1) / norm

    by_steps = [(length(u + step * EYE[i]) - length(u - step * EYE[i])) / (2.0 * step) for i in range(SIZE)]
    torch.testing.assert_close(slope, torch.stack(by_steps, -1), rtol=1e-5, atol=1e-7)


def with_network(num_particles: int = 50) -> DiffusionPrior:
    """A prior whose network says something, though nothing true."""
    theta = randn((60, SIZE), like=F64, generator=seed(1)) @ (EYE + 0.3)
    tasks = Data.of(ARMS.expand(60, SIZE, 1), theta)
    prior = DiffusionPrior.initial(tasks, num_particles=num_particles, num_levels=5, width=8, num_layers=1)
    weights = {name: value + 0.1 for name, value in prior.network.weights.items()}
    return prior._replace(network=prior.network.with_weights(weights), gates=torch.full((5, SIZE), 0.5).double())


def task_rows() -> Data:
    arm = torch.randint(SIZE, (3, 4), generator=seed(5))
    return Data.of(arm[..., None].double(), randn((3, 4), like=F64, generator=seed(6)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_posterior_by_any_sampler(name: str) -> None:
    prior = with_network().with_sampler(name)
    after = prior.condition(task_rows())
    mean = after.marginal(ARMS).mean
    assert mean.shape == (3, SIZE)
    assert mean.isfinite().all()
    assert torch.equal(mean, prior.condition(task_rows()).marginal(ARMS).mean), "the same rows, the same posterior"
    assert after.sample_params(7, generator=seed(1)).shape == (7, 3, SIZE)
    assert after.joint(ARMS[:3]).log_prob(torch.zeros(3, 3).double()).isfinite().all()
    if name != "weighted":
        torch.testing.assert_close(after.ess, torch.full((3,), 50.0, dtype=torch.float64))
        assert (after.num_ancestors == 50).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_taken_whatever_the_mode(mode: Callable[[], Any]) -> None:
    expected = with_network().with_sampler("dps").condition(task_rows()).marginal(ARMS).mean
    with mode():
        found = with_network().with_sampler("dps").condition(task_rows()).marginal(ARMS).mean
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_approximate_ones_say_so() -> None:
    prior = with_network()
    assert not prior.is_approximate
    assert "approximate" not in repr(prior)
    for name in APPROXIMATE:
        other = prior.with_sampler(name).condition(task_rows())
        assert other.is_approximate
        assert repr(other).startswith("DiffusionPrior: approximate; ")
        assert name in repr(other)
        with pytest.raises(ValueError, match=rf"the sampler '{name}' weighs none"):
            other.log_evidence(task_rows())
    assert other.with_sampler("weighted").log_evidence(task_rows()).isfinite().all()


def test_names_that_there_are_not() -> None:
    with pytest.raises(ValueError, match=r"'weighted', 'unweighted', 'diffts', 'laplace_dps', 'dps'; got 'ddrm'"):
        with_network().with_sampler("ddrm")
    prior = with_network()
    with pytest.raises(ValueError, match="sampler must be one of"):
        DiffusionPrior(
            prior.arms, prior.network, prior.noises, prior.gates, prior.residual_cov, prior.basis, sampler="ddrm"
        )


def test_files_keep_the_sampler(tmp_path: Path) -> None:
    prior = with_network().with_sampler("laplace_dps")
    bm.save(prior, tmp_path / "prior.safetensors")
    loaded = bm.load(tmp_path / "prior.safetensors")
    assert loaded.sampler == "laplace_dps"
    assert torch.equal(*(each.condition(task_rows()).marginal(ARMS).mean for each in (prior, loaded)))


@pytest.mark.parametrize("name", APPROXIMATE)
def test_in_place_they_draw_anew_after_each_row(name: str) -> None:
    prior = with_network().with_sampler(name)
    online, rows = prior.online((3,)), task_rows()
    task = torch.arange(3)
    for i in range(4):
        online.add((task,), rows.x[:, i], rows.y[:, i])
        assert (online.num_reruns == i + 1).all()
    x = ARMS.expand(3, SIZE, 1)
    torch.testing.assert_close(online.marginal(x).mean, prior.condition(rows).marginal(x).mean, rtol=1e-6, atol=1e-6)
    online.add((torch.tensor([1, 1]),), ARMS[:2], torch.zeros(2).double())
    assert online.num_reruns.tolist() == [4, 5, 4]
    assert online.draw(x, generator=seed(1)).shape == (3, SIZE)
    assert torch.equal(online.posterior(1).statistics(online.statistics[1]).count, online.statistics.count[1])


def test_thompson_sampling_by_an_approximate_sampler() -> None:
    from bandits import ThompsonSampling

    policy = ThompsonSampling(with_network(20).with_sampler("laplace_dps"), range(SIZE), tasks=2, seed=shifted(0))
    for _ in range(3):
        choices = policy.choose()
        policy.update(choices, torch.ones(2))
    assert len(policy.choose().arms) == 2
