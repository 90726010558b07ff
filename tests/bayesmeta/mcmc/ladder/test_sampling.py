import math
from typing import Any

import pytest
import torch
from torch import Tensor

from bayesmeta.mcmc import Checks, Densities, sample
from bayesmeta.warning_kinds import NotConvergedWarning
from tests.bayesmeta.mcmc.targets import LEFT, gaussians, normal_reference, two_modes
from tests.seeds import seed

FEW: dict[str, Any] = {"num_draws": 500, "progress": False}


@pytest.mark.parametrize("rung", ["laplace_t", "several_starts", "tempered", "gradients"])
def test_moments_of_normal_targets(rung: str) -> None:
    targets, mean, cov = gaussians(6, 3)
    draws = sample(targets, ladder=[rung], generator=seed(1), **FEW)
    assert bool(draws.passed.all())
    sd = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    error = sd / draws.ess_bulk.sqrt()
    assert bool(((draws.position.mean((0, 1)) - mean).abs() < 5.0 * error).all())
    found = draws.position.flatten(0, 1).std(0)
    assert bool(((found / sd - 1.0).abs() < 5.0 / (0.5 * draws.ess_bulk).sqrt()).all())


@pytest.mark.parametrize("rung", ["laplace_t", "several_starts", "tempered"])
def test_evidence_of_normal_targets(rung: str) -> None:
    targets, _, cov = gaussians(6, 3)
    draws = sample(targets, ladder=[rung], generator=seed(2), **FEW)
    exact = 0.5 * (torch.linalg.slogdet(cov).logabsdet + 3.0 * math.log(2.0 * math.pi))
    assert bool(((draws.log_evidence - exact).abs() < 5.0 * draws.log_evidence_error).all())


def test_modes_have_their_share_or_the_task_does_not_pass() -> None:
    """One start finds one of two modes, and k does not see it: chains that start apart do."""
    targets, centre = two_modes(40)
    draws = sample(targets, generator=seed(3), **FEW)
    assert bool(draws.passed.all())
    assert (draws.rung > 0).double().mean() > 0.9
    left = ((draws.position * centre).sum(-1) < 0).double()
    error = (LEFT * (1.0 - LEFT) / draws.ess_bulk.amin(-1)).sqrt()
    assert bool(((left.mean((0, 1)) - LEFT).abs() < 5.0 * error).all())


@pytest.mark.parametrize("rung", ["laplace_t", "gradients"])
def test_what_misses_a_mode_is_never_silent(rung: str) -> None:
    targets, centre = two_modes(40)
    with pytest.warns(NotConvergedWarning, match="not to be trusted"):
        draws = sample(targets, ladder=[rung], generator=seed(4), **FEW)
    left = ((draws.position * centre).sum(-1) < 0).double().mean((0, 1))
    assert not bool((draws.passed & ((left - LEFT).abs() > 0.15)).any())


def test_a_wrecked_proposal_costs_draws_and_nothing_else() -> None:
    targets, mean, cov = gaussians(20, 2)
    wrecked = normal_reference(20, 2, 2.0)
    wrecked = wrecked._replace(loc=wrecked.loc + 0.7, df=3.0)
    any_draws = Checks(pareto_k=math.inf, rhat=math.inf, ess=0.0)
    draws = sample(
        targets, learned=wrecked, ladder=[], adapt=False, checks=any_draws, progress=False, generator=seed(5)
    )
    known = (draws.rhat < 1.05).all(-1)  # of others the effective number of draws is not known
    assert int(known.sum()) > 2
    sd = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    off = (draws.position.mean((0, 1)) - mean).abs()
    assert bool((off < 5.0 * sd / draws.ess_bulk.sqrt())[known].all())
    good = sample(targets, generator=seed(6), progress=False)
    assert draws.ess_bulk.mean() < good.ess_bulk.mean()


def test_a_hard_support() -> None:
    """Uniform on the unit square: no curvature anywhere, and minus infinity outside."""

    def log_density(x: Tensor, name: Tensor) -> Tensor:
        inside = ((x > 0) & (x < 1)).all(-1)
        return torch.where(inside, 0.0 * x.sum(-1), -torch.inf)

    targets = Densities(log_density, normal_reference(3, 2, 1.0), {"name": torch.zeros(3, 1)})
    draws = sample(targets, generator=seed(7), num_draws=1000, progress=False)
    assert bool(draws.passed.all())
    assert bool(((draws.position > 0) & (draws.position < 1)).all())
    error = (1.0 / 12.0 / draws.ess_bulk).sqrt()
    assert bool(((draws.position.mean((0, 1)) - 0.5).abs() < 5.0 * error).all())
    assert bool((draws.log_evidence.abs() < 5.0 * draws.log_evidence_error).all())


def test_densities_that_are_no_densities() -> None:
    data = {"name": torch.tensor([[0.0], [1.0]], dtype=torch.float64)}

    def bad(value: float) -> Densities:
        def log_density(x: Tensor, name: Tensor) -> Tensor:
            return torch.where(name[:, 0] > 0, value, -0.5 * x.square().sum(-1))

        return Densities(log_density, normal_reference(2, 1, 1.0), data)

    with pytest.raises(ValueError, match="task 1 has \\+inf"):
        sample(bad(torch.inf), generator=seed(0))
    with pytest.raises(ValueError, match="task 1 is NaN"):
        sample(bad(torch.nan), generator=seed(0))
    with pytest.raises(ValueError, match="task 1 is -inf"):
        sample(bad(-torch.inf), generator=seed(0))
    with pytest.raises(ValueError, match="some of laplace_t, several_starts"):
        sample(bad(0.0), ladder=["laplace"])


def test_a_task_does_not_depend_on_those_beside_it() -> None:
    """Which tasks go up the ladder depends on each alone: a batch in which one task is hard leaves the others be."""
    targets, _ = two_modes(2)
    both = sample(targets, generator=seed(8), **FEW)
    assert both.num_tasks == 2
    assert both.report()["passed"].to_list() == [True, True]
