"""Particles that go on from half way down with more rows: without bias, and as near to exact as those from the top."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.gaussians import WeightedGaussians
from bayesmeta.diffusion.sampling.middle import Middle, looked_at_again
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Functionals
from bayesmeta.diffusion.sampling.particle_filter import filtered
from bayesmeta.diffusion.sampling.posterior import posterior_of
from bayesmeta.random import randn
from tests.bayesmeta.diffusion.gaussians import ThreeModes, gaussian_chain
from tests.families import F64, seed

SIZE, NOISE_VAR = 8, 0.09
EYE = torch.eye(SIZE, dtype=torch.float64)


def functionals(matrix: Tensor, y: Tensor, noise_var: float = NOISE_VAR) -> Functionals:
    loc, mask = torch.zeros(matrix.shape[-1]).to(matrix), torch.ones(y.shape, dtype=torch.bool)
    return Functionals.of_rows(matrix, y, mask, loc, F64 + noise_var)


def own_noise(rows: Functionals, num: int, number: int) -> ParticleNoise:
    return ParticleNoise(len(rows.y), num, rows.matrix.shape[-1], rows.y, seed(number))


def test_the_evidence_of_more_rows_has_no_bias_whatever_the_guesses() -> None:
    """Particles that one row led half way go on with two; beside the mean density of both under draws of the chain."""
    a = randn((2, 2), like=F64, generator=seed(1))
    exact = gaussian_chain(a @ a.mT / 2.0 + 0.05 * torch.eye(2).double(), 5)

    def guess(u: Tensor, level: int) -> Tensor:
        return 0.6 * exact.denoise(u, level) + u.sin() / 9.0

    chain, num = Chain(exact.noises, exact.root, 1.5 * exact.residual_cov, guess), 4000
    matrix, y = randn((1, 2, 2), like=F64, generator=seed(2)), torch.tensor([[0.5, -1.0]]).double()
    nothing = functionals(matrix[:, :0], y[:, :0], 1.0)
    drawn = posterior_of(chain, lambda _: nothing, 1, 200_000, piece=1, generator=seed(8))
    total = matrix[0] @ drawn.cov[0] @ matrix[0].mT + torch.eye(2).double()
    density = MultivariateNormal(drawn.mean[0] @ matrix[0].mT, total).log_prob(y[0]).exp()
    one, both = (functionals(matrix[:, :n].expand(num, -1, -1), y[:, :n].expand(num, -1), 1.0) for n in (1, 2))
    half_way = filtered(chain, one, own_noise(one, 4, 7)).middle
    assert half_way is not None
    found = filtered(chain, both, own_noise(both, 4, 9), start=half_way).log_evidence.exp()
    error = (density.var() / len(density) + found.var() / num).sqrt()
    assert (found.mean() - density.mean()).abs() < 5.0 * error
    assert error < 0.1 * density.mean()


def row_by_row(chain: Chain, matrix: Tensor, y: Tensor, num: int) -> tuple[WeightedGaussians, Tensor]:
    """The posterior of all rows, each of which was looked at in its turn, and how often that was from the top."""
    num_tasks = len(y)
    middle = Middle.nowhere(num_tasks, num, SIZE, y)
    from_top = torch.zeros(num_tasks)
    for n in range(1, y.shape[1] + 1):
        before = middle.log_weights.clone()

        def rows(some: Tensor, n: int = n) -> Functionals:
            return functionals(matrix[some, :n], y[some, :n])

        found = looked_at_again(chain, rows, torch.arange(num_tasks), middle, piece=16, around=lambda sampler: sampler)
        from_top += (middle.log_weights != before).any(-1)
    return found, from_top


def some_rows(theta: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    arm = torch.randint(SIZE, (len(theta), num_rows), generator=seed(3))
    matrix = EYE[arm]
    noise = NOISE_VAR**0.5 * randn(arm.shape, like=F64, generator=seed(4))
    return matrix, (matrix @ theta[..., None])[..., 0] + noise


def test_a_gaussian_has_the_exact_posterior_row_by_row() -> None:
    a, num = randn((SIZE, SIZE), like=F64, generator=seed(1)), 2000
    cov = a @ a.mT / SIZE + 0.2 * EYE
    matrix, y = some_rows(randn((20, SIZE), like=F64, generator=seed(2)) @ torch.linalg.cholesky(cov).mT, 4)
    found, from_top = row_by_row(gaussian_chain(cov, 10), matrix, y, num)
    assert (from_top < 4).any(), "some went on from half way"
    gain = torch.linalg.solve(matrix @ cov @ matrix.mT + NOISE_VAR * torch.eye(4).to(cov), matrix @ cov).mT
    exact_mean, exact_cov = (gain @ y[..., None])[..., 0], cov - gain @ matrix @ cov
    weight = found.log_weights.exp()[..., None]
    mean = (weight * found.mean).sum(1)
    sd = exact_cov.diagonal(dim1=-2, dim2=-1).sqrt()
    # particles that were drawn again and again have fewer ancestors than effective weights
    assert ((mean - exact_mean) / sd).abs().max() < 5.0 / found.num_ancestors.clamp(max=found.ess).min() ** 0.5
    total = matrix @ cov @ matrix.mT + NOISE_VAR * torch.eye(4).to(cov)
    evidence = MultivariateNormal(torch.zeros_like(y), total).log_prob(y)
    assert (found.log_evidence - evidence).abs().max() < 0.25


def test_weights_of_modes_are_near_exact_row_by_row() -> None:
    modes, num = ThreeModes(SIZE, 1), 1000
    matrix, y = some_rows(modes.draw(40, 2), 3)
    found, from_top = row_by_row(modes.chain(10, 5), matrix, y, num)
    assert (from_top < 3).any()
    exact = torch.stack([modes.log_odds(matrix[i], y[i], NOISE_VAR * torch.eye(3).to(y)) for i in range(40)])
    drawn = found.draw(num, seed(6))
    nearest = (drawn[:, :, None] - modes.modes).square().sum(-1) / (2.0 * modes.within**2)
    share = (modes.weights.log() - nearest).softmax(-1).mean(0)
    assert (share - exact.softmax(-1)).abs().amax(-1).mean() < 0.06
    assert (found.log_evidence - exact.logsumexp(-1)).abs().median() < 0.2
