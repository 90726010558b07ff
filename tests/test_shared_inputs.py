"""Where past tasks share their inputs, past functions there are the past values, and nothing changes elsewhere."""

import torch

from bayesmeta import Data, GaussianProcess
from bayesmeta.past_functions import SharedInputs
from tests.families import seed

X = torch.rand(80, 2, generator=seed(0), dtype=torch.float64)
NOISE = torch.randn(5, 80, generator=seed(1), dtype=torch.float64)
Y = (X[:, 0] * 5.0).sin() + torch.arange(5.0)[:, None] * X[:, 1] + 0.3 * NOISE
TASKS = Data.of(X.expand(5, -1, -1), Y)
LEARNED = GaussianProcess.initial(TASKS).fit(TASKS)


def test_past_functions_pass_through_past_values() -> None:
    each = LEARNED.past.each(X)
    torch.testing.assert_close(each - each.mean(0), Y.mT - Y.mT.mean(0), rtol=1e-8, atol=1e-8)


def test_mean_and_directions_are_those_of_the_values() -> None:
    mean, directions = LEARNED.past(X)
    each = LEARNED.past.each(X)
    torch.testing.assert_close(mean, each.mean(-1))
    torch.testing.assert_close(directions @ directions.mT, each.cov(), rtol=1e-8, atol=1e-8)
    _, about_zero = LEARNED.past.about_zero()(X)
    torch.testing.assert_close(about_zero @ about_zero.mT, each @ each.mT / 5, rtol=1e-8, atol=1e-8)


def test_elsewhere_functions_are_smooth() -> None:
    near = X + 1e-4
    smooth = LEARNED.past._replace(shared=None)
    assert torch.equal(LEARNED.past.each(near), smooth.each(near))
    assert (LEARNED.past.each(X) - smooth.each(X)).std() > 0.1, "noise was smoothed away"


def test_a_grid_with_equal_coordinates_is_told_apart() -> None:
    axis = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis, axis)
    shared = SharedInputs.sort(grid, torch.arange(125.0, dtype=torch.float64)[:, None])
    order = torch.randperm(125, generator=seed(0))
    torch.testing.assert_close(shared(grid[order])[:, 0], order.double())
    assert (shared(grid + 0.01) == 0).all()


def test_tasks_of_their_own_inputs_share_none() -> None:
    own = Data.of(torch.rand(5, 80, 2, generator=seed(2), dtype=torch.float64), Y)
    assert GaussianProcess.initial(own).fit(own).past.shared is None
