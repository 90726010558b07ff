"""Priors that depend on features of the task."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.fields import LearnedFrom
from bayesmeta.hyperparameters.feature_prior import SHARE, FeaturePrior, _units, fit_with_features
from bayesmeta.hyperparameters.vector import Hierarchical, Hyperparameter
from bayesmeta.random import rand, randn
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
    room = 5 * math.sqrt((0.3**2 + 1 / 4) / 80)  # of a slope over 80 tasks of four rows
    assert (loc[1] - loc[0]).item() == pytest.approx(3.0, abs=room)
    assert (loc[2] - loc[0]).item() == pytest.approx(0.0, abs=room)
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


def of_spread_and_mean(slope: float, log_slope: float, number: int, num_tasks: int) -> Data:
    """Means of tasks with a mean and a standard deviation that follow the first of two features."""
    generator = seed(number)
    u = randn((num_tasks, 2), like=F64, generator=generator)
    means = slope * u[:, 0] + 0.6 * (log_slope * u[:, 0]).exp() * randn((num_tasks,), like=F64, generator=generator)
    rows = means[:, None] + randn((num_tasks, 6), like=F64, generator=generator)
    return dataclasses.replace(Data.of(None, rows), task_x=u)


@pytest.mark.parametrize(
    ("slope", "log_slope", "moves"), [(2.0, 0.0, "mean"), (0.0, 1.2, "all"), (0.0, 0.0, "mean")], ids=str
)
def test_evidence_says_what_features_move(slope: float, log_slope: float, moves: str) -> None:
    """Held-out scores agree: what moves is found, and what does not move does little harm."""
    right, gains, harms = 0, [], []
    for number in range(6):
        tasks = of_spread_and_mean(slope, log_slope, 20 + number, 100)
        new = of_spread_and_mean(slope, log_slope, 40 + number, 500)
        start = bm.NormalInverseGamma.initial(tasks)
        learned = {m: fit_with_features(start, tasks, moves=m) for m in (None, "mean", "all")}
        scores = {m: p.given(new.task_x).log_evidence(new).mean().item() for m, p in learned.items()}
        best = learned[None]
        right += best.moves == moves
        torch.testing.assert_close(best.intercept, learned[best.moves].intercept, rtol=1e-3, atol=1e-3)
        assert best.log_evidence[best.moves] == max(best.log_evidence[m] for m in ("mean", "all"))
        other = "all" if moves == "mean" else "mean"
        gains.append(scores[moves] - scores[other])
        harms.append(start.fit(tasks).log_evidence(new).mean().item() - scores[None])
        assert (learned["mean"].coefficients[1:] == 0.0).all(), "loc is the first"
    assert right >= 4
    gain, harm = torch.tensor(gains), torch.tensor(harms)
    assert gain.mean() > -5.0 * gain.std() / 6**0.5
    if moves == "all":
        assert gain.mean() > 0.1
    assert harm.mean() < 0.03


def test_means_that_features_may_move() -> None:
    """Of every family: at least one hyperparameter, but for concentrations, which say mean and strength at once."""
    for name, family in HIERARCHICAL.items():
        unknown = family.prior.hyperparameters(family.tasks([6, 3, 0, 9]))
        means = [entry.name for entry in unknown.entries if entry.moves_mean]
        assert bool(means) == (name != "dirichlet_categorical"), name
        assert len(means) < len(unknown.entries)
    entry = Hyperparameter("level", 0.0, 1.0, is_mean=True)
    assert entry.moves_mean


@pytest.mark.parametrize("name", ["logistic_gaussian", "dirichlet_categorical", "linear_gaussian", "correlated_arms"])
def test_families_compare_what_features_move(name: str) -> None:
    family = FAMILIES[name]
    tasks = family.tasks([6, 3, 4, 9, 5, 7])
    tasks = dataclasses.replace(tasks, task_x=randn((6, 1), like=F64, generator=seed(8)))
    learned = fit_with_features(family.prior, tasks)
    assert learned.log_evidence.keys() == ({"none", "all"} if "dirichlet" in name else {"none", "mean", "all"})
    assert learned.given(tasks.task_x).batch_shape == (6,)
    with pytest.raises(ValueError, match="moves must be 'mean', 'all' or None; got 'loc'"):
        fit_with_features(family.prior, tasks, moves="loc")
    if "dirichlet" in name:
        with pytest.raises(ValueError, match="no hyperparameter is of the mean alone"):
            fit_with_features(family.prior, tasks, moves="mean")


def test_evidence_agrees_with_quadrature() -> None:
    """Over the two hyperparameters and one coefficient of a normal prior of means."""
    u = torch.tensor([[-1.0], [0.0], [1.0], [0.5]], dtype=torch.float64)
    y = torch.tensor([[-2.0, -1.0], [0.3, 0.2], [1.0, 2.5], [0.2, 1.0]], dtype=torch.float64)
    tasks = dataclasses.replace(Data.of(None, y), task_x=u)
    prior = bm.NormalKnownVariance(F64, F64 + 1.0, F64 + 1.0)
    learned = fit_with_features(prior, tasks)
    unknown = prior.hyperparameters(tasks)
    assert unknown.names == ["loc", "log_var"]
    axes = [torch.linspace(-6.0, 6.0, n, dtype=torch.float64) for n in (61, 81, 61)]
    loc, log_var, relative = torch.meshgrid(*axes, indexing="ij")
    standard = ((u - u.mean()) / u.std())[:, 0]
    each_loc = loc[..., None] + unknown.scale[0] * SHARE * relative[..., None] * standard
    vector = torch.stack([each_loc, log_var[..., None].expand_as(each_loc)], -1)
    evidence = unknown.build(vector).log_evidence(tasks).sum(-1)
    own = (
        unknown.log_hyperprior(torch.stack([loc, log_var], -1)) - 0.5 * relative.square() - 0.5 * math.log(2 * math.pi)
    )
    cell = math.log(math.prod(12.0 / (len(axis) - 1) for axis in axes))
    exact = (evidence + own).flatten().logsumexp(0).item() + cell
    assert learned.log_evidence["mean"] == pytest.approx(exact, abs=0.6)  # the variance's hyperposterior is skew


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
    # units of y that ask for the variance of each row; places of x, of families that take no sums
    for name in ("normal_known_variances", "logistic_gaussian", "poisson_gaussian", "poisson_exposure_gaussian"):
        assert kept.pop(name) == 18
    assert {kept[n] for n in ("normal_inverse_gamma", "normal_inverse_wishart", "gamma_poisson")} == {"sums"}
    assert set(kept.values()) == {"sums", 2}


def test_a_learned_one_survives_saving_and_moving(tmp_path: Path) -> None:
    tasks = normal_tasks()
    learned = fit_with_features(bm.NormalInverseGamma.initial(tasks), tasks)
    bm.save(learned, tmp_path / "prior.safetensors")
    loaded = bm.load(tmp_path / "prior.safetensors")
    assert torch.equal(loaded.given(FEATURES).loc, learned.given(FEATURES).loc)
    assert (loaded.moves, loaded.log_evidence) == (learned.moves, learned.log_evidence)
    state = learned.state_dict()
    old = FeaturePrior.from_state({k: v for k, v in state.items() if k not in ("moves", "log_evidence")})
    assert torch.equal(old.given(FEATURES).loc, learned.given(FEATURES).loc), "files of before hold neither"
    small = loaded.to(torch.float32).given(FEATURES).loc
    assert small.dtype == torch.float32
    torch.testing.assert_close(small.double(), learned.given(FEATURES).loc, rtol=1e-5, atol=1e-5)


def test_a_prior_without_hyperparameters_is_refused() -> None:
    one = F64.new_ones(1)
    process = FAMILIES["gaussian_process"].prior
    with pytest.raises(ValueError, match="prior must have hyperparameters; got GaussianProcess"):
        FeaturePrior(process, normal_tasks(), ["a"], one, one[None], one, one, LearnedFrom(1, 1))
