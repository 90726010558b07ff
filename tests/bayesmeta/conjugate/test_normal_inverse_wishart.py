"""Normal-Inverse-Wishart: its maths against scipy and quadrature, its fit against a plain maximiser, its bad input."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from bayesmeta import Data, NormalInverseGamma, NormalInverseWishart, Statistics
from bayesmeta.numerics.linalg import pack_tril, unpack_tril
from bayesmeta.random import randn
from tests.families import F64, seed

FAR = 1e6
D = 3
LOC = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
SCATTER = torch.tensor([[4.0, 1.0, 0.5], [1.0, 3.0, -0.7], [0.5, -0.7, 5.0]], dtype=torch.float64)
PRIOR = NormalInverseWishart(LOC, F64 + 0.7, F64 + 6.5, SCATTER)
Y = randn((7, D), like=F64, generator=seed(0)) @ SCATTER + 1.0


def shifted(prior: NormalInverseWishart, offset: float) -> NormalInverseWishart:
    return NormalInverseWishart(prior.loc + offset, prior.pseudo_count, prior.df, prior.scatter)


def simulate(prior: NormalInverseWishart, num_tasks: int, num_rows: int) -> Data:
    functions = prior.sample(num_tasks, generator=seed(1))
    noise = randn((num_tasks, num_rows, len(prior.loc)), like=F64, generator=seed(2))
    return Data.of(None, functions.mean[:, None] + noise @ functions.scale_tril.mT, event_dim=1)


def textbook(
    loc: np.ndarray, pseudo_count: float, df: float, scatter: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, float, float, np.ndarray]:
    """One row after the other, which needs no scatter of the rows."""
    for row in y:
        scatter = scatter + pseudo_count / (pseudo_count + 1.0) * np.outer(row - loc, row - loc)
        loc, pseudo_count, df = (pseudo_count * loc + row) / (pseudo_count + 1.0), pseudo_count + 1.0, df + 1.0
    return loc, pseudo_count, df, scatter


def evidence_by_scipy(loc: np.ndarray, pseudo_count: float, df: float, scatter: np.ndarray, y: np.ndarray) -> float:
    """The product of one-step predictions, each a multivariate Student t."""
    total, d = 0.0, len(loc)
    for i, row in enumerate(y):
        m, k, v, s = textbook(loc, pseudo_count, df, scatter, y[:i])
        total += scipy.stats.multivariate_t(m, s * (k + 1.0) / (k * (v - d + 1.0)), df=v - d + 1.0).logpdf(row)
    return total


def natural(prior: NormalInverseWishart) -> tuple[np.ndarray, float, float, np.ndarray]:
    return prior.loc.numpy(), prior.pseudo_count.item(), prior.df.item(), prior.scatter.numpy()


@pytest.mark.parametrize("offset", [0.0, FAR])
def test_evidence_matches_scipy(offset: float) -> None:
    y, prior = Y + offset, shifted(PRIOR, offset)
    # exact: what rows and loc are after the offset took their last digits
    near, loc = (y - offset).numpy(), (prior.loc - offset).numpy()
    expected = evidence_by_scipy(loc, *natural(PRIOR)[1:], near)
    assert prior.log_evidence(Data.of(None, y, event_dim=1)).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("offset", [0.0, FAR])
def test_posterior_matches_row_by_row_updates(offset: float) -> None:
    y, prior = Y + offset, shifted(PRIOR, offset)
    near, at = (y - offset).numpy(), (prior.loc - offset).numpy()
    loc, pseudo_count, df, scatter = textbook(at, *natural(PRIOR)[1:], near)
    posterior = prior.condition(Data.of(None, y, event_dim=1))
    assert posterior.pseudo_count.item() == pytest.approx(pseudo_count, rel=1e-10)
    assert posterior.df.item() == pytest.approx(df, rel=1e-10)
    np.testing.assert_allclose(posterior.scatter.numpy(), scatter, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose((posterior.loc - offset).numpy(), loc, rtol=1e-10, atol=offset * 1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scatter_stays_symmetric_to_the_last_digit(dtype: torch.dtype) -> None:
    tasks = Data.of(None, randn((500, 9, D), like=F64, generator=seed(3)) + 1e3, event_dim=1)
    scatter = PRIOR.to(dtype).condition(tasks.to(dtype)).scatter
    assert scatter.dtype == dtype
    assert torch.equal(scatter, scatter.mT)


def test_one_dimension_is_normal_inverse_gamma() -> None:
    y = Y[:, 0]
    niw = NormalInverseWishart(F64.new_zeros(1), F64 + 0.7, F64 + 5.0, F64 + 6.0 * torch.eye(1))
    nig = NormalInverseGamma(F64, F64 + 0.7, F64 + 2.5, F64 + 3.0)
    left, right = niw.condition(Data.of(None, y[:, None], event_dim=1)), nig.condition(Data.of(None, y))
    assert left.scatter.item() == pytest.approx(2.0 * right.rate.item(), rel=1e-12)
    mean, log_var = F64 + 0.3, F64 + 0.9
    # a log variance is twice the log of the factor, so that the densities differ by log 2
    wide = left.log_prob(torch.stack([mean, log_var / 2.0]))
    assert wide.item() == pytest.approx(right.log_prob(torch.stack([mean, log_var])).item() + math.log(2.0), rel=1e-10)


def test_density_matches_scipy_and_the_jacobian_autograd() -> None:
    params = PRIOR.sample_params(1, generator=seed(0))[0]
    parts = PRIOR.constrain(params)
    mean, cov = parts["mean"].numpy(), parts["cov"].numpy()
    expected = scipy.stats.multivariate_normal(LOC, cov / PRIOR.pseudo_count.item()).logpdf(mean)
    expected += scipy.stats.invwishart(PRIOR.df.item(), SCATTER.numpy()).logpdf(cov)
    row, column = torch.tril_indices(D, D)

    def distinct_entries(packed: Tensor) -> Tensor:
        factor = unpack_tril(packed, D)
        return (factor @ factor.mT)[row, column]

    jacobian = torch.autograd.functional.jacobian(distinct_entries, params[D:])
    expected += torch.linalg.slogdet(jacobian).logabsdet.item()
    assert PRIOR.log_prob(params).item() == pytest.approx(expected, rel=1e-10)


def test_density_of_the_covariance_integrates_to_one() -> None:
    """By quadrature for d = 2: at mean = loc, less the normal's height there, only the covariance is left."""
    scatter = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    prior = NormalInverseWishart(F64.new_zeros(2), F64 + 1.0, F64 + 5.0, scatter)
    log_diagonal = torch.linspace(-3.5, 5.0, 86, dtype=torch.float64)
    score = torch.linspace(-12.0, 12.0, 121, dtype=torch.float64)
    a, b, t = torch.meshgrid(log_diagonal, log_diagonal, score, indexing="ij")
    below = (t + 0.6 / 2.0 * (a - b).exp()) * b.exp()  # the entry below the diagonal lives on the scale of its column
    packed = torch.stack([a, b, below], -1)
    factor = unpack_tril(packed, 2)
    height = torch.distributions.MultivariateNormal(factor.new_zeros(2), scale_tril=factor).log_prob(F64.new_zeros(2))
    density = (prior.log_prob(torch.cat([torch.zeros_like(packed[..., :2]), packed], -1)) - height + b).exp()
    total = torch.trapezoid(torch.trapezoid(torch.trapezoid(density, score), log_diagonal), log_diagonal)
    assert total.item() == pytest.approx(1.0, rel=1e-4)


def test_covariance_draws_have_the_mean_of_their_law() -> None:
    num_draws = 20_000
    cov = PRIOR.constrain(PRIOR.sample_params(num_draws, generator=seed(0)))["cov"]
    error = cov.std(0) / num_draws**0.5
    assert ((cov.mean(0) - SCATTER / (PRIOR.df - D - 1)).abs() < 5 * error).all()


def test_prediction_and_joint_match_scipy() -> None:
    prediction, df = PRIOR.predict(), PRIOR.df.item() - D + 1
    cov = SCATTER.numpy() / df
    expected = scipy.stats.multivariate_t(LOC, cov * (1 + 1 / 0.7), df=df)
    assert prediction.log_prob(Y[:1]).item() == pytest.approx(expected.logpdf(Y[0]), rel=1e-10)
    joint = PRIOR.joint(torch.zeros(4, 0))
    assert joint.event_shape == (4, D)
    np.testing.assert_allclose(joint.variance[2], np.diag(cov) / 0.7 * df / (df - 2), rtol=1e-10)


def test_fit_finds_the_greatest_evidence() -> None:
    d = 2
    truth = NormalInverseWishart(LOC[:d], F64 + 0.7, F64 + 6.5, SCATTER[:d, :d].contiguous())
    tasks = simulate(truth, 40, 6)
    fitted = NormalInverseWishart.initial(tasks).fit(tasks, hyperprior_weight=0.0)

    def loss(vector: np.ndarray) -> float:
        factor = unpack_tril(torch.as_tensor(vector[4:]), d).numpy()
        m, (k, excess), s, total = np.tile(vector[:d], (40, 1)), np.exp(vector[2:4]), factor @ factor.T, 0.0
        v, s = d - 1 + excess, np.tile(s, (40, 1, 1))
        # row after row over all tasks: a Student t's density in the determinant of its updated scatter
        for y in tasks.y.numpy().transpose(1, 0, 2):
            new = s + k / (k + 1.0) * (y - m)[:, :, None] * (y - m)[:, None, :]
            gammas = scipy.special.gammaln((v + 1) / 2) - scipy.special.gammaln((v - d + 1) / 2)
            dets = 0.5 * v * np.linalg.slogdet(s)[1] - 0.5 * (v + 1) * np.linalg.slogdet(new)[1]
            total += (gammas + dets + 0.5 * d * np.log(k / (k + 1.0) / np.pi)).sum()
            m, k, v, s = (k * m + y) / (k + 1.0), k + 1.0, v + 1.0, new
        return -total

    found = torch.cat(
        [
            fitted.loc,
            torch.stack([fitted.pseudo_count, fitted.df - (d - 1)]).log(),
            pack_tril(torch.linalg.cholesky(fitted.scatter)),
        ]
    ).numpy()
    assert -loss(found) == pytest.approx(fitted.log_evidence(tasks).sum().item(), rel=1e-10)
    best = scipy.optimize.minimize(loss, found + 0.1, method="BFGS", options={"gtol": 1e-7})
    assert fitted.log_evidence(tasks).sum().item() == pytest.approx(-best.fun, rel=1e-10)
    assert found == pytest.approx(best.x, rel=1e-6, abs=1e-5)


def test_fit_recovers_known_hyperparameters() -> None:
    tasks = simulate(PRIOR, 4000, 10)
    fitted = NormalInverseWishart.initial(tasks).fit(tasks)
    torch.testing.assert_close(fitted.loc, LOC, rtol=0, atol=0.1)
    assert fitted.pseudo_count.item() == pytest.approx(0.7, rel=0.05)
    assert fitted.df.item() == pytest.approx(6.5, rel=0.05)
    torch.testing.assert_close(fitted.scatter, SCATTER, rtol=0.05, atol=0.2)
    assert torch.equal(fitted.scatter, fitted.scatter.mT)
    assert fitted.learned_from is not None
    assert (fitted.learned_from.tasks, fitted.learned_from.rows) == (4000, 40_000)


@pytest.mark.parametrize("offset", [0.0, FAR])
def test_fit_does_not_depend_on_units(offset: float) -> None:
    units = torch.tensor([1e-3, 1.0, 1e3], dtype=torch.float64) if offset else torch.tensor([1e-9, 1.0, 1e9]).double()
    tasks = simulate(PRIOR, 200, 6)
    moved = Data.of(None, tasks.y * units + offset * units, event_dim=1)
    plain, fitted = (NormalInverseWishart.initial(t).fit(t) for t in (tasks, moved))
    torch.testing.assert_close(fitted.loc / units - offset, plain.loc, rtol=1e-4, atol=1e-4)
    assert fitted.pseudo_count.item() == pytest.approx(plain.pseudo_count.item(), rel=1e-5)
    assert fitted.df.item() == pytest.approx(plain.df.item(), rel=1e-5)
    torch.testing.assert_close(fitted.scatter / units / units[:, None], plain.scatter, rtol=1e-4, atol=1e-4)


def test_empty_tasks_do_not_move_the_fit() -> None:
    tasks = simulate(PRIOR, 50, 5)
    ragged = Data.pad([(None, y) for y in tasks.y] + [(None, torch.zeros(0, D, dtype=torch.float64))] * 3)
    plain, fitted = (NormalInverseWishart.initial(t).fit(t) for t in (tasks, ragged))
    torch.testing.assert_close(fitted.scatter, plain.scatter, rtol=1e-5, atol=1e-5)
    assert fitted.learned_from == plain.learned_from


def test_statistics_stand_for_rows() -> None:
    data = Data.pad([(None, Y), (None, Y[:2])])
    assert torch.equal(PRIOR.condition(data).scatter, PRIOR.condition(Statistics.of(data)).scatter)


def test_a_batch_of_priors_meets_one_task_or_many() -> None:
    batch = NormalInverseWishart(LOC.expand(4, D), F64 + 1.0, F64 + 5.0, SCATTER)
    assert batch.scatter.shape == (4, D, D)
    for data in (Data.of(None, Y, event_dim=1), Data.of(None, Y.expand(4, 7, D), event_dim=1)):
        posterior = batch.condition(data)
        assert posterior.batch_shape == (4,)
        assert posterior.predict(torch.zeros(4, 2, 0)).mean.shape == (4, 2, D)
        assert posterior.sample(5, generator=seed(0))(torch.zeros(4, 2, 0)).shape == (5, 4, 2, D)
        assert posterior.joint().mean.shape == (4, 1, D)
    assert PRIOR.sample(5, generator=seed(0))(torch.zeros(4, 2, 0)).shape == (5, 4, 2, D)


def test_scatter_must_be_symmetric_positive_definite() -> None:
    batch = SCATTER.repeat(4, 1, 1)
    batch[3] = -batch[3]
    with pytest.raises(ValueError, match="scatter of task 3 is not positive definite"):
        NormalInverseWishart(LOC.expand(4, D), (F64 + 1).expand(4), (F64 + 5).expand(4), batch)
    with pytest.raises(ValueError, match="scatter must be symmetric"):
        NormalInverseWishart(LOC, F64 + 1, F64 + 5, SCATTER.triu())
    with pytest.raises(ValueError, match=r"scatter is not positive definite \(it is not finite"):
        NormalInverseWishart(LOC, F64 + 1, F64 + 5, SCATTER * math.nan)


def test_counts_must_be_large_enough() -> None:
    with pytest.raises(ValueError, match="df - 2, its excess over d - 1, must be finite and above zero; got 0"):
        NormalInverseWishart(LOC, F64 + 1, F64 + 2, SCATTER)
    with pytest.raises(ValueError, match="pseudo_count must be finite and above zero; got 0"):
        NormalInverseWishart(LOC, F64, F64 + 5, SCATTER)


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"y must hold vectors of length 3, shape \(5, 3\); got \(5, 2\)"):
        PRIOR.condition(Data.of(None, torch.zeros(5, 2), event_dim=1))
    with pytest.raises(ValueError, match="statistics must be of 0 inputs and 3 outputs; got 0 and 2"):
        PRIOR.condition(Statistics.zeros((), 0, 2))


def _tasks(num_tasks: int, num_rows: int) -> Data:
    return Data.of(None, randn((num_tasks, num_rows, D), like=F64, generator=seed(5)), event_dim=1)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (_tasks(2, 0), "at least one row; got 2 tasks, all empty"),
        (_tasks(1, 5), "at least two tasks with rows"),
        (_tasks(9, 1), "rows that differ within tasks, in every direction of y"),
        (_tasks(2, 2), "rows that differ within tasks, in every direction of y"),
        (Data.of(None, _tasks(5, 5).y * torch.tensor([1.0, 0.0, 1.0]), event_dim=1), "column 1 is 0 in every row"),
    ],
)
def test_fit_refuses_tasks_that_say_too_little(tasks: Data, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PRIOR.fit(tasks)
