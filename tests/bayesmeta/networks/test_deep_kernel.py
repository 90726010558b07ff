"""Deep kernels: the network against numpy, all else against the process on features; what is learned, from how much."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import bayesmeta as bm
from bayesmeta import Data, DeepKernel, GaussianProcess
from bayesmeta.fields import LearnedFrom
from bayesmeta.networks import deep_kernel_fit
from bayesmeta.networks.features import ReluNetwork
from bayesmeta.networks.learning import progress_line
from bayesmeta.random import rand, randn
from bo import SearchSpace, fit_family
from tests.bayesmeta.test_io import same
from tests.bo import past as studies
from tests.families import F64, seed

NOISE = 0.1


def ridges(num_tasks: int, n: int, number: int = 0) -> Data:
    """y = sin(a (x1 + x2) + b) + noise in six dimensions, a and b being the task's own: four inputs do nothing."""
    g = seed(number)
    x = rand((num_tasks, n, 6), like=F64, generator=g)
    a, b = (rand((num_tasks, 1), like=F64, generator=g) for _ in range(2))
    y = torch.sin((2.0 + 2.0 * a) * (x[..., 0] + x[..., 1]) + 6.3 * b)
    return Data.of(x, y + NOISE * randn(y.shape, like=F64, generator=g))


def score(prior: Any, tasks: Data, seen: int = 15) -> float:
    """Log density per row of the rows after the first few of each task."""
    rest = tasks.rows(slice(seen, None))
    return (prior.condition(tasks.rows(slice(seen))).log_evidence(rest).sum() / rest.count.sum()).item()


def fit(tasks: Data, **options: Any) -> DeepKernel:
    return DeepKernel.initial(tasks).fit(tasks, progress=False, **options)


@pytest.fixture(scope="module")
def past() -> Data:
    return ridges(12, 80)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what does not depend on how much is learned."""
    monkeypatch.setattr(deep_kernel_fit, "NUM_STEPS", 50)


@pytest.fixture(scope="module")
def learned(past: Data) -> DeepKernel:
    return fit(past)


def test_the_network_matches_numpy() -> None:
    g = seed(0)
    shapes = ((5, 3), (2, 5, 5), (3, 5), (3,))
    first, rest, biases, centre = (randn(shape, like=F64, generator=g) for shape in shapes)
    network = ReluNetwork(first, rest, biases, centre, scale=torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64))
    x = randn((2, 4, 3), like=F64, generator=g)
    for task in range(2):
        for row in range(4):
            hidden = (x[task, row] - centre).numpy() / np.array([0.5, 1.0, 2.0])
            hidden = first.numpy() @ hidden + biases[0].numpy()
            for weight, bias in zip(rest.numpy(), biases[1:].numpy(), strict=True):
                hidden = weight @ np.maximum(hidden, 0.0) + bias
            np.testing.assert_allclose(network(x)[task, row], hidden, rtol=1e-10)
    one_layer = ReluNetwork(first, rest[:0], biases[:1], centre, network.scale)
    np.testing.assert_allclose(one_layer(x), ((x - centre) / network.scale) @ first.mT + biases[0], rtol=1e-12)


def test_all_but_the_features_is_the_gaussian_process(past: Data, learned: DeepKernel) -> None:
    rows, process = learned.features.of(past), learned.process
    new = past.x[:, :5]
    features = learned.features(new)
    posterior, expected = learned.condition(past), process.condition(rows)
    assert posterior.batch_shape == (12,)
    assert torch.equal(learned.log_evidence(past), process.log_evidence(rows))
    for ours, theirs in (
        (posterior.predict(new), expected.predict(features)),
        (posterior.marginal(new), expected.marginal(features)),
        (posterior.joint(new), expected.joint(features)),
    ):
        assert torch.equal(ours.mean, theirs.mean)
        assert torch.equal(ours.variance, theirs.variance)
    draws, theirs = (each.sample(3, generator=seed(1)) for each in (posterior, expected))
    assert torch.equal(draws(new), theirs(features))
    assert torch.equal(draws.predict(new).stddev, theirs.predict(features).stddev)


def test_it_starts_on_the_scale_of_the_rows() -> None:
    tasks = ridges(4, 50)
    far = replace(tasks, x=1e3 * tasks.x + 1e4, y=1e3 * tasks.y + 1e6)
    near, other = DeepKernel.initial(tasks), DeepKernel.initial(far)
    torch.testing.assert_close(near.features(tasks.x), other.features(far.x), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(1e3 * near.predict(tasks.x).mean + 1e6, other.predict(far.x).mean)
    torch.testing.assert_close(1e3 * near.predict(tasks.x).stddev, other.predict(far.x).stddev)
    features = near.features(tasks.x).reshape(-1, 32) / near.process.lengthscale
    apart = (features[:, None] - features).square().sum(-1).mean()
    assert apart.item() == pytest.approx(2.0, rel=1e-6), "rows are neither all alike nor all far apart"


def test_features_of_past_tasks_predict_new_ones(past: Data, learned: DeepKernel) -> None:
    new = ridges(30, 60, number=1)
    plain = GaussianProcess.initial(past).fit(past)
    assert score(learned, new) > score(DeepKernel.initial(past), new) + 0.3
    assert score(learned, new) > score(replace(plain, past=None), new) + 0.1
    assert learned.learned_from == LearnedFrom(12, 960)


def test_what_only_tells_past_tasks_apart_is_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets without any pattern: it ends before the network knows them by heart."""
    tasks, new = (replace(ridges(5, 40, i), y=randn((5, 40), like=F64, generator=seed(i))) for i in (1, 2))
    stopped = fit(tasks)
    monkeypatch.setattr(deep_kernel_fit, "PATIENCE", 10**6)
    monkeypatch.setattr(deep_kernel_fit, "NUM_STEPS", 250)
    monkeypatch.setattr(deep_kernel_fit, "_evidence_per_row", _always_gains(deep_kernel_fit._evidence_per_row))
    endless = fit(tasks)
    assert endless.log_evidence(tasks).sum() > stopped.log_evidence(tasks).sum() + 20.0
    assert score(stopped, new) > score(endless, new) + 0.1
    # the noise is learned though it stops early: hardly worse than the normal distribution of the past targets
    pooled = Normal(tasks.y.mean(), tasks.y.std()).log_prob(new.y[:, 15:]).mean()
    assert score(stopped, new) > pooled - 0.25


def _always_gains(evidence: Any) -> Any:
    """Of held-out tasks, of which no gradient is asked, the number of the call."""
    calls = iter(range(10**9))

    def of_part(of_tasks: Any, values: Any, tasks: Data) -> Tensor:
        return evidence(of_tasks, values, tasks) if values[0].requires_grad else F64 + float(next(calls))

    return of_part


@pytest.mark.usefixtures("short")
def test_the_same_tasks_give_the_same_prior(past: Data) -> None:
    few = past[:3].rows(slice(20))
    assert same(fit(few), fit(few))
    fits = [fit(few, generator=seed(i)) for i in (1, 1, 2)]
    assert same(fits[0], fits[1])
    assert not torch.equal(fits[0].features.first, fits[2].features.first)
    first, other = (DeepKernel.initial(few, width=4, generator=seed(i)) for i in (1, 2))
    assert not torch.equal(first.features.first, other.features.first)
    assert not any(value.requires_grad for value in (*vars(fits[0].features).values(), fits[0].process.constant))


@pytest.mark.usefixtures("short")
def test_pads_and_empty_tasks_are_invisible(past: Data) -> None:
    lengths = [20, 0, 5, 1, 12]
    ragged = Data.pad([(past.x[i, :n], past.y[i, :n]) for i, n in enumerate(lengths)])
    x, y = ragged.x.clone(), ragged.y.clone()
    x[~ragged.mask], y[~ragged.mask] = 1e6, 1e6
    clean = fit(ragged)
    assert clean.learned_from == LearnedFrom(4, 38)
    for other in (fit(Data(x, y, ragged.mask)), fit(ragged[ragged.count > 0])):
        new = past.x[0, :5]
        torch.testing.assert_close(other.predict(new).mean, clean.predict(new).mean)
        torch.testing.assert_close(other.predict(new).stddev, clean.predict(new).stddev)


@pytest.mark.usefixtures("short")
def test_alike_tasks_and_columns_that_never_vary(past: Data) -> None:
    x = past.x[:3, :12].clone()
    x[..., 1], x[..., 2] = 7.0, 1e6 + 0.1
    alike = Data.of(x[:1].expand(3, -1, -1), past.y[:1, :12].expand(3, -1))
    constant = Data.of(torch.full_like(x, 2.0), torch.full_like(past.y[:3, :12], 3.0))
    for rows in (Data.of(x, past.y[:3, :12]), alike, constant):
        prediction = fit(rows).condition(rows).predict(rows.x)
        assert prediction.mean.isfinite().all()
        assert prediction.stddev.isfinite().all()
    torch.testing.assert_close(prediction.mean, torch.full_like(prediction.mean, 3.0), rtol=0, atol=0.1)


@pytest.mark.usefixtures("short")
def test_float32_in_float32_out() -> None:
    tasks, new = ridges(4, 30), ridges(30, 60, number=1)
    prior, expected = fit(tasks.to(torch.float32)), fit(tasks)
    assert prior.features.first.dtype == prior.process.noise_var.dtype == torch.float32
    assert score(prior, new.to(torch.float32)) == pytest.approx(score(expected, new), abs=1e-3)


@pytest.mark.usefixtures("short")
def test_it_suggests_for_a_study() -> None:
    space = SearchSpace(studies.SPACE)
    x = space.sobol(64, generator=seed(0))
    losses = [
        torch.tensor([studies.loss(params, shift) for params in space.from_unit(x)], dtype=torch.float64)
        for shift in (-0.1, 0.0, 0.1, 0.2)
    ]
    tasks = Data.of(x.expand(4, -1, -1), torch.stack(losses))
    known = fit_family(space, tasks, "minimize", fit)
    better = []  # share of points better than the one suggested, in eight studies
    for number in range(1, 9):
        tried = space.sobol(8, generator=seed(number))
        y = torch.tensor([studies.loss(params, 0.05) for params in space.from_unit(tried)], dtype=torch.float64)
        _, value = known.suggest(Data.of(tried, y), tried[:1] + 0.01, ["mixture"] * 8)
        better.append((losses[1] < losses[1][value(x).argmax()]).double().mean())
    assert sum(better) / 8 < 0.1  # about .02 +- .013, and .5 by chance


def test_it_is_saved_and_loaded(learned: DeepKernel, tmp_path: Path) -> None:
    bm.save(learned, tmp_path / "prior.safetensors")
    loaded = bm.load(tmp_path / "prior.safetensors")
    assert same(loaded, learned)
    new = ridges(2, 10, number=5)
    assert torch.equal(loaded.condition(new).marginal(new.x).stddev, learned.condition(new).marginal(new.x).stddev)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown(progress: bool, past: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []

    class Screen(progress_line.Progress):
        def __init__(self, *columns: Any, disable: bool, transient: bool) -> None:
            super().__init__(*columns, disable=disable, transient=transient)
            said.append(not disable)

        def update(self, bar: Any, **fields: Any) -> None:
            said.append(fields["description"])

    monkeypatch.setattr(deep_kernel_fit, "NUM_STEPS", 2 * deep_kernel_fit.INTERVAL)
    monkeypatch.setattr(progress_line, "Progress", Screen)
    few = past[:3].rows(slice(5)).to(torch.float64)
    DeepKernel.initial(few, width=2).fit(few, generator=seed(0), progress=progress)
    assert said[0] == progress
    assert "per row of held-out tasks" in said[1]
    assert said[-1] == "learning a deep kernel from all tasks: 0 to go"


def test_bad_input(past: Data, learned: DeepKernel) -> None:
    with pytest.raises(ValueError, match="of one or more, and rows with inputs; got width 0, 4 layers and 960 rows"):
        DeepKernel.initial(past, width=0)
    with pytest.raises(ValueError, match="got width 32, 0 layers and"):
        DeepKernel.initial(past, num_layers=0)
    with pytest.raises(ValueError, match="4 layers and 960 rows with 0 inputs"):
        DeepKernel.initial(Data.of(None, past.y))
    with pytest.raises(ValueError, match="4 layers and 0 rows with 6 inputs"):
        DeepKernel.initial(past.rows(slice(0, 0)))
    with pytest.raises(ValueError, match="y must hold one number per row"):
        DeepKernel.initial(Data.of(past.x, past.x))
    initial = DeepKernel.initial(past)
    with pytest.raises(ValueError, match="at least two tasks with rows, on one axis; got 1"):
        initial.fit(past[:1])
    with pytest.raises(ValueError, match="x must have 6 columns; got 2"):
        initial.fit(replace(past, x=past.x[..., :2]))
    with pytest.raises(ValueError, match=r"fit learns one prior; self has batch_shape \(12,\)"):
        initial.condition(past).fit(past)
    with pytest.raises(ValueError, match="fit starts from a prior; got a posterior, which has seen rows"):
        learned.condition(past[0]).fit(past)
    with pytest.raises(ValueError, match="process must have one input per feature, 32; got 6"):
        DeepKernel(initial.features, GaussianProcess.initial(past))
    with pytest.raises(ValueError, match="biases must have a row per layer, 4 with the first; got 3"):
        replace(initial.features, biases=initial.features.biases[:3])
    with pytest.raises(ValueError, match="biases must be finite"):
        replace(initial.features, biases=initial.features.biases + math.nan)
    with pytest.raises(ValueError, match="scale must be finite and above zero; got 0"):
        replace(initial.features, scale=F64.new_zeros(6))


@pytest.mark.slow
def test_fit_takes_seconds() -> None:
    tasks = ridges(5, 300)
    began = time.process_time()
    fit(tasks)
    assert time.process_time() - began < 20.0
