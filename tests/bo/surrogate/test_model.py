"""Posteriors as BoTorch models, held to BoTorch's own Gaussian process with the same kernel, and to loops."""

from typing import Any

import pytest
import torch
from botorch.acquisition.objective import (
    ExpectationPosteriorTransform,
    PosteriorTransform,
    ScalarizedPosteriorTransform,
)
from botorch.acquisition.thompson_sampling import PathwiseThompsonSampling
from botorch.acquisition.utils import get_optimal_samples
from botorch.models import SingleTaskGP
from botorch.models.model import ModelList
from botorch.posteriors.posterior import Posterior
from botorch.posteriors.transformed import TransformedPosterior
from botorch.sampling import SobolQMCNormalSampler
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from bayesmeta import Data
from bayesmeta.random import seeded
from bo.surrogate.model import Surrogate
from tests.bo.surrogate.surrogates import (
    LINEAR,
    NOISE_VAR,
    PRIORS,
    PROCESS,
    botorchs_own,
    linear_kernel,
    matern_kernel,
    points,
    rows,
)
from tests.families import FAMILIES, seed
from tests.seeds import shifted


def close(a: Tensor, b: Tensor, tolerance: float = 1e-8) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def sobol(num_draws: int) -> SobolQMCNormalSampler:
    return SobolQMCNormalSampler(torch.Size([num_draws]), seed=shifted(0))


@pytest.fixture(params=[(LINEAR, linear_kernel), (PROCESS, matern_kernel)], ids=["linear", "gaussian process"])
def family(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def ours(family: Any) -> Surrogate:
    return Surrogate(family[0].condition(rows()))


@pytest.fixture
def theirs(family: Any) -> SingleTaskGP:
    return botorchs_own(family[1](), rows())


@pytest.fixture(params=PRIORS)
def prior(request: pytest.FixtureRequest) -> Any:
    return PRIORS[request.param]()


@pytest.mark.parametrize("shape", [(1,), (4,), (5, 1), (5, 2), (2, 3, 1), (2, 3, 4)])
def test_posterior_is_that_of_botorch(ours: Surrogate, theirs: SingleTaskGP, shape: tuple[int, ...]) -> None:
    x = points(*shape)
    left, right = ours.posterior(x), theirs.posterior(x)
    assert left.mean.shape == left.variance.shape == (*shape, 1)
    close(left.mean, right.mean)
    close(left.variance, right.variance)
    close(left.distribution.covariance_matrix, right.distribution.covariance_matrix)
    close(ours(x).covariance_matrix, right.distribution.covariance_matrix)
    noisy = ours.posterior(x, observation_noise=True)
    close(noisy.variance, left.variance + NOISE_VAR)
    close(noisy.distribution.covariance_matrix, theirs.posterior(x, observation_noise=True).covariance_matrix)
    close(ours.posterior(x, observation_noise=left.variance).variance, 2 * left.variance)
    transform = ScalarizedPosteriorTransform(torch.tensor([-2.0]).double(), offset=1.0)
    close(ours.posterior(x, posterior_transform=transform).mean, 1.0 - 2.0 * left.mean)


def models_of(prior: Any) -> dict[str, Surrogate]:
    """Models without a batch, of three tasks, and of fantasies."""
    tasks = Data.pad([(rows(n, n, 2).x, rows(n, n, 2).y) for n in (2, 5, 0)])
    single = Surrogate(prior.condition(rows(5, num_inputs=2)))
    fantasies = single.fantasize(points(3, 2, num_inputs=2), sobol(2))
    return {"single": single, "tasks": Surrogate(prior.condition(tasks)), "fantasies": fantasies}


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("q", [1, 3])
def test_batches_equal_a_loop(prior: Any, q: int, noisy: bool) -> None:
    x = points(4, 3, q, num_inputs=2)
    models = models_of(prior)
    shapes = {"single": (4, 3), "tasks": (4, 3), "fantasies": (4, 2, 3)}
    for name, model in models.items():
        extra = x[:, None] if name == "fantasies" else x
        together = model.posterior(extra, observation_noise=noisy)
        assert together.mean.shape == together.variance.shape == (*shapes[name], q, 1)
        for i in range(4):
            alone = model.posterior(extra[i], observation_noise=noisy)
            close(together.mean[i], alone.mean, 1e-10)
            close(together.distribution.covariance_matrix[i], alone.distribution.covariance_matrix, 1e-10)
    tasks = models["tasks"].posterior(x[0], observation_noise=noisy)
    for task, n in enumerate((2, 5, 0)):
        alone = Surrogate(prior.condition(rows(n, n, 2))).posterior(x[0, task], observation_noise=noisy)
        close(tasks.mean[task], alone.mean, 1e-10)
        close(tasks.distribution.covariance_matrix[task], alone.distribution.covariance_matrix, 1e-10)


def test_single_points_are_joints_of_one(prior: Any) -> None:
    """Which a model computes in another way."""
    model, x = Surrogate(prior.condition(rows(5, num_inputs=2))), points(6, num_inputs=2)
    for noisy in (False, True):
        joint, single = (model.posterior(each, observation_noise=noisy) for each in (x, x[:, None]))
        close(single.mean[:, 0], joint.mean)
        close(single.variance[:, 0], joint.variance)


def test_noise_is_what_outcomes_have_beyond_f(prior: Any) -> None:
    posterior, x = prior.condition(rows(5, num_inputs=2)), points(4, num_inputs=2)
    model = Surrogate(posterior)
    close(model.posterior(x, observation_noise=True).variance[:, 0], posterior.predict(x).variance)
    latent, noise = model.posterior(x).distribution.covariance_matrix, points(4)[:, :1]
    noisy = model.posterior(x, observation_noise=noise).distribution.covariance_matrix
    close(noisy, latent + torch.diag(noise[:, 0]))
    close(model.posterior(x, observation_noise=noise[:1]).variance, model.posterior(x).variance + noise[0])


def test_gradients(prior: Any) -> None:
    """Of moments and of draws, between rows and at them."""
    data = rows(4, num_inputs=2)
    model = Surrogate(prior.condition(data))
    sampler = sobol(3)

    def moments(x: Tensor) -> tuple[Tensor, ...]:
        joint, single = model.posterior(x), model.posterior(x[:, None], observation_noise=True)
        return joint.mean, joint.distribution.covariance_matrix, single.mean, single.variance, sampler(joint)

    x = torch.cat([data.x[1:3], points(2, num_inputs=2)])
    sampler(model.posterior(x))
    assert torch.autograd.gradcheck(moments, (x.requires_grad_(),), eps=1e-6, atol=1e-5)


def test_gradients_through_fantasies(prior: Any) -> None:
    """A knowledge gradient asks how the mean at one point moves with where another is evaluated."""
    model, sampler = Surrogate(prior.condition(rows(4, num_inputs=2))), sobol(2)
    at = points(1, num_inputs=2)

    def mean_afterwards(x: Tensor) -> Tensor:
        return model.fantasize(x, sampler).posterior(at).mean

    x = points(2, number=3, num_inputs=2)
    mean_afterwards(x)
    assert torch.autograd.gradcheck(mean_afterwards, (x.requires_grad_(),), eps=1e-6, atol=1e-5)


def test_coherent_draws(prior: Any) -> None:
    """The same base samples give the same draws at points that two calls share, though the second asks for more."""
    model = Surrogate(prior.condition(rows(5, num_inputs=2)))
    x = points(5, num_inputs=2)
    few, more = model.posterior(x[:3]), model.posterior(x)
    shape = few.base_sample_shape[-1]
    base = torch.randn(64, more.base_sample_shape[-1], generator=seed(0), dtype=torch.float64)
    draws = few.rsample_from_base_samples(torch.Size([64]), base[:, :shape])
    close(more.rsample_from_base_samples(torch.Size([64]), base)[:, :3], draws)
    batched = model.posterior(x.expand(4, 2, 5, 2)).rsample_from_base_samples(torch.Size([64]), base[:, None, None])
    close(batched[:, 2, 1], more.rsample_from_base_samples(torch.Size([64]), base))


def test_the_same_point_twice_has_one_value(prior: Any) -> None:
    model = Surrogate(prior.condition(rows(5, num_inputs=2)))
    draws = sobol(16)(model.posterior(points(3, num_inputs=2).repeat(2, 1)))
    assert draws.shape == (16, 6, 1)
    close(draws[:, :3], draws[:, 3:], tolerance=1e-4)  # a jitter of 1e-10 of the variance is a step of 1e-5


class _Exponential(PosteriorTransform):
    """Makes of f what no normal is."""

    def evaluate(self, Y: Tensor, X: Tensor | None = None) -> Tensor:
        return Y.exp()

    def forward(self, posterior: Posterior, X: Tensor | None = None) -> Posterior:
        return TransformedPosterior(posterior, sample_transform=torch.exp)


def test_posterior_transforms_act_on_each_hypothesis(prior: Any) -> None:
    """So draws of what was transformed are those of f, transformed."""
    model = Surrogate(prior.condition(rows(5, num_inputs=2)))
    x = points(3, 6, num_inputs=2)
    plain, draws = model.posterior(x), sobol(8)(model.posterior(x))
    negated = model.posterior(x, posterior_transform=ScalarizedPosteriorTransform(torch.tensor([-1.0]).double()))
    close(negated.mean, -plain.mean)
    close(negated.distribution.covariance_matrix, plain.distribution.covariance_matrix)
    weights = torch.tensor([[1.0], [2.0], [1.0]]).double()
    averaged = model.posterior(x, posterior_transform=ExpectationPosteriorTransform(3, weights))
    mix = torch.block_diag(*[weights.mT / 4.0] * 2)
    close(averaged.mean, mix @ plain.mean)
    close(averaged.distribution.covariance_matrix, mix @ plain.distribution.covariance_matrix @ mix.mT)
    many = averaged.rsample_from_base_samples(torch.Size([8]), torch.zeros(8, *averaged.base_sample_shape).double())
    assert many.shape == (8, 3, 2, 1)
    close(sobol(8)(model.posterior(x, posterior_transform=_Exponential())), draws.exp())


@pytest.mark.parametrize("name", ["gaussian_process", "mixture", "transfer_hypotheses"])
def test_draws_of_negated_outputs_are_negated_draws(name: str) -> None:
    """Of the same hypothesis, where there are several: by the other side of the joint normal."""
    model = Surrogate(PRIORS[name]().condition(rows(5, num_inputs=2)))
    x, shape = points(4, num_inputs=2), torch.Size([64])
    plain = model.posterior(x)
    negated = model.posterior(x, posterior_transform=ScalarizedPosteriorTransform(torch.tensor([-1.0]).double()))
    base = torch.randn(64, *plain.base_sample_shape, generator=seed(0), dtype=torch.float64)
    other = torch.cat([base[:, :-4], -base[:, -4:]], -1)
    close(negated.rsample_from_base_samples(shape, other), -plain.rsample_from_base_samples(shape, base))


def test_conditioning_adds_rows(prior: Any) -> None:
    """Whatever batches the new rows and the model have: of X alone, of Y alone, of both."""
    model, data = Surrogate(prior.condition(rows(5, num_inputs=2))), rows(5, num_inputs=2)
    x, y, at = points(3, 2, number=3, num_inputs=2), points(4, 3, 2)[..., :1], points(4, num_inputs=2)
    both = model.condition_on_observations(x, y)
    assert both.batch_shape == (4, 3)
    shared = model.condition_on_observations(x[1], y[:, 1])
    missing = model.condition_on_observations(x, y[2, 1])
    again = both.condition_on_observations(at[:1], y[0, 0, :1])
    for i in range(4):
        expected = prior.condition(data + Data.of(x[1], y[i, 1, :, 0])).joint(at)
        for after in (both.posterior(at.expand(4, 3, 4, 2)), shared.posterior(at)):
            mean = after.mean[i, 1] if after.mean.ndim == 4 else after.mean[i]
            close(mean[:, 0], expected.mean)
        more = data + Data.of(x[1], y[i, 1, :, 0]) + Data.of(at[:1], y[0, 0, :1, 0])
        close(again.posterior(at).mean[i, 1, :, 0], prior.condition(more).joint(at).mean)
    expected = prior.condition(data + Data.of(x[0], y[2, 1, :, 0])).joint(at)
    close(missing.posterior(at).mean[0, :, 0], expected.mean)


def test_fantasies_are_a_batch_of_models(ours: Surrogate) -> None:
    x = points(5, 2)
    fantasies = ours.fantasize(x, sobol(8))
    assert fantasies.batch_shape == (8, 5)
    assert fantasies.posterior(points(4)).mean.shape == (8, 5, 4, 1)
    assert fantasies.posterior(points(3, 1, 5, 4)).mean.shape == (3, 8, 5, 4, 1)
    variance = fantasies.posterior(x).variance
    assert (variance <= ours.posterior(x).variance + 1e-12).all()
    of_nothing = ours.fantasize(x[:, :0], sobol(8))
    assert of_nothing.batch_shape == (8, 5)
    close(of_nothing.posterior(x).mean[3], ours.posterior(x).mean)


def test_fantasies_are_those_of_botorch(ours: Surrogate, theirs: SingleTaskGP) -> None:
    """Of single points, where base samples mean the same whatever root a covariance has."""
    x, at = points(5, 1), points(4)
    left, right = (model.fantasize(x, sobol(8)).posterior(at) for model in (ours, theirs))
    close(left.mean, right.mean, 1e-6)
    close(left.variance, right.variance, 1e-6)


def test_the_one_output(ours: Surrogate) -> None:
    x = points(4)
    assert ours.num_outputs == 1
    assert ours.subset_output([0]) is ours
    assert ours.transform_inputs(x) is x
    close(ours.posterior(x, output_indices=[0]).mean, ours.posterior(x).mean)
    for ask in (lambda: ours.subset_output([1]), lambda: ours.posterior(x, output_indices=[0, 1])):
        with pytest.raises(IndexError, match=r"one output, number 0; got \[(0, )?1\]"):
            ask()
    two = ModelList(ours, ours)
    assert two.posterior(x).mean.shape == (4, 2)
    close(two.subset_output([1]).posterior(x).mean, ours.posterior(x).mean)


def test_botorchs_thompson_sampling_draws_functions(prior: Any) -> None:
    model = Surrogate(prior.condition(rows(5, num_inputs=2)))
    x = points(6, 4, num_inputs=2)
    with seeded(seed(0)):
        acquisition = PathwiseThompsonSampling(model)
        together = acquisition(x)
        paths = acquisition.samples
    assert together.shape == (6,)
    close(together, sum(paths(x[:, i])[i, :, 0] for i in range(4)))
    with seeded(seed(0)):
        bounds = torch.tensor([[0.0] * 2, [1.0] * 2]).double()
        best, value = get_optimal_samples(model, bounds, 3, raw_samples=64, num_restarts=2)
    assert best.shape == (3, 2)
    assert value.shape == (3, 1)
    with pytest.raises(ValueError, match=r"of one task with one output; got batch_shape \(3,\)"):
        PathwiseThompsonSampling(models_of(prior)["tasks"])(x)


def test_arms_can_be_asked_for() -> None:
    family = FAMILIES["correlated_arms"]
    posterior = family.prior.condition(family.rows(4))
    model, arms = Surrogate(posterior), torch.arange(3.0)[:, None].double()
    close(model.posterior(arms).distribution.covariance_matrix, posterior.cov)
    close(model.posterior(arms[:, None]).mean[:, 0, 0], posterior.loc)


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
    draws = posterior.sample(1000, generator=seed(2))(x.detach())
    products = (draws - draws.mean(0))[:, :, None] * (draws - draws.mean(0))[:, None, :]
    error = products.std(0) / len(draws) ** 0.5
    assert ((products.mean(0) - seen.distribution.covariance_matrix).abs() < 5 * error).all()
