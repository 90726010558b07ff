"""The loss of the plain Gaussian process is scipy's, its gradient that of finite differences, its mode flat."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from bayesmeta.gp.covariance import matern52 as torch_matern52
from bo.single_study import mode as module
from bo.single_study.mode import Correlation, find_mode, matern52_and_slope, rbf_and_slope
from tests.seeds import shifted

RNG = np.random.default_rng(shifted(0))
X = RNG.uniform(size=(12, 3))
Y = np.sin(5.0 * X[:, 0]) + X[:, 1] + 0.1 * RNG.normal(size=12)
Y = (Y - Y.mean()) / Y.std()
SQUARES = np.square(X[:, None] - X[None]).reshape(-1, 3)
PRIORS = ((0.3, 1.2), (-4.0, 1.0))
POINT = np.array([0.4, 0.9, 2.0, 0.03, 0.2])


@pytest.mark.parametrize("correlation", [rbf_and_slope, matern52_and_slope])
def test_loss_is_that_of_scipy(correlation: Correlation) -> None:
    loss, _ = module._loss(POINT, SQUARES, Y, correlation, PRIORS)
    kernel = correlation(SQUARES @ POINT[:3] ** -2)[0].reshape(12, 12)
    evidence = scipy.stats.multivariate_normal(np.full(12, POINT[4]), kernel + POINT[3] * np.eye(12)).logpdf(Y)
    hyperprior = scipy.stats.lognorm(s=1.2, scale=np.exp(0.3)).logpdf(POINT[:3]).sum()
    hyperprior += scipy.stats.lognorm(s=1.0, scale=np.exp(-4.0)).logpdf(POINT[3])
    assert loss == pytest.approx(-(evidence + hyperprior) / 12, rel=1e-10)


@pytest.mark.parametrize("correlation", [rbf_and_slope, matern52_and_slope])
def test_gradient_is_that_of_differences(correlation: Correlation) -> None:
    problem = (SQUARES, Y, correlation, PRIORS)
    for loss, point in ((module._loss, POINT), (module._loss_of_logarithms, np.append(np.log(POINT[:4]), POINT[4]))):
        numeric = scipy.optimize.approx_fprime(point, lambda v, f=loss: f(v, *problem)[0], 1e-7)
        np.testing.assert_allclose(loss(point, *problem)[1], numeric, rtol=1e-4, atol=1e-5)


def test_matern_is_the_one_of_past_functions() -> None:
    import torch

    x = torch.from_numpy(X)
    expected = torch_matern52(x, x, torch.from_numpy(POINT[:3]))
    np.testing.assert_allclose(
        matern52_and_slope(SQUARES @ POINT[:3] ** -2)[0].reshape(12, 12), expected.numpy(), rtol=1e-12
    )


@pytest.mark.parametrize("correlation", [rbf_and_slope, matern52_and_slope])
def test_a_thorough_search_is_no_worse(correlation: Correlation) -> None:
    def loss(thorough: bool) -> float:
        found = find_mode(X, Y, correlation, thorough=thorough)
        vector = np.array([*found.lengthscale, found.noise_var, found.constant])
        loc = np.sqrt(2.0) + 0.5 * np.log(3)
        return module._loss(vector, SQUARES, Y, correlation, ((loc, np.sqrt(3.0)), (-4.0, 1.0)))[0]

    assert loss(True) <= loss(False) + 1e-9


def test_rows_that_are_all_equal() -> None:
    found = find_mode(X, np.zeros(12), matern52_and_slope)
    assert np.isfinite([*found.lengthscale, found.noise_var]).all()
    assert found.constant == pytest.approx(0.0, abs=1e-6)
