"""Linear regression with several outputs: its maths against scipy and its special cases, its fit, its bad input."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bayesmeta import (
    Data,
    LimitWarning,
    LinearNormalInverseGamma,
    MatrixNormalInverseWishart,
    NormalInverseWishart,
    Statistics,
)
from bayesmeta.numerics.linalg import pack_tril, unpack_tril
from bayesmeta.random import randn
from bayesmeta.warning_kinds import PlacementWarning
from tests.families import F64, _spd, relative_error, seed

D, M = 2, 3
LOC = randn((D, M), like=F64, generator=seed(7))
PRIOR = MatrixNormalInverseWishart(LOC, _spd(D, 1), F64 + 6.5, _spd(M, 2))
X = randn((6, D), like=F64, generator=seed(0))
Y = randn((6, M), like=F64, generator=seed(1)) + 1.0


def simulate(num_tasks: int, n: int) -> Data:
    f = PRIOR.sample(num_tasks, generator=seed(2))
    x = randn((num_tasks, n, D), like=F64, generator=seed(3))
    noise = randn((num_tasks, n, M), like=F64, generator=seed(4)) @ f.scale_tril.mT
    return Data.of(x, x @ f.weights + noise)


def test_prediction_matches_scipy() -> None:
    prediction, df = PRIOR.predict(X), 6.5 - M + 1
    for i, x in enumerate(X):
        spread = 1.0 + (x @ torch.linalg.solve(PRIOR.precision, x)).item()
        expected = scipy.stats.multivariate_t((x @ LOC).numpy(), spread / df * PRIOR.scatter.numpy(), df=df)
        assert prediction.log_prob(Y)[i].item() == pytest.approx(expected.logpdf(Y[i].numpy()), rel=1e-10)


def test_evidence_is_a_matrix_t() -> None:
    """Its density in closed form, from the n x n covariance of the rows that the weights leave."""
    rows = np.eye(6) + (X @ torch.linalg.solve(PRIOR.precision, X.mT)).numpy()
    rest, scatter, df = (Y - X @ LOC).numpy(), PRIOR.scatter.numpy(), 6.5
    gammas = scipy.special.multigammaln((df + 6) / 2, M) - scipy.special.multigammaln(df / 2, M)
    expected = gammas - 0.5 * 6 * M * math.log(math.pi) - 0.5 * M * np.linalg.slogdet(rows)[1]
    total = scatter + rest.T @ np.linalg.solve(rows, rest)
    expected += 0.5 * df * np.linalg.slogdet(scatter)[1] - 0.5 * (df + 6) * np.linalg.slogdet(total)[1]
    assert PRIOR.log_evidence(Data.of(X, Y)).item() == pytest.approx(expected, rel=1e-10)


def test_density_matches_scipy_and_the_jacobian_autograd() -> None:
    params = PRIOR.sample_params(1, generator=seed(0))[0]
    parts = PRIOR.constrain(params)
    weights, cov = parts["weights"].numpy(), parts["noise_cov"].numpy()
    rows = torch.linalg.inv(PRIOR.precision).numpy()
    expected = scipy.stats.matrix_normal(LOC.numpy(), rows, cov).logpdf(weights)
    expected += scipy.stats.invwishart(6.5, PRIOR.scatter.numpy()).logpdf(cov)
    row, column = torch.tril_indices(M, M)
    packed = pack_tril(torch.linalg.cholesky(parts["noise_cov"]))
    jacobian = torch.autograd.functional.jacobian(
        lambda p: (unpack_tril(p, M) @ unpack_tril(p, M).mT)[row, column], packed
    )
    expected += torch.linalg.slogdet(jacobian).logabsdet.item()
    assert PRIOR.log_prob(params).item() == pytest.approx(expected, rel=1e-10)


def test_one_output_is_the_linear_normal_inverse_gamma() -> None:
    several = MatrixNormalInverseWishart(LOC[:, :1], PRIOR.precision, F64 + 5.0, F64.new_full((1, 1), 3.4))
    one = LinearNormalInverseGamma(LOC[:, 0], PRIOR.precision, F64 + 2.5, F64 + 1.7)
    vectors, numbers = Data.of(X, Y[:, :1], event_dim=1), Data.of(X, Y[:, 0])
    left, right = several.condition(vectors), one.condition(numbers)
    assert several.log_evidence(vectors).item() == pytest.approx(one.log_evidence(numbers).item(), rel=1e-10)
    torch.testing.assert_close(left.loc[:, 0], right.loc, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(left.precision, right.precision, rtol=1e-10, atol=1e-12)
    assert left.scatter.item() == pytest.approx(2.0 * right.rate.item(), rel=1e-10)
    torch.testing.assert_close(
        left.predict(X).log_prob(Y[:, :1]), right.predict(X).log_prob(Y[:, 0]), rtol=1e-10, atol=0
    )


def test_the_fit_of_one_output_is_that_of_the_linear_normal_inverse_gamma() -> None:
    tasks = simulate(60, 8)
    vectors, numbers = Data.of(tasks.x, tasks.y[..., :1], event_dim=1), Data.of(tasks.x, tasks.y[..., 0])
    left = MatrixNormalInverseWishart.initial(vectors).fit(vectors)
    right = LinearNormalInverseGamma.initial(numbers).fit(numbers)
    torch.testing.assert_close(left.loc[:, 0], right.loc, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(left.precision, right.precision, rtol=1e-4, atol=1e-4)
    assert left.df.item() == pytest.approx(2.0 * right.concentration.item(), rel=1e-4)
    assert left.scatter.item() == pytest.approx(2.0 * right.rate.item(), rel=1e-4)


def test_rows_without_noise_teach_that_there_is_none_and_not_that_it_has_any_size() -> None:
    x = torch.tensor([[1.0, 0.7], [0.9, 0.1], [0.3, 0.8]], dtype=torch.float64)[:, None].expand(3, 10, 2)
    tasks = Data.of(x, torch.full((3, 10, 1), -0.3, dtype=torch.float64), event_dim=1)
    with (
        pytest.warns(PlacementWarning, match="no combination of the columns of x is constant"),
        pytest.warns(LimitWarning, match="log_noise_scale.* ended at its limit, -9.21: the weights and the other"),
    ):
        fitted = MatrixNormalInverseWishart.initial(tasks).fit(tasks)
    assert fitted.df > 1.0
    assert fitted.sample(1000, generator=seed(0)).scale_tril.max() < 0.03


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_column_of_ones_is_the_normal_inverse_wishart(offset: float) -> None:
    ones = torch.ones(6, 1, dtype=torch.float64)
    linear = MatrixNormalInverseWishart(LOC[:1] + offset, F64.new_full((1, 1), 0.7), PRIOR.df, PRIOR.scatter)
    plain = NormalInverseWishart(LOC[0] + offset, F64 + 0.7, PRIOR.df, PRIOR.scatter)
    rows, vectors = Data.of(ones, Y + offset), Data.of(None, Y + offset, event_dim=1)
    assert linear.log_evidence(rows).item() == pytest.approx(plain.log_evidence(vectors).item(), rel=1e-10)
    left, right = linear.condition(rows), plain.condition(vectors)
    torch.testing.assert_close(left.scatter, right.scatter, rtol=1e-9, atol=1e-9)  # a row far away has ten digits
    torch.testing.assert_close(left.loc[0] - offset, right.loc - offset, rtol=1e-10, atol=1e-15 * offset + 1e-12)


def test_singular_designs_and_few_rows_are_fine() -> None:
    for x in (torch.zeros(3, D), torch.ones(3, D), torch.ones(1, D)):
        data = Data.of(x.double(), Y[: len(x)])
        assert PRIOR.condition(data).loc.isfinite().all()
        assert PRIOR.log_evidence(data).isfinite()
    tasks = Data.of(torch.ones(4, 3, D, dtype=torch.float64), randn((4, 3, M), like=F64, generator=seed(5)))
    assert MatrixNormalInverseWishart.initial(tasks).fit(tasks).loc.isfinite().all()


def test_fit_recovers_known_hyperparameters() -> None:
    tasks = simulate(2000, 12)
    fitted = MatrixNormalInverseWishart.initial(tasks).fit(tasks)
    torch.testing.assert_close(fitted.loc, LOC, rtol=0.1, atol=0.1)
    assert relative_error(fitted.precision, PRIOR.precision).abs().max() < 0.2
    assert relative_error(fitted.scatter, PRIOR.scatter).abs().max() < 0.25
    assert fitted.df.item() == pytest.approx(6.5, rel=0.1)
    assert fitted.learned_from is not None
    assert (fitted.learned_from.tasks, fitted.learned_from.rows) == (2000, 24_000)


@pytest.mark.parametrize(("unit_x", "unit_y"), [(1e-6, 1.0), (1.0, 1e6)])
def test_fit_does_not_depend_on_units(unit_x: float, unit_y: float) -> None:
    tasks = simulate(40, 6)
    moved = Data.of(tasks.x * unit_x, tasks.y * unit_y)
    plain, scaled = (MatrixNormalInverseWishart.initial(t).fit(t) for t in (tasks, moved))
    torch.testing.assert_close(scaled.loc * unit_x / unit_y, plain.loc, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scaled.scatter / unit_y**2, plain.scatter, rtol=1e-3, atol=1e-4)
    assert scaled.df.item() == pytest.approx(plain.df.item(), rel=1e-3)


def test_shared_noise_ends_at_the_limit_of_df() -> None:
    x = randn((8, D), like=F64, generator=seed(1))
    weights = randn((30, D, 2), like=F64, generator=seed(2))
    # the same noise in each task: noise that is drawn may differ by more than chance
    tasks = Data.of(x.expand(30, 8, D), x @ weights + randn((8, 2), like=F64, generator=seed(3)))
    with pytest.warns(LimitWarning, match="log_excess_df ended at its limit, 13.8: tasks do not differ in their noise"):
        MatrixNormalInverseWishart.initial(tasks).fit(tasks, hyperprior_weight=0.0)


def test_statistics_stand_for_rows() -> None:
    data = Data.pad([(X, Y), (X[:2], Y[:2])])
    assert torch.equal(PRIOR.condition(data).scatter, PRIOR.condition(Statistics.of(data)).scatter)


def test_a_batch_of_priors_meets_one_task_or_many() -> None:
    batch = MatrixNormalInverseWishart(LOC.expand(4, D, M), PRIOR.precision, F64 + 6.5, PRIOR.scatter)
    for data in (Data.of(X, Y), Data.of(X.expand(4, 6, D), Y.expand(4, 6, M))):
        posterior = batch.condition(data)
        assert posterior.batch_shape == (4,)
        assert posterior.predict(X.expand(4, 6, D)).mean.shape == (4, 6, M)
        assert posterior.sample(5, generator=seed(0))(X.expand(4, 6, D)).shape == (5, 4, 6, M)


@pytest.mark.filterwarnings("ignore:rows of x are so long")  # beyond 1e8 rounding takes the prior's precision
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(log_x=st.floats(-15, 15), log_y=st.floats(-15, 15), same=st.booleans())
@settings(max_examples=40)
def test_answers_are_finite(dtype: torch.dtype, log_x: float, log_y: float, same: bool) -> None:
    """Squares of rows must fit into the dtype of the prior; nothing else is asked of their scale."""
    x, y = (X[:1].expand(6, D), Y[:1].expand(6, M)) if same else (X, Y)
    data = Data.of(x * 10.0**log_x, y * 10.0**log_y).to(dtype)
    prior = PRIOR.to(dtype)
    posterior = prior.condition(data)
    prediction = posterior.predict(data.x)
    found = [prior.log_evidence(data), posterior.loc, posterior.precision, posterior.scatter, prediction.mean]
    found += [prediction.variance, prediction.log_prob(data.y), posterior.sample(3, generator=seed(0))(data.x)]
    for value in found:
        assert value.dtype == dtype
        assert value.isfinite().all()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="precision of task 1 is not positive definite"):
        MatrixNormalInverseWishart(
            LOC.expand(2, D, M), torch.stack([_spd(D, 1), -_spd(D, 1)]), F64 + 6.5, PRIOR.scatter
        )
    with pytest.raises(ValueError, match="scatter of task 1 is not positive definite"):
        MatrixNormalInverseWishart(
            LOC.expand(2, D, M), PRIOR.precision, F64 + 6.5, torch.stack([PRIOR.scatter, -PRIOR.scatter])
        )
    with pytest.raises(ValueError, match="df - 2, its excess over m - 1, must be finite and above zero; got 0"):
        MatrixNormalInverseWishart(LOC, PRIOR.precision, F64 + 2.0, PRIOR.scatter)
    with pytest.raises(ValueError, match="loc must be finite; got nan"):
        MatrixNormalInverseWishart(LOC * math.nan, PRIOR.precision, F64 + 6.5, PRIOR.scatter)
    with pytest.raises(ValueError, match="x must have 2 columns; got 3"):
        PRIOR.condition(Data.of(torch.zeros(4, 3), torch.zeros(4, M)))
    with pytest.raises(ValueError, match=r"y must hold vectors of length 3, shape \(4, 3\); got \(4, 2\)"):
        PRIOR.condition(Data.of(torch.zeros(4, D), torch.zeros(4, 2)))
    with pytest.raises(ValueError, match="at least two tasks with rows, on one axis; got 1"):
        PRIOR.fit(Data.of(X, Y))
