"""Exact posteriors, distances and environments of the benchmark of diffusion priors, by hand and by scipy."""

from typing import cast

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.csgraph
import scipy.special
import scipy.stats
import torch

from bayesmeta import CorrelatedArms
from benchmarks.diffusion.distances import energy_distance, gaussian_w2, moments
from benchmarks.diffusion.environments.maze import edges, mazes, path_regret
from benchmarks.diffusion.environments.popular_and_niche import GROUP, popular_and_niche
from benchmarks.diffusion.environments.worlds import ENVIRONMENTS, NOISE_SD, TRUTHS, seen, world_of
from benchmarks.diffusion.sections.exact import SETTINGS
from benchmarks.diffusion.sections.mixture import mode_weights
from benchmarks.diffusion.truths import WITHIN, all_arms, counts_of, gaussian_truth, rows_by_count, three_modes
from tests.families import F64, seed
from tests.seeds import shifted


def some_cov(size: int, number: int) -> torch.Tensor:
    a = torch.randn(size, size, generator=seed(number), dtype=torch.float64)
    return a @ a.mT + 0.1 * torch.eye(size).double()


def test_the_distance_of_gaussians_is_that_of_square_roots_by_scipy() -> None:
    mean, other = torch.randn(2, 4, generator=seed(1), dtype=torch.float64)
    cov, other_cov = some_cov(4, 2), some_cov(4, 3)
    root = scipy.linalg.sqrtm(cov.numpy())
    middle = scipy.linalg.sqrtm(root @ other_cov.numpy() @ root).real
    expected = float((mean - other).square().sum()) + np.trace(cov.numpy() + other_cov.numpy() - 2.0 * middle)
    assert float(gaussian_w2(mean, cov, other, other_cov)) == pytest.approx(expected, rel=1e-8)
    assert float(gaussian_w2(mean, cov, mean, cov)) == pytest.approx(0.0, abs=1e-8)
    # on a line: differences of means and of standard deviations
    found = gaussian_w2(F64[None] + 1.0, F64[None, None] + 4.0, F64[None] + 3.0, F64[None, None] + 25.0)
    assert float(found) == pytest.approx(4.0 + 9.0)


def test_moments_are_those_of_numpy() -> None:
    draws = torch.randn(50, 2, 3, generator=seed(4), dtype=torch.float64)
    mean, cov = moments(draws)
    for task in range(2):
        np.testing.assert_allclose(cov[task], np.cov(draws[:, task].numpy().T), rtol=1e-10)
        np.testing.assert_allclose(mean[task], draws[:, task].numpy().mean(0), rtol=1e-10)


def test_the_energy_distance_is_that_of_scipy_on_a_line() -> None:
    a = torch.randn(300, 1, 1, generator=seed(5), dtype=torch.float64)
    b = 1.0 + torch.randn(400, 1, 1, generator=seed(6), dtype=torch.float64)
    root = scipy.stats.energy_distance(a.flatten().numpy(), b.flatten().numpy())
    within = float((b[:, 0] - b[:, 0].mT).abs().sum() / (400 * 399))
    # scipy's has means over all pairs, each draw with itself among them
    first = float((a[:, 0] - a[:, 0].mT).abs().mean())
    expected = (root**2 - first / 299 - within / 400) / within
    assert float(energy_distance(a, b)[0]) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_weights_of_modes_after_rows_are_those_of_bayes() -> None:
    truth = three_modes(4, 0.3, seed(7))
    data = rows_by_count(torch.zeros(1, 4).double(), torch.tensor([[2, 0, 1, 0]]), 0.3, seed(8))
    found = truth.condition(data)
    arm, y = data.x[0, :, 0].long(), data.y[0]
    assert arm.tolist() == [0, 0, 2]
    same = (arm[:, None] == arm).double() * WITHIN**2 + 0.09 * torch.eye(3).double()
    modes = cast(CorrelatedArms, truth.components).loc
    each = [scipy.stats.multivariate_normal(loc[arm].numpy(), same.numpy()).logpdf(y.numpy()) for loc in modes]
    joint = np.log([0.5, 0.3, 0.2]) + np.array(each)
    np.testing.assert_allclose(found.log_weights[0], joint - scipy.special.logsumexp(joint), rtol=1e-8)
    assert float(truth.log_evidence(data)) == pytest.approx(scipy.special.logsumexp(joint), rel=1e-10)
    drawn = found.sample(4000, generator=seed(9))(all_arms(4))
    weights = found.weights[0]
    error = (mode_weights(truth, drawn)[0] - weights).abs()
    assert (error <= 5.0 * (weights * (1.0 - weights) / 4000).sqrt() + 1e-9).all()


def test_rows_are_as_many_as_asked_for() -> None:
    count = torch.tensor([[0, 3, 1], [2, 0, 0], [0, 0, 1]])
    theta = torch.tensor([[0.0, 1.0, 2.0]]).double().expand(3, 3)
    data = rows_by_count(theta, count, 0.0, seed(1))
    assert [row.x[0, row.mask[0], 0].tolist() for row in (data[[i]] for i in range(3))] == [[1, 1, 1, 2], [0, 0], [2]]
    torch.testing.assert_close(data.y[data.mask], data.x[..., 0][data.mask])
    assert counts_of(torch.tensor([[1, 1, 0]]), 3).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_rows(setting: str) -> None:
    count = SETTINGS[setting](50, 8, seed(2))
    assert count.shape == (50, 8)
    used = (count > 0).sum(-1)
    assert used.tolist() == [{"few": 2, "all": 8, "repeated": 2, "sharp": 6}[setting]] * 50
    assert int(count.max()) == {"few": 1, "all": 1, "repeated": 4}.get(setting, int(count.max())) <= 100


def test_a_gaussian_truth_has_variances_of_about_one() -> None:
    for size in (8, 40):
        assert 0.3 < float(gaussian_truth(size, 0.5, seed(3)).cov.diagonal().mean()) < 2.5


def test_tasks_like_some_niches_best() -> None:
    theta = popular_and_niche(400, 40, seed(4))
    groups = theta.reshape(400, -1, GROUP).mean(-1)
    liked = (groups[:, 4:] > 0.55).sum(-1)
    assert 1 <= int(liked.min()) <= int(liked.max()) <= 3
    assert (theta.argmax(-1) >= 20).double().mean() > 0.7, "the best arm is a niche for most tasks"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_worlds_have_a_past_apart_from_new_tasks(name: str) -> None:
    size = 4 if name == "maze" else 20
    world = world_of(name, {name: size}, 30, 10, None)
    assert world is not None
    assert world.past.shape == (30, world.num_arms)
    assert world.theta.shape == (10, world.num_arms)
    assert torch.cdist(world.theta, world.past).min() > 1e-6
    again = world_of(name, {name: size}, 30, 10, None)
    assert again is not None
    assert torch.equal(again.theta, world.theta)
    half = seen(world.past, seed(5), share=0.5)
    shown = (half.mask.sum(-1) / 2).mean() / world.num_arms
    assert float(shown) == pytest.approx(0.5, abs=5 * 0.5 / (30 * world.num_arms) ** 0.5 + 0.01)


@pytest.mark.parametrize("name", sorted(TRUTHS))
def test_truths_are_the_distribution_of_tasks(name: str) -> None:
    """No other prior finds them more probable in the mean; a Gaussian of their moments hardly less, if it is one."""
    world = world_of(name, {"gaussian": 20, "three_modes": 20, "popular_and_niche": 20}, 20_000, 400, None)
    assert world is not None
    data = rows_by_count(world.theta, torch.ones_like(world.theta).long(), NOISE_SD, seed(1))
    root = torch.linalg.cholesky(world.past.T.cov())
    gaussian = CorrelatedArms(world.past.mean(0), root, torch.tensor(NOISE_SD**2).double())
    truth = world.truth
    gain = truth.log_evidence(data) - gaussian.log_evidence(data)
    error = float(gain.std()) / len(gain) ** 0.5
    assert gain.mean() > -5.0 * error
    if name == "gaussian":
        assert gain.mean() < 0.5
    else:
        assert gain.mean() > 5.0 * error


def test_a_truth_of_many_kinds_is_not_there() -> None:
    world = world_of("popular_and_niche", {"popular_and_niche": 200}, 2, 2, None)
    assert world is not None
    assert world.truth is None


def test_jester_needs_its_folder() -> None:
    assert world_of("jester", {}, 30, 10, None) is None


def test_mazes_have_one_way_between_any_two_cells() -> None:
    costs = mazes(5, 4, seed(6))
    assert costs.shape == (5, 24)
    for row in costs:
        passages = edges(4)[row < 0.5].numpy()
        assert len(passages) == 15
        graph = scipy.sparse.coo_array((np.ones(15), passages.T), shape=(16, 16))
        assert scipy.sparse.csgraph.connected_components(graph, directed=False)[0] == 1
    assert (costs.amax(-1) > 0.8).all()


def test_who_knows_a_maze_has_no_regret() -> None:
    costs = mazes(1, 4, seed(7))
    known = CorrelatedArms(costs[0], 1e-6 * torch.eye(24).double(), F64 + 0.01)
    assert float(path_regret(known, costs, 0.1, shifted(8), 5).abs().max()) < 1e-6
    vague = CorrelatedArms(torch.full((24,), 0.5).double(), torch.eye(24).double(), F64 + 0.01)
    assert float(path_regret(vague, costs, 0.1, shifted(8), 5).min()) > 0.0
