"""Logits of beta and logarithms of gamma variables, against arithmetic of 60 digits over ten decades of shapes."""

import mpmath
import pytest
import torch
from torch import Tensor

from bayesmeta.distributions.link_marginals import LogGamma, LogInverseGamma, LogitBeta, on_link
from bayesmeta.distributions.marginals import BetaMarginal, GammaMarginal, InverseGammaMarginal

SHAPES = [1e-5, 1e-2, 0.4, 1.0, 30.0, 1e5]
LEVELS = [1e-9, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-6]


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def exact_beta_cdf(t: float, a: float, b: float) -> mpmath.mpf:
    with mpmath.workdps(60):
        x, rest = 1 / (1 + mpmath.exp(-mpmath.mpf(t))), 1 / (1 + mpmath.exp(mpmath.mpf(t)))
        if x < mpmath.mpf(10) ** -50:  # mpmath's series of a number as small is slow, and its first term exact
            return mpmath.exp(a * mpmath.log(x)) / (a * mpmath.beta(a, b))
        if rest < mpmath.mpf(10) ** -50:
            return 1 - mpmath.exp(b * mpmath.log(rest)) / (b * mpmath.beta(a, b))
        return mpmath.betainc(a, b, 0, x, regularized=True)


def exact_gamma_cdf(t: float, a: float) -> mpmath.mpf:
    with mpmath.workdps(60):
        return mpmath.gammainc(a, 0, mpmath.exp(mpmath.mpf(t)), regularized=True)


@pytest.mark.parametrize("a", SHAPES)
@pytest.mark.parametrize("b", SHAPES)
def test_logits_of_beta_variables(a: float, b: float) -> None:
    line = LogitBeta(number(a), number(b))
    for level in LEVELS:
        t = line.icdf(number(level))
        assert t.isfinite()
        assert line.cdf(t).item() == pytest.approx(level, rel=1e-6, abs=1e-12)
    t = line.icdf(number(0.3)).item()
    if max(a, b) < 1e3:
        assert line.cdf(number(t)).item() == pytest.approx(float(exact_beta_cdf(t, a, b)), rel=1e-9)
    # the density is the slope of F, from the same numbers by differences
    step = 1e-4 * float(line.icdf(number(0.6)) - line.icdf(number(0.4)))
    slope = (line.cdf(number(t + step)) - line.cdf(number(t - step))) / (2 * step)
    assert line.log_prob(number(t)).exp().item() == pytest.approx(slope.item(), rel=1e-4)


@pytest.mark.parametrize("a", SHAPES)
@pytest.mark.parametrize("rate", [1e-3, 1.0, 1e6])
def test_logarithms_of_gamma_variables(a: float, rate: float) -> None:
    line, inverse = LogGamma(number(a), number(rate)), LogInverseGamma(number(a), number(rate))
    for level in LEVELS:
        t = line.icdf(number(level))
        assert line.cdf(t).item() == pytest.approx(level, rel=1e-6, abs=1e-12)
        assert inverse.cdf(inverse.icdf(number(level))).item() == pytest.approx(level, rel=1e-6, abs=1e-12)
        # 1 / G of rate r is that of G / r
        up = inverse.icdf(number(1.0 - level))
        if level > 1e-3:
            torch.testing.assert_close(
                up, torch.log(number(rate)) - LogGamma(number(a), number(1.0)).icdf(number(level))
            )
    t = line.icdf(number(0.3)).item()
    if a < 1e3:
        exact = exact_gamma_cdf(t + float(mpmath.log(rate)), a)
        assert line.cdf(number(t)).item() == pytest.approx(float(exact), rel=1e-9)
    torch.testing.assert_close(line.log_prob(number(t)), inverse_density(line, t))


def inverse_density(line: LogGamma, t: float) -> Tensor:
    """By torch's gamma density, and the Jacobian of the exponential; where that does not underflow."""
    if t < -600:
        return line.log_prob(number(t))
    gamma = torch.distributions.Gamma(line.concentration, line.rate)
    return gamma.log_prob(number(t).exp()) + t


def test_marginals_have_their_line() -> None:
    a, b = torch.tensor([0.5, 3.0]).double(), torch.tensor([2.0, 0.1]).double()
    x = torch.tensor([0.3, 0.9]).double()
    for marginal, to_line in (
        (BetaMarginal(a, b), torch.logit),
        (GammaMarginal(a, b), torch.log),
        (InverseGammaMarginal(a, b), torch.log),
    ):
        torch.testing.assert_close(on_link(marginal).cdf(to_line(x)), marginal.cdf(x))
        torch.testing.assert_close(on_link(marginal).icdf(x), to_line(marginal.icdf(x)))
        slope = x * (1 - x) if to_line is torch.logit else x  # of the number, by its link
        torch.testing.assert_close(on_link(marginal).log_prob(to_line(x)), marginal.log_prob(x) + slope.log())


@pytest.mark.parametrize("kind", [LogitBeta, LogGamma, LogInverseGamma])
def test_slopes_are_those_of_the_log_density(kind: type[LogitBeta | LogGamma]) -> None:
    for a in SHAPES[1:5]:
        for b in SHAPES[1:5]:
            line = kind(number(a), number(b))
            t = line.icdf(torch.tensor([0.01, 0.4, 0.9]).double())
            step = 1e-5 * (1.0 + t.abs())
            slope = (line.log_prob(t + step) - line.log_prob(t - step)) / (2.0 * step)
            found = torch.from_numpy(kind._slope(t.numpy(), a, b))
            torch.testing.assert_close(found, slope, rtol=1e-5, atol=1e-6 * max(a, b))
