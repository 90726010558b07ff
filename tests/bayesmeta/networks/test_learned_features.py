"""Learned features: maths against numpy, scipy and the linear family; what is learned, and from how few tasks."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data, Hyperposterior, LearnedFeatures, LinearGaussian, Statistics
from bayesmeta.checks.predictive_checks import TaskMean, log_score
from bayesmeta.networks import learned_features_fit
from bayesmeta.networks.features import TanhFeatures
from bayesmeta.networks.learned_features_fit import _Unknown, log_evidence, some_of
from bayesmeta.networks.learning import progress_line
from bayesmeta.random import rand, randn
from tests.families import F64, _spd, seed

NOISE = 0.1


def waves(num_tasks: int, n: int, number: int = 0, *, d: int = 1) -> Data:
    """y = a sin(2 x + phase) + b + noise, amplitude, phase and level being the task's own; other inputs do nothing."""
    g = seed(number)
    x = 4.0 * rand((num_tasks, n, d), like=F64, generator=g) - 2.0
    a, b = 1.0 + 0.5 * randn((num_tasks, 1), like=F64, generator=g), randn((num_tasks, 1), like=F64, generator=g)
    phase = 1.5 * rand((num_tasks, 1), like=F64, generator=g)
    y = a * torch.sin(2.0 * x[..., 0] + phase) + b
    return Data.of(x, y + NOISE * randn(y.shape, like=F64, generator=g))


def with_intercept(data: Data) -> Data:
    return replace(data, x=torch.cat([data.x, torch.ones_like(data.x[..., :1])], -1))


def score(prior: Any, tasks: Data, seen: int = 5) -> TaskMean:
    """Of the rows after the first few of each task."""
    return log_score(prior.condition(tasks.rows(slice(seen))), tasks.rows(slice(seen, None)))


def clearly_better(a: TaskMean, b: TaskMean, by: float) -> None:
    gain = TaskMean(a.by_task - b.by_task)
    assert gain.value - 5.0 * gain.standard_error > by


def same_tensors(a: LearnedFeatures, b: LearnedFeatures, tolerance: float) -> None:
    for left, right in ((a.features, b.features), (a.linear, b.linear)):
        for name, value in left.state_dict().items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(value, getattr(right, name), rtol=tolerance, atol=tolerance)


def small(d: int = 2, h: int = 4) -> LearnedFeatures:
    """A prior written by hand."""
    g = seed(5)
    features = TanhFeatures(
        randn((h, d), like=F64, generator=g),
        randn((h,), like=F64, generator=g),
        randn((d,), like=F64, generator=g),
        0.5 + rand((d,), like=F64, generator=g),
    )
    return LearnedFeatures(features, LinearGaussian(randn((h + 1,), like=F64, generator=g), _spd(h + 1, 1), F64 + 0.3))


PRIOR = small()


@pytest.fixture(scope="module")
def past() -> Data:
    return waves(40, 20)


@pytest.fixture(scope="module")
def learned(past: Data) -> LearnedFeatures:
    return LearnedFeatures.initial(past, width=16).fit(past)


def test_features_match_numpy() -> None:
    x = randn((3, 5, 2), like=F64, generator=seed(0))
    f = PRIOR.features
    weight, bias, centre, scale = (np.asarray(v) for v in (f.weight, f.bias, f.centre, f.scale))
    expected = np.ones((3, 5, 5))
    for task in range(3):
        for row in range(5):
            standard = (x[task, row].numpy() - centre) / scale
            for i in range(4):
                expected[task, row, i] = math.tanh(float(weight[i] @ standard) + bias[i])
    np.testing.assert_allclose(f(x), expected, rtol=1e-12)
    assert f.num_features == 5


@pytest.mark.parametrize("n", [4, 5, 9], ids=["fewer rows than features", "as many", "more"])
def test_log_evidence_matches_scipy(n: int) -> None:
    """Some rows of each task are pads, which hold anything."""
    g, k = seed(n), 5
    inputs, y = randn((3, n, k), like=F64, generator=g), randn((3, n), like=F64, generator=g)
    loc, root = randn((k,), like=F64, generator=g), torch.linalg.cholesky(_spd(k, 2))
    mask = torch.arange(n).expand(3, n) != torch.tensor([[0], [n - 1], [n]])  # the last task is whole
    mask[0, 1] = False
    expected = []
    for i in range(3):
        rows, target = inputs[i, mask[i]].numpy(), y[i, mask[i]]
        cov = rows @ (root @ root.mT).numpy() @ rows.T + 0.3 * np.eye(len(rows))
        expected.append(scipy.stats.multivariate_normal(rows @ loc.numpy(), cov).logpdf(target))
    y[~mask], inputs[~mask] = 1e6, 1e6
    np.testing.assert_allclose(log_evidence(inputs, y, mask, loc, root, F64 + 0.3), expected, rtol=1e-10)


def test_all_but_the_features_is_linear_regression() -> None:
    tasks = waves(4, 6, d=2)
    rows, x = PRIOR.features.of(tasks), tasks.x[:, :3]
    linear, features = PRIOR.linear, PRIOR.features(tasks.x[:, :3])
    assert torch.equal(PRIOR.log_evidence(tasks), linear.log_evidence(rows))
    posterior, expected = PRIOR.condition(tasks), linear.condition(rows)
    assert torch.equal(posterior.linear.loc, expected.loc)
    assert posterior.batch_shape == (4,)
    for ours, theirs in (
        (posterior.predict(x), expected.predict(features)),
        (posterior.marginal(x), expected.marginal(features)),
        (posterior.joint(x), expected.joint(features)),
    ):
        assert torch.equal(ours.mean, theirs.mean)
        assert torch.equal(ours.variance, theirs.variance)
    weights = posterior.sample_params(3, generator=seed(1))
    assert torch.equal(weights, expected.sample_params(3, generator=seed(1)))
    assert torch.equal(posterior.log_prob(weights), expected.log_prob(weights))
    assert torch.equal(posterior.constrain(weights)["weights"], weights)


def test_statistics_of_features_stand_for_rows() -> None:
    tasks = waves(4, 6, d=2)
    stats = Statistics.of(PRIOR.features.of(tasks))
    assert torch.equal(PRIOR.condition(stats).linear.loc, PRIOR.condition(tasks).linear.loc)
    assert torch.equal(PRIOR.log_evidence(stats), PRIOR.log_evidence(tasks))


def test_initial_explains_the_variance_of_the_rows() -> None:
    tasks = waves(50, 20, d=2)
    far = replace(tasks, y=1e3 * tasks.y + 1e6, x=1e-3 * tasks.x + 5.0)
    prior = LearnedFeatures.initial(far)
    assert prior.features.num_features == 33
    standard = prior.features.standardised(far.x).reshape(-1, 2)
    torch.testing.assert_close(standard.mean(0), F64.new_zeros(2), rtol=0, atol=1e-9)
    torch.testing.assert_close(standard.square().mean(0), F64.new_ones(2), rtol=1e-9, atol=0)
    # each bends where its argument is zero, which is at some row
    arguments = standard @ prior.features.weight.mT + prior.features.bias
    assert arguments.abs().amin(0).max() < 1e-5, "to the digits of the inputs that learning sees"
    prediction, var = prior.predict(far.x), far.y.var(correction=0)
    assert (prediction.mean - far.y.mean()).abs().max() < 1e-6 * 1e6
    assert ((prediction.variance / var > 0.5) & (prediction.variance / var < 1.5)).all()


def test_the_vector_holds_the_prior_that_it_builds() -> None:
    tasks = waves(3, 6, d=2)
    unknown = _Unknown(PRIOR.features, PRIOR.linear, tasks)
    same_tensors(LearnedFeatures(*unknown.build(unknown.first)), PRIOR, 1e-10)
    vector = unknown.first + 0.1 * randn(unknown.first.shape, like=F64, generator=seed(3))
    built = LearnedFeatures(*unknown.build(vector))
    expected = built.log_evidence(tasks)[1:].sum() / 12
    torch.testing.assert_close(unknown.evidence_per_row(vector, slice(1, None)), expected, rtol=1e-6, atol=0)
    # loc, the spread of weights and the noise move in units of the prior where the search starts
    cov = [torch.linalg.inv(p.linear.precision) for p in (built, PRIOR)]
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(cov[1]), torch.linalg.cholesky(cov[0]), upper=False)
    _, _, loc, spread, below, log_scale, log_noise = vector.split(unknown.sizes)
    torch.testing.assert_close(white.diagonal().log(), spread + log_scale, rtol=1e-9, atol=1e-9)
    lower = white[torch.tril_indices(5, 5, -1).unbind()]
    torch.testing.assert_close(lower, below * log_scale.exp(), rtol=1e-9, atol=1e-9)
    shift = torch.linalg.cholesky(cov[1]) @ loc
    torch.testing.assert_close(built.linear.loc, PRIOR.linear.loc + shift, rtol=1e-10, atol=1e-10)
    assert (built.linear.noise_var / 0.3).log().item() == pytest.approx(log_noise.item(), rel=1e-10)


def test_hyperprior_is_normal() -> None:
    unknown = _Unknown(PRIOR.features, PRIOR.linear, waves(3, 6, d=2))
    vector = randn(unknown.first.shape, like=F64, generator=seed(3))
    widths = [3.0 / 2**0.5] * 8 + [3.0] * 4 + [2.0] * 5 + [0.5] * 5 + [8**-0.5] * 10 + [2.0, 2.0]
    expected = scipy.stats.norm(0, widths).logpdf(vector).sum() - scipy.stats.norm(0, widths).logpdf(0.0 * vector).sum()
    assert unknown.log_hyperprior(vector).item() == pytest.approx(expected, rel=1e-10)


def test_new_tasks_are_predicted_better_than_by_linear_or_random_features(past: Data, learned: LearnedFeatures) -> None:
    new = waves(100, 25, number=1)
    rows = with_intercept(past)
    linear = LinearGaussian.initial(rows).fit(rows)
    ours = score(learned, new)
    clearly_better(ours, score(linear, with_intercept(new)), 1.0)
    clearly_better(ours, score(LearnedFeatures.initial(past, width=16), new), 1.0)
    # with amplitude, phase and level known, a row has 0.884 nats; five rows and the wave tell most of them
    best = -0.5 * math.log(2.0 * math.pi * math.e * NOISE**2)
    assert ours.value > best - 0.6
    assert score(learned, new, 15).value > ours.value  # about .2 +- .03


def test_what_the_family_can_be_is_found_again() -> None:
    """Three features, tasks drawn from the prior itself: what is learned predicts as the truth does."""
    g = seed(0)
    weight = torch.tensor([[2.0, 0.0], [0.0, -2.0], [1.5, 1.5]], dtype=torch.float64)
    features = TanhFeatures(weight, torch.tensor([0.5, 0.0, -1.0]).double(), F64.new_zeros(2), F64.new_ones(2))
    loc = torch.tensor([1.0, 2.0, -1.0, 5.0], dtype=torch.float64)
    truth = LearnedFeatures(features, LinearGaussian(loc, _spd(4, 1), F64 + 0.01))

    def draw(num_tasks: int) -> Data:
        x = randn((num_tasks, 20, 2), like=F64, generator=g)
        weights = truth.sample_params(num_tasks, generator=g)
        y = (features(x) @ weights[..., None])[..., 0]
        return Data.of(x, y + 0.1 * randn(y.shape, like=F64, generator=g))

    tasks, new = draw(150), draw(300)
    fitted = LearnedFeatures.initial(tasks, width=8).fit(tasks)
    for seen in (0, 4):
        gap = TaskMean(score(truth, new, seen).by_task - score(fitted, new, seen).by_task)
        assert gap.value < 0.1, seen
    assert fitted.linear.noise_var.item() == pytest.approx(0.01, rel=0.25)  # about .0098 +- .0004
    assert fitted.learned_from is not None
    assert (fitted.learned_from.tasks, fitted.learned_from.rows) == (150, 3000)


@pytest.mark.parametrize(("d", "most"), [(1, -0.65), (4, 0.35)])
def test_a_dozen_tasks_do_no_harm(d: int, most: float) -> None:
    """With 33 features, 240 rows could be explained with little noise, by features that mean nothing in new tasks.

    Means over four data sets: the gap is about -1.3 +- .13 of one input and -.8 +- .23 of four, and the noise, where
    less than the true one, about 10^-.19 (+- .11) of it; features learned without end make that about 10^-1.5. Of two
    or five tasks no mean is safe: in one data set of ten the held-out task is like the others by chance, and what is
    learned is worse by nats.
    """
    gaps, shares = [], []
    for number in range(4):
        tasks, new = waves(12, 20, number=1 + 10 * number, d=d), waves(100, 25, number=2 + 10 * number, d=d)
        initial = LearnedFeatures.initial(tasks)
        fitted = initial.fit(tasks)
        gaps.append(score(initial, new).value - score(fitted, new).value)
        shares.append((fitted.linear.noise_var / NOISE**2).clamp(max=1.0).log10())
    assert sum(gaps) / len(gaps) < most
    assert sum(shares) / len(shares) > -0.8


@pytest.mark.parametrize("num_tasks", [2, 5])
def test_few_tasks_give_finite_predictions(num_tasks: int) -> None:
    tasks, new = waves(num_tasks, 20, number=1, d=4), waves(10, 25, number=2, d=4)
    assert math.isfinite(score(LearnedFeatures.initial(tasks).fit(tasks), new).value)


def test_search_ends_when_tasks_that_were_held_out_do_not_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them it ends where 33 features explain five tasks, and no other."""
    tasks = waves(5, 20, number=1, d=4)
    stopped = LearnedFeatures.initial(tasks).fit(tasks)
    monkeypatch.setattr("bayesmeta.numerics.optimise.MAX_STEPS", 200)
    monkeypatch.setattr(_Unknown, "evidence_per_row", _always_gains(_Unknown.evidence_per_row))
    endless = LearnedFeatures.initial(tasks).fit(tasks)
    # 60 to 300 nats, and a noise that is 10 to 100,000 times as small, in seven sets of tasks
    assert endless.log_evidence(tasks).sum() > stopped.log_evidence(tasks).sum() + 10.0
    assert endless.linear.noise_var < 0.5 * stopped.linear.noise_var


def _always_gains(evidence: Any) -> Any:
    """Of held-out tasks, the number of the call."""
    calls = iter(range(10**9))

    def of_part(self: _Unknown, vector: Tensor, part: slice) -> Tensor:
        held_out = part.start == 0
        return F64 + float(next(calls)) if held_out else evidence(self, vector, part)

    return of_part


def test_equal_tasks_and_columns_that_never_vary() -> None:
    tasks = waves(4, 12, d=3)
    x = tasks.x.clone()
    x[..., 1], x[..., 2] = 7.0, 1e6 + 0.1
    same = Data.of(x[:1].expand(4, -1, -1), tasks.y[:1].expand(4, -1))
    for rows in (replace(tasks, x=x), same, replace(same, y=torch.full_like(same.y, 3.0))):
        initial = LearnedFeatures.initial(rows, width=6)
        assert torch.equal(initial.features.scale[1:], F64.new_ones(2))
        fitted = initial.fit(rows)
        prediction = fitted.condition(rows).predict(rows.x)
        assert prediction.mean.isfinite().all()
        assert prediction.variance.isfinite().all()
    torch.testing.assert_close(prediction.mean, torch.full_like(same.y, 3.0), rtol=0, atol=1e-2)


def test_pads_and_empty_tasks_are_invisible(past: Data) -> None:
    lengths = [20, 0, 5, 1, 12, 20]
    ragged = Data.pad([(past.x[i, :n], past.y[i, :n]) for i, n in enumerate(lengths)])
    x, y = ragged.x.clone(), ragged.y.clone()
    x[~ragged.mask], y[~ragged.mask] = 1e6, 1e6
    dirty = Data(x, y, ragged.mask)
    clean = LearnedFeatures.initial(ragged, width=8)
    same_tensors(LearnedFeatures.initial(dirty, width=8), clean, 0.0)
    fitted = clean.fit(ragged)
    same_tensors(clean.fit(dirty), fitted, 0.0)
    same_tensors(clean.fit(ragged[ragged.count > 0]), fitted, 0.0)
    assert fitted.learned_from is not None
    assert (fitted.learned_from.tasks, fitted.learned_from.rows) == (5, 58)


def test_units_change_nothing() -> None:
    tasks, new = waves(12, 20), waves(20, 20, number=1)

    def moved(data: Data) -> Data:
        return replace(data, x=100.0 * data.x + 50.0, y=1e4 * data.y + 1e6)

    plain, other = (LearnedFeatures.initial(d, width=4).fit(d) for d in (tasks, moved(tasks)))
    ours, theirs = score(plain, new), score(other, moved(new))
    torch.testing.assert_close(ours.by_task - math.log(1e4), theirs.by_task, rtol=0, atol=1e-3)


def test_float32_in_float32_out(past: Data, learned: LearnedFeatures) -> None:
    prior = LearnedFeatures.initial(past.to(torch.float32), width=16).fit(past.to(torch.float32))
    assert prior.features.weight.dtype == prior.linear.precision.dtype == torch.float32
    new = waves(50, 25, number=1)
    assert score(prior, new.to(torch.float32)).value == pytest.approx(score(learned, new).value, abs=0.1)


def test_generators_choose_and_repeat(past: Data) -> None:
    first, other = (LearnedFeatures.initial(past, width=4, generator=seed(i)) for i in (1, 2))
    assert not torch.equal(first.features.weight, other.features.weight)
    same_tensors(first, LearnedFeatures.initial(past, width=4, generator=seed(1)), 0.0)
    few = past.rows(slice(4))  # of so many tasks that no two generators hold out the same ones
    same_tensors(first.fit(few), first.fit(few), 0.0)
    fits = [first.fit(few, generator=seed(i)) for i in (1, 1, 2)]
    same_tensors(fits[0], fits[1], 0.0)
    assert not torch.equal(fits[0].features.weight, fits[2].features.weight)


def test_of_many_tasks_and_rows_some_are_taken() -> None:
    tasks = waves(300, 100)
    ragged = replace(tasks, mask=torch.arange(100) < torch.randint(1, 101, (300, 1), generator=seed(0)))
    some = some_of(ragged, seed(1))
    assert some.mask.shape == (256, 64)
    owner = {float(y): task for task in range(300) for y in ragged.y[task][ragged.mask[task]]}
    owners = set()
    for task in some:
        chosen = task.y[task.mask].tolist()
        (task_of,) = {owner[y] for y in chosen}
        assert len(set(chosen)) == min(int(ragged.count[task_of]), 64)
        owners.add(task_of)
    assert len(owners) == 256
    assert some_of(tasks[:160], seed(1)).mask.shape == (160, 100), "more rows where there are fewer tasks"
    few = some_of(waves(3, 6000), seed(1))
    assert few.mask.shape == (3, 2**14 // 3)


@pytest.mark.parametrize(("slow", "progress", "shown"), [(0, True, True), (0, False, False), (10**9, True, False)])
def test_progress_is_shown_where_learning_takes_long(
    slow: int, progress: bool, shown: bool, past: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    class Screen(progress_line.Progress):
        def __init__(self, *columns: Any, disable: bool, transient: bool) -> None:
            super().__init__(*columns, disable=disable, transient=transient)
            assert transient
            said.append(not disable)

        def update(self, bar: Any, **fields: Any) -> None:
            said.append(fields["description"])

    monkeypatch.setattr(learned_features_fit, "SLOW", slow)
    monkeypatch.setattr(progress_line, "Progress", Screen)
    some = past[:20]
    LearnedFeatures.initial(some, width=2).fit(some, progress=progress)
    assert said[0] == shown
    assert "per row of held-out tasks" in said[1]
    left = [int(line.split()[-3]) for line in said[1:] if line.startswith("learning features from all tasks: ")]
    assert left[-1] >= 0, "the second search may end before the best of the first"
    assert left == list(range(left[0], left[-1] - 1, -1))


def test_hyperposterior_of_the_weights_given_the_features() -> None:
    """As the module says how to get it."""
    tasks = waves(60, 20)
    prior = LearnedFeatures.initial(tasks, width=2).fit(tasks)
    rows = prior.features.of(tasks)
    posterior = Hyperposterior.fit(LinearGaussian.initial(rows), rows, num_draws=500, generator=seed(0))
    assert posterior.ess > 50
    mixture = posterior.marginal(50, generator=seed(1))
    new = waves(100, 25, number=1)
    ours = score(mixture, prior.features.of(new))
    assert ours.value > score(prior, new).value - 0.05


def test_a_saved_prior_comes_back(learned: LearnedFeatures, tmp_path: Path) -> None:
    bm.save(learned, tmp_path / "prior")
    loaded = bm.load(tmp_path / "prior")
    same_tensors(loaded, learned, 0.0)
    assert loaded.learned_from == learned.learned_from


def test_bad_input(past: Data) -> None:
    with pytest.raises(ValueError, match="features need width of one or more, and rows with inputs; got width 0 and"):
        LearnedFeatures.initial(past, width=0)
    with pytest.raises(ValueError, match="got width 32 and 800 rows with 0 inputs"):
        LearnedFeatures.initial(Data.of(None, past.y))
    with pytest.raises(ValueError, match="got width 32 and 0 rows with 1 inputs"):
        LearnedFeatures.initial(past.rows(slice(0, 0)))
    with pytest.raises(ValueError, match="y must hold one number per row"):
        LearnedFeatures.initial(Data.of(past.x, past.x.expand(-1, -1, 2)))
    initial = LearnedFeatures.initial(past, width=2)
    with pytest.raises(ValueError, match="at least two tasks with rows, on one axis; got 1"):
        initial.fit(past[:1])
    with pytest.raises(ValueError, match="fit needs at least one row; got 40 tasks, all empty"):
        initial.fit(past.rows(slice(0, 0)))
    with pytest.raises(ValueError, match="x must have 1 columns; got 2"):
        initial.fit(with_intercept(past))
    with pytest.raises(ValueError, match=r"fit learns one prior; self has batch_shape \(40,\)"):
        initial.condition(past).fit(past)
    with pytest.raises(ValueError, match="x must have 1 columns; got 2"):
        initial.condition(with_intercept(past))
    with pytest.raises(ValueError, match="linear must have one weight per feature, 3 with the constant; got 2"):
        LearnedFeatures(initial.features, LinearGaussian(F64.new_zeros(2), _spd(2, 1), F64 + 1.0))
    with pytest.raises(ValueError, match="scale must be finite and above zero; got 0"):
        replace(initial.features, scale=F64.new_zeros(1))
    with pytest.raises(ValueError, match="bias must be finite"):
        replace(initial.features, bias=F64.new_full((2,), math.nan))


INVARIANT = {
    "learned_features": (lambda d: LearnedFeatures.initial(d, width=6).fit(d, progress=False), 20),
    "gaussian_process": (lambda d: bm.GaussianProcess.initial(d).fit(d), 6),
    "deep_kernel": (lambda d: bm.DeepKernel.initial(d).fit(d), 6),
}


@pytest.mark.parametrize("family", INVARIANT)
def test_origins_and_units_of_x_and_y_change_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the digits that y + 1e8 has lost itself: 1.5e-8 of a row, which the evidence multiplies by 25.

    Searches of networks multiply lost digits, that of features by 1e3 and that of a deep kernel by up to 1e5, so they
    are asked about nearer places.
    """
    monkeypatch.setattr("bayesmeta.networks.deep_kernel_fit.NUM_STEPS", 50)
    fit, num_tasks = INVARIANT[family]
    generator = seed(7)
    x = 6.0 * rand((num_tasks, 8, 1), like=F64, generator=generator) - 3.0
    weights = randn((num_tasks, 2), like=F64, generator=generator)
    y = weights[:, :1] * x[..., 0].sin() + weights[:, 1:] + 0.2 * randn((num_tasks, 8), like=F64, generator=generator)

    def said(scale_x: float, shift_x: float, scale_y: float, shift_y: float) -> torch.Tensor:
        tasks = Data.of(scale_x * x + shift_x, scale_y * y + shift_y)
        prior = fit(tasks)
        shown, hidden = tasks.rows(slice(5)), tasks.x[:, 5:]
        predicted = [p.predict(hidden) for p in (prior, prior.condition(shown))]
        marginals = [part for p in predicted for part in ((p.mean - shift_y) / scale_y, p.stddev / scale_y)]
        evidence = prior.log_evidence(shown) + 5.0 * math.log(scale_y)
        return torch.cat([*(part.flatten() for part in marginals), evidence / 5.0])

    expected = said(1.0, 0.0, 1.0, 0.0)
    nearer = 1.0 if family == "gaussian_process" else 1e-4
    tolerance = 1e-3 if family == "deep_kernel" else 2e-6
    for scale_x, shift_x, scale_y, shift_y in ((1.0, 1e4, 1.0, 1e6), (3.3, -2e4, 3.7e-3, 3e3), (1.0, 0.0, 1e4, 1e12)):
        found = said(scale_x, shift_x, scale_y, nearer * shift_y)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=tolerance)
