"""Rows with weights, known variances and offsets, against rows that are repeated and against scipy."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from bayesmeta import Columns, Data, LinearGaussian, LinearNormalInverseGamma, NormalKnownVariance
from bayesmeta.random import rand, randn
from tests.families import F64, _spd, seed

LOC = torch.tensor([0.5, -1.0], dtype=torch.float64)
X, Y = rand((5, 2), like=F64, generator=seed(0)), randn((5,), like=F64, generator=seed(1))
WEIGHT = 0.2 + 3.0 * rand((5,), like=F64, generator=seed(2))
FAR = 1e6


def weighted(x: Tensor, weight: Tensor) -> Tensor:
    return torch.cat([x, weight[..., None]], -1)


def evidence_by_scipy(prior: LinearGaussian, noise_var: Tensor) -> float:
    cov = torch.linalg.inv(prior.precision).numpy()
    total = X.numpy() @ cov @ X.numpy().T + np.diag(noise_var.numpy())
    return scipy.stats.multivariate_normal(X.numpy() @ LOC.numpy(), total).logpdf(Y.numpy())


def test_evidence_of_weighted_rows_matches_scipy() -> None:
    prior = LinearGaussian(LOC, _spd(2, 3), F64 + 0.3, columns=Columns(3, weight=2))
    found = prior.log_evidence(Data.of(weighted(X, WEIGHT), Y)).item()
    assert found == pytest.approx(evidence_by_scipy(prior, 0.3 / WEIGHT), rel=1e-10)
    known = LinearGaussian(LOC, _spd(2, 3), F64 + 1.0, columns=Columns(3, noise_var=2))
    found = known.log_evidence(Data.of(weighted(X, WEIGHT), Y)).item()
    assert found == pytest.approx(evidence_by_scipy(known, WEIGHT), rel=1e-10)


@pytest.mark.parametrize("family", [LinearGaussian, LinearNormalInverseGamma])
def test_the_mean_of_w_rows_is_a_row_of_weight_w(family: type) -> None:
    """Two rows at one x say of the weights what their mean says with weight two."""
    x = torch.cat([torch.ones_like(X[:, :1]), X], -1)
    tasks = Data.of(weighted(x, WEIGHT).expand(4, 5, 4), randn((4, 5), like=F64, generator=seed(4)))
    prior = family.initial(tasks, weight=3)
    once = Data.of(weighted(x[:1], F64.new_full((1,), 2.0)), Y[:1])
    twice = Data.of(weighted(x[:1].expand(2, 3), F64.new_ones(2)), Y[:1].expand(2))
    left, right = prior.condition(once), prior.condition(twice)
    torch.testing.assert_close(left.loc, right.loc, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(left.precision, right.precision, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", [LinearGaussian, LinearNormalInverseGamma])
def test_the_unit_of_weights_does_not_matter(family: type) -> None:
    g = seed(5)
    x = torch.cat([torch.ones(20, 6, 1, dtype=torch.float64), rand((20, 6, 1), like=F64, generator=g)], -1)
    weight = 0.2 + rand((20, 6), like=F64, generator=g)
    y = randn((20, 1), like=F64, generator=g) + x[..., 1] + randn((20, 6), like=F64, generator=g) / weight.sqrt()
    left, right = (Data.of(weighted(x, unit * weight), y) for unit in (1.0, 1e3))
    a, b = (family.initial(tasks, weight=2).fit(tasks) for tasks in (left, right))
    torch.testing.assert_close(a.loc, b.loc, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(a.log_evidence(left), b.log_evidence(right), rtol=1e-7, atol=1e-7)


def test_offsets_are_taken_from_y_and_added_to_predictions() -> None:
    g = seed(6)
    x, offset = rand((8, 5, 2), like=F64, generator=g), FAR * rand((8, 5, 1), like=F64, generator=g)
    x[..., 0] = 1.0
    y = randn((8, 5), like=F64, generator=g)
    plain, moved = Data.of(x, y), Data.of(torch.cat([x, offset], -1), y + offset[..., 0])
    a, b = LinearGaussian.initial(plain).fit(plain), LinearGaussian.initial(moved, offset=2).fit(moved)
    torch.testing.assert_close(a.predict(x).mean, b.predict(moved.x).mean - offset[..., 0], rtol=0, atol=1e-7)
    torch.testing.assert_close(a.log_evidence(plain), b.log_evidence(moved), rtol=0, atol=1e-6)


def test_variances_that_are_known_stay_as_they_are() -> None:
    """Eight estimates with standard errors, one row a task: the normal of known variances, by another family."""
    effect = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
    variance = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64).square()
    x = torch.stack([torch.ones_like(effect), variance], -1)[:, None]
    tasks = Data.of(x, effect[:, None])
    fitted = LinearGaussian.initial(tasks, noise_var=1).fit(tasks)
    assert fitted.noise_var.item() == 1.0
    same = NormalKnownVariance(fitted.loc[0], 1.0 / fitted.precision[0, 0], F64 + 1.0)
    expected = same.log_evidence(Data.of(variance[:, None, None], effect[:, None]))
    torch.testing.assert_close(fitted.log_evidence(tasks), expected, rtol=1e-9, atol=1e-9)
