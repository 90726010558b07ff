from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from bayesmeta.amortised import AmortisedProposal, PastPosteriors, ProposalSchedule
from bayesmeta.mcmc import Checks, sample
from bayesmeta.random import randn
from tests.bayesmeta.amortised.conjugate import MOST, exact, posteriors, simulate
from tests.bayesmeta.mcmc.targets import normal_reference
from tests.seeds import seed

TINY: dict[str, Any] = {"num_components": 3, "width": 8, "num_layers": 1}
SMALL: dict[str, Any] = {"num_components": 2, "width": 16, "num_layers": 1}


def moved(proposal: AmortisedProposal, number: int, scale: float = 0.2) -> AmortisedProposal:
    """One whose weights are others, so that all of them count."""
    generator = seed(number)
    weights = {
        name: value + scale * randn(value.shape, like=value, generator=generator)
        for name, value in proposal.network.weights.items()
    }
    return replace(proposal, network=proposal.network.with_weights(weights))


@pytest.fixture(scope="module", params=[0, 1], ids=["sums", "attention"])
def proposal(request: pytest.FixtureRequest) -> AmortisedProposal:
    start = AmortisedProposal.initial(simulate, generator=seed(0), num_attention=request.param, num_heads=2, **TINY)
    return moved(start, 1)


@pytest.fixture(scope="module")
def learned() -> AmortisedProposal:
    schedule = ProposalSchedule(num_steps=300, num_tasks=128, rate=1e-2, average=0.98)
    start = AmortisedProposal.initial(simulate, generator=seed(0), **SMALL)
    return start.fit(simulate, schedule=schedule, generator=seed(1), progress=False)


def log_prob(proposal: AmortisedProposal, rows: Tensor, mask: Tensor | None) -> Tensor:
    at = torch.tensor([[30.0, -2.0], [33.0, -2.5], [20.0, 0.0]], dtype=torch.float64)
    return proposal(rows, mask).log_prob(at[:, None].expand(-1, len(rows), -1))


def test_rows_have_no_order(proposal: AmortisedProposal) -> None:
    _, rows, mask = simulate(20, seed(2))
    order = torch.randperm(MOST, generator=seed(3))
    found = log_prob(proposal, rows[:, order], mask[:, order])
    torch.testing.assert_close(found, log_prob(proposal, rows, mask), rtol=1e-6, atol=1e-5)


def test_padding_is_not_seen(proposal: AmortisedProposal) -> None:
    _, rows, mask = simulate(20, seed(2))
    expected = log_prob(proposal, rows, mask)
    for junk in (torch.nan, 1e30):
        found = log_prob(proposal, rows.where(mask[..., None], junk), mask)
        assert torch.equal(found, expected)
    longer = torch.cat([rows, torch.full((20, 3, 2), torch.nan, dtype=torch.float64)], 1)
    found = log_prob(proposal, longer, torch.cat([mask, torch.zeros(20, 3, dtype=torch.bool)], 1))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


def test_the_number_of_rows_is_seen(proposal: AmortisedProposal) -> None:
    rows = simulate(1, seed(2))[1]
    twice = torch.cat([rows, rows], 1)
    assert (log_prob(proposal, twice, None) - log_prob(proposal, rows, None)).abs().max() > 1e-3


def test_a_batch_equals_a_loop(proposal: AmortisedProposal) -> None:
    _, rows, mask = simulate(6, seed(2))
    each = [log_prob(proposal, rows[i : i + 1], mask[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(torch.cat(each, 1), log_prob(proposal, rows, mask), rtol=1e-6, atol=1e-5)
    assert log_prob(proposal, rows[:0], mask[:0]).shape == (3, 0)


def test_the_density_is_of_parameters_in_their_own_units(proposal: AmortisedProposal) -> None:
    """The mean of r / q over draws of q is one for any density r: here normals with the mean and the scale of q."""
    _, rows, mask = simulate(4, seed(2))
    q = proposal(rows, mask)
    assert q.loc.dtype == torch.float64
    draws = q.sample_params(40_000, generator=seed(4))
    narrow = normal_reference(4, 2, 1.0)
    narrow = narrow._replace(loc=q.loc[:, :1], scale_tril=0.7 * q.scale_tril[:, :1])
    ratio = (narrow.log_prob(draws) - q.log_prob(draws)).exp()
    assert bool(((ratio.mean(0) - 1.0).abs() < 5.0 * ratio.std(0) / 200.0).all())


def test_what_the_network_learns_by_is_the_density(proposal: AmortisedProposal) -> None:
    """Up to the determinant of the units, and rounding of the network."""
    params, rows, mask = simulate(50, seed(2))
    said = proposal.network.module(*proposal.standardised(rows * mask[..., None], mask)).log_prob(
        proposal.white(params)
    )
    determinant = proposal.scale_tril.diagonal().log().sum()
    found = proposal(rows, mask).log_prob(params)
    torch.testing.assert_close(found, said.double() - determinant, rtol=1e-3, atol=1e-3)


def test_it_comes_near_the_exact_posterior(learned: AmortisedProposal) -> None:
    _, rows, mask = simulate(60, seed(5))
    draws = sample(posteriors(rows, mask), learned=learned(rows, mask), ladder=[], progress=False, generator=seed(6))
    assert bool(draws.passed.all())
    found, log_prob = learned(rows, mask).draw(4000, generator=seed(7))
    weights = (posteriors(rows, mask).log_density(found) - log_prob).softmax(0)
    assert float((1.0 / weights.square().sum(0)).mean()) > 0.8 * 4000.0
    mean, cov = exact(rows, mask)
    error = (cov.diagonal(dim1=-2, dim2=-1) / draws.ess_bulk).sqrt()
    assert bool(((draws.position.mean((0, 1)) - mean).abs() < 5.0 * error).all())


def test_wrecked_weights_cost_draws_and_nothing_else(learned: AmortisedProposal) -> None:
    _, rows, mask = simulate(30, seed(5))
    wrecked = moved(learned, 7, 0.1)
    any_draws = Checks(pareto_k=torch.inf, rhat=torch.inf, ess=0.0)
    how: dict[str, Any] = {"ladder": [], "checks": any_draws, "progress": False}
    good, bad = (
        sample(posteriors(rows, mask), learned=each(rows, mask), num_draws=2000, adapt=adapt, generator=seed(6), **how)
        for each, adapt in ((learned, True), (wrecked, False))
    )
    assert bad.ess_bulk.mean() < 0.8 * good.ess_bulk.mean()
    mean, cov = exact(rows, mask)
    known = (bad.rhat < 1.05).all(-1)  # of others the effective number of draws is not known
    assert int(known.sum()) > 2
    error = (cov.diagonal(dim1=-2, dim2=-1) / bad.ess_bulk).sqrt()
    assert bool(((bad.position.mean((0, 1)) - mean).abs() < 5.0 * error)[known].all())


def test_tasks_that_are_far_are_unlike_and_others_are_not(learned: AmortisedProposal) -> None:
    _, rows, mask = simulate(200, seed(5))
    assert int(learned.unlike(rows, mask).sum()) < 10
    rows, mask = rows[mask.any(-1)], mask[mask.any(-1)]
    assert bool(learned.unlike(rows + 1000.0, mask).all())
    assert bool(learned.unlike(rows.repeat(1, 200, 1), mask.repeat(1, 200)).all())  # far more rows than ever


def test_an_unlike_task_begins_on_the_next_rung(learned: AmortisedProposal) -> None:
    _, rows, mask = simulate(6, seed(5))
    unlike = torch.tensor([False, True, False, False, True, False])
    draws = sample(
        posteriors(rows, mask), learned=learned(rows, mask), unlike=unlike, num_draws=500, progress=False,
        generator=seed(6),
    )  # fmt: skip
    report = draws.report()
    assert report["unlike"].to_list() == unlike.tolist()
    assert "learned" not in report.filter(report["unlike"])["step"].to_list()
    assert report.filter(~report["unlike"])["step"].to_list() == ["learned"] * 4
    assert "2 tasks" in repr(draws)
    every = sample(
        posteriors(rows, mask), learned=learned(rows, mask), unlike=torch.ones(6, dtype=torch.bool), num_draws=500,
        progress=False, generator=seed(6),
    )  # fmt: skip
    assert "learned" not in every.report()["step"].to_list()


def test_what_sample_is_told_of_unlike_tasks(learned: AmortisedProposal) -> None:
    _, rows, mask = simulate(2, seed(5))
    targets, proposal, both = posteriors(rows, mask), learned(rows, mask), torch.ones(2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"each of 2 tasks.*shape \(3,\)"):
        sample(targets, learned=proposal, unlike=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="nothing learned"):
        sample(targets, unlike=both)
    with pytest.raises(ValueError, match="task 0 is unlike"):
        sample(targets, learned=proposal, unlike=both, ladder=[])


def test_learning_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    """The file is that of half-way; what is learned from there is what was learned without a stop."""
    schedule = ProposalSchedule(num_steps=80, num_tasks=8)
    start = AmortisedProposal.initial(simulate, generator=seed(0), **TINY)
    whole = start.fit(simulate, schedule=schedule, generator=seed(1), progress=False)
    path, asked = tmp_path / "learning.safetensors", []

    def stops(num_tasks: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        asked.append(num_tasks)
        if len(asked) > 40:
            raise KeyboardInterrupt
        return simulate(num_tasks, generator)

    with pytest.raises(KeyboardInterrupt):
        start.fit(stops, schedule=schedule, generator=seed(1), checkpoint=path, progress=False)
    again = start.fit(simulate, schedule=schedule, generator=seed(1), checkpoint=path, progress=False)
    assert again.equals(whole, rtol=0.0, atol=0.0)


def test_past_posteriors_do_for_a_simulator() -> None:
    _, rows, mask = simulate(80, seed(5))
    mean, cov = exact(rows, mask)
    noise = torch.randn(16, 80, 2, generator=seed(6), dtype=torch.float64)
    draws = mean + (torch.linalg.cholesky(cov) @ noise[..., None])[..., 0]
    past = PastPosteriors(draws, rows.where(mask[..., None], torch.nan), mask)
    start = AmortisedProposal.initial(past, generator=seed(0), **SMALL)
    schedule = ProposalSchedule(num_steps=80, num_tasks=64, rate=1e-2, average=0.9)
    learned = start.fit(past, schedule=schedule, generator=seed(1), progress=False)
    new = simulate(500, seed(7))
    gain = learned(*new[1:]).log_prob(new[0]) - start(*new[1:]).log_prob(new[0])
    assert gain.mean() > 5.0 * gain.std() / 500**0.5
    assert learned.learned_from is not None
    assert (learned.learned_from.tasks, learned.learned_from.rows) == (80, int(mask.sum()))
    with pytest.raises(ValueError, match="of learning from a simulator"):
        start.fit(past, checkpoint="any")


def test_it_works_where_no_gradients_are() -> None:
    start = AmortisedProposal.initial(simulate, generator=seed(0), **TINY)
    with torch.inference_mode():
        found = start.fit(simulate, schedule=ProposalSchedule(num_steps=2, num_tasks=4), progress=False)
    assert not found.equals(start)


def test_wrong_rows_are_refused(learned: AmortisedProposal) -> None:
    _, rows, mask = simulate(3, seed(5))
    mask = torch.ones_like(mask)
    with pytest.raises(ValueError, match="finite where mask is true; 1 row is not, it is in task 1, row 2"):
        learned(rows.where(torch.arange(30).reshape(3, 5, 2) != 14, torch.nan), mask)
    with pytest.raises(ValueError, match=r"shape \(tasks, n, 2\); got \(3, 5, 1\)"):
        learned(rows[..., :1], mask)
    with pytest.raises(ValueError, match=r"shape \(tasks, n, 2\); got \(5, 2\)"):
        learned(rows[0])
    with pytest.raises(ValueError, match=r"mask must be bool, of shape \(3, 5\)"):
        learned(rows, mask[:, :2])
    with pytest.raises(ValueError, match="this has not learned"):
        AmortisedProposal.initial(simulate, **TINY).unlike(rows, mask)


def test_wrong_tasks_are_refused(learned: AmortisedProposal) -> None:
    schedule = ProposalSchedule(num_steps=2, num_tasks=4)

    def fit(simulator: Any) -> None:
        learned.fit(simulator, schedule=schedule, progress=False)

    def changed(change: Any) -> Any:
        return lambda num, generator: change(*simulate(num, generator))

    with pytest.raises(ValueError, match="2 parameters a task; got tasks with 1"):
        fit(changed(lambda params, rows, mask: (params[:, :1], rows, mask)))
    with pytest.raises(ValueError, match="2 columns a row; got tasks with 3"):
        fit(changed(lambda params, rows, mask: (params, torch.cat([rows, rows[..., :1]], -1), mask)))
    with pytest.raises(ValueError, match="params must be finite; those of task 0 are not"):
        fit(changed(lambda params, rows, mask: (params / 0.0, rows, mask)))
    with pytest.raises(ValueError, match=r"asked for 2 tasks must return parameters of shape \(2, d\); got \(1, 2\)"):
        fit(changed(lambda params, rows, mask: (params[1:], rows[1:], mask[1:])))
    with pytest.raises(TypeError, match="must return parameters, rows and a mask; got Tensor"):
        fit(changed(lambda params, rows, mask: params))
    with pytest.raises(ValueError, match="at least two past tasks; got 1"):
        PastPosteriors(torch.zeros(5, 1, 2), torch.zeros(1, 3, 1))
    with pytest.raises(ValueError, match="params are of 3 tasks, and rows of 2"):
        PastPosteriors(torch.zeros(5, 3, 2), torch.zeros(2, 3, 1))


@pytest.mark.parametrize("wrong", [{"num_steps": 0}, {"rate": 0.0}, {"average": 1.0}])
def test_wrong_schedules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ProposalSchedule(**wrong)
