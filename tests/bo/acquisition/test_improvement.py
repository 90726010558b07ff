"""Expected improvement against quadrature, by another author's code."""

import math

import mpmath
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import Gamma, Normal

from bayesmeta.distributions.mixture import MixtureDistribution
from bo import expected_improvement
from bo.acquisition.improvement import log_expected_improvement
from tests.seeds import shifted

LOC = torch.tensor([[-1.0, 0.2, 3.0], [0.5, 0.4, -2.0]], dtype=torch.float64)
SD = torch.tensor([[0.5, 1.5, 0.1], [2.0, 0.7, 1.0]], dtype=torch.float64)
BEST = 0.3


def by_quadrature(loc: float, sd: float, best: float, maximize: bool) -> float:
    def gain(f: float) -> float:
        return max(f - best if maximize else best - f, 0.0) * stats.norm(loc, sd).pdf(f)

    value, _ = integrate.quad(gain, loc - 12 * sd, loc + 12 * sd, points=[best, loc], epsabs=1e-13, limit=200)
    return value


@pytest.mark.parametrize("maximize", [True, False])
def test_of_a_normal(maximize: bool) -> None:
    value = expected_improvement(Normal(LOC, SD), BEST, maximize=maximize)
    pairs = zip(LOC.flatten().tolist(), SD.flatten().tolist(), strict=True)
    expected = torch.tensor([by_quadrature(m, s, BEST, maximize) for m, s in pairs], dtype=torch.float64)
    torch.testing.assert_close(value, expected.reshape(LOC.shape), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("maximize", [True, False])
def test_of_a_mixture_is_the_weighted_mean(maximize: bool) -> None:
    weights = torch.tensor([[0.3], [0.7]], dtype=torch.float64)
    mixture = MixtureDistribution(weights.log(), Normal(LOC, SD), -2)
    each = expected_improvement(Normal(LOC, SD), BEST, maximize=maximize)
    torch.testing.assert_close(expected_improvement(mixture, BEST, maximize=maximize), (weights * each).sum(0))


@pytest.mark.parametrize("maximize", [True, False])
def test_of_mixtures_within_a_mixture(maximize: bool) -> None:
    inner = torch.tensor([[[0.2], [0.8]], [[0.5], [0.5]]], dtype=torch.float64)  # (outer, inner, row)
    outer = torch.tensor([[0.6], [0.4]], dtype=torch.float64)
    components = Normal(torch.stack([LOC, LOC + 1]), torch.stack([SD, SD / 2]))
    nested = MixtureDistribution(outer.log(), MixtureDistribution(inner.log(), components, -2), -2)
    value = expected_improvement(nested, BEST, maximize=maximize)
    each = expected_improvement(components, BEST, maximize=maximize)
    torch.testing.assert_close(value, (outer * (inner * each).sum(1)).sum(0))
    # and by Monte Carlo, within five standard errors
    with torch.random.fork_rng():
        torch.manual_seed(shifted(0))
        draws = nested.sample(torch.Size([20_000]))
    gain = (draws - BEST if maximize else BEST - draws).clamp(min=0.0)
    assert ((gain.mean(0) - value).abs() < 5 * gain.std(0) / 20_000**0.5).all()


def test_other_distributions_are_refused() -> None:
    with pytest.raises(TypeError, match="normal or a mixture of normals; got Gamma"):
        expected_improvement(Gamma(torch.ones(2), torch.ones(2)), 0.0)


@pytest.mark.parametrize("u", [-1e5, -2e3, -1e3, -300.0, -40.0, -5.0, -1.01, -0.99, 0.0, 2.0, 30.0])
def test_log_expected_improvement_where_the_improvement_itself_is_lost(u: float) -> None:
    scale = torch.tensor(0.3, dtype=torch.float64)
    value = log_expected_improvement(Normal(scale * u, scale), 0.0).item()
    with mpmath.workdps(60):
        z = mpmath.mpf(u)
        exact = mpmath.log(mpmath.mpf(0.3) * (mpmath.npdf(z) + z * mpmath.ncdf(z))) if abs(u) < 4e3 else None
    if exact is None:  # the leading terms of the tail
        exact = math.log(0.3) - 0.5 * u**2 - 0.5 * math.log(2.0 * math.pi) - 2.0 * math.log(-u)
    assert value == pytest.approx(float(exact), rel=1e-9, abs=1e-9)
