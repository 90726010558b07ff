"""Learning a Gaussian process: what simulated tasks were made of is found again, and no pattern where there is none."""

import time
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from bayesmeta import Data, GaussianProcess
from bayesmeta.gp.covariance import matern52
from bayesmeta.gp.fit import MAX_POINTS, MAX_TASKS, _as_columns, _choose_points, _log_density, _subset
from bayesmeta.random import rand, randn
from tests.families import F64, seed

LENGTHSCALE = torch.tensor([0.3, 0.6], dtype=torch.float64)
NOISE_VAR, LEVEL_VAR = 0.01, 0.25
NUM_WORLDS = 10
NEW_X = rand((200, 2), like=F64, generator=seed(99))


def common_function(x: Tensor, world: int = 0) -> Tensor:
    """What simulated tasks have in common, with variance about one."""
    f = GaussianProcess(LENGTHSCALE, F64 + 1.0, F64 + 1.0).sample(1, generator=seed(7 + 100 * world))
    return f(x.reshape(-1, 2)).reshape(x.shape[:-1])


def simulate(
    num_tasks: int,
    n: int,
    *,
    common: float = 1.0,
    own: float = 0.3,
    shared: bool = True,
    number: int = 0,
    world: int = 0,
) -> Data:
    """Rows of `common * common_function + own * (a function of the task) + level + noise`."""
    g = seed(number + 100 * world)
    x = rand((n, 2), like=F64, generator=g).expand(num_tasks, n, 2)
    if not shared:
        x = rand((num_tasks, n, 2), like=F64, generator=g)
    each = GaussianProcess(LENGTHSCALE.expand(num_tasks, 2), F64 + 1.0, F64 + 1.0).sample(1, generator=g)(x)[0]
    level = LEVEL_VAR**0.5 * randn((num_tasks, 1), like=F64, generator=g)
    noise = NOISE_VAR**0.5 * randn((num_tasks, n), like=F64, generator=g)
    return Data.of(x, common * common_function(x, world) + own * each + level + noise)


def permuted(tasks: Data, number: int = 0) -> Data:
    """The same targets, at other rows of their task: a past that says nothing."""
    order = rand(tasks.y.shape, like=F64, generator=seed(number)).argsort(-1)
    return replace(tasks, y=tasks.y.gather(-1, order))


def fit(tasks: Data) -> GaussianProcess:
    return GaussianProcess.initial(tasks).fit(tasks)


def past_share(prior: GaussianProcess) -> float:
    """Of the variance of a new task's rows about its level: what the past functions claim to know."""
    assert prior.past is not None
    mean, directions = prior.past(NEW_X)
    known = prior.past_weight**2 * mean.var() + prior.past_var * directions.square().sum(-1).mean()
    return (known / (known + prior.outputscale + prior.noise_var)).item()


def same_predictions(a: GaussianProcess, b: GaussianProcess, tolerance: float) -> None:
    rows = simulate(1, 10, number=50)[0]
    for left, right in ((a, b), (a.condition(rows), b.condition(rows))):
        ours, theirs = left.predict(NEW_X), right.predict(NEW_X)
        torch.testing.assert_close(ours.mean, theirs.mean, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(ours.variance, theirs.variance, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def alike() -> Data:
    return simulate(20, 60)


@pytest.fixture(scope="module")
def learned(alike: Data) -> GaussianProcess:
    return fit(alike)


@pytest.fixture(scope="module")
def worlds() -> list[GaussianProcess]:
    """Each learned from tasks with another common function: one function says little about a lengthscale."""
    return [fit(simulate(20, 60, world=world)) for world in range(NUM_WORLDS)]


def found_again(prior: GaussianProcess, world: int) -> list[Tensor]:
    """How far what was learned lies from the truth."""
    assert prior.past is not None
    mean, directions = prior.past(NEW_X)
    truth = common_function(NEW_X, world)
    own = prior.past_var * directions.square().sum(-1).mean() + prior.outputscale
    return [
        *(prior.lengthscale / LENGTHSCALE).log(),
        (prior.noise_var / NOISE_VAR).log(),
        prior.constant_var / LEVEL_VAR - 1.0,
        prior.past_weight - 1.0,
        (own / 0.3**2).log(),
        1.0 - torch.corrcoef(torch.stack([mean, truth]))[0, 1],
        ((mean - mean.mean()) - (truth - truth.mean())).square().mean().sqrt(),
    ]


@pytest.mark.parametrize("shared", [True, False], ids=["shared inputs", "inputs of their own"])
def test_the_truth_is_found_again(shared: bool, worlds: list[GaussianProcess]) -> None:
    """On average over common functions; the room is the bias of twenty tasks and five standard errors of the mean."""
    if not shared:
        worlds = [fit(simulate(20, 60, shared=False, world=world)) for world in range(NUM_WORLDS)]
    errors = torch.stack([torch.stack(found_again(prior, world)) for world, prior in enumerate(worlds)]).mean(0)
    spread = torch.tensor([0.26, 0.20, 0.17, 0.41, 0.041, 0.38, 0.012, 0.035]).double()  # of one world
    bias = torch.tensor([0.10, 0.12, 0.13, 0.07, 0.11, 0.23, 0.015, 0.105]).double()
    assert (errors.abs() < bias + 5 * spread / NUM_WORLDS**0.5).all()
    assert worlds[0].learned_from is not None
    assert (worlds[0].learned_from.tasks, worlds[0].learned_from.rows) == (20, 1200)


def test_tasks_that_share_everything() -> None:
    prior = fit(simulate(15, 60, own=0.0))
    assert prior.past_weight.item() == pytest.approx(1.0, abs=0.1)
    assert prior.outputscale < 0.01
    # a common function that hardly bends leaves more to the noise: 1.2 +- .3 of what the truth leaves, over 20 worlds
    noise_share = NOISE_VAR / (common_function(NEW_X, 0).var().item() + NOISE_VAR)
    assert 1.0 - past_share(prior) < 3.0 * noise_share


@pytest.mark.parametrize("kind", ["functions of their own", "permuted"])
def test_tasks_that_share_nothing(kind: str) -> None:

    def past(world: int) -> Data:
        if kind == "permuted":
            return permuted(simulate(20, 60, world=world))
        return simulate(20, 60, common=0.0, own=1.0, world=world)

    priors = [fit(past(world)) for world in range(4)]
    prior = priors[0]
    # the weight alone says nothing: the mean that it multiplies is about zero; of one world about .09 +- .07
    assert sum(map(past_share, priors)) / 4 < 0.35
    kernel_alone = replace(prior, past_weight=F64, past_var=F64)
    new = (
        permuted(simulate(10, 60, number=3), 3)
        if kind == "permuted"
        else simulate(10, 60, common=0.0, own=1.0, number=3)
    )
    gain = (prior.log_evidence(new) - kernel_alone.log_evidence(new)).mean() / 60
    assert gain.abs() < 0.03, "on new tasks such a past neither helps nor harms"


def test_new_tasks_are_predicted_better_than_without_past(learned: GaussianProcess) -> None:
    new = simulate(10, 60, number=3)
    vague = GaussianProcess.initial(new)
    few, rest = new.rows(slice(0, 3)), new.rows(slice(3, 60))
    gain = learned.condition(few).log_evidence(rest) - vague.condition(few).log_evidence(rest)
    assert gain.mean() > 0  # the least of ten tasks gains about 30 +- 9


def test_strengths_are_where_the_evidence_of_new_tasks_is_greatest(worlds: list[GaussianProcess]) -> None:
    """Left-out tasks stand for new ones: neither more nor less trust would do much better on these."""
    gains: dict[tuple[str, float], list[Tensor]] = defaultdict(list)
    for world, prior in enumerate(worlds):
        new = simulate(50, 40, number=4, world=world)
        at = prior.log_evidence(new).mean()
        for name in ("past_weight", "outputscale", "noise_var"):
            for factor in (0.7, 1.4):
                other = replace(prior, **{name: factor * getattr(prior, name)})
                gains[name, factor].append(other.log_evidence(new).mean() - at)
    for changed, gain in gains.items():  # of one world about .4 +- .7
        assert torch.stack(gain).mean() < 0.4 + 5 * 0.7 / NUM_WORLDS**0.5, changed  # in nats per task of 40 rows


def test_units_of_y_change_nothing(alike: Data, learned: GaussianProcess) -> None:
    far = fit(replace(alike, y=1e4 * alike.y + 1e6))
    rows = simulate(1, 10, number=50)[0]
    for ours, theirs in (
        (far.predict(NEW_X), learned.predict(NEW_X)),
        (
            far.condition(replace(rows, y=1e4 * rows.y + 1e6)).predict(NEW_X),
            learned.condition(rows).predict(NEW_X),
        ),
    ):
        torch.testing.assert_close((ours.mean - 1e6) / 1e4, theirs.mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.stddev / 1e4, theirs.stddev, rtol=1e-6, atol=1e-6)


def test_a_start_of_another_scale_or_with_a_past_gives_the_same(alike: Data, learned: GaussianProcess) -> None:
    start = GaussianProcess.initial(alike)
    scaled = replace(
        start,
        scale=F64 + 3.0,
        outputscale=start.outputscale / 9,
        noise_var=start.noise_var / 9,
        constant=start.constant / 3,
        constant_var=start.constant_var / 9,
    )
    same_predictions(scaled.fit(alike), learned, 1e-6)
    with_past = replace(start, past=learned.past, past_weight=F64 + 5.0)
    same_predictions(with_past.fit(alike), learned, 1e-6)


def test_the_same_tasks_give_the_same_prior(alike: Data, learned: GaussianProcess) -> None:
    same_predictions(fit(alike), learned, 0.0)


def test_order_of_tasks_and_rows_is_irrelevant(alike: Data, learned: GaussianProcess) -> None:
    shuffled = alike[torch.randperm(20, generator=seed(1))].rows(torch.randperm(60, generator=seed(2)))
    same_predictions(fit(shuffled), learned, 1e-5)


def test_pads_and_empty_tasks_are_invisible(alike: Data) -> None:
    lengths = [60, 0, 5, 1, 30, 60, 44]
    ragged = Data.pad([(alike.x[i, :n], alike.y[i, :n]) for i, n in enumerate(lengths)])
    x, y = ragged.x.clone(), ragged.y.clone()
    x[~ragged.mask], y[~ragged.mask] = 1e6, 1e6
    clean = fit(ragged)
    same_predictions(fit(Data(x, y, ragged.mask)), clean, 1e-10)
    assert clean.learned_from is not None
    assert (clean.learned_from.tasks, clean.learned_from.rows) == (6, 200)
    same_predictions(fit(ragged[ragged.count > 0]), clean, 1e-5)


def test_sharing_inputs_is_only_a_faster_way(alike: Data, learned: GaussianProcess) -> None:
    padded = Data.pad([*((d.x, d.y) for d in alike), (torch.zeros(61, 2).double(), torch.zeros(61).double())])[:20]
    assert len(_as_columns(padded)[1]) == 20, "a pad, and each task has a covariance of its own"
    same_predictions(fit(padded), learned, 1e-6)


def test_float32_in_float32_out(alike: Data, learned: GaussianProcess) -> None:
    prior = fit(alike.to(torch.float32))
    assert prior.past is not None
    assert prior.lengthscale.dtype == prior.past.points.dtype == prior.noise_var.dtype == torch.float32
    same_predictions(prior.to(torch.float64), learned, 1e-2)


def test_two_tasks_are_enough() -> None:
    prior = fit(simulate(2, 30))
    assert prior.past is not None
    assert all(value.isfinite().all() for value in (prior.predict(NEW_X).mean, prior.predict(NEW_X).variance))


@pytest.mark.slow
def test_more_tasks_and_rows_than_the_evidence_takes() -> None:
    tasks = simulate(70, 140, shared=False)
    prior = fit(tasks)
    again = GaussianProcess.initial(tasks).fit(tasks, generator=seed(3))
    for each in (prior, again):
        assert each.past is not None
        assert len(each.past.points) == MAX_POINTS
        assert each.learned_from is not None
        assert (each.learned_from.tasks, each.learned_from.rows) == (70, 9800)
        mean, truth = each.past(NEW_X)[0], common_function(NEW_X)
        assert torch.corrcoef(torch.stack([mean, truth]))[0, 1] > 0.98
    assert again.noise_var.item() == pytest.approx(prior.noise_var.item(), rel=0.2)


def test_subset_takes_real_rows_of_the_tasks_it_names() -> None:
    tasks = simulate(70, 140, shared=False)
    tasks = replace(tasks, mask=torch.arange(140) < torch.randint(1, 141, (70, 1), generator=seed(0)))
    some, own = _subset(tasks, seed(1))
    assert some.mask.shape == (MAX_TASKS, 128)
    assert torch.equal(some.count, tasks.count[own].clamp(max=128))
    for t in range(MAX_TASKS):
        chosen, real = some.y[t][some.mask[t]], tasks.y[own[t]][tasks.mask[own[t]]]
        assert torch.isin(chosen, real).all()
        assert len(chosen.unique()) == len(chosen)


def test_chosen_points_cover() -> None:
    tasks = simulate(20, 60, shared=False)
    points = _choose_points(tasks, LENGTHSCALE, seed(0))
    assert points.shape == (MAX_POINTS, 2)
    # noise-free values at the chosen points leave next to nothing of the rest unknown
    k, cross = matern52(points, points, LENGTHSCALE), matern52(points, tasks.x.reshape(-1, 2), LENGTHSCALE)
    factor = torch.linalg.cholesky(k + 1e-10 * torch.eye(MAX_POINTS, dtype=torch.float64))
    left = 1.0 - torch.linalg.solve_triangular(factor, cross, upper=False).square().sum(0)
    assert left.max() < 1e-3
    few = simulate(20, 60)
    assert len(_choose_points(few, LENGTHSCALE, seed(0))) == 60, "all of them where they are few"


def test_log_density_and_its_gradient() -> None:
    root = randn((3, 5, 5), like=F64, generator=seed(0))
    cov, y = root @ root.mT + torch.eye(5, dtype=torch.float64), randn((3, 5, 2), like=F64, generator=seed(1))
    by_torch = MultivariateNormal(F64.expand(5), cov).log_prob(y.movedim(-1, 0)).sum()
    constant = 3 * 2 * 5 * 0.5 * torch.log(2 * torch.pi * torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(_log_density(cov, y), by_torch + constant, rtol=1e-12, atol=1e-12)

    def symmetric(root: Tensor, y: Tensor) -> Tensor:
        return _log_density(root @ root.mT + torch.eye(5, dtype=torch.float64), y)

    assert torch.autograd.gradcheck(symmetric, (root.requires_grad_(), y.requires_grad_()))


def test_tasks_with_the_same_inputs_are_columns(alike: Data) -> None:
    x, y, mask = _as_columns(alike)
    assert (x.shape, y.shape, mask.shape) == ((1, 60, 2), (1, 60, 20), (1, 60))
    ragged = replace(alike, mask=torch.arange(60) < torch.arange(41, 61)[:, None])
    other = simulate(20, 60, shared=False)
    for tasks in (ragged, other):
        assert _as_columns(tasks)[1].shape == (20, 60, 1)


def test_bad_tasks(alike: Data, learned: GaussianProcess) -> None:
    start = GaussianProcess.initial(alike)
    with pytest.raises(ValueError, match="fit needs at least two tasks with rows, on one axis; got 1"):
        start.fit(alike[:1])
    with pytest.raises(ValueError, match="fit needs at least one row; got 20 tasks, all empty"):
        start.fit(alike.rows(slice(0, 0)))
    with pytest.raises(ValueError, match="x must have 2 columns; got 3"):
        start.fit(Data.of(torch.zeros(4, 5, 3).double(), torch.zeros(4, 5).double()))
    with pytest.raises(ValueError, match=r"fit learns one prior; self has batch_shape \(3,\)"):
        replace(start, constant=start.constant.expand(3)).fit(alike)
    with pytest.raises(ValueError, match="fit starts from a prior; got a posterior, which has seen rows"):
        learned.condition(simulate(1, 4)[0]).fit(alike)


@pytest.mark.slow
def test_fit_takes_seconds() -> None:
    tasks = simulate(40, 128, shared=False)
    began = time.process_time()
    fit(tasks)
    assert time.process_time() - began < 15.0  # about 3 on a core of 2024
