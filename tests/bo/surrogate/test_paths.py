"""Draws at points of their own are draws at all points, looked at where they belong."""

import pytest
import torch

import bayesmeta as bm
from bayesmeta.random import seeded
from bo.surrogate.matheron_paths import MatheronPaths
from bo.surrogate.paths import MOST_TOGETHER, Paths
from tests.bo.surrogate.surrogates import PRIORS, points, rows
from tests.families import FAMILIES, seed

POSTERIOR = PRIORS["mixture"]().condition(rows(4, num_inputs=2))
NUM_DRAWS = MOST_TOGETHER + 3


def test_each_draw_at_points_of_its_own() -> None:
    paths = Paths(POSTERIOR, NUM_DRAWS, generator=seed(0))
    x = points(NUM_DRAWS, 4, num_inputs=2)
    apart = paths.apart(x)
    assert apart.shape == (NUM_DRAWS, 4)
    for i in range(NUM_DRAWS):
        everywhere = paths.everywhere(x[i])
        assert everywhere.shape == (NUM_DRAWS, 4)
        torch.testing.assert_close(apart[i], everywhere[i], rtol=1e-10, atol=1e-10)
    assert len(paths.everywhere(x[0])[:, 0].unique()) == NUM_DRAWS


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_paths_have_the_shapes_that_botorch_expects(shape: tuple[int, ...]) -> None:
    with seeded(seed(0)):
        paths = MatheronPaths(POSTERIOR, torch.Size(shape))
    x = points(5, num_inputs=2)
    everywhere = paths(x)
    assert everywhere.shape == (*shape, 5)
    own = points(4, *shape, 5, num_inputs=2)
    apart = paths(own)
    assert apart.shape == (4, *shape, 5)
    for index in torch.cartesian_prod(*[torch.arange(n) for n in (4, *shape)]).reshape(-1, 1 + len(shape)).tolist():
        expected = paths(own[tuple(index)])[tuple(index[1:])]
        torch.testing.assert_close(apart[tuple(index)], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(paths(x.expand(4, *[1] * len(shape), 5, 2))[2], everywhere, rtol=1e-10, atol=1e-10)


def test_what_has_no_draws_of_one_task_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Posterior|posterior"):
        Paths(3, 1)
    batch = bm.GaussianProcess(torch.ones(3, 2), torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match=r"batch_shape \(3,\) and event_shape \(\)"):
        Paths(batch, 1)
    with pytest.raises(ValueError, match=r"batch_shape \(\) and event_shape \(2,\)"):
        Paths(FAMILIES["matrix_normal_inverse_wishart"].prior, 1)
    with pytest.raises(ValueError, match="one draw or more; got 0"):
        Paths(POSTERIOR, 0)
