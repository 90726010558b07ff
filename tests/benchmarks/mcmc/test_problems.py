"""What problems say of the truth: it is that of their simulators, and of their densities."""

import pytest
import torch

from benchmarks.mcmc.learned import PROBLEMS
from benchmarks.mcmc.problems import few_rows
from benchmarks.mcmc.problems.bimodal import Bimodal
from tests.seeds import seed


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_rows, "NUM_DRAWS", 2**14)


@pytest.mark.parametrize("name", PROBLEMS)
def test_parameters_lie_about_the_truth_as_far_as_it_says(name: str) -> None:
    """Standardised by posterior moments, those that rows were simulated by have mean zero and variance one."""
    params, rows, mask = PROBLEMS[name].simulate(300, seed(0))
    truth = PROBLEMS[name].truth(rows, mask)
    standard = (params - truth.mean) / truth.sd
    for found in (standard, standard.square() - 1.0):
        assert bool((found.mean(0).abs() < 5.0 * found.std(0) / 300**0.5).all())


@pytest.mark.parametrize("name", PROBLEMS)
def test_densities_have_the_moments_of_the_truth(name: str) -> None:
    """Draws of the prior, weighted by the density over that of a task without rows."""
    problem = PROBLEMS[name]
    _, rows, mask = problem.simulate(4, seed(1))
    draws = problem.simulate(50_000, seed(2))[0][:, None].expand(-1, 4, -1)
    prior = problem.targets(rows, torch.zeros_like(mask))
    weights = (problem.targets(rows, mask).log_density(draws) - prior.log_density(draws)).softmax(0)[..., None]
    mean, truth = (weights * draws).sum(0), problem.truth(rows, mask)
    error = ((weights * (draws - mean)).square().sum(0) + truth.error.square()).sqrt()
    assert bool(((mean - truth.mean).abs() < 5.0 * error).all())


def test_a_sign_is_as_probable_as_the_prior_says() -> None:
    params, rows, mask = Bimodal().simulate(2000, seed(0))
    share = Bimodal().share_below_zero(rows, mask)
    off = (params[:, 0] < 0).double() - share
    assert abs(float(off.mean())) < 5.0 * float(off.std()) / 2000**0.5
    assert float(((share > 0.02) & (share < 0.98)).double().mean()) > 0.2
