import arviz
import numpy as np
import pytest
import torch
from torch import Tensor

from bayesmeta.mcmc import effective_size, pareto_k, rhat
from tests.seeds import seed


@pytest.fixture(params=[50, 101, 1000])
def draws(request: pytest.FixtureRequest) -> Tensor:
    """Four chains of five quantities that remember to different degrees; the last has ties."""
    noise = torch.randn(4, request.param, 5, generator=seed(0), dtype=torch.float64)
    found = noise.clone()
    memory = torch.tensor([0.0, 0.4, 0.95, -0.5, 0.7], dtype=torch.float64)
    for i in range(1, request.param):
        found[:, i] = memory * found[:, i - 1] + noise[:, i]
    found[..., -1] = found[..., -1].round()
    return found


@pytest.mark.parametrize("kind", ["mean", "bulk", "tail"])
def test_effective_size_is_that_of_arviz(draws: Tensor, kind: str) -> None:
    expected = arviz.ess(arviz.convert_to_dataset({"x": draws.numpy()}), method=kind).x.values
    np.testing.assert_allclose(effective_size(draws, kind=kind).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["rank", "split"])
def test_rhat_is_that_of_arviz(draws: Tensor, kind: str) -> None:
    expected = arviz.rhat(arviz.convert_to_dataset({"x": draws.numpy()}), method=kind).x.values
    np.testing.assert_allclose(rhat(draws, kind=kind).numpy(), expected, rtol=1e-12)


def test_k_is_that_of_arviz() -> None:
    widths = torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    log_weights = widths * torch.randn(900, 6, generator=seed(1), dtype=torch.float64)
    expected = [arviz.psislw(column.numpy())[1] for column in log_weights.mT]
    np.testing.assert_allclose(pareto_k(log_weights).numpy(), expected, rtol=1e-9)


def test_weights_that_are_all_but_zero_have_no_k() -> None:
    log_weights = torch.full((400, 2), -torch.inf, dtype=torch.float64)
    log_weights[:3, 0] = 0.0
    assert pareto_k(log_weights).tolist() == [torch.inf, torch.inf]


def test_a_chain_that_stands_still() -> None:
    still = torch.zeros(2, 20, 1, dtype=torch.float64)
    assert effective_size(still).item() == 40.0
    assert rhat(still, kind="split").item() == 1.0
    still[1] = 1.0
    assert rhat(still, kind="split").item() == torch.inf
