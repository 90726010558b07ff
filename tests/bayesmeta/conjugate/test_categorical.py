"""Dirichlet-categorical: its maths against scipy, its fit against Minka's fixed point, its bad input; special.py."""

import math
import time

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayesmeta import BetaBernoulli, Data, DirichletCategorical, Statistics, one_hot
from bayesmeta.conjugate.categorical import _Tallies
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.numerics.special import lgamma_ratio
from bayesmeta.random import categorical
from bayesmeta.warning_kinds import LimitWarning
from tests.families import F64, seed

CONCENTRATION = torch.tensor([1.5, 0.5, 2.5], dtype=torch.float64)
PRIOR = DirichletCategorical(CONCENTRATION)
CODES = torch.tensor([0, 2, 2, 1, 0, 2])
ROWS = Data.of(None, one_hot(CODES, 3), event_dim=1)


def simulate(num_tasks: int, n: int, concentration: Tensor = CONCENTRATION) -> Data:
    logits = DirichletCategorical(concentration).sample(num_tasks, generator=seed(0)).logits
    codes = categorical(n, logits, generator=seed(1)).mT
    return Data.of(None, one_hot(codes, len(concentration)), event_dim=1)


def test_evidence_matches_scipy() -> None:
    counts = np.array([2, 1, 3])
    orders = scipy.special.gammaln(7) - scipy.special.gammaln(counts + 1).sum()
    expected = scipy.stats.dirichlet_multinomial(CONCENTRATION.numpy(), 6).logpmf(counts) - orders
    assert PRIOR.log_evidence(ROWS).item() == pytest.approx(expected, rel=1e-10)


def test_density_matches_scipy() -> None:
    probabilities = np.array([0.2, 0.5, 0.3])
    jacobian = np.log(probabilities).sum()
    params = torch.tensor(np.log(probabilities[:2] / probabilities[2]))
    expected = scipy.stats.dirichlet(CONCENTRATION.numpy()).logpdf(probabilities) + jacobian
    assert PRIOR.log_prob(params).item() == pytest.approx(expected, rel=1e-10)
    assert PRIOR.constrain(params)["probabilities"].tolist() == pytest.approx(probabilities.tolist())


def test_two_classes_are_a_beta() -> None:
    y = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    beta = BetaBernoulli(F64 + 1.5, F64 + 2.5)
    pair = DirichletCategorical(torch.tensor([2.5, 1.5], dtype=torch.float64))
    data = Data.of(None, one_hot(y, 2), event_dim=1)
    assert pair.log_evidence(data).item() == pytest.approx(beta.log_evidence(Data.of(None, y)).item(), rel=1e-12)


def minka(counts: Tensor) -> Tensor:
    """Equation 55: slow and sure."""
    a, digamma, totals = torch.ones(counts.shape[1], dtype=torch.float64), torch.special.digamma, counts.sum(-1)
    for _ in range(20_000):
        shared = (digamma(totals + a.sum()) - digamma(a.sum())).sum()
        new = a * (digamma(counts + a) - digamma(a)).sum(0) / shared
        if ((new / a - 1).abs() < 1e-12).all():
            break
        a = new
    return a


def test_fit_agrees_with_minka() -> None:
    tasks = simulate(300, 8)
    fitted = DirichletCategorical.initial(tasks).fit(tasks, hyperprior_weight=0.0)
    torch.testing.assert_close(fitted.concentration, minka(tasks.y.sum(1)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("hyperprior_weight", [1.0, 0.0])
def test_newton_needs_few_steps_even_where_tasks_hardly_differ(
    hyperprior_weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = simulate(2000, 30, torch.full((10,), 100.0, dtype=torch.float64))
    steps, plain = [], _Tallies.derivatives
    monkeypatch.setattr(_Tallies, "derivatives", lambda self, a: (steps.append(a), plain(self, a))[1])
    DirichletCategorical.initial(tasks).fit(tasks, hyperprior_weight=hyperprior_weight)
    assert 3 <= len(steps) <= 15  # measured 10 and 12, and 4 to 7 where tasks differ


def test_fit_is_the_mode_of_the_hyperposterior() -> None:
    tasks = simulate(30, 8)
    unknown = DirichletCategorical.initial(tasks).hyperparameters(tasks)
    best = most_probable(unknown).requires_grad_()
    (gradient,) = torch.autograd.grad(unknown.log_density(best), best)
    assert gradient.abs().max() < 1e-4
    expected = DirichletCategorical(best.detach().exp()).log_evidence(tasks)
    torch.testing.assert_close(unknown.log_evidence(best.detach()), expected, rtol=1e-12, atol=1e-12)


def test_ten_thousand_groups_of_ten_categories_are_fitted_in_a_blink() -> None:
    tasks = Statistics.of(simulate(10_000, 30, torch.linspace(0.3, 3.0, 10, dtype=torch.float64)), order=1)
    start = time.process_time()
    fitted = DirichletCategorical.initial(tasks).fit(tasks)
    assert time.process_time() - start < 0.3  # measured .03 s
    expected = torch.linspace(0.3, 3.0, 10, dtype=torch.float64)
    torch.testing.assert_close(fitted.concentration, expected, rtol=0.1, atol=0.0)


def test_a_class_that_no_task_has() -> None:
    codes = torch.randint(2, (30, 6), generator=seed(3))
    tasks = Data.of(None, one_hot(codes, 3), event_dim=1)
    fitted = DirichletCategorical.initial(tasks).fit(tasks)
    assert 0.0 < fitted.predict().mean[0, 2].item() < 0.02
    with pytest.warns(LimitWarning, match="log_concentration"):
        plain = DirichletCategorical.initial(tasks).fit(tasks, hyperprior_weight=0.0)
    assert plain.concentration.isfinite().all()


def test_ragged_fit_keeps_float32() -> None:
    y = one_hot(CODES, 3, dtype=torch.float32)
    tasks = Data.pad([(None, y), (None, y[:3]), (None, y[:0])], dtype=torch.float32)
    fitted = DirichletCategorical.initial(tasks).fit(tasks)
    assert fitted.concentration.dtype == fitted.log_evidence(tasks).dtype == torch.float32
    assert fitted.learned_from is not None
    assert fitted.learned_from.tasks == 2


@pytest.mark.parametrize("code", [3, -1, 0.5])
def test_codes_that_are_no_class(code: float) -> None:
    with pytest.raises(ValueError, match=f"classes must be whole numbers from 0 to 2; got {code:g}"):
        one_hot(torch.tensor([0.0, code]), 3)


def test_rows_that_are_not_one_hot() -> None:
    for bad in ([0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.5, 0.5, 0.0]):
        data = Data.of(None, torch.tensor([[0.0, 0.0, 1.0], bad], dtype=torch.float64), event_dim=1)
        with pytest.raises(ValueError, match="y must be one-hot where mask is true; 1 row is not, it is in row 1"):
            PRIOR.condition(data)
    data = Data.of(None, torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64), event_dim=1)
    with pytest.raises(ValueError, match="a task's means do not add to one"):
        PRIOR.condition(Statistics.of(data, order=1))


def test_concentrations_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="concentration must be finite and above zero; got 0"):
        DirichletCategorical(torch.zeros(3))
    with pytest.raises(ValueError, match="concentration needs at least two classes"):
        DirichletCategorical(torch.ones(1))


def test_lgamma_ratio_matches_sums_of_logarithms() -> None:
    for a in (1e-3, 0.7, 29.9, 30.1, 1e4, 1e12, 1e200):
        for n in (0, 1, 2, 17, 300):
            exact = math.fsum(math.log(a + i) for i in range(n))
            assert lgamma_ratio(F64 + a, F64 + n).item() == pytest.approx(exact, rel=1e-13, abs=1e-13)


def test_lgamma_ratio_of_many_is_that_of_each() -> None:
    a = torch.tensor([1e-3, 29.9, 30.1, 1e12], dtype=torch.float64)
    together = lgamma_ratio(a, F64 + 17)
    alone = torch.stack([lgamma_ratio(value, F64 + 17) for value in a])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=0)


@given(st.floats(-60, 60), st.floats(0, 1e15))
@settings(max_examples=300)
def test_lgamma_ratio_is_finite_with_its_gradient(log_a: float, n: float) -> None:
    a = (F64 + math.exp(log_a)).requires_grad_()
    value = lgamma_ratio(a, F64 + n)
    (gradient,) = torch.autograd.grad(value, a)
    assert value.isfinite()
    assert gradient.isfinite()


@given(st.sampled_from([torch.float32, torch.float64]), st.lists(st.floats(-60, 60), min_size=3, max_size=3))
@settings(max_examples=100)
def test_extremes_are_finite(dtype: torch.dtype, logs: list[float]) -> None:
    prior = DirichletCategorical(torch.tensor(logs, dtype=dtype).exp())
    assert prior.log_evidence(ROWS.to(dtype)).isfinite()
    assert prior.condition(ROWS.to(dtype)).concentration.isfinite().all()
