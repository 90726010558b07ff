"""Trust in the past: it grows where the new task resembles the past, and costs nothing where the past is silent."""

import math
import statistics
from dataclasses import replace

import pytest
import torch

from bayesmeta import Data, GaussianProcess, Mixture, TransferHypotheses, transfer_hypotheses
from bayesmeta.gp.transfer import (
    AS_A_WHOLE,
    DIRECTION_FACTORS,
    GROUPS,
    IN_PART,
    LENGTHSCALES,
    MAX_LIKE,
    NUM_DOUBTING,
    RESIDUALS,
    SCALES,
    TRUSTING,
    likeness,
    trust,
    trusting,
)
from tests.bayesmeta.gp.test_fit import permuted, simulate
from tests.families import seed

NUM_WHOLE = len(DIRECTION_FACTORS) * len(RESIDUALS)
NUM_PART = MAX_LIKE * len(RESIDUALS)  # there are more past tasks than that
NUM_PAST = NUM_WHOLE + NUM_PART
PAST = AS_A_WHOLE + IN_PART
NUM_WORLDS, NUM_NEW = 4, 6
NEW = [[simulate(1, 100, number=20 + i, world=world)[0] for i in range(NUM_NEW)] for world in range(NUM_WORLDS)]


def hypotheses(tasks: Data) -> Mixture:
    return transfer_hypotheses(GaussianProcess.initial(tasks).fit(tasks))


@pytest.fixture(scope="module")
def worlds() -> list[dict[str, Mixture]]:
    """Of each: a past that resembles the new tasks, one that says nothing, and one that misleads."""
    each = [simulate(20, 60, world=world) for world in range(NUM_WORLDS)]
    return [
        {
            "alike": hypotheses(tasks),
            "silent": hypotheses(permuted(tasks)),
            "misleading": hypotheses(replace(tasks, y=-tasks.y)),
        }
        for tasks in each
    ]


@pytest.fixture
def pasts(worlds: list[dict[str, Mixture]]) -> dict[str, Mixture]:
    return worlds[0]


def trust_after(prior: Mixture, new: Data, num_rows: int) -> float:
    return trust(prior.condition(new.rows(slice(0, num_rows))))["past"].item()


def error_after(prior: Mixture, new: Data, num_rows: int) -> float:
    """Root mean square over rows not seen."""
    posterior = prior.condition(new.rows(slice(0, num_rows)))
    rest = new.rows(slice(50, 100))
    return (posterior.marginal(rest.x).mean - rest.y).square().mean().sqrt().item()


def evidence_after(prior: Mixture, new: Data, num_rows: int) -> float:
    """Log of the factor by which the rows favour the past over its kernel alone."""
    log_weights = prior.condition(new.rows(slice(0, num_rows))).log_weights
    log_odds = log_weights[:-NUM_DOUBTING].logsumexp(-1) - log_weights[-NUM_DOUBTING]
    return log_odds.item() - math.log((AS_A_WHOLE + IN_PART) / (1 - AS_A_WHOLE - IN_PART) * NUM_DOUBTING)


def without_past(prior: Mixture) -> Mixture:
    """The hypotheses that trust nothing, alone."""
    every = prior.components.components
    return Mixture.uniform(Mixture.uniform(replace(every[-len(LENGTHSCALES) :], past=None)))


def test_structures_are_as_documented(pasts: dict[str, Mixture]) -> None:
    prior = pasts["alike"]
    processes = prior.components.components
    assert processes.batch_shape == (NUM_PAST + NUM_DOUBTING, len(SCALES))
    whole, part, rest = processes.past_weight[:, 0].split([NUM_WHOLE, NUM_PART, NUM_DOUBTING])
    assert (whole == 1).all()
    assert (part == 0).all()
    assert (rest == 0).all()
    factors = torch.tensor([f for f in DIRECTION_FACTORS for _ in RESIDUALS]).to(whole)
    torch.testing.assert_close(processes.past_var[:NUM_WHOLE, 0], factors)
    assert (processes.past_var[NUM_WHOLE:] == 0).all()
    assert (processes.past_loading[:NUM_WHOLE] == 0).all()
    assert (processes.past_loading[NUM_PAST:] == 0).all()
    lengthscale = processes.lengthscale[:, 0]
    assert (lengthscale[: NUM_PAST + 1] == lengthscale[0]).all(), "the learned one"
    points = processes.past.points
    shares = lengthscale[NUM_PAST + 1 :] / (2**0.5 * (points.amax(0) - points.amin(0)))
    torch.testing.assert_close(shares, torch.tensor(LENGTHSCALES).to(factors)[:, None].expand(-1, 2))
    torch.testing.assert_close(processes.scale, torch.tensor(SCALES).to(factors))
    probabilities = trust(prior)
    assert probabilities["past"].item() == pytest.approx(PAST)
    assert sum(probabilities.values()).item() == pytest.approx(1.0)


def test_beyond_past_inputs_every_hypothesis_is_as_wide_as_past_rows(pasts: dict[str, Mixture]) -> None:
    for prior in pasts.values():
        processes = prior.components.components
        variance = processes.marginal(processes.past.points.amax(0, keepdim=True) + 100.0).variance[..., 0]
        kernel_alone = variance[-NUM_DOUBTING]
        torch.testing.assert_close(variance, kernel_alone.expand_as(variance))


def test_in_part_the_mean_is_the_function_of_one_past_task() -> None:
    tasks = simulate(4, 60)
    learned = GaussianProcess.initial(tasks).fit(tasks)
    part = transfer_hypotheses(learned).given("part")
    assert len(part.log_weights) == 4 * len(RESIDUALS)
    x = NEW[0][0].x
    means = part.components.components[:: len(RESIDUALS)].marginal(x[None, None]).mean[:, SCALES.index(1.0)]
    means = means - part.components.components.constant
    each = learned.past.each(x).mT
    order = torch.cdist(means, each).argmin(-1)
    assert order.sort().values.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(means, each[order])


def mean_error_ratio(pasts: list[Mixture], num_rows: int) -> float:
    """Of new tasks, to that without the past."""
    pairs = [(prior, new) for prior, tasks in zip(pasts, NEW, strict=True) for new in tasks]
    error = sum(error_after(prior, new, num_rows) for prior, new in pairs)
    return error / sum(error_after(without_past(prior), new, num_rows) for prior, new in pairs)


def mean_evidence(pasts: list[Mixture], num_rows: int) -> float:
    pairs = [(prior, new) for prior, tasks in zip(pasts, NEW, strict=True) for new in tasks]
    return sum(evidence_after(prior, new, num_rows) for prior, new in pairs) / len(pairs)


def test_a_past_that_resembles_gains_trust_and_helps(worlds: list[dict[str, Mixture]]) -> None:
    pasts = [world["alike"] for world in worlds]
    for num_rows, low, high in ((0, 0.5, 0.95), (10, 0.95, 1.0)):
        gained = [trust_after(prior, new, num_rows) for prior, tasks in zip(pasts, NEW, strict=True) for new in tasks]
        assert low < sum(gained) / len(gained) < high
    assert mean_error_ratio(pasts, 5) < 0.75  # of one world about .45 +- .1
    assert mean_evidence(pasts, 30) > 5.0  # about 17 +- 2


def test_a_past_that_says_nothing_is_let_go(worlds: list[dict[str, Mixture]]) -> None:
    """Such a past has its kernel alone, whose lengthscales may suit the new tasks by luck; its functions are let go."""
    pasts = [world["silent"] for world in worlds]
    pairs = [(prior, new) for prior, tasks in zip(pasts, NEW, strict=True) for new in tasks]
    # of most tasks, as in some worlds what was permuted has by luck a kernel, and a mean, that suit
    assert statistics.median(evidence_after(prior, new, 30) for prior, new in pairs) < -0.4  # about -1.05 +- .03
    assert mean_error_ratio(pasts, 30) < 1.07  # about 1 +- .012


def test_a_past_that_misleads_is_turned_round_within_ten_rows(worlds: list[dict[str, Mixture]]) -> None:
    """Directions are about zero, so the contrary of the past is among the hypotheses."""
    assert mean_error_ratio([world["misleading"] for world in worlds], 10) < 0.85  # of one world about .55 +- .1


def test_tasks_each_have_a_trust_of_their_own(pasts: dict[str, Mixture]) -> None:
    prior = pasts["alike"]
    x, y = NEW[0][0].x, NEW[0][0].y
    shuffled = y[torch.randperm(40, generator=seed(0))]
    tasks = Data.pad([(x[:10], y[:10]), (x[:40], shuffled), (x[:0], y[:0])])
    past = trust(prior.condition(tasks))["past"]
    alone = [trust(prior.condition(Data.of(x[:n], each)))["past"] for n, each in ((10, y[:10]), (40, shuffled))]
    torch.testing.assert_close(past[:2], torch.stack(alone))
    assert past[2].item() == pytest.approx(PAST)


def test_float32(pasts: dict[str, Mixture]) -> None:
    tasks = simulate(20, 60).to(torch.float32)
    rows = NEW[0][0].to(torch.float32).rows(slice(0, 8))
    assert hypotheses(tasks).condition(rows).log_weights.dtype == torch.float32
    posterior = pasts["alike"].to(torch.float32).condition(rows)  # a search in float32 may end on another top
    expected = pasts["alike"].condition(NEW[0][0].rows(slice(0, 8)))
    x = NEW[0][0].x[50:]
    assert posterior.log_weights.dtype == posterior.marginal(x.float()).mean.dtype == torch.float32
    torch.testing.assert_close(
        posterior.marginal(x.float()).mean.double(), expected.marginal(x).mean, rtol=0.02, atol=0.02
    )


def test_bad_input(pasts: dict[str, Mixture]) -> None:
    with pytest.raises(ValueError, match=r"needs one prior learned from past tasks; use GaussianProcess.fit\(tasks\)"):
        transfer_hypotheses(GaussianProcess.initial(NEW[0][0]))
    with pytest.raises(ValueError, match="needs one prior learned from past tasks"):
        transfer_hypotheses(pasts["alike"].components.components)


def test_trusting_keeps_the_odds_of_what_applies(pasts: dict[str, Mixture]) -> None:
    prior = pasts["alike"]
    certain = trusting(prior)
    torch.testing.assert_close(certain.weights, prior.weights[:NUM_PAST] / PAST, rtol=1e-6, atol=0.0)
    after = certain.condition(NEW[0][0].rows(slice(0, 5)))
    assert after.predict(NEW[0][0].x[:3]).mean.isfinite().all()


def test_groups_have_names(pasts: dict[str, Mixture]) -> None:
    prior = pasts["alike"]
    assert isinstance(prior, TransferHypotheses)
    posterior = prior.condition(NEW[0][0].rows(slice(0, 5)))
    assert isinstance(posterior, TransferHypotheses)
    shares = [posterior.weights[posterior.group(name)].sum() for name in GROUPS]
    assert sum(shares).item() == pytest.approx(1.0)
    torch.testing.assert_close(posterior.probability(*TRUSTING), shares[0] + shares[1])
    doubting = posterior.given("kernel", "nothing")
    torch.testing.assert_close(doubting.weights, posterior.weights[NUM_PAST:] / (shares[2] + shares[3]))
    x = NEW[0][0].x[:3]
    every, alone = posterior.components.predict(x[None]).mean[NUM_PAST:], doubting.components.predict(x[None]).mean
    torch.testing.assert_close(every, alone)
    with pytest.raises(ValueError, match="sizes must add up to 49 hypotheses"):
        replace(prior, sizes=(1, 2, 3, 4))


def test_a_mixture_that_an_earlier_version_saved_is_understood(pasts: dict[str, Mixture]) -> None:
    prior = pasts["alike"].condition(NEW[0][0].rows(slice(0, 5)))
    earlier = Mixture(prior.components, prior.log_weights)
    assert trust(earlier) == trust(prior)
    assert torch.equal(likeness(earlier), likeness(prior))
    assert torch.equal(trusting(earlier).weights, trusting(prior).weights)


def test_some_of_the_hypotheses_have_no_groups(pasts: dict[str, Mixture]) -> None:
    prior = pasts["alike"]
    for some in (trusting(prior), prior.leading(0.5), without_past(prior)):
        with pytest.raises(ValueError, match="not all hypotheses of transfer_hypotheses"):
            trust(some)


def test_groups_are_of_one_task_and_have_names(pasts: dict[str, Mixture]) -> None:
    prior = pasts["alike"]
    rows = NEW[0][0].rows(slice(0, 4))
    batch = prior.condition(Data.pad([(rows.x, rows.y), (rows.x[:2], rows.y[:2])]))
    for ask in (trusting, likeness, lambda each: each.leading(), lambda each: each.given("part")):
        with pytest.raises(ValueError, match=r"one task are needed|is of one mixture"):
            ask(batch)
    with pytest.raises(ValueError, match="a group is one of whole, part, kernel, nothing; got 'past'"):
        prior.given("past")
    with pytest.raises(ValueError, match="name one group or more"):
        prior.given()
    assert prior.probability().item() == 0.0
    with pytest.raises(ValueError, match="sizes must add up"):
        replace(prior, sizes=(-9, 54, 1, 3))
