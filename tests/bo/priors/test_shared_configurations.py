"""Values on shared configurations: missing entries and posteriors by dense Gaussians; what smooth functions miss."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data, GaussianProcess
from bayesmeta.fields import LearnedFrom
from bayesmeta.gp.covariance import matern52
from bayesmeta.random import rand, randn
from bo import SharedConfigurations
from bo.priors import shared_configurations
from bo.priors.shared_configurations import PastValues, complete
from tests.bayesmeta.test_io import same
from tests.families import F64, seed

D = 2
LENGTHSCALE = torch.tensor([0.3, 0.6], dtype=torch.float64)


def table(num_tasks: int, n: int, *, seen: float = 1.0, number: int = 0, in_pairs: bool = False) -> Data:
    """Tasks that share values which are no function of x: a common column, three directions, and noise."""
    g = seed(7)
    x, common, directions = rand((n, D), like=F64, generator=g), *randn((2, n, 3), like=F64, generator=g)
    if in_pairs:  # so close that no smooth function has the values of both
        x[n // 2 :] = x[: n // 2] + 1e-3
    own = seed(number)
    y = common[:, 0] + randn((num_tasks, 3), like=F64, generator=own) @ directions.mT
    y = y + 0.1 * randn((num_tasks, n), like=F64, generator=own)
    return Data(x.expand(num_tasks, -1, -1), y, rand((num_tasks, n), like=F64, generator=own) < seen)


def fit(tasks: Data) -> SharedConfigurations:
    learned = SharedConfigurations.initial(tasks).fit(tasks)
    assert isinstance(learned, SharedConfigurations)
    return learned


def by_hand(n: int = 8, r: int = 3) -> SharedConfigurations:
    g = seed(3)
    points, mean, directions = (randn(shape, like=F64, generator=g) for shape in ((n, D), (n,), (n, r)))
    past = PastValues(points, LENGTHSCALE, mean, directions)
    return SharedConfigurations(
        LENGTHSCALE, F64 + 0.4, F64 + 0.1, F64 - 0.3, F64 + 0.2, past=past, past_weight=F64 + 0.8, past_var=F64 + 0.6
    )


def test_the_nearest_configuration() -> None:
    past, x = by_hand().past, randn((4, 5, D), like=F64, generator=seed(1))
    assert isinstance(past, PastValues)
    scale = LENGTHSCALE.numpy()
    for task in range(4):
        for row in range(5):
            gaps = (x[task, row].numpy() - past.points.numpy()) / scale
            assert past.nearest(x)[task, row] == np.square(gaps).sum(-1).argmin()
    mean, directions = past(x)
    assert torch.equal(mean, past.mean[past.nearest(x)])
    assert torch.equal(directions, past.directions[past.nearest(x)])


def test_close_configurations_are_told_apart() -> None:
    """Far from zero, where distances by way of products are wrong by more than the gaps."""
    points = 1e3 + 1e-6 * torch.arange(200.0, dtype=torch.float64)[:, None]
    past = PastValues(points, F64.new_ones(1), points[:, 0], points[:, :0])
    assert torch.equal(past.nearest(points), torch.arange(200))


def test_posterior_by_a_dense_gaussian() -> None:
    """Between stored configurations too, and on rows that share one."""
    prior = by_hand()
    past, g = prior.past, seed(5)
    assert past is not None
    x = torch.cat([past.points[[0, 3, 3, 5]], randn((6, D), like=F64, generator=g)])
    y = randn((7,), like=F64, generator=g)
    at = [int(((row - past.points) / LENGTHSCALE).square().sum(-1).argmin()) for row in x]
    correlation = matern52(x, x, LENGTHSCALE).numpy()
    mean = (prior.constant + prior.past_weight * past.mean[at]).numpy()
    shared = past.directions[at] @ past.directions[at].T
    cov = (prior.past_var * shared + prior.constant_var).numpy() + prior.outputscale.item() * correlation
    a, b, noise = slice(0, 7), slice(7, 10), prior.noise_var.item()
    noisy = cov[a, a] + noise * np.eye(7)
    gain = np.linalg.solve(noisy, cov[a, b]).T
    expected, left = mean[b] + gain @ (y.numpy() - mean[a]), cov[b, b] - gain @ cov[a, b]
    rows = Data.of(x[a], y)
    posterior = prior.condition(rows)
    close = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(posterior.marginal(x[b]).mean, expected, **close)
    np.testing.assert_allclose(posterior.marginal(x[b]).variance, np.diag(left), **close)
    np.testing.assert_allclose(posterior.predict(x[b]).variance, np.diag(left) + noise, **close)
    np.testing.assert_allclose(posterior.joint(x[b]).covariance_matrix, left, **close)
    density = scipy.stats.multivariate_normal(mean[a], noisy).logpdf(y)
    assert prior.log_evidence(rows).item() == pytest.approx(density, rel=1e-10)


def test_draws_are_of_the_table() -> None:
    """Without a residual process two rows near one configuration have one value."""
    prior = replace(by_hand(), outputscale=F64 + 1e-12)
    x = prior.past.points[:4].repeat_interleave(2, 0) + 1e-3 * randn((8, D), like=F64, generator=seed(1))
    f = prior.condition(Data.of(x[:2], F64.new_ones(2))).sample(5, generator=seed(0))(x)
    torch.testing.assert_close(f[:, ::2], f[:, 1::2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_rounds", [1, 2, 4])
def test_missing_entries_by_dense_gaussians(num_rounds: int) -> None:
    """Tasks of which much, little, nothing and all is missing."""
    n, prior = 9, by_hand()
    x, y = (randn(shape, like=F64, generator=seed(i)) for i, shape in enumerate(((n, D), (5, n))))
    seen = torch.arange(n) < torch.tensor([[2], [7], [9], [0], [5]])
    seen[0] = seen[0].flip(0)
    noise = prior.noise_var.item() * np.eye(n)
    mean, cov = prior.joint(x).mean.numpy(), prior.joint(x).covariance_matrix.numpy() + noise
    own = prior.constant_var.item() + prior.outputscale.item() * matern52(x, x, LENGTHSCALE).numpy() + noise
    first = mean
    for _ in range(num_rounds):
        filled, between = y.numpy().copy(), np.zeros((n, n))
        for task in range(5):
            a, b = np.flatnonzero(seen[task]), np.flatnonzero(~seen[task])
            gain = cov[np.ix_(b, a)] @ np.linalg.inv(cov[np.ix_(a, a)])
            filled[task, b] = mean[b] + gain @ (y[task].numpy()[a] - mean[a])
            between[np.ix_(b, b)] += cov[np.ix_(b, b)] - gain @ cov[np.ix_(a, b)]
        mean = (first + filled.sum(0)) / 6
        scatter = sum(np.outer(row - mean, row - mean) for row in [first, *filled])
        cov = (3 * own + scatter + between) / 8
    values, uncertain = complete(prior, x, y.masked_fill(~seen, 1e6), seen, num_rounds=num_rounds)
    assert uncertain is not None
    np.testing.assert_allclose(values, filled, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(uncertain, between, rtol=1e-9, atol=1e-9)


def test_a_whole_table_is_taken_as_it_is() -> None:
    tasks = table(6, 30)
    values, uncertain = complete(GaussianProcess.initial(tasks), tasks.x[0], tasks.y, tasks.mask)
    assert torch.equal(values, tasks.y)
    assert uncertain is None
    learned = fit(tasks)
    assert learned.past is not None
    shift = tasks.y.mT - learned.past.each(tasks.x[0])
    torch.testing.assert_close(shift, shift[:1, :1].expand_as(shift))


def test_missing_entries_are_recovered_better_than_by_column_means() -> None:
    tasks = table(40, 40, seen=0.7)
    smooth = GaussianProcess.initial(tasks).fit(tasks)
    errors = {}
    seen, y = tasks.mask, tasks.y
    columns = (y * seen).sum(0) / seen.sum(0)
    values = {rounds: complete(smooth, tasks.x[0], y, seen, num_rounds=rounds)[0] for rounds in (1, 5)}
    for name, guess in {"columns": columns.expand_as(y), **values}.items():
        errors[name] = (guess - y)[~seen].square().mean().item()
    # on a scale of logarithms about log(.015) +- .3 and log(.016) +- .55
    assert errors[5] < 0.1 * errors["columns"]
    assert errors[5] < 0.3 * errors[1], "rounds are of use"


def test_directions_are_the_covariance_of_the_completed_table() -> None:
    tasks = table(6, 12, seen=0.6)
    tasks = tasks.rows(tasks.mask.any(0))  # what no task has tried is not stored
    learned, smooth = fit(tasks), GaussianProcess.initial(tasks).fit(tasks)
    past = learned.past
    assert isinstance(past, PastValues)
    order = past.nearest(tasks.x[0])
    values, uncertain = complete(smooth, tasks.x[0], tasks.y, tasks.mask)
    assert uncertain is not None
    mean = values.mean(0)
    directions = past.directions[order]
    torch.testing.assert_close(past.mean[order], mean - smooth.constant)
    expected = ((values - mean).mT @ (values - mean) + uncertain) / 5
    torch.testing.assert_close(directions @ directions.mT, expected)
    torch.testing.assert_close(past.each(tasks.x[0]), (values - smooth.constant).mT)
    assert learned.learned_from == LearnedFrom(6, int(tasks.mask.sum()))


@pytest.mark.parametrize("seen", [1.0, 0.8])
def test_new_tasks_are_predicted_better_than_by_smooth_functions(seen: float) -> None:
    tasks, new = table(20, 40, seen=seen, in_pairs=True), table(10, 40, number=1, in_pairs=True)
    learned, smooth = fit(tasks), GaussianProcess.initial(tasks).fit(tasks)
    few, rest = new.rows(slice(0, 6)), new.rows(slice(6, 40))
    gain = learned.condition(few).log_evidence(rest) - smooth.condition(few).log_evidence(rest)
    assert (gain > 10.0).all()


def test_a_past_that_says_nothing_has_no_weight() -> None:
    tasks = table(20, 40)
    order = rand(tasks.y.shape, like=F64, generator=seed(2)).argsort(-1)
    learned = fit(replace(tasks, y=tasks.y.gather(-1, order)))
    assert learned.past is not None
    mean, directions = learned.past(tasks.x[0])
    known = learned.past_weight**2 * mean.var() + learned.past_var * directions.square().sum(-1).mean()
    assert known < 0.2 * (known + learned.outputscale + learned.noise_var)


def test_pads_the_order_of_rows_and_repeated_rows_change_nothing() -> None:
    tasks, x = table(6, 12, seen=0.6), table(6, 12).x[0]
    learned = fit(tasks)
    order = torch.randperm(12, generator=seed(1))
    dirty = replace(tasks, x=tasks.x.masked_fill(~tasks.mask[..., None], 1e6), y=tasks.y.masked_fill(~tasks.mask, 1e6))
    for other in (dirty, tasks.rows(order), tasks + tasks.rows(slice(0, 0))):
        past = fit(other).past
        assert past is not None
        torch.testing.assert_close(past.each(x), learned.past.each(x), rtol=1e-5, atol=1e-5)
    # of two rows of one configuration the mean
    twice = replace(tasks, y=tasks.y + 0.5) + replace(tasks, y=tasks.y - 0.5)
    past = fit(twice).past
    assert past is not None
    apart = past.each(x) - learned.past.each(x)
    torch.testing.assert_close(apart[tasks.mask.mT], apart[tasks.mask.mT][:1].expand(int(tasks.mask.sum())))


def test_of_many_configurations_those_are_kept_that_most_tasks_share(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = table(6, 30)
    mask = tasks.mask.clone()
    mask[2:, 10:] = False
    monkeypatch.setattr(shared_configurations, "MAX_CONFIGURATIONS", 10)
    past = fit(replace(tasks, mask=mask)).past
    assert past is not None
    assert torch.equal(past.points, tasks.x[0, :10].unique(dim=0))


def test_float32_in_float32_out() -> None:
    tasks, x = table(6, 20, seen=0.7), table(6, 20).x[0]
    learned, small = fit(tasks), fit(tasks.to(torch.float32))
    assert small.past is not None
    assert small.past.mean.dtype == small.past.directions.dtype == small.noise_var.dtype == torch.float32
    torch.testing.assert_close(small.past.each(x.float()).double(), learned.past.each(x), rtol=1e-2, atol=1e-2)


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    learned = fit(table(6, 20, seen=0.7))
    bm.save(learned, tmp_path / "prior.safetensors")
    loaded = bm.load(tmp_path / "prior.safetensors")
    assert same(loaded, learned)
    assert isinstance(loaded.past, PastValues)
    x: Tensor = table(6, 20).x[0]
    assert torch.equal(loaded.marginal(x).stddev, learned.marginal(x).stddev)


def test_bad_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = table(6, 20)
    start = SharedConfigurations.initial(tasks)
    with pytest.raises(ValueError, match="fit needs at least two tasks with rows, on one axis; got 1"):
        start.fit(tasks[:1])
    with pytest.raises(ValueError, match="x must have 2 columns; got 3"):
        start.fit(Data.of(torch.zeros(4, 5, 3).double(), torch.zeros(4, 5).double()))
    with pytest.raises(ValueError, match=r"fit learns one prior; self has batch_shape \(3,\)"):
        replace(start, constant=start.constant.expand(3)).fit(tasks)
    with pytest.raises(ValueError, match="fit starts from a prior; got a posterior, which has seen rows"):
        fit(tasks).condition(tasks[0]).fit(tasks)
    apart = Data.pad([(tasks.x[0, :8], tasks.y[0, :8]), (tasks.x[0, 8:], tasks.y[1, 8:])])
    monkeypatch.setattr(shared_configurations, "MAX_CONFIGURATIONS", 1)
    with pytest.raises(ValueError, match="two tasks with values on the 1 configurations that it keeps; got one"):
        fit(apart)
