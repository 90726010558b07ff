"""The filter: exact where theta is Gaussian, without bias of the evidence anywhere, and near exact mode weights."""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Functionals
from bayesmeta.diffusion.sampling.particle_filter import effective_size, filtered, resampled
from bayesmeta.diffusion.sampling.posterior import posterior_of
from bayesmeta.random import rand, randn
from tests.bayesmeta.diffusion.gaussians import ThreeModes, gaussian_chain
from tests.families import F64, seed

NOISE_VAR = 0.09


def functionals(matrix: Tensor, y: Tensor, noise_var: float = NOISE_VAR) -> Functionals:
    loc, mask = torch.zeros(matrix.shape[-1]).to(matrix), torch.ones(y.shape, dtype=torch.bool)
    return Functionals.of_rows(matrix, y, mask, loc, F64 + noise_var)


def own_noise(rows: Functionals, num: int, number: int) -> ParticleNoise:
    """Of each task."""
    return ParticleNoise(len(rows.y), num, rows.matrix.shape[-1], rows.y, seed(number))


def some_cov(size: int) -> Tensor:
    a = randn((size, size), like=F64, generator=seed(1))
    return a @ a.mT / size + 0.05 * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("num_levels", [1, 2, 10])
@pytest.mark.parametrize("num_rows", [0, 1, 4, 12])
def test_a_gaussian_has_equal_weights_and_the_exact_evidence(num_levels: int, num_rows: int) -> None:
    cov, matrix = some_cov(5), randn((3, num_rows, 5), like=F64, generator=seed(2))
    y = randn((3, num_rows), like=F64, generator=seed(3))
    rows = functionals(matrix, y)
    found = filtered(gaussian_chain(cov, num_levels), rows, own_noise(rows, 50, 4))
    torch.testing.assert_close(found.ess, torch.full((3,), 50.0, dtype=torch.float64))
    assert (found.num_ancestors == 50).all()
    total = matrix @ cov @ matrix.mT + NOISE_VAR * torch.eye(num_rows, dtype=torch.float64)
    expected = MultivariateNormal(torch.zeros_like(y), total).log_prob(y) if num_rows else y.sum(-1)
    torch.testing.assert_close(found.log_evidence, expected, rtol=1e-8, atol=1e-8)


def test_a_gaussian_has_the_exact_posterior() -> None:
    cov, matrix = some_cov(5), randn((1, 3, 5), like=F64, generator=seed(2))
    y, num = randn((1, 3), like=F64, generator=seed(3)), 4000
    found = posterior_of(gaussian_chain(cov, 4), lambda _: functionals(matrix, y), 1, num, piece=1)
    gain = torch.linalg.solve(matrix[0] @ cov @ matrix[0].mT + NOISE_VAR * torch.eye(3).to(cov), matrix[0] @ cov).mT
    exact = cov - gain @ matrix[0] @ cov
    error = (found.mean[0].mean(0) - gain @ y[0]) / (exact.diagonal() / num).sqrt()
    assert error.abs().max() < 5.0
    spread = found.mean[0].mT.cov() + found.cov[0]
    torch.testing.assert_close(spread, exact, rtol=0.0, atol=5.0 * float(exact.diagonal().max()) * (2.0 / num) ** 0.5)
    drawn = found.draw(num, seed(5))[:, 0]
    assert ((drawn.mean(0) - gain @ y[0]) / (2.0 * exact.diagonal() / num).sqrt()).abs().max() < 5.0


def test_the_evidence_has_no_bias_whatever_the_guesses() -> None:
    """Of a chain whose guesses are wrong by far: its own evidence, by many runs of few particles."""
    cov, matrix, y = some_cov(2), randn((1, 2, 2), like=F64, generator=seed(2)), torch.tensor([[0.5, -1.0]]).double()
    chain = gaussian_chain(cov, 3)
    wrong = type(chain)(
        chain.noises,
        chain.root,
        1.5 * chain.residual_cov,
        lambda u, level: 0.6 * chain.denoise(u, level) + u.sin() / 9.0,
    )
    num = 4000
    rows = functionals(matrix.expand(num, -1, -1), y.expand(num, -1), 1.0)
    # particles of no rows are draws of the chain, and the mean density of the rows given them is the evidence
    nothing = functionals(matrix[:, :0], y[:, :0], 1.0)
    drawn = posterior_of(wrong, lambda _: nothing, 1, 200_000, piece=1, generator=seed(8))
    total = matrix[0] @ drawn.cov[0] @ matrix[0].mT + torch.eye(2).double()
    density = MultivariateNormal(drawn.mean[0] @ matrix[0].mT, total).log_prob(y[0]).exp()
    found = filtered(wrong, rows, own_noise(rows, 4, 7)).log_evidence.exp()
    error = (density.var() / len(density) + found.var() / num).sqrt()
    assert (found.mean() - density.mean()).abs() < 5.0 * error
    assert error < 0.1 * density.mean()


@pytest.mark.parametrize(("num_rows", "worst"), [(1, 0.05), (3, 0.05)])
def test_weights_of_modes_are_near_exact(num_rows: int, worst: float) -> None:
    modes, num_tasks, num = ThreeModes(8, 1), 40, 1000
    theta = modes.draw(num_tasks, 2)
    arm = torch.randint(8, (num_tasks, num_rows), generator=seed(3))
    matrix = torch.nn.functional.one_hot(arm, 8).double()
    y = (matrix @ theta[..., None])[..., 0] + NOISE_VAR**0.5 * randn(arm.shape, like=F64, generator=seed(4))
    rows = functionals(matrix, y)
    found = posterior_of(modes.chain(10, 5), lambda _: rows, num_tasks, num, piece=num_tasks, generator=seed(8))
    noise = NOISE_VAR * torch.eye(num_rows, dtype=torch.float64)
    exact = torch.stack([modes.log_odds(matrix[i], y[i], noise) for i in range(num_tasks)])
    drawn = found.draw(num, seed(6))
    nearest = (drawn[:, :, None] - modes.modes).square().sum(-1) / (2.0 * modes.within**2)
    share = (modes.weights.log() - nearest).softmax(-1).mean(0)
    wrong = (share - exact.softmax(-1)).abs().amax(-1)
    assert wrong.mean() < worst
    assert (found.log_evidence - exact.logsumexp(-1)).abs().median() < 0.15


def test_particles_are_resampled_where_few_have_all_the_weight() -> None:
    shares = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 0.05, 0.15, 0.8]]).double()
    place = torch.arange(4).expand(2, 4)
    counts = torch.zeros(4)
    for number in range(200):
        start = rand((2, 1), like=F64, generator=seed(number))
        (after,), weights, evidence = resampled((place,), (5.0 * shares).log(), torch.zeros(2).double(), start)
        assert torch.equal(after[0], place[0]), "a task whose weights are equal stays as it is"
        torch.testing.assert_close(weights[0], (5.0 * shares[0]).log())
        assert (weights[1] == 0.0).all()
        torch.testing.assert_close(evidence, torch.tensor([0.0, 5.0 / 4.0]).double().log().clamp(min=0.0))
        drawn = after[1].bincount(minlength=4)
        assert ((drawn - 4.0 * shares[1]).abs() < 1.0).all()
        counts += drawn
    assert (counts / 200 - 4.0 * shares[1]).abs().max() < 5.0 * 0.5 / 200**0.5


def test_the_effective_size_counts_equal_weights() -> None:
    some = torch.tensor([0.25, 0.25, 0.25, 0.25, 0.0]).log()
    torch.testing.assert_close(effective_size(some), torch.tensor(4.0))
