"""Normal-Inverse-Gamma: its maths against scipy and quadrature, its fit against a plain maximiser, its bad input."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import torch
from torch import Tensor

from bayesmeta import Data, NormalInverseGamma, Statistics
from bayesmeta.random import randn
from bayesmeta.warning_kinds import LimitWarning
from tests.families import F64, seed

FAR = 1e6
LOC, PSEUDO_COUNT, CONCENTRATION, RATE = -0.5, 0.7, 2.5, 3.0
PRIOR = NormalInverseGamma(F64 + LOC, F64 + PSEUDO_COUNT, F64 + CONCENTRATION, F64 + RATE)
Y = randn((6,), like=F64, generator=seed(0)) * 2.0 + 1.0


def simulate(prior: NormalInverseGamma, num_tasks: int, num_rows: int) -> Data:
    params = prior.constrain(prior.sample_params(num_tasks, generator=seed(1)))
    noise = randn((num_tasks, num_rows), like=F64, generator=seed(2))
    return Data.of(None, params["mean"][:, None] + params["var"].sqrt()[:, None] * noise)


def evidence_by_scipy(loc: float, pseudo_count: float, concentration: float, rate: float, y: np.ndarray) -> float:
    """The rows of one task are jointly a multivariate Student t."""
    n = len(y)
    shape = rate / concentration * (np.eye(n) + np.full((n, n), 1.0 / pseudo_count))
    return scipy.stats.multivariate_t(np.full(n, loc), shape, df=2.0 * concentration).logpdf(y)


@pytest.mark.parametrize("offset", [0.0, FAR])
def test_evidence_matches_scipy(offset: float) -> None:
    y = Y + offset
    prior = NormalInverseGamma(PRIOR.loc + offset, PRIOR.pseudo_count, PRIOR.concentration, PRIOR.rate)
    near = (y - offset).numpy()  # exact: what the rows are after the offset took their last digits
    expected = evidence_by_scipy(float(prior.loc) - offset, PSEUDO_COUNT, CONCENTRATION, RATE, near)
    assert prior.log_evidence(Data.of(None, y)).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("offset", [0.0, FAR])
def test_posterior_matches_the_textbook(offset: float) -> None:
    y = Y + offset
    prior = NormalInverseGamma(PRIOR.loc + offset, PRIOR.pseudo_count, PRIOR.concentration, PRIOR.rate)
    posterior, near = prior.condition(Data.of(None, y)), (y - offset).numpy()
    n, mean = len(near), near.mean()
    squares = ((near - mean) ** 2).sum() + PSEUDO_COUNT * n / (PSEUDO_COUNT + n) * (mean - LOC) ** 2
    assert posterior.pseudo_count.item() == pytest.approx(PSEUDO_COUNT + n, rel=1e-10)
    assert posterior.concentration.item() == pytest.approx(CONCENTRATION + n / 2, rel=1e-10)
    assert posterior.rate.item() == pytest.approx(RATE + squares / 2, rel=1e-10)
    # the offset itself is held to the last digit of 1e6
    loc = (PSEUDO_COUNT * LOC + n * mean) / (PSEUDO_COUNT + n)
    assert posterior.loc.item() - offset == pytest.approx(loc, rel=1e-10, abs=offset * 1e-15)


def test_density_and_prediction_by_quadrature() -> None:
    # in standard coordinates, whose integrand is smooth and decays: the trapezoid rule is then exact to many digits
    log_var, score = torch.linspace(-9, 16, 1501, dtype=torch.float64), torch.linspace(-9, 9, 401, dtype=torch.float64)
    scale = (0.5 * (log_var - math.log(PSEUDO_COUNT))).exp()
    params = torch.stack(torch.broadcast_tensors(LOC + scale[:, None] * score, log_var[:, None]), -1)
    density = PRIOR.log_prob(params).exp() * scale[:, None]

    def integral(values: Tensor) -> float:
        return torch.trapezoid(torch.trapezoid(density * values, score), log_var).item()

    assert integral(torch.ones(())) == pytest.approx(1.0, rel=1e-10)
    for y in (-2.0, 0.3):
        each = scipy.stats.norm(params[..., 0], params[..., 1].mul(0.5).exp()).pdf(y)
        assert PRIOR.predict().log_prob(F64 + y).exp().item() == pytest.approx(
            integral(torch.as_tensor(each)), rel=1e-9
        )


def test_density_matches_scipy() -> None:
    mean, var = 0.4, 1.7
    expected = (
        scipy.stats.norm(LOC, math.sqrt(var / PSEUDO_COUNT)).logpdf(mean)
        + scipy.stats.invgamma(CONCENTRATION, scale=RATE).logpdf(var)
        + math.log(var)
    )
    params = torch.tensor([mean, math.log(var)], dtype=torch.float64)
    assert PRIOR.log_prob(params).item() == pytest.approx(expected, rel=1e-10)
    constrained = PRIOR.constrain(params)
    assert (constrained["mean"].item(), constrained["var"].item()) == pytest.approx((mean, var))


def test_joint_matches_scipy() -> None:
    joint = PRIOR.joint(torch.zeros(3, 0))
    expected = scipy.stats.t(2 * CONCENTRATION, LOC, math.sqrt(RATE / CONCENTRATION / PSEUDO_COUNT))
    assert joint.variance[1].item() == pytest.approx(expected.var(), rel=1e-10)
    assert joint.mean.tolist() == pytest.approx([LOC] * 3)


def test_fit_finds_the_greatest_evidence() -> None:
    tasks = simulate(PRIOR, 60, 7)
    fitted = NormalInverseGamma.initial(tasks).fit(tasks, hyperprior_weight=0.0)

    def loss(vector: np.ndarray) -> float:
        """Row after row, each by scipy's t, over all tasks."""
        loc, (count, concentration, rate), total = vector[0], np.exp(vector[1:]), 0.0
        for y in tasks.y.numpy().T:
            scale = np.sqrt(rate / concentration * (1.0 + 1.0 / count))
            total += scipy.stats.t.logpdf(y, 2.0 * concentration, loc, scale).sum()
            rate = rate + 0.5 * count / (count + 1.0) * (y - loc) ** 2
            loc, count, concentration = (count * loc + y) / (count + 1.0), count + 1.0, concentration + 0.5
        return -total

    start = np.array([fitted.loc, *(v.log() for v in (fitted.pseudo_count, fitted.concentration, fitted.rate))]) + 0.1
    best = scipy.optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9})
    found = [fitted.loc, fitted.pseudo_count.log(), fitted.concentration.log(), fitted.rate.log()]
    assert fitted.log_evidence(tasks).sum().item() == pytest.approx(-best.fun, rel=1e-10)
    assert [v.item() for v in found] == pytest.approx(best.x.tolist(), rel=1e-6, abs=1e-6)


def test_fit_recovers_known_hyperparameters() -> None:
    fitted = NormalInverseGamma.initial(tasks := simulate(PRIOR, 4000, 10)).fit(tasks)
    assert fitted.loc.item() == pytest.approx(LOC, abs=0.15)  # about +- .022, and the others +- .03 of the truth
    assert fitted.pseudo_count.item() == pytest.approx(PSEUDO_COUNT, rel=0.2)
    assert fitted.concentration.item() == pytest.approx(CONCENTRATION, rel=0.2)
    assert fitted.rate.item() == pytest.approx(RATE, rel=0.2)
    assert fitted.learned_from is not None
    assert (fitted.learned_from.tasks, fitted.learned_from.rows) == (4000, 40_000)


@pytest.mark.parametrize(("unit", "offset"), [(1e-9, 0.0), (1e9, 0.0), (1.0, FAR)])
def test_fit_does_not_depend_on_units(unit: float, offset: float) -> None:
    tasks = simulate(PRIOR, 200, 6)
    moved = Data.of(None, tasks.y * unit + offset)
    plain = NormalInverseGamma.initial(tasks).fit(tasks)
    fitted = NormalInverseGamma.initial(moved).fit(moved)
    assert (fitted.loc.item() - offset) / unit == pytest.approx(plain.loc.item(), rel=1e-5)
    assert fitted.pseudo_count.item() == pytest.approx(plain.pseudo_count.item(), rel=1e-5)
    assert fitted.concentration.item() == pytest.approx(plain.concentration.item(), rel=1e-5)
    assert fitted.rate.item() / unit**2 == pytest.approx(plain.rate.item(), rel=1e-5)


def test_fit_of_tasks_that_do_not_differ_ends_at_a_large_count() -> None:
    tasks = Data.of(None, randn((50, 20), like=F64, generator=seed(4)))
    centred = tasks.y - tasks.y.mean(-1, keepdim=True)
    tasks = Data.of(None, centred / centred.std(-1, keepdim=True))
    with pytest.warns(LimitWarning) as caught:
        fitted = NormalInverseGamma.initial(tasks).fit(tasks, hyperprior_weight=0.0)
    assert [str(w.message).split(",")[0] for w in caught] == [
        "log_pseudo_count ended at its limit",
        "log_concentration ended at its limit",
    ]
    assert fitted.pseudo_count.item() > 1e5
    assert fitted.loc.item() == pytest.approx(0.0, abs=1e-3)
    # the hyperprior keeps some doubt
    assert NormalInverseGamma.initial(tasks).fit(tasks).pseudo_count.item() < 1e4


def test_empty_tasks_do_not_move_the_fit() -> None:
    tasks = simulate(PRIOR, 50, 5)
    ragged = Data.pad([(None, y) for y in tasks.y] + [(None, torch.zeros(0, dtype=torch.float64))] * 3)
    plain, fitted = (NormalInverseGamma.initial(t).fit(t) for t in (tasks, ragged))
    assert fitted.rate.item() == pytest.approx(plain.rate.item(), rel=1e-6)
    assert fitted.learned_from == plain.learned_from


def test_fit_keeps_float32() -> None:
    tasks = simulate(PRIOR, 50, 5).to(torch.float32)
    fitted = NormalInverseGamma.initial(tasks).fit(tasks)
    assert fitted.rate.dtype == torch.float32
    assert fitted.log_evidence(tasks).dtype == torch.float32


def test_statistics_stand_for_rows() -> None:
    data = Data.pad([(None, Y), (None, Y[:2])])
    left, right = PRIOR.condition(data), PRIOR.condition(Statistics.of(data))
    assert torch.equal(left.rate, right.rate)


def test_a_batch_of_priors_meets_one_task_or_many() -> None:
    batch = NormalInverseGamma(torch.arange(3.0, dtype=torch.float64), F64 + 1.0, F64 + 2.0, F64 + 3.0)
    assert batch.rate.shape == (3,)
    for data in (Data.of(None, Y), Data.of(None, Y.expand(3, 6))):
        posterior = batch.condition(data)
        assert posterior.batch_shape == (3,)
        assert posterior.predict(torch.zeros(3, 4, 0)).batch_shape == (3, 4)
        assert posterior.sample(2, generator=seed(0))(torch.zeros(3, 4, 0)).shape == (2, 3, 4)
        assert posterior.joint().mean.shape == (3, 1)


def test_a_prior_without_batch_answers_rows_of_many_tasks() -> None:
    x = torch.zeros(3, 4, 0)
    assert PRIOR.predict(x).mean.shape == (3, 4)
    assert PRIOR.sample(2, generator=seed(0))(x).shape == (2, 3, 4)
    assert PRIOR.joint(x).mean.shape == (3, 4)


@pytest.mark.parametrize("name", ["pseudo_count", "concentration", "rate"])
def test_hyperparameters_must_be_positive(name: str) -> None:
    fields = {"loc": F64, "pseudo_count": F64 + 1, "concentration": F64 + 1, "rate": F64 + 1, name: F64 - 1}
    with pytest.raises(ValueError, match=f"{name} must be finite and above zero; got -1"):
        NormalInverseGamma(**fields)


def test_loc_must_be_finite() -> None:
    with pytest.raises(ValueError, match="loc must be finite; got nan"):
        NormalInverseGamma(F64 + math.nan, F64 + 1, F64 + 1, F64 + 1)


def _tasks(*rows: list[float]) -> Data:
    return Data.pad([(None, torch.tensor(r, dtype=torch.float64)) for r in rows])


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (_tasks([], []), "at least one row; got 2 tasks, all empty"),
        (_tasks([1.0, 2.0], []), "at least two tasks with rows, on one axis; got 1"),
        (_tasks([3.0, 3.0], [3.0]), "y must vary to be learned from; column 0 is 3 in every row"),
        (_tasks([3.0, 3.0], [4.0]), "rows that differ within tasks"),
        (_tasks([3.0], [4.0]), "rows that differ within tasks"),
    ],
)
def test_fit_refuses_tasks_that_say_too_little(tasks: Data, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PRIOR.fit(tasks)


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="This family has no inputs: give x=None"):
        PRIOR.condition(Data.of(torch.zeros(3, 2), torch.zeros(3)))
    with pytest.raises(ValueError, match="y must hold one number per row"):
        PRIOR.condition(Data.of(None, torch.zeros(3, 2), event_dim=1))
    with pytest.raises(ValueError, match=r"x must be None or have shape \(..., q, 0\); got \(3, 2\)"):
        PRIOR.predict(torch.zeros(3, 2))
