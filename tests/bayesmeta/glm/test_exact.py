import pytest
import torch
from torch import Tensor

from bayesmeta import Data, LogisticGaussian, PoissonGaussian
from bayesmeta.glm.model import Regression
from bayesmeta.glm.targets import RegressionTargets
from bayesmeta.mcmc.targets import curvatures
from tests.seeds import seed

FAMILIES = [LogisticGaussian, PoissonGaussian]


def prior(family: type[Regression], d: int, scale: float = 1.0) -> Regression:
    return family(torch.zeros(d).double(), torch.eye(d).double() / scale**2)


def rows(family: type[Regression], tasks: int, n: int, d: int) -> Data:
    g = seed(0)
    x = torch.randn(tasks, n, d, generator=g, dtype=torch.float64)
    x[..., 0] = 1.0
    w = torch.randn(tasks, d, generator=g, dtype=torch.float64)
    eta = (x @ (0.5 * w)[..., None])[..., 0]
    u = torch.rand(eta.shape, generator=g, dtype=torch.float64)
    y = (u < eta.sigmoid()).double() if family is LogisticGaussian else torch.poisson(eta.exp(), generator=g)
    mask = torch.arange(n) < torch.arange(n - tasks, n)[:, None]  # ragged
    return Data(x, y, mask)


def grid_posterior(posterior: Regression) -> tuple[Tensor, Tensor]:
    """Points of two weights, and the probabilities of a posterior there `(points, T)`."""
    axis = torch.linspace(-9.0, 6.0, 400, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    log_prob = posterior.log_prob(points[:, None].expand(-1, *posterior.batch_shape, 2))
    return points, log_prob.softmax(0)


@pytest.mark.parametrize("family", FAMILIES)
def test_densities_and_derivatives(family: type[Regression]) -> None:
    data = rows(family, 3, 30, 4)
    posterior = prior(family, 4).condition(data)
    targets = RegressionTargets.of(posterior.as_tasks())
    w = torch.randn(5, 3, 4, generator=seed(1), dtype=torch.float64)
    exact = posterior.log_prob(w)
    found = targets.log_density(w)
    torch.testing.assert_close(found - found[:1], exact - exact[:1], rtol=0, atol=1e-9)
    assert targets[torch.tensor([2, 0])].log_density(w[:, [2, 0]]).equal(found[:, [2, 0]])
    for one, other in zip(targets.derivatives(w), curvatures(targets.log_density, w), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_predictors_beyond_the_floats() -> None:
    """A product of twenty exponentials overflows where predictors are wrong by hundreds."""
    data = rows(LogisticGaussian, 2, 60, 2)
    targets = RegressionTargets.of(prior(LogisticGaussian, 2).condition(data).as_tasks())
    w = torch.full((1, 2, 2), 200.0, dtype=torch.float64)
    expected = targets.derivatives(w)[0]
    torch.testing.assert_close(targets.log_density(w), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_are_those_of_quadrature(family: type[Regression]) -> None:
    """Few zeros: a posterior that is skew."""
    x = torch.tensor([1.0, 0.5]).double().expand(2, 3, 2)
    data = Data(x, torch.zeros(2, 3).double(), torch.ones(2, 3, dtype=torch.bool))
    posterior = prior(family, 2, 2.0).condition(data)
    found = posterior.exact(num_draws=2000, generator=seed(2))
    assert bool(found.draws.passed.all())
    points, probs = grid_posterior(posterior)
    mean = probs.mT @ points
    sd = (probs.mT @ points.square() - mean.square()).sqrt()
    error = sd / found.draws.ess_bulk.sqrt()
    assert bool(((found.weights.mean(0) - mean).abs() < 5.0 * error).all())

    x = torch.tensor([[1.0, -1.0], [0.3, 0.2]]).double().expand(2, 2, 2)
    eta = torch.einsum("tqd,pd->ptq", x, points)
    value = eta.sigmoid() if family is LogisticGaussian else eta.exp()
    exact = (probs[..., None] * value).sum(0)
    spread = ((probs[..., None] * value.square()).sum(0) - exact.square()).sqrt()
    close = 6.0 * spread / found.draws.ess_bulk.amin().sqrt()
    assert bool(((found.predict(x).mean - exact).abs() < close).all())
    assert bool(((found.marginal(x).mean - exact).abs() < close).all())
    assert bool(((found.sample(4000, generator=seed(3))(x).mean(0) - exact).abs() < 2.0 * close).all())


def test_probabilities_of_counts_add_up() -> None:
    data = rows(PoissonGaussian, 2, 8, 2)
    found = prior(PoissonGaussian, 2).condition(data).exact(num_draws=200, generator=seed(4))
    x = torch.ones(2, 1, 2).double()
    counts = torch.arange(400.0).double().reshape(-1, 1, 1).expand(400, 2, 1)
    prediction = found.predict(x)
    probs = prediction.log_prob(counts).exp()
    torch.testing.assert_close(probs.sum(0), torch.ones(2, 1).double(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close((probs * counts).sum(0), prediction.mean, rtol=1e-3, atol=1e-3)


def test_evidence_is_that_of_quadrature() -> None:
    data = rows(LogisticGaussian, 3, 25, 2)
    fresh = prior(LogisticGaussian, 2)
    found = fresh.condition(data).exact(generator=seed(5)).draws
    error = found.log_evidence - fresh.log_evidence(data)
    assert bool((error.abs() < 5.0 * found.log_evidence_error + 1e-4).all())


def test_weights_that_tasks_share_are_in_the_draws() -> None:
    data = rows(LogisticGaussian, 4, 20, 3)
    learned = LogisticGaussian.initial(data, shared=[1]).fit(data)
    found = learned.condition(data).exact(num_draws=100, generator=seed(6))
    assert found.weights.shape == (400, 4, 3)


def test_more_rows_and_no_rows() -> None:
    data = rows(LogisticGaussian, 2, 20, 2)
    fresh = prior(LogisticGaussian, 2).expand((2,))
    nothing = fresh.exact(num_draws=500, generator=seed(7))
    assert bool((nothing.weights.mean(0).abs() < 5.0 / nothing.draws.ess_bulk.sqrt()).all())
    found = fresh.condition(data).exact(num_draws=500, generator=seed(8)).condition(data, generator=seed(9))
    twice = fresh.condition(data).condition(data).exact(num_draws=500, generator=seed(10))
    sd = twice.weights.std(0)
    error = sd * (1.0 / found.draws.ess_bulk + 1.0 / twice.draws.ess_bulk).sqrt()
    assert bool(((found.weights.mean(0) - twice.weights.mean(0)).abs() < 5.0 * error).all())
