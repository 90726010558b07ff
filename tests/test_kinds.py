"""Tasks that come in kinds: how many, which, and the evidence that says so."""

import math

import pytest
import torch
from scipy import integrate

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.kinds import _log_density, _log_evidence, fit_kinds
from bayesmeta.random import rand, randn
from tests.families import F64, seed


def normal_kinds(means: list[float], num_tasks: int) -> tuple[Data, torch.Tensor]:
    kind = torch.arange(num_tasks) % len(means)
    centre = torch.tensor(means, dtype=torch.float64)[kind] + 0.5 * randn((num_tasks,), like=F64, generator=seed(1))
    return Data.of(None, centre[:, None] + randn((num_tasks, 10), like=F64, generator=seed(2))), kind


@pytest.mark.parametrize("means", [[0.0], [0.0, 5.0], [0.0, 5.0, -6.0]])
def test_evidence_finds_the_number_of_kinds(means: list[float]) -> None:
    tasks, kind = normal_kinds(means, 60)
    found = fit_kinds(bm.NormalInverseGamma.initial(tasks), tasks, generator=seed(0))
    assert found.num_kinds == len(means)
    assert found.learned_from.tasks == 60
    learned = found.prior.components.loc.sort().values
    assert (learned - torch.tensor(sorted(means))).abs().max() < 0.5
    # every pair of tasks is together if and only if it is of one kind
    label = found.responsibilities.argmax(-1)
    assert torch.equal(label[:, None] == label, kind[:, None] == kind)


def test_kinds_of_rates() -> None:
    often = (rand((100, 1), like=F64, generator=seed(3)) < 0.3).double()
    tasks = Data.of(None, (rand((100, 20), like=F64, generator=seed(4)) < 0.1 + 0.6 * often).double())
    found = fit_kinds(bm.BetaBernoulli.initial(tasks), tasks, generator=seed(0))
    assert found.num_kinds == 2
    assert found.prior.components.predict().mean.squeeze(-1).tolist() == pytest.approx([0.1, 0.7], abs=0.05)
    assert found.prior.weights.tolist() == pytest.approx([0.7, 0.3], abs=0.1)
    torch.testing.assert_close(found.responsibilities.sum(-1), torch.ones(100, dtype=torch.float64))


def test_one_kind_less_explains_less_and_other_shares_fit_worse() -> None:
    tasks, _ = normal_kinds([0.0, 6.0], 30)
    prior = bm.NormalInverseGamma.initial(tasks)
    found = fit_kinds(prior, tasks, num_kinds=2, generator=seed(0)).prior
    assert found.log_evidence(tasks).sum() > prior.fit(tasks).log_evidence(tasks).sum() + 5.0

    def penalised(mixture: bm.Mixture) -> torch.Tensor:
        return mixture.log_evidence(tasks).sum() + mixture.log_weights.sum()

    for factor in (0.98, 1.02):
        shares = found.weights * torch.tensor([factor, 1.0])
        assert penalised(bm.Mixture(found.components, shares.log().log_softmax(-1))) < penalised(found)


def test_evidence_of_one_kind_agrees_with_quadrature() -> None:
    tasks = Data.of(None, (rand((30, 20), like=F64, generator=seed(5)) < 0.3).double())
    prior = bm.BetaBernoulli.initial(tasks)
    unknown = prior.hyperparameters(tasks)
    found = fit_kinds(prior, tasks, num_kinds=1)
    grid = torch.stack(
        torch.meshgrid(torch.linspace(-3, 2, 201), torch.linspace(-4, 14, 401), indexing="ij"), -1
    ).double()
    density = _log_density(unknown, grid.reshape(-1, 1, 2)[0], torch.zeros(1, dtype=torch.float64))
    assert density.shape == ()
    log_density = unknown.log_density(grid)
    peak = log_density.max()
    inner = integrate.simpson((log_density - peak).exp().numpy(), x=grid[0, :, 1].numpy())
    exact = math.log(integrate.simpson(inner, x=grid[:, 0, 0].numpy())) + float(peak)
    # Laplace is an approximation: the total's hyperposterior is skew
    assert found.log_evidence[1] == pytest.approx(exact, abs=0.5)
    mode = found.prior.log_weights
    assert _log_evidence(unknown, _vector(unknown, found), mode) == pytest.approx(found.log_evidence[1])


def _vector(unknown: object, found: object) -> torch.Tensor:
    prior = found.prior.components  # type: ignore[attr-defined]
    return torch.stack([(prior.successes / prior.failures).log(), (prior.successes + prior.failures).log()], -1)


@pytest.mark.parametrize(("name", "value"), [("num_kinds", 0), ("max_kinds", 7), ("num_kinds", 7)])
def test_numbers_of_kinds_that_cannot_be(name: str, value: int) -> None:
    tasks, _ = normal_kinds([0.0], 6)
    with pytest.raises(ValueError, match=f"{name} must be from 1 to the number of tasks, 6; got {value}"):
        fit_kinds(bm.NormalInverseGamma.initial(tasks), tasks, **{name: value})
