"""Trust in the past: it grows where the new task resembles the past, and goes where the past is silent or misleads."""

from dataclasses import replace

import pytest
import torch

from bayesmeta import Data, GaussianProcess, Mixture, transfer_hypotheses
from bayesmeta.transfer import DIRECTION_FACTORS, LENGTHSCALES, PAST, RESIDUALS, SCALES, trust, trusting
from tests.families import F64
from tests.test_gp_training import permuted, simulate

NUM_PAST = len(DIRECTION_FACTORS) * len(RESIDUALS)
NEW = [simulate(1, 100, number=number)[0] for number in (20, 21, 22)]


def hypotheses(tasks: Data) -> Mixture:
    return transfer_hypotheses(GaussianProcess.initial(tasks).fit(tasks))


@pytest.fixture(scope="module")
def pasts() -> dict[str, Mixture]:
    """A past that resembles the new tasks, one that says nothing, and one that misleads."""
    tasks = simulate(20, 60)
    return {
        "alike": hypotheses(tasks),
        "silent": hypotheses(permuted(tasks)),
        "misleading": hypotheses(replace(tasks, y=-tasks.y)),
    }


def trust_after(prior: Mixture, new: Data, num_rows: int) -> float:
    return trust(prior.condition(new.rows(slice(0, num_rows))))["past"].item()


def error_after(prior: Mixture, new: Data, num_rows: int) -> float:
    """Root mean square over rows not seen."""
    posterior = prior.condition(new.rows(slice(0, num_rows)))
    rest = new.rows(slice(50, 100))
    return (posterior.marginal(rest.x).mean - rest.y).square().mean().sqrt().item()


def without_past(prior: Mixture) -> Mixture:
    """The hypotheses that trust nothing, alone."""
    every = prior.components.components
    fields = {name: getattr(every, name)[-len(LENGTHSCALES) :] for name in ("lengthscale", "outputscale", "noise_var")}
    return Mixture.uniform(Mixture.uniform(replace(every, past=None, **fields, past_weight=F64, past_var=F64)))


def test_structures_are_as_documented(pasts: dict[str, Mixture]) -> None:
    prior = pasts["alike"]
    processes = prior.components.components
    assert processes.batch_shape == (NUM_PAST + 1 + len(LENGTHSCALES), len(SCALES))
    past, rest = processes.past_weight[:NUM_PAST, 0], processes.past_weight[NUM_PAST:, 0]
    assert (past > 0.5).all()
    assert (rest == 0).all()
    assert (processes.past_var[NUM_PAST:] == 0).all()
    learned_var = processes.past_var[NUM_PAST - 1, 0]
    factors = [f for f in DIRECTION_FACTORS for _ in RESIDUALS]
    torch.testing.assert_close(processes.past_var[:NUM_PAST, 0], torch.tensor(factors).to(past) * learned_var)
    lengthscale = processes.lengthscale[:, 0]
    assert (lengthscale[: NUM_PAST + 1] == lengthscale[0]).all(), "the learned one"
    points = processes.past.points
    shares = lengthscale[NUM_PAST + 1 :] / (2**0.5 * (points.amax(0) - points.amin(0)))
    torch.testing.assert_close(shares, torch.tensor(LENGTHSCALES).to(past)[:, None].expand(-1, 2))
    torch.testing.assert_close(processes.scale, torch.tensor(SCALES).to(past))
    probabilities = trust(prior)
    assert probabilities["past"].item() == pytest.approx(PAST)
    assert sum(probabilities.values()).item() == pytest.approx(1.0)


@pytest.mark.parametrize("new", NEW)
def test_a_past_that_resembles_gains_trust_and_helps(pasts: dict[str, Mixture], new: Data) -> None:
    prior = pasts["alike"]
    assert trust_after(prior, new, 10) > 0.95 > trust_after(prior, new, 0)
    assert error_after(prior, new, 5) < 0.6 * error_after(without_past(prior), new, 5)


@pytest.mark.parametrize("new", NEW)
def test_a_past_that_says_nothing_is_let_go(pasts: dict[str, Mixture], new: Data) -> None:
    prior = pasts["silent"]
    assert trust_after(prior, new, 30) < 0.1
    assert error_after(prior, new, 30) == pytest.approx(error_after(without_past(prior), new, 30), rel=0.05)


@pytest.mark.parametrize("new", NEW)
def test_a_past_that_misleads_is_let_go_within_ten_rows(pasts: dict[str, Mixture], new: Data) -> None:
    prior = pasts["misleading"]
    assert trust_after(prior, new, 10) < 0.1
    assert error_after(prior, new, 20) < 1.3 * error_after(without_past(prior), new, 20)


def test_tasks_each_have_a_trust_of_their_own(pasts: dict[str, Mixture]) -> None:
    prior = pasts["alike"]
    tasks = Data.pad([(NEW[0].x[:10], NEW[0].y[:10]), (NEW[0].x[:10], -NEW[0].y[:10]), (NEW[0].x[:0], NEW[0].y[:0])])
    past = trust(prior.condition(tasks))["past"]
    assert past[0] > 0.95
    assert past[1] < 0.1
    assert past[2].item() == pytest.approx(PAST)


def test_float32(pasts: dict[str, Mixture]) -> None:
    tasks = simulate(20, 60).to(torch.float32)
    prior = hypotheses(tasks)
    posterior = prior.condition(NEW[0].to(torch.float32).rows(slice(0, 8)))
    expected = pasts["alike"].condition(NEW[0].rows(slice(0, 8)))
    x = NEW[0].x[50:]
    assert posterior.log_weights.dtype == posterior.marginal(x.float()).mean.dtype == torch.float32
    torch.testing.assert_close(
        posterior.marginal(x.float()).mean.double(), expected.marginal(x).mean, rtol=0.02, atol=0.02
    )


def test_bad_input(pasts: dict[str, Mixture]) -> None:
    with pytest.raises(ValueError, match=r"needs one prior learned from past tasks; use GaussianProcess.fit\(tasks\)"):
        transfer_hypotheses(GaussianProcess.initial(NEW[0]))
    with pytest.raises(ValueError, match="needs one prior learned from past tasks"):
        transfer_hypotheses(pasts["alike"].components.components)


def test_trusting_keeps_the_odds_of_what_applies(pasts: dict[str, Mixture]) -> None:
    prior = pasts["alike"]
    certain = trusting(prior)
    assert trust(certain)["past"].item() == pytest.approx(1.0, abs=1e-12)
    torch.testing.assert_close(certain.weights[:NUM_PAST], prior.weights[:NUM_PAST] / PAST, rtol=1e-6, atol=0.0)
    after = certain.condition(NEW[0].rows(slice(0, 5)))
    assert trust(after)["nothing"].item() == 0.0
    assert after.predict(NEW[0].x[:3]).mean.isfinite().all()
