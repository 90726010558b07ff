"""Normal with known variance: its maths against scipy, the eight schools, its bad input."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from bayesmeta import Data, Hyperposterior, NormalKnownVariance, Statistics
from bayesmeta.random import randn
from bayesmeta.warning_kinds import LimitWarning
from tests.families import F64, seed

LOC, VAR, NOISE = 0.5, 2.0, 0.7
PRIOR = NormalKnownVariance(F64 + LOC, F64 + VAR, F64 + NOISE)
Y = torch.tensor([1.0, -0.5, 3.0, 2.0], dtype=torch.float64)
V = torch.tensor([0.1, 4.0, 1.0, 0.3], dtype=torch.float64)

# Rubin (1981): estimated effects of coaching and their standard errors
EFFECT = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0], dtype=torch.float64)
ERROR = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0], dtype=torch.float64)
SCHOOLS = Data.of(ERROR.square()[:, None, None], EFFECT[:, None])


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("own", [False, True])
def test_evidence_and_posterior_match_one_normal(own: bool, offset: float) -> None:
    v = V if own else torch.full_like(V, NOISE)
    data = Data.of(V[:, None] if own else None, Y + offset)
    prior = NormalKnownVariance(F64 + LOC + offset, F64 + VAR, F64 + NOISE)
    cov = np.diag(v.numpy()) + VAR
    expected = scipy.stats.multivariate_normal(np.full(4, LOC), cov).logpdf(Y.numpy())
    assert prior.log_evidence(data).item() == pytest.approx(expected, rel=1e-10)
    gain = np.linalg.solve(cov, np.full(4, VAR))
    posterior = prior.condition(data)
    assert posterior.loc.item() - offset == pytest.approx(LOC + gain @ (Y.numpy() - LOC), rel=1e-9)
    assert posterior.var.item() == pytest.approx(VAR - gain.sum() * VAR, rel=1e-10)
    predicted = posterior.predict(V[:, None] if own else None)
    row = 1 if own else 0
    assert predicted.variance[row].item() == pytest.approx(posterior.var.item() + v[row].item())


def test_density_is_normal() -> None:
    params = torch.tensor([0.3], dtype=torch.float64)
    expected = scipy.stats.norm(LOC, math.sqrt(VAR)).logpdf(0.3)
    assert PRIOR.log_prob(params).item() == pytest.approx(expected, rel=1e-12)


def test_statistics_stand_for_rows() -> None:
    data = Data.pad([(None, Y), (None, Y[:1])])
    torch.testing.assert_close(PRIOR.log_evidence(data), PRIOR.log_evidence(Statistics.of(data)))
    torch.testing.assert_close(PRIOR.condition(data).loc, PRIOR.condition(Statistics.of(data)).loc)


def test_plain_empirical_bayes_sees_no_difference_between_the_schools() -> None:
    """The greatest evidence of the eight schools is at no difference at all: BDA3, section 5.5."""
    with pytest.warns(LimitWarning, match="log_var ended at its limit"):
        plain = NormalKnownVariance.initial(SCHOOLS).fit(SCHOOLS, hyperprior_weight=0.0)
    assert plain.var.item() < 1e-6
    assert plain.loc.item() == pytest.approx(7.686, abs=1e-3)  # the mean weighted by precision
    learned = NormalKnownVariance.initial(SCHOOLS).fit(SCHOOLS)
    assert 1.0 < learned.var.item() ** 0.5 < 20.0


def test_the_hyperposterior_of_the_schools_agrees_with_quadrature() -> None:
    initial = NormalKnownVariance.initial(SCHOOLS)
    hyper = Hyperposterior.fit(initial, SCHOOLS, num_draws=8000, generator=seed(0))
    unknown = hyper.unknown
    grid = torch.stack(
        torch.meshgrid(torch.linspace(-4, 4, 161), torch.linspace(-9, 7, 321), indexing="ij"), -1
    ).double()
    density = unknown.log_density(grid)
    weights = (density - density.max()).exp()
    posterior = unknown.build(grid[..., None, :]).condition(SCHOOLS)
    exact = (weights[..., None] * posterior.loc).sum((0, 1)) / weights.sum()
    found = hyper.unknown.build(hyper.draws[:, None]).condition(SCHOOLS).loc
    share = hyper.log_weights.exp()
    mean = share @ found
    error = (share.square()[:, None] * (found - mean).square()).sum(0).sqrt()
    assert ((mean - exact).abs() < 5 * error).all()
    assert (error < 0.2).all()


def test_fit_recovers_known_hyperparameters() -> None:
    v = 0.2 + randn((2000, 3), like=F64, generator=seed(1)).square()
    mean = 3.0 + 2.0 * randn((2000, 1), like=F64, generator=seed(2))
    tasks = Data.of(v[..., None], mean + v.sqrt() * randn((2000, 3), like=F64, generator=seed(3)))
    fitted = NormalKnownVariance.initial(tasks).fit(tasks)
    assert (fitted.loc.item(), fitted.var.item()) == pytest.approx((3.0, 4.0), rel=0.1)


def test_extremes_are_finite() -> None:
    for dtype, big in ((torch.float32, 1e30), (torch.float64, 1e150)):
        for var in (1.0 / big, 1.0, big):
            for noise in (1.0 / big, big):
                prior = NormalKnownVariance(F64.to(dtype), F64.to(dtype) + var, F64.to(dtype) + noise)
                data = Data.of(None, torch.tensor([1.0, 2.0], dtype=dtype))
                assert prior.condition(data).loc.isfinite()
                assert prior.condition(data).var.isfinite()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data.of(torch.tensor([[1.0], [0.0]]), torch.ones(2)), "variances, the column of x.*in row 1 with value 0"),
        (Data.of(torch.ones(2, 2), torch.ones(2)), "x must have one column, the variance of each row, or none; got 2"),
        (Statistics.of(SCHOOLS), "got 1 in statistics, which do not know single rows: give Data"),
    ],
)
def test_wrong_rows_are_refused(data: Data | Statistics, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PRIOR.condition(data)


def test_wrong_hyperparameters_and_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="var must be finite and above zero; got -1"):
        NormalKnownVariance(F64, F64 - 1, F64 + 1)
    with pytest.raises(ValueError, match="x must have one column of variances above zero"):
        PRIOR.predict(torch.zeros(2, 1))
    with pytest.raises(ValueError, match="at least two tasks with rows, on one axis; got 1"):
        PRIOR.fit(Data.of(None, Y))
