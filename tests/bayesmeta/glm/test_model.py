"""Logistic and Poisson regression: quadratures by scipy, Laplace against the truth, its error stated, bad input."""

import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayesmeta import (
    Data,
    Hyperposterior,
    LogisticGaussian,
    Mixture,
    PoissonExposureGaussian,
    PoissonGaussian,
    Statistics,
)
from bayesmeta.data.columns import Columns
from bayesmeta.distributions.poisson_log_normal import PoissonLogNormal
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.numerics.quadrature import log_mean_sigmoid
from bayesmeta.random import rand, randn, seeded
from bayesmeta.warning_kinds import LimitWarning
from tests.families import F64, seed

LOC = torch.tensor([0.5, -0.3], dtype=torch.float64)
PRECISION = torch.tensor([[1.5, 0.4], [0.4, 0.8]], dtype=torch.float64)
LOGISTIC, POISSON = LogisticGaussian(LOC, PRECISION), PoissonGaussian(LOC, PRECISION)
both = pytest.mark.parametrize("prior", [LOGISTIC, POISSON], ids=["logistic", "poisson"])


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def simulate(prior: Any, num_tasks: int, num_rows: int, start: int = 0) -> Data:
    """The last column is the intercept."""
    d = prior.loc.shape[-1]
    x = randn((num_tasks, num_rows, d), like=F64, generator=seed(start))
    x[..., -1] = 1.0
    eta = (x @ prior.sample_params(num_tasks, generator=seed(start + 1))[..., None])[..., 0]
    mean = eta.sigmoid() if isinstance(prior, LogisticGaussian) else eta.exp()
    if isinstance(prior, LogisticGaussian):
        return Data.of(x, (rand(mean.shape, like=F64, generator=seed(start + 2)) < mean).double())
    return Data.of(x, torch.poisson(mean, generator=seed(start + 2)))


def log_likelihood(prior: Any, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of weights `(..., d)`."""
    eta = weights @ x.T
    if isinstance(prior, LogisticGaussian):
        return (y * eta - np.logaddexp(0.0, eta)).sum(-1)
    return (y * eta - np.exp(eta) - scipy.special.gammaln(y + 1.0)).sum(-1)  # scipy.stats checks each of many points


def exact_log_evidence(prior: Any, data: Data, num_points: int = 481, posterior: Any = None) -> float:
    """By an even grid over 12 standard deviations about the mode, in one or two dimensions."""
    x, y, d = data.x.numpy(), data.y.numpy(), prior.loc.shape[-1]
    posterior = posterior or prior.condition(data)
    root = np.linalg.inv(np.linalg.cholesky(posterior.precision.numpy())).T
    points = np.linspace(-12, 12, num_points)
    grid = np.stack(np.meshgrid(*[points] * d), -1).reshape(-1, d) @ root.T + posterior.loc.numpy()
    cov = np.linalg.inv(prior.precision.numpy())
    log_density = log_likelihood(prior, x, y, grid) + scipy.stats.multivariate_normal(prior.loc, cov).logpdf(grid)
    volume = (points[1] - points[0]) ** d * abs(np.linalg.det(root))
    return float(scipy.special.logsumexp(log_density) + math.log(volume))


# the one-dimensional integrals


@pytest.mark.parametrize("loc", [-30.0, -5.0, -1.0, 0.0, 0.3, 4.0, 20.0])
@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 1.01, 2.0, 5.0, 30.0, 1000.0])
def test_the_mean_of_a_sigmoid_matches_scipy(loc: float, scale: float) -> None:
    steps = [k for k in (-40.0, -10.0, -3.0, 0.0, 3.0, 10.0, 40.0) if abs(k - loc) < 10 * scale]
    ends = sorted([loc + k * scale for k in (-10, -3, 0, 3, 10)] + steps)
    integrand = lambda t: scipy.special.expit(t) * scipy.stats.norm.pdf(t, loc, scale)  # noqa: E731
    pieces = [scipy.integrate.quad(integrand, a, b, epsabs=1e-15, epsrel=1e-13)[0] for a, b in pairwise(ends)]
    assert log_mean_sigmoid(number(loc), number(scale)).exp().item() == pytest.approx(sum(pieces), rel=1e-10, abs=1e-13)


def test_the_mean_of_a_sigmoid_has_its_limits() -> None:
    loc = torch.tensor([-800.0, -60.0, 0.0, 60.0, 1e6], dtype=torch.float64)
    narrow = log_mean_sigmoid(loc, torch.full_like(loc, 1e-300))
    torch.testing.assert_close(narrow, torch.nn.functional.logsigmoid(loc), rtol=1e-13, atol=1e-13)
    # where the sigmoid is an exponential, so is the mean
    for scale in (1e-8, 0.5, 1.0, 2.0, 3.0):
        got = log_mean_sigmoid(loc[:2], torch.full_like(loc[:2], scale))
        torch.testing.assert_close(got, loc[:2] + 0.5 * scale**2, rtol=0, atol=0.05)
    assert log_mean_sigmoid(loc, torch.full_like(loc, 1e6)).isfinite().all()


@pytest.mark.parametrize("loc", [-30.0, -3.0, 0.0, 4.0, 20.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("count", [0.0, 1.0, 7.0, 99.0, 100.0, 300.0, 3000.0])
def test_poisson_log_normal_matches_scipy(loc: float, scale: float, count: float) -> None:
    def log_integrand(t: float) -> float:
        return count * t - np.exp(t) - scipy.special.gammaln(count + 1) + scipy.stats.norm.logpdf(t, loc, scale)

    mode = scipy.optimize.brentq(lambda t: count - np.exp(t) - (t - loc) / scale**2, -900, 700, xtol=1e-13)
    narrow = 1 / math.sqrt(1 / scale**2 + math.exp(mode))
    left, right = [mode - k * scale for k in (15, 6)], [mode + k * narrow for k in (-10, -3, 0, 3, 9)]
    ends, top = sorted(left + right), log_integrand(mode)
    integrand = lambda t: np.exp(log_integrand(t) - top)  # noqa: E731
    total = sum(scipy.integrate.quad(integrand, a, b, epsabs=0, epsrel=1e-11)[0] for a, b in pairwise(ends))
    got = PoissonLogNormal(number(loc), number(scale)).log_prob(number(count)).item()
    assert got == pytest.approx(top + math.log(total), rel=1e-9, abs=1e-9)


def test_poisson_log_normal_is_a_distribution() -> None:
    law = PoissonLogNormal(number(0.7), number(0.6))
    counts = torch.arange(2000, dtype=torch.float64)
    probs = law.log_prob(counts).exp()
    assert probs.sum().item() == pytest.approx(1.0, rel=1e-10)
    mean = (probs * counts).sum()
    assert law.mean.item() == pytest.approx(mean.item(), rel=1e-9)
    assert law.variance.item() == pytest.approx((probs * (counts - mean).square()).sum().item(), rel=1e-7)
    with seeded(seed(0)):
        draws = law.sample((20_000,))
    assert abs(draws.mean() - law.mean) < 5 * draws.std() / 20_000**0.5
    assert law.log_prob(torch.tensor([-1.0, 0.5], dtype=torch.float64)).tolist() == [-math.inf, -math.inf]
    # without spread it is Poisson
    narrow = PoissonLogNormal(number(2.0), F64).log_prob(counts[:50])
    np.testing.assert_allclose(narrow, scipy.stats.poisson(math.exp(2.0)).logpmf(counts[:50]), rtol=1e-11)


def test_predictions_integrate_the_gaussian() -> None:
    x = randn((4, 2), like=F64, generator=seed(0))
    loc, scale = (x @ LOC).numpy(), (x @ torch.linalg.inv(PRECISION) * x).sum(-1).sqrt().numpy()
    nodes = np.linspace(-20, 20, 4001)  # an exponential moves the normal by its scale, which any x may make large
    eta, weights = loc[:, None] + scale[:, None] * nodes, scipy.stats.norm.pdf(nodes) / 100
    np.testing.assert_allclose(LOGISTIC.predict(x).mean, scipy.special.expit(eta) @ weights, rtol=1e-8)
    np.testing.assert_allclose(POISSON.predict(x).mean, np.exp(eta) @ weights, rtol=1e-10)
    expected = scipy.stats.poisson(np.exp(eta)).pmf(2) @ weights
    np.testing.assert_allclose(POISSON.predict(x).log_prob(F64 + 2).exp(), expected, rtol=1e-8)


# modes and evidence


@both
def test_the_mode_and_its_curvature(prior: Any) -> None:
    data = simulate(prior, 5, 12)
    posterior = prior.condition(data)
    assert torch.equal(posterior.precision, posterior.precision.mT)
    for i in range(5):

        def loss(w: Tensor, i: int = i) -> Tensor:
            eta = data.x[i] @ w
            if isinstance(prior, LogisticGaussian):
                fit = (data.y[i] * eta - torch.nn.functional.softplus(eta)).sum()
            else:
                fit = (data.y[i] * eta - eta.exp()).sum()
            return 0.5 * (w - LOC) @ PRECISION @ (w - LOC) - fit

        mode = posterior.loc[i].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(mode), mode)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)
        hessian = torch.autograd.functional.hessian(loss, mode)
        torch.testing.assert_close(posterior.precision[i], hessian, rtol=1e-10, atol=1e-10)


@both
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("num_rows", [1, 5, 30])
def test_the_stated_error_of_the_evidence_is_its_error(prior: Any, d: int, num_rows: int) -> None:
    small = type(prior)(LOC[:d], PRECISION[:d, :d])
    data = simulate(small, 3, num_rows)
    laplace = small.log_evidence(data)
    exact = torch.tensor([exact_log_evidence(small, data[i]) for i in range(3)], dtype=torch.float64)
    stated = small.log_evidence_error(data, num_draws=20_000, generator=seed(0))
    assert (stated.error - (exact - laplace)).abs().le(5 * stated.standard_error + 1e-12).all()
    assert stated.standard_error.max() < 0.02
    assert (stated.ess > 5_000).all()
    assert (exact - laplace).abs().max() < 0.3


@both
def test_the_evidence_of_more_rows_is_that_given_those_before(prior: Any) -> None:
    a, b = simulate(prior, 3, 5), simulate(prior, 3, 4, 10)
    more = prior.condition(a).log_evidence(b)
    torch.testing.assert_close(more, prior.log_evidence(a + b) - prior.log_evidence(a), rtol=1e-10, atol=1e-10)
    stated = prior.condition(a).log_evidence_error(b, num_draws=20_000, generator=seed(0))
    for i in range(3):
        exact = exact_log_evidence(prior, a[i] + b[i]) - exact_log_evidence(prior, a[i])
        assert abs(exact - more[i] - stated.error[i]) < 5 * stated.standard_error[i]


def test_the_error_in_chunks_counts_every_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulate(LOGISTIC, 3, 8)
    monkeypatch.setattr("bayesmeta.approximations.posterior_points.CHUNK", 24 * 1000)
    stated = LOGISTIC.log_evidence_error(data, num_draws=2500, generator=seed(0))
    whole = LOGISTIC.log_evidence_error(data, num_draws=20_000, generator=seed(1))
    assert ((stated.error - whole.error).abs() < 5 * stated.standard_error).all()
    assert (stated.ess <= 2500).all()


def test_exposure_is_a_column() -> None:
    plain = simulate(POISSON, 3, 6)
    exposure = rand((3, 6, 1), like=F64, generator=seed(4)) + 0.1
    prior = PoissonExposureGaussian(LOC, PRECISION)
    data = Data.of(torch.cat([plain.x, exposure.log()], -1), plain.y)
    # the same model with an intercept that is known: a weight of one without variance
    known = PoissonGaussian(
        torch.cat([LOC, F64[None] + 1]), torch.block_diag(PRECISION, torch.full((1, 1), 1e12, dtype=torch.float64))
    )
    torch.testing.assert_close(prior.condition(data).loc, known.condition(data).loc[:, :2], rtol=1e-6, atol=1e-6)
    # of three weights the quadrature is less exact
    torch.testing.assert_close(prior.log_evidence(data), known.log_evidence(data), rtol=1e-3, atol=1e-3)
    x = data.x[0]
    torch.testing.assert_close(prior.predict(x).mean, POISSON.predict(x[:, :2]).mean * exposure[0, :, 0])
    fitted = PoissonExposureGaussian.initial(data).fit(data)
    assert type(fitted) is PoissonExposureGaussian
    assert fitted.loc.shape == (2,)


# learning the prior


@both
def test_derivatives_of_the_evidence(prior: Any) -> None:
    data = simulate(prior, 4, 6)
    unknown = prior.hyperparameters(data)
    vector = (0.3 * randn((5,), like=F64, generator=seed(3))).requires_grad_()
    with seeded(seed(0)):
        # points of the quadrature move with the vector, which derivatives leave out
        assert torch.autograd.gradcheck(unknown.log_evidence, vector, eps=1e-5, atol=5e-3, rtol=5e-3)
        assert torch.autograd.gradgradcheck(unknown.log_evidence, vector, eps=1e-5, atol=5e-2, rtol=5e-2)
    draws = 0.3 * randn((3, 2, 5), like=F64, generator=seed(4))
    each = unknown.log_evidence(draws)
    assert each.shape == (3, 2, 4)
    for i in range(3):
        expected = unknown.build(draws[i, 1]).log_evidence(data)
        torch.testing.assert_close(each[i, 1], expected, rtol=1e-9, atol=1e-9)


@both
@pytest.mark.parametrize("weight", [0.0, 1.0])
@pytest.mark.filterwarnings("ignore::bayesmeta.warning_kinds.LimitWarning")  # without a hyperprior one may run off
def test_fit_finds_the_greatest_evidence(prior: Any, weight: float) -> None:
    tasks = simulate(prior, 12, 25)
    start = type(prior).initial(tasks)
    fitted = start.fit(tasks, hyperprior_weight=weight)
    assert fitted.learned_from is not None
    assert (fitted.learned_from.tasks, fitted.learned_from.rows) == (12, 300)
    unknown = start.hyperparameters(tasks)

    def loss(vector: np.ndarray) -> float:
        built = unknown.build(torch.from_numpy(vector))
        modes = built.condition(tasks)
        evidence = sum(exact_log_evidence(built, tasks[i], 61, modes[i]) for i in range(12))
        return weight * 0.5 * float(((vector / width) ** 2).sum()) - evidence

    width = np.array([2.0, 2.0, 2.0, 2.0, 1.0])
    at = most_probable(unknown, hyperprior_weight=weight)
    torch.testing.assert_close(unknown.build(at).precision, fitted.precision)
    best = scipy.optimize.minimize(loss, at.numpy() + 0.05, method="BFGS", options={"gtol": 1e-4})
    assert loss(at.numpy()) == pytest.approx(best.fun, rel=1e-6)
    # one that runs off, as correlations of plain empirical Bayes may, ends where nothing more is gained
    assert at.numpy() == pytest.approx(best.x, abs=5e-3, rel=1e-3)


@pytest.mark.parametrize("family", [LogisticGaussian, PoissonGaussian])
def test_fit_recovers_known_hyperparameters(family: type) -> None:
    truth = family(LOC, 4.0 * PRECISION)
    tasks = simulate(truth, 300, 60)
    fitted = family.initial(tasks).fit(tasks)
    torch.testing.assert_close(fitted.loc, LOC, rtol=0, atol=0.12)
    torch.testing.assert_close(
        torch.linalg.inv(fitted.precision), torch.linalg.inv(truth.precision), rtol=0.35, atol=0.06
    )


@both
def test_fit_does_not_depend_on_units(prior: Any) -> None:
    tasks = simulate(prior, 20, 10)
    unit = torch.tensor([1e-5, 1e3], dtype=torch.float64)
    plain, moved = (type(prior).initial(t).fit(t) for t in (tasks, Data.of(tasks.x * unit, tasks.y)))
    torch.testing.assert_close(moved.loc * unit, plain.loc, rtol=1e-4, atol=1e-4)


@both
def test_tasks_that_do_not_differ_are_taken_to_share_their_weights(prior: Any) -> None:
    one = simulate(prior, 2, 300)[:1]  # so many that no plane separates the classes
    same = Data.of(one.x.expand(20, 300, 2), one.y.expand(20, 300))
    with pytest.warns(LimitWarning, match="ended at its limit, -9.21: tasks do not differ"):
        fitted = type(prior).initial(same).fit(same, hyperprior_weight=0.0)
    assert torch.linalg.inv(fitted.precision).diagonal().max() < 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        careful = type(prior).initial(same).fit(same)
    assert (torch.linalg.inv(careful.precision).diagonal() > 1e-6).all()


def test_weights_that_follow_from_each_other_are_named() -> None:
    """Two tasks differ in one direction, whatever was drawn: among many, noise may look like another one."""
    x, weight = randn((2, 400, 2), like=F64, generator=seed(0)), torch.tensor([[1.0], [-1.0]]).double()
    eta = weight * (x[..., 0] + 2.0 * x[..., 1])
    tasks = Data.of(x, (rand(eta.shape, like=F64, generator=seed(2)) < eta.sigmoid()).double())
    start = LogisticGaussian.initial(tasks)
    with pytest.warns(LimitWarning, match=r"below_diagonal\[0\] ended at its limit, 1e\+03: one weight follows from"):
        fitted = start.fit(tasks, hyperprior_weight=0.0)
    cov = torch.linalg.inv(fitted.precision)
    assert 1.0 - cov[0, 1] / (cov[0, 0] * cov[1, 1]).sqrt() == pytest.approx(5e-7, rel=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start.fit(tasks)


def test_the_hyperposterior_and_mixtures_take_these_families() -> None:
    tasks = simulate(LOGISTIC, 6, 8)
    learned = Hyperposterior.fit(LogisticGaussian.initial(tasks), tasks, num_draws=100, generator=seed(0))
    assert learned.ess > 25
    mixture = learned.marginal(5, generator=seed(1))
    assert isinstance(mixture, Mixture)
    posterior = mixture.condition(tasks[0])
    again = mixture.condition(tasks[0].rows(slice(0, 3))).condition(tasks[0].rows(slice(3, 8)))
    x = tasks.x[0]
    torch.testing.assert_close(posterior.predict(x).mean, again.predict(x).mean, rtol=1e-8, atol=1e-8)


# posteriors that are far from normal


def exact_means(prior: Any, data: Data, x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the probability or rate at x, by an even grid, in one or two dimensions.

    As wide as the prior to the last of its mass, and as fine as the posterior.
    """
    root = np.linalg.inv(np.linalg.cholesky(prior.precision.numpy())).T
    points = np.linspace(-8.0, 8.0, 200_001 if len(root) == 1 else 801)
    grid = np.stack(np.meshgrid(*[points] * len(root)), -1).reshape(-1, len(root)) @ root.T + prior.loc.numpy()
    start = -0.5 * sum(z.ravel() ** 2 for z in np.meshgrid(*[points] * len(root)))
    log_density = start + sum(
        log_likelihood(prior, xi[None], yi[None], grid) for xi, yi in zip(data.x.numpy(), data.y.numpy(), strict=True)
    )
    share = np.exp(log_density - log_density.max())
    share /= share.sum()
    eta = grid @ x.numpy().T
    value = scipy.special.expit(eta) if isinstance(prior, LogisticGaussian) else np.exp(eta)
    mean = share @ value
    return mean, share @ (value - mean) ** 2


def one_weight(family: type, scale: float, y: list[float]) -> tuple[Any, Data]:
    prior = family(torch.zeros(1, dtype=torch.float64), torch.full((1, 1), scale**-2, dtype=torch.float64))
    return prior, Data.of(torch.ones(len(y), 1, dtype=torch.float64), torch.tensor(y, dtype=torch.float64))


ONE = torch.ones(1, 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("family", "scale", "y", "mean"),
    [
        (PoissonGaussian, 2.0, [0.0], 0.40806),  # 0.745 by Laplace's approximation
        (PoissonGaussian, 5.0, [0.0] * 20, 0.01249),  # 0.085
        (LogisticGaussian, 10.0, [1.0], 0.92148),  # 0.742
        (LogisticGaussian, 100.0, [1.0], 0.99202),
        (LogisticGaussian, 5.0, [1.0] * 30, None),
        (LogisticGaussian, 3.0, [0.0, 1.0], None),
        (PoissonGaussian, 5.0, [0.0, 0.0, 7.0], None),
        (PoissonGaussian, 3.0, [250.0], None),
        (PoissonGaussian, 0.3, [0.0], None),
    ],
)
def test_one_weight_is_exact(family: type, scale: float, y: list[float], mean: float | None) -> None:
    prior, data = one_weight(family, scale, y)
    posterior = prior.condition(data)
    exact, var = exact_means(prior, data, ONE)
    assert mean is None or exact[0] == pytest.approx(mean, rel=1e-4)
    assert posterior.predict(ONE).mean.item() == pytest.approx(exact[0], rel=1e-4)
    assert posterior.marginal(ONE).mean.item() == pytest.approx(exact[0], rel=1e-4)
    assert posterior.marginal(ONE).variance.item() == pytest.approx(var[0], rel=1e-3)
    draws = posterior.sample(20_000, generator=seed(0))(ONE)[:, 0]
    assert abs(draws.mean() - exact[0]) < 5 * draws.std() / 20_000**0.5
    if scale < 50:  # then no probability is one but for rounding
        uniform = posterior.marginal(ONE).cdf(draws[:, None])[:, 0]
        assert abs(uniform.mean() - 0.5) < 5 * (1 / 12 / 20_000) ** 0.5
    stated = posterior.prediction_error(ONE, num_draws=20_000, generator=seed(1))
    assert (stated.error.abs() <= 5 * stated.standard_error + 1e-4 * exact[0]).all()


@both
@given(scale=st.sampled_from([0.5, 2.0, 5.0]), n=st.integers(1, 6), alike=st.booleans(), start=st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_two_weights_are_next_to_exact(prior: Any, scale: float, n: int, alike: bool, start: int) -> None:
    wide = type(prior)(torch.zeros(2, dtype=torch.float64), scale**-2 * PRECISION)
    x = randn((n, 2), like=F64, generator=seed(start))
    y = (rand((n,), like=F64, generator=seed(start + 1)) < 0.5).double()
    data = Data.of(x, torch.zeros_like(y) if alike else y)
    exact, var = exact_means(wide, data, x)
    posterior = wide.condition(data)
    sd = np.sqrt(var)
    assert (np.abs(posterior.predict(x).mean.numpy() - exact) <= 0.05 * sd).all()
    assert (np.abs(posterior.marginal(x).variance.sqrt().numpy() - sd) <= 0.1 * sd).all()
    stated = posterior.prediction_error(x, num_draws=4000, generator=seed(0))
    excess = np.abs(stated.error.numpy() - (exact - posterior.predict(x).mean.numpy()))
    assert (excess <= 6 * stated.standard_error.numpy() + 1e-3 * sd).all()


@both
@pytest.mark.parametrize("d", [1, 3, 4, 5])
def test_the_evidence_is_what_importance_sampling_says(prior: Any, d: int) -> None:
    usual = type(prior)(torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64))
    stated = usual.log_evidence_error(simulate(usual, 4, 8), num_draws=20_000, generator=seed(3))
    allowed = {1: 1e-5, 3: 0.01, 4: 0.03, 5: 0.1}[d]
    assert (stated.error.abs() <= 5 * stated.standard_error + allowed).all()


# roles of columns


def with_column(data: Data, column: Tensor) -> Data:
    return Data(torch.cat([data.x, column.expand(*data.x.shape[:-1], 1)], -1), data.y, data.mask)


def test_trials_are_as_many_rows() -> None:
    prior = LogisticGaussian(LOC, PRECISION, columns=Columns(3, trials=2))
    x = torch.tensor([[0.3, 1.0, 3.0], [-1.0, 1.0, 0.0], [0.5, 1.0, 2.0]], dtype=torch.float64)
    counts = Data.of(x, torch.tensor([1.0, 0.0, 2.0]).double())
    rows = Data.of(x[[0, 0, 0, 2, 2], :2], torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0]).double())
    posterior, plain = prior.condition(counts), LOGISTIC.condition(rows)
    torch.testing.assert_close(posterior.loc, plain.loc)
    torch.testing.assert_close(prior.log_evidence(counts), LOGISTIC.log_evidence(rows) + math.log(3.0))
    new = x + 0.1 * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    predicted, one = posterior.predict(new), plain.predict(new[:, :2])
    torch.testing.assert_close(predicted.mean, x[:, 2] * one.mean, rtol=1e-6, atol=1e-9)
    every = torch.arange(4.0, dtype=torch.float64)[:, None].expand(-1, 3)
    probs = predicted.log_prob(every).exp()
    torch.testing.assert_close(probs.sum(0), torch.ones(3, dtype=torch.float64), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((probs * every).sum(0), predicted.mean, rtol=1e-4, atol=1e-4)
    spread = (probs * (every - predicted.mean).square()).sum(0)
    torch.testing.assert_close(spread, predicted.variance, rtol=1e-3, atol=1e-4)
    assert prior.predict(new).log_prob(every).exp().sum(0) == pytest.approx(np.ones(3))
    with seeded(seed(0)):
        assert (predicted.sample((100,)) <= x[:, 2]).all()


def test_offsets_are_known_weights() -> None:
    plain = simulate(POISSON, 3, 6)
    more = rand((3, 6, 1), like=F64, generator=seed(4))
    data = with_column(plain, more)
    prior = PoissonGaussian(LOC, PRECISION, columns=Columns(3, offset=2))
    same = PoissonExposureGaussian(LOC, PRECISION)
    torch.testing.assert_close(prior.log_evidence(data), same.log_evidence(data))
    torch.testing.assert_close(prior.condition(data).predict(data.x).mean, same.condition(data).predict(data.x).mean)


@both
def test_shared_weights_do_not_vary(prior: Any) -> None:
    tasks = simulate(prior, 30, 12)
    start = type(prior).initial(tasks, shared=[0])
    assert start.hyperparameters(tasks).names == ["loc[0]", "loc[1]", "log_scale[1]"]
    fitted = start.fit(tasks)
    # one weight is unknown of a task: its evidence is that of the other as an offset
    known = tasks.x[..., :1] * fitted.loc[0]
    reduced = Data(torch.cat([tasks.x[..., 1:], known], -1), tasks.y, tasks.mask)
    of_rest = type(prior)(fitted.loc[1:], fitted.precision[1:, 1:], columns=Columns(2, offset=1))
    torch.testing.assert_close(fitted.log_evidence(tasks), of_rest.log_evidence(reduced), rtol=1e-9, atol=1e-9)
    posterior, rest = fitted.condition(tasks), of_rest.condition(reduced)
    torch.testing.assert_close(posterior.loc[:, 0], fitted.loc[0].expand(30))
    torch.testing.assert_close(posterior.predict(tasks.x).mean, rest.predict(reduced.x).mean, rtol=1e-9, atol=1e-9)
    weights = posterior.sample_params(100, generator=seed(0))
    assert weights[..., 0].std() < 1e-6
    # a prior that knows the weight learns it again from other tasks
    others = simulate(type(prior)(LOC + 1.0, PRECISION), 30, 12, 7)
    again, anew = fitted.fit(others, hyperprior_weight=0.0), start.fit(others, hyperprior_weight=0.0)
    torch.testing.assert_close(again.loc, anew.loc, rtol=0, atol=2e-3)


def test_wrong_roles_are_refused() -> None:
    tasks = with_column(simulate(LOGISTIC, 3, 4), torch.full((1,), 2.0, dtype=torch.float64))
    wrong = Data(tasks.x, tasks.y + 2.0, tasks.mask)
    with pytest.raises(ValueError, match=r"from 0 to the row's trials.* in .*row . with value 3 of 2 trials"):
        LogisticGaussian.initial(wrong, trials=2)
    with pytest.raises(ValueError, match=r"column of trials must hold whole numbers from 0.*with value 0\.5"):
        LogisticGaussian.initial(Data(tasks.x - 1.5, tasks.y, tasks.mask), trials=2)
    with pytest.raises(ValueError, match="knows no column of role 'trials'"):
        PoissonGaussian(LOC, PRECISION, columns=Columns(3, trials=2))


@pytest.mark.parametrize("family", [LogisticGaussian, PoissonGaussian])
@pytest.mark.parametrize("shared", [(), (0,)])
def test_it_does_not_matter_where_x_lies(family: type, shared: tuple[int, ...]) -> None:
    tasks = simulate(family(LOC, PRECISION), 20, 10)
    moved = Data.of(tasks.x * torch.tensor([3.0, 1.0]).double() + torch.tensor([3e4, 0.0]).double(), tasks.y)
    plain, far = (family.initial(t, shared=shared).fit(t) for t in (tasks, moved))
    torch.testing.assert_close(far.log_evidence(moved), plain.log_evidence(tasks), rtol=1e-6, atol=1e-6)
    predictions = (p.condition(t).predict(t.x) for p, t in ((far, moved), (plain, tasks)))
    for one, other in zip(*((p.mean, p.variance) for p in predictions), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", [LogisticGaussian, PoissonGaussian])
@pytest.mark.parametrize("alike", [True, False])
def test_rows_that_no_finite_weights_explain_best_warn(family: type, alike: bool) -> None:
    x = randn((10, 12, 2), like=F64, generator=seed(0))
    x[..., 1] = 1.0
    separated = (x[..., 0] > 0).double() if family is LogisticGaussian else torch.zeros(10, 12, dtype=torch.float64)
    tasks = Data.of(x, torch.zeros(10, 12, dtype=torch.float64) if alike else separated)
    with pytest.warns(LimitWarning) as caught:
        fitted = family.initial(tasks).fit(tasks, hyperprior_weight=0.0)
    assert any("no finite one explains them best" in str(w.message) for w in caught)
    assert fitted.loc.abs().max() < 50.0


# extremes


@pytest.mark.parametrize("precision", [1e-10, 1e-3, 1.0])
def test_separable_classes_have_a_mode(precision: float) -> None:
    x = torch.tensor([[-2.0, 1.0], [-1.0, 1.0], [1.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    prior = LogisticGaussian(torch.zeros(2, dtype=torch.float64), precision * torch.eye(2, dtype=torch.float64))
    posterior = prior.condition(Data.of(x, number(0.0) + torch.tensor([0.0, 0.0, 1.0, 1.0])))
    gradient = precision * posterior.loc - x.mT @ (
        torch.tensor([-1.0, -1.0, 1.0, 1.0]) * (x @ posterior.loc * torch.tensor([1.0, 1.0, -1.0, -1.0])).sigmoid()
    )
    assert (gradient.abs() < 1e-9 * posterior.precision.diagonal().sqrt()).all()
    assert posterior.predict(x).probs.sub(torch.tensor([0.0, 0.0, 1.0, 1.0])).abs().max() < 0.5


@pytest.mark.parametrize("count", [0.0, 1.0, 1e6, 1e12, 2.0**53])
@pytest.mark.parametrize("loc", [-800.0, 0.0, 800.0])
@pytest.mark.parametrize("precision", [1e-8, 1.0, 1e8])
def test_counts_far_from_what_was_expected_have_a_mode(count: float, loc: float, precision: float) -> None:
    prior = PoissonGaussian(number(loc)[None], number(precision)[None, None])
    data = Data.of(torch.ones(3, 1, dtype=torch.float64), number(count).expand(3))
    posterior = prior.condition(data)
    at = posterior.loc.item()
    rate = 3.0 * math.exp(min(at, 40.0))
    # the gradient there, in standard deviations: rounding of the mode itself is magnified by huge counts
    assert abs(3.0 * count - rate - precision * (at - loc)) < 1e-5 * math.sqrt(rate + precision)
    assert posterior.predict(data.x).log_prob(data.y).isfinite().all()
    assert prior.log_evidence(data).isfinite()


@both
@given(
    size=st.integers(-6, 6),
    strength=st.integers(-6, 6),
    far=st.floats(-1e3, 1e3),
    n=st.integers(0, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    start=st.integers(0, 100),
)
@example(size=4, strength=-5, far=134.0, n=1, dtype=torch.float64, start=0)  # steps of rounding alone, without end
@settings(max_examples=60)
def test_answers_are_finite(
    prior: Any, size: int, strength: int, far: float, n: int, dtype: torch.dtype, start: int
) -> None:
    """Fewer rows than weights, columns of any size, the third one a copy of the second."""
    eye = torch.eye(3, dtype=torch.float64)
    wild = type(prior)(torch.full((3,), far, dtype=torch.float64), 10.0**strength * eye).to(dtype)
    x = 10.0**size * randn((2, n, 3), like=F64, generator=seed(start)).to(dtype)
    x[..., 2] = x[..., 1]
    y = (rand((2, n), like=F64, generator=seed(start + 1)) < 0.5).to(dtype)
    data = Data.of(x, y if prior is LOGISTIC else 1e6 * y)
    posterior = wild.condition(data)
    assert posterior.loc.dtype == dtype
    assert posterior.loc.isfinite().all()
    assert wild.log_evidence(data).isfinite().all()
    new = randn((2, 3, 3), like=F64, generator=seed(2)).to(dtype)
    prediction = posterior.predict(new)
    assert prediction.mean.isfinite().all()
    assert prediction.variance.isfinite().all()
    assert prediction.log_prob(torch.ones(2, 3, dtype=dtype)).isfinite().all()
    assert posterior.sample(2, generator=seed(0))(new).isfinite().all()


# bad input


@both
def test_bad_hyperparameters_are_refused(prior: Any) -> None:
    with pytest.raises(ValueError, match="loc must be finite; got nan at 0"):
        type(prior)(LOC * math.nan, PRECISION)
    with pytest.raises(ValueError, match="precision is not positive definite"):
        type(prior)(LOC, -PRECISION)


@both
def test_wrong_rows_are_refused(prior: Any) -> None:
    x = torch.ones(4, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="x must have 2 columns; got 3"):
        prior.condition(Data.of(torch.ones(4, 3, dtype=torch.float64), x[:, 0]))
    with pytest.raises(ValueError, match="y must hold one number per row"):
        prior.condition(Data.of(x, x, event_dim=1))
    name = type(prior).__name__
    with pytest.raises(ValueError, match=f"{name} needs the rows themselves; got their Statistics. Give Data"):
        prior.condition(Statistics.of(Data.of(x, x[:, 0])))


def test_values_that_the_likelihood_cannot_give_are_refused() -> None:
    x = torch.ones(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="y must be 0 or 1 where mask is true; 1 row is not, it is in row 1"):
        LOGISTIC.condition(Data.of(x, torch.tensor([0.0, 2.0, 1.0])))
    for bad in (-1.0, 0.5, 1e17):
        with pytest.raises(ValueError, match=r"y must be a whole number from 0 to 2\^53, a count.*row 1 with value"):
            POISSON.log_evidence(Data.of(x, torch.tensor([0.0, bad, 1.0])))


@both
def test_fit_refuses_tasks_that_say_too_little(prior: Any) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        prior.fit(Data.of(torch.zeros(3, 0, 2), torch.zeros(3, 0)))
    with pytest.raises(ValueError, match="at least two tasks with rows, on one axis; got 1"):
        prior.fit(Data.of(torch.zeros(4, 2), torch.zeros(4)))
    with pytest.raises(ValueError, match="self has batch_shape"):
        prior.condition(simulate(prior, 2, 3)).fit(simulate(prior, 2, 3))


def test_a_mode_that_is_not_found_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesmeta.approximations.laplace.MAX_STEPS", 1)
    with pytest.raises(ValueError, match="weights of task 0 were not found in 1 steps; bring the columns of x"):
        LOGISTIC.condition(simulate(LOGISTIC, 3, 5))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_task_in_any_batch(shape: tuple[int, ...]) -> None:
    """A policy of one task and one arm asks such a posterior."""
    prior = LogisticGaussian(torch.zeros(2).double(), torch.eye(2).double())
    x, y = randn((5, 2), like=F64, generator=seed(0)), (rand((5,), like=F64, generator=seed(1)) < 0.5).double()
    new = randn((3, 2), like=F64, generator=seed(2))
    one, alone = prior.expand(shape).condition(Data.of(x, y).expand(shape)), prior.condition(Data.of(x, y))
    torch.testing.assert_close(one.marginal(new).mean, alone.marginal(new).mean.expand(*shape, 3))
    several = one.marginal(new.expand(4, *(1 for _ in shape[1:]), 3, 2) if shape else new.expand(4, 3, 2))
    torch.testing.assert_close(several.mean, alone.marginal(new).mean.expand(4, *shape[1:], 3))
