"""Gamma-Poisson and gamma-exponential: their maths against scipy and quadrature, their fits, their bad input."""

import math
import warnings

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayesmeta import Data, GammaExponential, GammaPoisson, Statistics
from bayesmeta.distributions.lomax import Lomax
from bayesmeta.random import rand, seeded
from bayesmeta.warning_kinds import LimitWarning
from tests.families import F64, seed

A, B = 2.5, 1.7
COUNTS = torch.tensor([3.0, 0.0, 7.0, 1.0], dtype=torch.float64)
EXPOSURE = torch.tensor([1.0, 0.2, 3.0, 0.5], dtype=torch.float64)
TIMES = torch.tensor([0.1, 2.0, 0.7], dtype=torch.float64)


def poisson_tasks(num_tasks: int, n: int, number: int = 0) -> Data:
    rates = GammaPoisson(F64 + A, F64 + B).sample(num_tasks, generator=seed(number))
    exposure = 0.5 + 3.0 * rand((num_tasks, n, 1), like=F64, generator=seed(number + 1))
    with seeded(seed(number + 2)):
        y = torch.poisson(rates.log_rate.exp()[:, None] * exposure[..., 0])
    return Data.of(exposure, y)


def test_count_evidence_matches_quadrature() -> None:
    def density(rate: float) -> float:
        each = scipy.stats.poisson(EXPOSURE.numpy() * rate).pmf(COUNTS.numpy())
        return float(each.prod() * scipy.stats.gamma(A, scale=1 / B).pdf(rate))

    expected = math.log(scipy.integrate.quad(density, 0, 60, epsabs=1e-18, epsrel=1e-12, limit=500)[0])
    data = Data.of(EXPOSURE[:, None], COUNTS)
    assert GammaPoisson(F64 + A, F64 + B).log_evidence(data).item() == pytest.approx(expected, rel=1e-10)


def test_time_evidence_matches_quadrature() -> None:
    def density(rate: float) -> float:
        each = scipy.stats.expon(scale=1 / rate).pdf(TIMES.numpy())
        return float(each.prod() * scipy.stats.gamma(A, scale=1 / B).pdf(rate))

    expected = math.log(scipy.integrate.quad(density, 1e-12, 60, epsabs=1e-18, epsrel=1e-12, limit=500)[0])
    prior = GammaExponential(F64 + A, F64 + B)
    assert prior.log_evidence(Data.of(None, TIMES)).item() == pytest.approx(expected, rel=1e-10)


def test_predictions_match_scipy() -> None:
    x = EXPOSURE[:, None]
    predicted = GammaPoisson(F64 + A, F64 + B).predict(x).log_prob(COUNTS)
    odds = EXPOSURE.numpy() / B
    expected = scipy.stats.nbinom(A, 1 / (1 + odds)).logpmf(COUNTS.numpy())
    assert predicted.tolist() == pytest.approx(expected.tolist(), rel=1e-10)
    lomax = GammaExponential(F64 + A, F64 + B).predict(torch.zeros(3, 0))
    expected = scipy.stats.lomax(A, scale=B)
    assert lomax.log_prob(TIMES).tolist() == pytest.approx(expected.logpdf(TIMES.numpy()).tolist(), rel=1e-10)
    assert lomax.cdf(TIMES).tolist() == pytest.approx(expected.cdf(TIMES.numpy()).tolist(), rel=1e-10)
    assert lomax.icdf(F64 + 0.3)[0].item() == pytest.approx(expected.ppf(0.3), rel=1e-10)
    assert lomax.mean[0].item() == pytest.approx(expected.mean(), rel=1e-10)
    assert lomax.variance[0].item() == pytest.approx(expected.var(), rel=1e-10)
    assert Lomax(F64 + 0.5, F64 + 1.0).mean.isinf()
    assert Lomax(F64 + 1.5, F64 + 1.0).variance.isinf()


def test_lomax_draws_follow_its_cdf() -> None:
    with seeded(seed(0)):
        draws = Lomax(F64 + A, F64 + B).sample((5000,))
    assert scipy.stats.kstest(draws.numpy(), scipy.stats.lomax(A, scale=B).cdf).pvalue > 1e-6


def test_density_matches_scipy() -> None:
    rate = 0.8
    expected = scipy.stats.gamma(A, scale=1 / B).logpdf(rate) + math.log(rate)
    prior = GammaPoisson(F64 + A, F64 + B)
    params = torch.tensor([math.log(rate)], dtype=torch.float64)
    assert prior.log_prob(params).item() == pytest.approx(expected, rel=1e-10)
    assert prior.constrain(params)["rate"].item() == pytest.approx(rate)


def test_exposure_multiplies_the_expected_count() -> None:
    prior = GammaPoisson(F64 + A, F64 + B)
    f = prior.sample(4, generator=seed(0))
    x = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    torch.testing.assert_close(f(x)[:, 1], 3.0 * f(x)[:, 0])
    torch.testing.assert_close(f(x)[:, 0], f(None)[:, 0])
    posterior = prior.condition(Data.of(EXPOSURE[:, None], COUNTS))
    assert posterior.shape.item() == pytest.approx(A + 11.0)
    assert posterior.inverse_scale.item() == pytest.approx(B + 4.7)


def slow_reference(tasks: Data) -> tuple[float, np.ndarray]:
    def loss(vector: np.ndarray) -> float:
        a, b = np.exp(vector)
        total, counts, exposure = 0.0, tasks.y.numpy(), tasks.x[..., 0].numpy()
        for i in range(counts.shape[1]):  # one-step predictions, each by scipy
            total += scipy.stats.nbinom.logpmf(counts[:, i], a, b / (b + exposure[:, i])).sum()
            a, b = a + counts[:, i], b + exposure[:, i]
        return -total

    options = {"xatol": 1e-10, "fatol": 1e-12}
    best = scipy.optimize.minimize(loss, np.log([A, B]) + 0.2, method="Nelder-Mead", options=options)
    return -best.fun, np.exp(best.x)


def test_fit_agrees_with_a_slow_reference() -> None:
    tasks = poisson_tasks(80, 5)
    fitted = GammaPoisson.initial(tasks).fit(tasks, hyperprior_weight=0.0)
    value, best = slow_reference(tasks)
    assert fitted.log_evidence(tasks).sum().item() == pytest.approx(value, rel=1e-10)
    assert [fitted.shape.item(), fitted.inverse_scale.item()] == pytest.approx(best.tolist(), rel=1e-5)


def test_fit_recovers_known_hyperparameters() -> None:
    tasks = poisson_tasks(4000, 10)
    fitted = GammaPoisson.initial(tasks).fit(tasks)
    # about +- .034 of the truth, and +- .031 of that of waiting times
    assert (fitted.shape.item(), fitted.inverse_scale.item()) == pytest.approx((A, B), rel=0.2)
    assert fitted.learned_from is not None
    assert (fitted.learned_from.tasks, fitted.learned_from.rows) == (4000, 40_000)
    with seeded(seed(5)):
        times = GammaExponential(F64 + A, F64 + B).sample(4000, generator=seed(4)).predict(torch.zeros(10, 0)).sample()
    data = Data.of(None, times)
    waiting = GammaExponential.initial(data).fit(data)
    assert (waiting.shape.item(), waiting.inverse_scale.item()) == pytest.approx((A, B), rel=0.2)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_fit_does_not_depend_on_units(unit: float) -> None:
    tasks = poisson_tasks(50, 4)
    moved = Data.of(tasks.x * unit, tasks.y)
    plain, scaled = (GammaPoisson.initial(t).fit(t) for t in (tasks, moved))
    assert scaled.shape.item() == pytest.approx(plain.shape.item(), rel=1e-5)
    assert scaled.inverse_scale.item() / unit == pytest.approx(plain.inverse_scale.item(), rel=1e-5)


def test_tasks_that_do_not_differ() -> None:
    tasks = Data.of(None, torch.full((20, 5), 4.0, dtype=torch.float64))
    with pytest.warns(LimitWarning, match="log_shape ended at its limit"):
        plain = GammaPoisson.initial(tasks).fit(tasks, hyperprior_weight=0.0)
    assert plain.shape.item() > 1e7
    fitted = GammaPoisson.initial(tasks).fit(tasks)
    assert fitted.shape.item() < 1e4
    assert fitted.predict().mean.item() == pytest.approx(4.0, rel=0.02)


def test_no_event_in_any_task_is_finite() -> None:
    tasks = Data.of(None, torch.zeros(20, 5, dtype=torch.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LimitWarning)
        fitted = GammaPoisson.initial(tasks).fit(tasks)
    assert 0.0 < fitted.predict().mean.item() < 0.05


def test_statistics_stand_for_rows_up_to_factors_that_no_prior_changes() -> None:
    tasks = poisson_tasks(3, 4)
    one, other = GammaPoisson(F64 + A, F64 + B), GammaPoisson(F64 + 2 * A, F64 + B)
    stats = Statistics.of(tasks, order=1)
    assert torch.allclose(one.condition(tasks).inverse_scale, one.condition(stats).inverse_scale)
    difference = one.log_evidence(tasks) - other.log_evidence(tasks)
    torch.testing.assert_close(one.log_evidence(stats) - other.log_evidence(stats), difference)


@given(
    st.sampled_from([torch.float32, torch.float64]),
    st.floats(-25, 25),
    st.floats(-25, 25),
    st.integers(0, 10**15),
    st.floats(-20, 20),
)
@settings(max_examples=200)
def test_extremes_are_finite(dtype: torch.dtype, a: float, b: float, count: int, log_exposure: float) -> None:
    shape, scale = (torch.tensor(math.exp(v), dtype=dtype) for v in (a, b))
    data = Data.of(torch.tensor([[math.exp(log_exposure)]], dtype=dtype), torch.tensor([float(count)], dtype=dtype))
    prior = GammaPoisson(shape, scale)
    assert prior.log_evidence(data).isfinite()
    assert prior.condition(data).shape.isfinite()
    times = GammaExponential(shape, scale)
    assert times.log_evidence(Data.of(None, data.x[:, 0])).isfinite()


def row(y: float, x: float | None = None) -> Data:
    inputs = None if x is None else torch.tensor([[1.0], [x]], dtype=torch.float64)
    return Data.of(inputs, torch.tensor([1.0, y], dtype=torch.float64))


@pytest.mark.parametrize(
    ("prior", "data", "message"),
    [
        (GammaPoisson, row(-1.0), "counts y must be whole numbers, zero or more.*in row 1 with value -1"),
        (GammaPoisson, row(1.5), "in row 1 with value 1.5"),
        (GammaPoisson, row(1.0, 0.0), "exposures, the column of x, must be above zero.*in row 1 with value 0"),
        (GammaPoisson, row(1.0, -2.0), "A row without exposure says nothing: leave it out"),
        (
            GammaPoisson,
            Data.of(torch.ones(2, 2), torch.ones(2)),
            "x must have one column, the exposure, or none; got 2",
        ),
        (GammaExponential, row(-0.5), "waiting times y must be zero or more; 1 row is not, it is in row 1, with value"),
        (GammaExponential, row(1.0, 1.0), "This family has no inputs: give x=None"),
    ],
)
def test_wrong_rows_are_refused(prior: type, data: Data, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prior(F64 + A, F64 + B).condition(data)


def test_wrong_statistics_and_exposures_are_refused() -> None:
    bad = Statistics.of(Data.of(None, torch.tensor([-3.0, 1.0], dtype=torch.float64)), order=1)
    with pytest.raises(ValueError, match="counts must not be below zero; a task has mean -1"):
        GammaPoisson(F64 + A, F64 + B).condition(bad)
    with pytest.raises(ValueError, match="exposures must be above zero; got 0"):
        GammaPoisson(F64 + A, F64 + B).predict(torch.zeros(2, 1))


@pytest.mark.parametrize("name", ["shape", "inverse_scale"])
def test_hyperparameters_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be finite and above zero; got -1"):
        GammaPoisson(**({"shape": F64 + 1, "inverse_scale": F64 + 1} | {name: F64 - 1}))


def test_fit_refuses_tasks_that_say_too_little() -> None:
    with pytest.raises(ValueError, match="at least two tasks with rows, on one axis; got 1"):
        GammaPoisson(F64 + A, F64 + B).fit(Data.of(None, COUNTS))


def test_a_batch_of_priors_meets_one_task_or_many() -> None:
    batch = GammaPoisson(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), F64 + B)
    for data in (Data.of(None, COUNTS), Data.of(None, COUNTS.expand(3, 4))):
        posterior = batch.condition(data)
        assert posterior.batch_shape == (3,)
        assert _shape(posterior.predict(torch.ones(3, 5, 1)).mean) == (3, 5)
        assert posterior.sample(2, generator=seed(0))(torch.ones(3, 5, 1)).shape == (2, 3, 5)


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)
