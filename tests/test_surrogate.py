"""Posteriors as BoTorch models, held to BoTorch's own Gaussian process with the same kernel."""

from typing import Any

import pytest
import torch
from botorch.acquisition import LogExpectedImprovement, qLogExpectedImprovement, qLogNoisyExpectedImprovement
from botorch.acquisition.knowledge_gradient import qKnowledgeGradient
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.models import SingleTaskGP
from botorch.optim import optimize_acqf, optimize_acqf_discrete
from botorch.sampling import SobolQMCNormalSampler
from gpytorch.kernels import Kernel, LinearKernel, MaternKernel, ScaleKernel
from gpytorch.means import ZeroMean
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.random import rand
from bo.surrogate import Surrogate
from tests.families import F64, FAMILIES, seed

NOISE_VAR = 0.1
WEIGHT_VAR = 0.7


def close(a: Tensor, b: Tensor, tolerance: float = 1e-8) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def rows(n: int = 6, number: int = 0) -> Data:
    x = rand((n, 3), like=F64, generator=seed(number))
    return Data.of(x, torch.sin(5 * x[:, 0]) + x[:, 1])


def points(*shape: int, number: int = 1) -> Tensor:
    return rand((*shape, 3), like=F64, generator=seed(number))


PRIOR = bm.LinearGaussian(torch.zeros(3).double(), torch.eye(3).double() / WEIGHT_VAR, F64 + NOISE_VAR)
LENGTHSCALE = torch.tensor([0.3, 0.5, 1.0]).double()
PROCESS = bm.GaussianProcess(LENGTHSCALE, F64 + WEIGHT_VAR, F64 + NOISE_VAR)


def linear_kernel() -> Kernel:
    """Regression with Gaussian weights is a Gaussian process with this kernel."""
    kernel = LinearKernel().double()
    kernel.variance = WEIGHT_VAR
    return kernel


def matern_kernel() -> Kernel:
    kernel = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=3)).double()
    kernel.outputscale = WEIGHT_VAR
    kernel.base_kernel.lengthscale = LENGTHSCALE
    return kernel


@pytest.fixture(params=[(PRIOR, linear_kernel), (PROCESS, matern_kernel)], ids=["linear", "gaussian process"])
def family(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def ours(family: Any) -> Surrogate:
    return Surrogate(family[0].condition(rows()))


@pytest.fixture
def theirs(family: Any) -> SingleTaskGP:
    data, kernel = rows(), family[1]()
    noise = torch.full((6, 1), NOISE_VAR, dtype=torch.float64)
    modules = {"covar_module": kernel, "mean_module": ZeroMean(), "outcome_transform": None}
    return SingleTaskGP(data.x, data.y[:, None], noise, **modules).eval()


@pytest.mark.parametrize("shape", [(1,), (4,), (5, 2), (2, 3, 4)])
def test_posterior_is_that_of_botorch(ours: Surrogate, theirs: SingleTaskGP, shape: tuple[int, ...]) -> None:
    x = points(*shape)
    left, right = ours.posterior(x), theirs.posterior(x)
    assert left.mean.shape == left.variance.shape == (*shape, 1)
    close(left.mean, right.mean)
    close(left.variance, right.variance)
    close(left.distribution.covariance_matrix, right.distribution.covariance_matrix)
    noisy = ours.posterior(x, observation_noise=True)
    close(noisy.variance, left.variance + NOISE_VAR)
    close(ours.posterior(x, observation_noise=left.variance).variance, 2 * left.variance)
    transform = ScalarizedPosteriorTransform(torch.tensor([-2.0]).double(), offset=1.0)
    close(ours.posterior(x, posterior_transform=transform).mean, 1.0 - 2.0 * left.mean)


def test_log_expected_improvement_and_its_gradient_are_those_of_botorch(ours: Surrogate, theirs: SingleTaskGP) -> None:
    x = points(7, 1)
    values, slopes = [], []
    for model in (ours, theirs):
        here = x.clone().requires_grad_()
        value = LogExpectedImprovement(model, best_f=rows().y.max())(here)
        value.sum().backward()
        values.append(value.detach())
        slopes.append(here.grad)
    assert values[0].shape == (7,)
    close(*values, tolerance=1e-6)
    close(*slopes, tolerance=1e-6)


def test_optimisers_find_the_same_candidate(ours: Surrogate, theirs: SingleTaskGP) -> None:
    bounds = torch.tensor([[0.0] * 3, [1.0] * 3]).double()
    found = []
    for model in (ours, theirs):
        acquisition = LogExpectedImprovement(model, best_f=rows().y.max())
        starts = points(4, 1)
        found.append(optimize_acqf(acquisition, bounds, q=1, num_restarts=4, batch_initial_conditions=starts)[0])
    close(*found, tolerance=1e-4)
    choices = points(20)
    best = LogExpectedImprovement(ours, best_f=rows().y.max())(choices[:, None]).argmax()
    chosen, _ = optimize_acqf_discrete(LogExpectedImprovement(ours, best_f=rows().y.max()), q=1, choices=choices)
    close(chosen[0], choices[best])


def batch_acquisitions(model: Any) -> list[Any]:
    sampler = SobolQMCNormalSampler(torch.Size([512]), seed=0)
    return [
        qLogExpectedImprovement(model, best_f=1.0, sampler=sampler),
        qLogNoisyExpectedImprovement(
            model, X_baseline=rows().x, sampler=sampler, prune_baseline=False, cache_root=False
        ),
    ]


def test_batch_acquisitions_agree_with_botorch(ours: Surrogate, theirs: SingleTaskGP) -> None:
    x = points(5, 2).requires_grad_()
    for left, right in zip(batch_acquisitions(ours), batch_acquisitions(theirs), strict=True):
        value = left(x)
        assert value.shape == (5,)
        assert torch.autograd.grad(value.sum(), x)[0].isfinite().all()
        # two quasi-random estimates of one integral, whose base samples mean different things
        close(value.exp(), right(x).exp(), tolerance=0.02)


@pytest.mark.filterwarnings("ignore:A not p.d., added jitter:linear_operator.utils.warnings.NumericalWarning")
def test_joint_samples_are_coherent(ours: Surrogate) -> None:
    twice = points(3).repeat(2, 1)
    draws = SobolQMCNormalSampler(torch.Size([16]), seed=0)(ours.posterior(twice))
    assert draws.shape == (16, 6, 1)
    close(draws[:, :3], draws[:, 3:], tolerance=1e-3)  # a jitter of 1e-8 is a step of 1e-4


def test_conditioning_adds_rows(ours: Surrogate, family: Any) -> None:
    more = rows(2, number=3)
    after = ours.condition_on_observations(more.x, more.y[:, None])
    expected = family[0].condition(rows() + more).joint(points(4))
    close(after.posterior(points(4)).mean[..., 0], expected.mean)
    close(after.posterior(points(4)).variance[..., 0], expected.variance)


def test_fantasies_are_a_batch_of_models(ours: Surrogate) -> None:
    x = points(5, 2)
    fantasies = ours.fantasize(x, SobolQMCNormalSampler(torch.Size([8]), seed=0))
    assert fantasies.batch_shape == (8, 5)
    assert fantasies.posterior(points(4)).mean.shape == (8, 5, 4, 1)
    assert fantasies.posterior(points(3, 1, 5, 4)).mean.shape == (3, 8, 5, 4, 1)
    variance = fantasies.posterior(x).variance
    assert (variance <= ours.posterior(x).variance + 1e-12).all()
    gain = qKnowledgeGradient(ours, num_fantasies=4, sampler=SobolQMCNormalSampler(torch.Size([4]), seed=0))
    value = gain(points(5, 2 + 4).requires_grad_())
    assert value.shape == (5,)
    value.sum().backward()


def test_tasks_are_model_batches(family: Any) -> None:
    tasks = Data.pad([(rows(n, n).x, rows(n, n).y) for n in (2, 5, 0)])
    model = Surrogate(family[0].condition(tasks))
    assert model.batch_shape == (3,)
    x = points(4)
    posterior = model.posterior(x)
    assert posterior.mean.shape == (3, 4, 1)
    close(posterior.mean[1, :, 0], family[0].condition(rows(5, 5)).joint(x).mean)


class _Other:
    """A posterior whose joint is whatever it is given."""

    batch_shape = event_shape = torch.Size()

    def __init__(self, joint: Any) -> None:
        self.joint = lambda x: joint
        self.condition = self.predict = self.sample = lambda *args, **kwargs: self


def test_dense_normals_are_accepted() -> None:
    cov = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()
    posterior = Surrogate(_Other(MultivariateNormal(torch.zeros(2).double(), cov))).posterior(points(2))
    close(posterior.distribution.covariance_matrix, cov)


def test_what_cannot_be_a_surrogate_is_named() -> None:
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), Normal(torch.zeros(2), 1.0))
    with pytest.raises(TypeError, match=r"joint that is a multivariate normal.*MixtureSameFamily"):
        Surrogate(_Other(mixture)).posterior(points(2))
    with pytest.raises(TypeError, match="Joint"):
        Surrogate(3)
    vector = _Other(mixture)
    vector.event_shape = torch.Size([2])
    with pytest.raises(ValueError, match=r"one output; _Other has event_shape \(2,\)"):
        Surrogate(vector)


@pytest.mark.parametrize("name", ["mixture", "nested_mixture"])
def test_a_mixture_keeps_its_mean_and_covariance(name: str) -> None:
    family = FAMILIES[name]
    posterior, x = family.prior.condition(family.rows(4)), family.draw_x(3, seed(1)).requires_grad_()
    seen = Surrogate(posterior).posterior(x)
    close(seen.mean[:, 0], posterior.marginal(x).mean)
    close(seen.variance[:, 0], posterior.marginal(x).variance)
    draws = posterior.sample(4000, generator=seed(2))(x.detach())
    products = (draws - draws.mean(0))[:, :, None] * (draws - draws.mean(0))[:, None, :]
    error = products.std(0) / len(draws) ** 0.5
    assert ((products.mean(0) - seen.distribution.covariance_matrix).abs() < 5 * error).all()
    value = LogExpectedImprovement(Surrogate(posterior), 0.5)(x[:, None, :])
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert value.shape == (3,)
    assert gradient.isfinite().all()
