"""A density in steps with normal tails, against SciPy's quadrature and against itself."""

import math
from itertools import pairwise

import pytest
import scipy.stats
import torch
from scipy import integrate

from bayesmeta.distributions.histogram import Histogram
from bayesmeta.random import randn, seeded
from tests.families import F64, seed

EDGES = torch.tensor([-1.0, -0.2, 0.1, 2.0], dtype=torch.float64)


def histogram() -> Histogram:
    return Histogram(randn((5,), like=F64, generator=seed(1)).log_softmax(-1), EDGES, F64 + 0.7)


def density(value: float) -> float:
    return math.exp(float(histogram().log_prob(F64 + value)))


def integral(function) -> float:
    pieces = [-math.inf, *EDGES.tolist(), math.inf]
    return math.fsum(integrate.quad(function, low, high, epsabs=1e-13)[0] for low, high in pairwise(pieces))


def test_density_mean_and_variance_by_quadrature() -> None:
    found = histogram()
    assert integral(density) == pytest.approx(1.0, abs=1e-10)
    mean = integral(lambda y: y * density(y))
    assert float(found.mean) == pytest.approx(mean, abs=1e-10)
    assert float(found.variance) == pytest.approx(integral(lambda y: (y - mean) ** 2 * density(y)), abs=1e-10)


@pytest.mark.parametrize("value", [-3.0, -1.0, -0.5, 0.0, 0.1, 1.9, 2.0, 4.0])
def test_distribution_function_and_quantiles(value: float) -> None:
    found, y = histogram(), F64 + value
    points = [edge for edge in EDGES.tolist() if edge < value]
    pieces = [-math.inf, *points, value]
    mass = math.fsum(integrate.quad(density, low, high, epsabs=1e-13)[0] for low, high in pairwise(pieces))
    assert float(found.cdf(y)) == pytest.approx(mass, abs=1e-10)
    assert float(found.icdf(found.cdf(y))) == pytest.approx(value, abs=1e-9)


def test_draws_are_of_the_density() -> None:
    found = histogram()
    with seeded(seed(2)):
        draws = found.sample((20_000,))
    assert scipy.stats.kstest(draws.numpy(), lambda y: found.cdf(torch.as_tensor(y)).numpy()).pvalue > 1e-6


def test_a_batch_equals_a_loop() -> None:
    log_mass = randn((3, 2, 5), like=F64, generator=seed(3)).log_softmax(-1)
    y = randn((3, 2), like=F64, generator=seed(4))
    batch = Histogram(log_mass, EDGES, F64 + 0.7)
    for name in ("log_prob", "cdf"):
        each = [
            [float(getattr(Histogram(m, EDGES, F64 + 0.7), name)(v)) for m, v in zip(*row, strict=True)]
            for row in zip(log_mass, y, strict=True)
        ]
        torch.testing.assert_close(getattr(batch, name)(y), torch.tensor(each, dtype=torch.float64))
    assert batch.mean.shape == batch.variance.shape == (3, 2)
