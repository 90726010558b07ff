"""Thompson sampling against exact joint draws, grids, and functions whose greatest point is known."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Generator, Tensor
from torch.distributions import Normal

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.random import rand, randn
from bo import SearchSpace, thompson_points
from bo.surrogate.paths import Paths
from tests.bo.surrogate.surrogates import PRIORS, rows
from tests.families import F64, seed

SQUARE = SearchSpace({"a": FloatDistribution(0.0, 1.0), "b": FloatDistribution(0.0, 1.0)})
MIXED = SearchSpace(
    {
        "rate": FloatDistribution(1e-4, 1.0, log=True),
        "step": FloatDistribution(0.0, 1.0, step=0.25),
        "depth": IntDistribution(1, 12),
        "kind": CategoricalDistribution(("linear", "tree", "forest")),
        "fixed": FloatDistribution(2.0, 2.0),
        "leaves": FloatDistribution(0.0, 1.0),
    },
    conditions={"leaves": ("kind", ("tree", "forest"))},
)


@pytest.fixture(params=["gaussian_process", "linear_gaussian", "learned_features", "mixture", "transfer_hypotheses"])
def posterior(request: pytest.FixtureRequest) -> Any:
    return PRIORS[request.param]().condition(rows(6, num_inputs=2))


def shares_of_greatest(values: Tensor) -> Tensor:
    return torch.bincount(values.argmax(-1), minlength=values.shape[-1]) / len(values)


def may_have_shares(found: Tensor, num_found: int, exact: Tensor, num_exact: int, bias: float = 0.0) -> bool:
    """By exact tails of both counts, of one in ten million each: some shares are of a count of next to nothing."""
    count, of_exact = (found * num_found).round().numpy(), (exact * num_exact).round().numpy()
    least = scipy.stats.beta.ppf(1e-7, of_exact, num_exact - of_exact + 1)
    most = scipy.stats.beta.ppf(1.0 - 1e-7, of_exact + 1, num_exact - of_exact)
    least, most = np.nan_to_num(least - bias).clip(0.0), np.nan_to_num(most + bias, nan=1.0).clip(max=1.0)
    enough = scipy.stats.binom.sf(count - 1, num_found, most) > 1e-7
    few = scipy.stats.binom.cdf(count, num_found, least) > 1e-7
    return bool((enough & few).all())


def joint_draws(f: Any, num: int) -> Tensor:
    factor = torch.linalg.cholesky(f.covariance_matrix + 1e-10 * torch.eye(len(f.mean)))
    return f.mean + randn((num, len(f.mean)), like=F64, generator=seed(9)) @ factor.mT


@pytest.mark.parametrize("number_of_rows", [0, 5])
def test_functions_are_greatest_where_exact_draws_are(number_of_rows: int) -> None:
    """A path is not quite Gaussian, being a sum of waves: by 400,000 draws that moves less than .005 of probability."""
    data, x = rows(number_of_rows, num_inputs=2), rand((12, 2), like=F64, generator=seed(1))
    process = bm.GaussianProcess(torch.tensor([0.3, 0.3]).double(), F64 + 1.0, F64 + 0.01).condition(data)
    exact = shares_of_greatest(joint_draws(process.joint(x), 200_000))
    found = shares_of_greatest(process.sample(8000, generator=seed(0))(x))
    assert may_have_shares(found, 8000, exact, 200_000, bias=0.005)


def test_points_are_as_often_proposed_as_they_are_best() -> None:
    """Eight whole numbers under a correlated process, of which some are seldom best."""
    space = SearchSpace({"n": IntDistribution(1, 8)})
    x = space.to_unit({"n": n} for n in range(1, 9))
    data = Data.of(x[[1, 5]], torch.tensor([0.4, -0.5]).double())
    process = bm.GaussianProcess(torch.tensor([0.3]).double(), F64 + 1.0, F64 + 0.05).condition(data)
    exact = shares_of_greatest(joint_draws(process.joint(x), 200_000))
    found = thompson_points(process, space, 400, generator=seed(0))
    shares = (found == x[:, 0]).double().mean(0)
    assert shares.sum() == pytest.approx(1.0)
    assert may_have_shares(shares, 400, exact, 200_000)


@pytest.mark.parametrize("space", [SQUARE, MIXED], ids=["square", "mixed"])
def test_points_are_valid_and_beat_random_ones(space: SearchSpace) -> None:
    """One draw in 25 of a mixed space is climbed to a lesser top, which two thousand points may overlook as well."""
    short = []
    for number in range(5):
        generator = seed(10 * number)
        x = space.sobol(10, generator=generator)
        data = Data.of(x, randn((10,), like=F64, generator=generator))
        lengthscale = torch.full((space.num_columns,), 0.4).double()
        process = bm.GaussianProcess(lengthscale, F64 + 1.0, F64 + 0.01).condition(data)
        found = thompson_points(process, space, 11, generator=seed(1))
        torch.testing.assert_close(space.snap(found), found, rtol=0, atol=0)
        values = Paths(process, 11, generator=seed(1)).apart(found[:, None])[:, 0]
        random = Paths(process, 11, generator=seed(1)).everywhere(space.sobol(2000, generator=generator)).amax(-1)
        short.append((random - values).clamp(min=0.0))
    assert torch.cat(short).mean() < 0.04  # of functions with a standard deviation of one
    assert (torch.cat(short) == 0.0).double().mean() > 0.75


def test_any_posterior_will_do(posterior: Any) -> None:
    found = thompson_points(posterior, SQUARE, 9, generator=seed(1))
    values = Paths(posterior, 9, generator=seed(1)).apart(found[:, None])[:, 0]
    random = Paths(posterior, 9, generator=seed(1)).everywhere(rand((2000, 2), like=F64, generator=seed(2)))
    spread = random.std(-1)
    assert found.shape == (9, 2)
    assert ((found >= 0) & (found <= 1)).all()
    assert (values >= random.amax(-1) - 0.05 * spread).all()


def test_on_a_line_it_is_the_best_of_a_fine_grid() -> None:
    space = SearchSpace({"x": FloatDistribution(0.0, 1.0)})
    data = Data.of(torch.tensor([[0.2], [0.9]]).double(), torch.tensor([0.3, 0.0]).double())
    process = bm.GaussianProcess(torch.tensor([0.3]).double(), F64 + 1.0, F64 + 0.01).condition(data)
    found = thompson_points(process, space, 8, generator=seed(0))
    grid = torch.linspace(0.0, 1.0, 20_001).double()[:, None]
    best = Paths(process, 8, generator=seed(0)).everywhere(grid).argmax(-1)
    assert (found - grid[best]).abs().max() < 1e-4


@dataclass
class _Hills:
    """Functions with one hill each, or one valley, whose top is drawn; of any height, and of any width."""

    height: float = 1.0
    width: float = 1.0

    batch_shape = event_shape = torch.Size()

    def condition(self, data: Data) -> "_Hills":
        return self

    def predict(self, x: Tensor) -> Normal:
        return Normal(torch.zeros(x.shape[:-1]), 1.0)

    def sample(self, num_draws: int, *, generator: Generator | None = None) -> "_Drawn":
        return _Drawn(rand((num_draws, 2), like=F64, generator=generator), self.height, self.width)


@dataclass
class _Drawn:
    top: Tensor
    height: float
    width: float

    def __call__(self, x: Tensor) -> Tensor:
        away = (x - self.top[:, None]) / self.width
        return self.height / (1.0 + away.square().sum(-1))

    def predict(self, x: Tensor) -> Normal:
        return Normal(self(x), 1.0)


@pytest.mark.parametrize("height", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("width", [0.01, 1.0])
def test_the_known_top_of_a_hill(height: float, width: float) -> None:
    """Of a posterior that nobody knows; its units do not matter."""
    top = rand((5, 2), like=F64, generator=seed(0))
    highest = thompson_points(_Hills(height, width), SQUARE, 5, generator=seed(0))
    assert (highest - top).abs().max() < 1e-5
    lowest = thompson_points(_Hills(-height, width), SQUARE, 5, maximize=False, generator=seed(0))
    assert torch.equal(lowest, highest)


def test_starts_are_searched_from() -> None:
    """A hill so narrow that no other point is near it."""
    narrow = _Hills(width=1e-6)
    top = rand((1, 2), like=F64, generator=seed(0))
    with_start = thompson_points(narrow, SQUARE, 1, starts=top + 1e-5, generator=seed(0))
    assert (with_start - top).abs().max() < 1e-5


def test_draws_follow_the_generator() -> None:
    posterior = PRIORS["transfer_hypotheses"]().condition(rows(6, num_inputs=2))
    first, again, other = (thompson_points(posterior, SQUARE, 3, generator=seed(i)) for i in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bad_input_is_named() -> None:
    with pytest.raises(TypeError, match=r"Posterior|posterior"):
        thompson_points(3, SQUARE)
    with pytest.raises(ValueError, match="one draw or more; got 0"):
        thompson_points(PRIORS["mixture"](), SQUARE, 0)
