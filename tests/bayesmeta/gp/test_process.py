"""Gaussian processes: held to gpytorch and scipy, at the edges of floating point, and in draws."""

from dataclasses import replace
from typing import Any

import gpytorch
import numpy as np
import pytest
import scipy.stats
import torch
from gpytorch.kernels import MaternKernel, ScaleKernel
from torch import Tensor

from bayesmeta import Data, GaussianProcess, PastFunctions
from bayesmeta.checks.calibration import sbc_ranks
from bayesmeta.gp.covariance import matern52
from bayesmeta.random import rand, randn
from tests.families import F64, seed

LENGTHSCALE = torch.tensor([0.3, 0.5, 1.2]).double()
PLAIN = GaussianProcess(LENGTHSCALE, F64 + 0.7, F64 + 0.05, constant=F64 - 0.4)
PAST = PastFunctions(
    rand((5, 3), like=F64, generator=seed(10)),
    torch.tensor([0.6, 0.9, 0.4]).double(),
    randn((5,), like=F64, generator=seed(11)),
    randn((5, 2), like=F64, generator=seed(12)),
)
FULL = GaussianProcess(
    LENGTHSCALE,
    F64 + 0.7,
    F64 + 0.05,
    F64 - 0.4,
    F64 + 0.6,
    F64 + 2.5,
    PAST,
    past_weight=F64 + 0.8,
    past_var=F64 + 0.3,
    beyond_var=F64 + 0.9,
)


def close(a: Any, b: Any, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def inputs(*shape: int, number: int = 0) -> Tensor:
    return rand((*shape, 3), like=F64, generator=seed(number))


def rows(n: int, number: int = 0) -> Data:
    x = inputs(n, number=number)
    return Data.of(x, torch.sin(6 * x[:, 0]) + x[:, 1] + 0.1 * randn((n,), like=x, generator=seed(number + 1)))


def same(a: GaussianProcess, b: GaussianProcess, x: Tensor, tolerance: float = 1e-10) -> None:
    close(a.predict(x).mean, b.predict(x).mean, tolerance)
    close(a.predict(x).variance, b.predict(x).variance, tolerance)


def by_gpytorch(a: Tensor, b: Tensor, lengthscale: Tensor) -> Tensor:
    kernel = MaternKernel(nu=2.5, ard_num_dims=len(lengthscale)).double()
    kernel.lengthscale = lengthscale
    return kernel(a, b).to_dense().detach()


def prior_moments(prior: GaussianProcess, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of f, by another kernel's code and written out."""
    mean, cov = prior.constant.expand(len(x)), prior.outputscale * by_gpytorch(x, x, prior.lengthscale)
    if prior.past is not None:
        at = by_gpytorch(x, prior.past.points, prior.past.lengthscale)
        directions = at @ prior.past.directions
        mean = mean + prior.past_weight * (at @ prior.past.mean)
        # most of x is beyond the points of the past
        outside = x - x.clamp(prior.past.points.amin(0), prior.past.points.amax(0))
        reach = by_gpytorch(outside, torch.zeros_like(outside[:1]), prior.past.lengthscale)[:, 0]
        amplitude = (prior.outputscale + prior.beyond_var * (1 - reach**2)).sqrt()
        cov = cov / prior.outputscale * amplitude[:, None] * amplitude
        cov = cov + prior.past_var * directions @ directions.T
    return (prior.scale * mean).numpy(), (prior.scale**2 * (cov + prior.constant_var)).numpy()


class Exact(gpytorch.models.ExactGP):
    """PLAIN as gpytorch writes it."""

    def __init__(self, data: Data) -> None:
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
        likelihood.noise = PLAIN.noise_var
        super().__init__(data.x, data.y, likelihood)
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=3))
        self.double()
        self.mean_module.constant = PLAIN.constant
        self.covar_module.outputscale = PLAIN.outputscale
        self.covar_module.base_kernel.lengthscale = PLAIN.lengthscale
        self.eval()

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def test_posterior_matches_gpytorch() -> None:
    data, x = rows(30), inputs(6, number=5)
    model, posterior = Exact(data), PLAIN.condition(data)
    with torch.no_grad():
        latent = model(x)
        noisy = model.likelihood(latent)
        joint = posterior.joint(x)
        close(joint.mean, latent.mean)
        close(joint.covariance_matrix, latent.covariance_matrix)
        close(posterior.predict(x).mean, noisy.mean)
        close(posterior.predict(x).variance, noisy.variance)
        model.train()
        mll = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        close(PLAIN.log_evidence(data), 30 * mll(model(data.x), data.y))


def test_evidence_and_joint_match_scipy() -> None:
    data, x = rows(12), inputs(4, number=5)
    mean, cov = prior_moments(FULL, torch.cat([data.x, x]))
    noise = (FULL.scale**2 * FULL.noise_var).item()
    a, b = slice(0, 12), slice(12, 16)
    noisy = cov[a, a] + noise * np.eye(12)
    expected = scipy.stats.multivariate_normal(mean[a], noisy).logpdf(data.y)
    assert FULL.log_evidence(data).item() == pytest.approx(expected, rel=1e-10)
    close(FULL.joint(x).mean, mean[b])
    close(FULL.joint(x).covariance_matrix, cov[b, b])
    gain = np.linalg.solve(noisy, cov[a, b]).T
    posterior = FULL.condition(data)
    post_mean, post_cov = mean[b] + gain @ (data.y.numpy() - mean[a]), cov[b, b] - gain @ cov[a, b]
    close(posterior.joint(x).mean, post_mean)
    close(posterior.joint(x).covariance_matrix, post_cov)
    close(posterior.marginal(x).variance, np.diag(post_cov))
    close(posterior.predict(x).variance, np.diag(post_cov) + noise)
    # further rows, given the first
    y = randn((4,), like=F64, generator=seed(6))
    expected = scipy.stats.multivariate_normal(post_mean, post_cov + noise * np.eye(4)).logpdf(y)
    assert posterior.log_evidence(Data.of(x, y)).item() == pytest.approx(expected, rel=1e-10)


def test_kernel_matches_gpytorch() -> None:
    a, b = inputs(20), inputs(15, number=1)
    close(matern52(a, b, LENGTHSCALE), by_gpytorch(a, b, LENGTHSCALE), 1e-12)
    close(matern52(a, a, LENGTHSCALE), by_gpytorch(a, a, LENGTHSCALE), 1e-12)


def test_close_points_keep_their_digits() -> None:
    a = torch.tensor([[1e4]]).double()
    r = 5**0.5 * 2.0**-20
    gap = 1.0 - matern52(a, a + 2.0**-20, torch.ones(1).double()).item()
    assert gap == pytest.approx(r**2 / 6, rel=1e-3)  # 1 - k = r^2/6 + ..., of which products would leave nothing


def test_kernel_gradient() -> None:
    a, lengthscale = inputs(4).requires_grad_(), LENGTHSCALE.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, s: matern52(a, inputs(3, number=1), s), (a, lengthscale))
    same_point = a[:1].detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(matern52(same_point, a.detach(), LENGTHSCALE)[0, 0], same_point)
    assert torch.equal(gradient, torch.zeros(1, 3).double())


def test_ragged_tasks_match_each_alone() -> None:
    lengths = [4, 0, 9, 1]
    alone = [rows(n, number=10 * n) for n in lengths]
    tasks, x = Data.pad([(d.x, d.y) for d in alone]), inputs(5, number=5)
    more = Data.of(inputs(4, 2, number=6), randn((4, 2), like=F64, generator=seed(7)))
    posterior = FULL.condition(tasks)
    joint, then = posterior.joint(x), posterior.log_evidence(more)
    for i, data in enumerate(alone):
        each = FULL.condition(data)
        close(joint.mean[i], each.joint(x).mean)
        close(joint.covariance_matrix[i], each.joint(x).covariance_matrix)
        close(FULL.log_evidence(tasks)[i], FULL.log_evidence(data))
        close(then[i], each.log_evidence(more[i]))


def test_beyond_the_past_the_prior_is_as_wide_as_past_functions_are_apart() -> None:
    near = PAST.points.mean(0, keepdim=True)
    far = near + 100.0
    close(FULL.marginal(far).variance, FULL.scale**2 * (FULL.outputscale + FULL.beyond_var + FULL.constant_var))
    within = replace(FULL, beyond_var=F64 * 0)
    close(FULL.marginal(near).variance, within.marginal(near).variance)
    assert FULL.marginal(far).variance > within.marginal(far).variance


def test_tasks_without_rows_keep_their_batch() -> None:
    empty = Data.of(inputs(4, 0), torch.zeros(4, 0).double())
    assert FULL.log_evidence(empty).tolist() == [0.0] * 4
    posterior = FULL.condition(empty)
    assert posterior.batch_shape == (4,)
    same(posterior, replace(FULL, constant=FULL.constant.expand(4)), inputs(2, number=1))
    same(posterior.condition(rows(5)), FULL.condition(rows(5).expand((4,))), inputs(2, number=1))


def test_a_grid_of_structures_and_scales_equals_a_loop() -> None:
    grid = replace(
        FULL,
        lengthscale=torch.stack([LENGTHSCALE, 2 * LENGTHSCALE])[:, None],
        past_weight=torch.tensor([[0.0], [1.0]]).double(),
        scale=torch.tensor([0.5, 1.0, 2.0]).double(),
    )
    first, second, x = rows(6), rows(3, number=2), inputs(4, number=5)
    posterior = grid.condition(first).condition(second)
    assert grid.batch_shape == posterior.batch_shape == posterior.predict(x).batch_shape[:-1] == (2, 3)
    assert posterior.factor is not None
    assert posterior.factor.shape == (2, 1, 9, 9), "scales share a factor"
    for i in range(2):
        for j in range(3):
            one = replace(
                grid, lengthscale=grid.lengthscale[i, 0], past_weight=grid.past_weight[i, 0], scale=grid.scale[j]
            )
            close(grid.log_evidence(first)[i, j], one.log_evidence(first))
            alone = one.condition(first).condition(second)
            for each, expected in ((posterior, alone), (grid, one)):
                close(each.predict(x).mean[i, j], expected.predict(x).mean)
                close(each.marginal(x).variance[i, j], expected.marginal(x).variance)
                close(each.joint(x).covariance_matrix[i, j], expected.joint(x).covariance_matrix)


def test_a_prior_batched_in_lengthscales_alone() -> None:
    many, x = replace(PLAIN, lengthscale=torch.stack([LENGTHSCALE, 2 * LENGTHSCALE])), inputs(4)
    assert many.predict(x).batch_shape == (2, 4)
    assert many.joint(x).batch_shape == (2,)
    assert many.sample(3, generator=seed(0))(x).shape == (3, 2, 4)


@pytest.mark.parametrize("step", [1, 7])
def test_many_small_steps_equal_one(step: int) -> None:
    data, x = rows(100), inputs(5, number=5)
    posterior, evidence = FULL, F64
    for start in range(0, 100, step):
        part = data.rows(slice(start, start + step))
        evidence = evidence + posterior.log_evidence(part)
        posterior = posterior.condition(part)
    whole = FULL.condition(data)
    same(posterior, whole, x)
    close(evidence, FULL.log_evidence(data))
    close(posterior.factor, whole.factor)


@pytest.mark.parametrize(
    "prior", [FULL, FULL.condition(rows(6)), PLAIN.condition(rows(6))], ids=["prior", "full", "plain"]
)
def test_gradients_through_x(prior: GaussianProcess) -> None:
    x = inputs(3, number=5)
    x[0] = rows(6).x[0]  # on a row, where a distance is zero
    x.requires_grad_()
    for moments in (
        lambda x: (prior.predict(x).mean, prior.predict(x).variance),
        lambda x: prior.marginal(x).stddev,
        lambda x: (prior.joint(x).mean, prior.joint(x).covariance_matrix),
        prior.sample(2, generator=seed(0)),
    ):
        assert torch.autograd.gradcheck(moments, x)


def test_targets_far_from_zero() -> None:
    """A y of 1e6 is known to 1e-10; what the model makes of it loses two more digits at most."""
    data, x, far = rows(20), inputs(5, number=5), 1e6
    near, shifted = FULL.condition(data), replace(FULL, constant=FULL.constant + far / FULL.scale)
    moved = shifted.condition(Data.of(data.x, data.y + far))
    close(moved.predict(x).mean - far, near.predict(x).mean, 1e-8)
    close(moved.predict(x).variance, near.predict(x).variance)
    close(shifted.log_evidence(Data.of(data.x, data.y + far)), FULL.log_evidence(data), 1e-8)


def test_duplicate_rows_count_as_their_mean() -> None:
    data, x = rows(8), inputs(5, number=5)
    split = data + Data.of(data.x[:1], data.y[:1] + 0.6)
    # noise differs from row to row here, so the closed form is written out
    mean, cov = prior_moments(PLAIN, torch.cat([data.x, x]))
    noise = np.full(8, PLAIN.noise_var.item())
    noise[0] /= 2
    y = data.y.numpy().copy()
    y[0] += 0.3
    gain = np.linalg.solve(cov[:8, :8] + np.diag(noise), cov[:8, 8:]).T
    close(PLAIN.condition(split).predict(x).mean, mean[8:] + gain @ (y - mean[:8]))
    close(PLAIN.condition(split).marginal(x).variance, np.diag(cov[8:, 8:] - gain @ cov[:8, 8:]))


def test_tiny_noise_is_handled_and_none_is_an_error_that_says_so() -> None:
    data = rows(10)
    twice = data + data
    tiny = replace(PLAIN, noise_var=F64 + 1e-10).condition(twice)
    close(tiny.predict(data.x).mean, data.y, 1e-6)
    assert (tiny.marginal(data.x).variance > 0).all()
    assert tiny.sample(3, generator=seed(0))(data.x).isfinite().all()
    with pytest.raises(ValueError, match=r"covariance of rows plus noise_var is not positive definite .*; add jitter"):
        replace(PLAIN, noise_var=F64 + 1e-18).condition(twice)
    with pytest.raises(ValueError, match=r"plus noise_var of task 1 is not positive definite"):
        replace(PLAIN, noise_var=F64 + 1e-18).condition(Data.pad([(data.x, data.y), (twice.x, twice.y)]))


@pytest.mark.parametrize("prior", [PLAIN, FULL], ids=["plain", "full"])
def test_float32_stays_float32(prior: GaussianProcess) -> None:
    small, data, x = prior.to(torch.float32), rows(20), inputs(5, number=5)
    few = data.to(torch.float32)
    posterior = small.condition(few.rows(slice(0, 12))).condition(few.rows(slice(12, 20)))
    for got, expected in (
        (posterior.predict(x.float()).mean, prior.condition(data).predict(x).mean),
        (posterior.joint(x.float()).covariance_matrix, prior.condition(data).joint(x).covariance_matrix),
        (small.log_evidence(few), prior.log_evidence(data)),
    ):
        assert got.dtype == torch.float32
        close(got.double(), expected, 1e-4)
    assert posterior.sample(2, generator=seed(0))(x.float()).dtype == torch.float32
    # a posterior moves as a whole: rows, factor and all
    same(posterior.to(torch.float64), prior.condition(data), x, 1e-4)


def test_rows_of_another_dtype_take_that_of_the_prior() -> None:
    data, x = rows(6), inputs(3, number=5)
    prediction = FULL.condition(data.to(torch.float32)).predict(x)
    assert prediction.mean.dtype == torch.float64
    close(prediction.mean, FULL.condition(data).predict(x).mean, 1e-5)


def test_draws_have_the_mean_and_covariance_of_the_joint() -> None:
    tasks, x, num_draws = Data.pad([(d.x, d.y) for d in (rows(5), rows(2, 3))]), inputs(4, number=5), 4000
    for posterior in (FULL, FULL.condition(tasks)):
        f, joint = posterior.sample(num_draws, generator=seed(1))(x), posterior.joint(x)
        assert ((f.mean(0) - joint.mean).abs() < 5 * f.std(0) / num_draws**0.5).all()
        centred = f - joint.mean
        products = centred[..., :, None] * centred[..., None, :]
        error = products.std(0) / num_draws**0.5
        assert ((products.mean(0) - joint.covariance_matrix).abs() < 5 * error).all()


def test_a_draw_goes_through_rows_without_noise() -> None:
    data = rows(15)
    f = replace(FULL, noise_var=F64 + 1e-9).condition(data).sample(4, generator=seed(0))
    close(f(data.x), data.y.expand(4, -1), 1e-3)
    close(f.predict(data.x).variance, FULL.scale**2 * 1e-9, 1e-12)
    assert f(inputs(20, number=9)).std(0).min() > 0.01, "away from rows draws differ"


def test_draws_refuse_tasks_that_the_process_does_not_have() -> None:
    f = FULL.sample(5, generator=seed(0))
    with pytest.raises(ValueError, match=r"batch_shape \(\) before rows; got \(5, 2, 3\). Join tasks and rows"):
        f(inputs(5, 2))
    assert FULL.condition(rows(3).expand((4,))).sample(5, generator=seed(0))(inputs(4, 2)).shape == (5, 4, 2)


@pytest.mark.slow
@pytest.mark.parametrize("prior", [PLAIN, FULL], ids=["plain", "full"])
def test_calibration(prior: GaussianProcess) -> None:
    ranks = sbc_ranks(prior, inputs(3), num_tasks=1000, num_draws=19, generator=seed(0))
    for each in ranks.T:
        assert scipy.stats.chisquare(np.bincount(each, minlength=20)).pvalue > 1e-6


def test_initial_takes_the_scale_of_the_tasks() -> None:
    tasks = Data.pad([([[0.0, 5.0], [4.0, 5.0]], [1.0, 3.0]), ([[2.0, 5.0]], [5.0])])
    prior = GaussianProcess.initial(tasks)
    assert prior.lengthscale.tolist() == [2.0, 0.5], "half the range, and one where there is none"
    assert prior.constant.item() == 3.0
    assert prior.outputscale.item() == pytest.approx(8 / 3)
    assert prior.noise_var.item() == pytest.approx(8 / 30)
    with pytest.raises(ValueError, match="needs at least one row to know the scale of y; got none"):
        GaussianProcess.initial(Data.pad([(torch.zeros(0, 2), torch.zeros(0))]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"lengthscale": torch.tensor([0.3, 0.0, 1.0]).double()},
            "lengthscale must be finite and above zero; got 0 at 1",
        ),
        ({"noise_var": F64 * 0}, "noise_var must be finite and above zero; got 0"),
        ({"outputscale": F64 + torch.nan}, "outputscale must be finite and above zero; got nan"),
        ({"scale": F64 - 1}, "scale must be finite and above zero; got -1"),
        ({"constant": F64 + torch.inf}, "constant must be finite; got inf"),
        ({"constant_var": F64 - 0.5}, "constant_var must not be negative; got -0.5"),
        ({"past_var": F64 - 0.5}, "past_var must not be negative; got -0.5"),
        ({"lengthscale": LENGTHSCALE[:2]}, r"past must be of 2 inputs, .*; got points of shape \(5, 3\)"),
    ],
)
def test_bad_parameters(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(FULL, **change)


def test_bad_rows() -> None:
    with pytest.raises(ValueError, match="x must have 3 columns; got 2"):
        FULL.condition(Data.of(inputs(4)[:, :2], torch.zeros(4).double()))
    with pytest.raises(ValueError, match="y must hold one number per row"):
        FULL.log_evidence(Data.of(inputs(4), torch.zeros(4, 2).double(), event_dim=1))
