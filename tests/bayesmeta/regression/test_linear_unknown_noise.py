"""Linear regression with unknown noise: its maths against scipy and quadrature, its fit, its bad input."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from bayesmeta import Data, LimitWarning, LinearNormalInverseGamma, NormalInverseGamma, Statistics
from bayesmeta.random import randn
from bayesmeta.warning_kinds import PlacementWarning
from tests.families import F64, _spd, relative_error, seed

LOC = torch.tensor([0.5, -1.0], dtype=torch.float64)
A, B = 2.5, 1.7
PRIOR = LinearNormalInverseGamma(LOC, _spd(2, 1), F64 + A, F64 + B)
X = randn((6, 2), like=F64, generator=seed(0))
Y = randn((6,), like=F64, generator=seed(1))


def simulate(num_tasks: int, n: int) -> Data:
    f = PRIOR.sample(num_tasks, generator=seed(2))
    x = randn((num_tasks, n, 2), like=F64, generator=seed(3))
    noise = randn((num_tasks, n), like=F64, generator=seed(4)) * f.noise_var.sqrt()[:, None]
    return Data.of(x, (x @ f.weights[..., None])[..., 0] + noise)


def test_evidence_is_a_multivariate_t() -> None:
    shape = np.eye(6) + X.numpy() @ np.linalg.inv(PRIOR.precision.numpy()) @ X.numpy().T
    expected = scipy.stats.multivariate_t(X.numpy() @ LOC.numpy(), B / A * shape, df=2 * A).logpdf(Y.numpy())
    assert PRIOR.log_evidence(Data.of(X, Y)).item() == pytest.approx(expected, rel=1e-10)


def test_density_matches_scipy() -> None:
    weights, var = np.array([0.2, 0.1]), 0.8
    expected = (
        scipy.stats.multivariate_normal(LOC.numpy(), var * np.linalg.inv(PRIOR.precision.numpy())).logpdf(weights)
        + scipy.stats.invgamma(A, scale=B).logpdf(var)
        + math.log(var)
    )
    params = torch.tensor([*weights, math.log(var)], dtype=torch.float64)
    assert PRIOR.log_prob(params).item() == pytest.approx(expected, rel=1e-10)


def test_one_column_of_ones_is_the_normal_inverse_gamma() -> None:
    ones = torch.ones(6, 1, dtype=torch.float64)
    linear = LinearNormalInverseGamma(LOC[:1], F64.new_full((1, 1), 0.7), F64 + A, F64 + B)
    plain = NormalInverseGamma(LOC[0], F64 + 0.7, F64 + A, F64 + B)
    left, right = linear.log_evidence(Data.of(ones, Y)), plain.log_evidence(Data.of(None, Y))
    assert left.item() == pytest.approx(right.item(), rel=1e-12)


@pytest.mark.parametrize("offset", [1e6, -1e6])
def test_targets_far_from_zero_keep_their_digits(offset: float) -> None:
    """An intercept that moves with the targets changes nothing."""
    x = torch.cat([X, torch.ones(6, 1, dtype=torch.float64)], -1)
    precision = _spd(3, 2)
    moved = torch.tensor([0.5, -1.0, offset], dtype=torch.float64)
    plain = LinearNormalInverseGamma(moved * torch.tensor([1.0, 1.0, 0.0]), precision, F64 + A, F64 + B)
    far = LinearNormalInverseGamma(moved, precision, F64 + A, F64 + B)
    expected = plain.log_evidence(Data.of(x, Y)).item()
    assert far.log_evidence(Data.of(x, Y + offset)).item() == pytest.approx(expected, rel=1e-7)


def test_singular_designs_and_few_rows_are_fine() -> None:
    for x in (torch.zeros(3, 2), torch.ones(3, 2), torch.ones(1, 2)):
        data = Data.of(x.double(), Y[: len(x)])
        assert PRIOR.condition(data).loc.isfinite().all()
        assert PRIOR.log_evidence(data).isfinite()
    tasks = Data.of(torch.ones(4, 3, 2, dtype=torch.float64), randn((4, 3), like=F64, generator=seed(5)))
    fitted = LinearNormalInverseGamma.initial(tasks).fit(tasks)
    assert fitted.loc.isfinite().all()


def test_fit_recovers_known_hyperparameters() -> None:
    tasks = simulate(3000, 12)
    fitted = LinearNormalInverseGamma.initial(tasks).fit(tasks)
    # where the precision is one, standard deviations are .02 of the location, .04 of the precision and of the rest
    assert (torch.linalg.cholesky(PRIOR.precision).mT @ (fitted.loc - LOC)).abs().max() < 0.12
    assert relative_error(fitted.precision, PRIOR.precision).abs().max() < 0.2
    assert (fitted.concentration.item(), fitted.rate.item()) == pytest.approx((A, B), rel=0.2)
    assert fitted.learned_from is not None
    assert fitted.learned_from.tasks == 3000


def test_rows_without_noise_teach_that_there_is_none_and_not_that_it_has_any_size() -> None:
    x = torch.tensor([[1.0, 0.7], [0.9, 0.1], [0.3, 0.8]], dtype=torch.float64)[:, None].expand(3, 10, 2)
    tasks = Data.of(x, torch.full((3, 10), -0.3, dtype=torch.float64))
    with (
        pytest.warns(PlacementWarning, match="no combination of the columns of x is constant"),
        pytest.warns(LimitWarning, match="log_noise_var ended at its limit, -18.4: the weights explain every row"),
    ):
        fitted = LinearNormalInverseGamma.initial(tasks).fit(tasks)
    assert fitted.concentration > 0.5
    assert fitted.rate < 1e-7
    assert fitted.sample(1000, generator=seed(0)).noise_var.max() < 1e-3


@pytest.mark.parametrize(("unit_x", "unit_y"), [(1e-6, 1.0), (1.0, 1e6)])
def test_fit_does_not_depend_on_units(unit_x: float, unit_y: float) -> None:
    tasks = simulate(40, 6)
    moved = Data.of(tasks.x * unit_x, tasks.y * unit_y)
    plain, scaled = (LinearNormalInverseGamma.initial(t).fit(t) for t in (tasks, moved))
    torch.testing.assert_close(scaled.loc * unit_x / unit_y, plain.loc, rtol=1e-4, atol=1e-5)
    assert scaled.concentration.item() == pytest.approx(plain.concentration.item(), rel=1e-3)


def test_statistics_stand_for_rows() -> None:
    data = Data.pad([(X, Y), (X[:2], Y[:2])])
    left, right = PRIOR.condition(data), PRIOR.condition(Statistics.of(data))
    assert torch.equal(left.rate, right.rate)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="precision of task 1 is not positive definite"):
        LinearNormalInverseGamma(LOC.expand(2, 2), torch.stack([_spd(2, 1), -_spd(2, 1)]), F64 + A, F64 + B)
    with pytest.raises(ValueError, match="rate must be finite and above zero; got -1"):
        LinearNormalInverseGamma(LOC, _spd(2, 1), F64 + A, F64 - 1)
    with pytest.raises(ValueError, match="x must have 2 columns; got 3"):
        PRIOR.condition(Data.of(torch.zeros(4, 3), torch.zeros(4)))
    with pytest.raises(ValueError, match="at least two tasks with rows, on one axis; got 1"):
        PRIOR.fit(Data.of(X, Y))


def test_rows_on_a_plane_do_not_take_from_the_rate() -> None:
    """Squares of residuals are the difference of numbers 10^22 times as large, and never negative."""
    prior = LinearNormalInverseGamma(torch.zeros(3).double(), torch.eye(3).double(), F64 + 2.0, F64 + 1.0)
    x = 1e11 * randn((200, 4, 3), like=F64, generator=seed(0))
    weights = randn((200, 3, 1), like=F64, generator=seed(1))
    posterior = prior.condition(Data.of(x, (x @ weights)[..., 0]))
    assert (posterior.rate >= 1.0).all()
    assert posterior.predict(x).stddev.isfinite().all()
