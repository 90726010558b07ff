"""Priors that depend on features of the task."""

import dataclasses
from pathlib import Path

import pytest
import torch

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.fields import LearnedFrom
from bayesmeta.hyperparameters import Hierarchical
from bayesmeta.random import rand, randn
from bayesmeta.task_features import FeaturePrior, _units, fit_with_features
from tests.families import F64, FAMILIES, Family, seed

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


HIERARCHICAL = {name: f for name, f in FAMILIES.items() if isinstance(f.prior, Hierarchical)}


@pytest.mark.parametrize("family", HIERARCHICAL.values(), ids=HIERARCHICAL.keys())
def test_every_family_survives_saving(family: Family, tmp_path: Path) -> None:
    tasks = family.tasks([6, 3, 0, 9])
    unknown = family.prior.hyperparameters(tasks)
    h = len(unknown.entries)
    coefficients = 0.2 * randn((h, 2), like=F64, generator=seed(0))
    prior = FeaturePrior(
        family.prior,
        _units(family.prior, tasks, unknown),
        unknown.names,
        unknown.start,
        coefficients,
        F64.new_tensor([1.0, -1.0]),
        F64.new_tensor([2.0, 0.5]),
        LearnedFrom.counts(tasks.count),
    )
    task_x = F64.new_tensor([[3.0, -1.0], [1.0, 0.0]])
    bm.save(prior, tmp_path / "prior.safetensors")
    loaded = bm.load(tmp_path / "prior.safetensors")
    assert loaded.names == unknown.names
    assert loaded.learned_from == LearnedFrom(3, 18)
    at = torch.stack([unknown.start + coefficients[:, 0], unknown.start + 2.0 * coefficients[:, 1]])
    expected = unknown.build(at)
    for given in (prior.given(task_x), loaded.given(task_x)):
        for field in dataclasses.fields(expected):
            value = getattr(expected, field.name)
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(getattr(given, field.name), value, rtol=1e-10, atol=1e-10)


def test_a_file_holds_no_rows_beyond_need() -> None:
    """Where the units are of the family itself, or of sums over all rows, rows of tasks stay where they are."""
    kept = {}
    for name, family in HIERARCHICAL.items():
        tasks = family.tasks([6, 3, 0, 9])
        units = _units(family.prior, tasks, family.prior.hyperparameters(tasks))
        kept[name] = "sums" if isinstance(units, bm.Statistics) else int(units.count.sum())
    assert kept.pop("normal_known_variances") == 18  # its units are of y, and it asks for the variance of each row
    assert {kept[n] for n in ("normal_inverse_gamma", "normal_inverse_wishart", "gamma_poisson")} == {"sums"}
    assert set(kept.values()) == {"sums", 2}


def test_a_learned_one_survives_saving_and_moving(tmp_path: Path) -> None:
    tasks = normal_tasks()
    learned = fit_with_features(bm.NormalInverseGamma.initial(tasks), tasks)
    bm.save(learned, tmp_path / "prior.safetensors")
    loaded = bm.load(tmp_path / "prior.safetensors")
    assert torch.equal(loaded.given(FEATURES).loc, learned.given(FEATURES).loc)
    small = loaded.to(torch.float32).given(FEATURES).loc
    assert small.dtype == torch.float32
    torch.testing.assert_close(small.double(), learned.given(FEATURES).loc, rtol=1e-5, atol=1e-5)


def test_a_prior_without_hyperparameters_is_refused() -> None:
    one = F64.new_ones(1)
    process = FAMILIES["gaussian_process"].prior
    with pytest.raises(ValueError, match="prior must have hyperparameters; got GaussianProcess"):
        FeaturePrior(process, normal_tasks(), ["a"], one, one[None], one, one, LearnedFrom(1, 1))
