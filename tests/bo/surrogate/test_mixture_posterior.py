"""Draws of a mixture against its moments, its distribution function and its expected improvement."""

import math
from dataclasses import replace

import pytest
import scipy.stats
import torch
from botorch.sampling import SobolQMCNormalSampler
from botorch.sampling.get_sampler import get_sampler
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from linear_operator.operators import RootLinearOperator
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

import bayesmeta as bm
from bayesmeta import Data, Mixture
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.random import randn, seeded
from bo import Surrogate, expected_improvement
from bo.surrogate.mixture_posterior import MixturePosterior, joint_of_each, marginal_of_each
from tests.bo.surrogate.surrogates import points, rows, some_hypotheses
from tests.families import FAMILIES, seed
from tests.seeds import shifted

WEIGHTS = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
MEAN = torch.tensor([[0.0, 1.0], [4.0, -1.0], [-3.0, 0.5]]).double()
COV = torch.tensor([[[1.0, 0.9], [0.9, 1.0]], [[0.5, 0.0], [0.0, 0.2]], [[2.0, -1.0], [-1.0, 1.0]]]).double()


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def mixture() -> MixturePosterior:
    return MixturePosterior(WEIGHTS.log(), MultivariateNormal(MEAN, COV))


def test_moments_are_those_of_the_mixture() -> None:
    mean = WEIGHTS @ MEAN
    second = (WEIGHTS[:, None, None] * (COV + MEAN[:, :, None] * MEAN[:, None, :])).sum(0)
    posterior = mixture()
    close(posterior.mean[:, 0], mean)
    close(posterior.distribution.covariance_matrix, second - torch.outer(mean, mean))
    close(posterior.variance[:, 0], (second - torch.outer(mean, mean)).diagonal())


@pytest.mark.parametrize("by_base_samples", [False, True])
def test_draws_are_distributed_as_the_mixture(by_base_samples: bool) -> None:
    posterior, n = mixture(), 5000
    if by_base_samples:
        base = randn((n, *posterior.base_sample_shape), like=MEAN, generator=seed(0))
        draws = posterior.rsample_from_base_samples(torch.Size([n]), base)[..., 0]
    else:
        with seeded(seed(0)):
            draws = posterior.rsample(torch.Size([n]))[..., 0]
    for i in range(2):
        marginal = MixtureSameFamily(Categorical(WEIGHTS), Normal(MEAN[:, i], COV[:, i, i].sqrt()))
        cdf = lambda value, marginal=marginal: marginal.cdf(torch.as_tensor(value)).numpy()  # noqa: E731
        assert scipy.stats.kstest(draws[:, i].numpy(), cdf).pvalue > 1e-6
    products = draws[:, 0] * draws[:, 1]
    expected = (WEIGHTS * (COV[:, 0, 1] + MEAN[:, 0] * MEAN[:, 1])).sum()
    assert (products.mean() - expected).abs() < 5 * products.std() / math.sqrt(n)


def test_densities_and_quantiles_are_those_of_the_mixture() -> None:
    """In one batch and several, with the slopes that both have by differences."""
    levels, values = torch.tensor([0.02, 0.5, 0.9]).double(), torch.tensor([-2.0, 0.3, 4.0]).double()

    def both(mean: Tensor) -> tuple[Tensor, Tensor]:
        posterior = MixturePosterior(WEIGHTS.log(), MultivariateNormal(mean, COV.expand(*mean.shape[:-1], 2, 2)))
        return posterior.quantile(levels), posterior.density(values)

    quantiles, densities = both(MEAN)
    assert quantiles.shape == densities.shape == (3, 2, 1)
    for i in range(2):
        marginal = MixtureSameFamily(Categorical(WEIGHTS), Normal(MEAN[:, i], COV[:, i, i].sqrt()))
        close(marginal.cdf(quantiles[:, i, 0]), levels)
        close(densities[:, i, 0], marginal.log_prob(values).exp())
    shifted_means = torch.stack([MEAN, MEAN + 1.0])
    for single, batch in zip((quantiles, densities), both(shifted_means), strict=True):
        assert batch.shape == (3, 2, 2, 1)
        close(batch[:, 0], single)
    close(both(shifted_means)[0][:, 1], quantiles + 1.0)
    close(mixture().quantile(levels[1]), quantiles[1])
    close(mixture().density(values[:1]), densities[0])
    assert torch.autograd.gradcheck(both, (MEAN.clone().requires_grad_(),), eps=1e-6, atol=1e-6)


def test_shapes_of_draws() -> None:
    posterior = mixture()
    assert posterior.base_sample_shape == (3,)
    with seeded(seed(0)):
        for shape in ((), (4,), (2, 3)):
            assert posterior.rsample(torch.Size(shape)).shape == (*shape, 2, 1)
        assert posterior.rsample().shape == (1, 2, 1)
    alone = MixturePosterior(torch.zeros(1), MultivariateNormal(MEAN[:1], COV[:1]))
    assert alone.base_sample_shape == (2,)
    base = randn((5, 2), like=MEAN, generator=seed(0))
    expected = MEAN[0] + base @ torch.linalg.cholesky(COV[0]).mT
    close(alone.rsample_from_base_samples(torch.Size([5]), base)[..., 0], expected, 1e-8)  # there is some jitter
    sampler = get_sampler(posterior, torch.Size([8]), seed=shifted(0))
    assert isinstance(sampler, SobolQMCNormalSampler)
    assert sampler(posterior).shape == (8, 2, 1)


def test_each_of_many_batches_chooses_by_its_own_weights() -> None:
    """As after fantasies, each of which leaves hypotheses with other weights."""
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]).double()
    each = MultivariateNormal(MEAN.expand(3, 3, 2), 1e-12 * COV.expand(3, 3, 2, 2))
    draws = SobolQMCNormalSampler(torch.Size([64]), seed=shifted(0))(MixturePosterior(weights.log(), each))[..., 0]
    close(draws[:, 0], MEAN[0].expand(64, 2), 1e-4)
    close(draws[:, 1], MEAN[2].expand(64, 2), 1e-4)
    first = (draws[:, 2] - MEAN[0]).abs().amax(-1) < 1e-4
    assert first.sum() == 32  # quasi-random: exactly half
    close(draws[:, 2][~first], MEAN[1].expand(32, 2), 1e-4)


@pytest.mark.parametrize("root", [False, True])
def test_mixtures_of_mixtures_are_one_list(root: bool) -> None:
    """Weights multiply, whichever of them are shared between tasks."""
    g, batch, q = seed(0), (4, 2, 3), 5
    mean = randn((*batch, q), like=MEAN, generator=g)
    factor = randn((*batch, q, q), like=MEAN, generator=g)
    outer = randn((4, 2), like=MEAN, generator=g).log_softmax(-1)
    inner = randn((3,), like=MEAN, generator=g).log_softmax(-1)
    cov = RootLinearOperator(factor) if root else factor @ factor.mT
    joint = MixtureDistribution(outer, MixtureDistribution(inner, MultivariateNormal(mean, cov), -1), -1)
    log_weights, each = joint_of_each(joint)
    close(log_weights, (outer[..., None] + inner).reshape(4, 6))
    close(each.mean, mean.reshape(4, 6, q))
    close(each.covariance_matrix, (factor @ factor.mT).reshape(4, 6, q, q))
    close(MixturePosterior(log_weights, each).mean[..., 0], joint.mean)
    close(MixturePosterior(log_weights, each).variance[..., 0], joint.variance)
    normals = MixtureDistribution(inner[:, None], Normal(mean, mean.exp()), -2)
    marginal = MixtureDistribution(outer[..., None], normals, -2)
    log_weights, single = marginal_of_each(marginal)
    close(log_weights, (outer[..., None] + inner).reshape(4, 6))
    close((log_weights.exp()[..., None] * single.mean).sum(-2), marginal.mean)


def test_draws_keep_what_moments_lose() -> None:
    """Expected improvement by draws is that of the mixture; that of the normal with its moments is another."""
    posterior = some_hypotheses().condition(rows(6, num_inputs=2))
    x, best = points(40, 1, num_inputs=2), 1.3
    seen = Surrogate(posterior).posterior(x)
    draws = SobolQMCNormalSampler(torch.Size([2**17]), seed=shifted(0))(seen)
    by_draws = (draws - best).clamp(min=0.0).mean(0)[:, 0, 0]
    exact = expected_improvement(posterior.marginal(x[:, 0]), best)
    of_normal = expected_improvement(Normal(seen.mean[:, 0, 0], seen.variance[:, 0, 0].sqrt()), best)
    likely = exact > 0.01 * exact.max()
    assert (by_draws / exact - 1.0)[likely].abs().max() < 0.03
    assert (of_normal / exact - 1.0)[likely].abs().max() > 0.1


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_do_not_matter_where_points_coincide(scale: float) -> None:
    """Singular covariances of any size are factorised without a complaint."""
    data, x = rows(6), points(3).repeat(2, 1)
    prior = bm.GaussianProcess(torch.full((3,), 0.5).double(), torch.tensor(1.0).double(), torch.tensor(1e-4).double())
    scaled = replace(prior, scale=torch.tensor(scale).double()).condition(Data.of(data.x, scale * data.y))
    sampler = SobolQMCNormalSampler(torch.Size([16]), seed=shifted(0))
    expected, draws = sampler(Surrogate(prior.condition(data)).posterior(x)), sampler(Surrogate(scaled).posterior(x))
    close(draws / scale, expected, 1e-5)
    close(draws[:, :3] / scale, draws[:, 3:] / scale, 1e-4)


def test_a_neighbour_with_a_singular_covariance_changes_nothing() -> None:
    singular = 1e4 * torch.ones(2, 2).double()
    both = MultivariateNormal(MEAN[:2, None], to_linear_operator(torch.stack([COV[0], singular])[:, None]))
    sampler = SobolQMCNormalSampler(torch.Size([16]), seed=shifted(0))
    together = sampler(MixturePosterior(torch.zeros(1), both))
    alone = sampler(MixturePosterior(torch.zeros(1), MultivariateNormal(MEAN[:1, None], COV[:1, None])))
    assert torch.equal(together[:, :1], alone)
    close(together[:, 1, 0] - MEAN[1, 0], together[:, 1, 1] - MEAN[1, 1], 1e-2)


def test_a_covariance_that_is_none_is_an_error() -> None:
    bad = MultivariateNormal(MEAN[:1], to_linear_operator(torch.tensor([[[1.0, 2.0], [2.0, 1.0]]]).double()))
    with seeded(seed(0)), pytest.raises(ValueError, match="covariance of f is not positive definite"):
        MixturePosterior(torch.zeros(1), bad).rsample()


def test_other_distributions_are_none() -> None:
    other = MixtureSameFamily(Categorical(torch.ones(2)), Normal(torch.zeros(2), 1.0))
    assert joint_of_each(other) is None
    assert marginal_of_each(other) is None
    assert joint_of_each(MixtureDistribution(WEIGHTS.log()[:, None], Normal(MEAN, 1.0), -2)) is None


def test_hypotheses_in_float64_do_for_a_posterior_in_float32() -> None:
    family = FAMILIES["gaussian_process"]
    processes = replace(family.prior, past_weight=torch.tensor([0.0, 1.0]).double()).to(torch.float32)
    posterior = Mixture.uniform(processes).condition(family.rows(4).to(torch.float32))
    seen = Surrogate(posterior).posterior(points(4, num_inputs=2).float())
    assert seen.mean.dtype == seen.variance.dtype == torch.float32
    with seeded(seed(0)):
        assert seen.rsample(torch.Size([2])).dtype == torch.float32
