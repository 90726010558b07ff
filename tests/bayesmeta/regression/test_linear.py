"""Linear regression with Gaussian weights: maths against scipy, fit against a plain maximiser, bad input."""

import math
import warnings

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch

from bayesmeta import Data, LinearGaussian, LinearNormalInverseGamma, MatrixNormalInverseWishart, Statistics
from bayesmeta.data.validation import require_positive_definite
from bayesmeta.numerics.linalg import pack_tril, unpack_tril
from bayesmeta.random import rand, randn
from bayesmeta.regression.linear_em import LARGEST_SWEEP, inverses
from bayesmeta.warning_kinds import PlacementWarning
from tests.families import F64, seed

FAR = 1e6
LOC = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
PRECISION = torch.tensor([[2.0, 0.5, 0.1], [0.5, 1.0, -0.2], [0.1, -0.2, 0.8]], dtype=torch.float64)
PRIOR = LinearGaussian(LOC, PRECISION, F64 + 0.3)


def inputs(*shape: int, number: int = 0) -> torch.Tensor:
    """The last column is the intercept."""
    x = randn((*shape, 3), like=F64, generator=seed(number))
    x[..., 2] = 1.0
    return x


X, Y = inputs(6), randn((6,), like=F64, generator=seed(1))


def simulate(prior: LinearGaussian, num_tasks: int, num_rows: int) -> Data:
    x = inputs(num_tasks, num_rows, number=2)
    weights = prior.sample_params(num_tasks, generator=seed(3))
    noise = randn((num_tasks, num_rows), like=F64, generator=seed(4)) * prior.noise_var.sqrt()
    return Data.of(x, (x @ weights[..., None])[..., 0] + noise)


def evidence_by_scipy(loc: np.ndarray, cov: np.ndarray, noise_var: float, x: np.ndarray, y: np.ndarray) -> float:
    return scipy.stats.multivariate_normal(x @ loc, x @ cov @ x.T + noise_var * np.eye(len(y))).logpdf(y)


@pytest.mark.parametrize("offset", [0.0, FAR])
def test_evidence_matches_scipy(offset: float) -> None:
    y = Y + offset
    prior = LinearGaussian(LOC + torch.tensor([0.0, 0.0, offset]), PRECISION, PRIOR.noise_var)
    cov, near = torch.linalg.inv(PRECISION).numpy(), (y - offset).numpy()
    expected = evidence_by_scipy(LOC.numpy(), cov, 0.3, X.numpy(), near)
    assert prior.log_evidence(Data.of(X, y)).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("offset", [0.0, FAR])
def test_posterior_and_prediction_match_the_textbook(offset: float) -> None:
    y = Y + offset
    prior = LinearGaussian(LOC + torch.tensor([0.0, 0.0, offset]), PRECISION, PRIOR.noise_var)
    posterior = prior.condition(Data.of(X, y))
    x, near, precision = X.numpy(), (y - offset).numpy(), PRECISION.numpy()
    total = precision + x.T @ x / 0.3
    loc = np.linalg.solve(total, precision @ LOC.numpy() + x.T @ near / 0.3)
    np.testing.assert_allclose(posterior.precision, total, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(posterior.loc.numpy() - [0, 0, offset], loc, rtol=1e-10, atol=1e-10 + offset * 1e-15)
    new = inputs(4, number=7)
    var = np.einsum("ij,jk,ik->i", new.numpy(), np.linalg.inv(total), new.numpy())
    np.testing.assert_allclose(posterior.predict(new).variance, var + 0.3, rtol=1e-10)
    np.testing.assert_allclose(posterior.joint(new).variance, var, rtol=1e-10)
    np.testing.assert_allclose(posterior.predict(new).mean - offset, new.numpy() @ loc, rtol=1e-9, atol=1e-9)


def test_density_matches_scipy() -> None:
    weights = randn((3,), like=F64, generator=seed(0))
    expected = scipy.stats.multivariate_normal(LOC, torch.linalg.inv(PRECISION)).logpdf(weights)
    assert PRIOR.log_prob(weights).item() == pytest.approx(expected, rel=1e-10)
    assert torch.equal(PRIOR.constrain(weights)["weights"], weights)


def test_fit_finds_the_greatest_evidence() -> None:
    tasks = simulate(PRIOR, 40, 8)
    fitted = LinearGaussian.initial(tasks).fit(tasks, hyperprior_weight=0.0)
    cov = torch.linalg.inv(fitted.precision)

    def loss(vector: np.ndarray) -> float:
        factor = unpack_tril(torch.as_tensor(vector[4:]), 3).numpy()
        x, y, noise_var = tasks.x.numpy(), tasks.y.numpy(), np.exp(vector[3])
        total = x @ (factor @ factor.T) @ x.transpose(0, 2, 1) + noise_var * np.eye(8)
        residual = y - x @ vector[:3]
        distance = (residual * np.linalg.solve(total, residual[..., None])[..., 0]).sum()
        return 0.5 * (distance + np.linalg.slogdet(total)[1].sum() + y.size * math.log(2 * math.pi))

    found = torch.cat([fitted.loc, fitted.noise_var.log()[None], pack_tril(torch.linalg.cholesky(cov))]).numpy()
    assert -loss(found) == pytest.approx(fitted.log_evidence(tasks).sum().item(), rel=1e-10)
    best = scipy.optimize.minimize(loss, found + 0.1, method="BFGS", options={"gtol": 1e-6})
    assert fitted.log_evidence(tasks).sum().item() == pytest.approx(-best.fun, rel=1e-6)
    assert found == pytest.approx(best.x, rel=1e-2, abs=1e-2)  # EM is slow at the end, where the evidence is flat


def test_fit_recovers_known_hyperparameters() -> None:
    tasks = simulate(PRIOR, 3000, 15)
    fitted = LinearGaussian.initial(tasks).fit(tasks)
    torch.testing.assert_close(fitted.loc, LOC, rtol=0, atol=0.1)
    torch.testing.assert_close(torch.linalg.inv(fitted.precision), torch.linalg.inv(PRECISION), rtol=0.1, atol=0.05)
    assert fitted.noise_var.item() == pytest.approx(0.3, rel=0.02)
    assert fitted.learned_from is not None
    assert (fitted.learned_from.tasks, fitted.learned_from.rows) == (3000, 45_000)


def test_fit_does_not_depend_on_units() -> None:
    tasks = simulate(PRIOR, 100, 8)
    plain = LinearGaussian.initial(tasks).fit(tasks)
    x_unit, y_unit = torch.tensor([1e-6, 1e6, 1.0], dtype=torch.float64), 1e5
    moved = Data.of(tasks.x * x_unit, tasks.y * y_unit)
    fitted = LinearGaussian.initial(moved).fit(moved)
    assert fitted.noise_var.item() / y_unit**2 == pytest.approx(plain.noise_var.item(), rel=1e-4)
    torch.testing.assert_close(fitted.loc * x_unit / y_unit, plain.loc, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("power", [-150, 150])
@pytest.mark.parametrize("family", [LinearGaussian, LinearNormalInverseGamma])
def test_y_may_have_any_unit(family: type, power: int) -> None:
    tasks, unit = simulate(PRIOR, 12, 8), 10.0**power
    moved = Data.of(tasks.x, tasks.y * unit)
    plain, scaled = (family.initial(t).fit(t).condition(t[0]) for t in (tasks, moved))
    torch.testing.assert_close(scaled.predict(X).mean / unit, plain.predict(X).mean, rtol=1e-7, atol=1e-7)
    expected = plain.log_evidence(tasks[1]).item() - 8 * power * math.log(10.0)
    # both searches end where steps no longer gain, by different roundings: the prior of each is its own to 1e-7
    assert scaled.log_evidence(moved[1]).item() == pytest.approx(expected, abs=1e-4)


def test_precision_stays_symmetric_to_the_last_digit() -> None:
    tasks = simulate(PRIOR, 200, 9)
    for prior in (PRIOR.condition(tasks), PRIOR.fit(tasks)):
        assert torch.equal(prior.precision, prior.precision.mT)


def test_statistics_stand_for_rows() -> None:
    data = Data.pad([(X, Y), (X[:2], Y[:2])])
    assert torch.equal(PRIOR.condition(data).loc, PRIOR.condition(Statistics.of(data)).loc)


def test_a_batch_of_priors_meets_one_task_or_many() -> None:
    batch = PRIOR.condition(Data.of(X.expand(4, 6, 3), rand((4, 6), like=F64, generator=seed(0))))
    for data in (Data.of(X, Y), Data.of(X.expand(4, 6, 3), Y.expand(4, 6))):
        posterior = batch.condition(data)
        assert posterior.batch_shape == (4,)
        assert posterior.predict(X.expand(4, 6, 3)).mean.shape == (4, 6)
        assert posterior.sample(5, generator=seed(0))(X.expand(4, 6, 3)).shape == (5, 4, 6)


def test_bad_hyperparameters_are_refused() -> None:
    with pytest.raises(ValueError, match="noise_var must be finite and above zero; got 0"):
        LinearGaussian(LOC, PRECISION, F64)
    with pytest.raises(ValueError, match="loc must be finite; got nan at 0"):
        LinearGaussian(LOC * math.nan, PRECISION, F64 + 1)
    with pytest.raises(ValueError, match="precision is not positive definite"):
        LinearGaussian(LOC, -PRECISION, F64 + 1)
    # the constructor asks this, after the annotations that only tests check
    with pytest.raises(
        ValueError, match=r"precision must have shape \(..., 3, 3\), as loc has 3 entries; got \(2, 2\)"
    ):
        require_positive_definite("precision", torch.eye(2), 3)


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="x must have 3 columns; got 2"):
        PRIOR.condition(Data.of(X[:, :2], Y))
    with pytest.raises(ValueError, match="y must hold one number per row"):
        PRIOR.condition(Data.of(X, X, event_dim=1))


def test_fit_refuses_tasks_that_say_too_little() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        PRIOR.fit(Data.of(torch.zeros(3, 0, 3), torch.zeros(3, 0)))
    with pytest.raises(ValueError, match="at least two tasks with rows, on one axis; got 1"):
        PRIOR.fit(Data.of(X, Y))


@pytest.mark.parametrize("d", [1, 3, LARGEST_SWEEP, LARGEST_SWEEP + 1])
def test_inverses_of_all_tasks_at_once(d: int) -> None:
    root = randn((20, d, d), like=F64, generator=seed(0))
    matrix = root @ root.mT + 1e-3 * torch.eye(d, dtype=torch.float64)
    inverse = inverses(matrix.permute(1, 2, 0).clone().numpy()).transpose(2, 0, 1)
    np.testing.assert_allclose(inverse, torch.linalg.inv(matrix), rtol=1e-8, atol=1e-8)


def test_empty_tasks_do_not_move_the_greatest_evidence() -> None:
    tasks = simulate(PRIOR, 40, 8)
    more = Data.pad([*((x, y) for x, y in zip(tasks.x, tasks.y, strict=True)), (X[:0], Y[:0])])
    left, right = (LinearGaussian.initial(t).fit(t, hyperprior_weight=0.0) for t in (tasks, more))
    torch.testing.assert_close(left.precision, right.precision, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(left.noise_var, right.noise_var, rtol=1e-10, atol=1e-10)


def test_both_optimisers_find_the_same_prior() -> None:
    """EM and L-BFGS on the evidence alone."""
    tasks = simulate(PRIOR, 60, 8)
    initial = LinearGaussian.initial(tasks)
    plain = initial.fit(tasks, hyperprior_weight=0.0)
    nearly = initial.fit(tasks, hyperprior_weight=1e-12)
    assert plain.log_evidence(tasks).sum().item() == pytest.approx(nearly.log_evidence(tasks).sum().item(), rel=1e-8)
    torch.testing.assert_close(plain.loc, nearly.loc, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore::bayesmeta.warning_kinds.LimitWarning")
def test_few_tasks_do_not_collapse() -> None:
    """Three tasks cannot say how three weights vary together: plain EM drops a direction, the default keeps it."""
    tasks = simulate(PRIOR, 3, 4)
    initial = LinearGaussian.initial(tasks)
    least = [
        torch.linalg.eigvalsh(torch.linalg.inv(initial.fit(tasks, hyperprior_weight=weight).precision)).min().item()
        for weight in (0.0, 1.0)
    ]
    assert least[1] > 100 * least[0]


def test_a_weight_that_follows_from_others_is_said_to() -> None:
    """The search may also end on the way to the limit, where nothing is to be gained any more."""
    said = 0
    for number in range(16):
        tasks = Data.of(inputs(3, 4, number=50 + number), randn((3, 4), like=F64, generator=seed(80 + number)))
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            LinearGaussian.initial(tasks).fit(tasks, hyperprior_weight=0.0)
        said += any("one weight follows from others" in str(each.message) for each in given)
    assert said >= 1


@pytest.mark.parametrize("known", [False, True])
def test_rows_alone_in_their_tasks_have_the_evidence_of_any_rows(known: bool) -> None:
    """By one number per task, or by a matrix as where one task of the batch has two rows."""
    g = seed(8)
    x, y = inputs(30, 1, number=9), randn((30, 1), like=F64, generator=g)
    x[..., 2] = 2000.0
    alone, among = Data.of(x, y), Data.pad([*zip(x, y, strict=True), (inputs(2, number=10), Y[:2])])
    for family in (LinearGaussian, LinearNormalInverseGamma):
        initial = family.initial(among, shared=[1] if known else [])
        left, right = initial.hyperparameters(alone), initial.hyperparameters(among)
        vector = left.start + 0.1
        built = left.build(vector)
        torch.testing.assert_close(left.log_evidence(vector), built.log_evidence(alone), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            right.log_evidence(vector)[:30], right.build(vector).log_evidence(alone), rtol=1e-9, atol=1e-9
        )


def test_restricted_evidence_integrates_the_mean_out() -> None:
    """log of the integral of the evidence over loc under a flat prior, by quadrature, and what is known of loc then."""
    apart = torch.linspace(1.0, 5.0, 5, dtype=torch.float64)[:, None]
    tasks = Data.of(
        torch.full((5, 4, 1), 2.0, dtype=torch.float64), apart + randn((5, 4), like=F64, generator=seed(11))
    )
    initial = LinearGaussian.initial(tasks)
    found = initial.variance_components(tasks)
    prior = LinearGaussian(found.loc, torch.linalg.inv(found.between_cov + 1e-12), found.noise_var)
    sd = found.loc_cov[0, 0].sqrt()
    grid = found.loc + sd * torch.linspace(-12.0, 12.0, 2001, dtype=torch.float64)[:, None]
    each = torch.stack(
        [LinearGaussian(loc, prior.precision, prior.noise_var).log_evidence(tasks).sum() for loc in grid]
    )
    step = (grid[1] - grid[0]).item()
    assert found.log_evidence.item() == pytest.approx(each.logsumexp(0).item() + math.log(step), abs=1e-6)
    share = each.softmax(0)
    assert (share @ (grid[:, 0] - found.loc).square()).item() == pytest.approx(found.loc_cov.item(), rel=1e-6)
    fitted = initial.fit(tasks, restricted=True, hyperprior_weight=0.0)
    torch.testing.assert_close(torch.linalg.inv(fitted.precision), found.between_cov + found.loc_cov)


@pytest.mark.parametrize("restricted", [False, True])
def test_weights_that_tasks_share_do_not_vary_in_the_prior(restricted: bool) -> None:
    tasks = simulate(PRIOR, 40, 8)
    initial = LinearGaussian.initial(tasks, shared=[1])
    found = initial.variance_components(tasks, restricted=restricted)
    assert not found.between_cov[1].any()
    fitted = initial.fit(tasks, hyperprior_weight=0.0, restricted=restricted)
    sd = torch.linalg.inv(fitted.precision)[1, 1].sqrt().item()
    assert sd == pytest.approx(found.loc_cov[1, 1].sqrt().item() if restricted else 0.0, rel=1e-6, abs=1e-6)
    moved = fitted.condition(Data.of(X, 100.0 + Y)).loc[1].item()
    assert (moved == pytest.approx(fitted.loc[1].item(), abs=1e-6)) != restricted


def test_a_prior_that_knows_shared_weights_learns_them_anew() -> None:
    tasks = simulate(PRIOR, 40, 8)
    other = Data.of(tasks.x, tasks.y + 5.0 * tasks.x[..., 1])
    initial = LinearGaussian.initial(tasks, shared=[1])
    fitted = initial.fit(tasks)
    again = fitted.fit(other)
    assert again.loc[1].item() == pytest.approx(fitted.loc[1].item() + 5.0, abs=0.1)


def test_designs_that_do_not_tell_weights_apart_have_no_restricted_evidence() -> None:
    x = torch.ones(4, 3, 2, dtype=torch.float64)
    tasks = Data.of(x, randn((4, 3), like=F64, generator=seed(12)))
    with pytest.raises(ValueError, match="information about the weights is not positive definite"):
        LinearGaussian.initial(tasks).fit(tasks, restricted=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", ["LinearGaussian", "LinearNormalInverseGamma", "MatrixNormalInverseWishart"])
def test_rows_too_long_for_the_digits_of_the_prior_are_answered_with_a_warning(family: str, dtype: torch.dtype) -> None:
    """Next to the squares of such rows the precision of the prior is lost: answers are finite, and that is said."""
    zero, one = torch.zeros(3, dtype=dtype), torch.ones((), dtype=dtype)
    prior = {
        "LinearGaussian": lambda: LinearGaussian(zero, torch.eye(3, dtype=dtype), one),
        "LinearNormalInverseGamma": lambda: LinearNormalInverseGamma(zero, torch.eye(3, dtype=dtype), 2 * one, one),
        "MatrixNormalInverseWishart": lambda: MatrixNormalInverseWishart(
            zero[:, None], torch.eye(3, dtype=dtype), 4 * one, one[None, None]
        ),
    }[family]()
    warned = 0
    for number in range(8):
        row = rand((1, 3), like=one, generator=seed(number)) * 10.0 ** (7 + number)
        y = one.expand(6, 1) if family == "MatrixNormalInverseWishart" else one.expand(6)
        data = Data.of(row.expand(6, 3), y, event_dim=y.ndim - 1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PlacementWarning)
            posterior = prior.condition(data)
            assert posterior.predict(data.x).mean.isfinite().all()
            assert prior.log_evidence(data).isfinite()
        warned += any("divide x by its scale" in str(w.message) for w in caught)
    assert warned >= 4
