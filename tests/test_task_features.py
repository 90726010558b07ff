"""Priors that depend on features of the task."""

import dataclasses

import pytest
import torch

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.random import rand, randn
from bayesmeta.task_features import fit_with_features
from tests.families import F64, seed

FEATURES = randn((80, 2), like=F64, generator=seed(0)) * torch.tensor([1.0, 100.0]) + torch.tensor([0.0, 500.0])


def normal_tasks(number: int = 1) -> Data:
    mean = 3.0 * FEATURES[:, 0] + 0.3 * randn((80,), like=F64, generator=seed(number))
    y = mean[:, None] + randn((80, 4), like=F64, generator=seed(number + 1))
    return dataclasses.replace(Data.of(None, y), task_x=FEATURES)


def test_a_feature_that_matters_moves_the_prior_and_one_that_does_not_is_shrunk() -> None:
    tasks = normal_tasks()
    learned = fit_with_features(bm.NormalInverseGamma.initial(tasks), tasks)
    new = torch.tensor([[0.0, 500.0], [1.0, 500.0], [0.0, 600.0]], dtype=torch.float64)
    loc = learned.given(new).loc
    assert (loc[1] - loc[0]).item() == pytest.approx(3.0, abs=0.15)
    assert (loc[2] - loc[0]).item() == pytest.approx(0.0, abs=0.15)
    # knowing its features, a task is predicted far better than without
    held = normal_tasks(10)
    without = bm.NormalInverseGamma.initial(tasks).fit(tasks)
    assert learned.given(FEATURES).log_evidence(held).mean() > without.log_evidence(held).mean() + 0.5
    assert learned.given(FEATURES[0]).batch_shape == ()


def test_rates_depend_on_features() -> None:
    rates = (FEATURES[:, :1] * 1.5 - 0.5).sigmoid()
    y = (rand((80, 40), like=F64, generator=seed(3)) < rates).double()
    tasks = dataclasses.replace(Data.of(None, y), task_x=FEATURES[:, :1])
    learned = fit_with_features(bm.BetaBernoulli.initial(tasks), tasks)
    at = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    expected = (at * 1.5 - 0.5).sigmoid()
    assert (learned.given(at).predict().mean - expected).abs().max() < 0.05


def test_wrong_features_are_refused() -> None:
    tasks = normal_tasks()
    with pytest.raises(ValueError, match="tasks must have features"):
        fit_with_features(bm.NormalInverseGamma.initial(tasks), Data.of(None, tasks.y))
    learned = fit_with_features(bm.NormalInverseGamma.initial(tasks), tasks)
    with pytest.raises(ValueError, match=r"task_x must have shape \(..., 2\); got \(3,\)"):
        learned.given(torch.zeros(3))
    with pytest.raises(ValueError, match="task_x must be finite"):
        learned.given(torch.full((2,), torch.nan))
