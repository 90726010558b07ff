"""Partitions of points: densities, and moves that leave listed posteriors as they are."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from bayesmeta.mcmc import run
from bayesmeta.motifs.learning import MotifSchedule
from bayesmeta.motifs.partitions.kernels import Deal, PartitionSweeps, split_or_merge
from bayesmeta.motifs.partitions.learned import LearnedDeal, SplitProposal, drawn_split, learn_splits, network_inputs
from bayesmeta.motifs.partitions.model import Partitions, Sums, drawn_labels, random_partitions, set_partitions
from bayesmeta.motifs.partitions.scans import Scans
from tests.seeds import seed

EVERY = set_partitions(5)


def small(num: int = 2, number: int = 0) -> Partitions:
    return random_partitions(num, 5, generator=seed(number))


def wild(scale: float = 0.5) -> LearnedDeal:
    """That has learned nothing, and has opinions."""
    start = SplitProposal.initial(num_components=2, width=8)
    return LearnedDeal(
        start.with_weights({name: scale * torch.randn(v.shape, generator=seed(7)) for name, v in start.weights.items()})
    )


def listed(model: Partitions) -> Tensor:
    """Probabilities of all partitions of five points `(tasks, 52)`."""
    labels = EVERY[:, None].expand(-1, len(model.points), -1)
    return model.log_density(labels.double()).mT.softmax(-1)


def codes(labels: Tensor) -> Tensor:
    """Which of the listed partitions labels `(..., 5)` are."""
    same = labels[..., :, None] == labels[..., None, :]
    known = EVERY[:, :, None] == EVERY[:, None, :]
    return (same[..., None, :, :] == known).flatten(-2).all(-1).int().argmax(-1)


DEALS = {"one pass": Scans(), "scans": Scans(2), "wild": wild(), "wilder": wild(2.0)}


def test_there_are_as_many_partitions_as_bell_says() -> None:
    assert [len(set_partitions(n)) for n in range(1, 7)] == [1, 2, 5, 15, 52, 203]
    assert torch.equal(codes(EVERY), torch.arange(52))


def test_predictive_densities_are_those_of_scipy_and_add_up() -> None:
    model = small()
    points = model.points
    sums = Sums.of(points[:, :3], torch.ones(2, 3, 1).double())
    more = Sums.of(points[:, :4], torch.ones(2, 4, 1).double())
    found = model.log_predictive(sums, points[:, 3])[:, 0] - 0.5 * 2 * math.log(2.0 * math.pi)
    torch.testing.assert_close(found, (model.log_marginal(more) - model.log_marginal(sums))[:, 0])
    for task in range(2):
        kappa, a, b = (float(v[task]) for v in (model.pseudo_count, model.shape, model.rate))
        x = points[task, :3].numpy()
        count, a = kappa + 3.0, a + 1.5
        mean = x.sum(0) / count
        rate = b + 0.5 * ((x**2).sum(0) - count * mean**2)
        scale = (rate * (count + 1.0) / (a * count)) ** 0.5
        expected = stats.t(2.0 * a, mean, scale).logpdf(points[task, 3].numpy()).sum()
        assert float(found[task]) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", [None, *DEALS])
def test_moves_leave_the_posterior_as_it_is(name: str | None) -> None:
    model = small()
    probs = listed(model)
    kernel = PartitionSweeps(model, DEALS[name] if name else None, 2)
    start = EVERY[torch.multinomial(probs, 4000, replacement=True, generator=seed(1)).mT].double()
    state, _, densities, info = run(kernel, kernel.init(start), 2, seed(2))
    torch.testing.assert_close(densities[-1], model.log_density(state.position))
    assert bool((state.position != start).any())
    assert bool(((info.acceptance_rate >= 0.0) & (info.acceptance_rate <= 1.0 + 1e-9)).all())
    shares = torch.nn.functional.one_hot(codes(state.position), 52).double().mean(0)
    error = (probs * (1.0 - probs) / 4000).sqrt()
    assert bool(((shares - probs).abs() < 5.0 * error + 1.5e-3).all())


@pytest.mark.parametrize("name", DEALS)
def test_a_split_comes_back_as_often_as_it_goes(name: str) -> None:
    """Of chains in equilibrium as many go from one partition to another by a move as come back."""
    model = small(1, 3)
    probs = listed(model)
    labels = EVERY[torch.multinomial(probs, 20_000, replacement=True, generator=seed(4)).mT]
    new, _ = split_or_merge(model, labels, DEALS[name], seed(5))
    flow = (
        torch.zeros(52, 52)
        .double()
        .index_put((codes(labels)[:, 0], codes(new)[:, 0]), torch.ones(20_000).double(), True)
    )
    assert bool(((flow - flow.mT).abs() < 5.0 * (flow + flow.mT).sqrt() + 3.0).all())


@pytest.mark.parametrize("deal", [Scans(), wild()], ids=["scans", "wild"])
def test_probabilities_of_all_ways_to_deal_add_up_to_one(deal: Deal) -> None:
    model = small(1)
    sides = torch.arange(8)[:, None] >> torch.arange(3) & 1 == 1
    _, parts = drawn_split(1, 2, seed(0))
    points = model.points[None].expand(8, -1, -1, -1)
    parts = parts._replace(
        anchors=points[:, :, :2], points=points[:, :, 2:], is_there=torch.ones(8, 1, 3).bool(), sides=sides[:, None],
        is_merged=torch.zeros(8, 1).bool(),
    )  # fmt: skip
    _, log_q = deal.deal(model, parts, seed(1))
    assert float(log_q.exp().sum()) == pytest.approx(1.0, abs=1e-6)  # rows of one product may round apart


def test_labels_come_by_their_sizes() -> None:
    drawn = drawn_labels(torch.full((20_000,), 0.7).double(), 3, generator=seed(6))
    assert bool((drawn[:, 0] == 0).all())
    for labels, expected in (
        ([0, 0, 0], 2 / (1.7 * 2.7)),
        ([0, 1, 2], 0.49 / (1.7 * 2.7)),
        ([0, 1, 1], 0.7 / (1.7 * 2.7)),
    ):
        share = float((drawn == torch.tensor(labels)).all(-1).double().mean())
        assert abs(share - expected) < 5.0 * (expected / 20_000) ** 0.5


def test_learning_makes_true_splits_more_probable() -> None:
    start = SplitProposal.initial(num_components=2, width=16)
    learned = learn_splits(start, MotifSchedule(40, 64, 0.01), generator=seed(8))
    model, parts = drawn_split(1000, 2, seed(9))
    before, after = (LearnedDeal(each).deal(model, parts, seed(10))[1][0] for each in (start, learned))
    gain = after - before
    assert gain.mean() > 5.0 * gain.std() / 1000**0.5


def test_pads_are_invisible() -> None:
    model, parts = drawn_split(6, 2, seed(11))
    _, log_q = wild().deal(model, parts, seed(12))
    more = parts._replace(
        points=torch.nn.functional.pad(parts.points, (0, 0, 0, 3), value=1e6),
        is_there=torch.nn.functional.pad(parts.is_there, (0, 3)),
        sides=torch.nn.functional.pad(parts.sides, (0, 3)),
    )
    torch.testing.assert_close(wild().deal(model, more, seed(12))[1], log_q, rtol=1e-4, atol=1e-4)
    assert all(bool(each.isfinite().all()) for each in network_inputs(model, more, torch.float32))
