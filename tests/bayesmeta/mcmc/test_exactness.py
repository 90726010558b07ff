import pytest
import torch
from torch import Tensor

from bayesmeta.checks.calibration import pit_ecdf, sbc_ecdf
from bayesmeta.mcmc import Densities, Draws, sample
from bayesmeta.mcmc.exactness import nearer_shares, ranks, thinned
from tests.bayesmeta.mcmc.targets import normal_reference
from tests.seeds import seed

TASKS = 1000


@pytest.fixture(scope="module")
def simulated() -> tuple[Draws, Tensor]:
    """Mean and log deviation of five rows, drawn from their prior first."""
    prior = normal_reference(TASKS, 2, 0.8)
    truth = prior.sample_params(1, generator=seed(0))[0]
    noise = torch.randn(TASKS, 5, generator=seed(1), dtype=torch.float64)

    def log_density(x: Tensor, y: Tensor) -> Tensor:
        fit = -0.5 * ((y - x[..., :1]) / x[..., 1:].exp()).square() - x[..., 1:]
        return fit.sum(-1) - 0.5 * (x / 0.8).square().sum(-1)

    targets = Densities(log_density, prior, {"y": truth[:, :1] + truth[:, 1:].exp() * noise})
    return sample(targets, num_draws=200, progress=False, generator=seed(2)), truth


def test_ranks_are_uniform(simulated: tuple[Draws, Tensor]) -> None:
    draws, truth = simulated
    found = ranks(draws.position, truth)
    for column in found.mT:
        assert sbc_ecdf(column, 99, level=1.0 - 1e-6).inside


def test_shares_are_uniform_and_show_what_ranks_do_not(simulated: tuple[Draws, Tensor]) -> None:
    draws, truth = simulated
    assert pit_ecdf(nearer_shares(draws.position, truth, generator=seed(3)), level=1.0 - 1e-6).inside


def test_coordinates_that_do_not_belong_together_are_seen() -> None:
    """Of two normal parameters the sum is known all but exactly: their draws, each in an order of its own."""
    truth = torch.randn(TASKS, 2, generator=seed(4), dtype=torch.float64)
    noise = torch.randn(1, 200, TASKS, generator=seed(5), dtype=torch.float64)
    middle = 0.5 * truth.sum(-1)
    exact = torch.stack([middle + 0.5**0.5 * noise, middle - 0.5**0.5 * noise], -1)
    mixed = exact.clone()
    mixed[..., 1] = mixed[..., 1].roll(1, dims=1)
    assert sbc_ecdf(ranks(mixed, truth)[:, 0], 99, level=1.0 - 1e-6).inside
    assert pit_ecdf(nearer_shares(exact, truth, generator=seed(6)), level=1.0 - 1e-6).inside
    assert not pit_ecdf(nearer_shares(mixed, truth, generator=seed(7)), level=0.99).inside


def test_draws_that_are_too_narrow_are_seen(simulated: tuple[Draws, Tensor]) -> None:
    draws, truth = simulated
    middle = draws.position.mean((0, 1))
    narrow = middle + 0.8 * (draws.position - middle)
    assert not sbc_ecdf(ranks(narrow, truth)[:, 0], 99).inside


def test_more_draws_than_there_are() -> None:
    with pytest.raises(ValueError, match="at most 20"):
        thinned(torch.zeros(2, 10, 1), 21)
