"""The benchmark of ratings: what is shown and hidden, what reaches a prior, and who wins where the truth is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bayesmeta import CorrelatedArms, Data, arm_statistics
from bayesmeta.checks.predictive_checks import TaskMean
from bayesmeta.random import rand, randn
from benchmarks.priors import jester
from benchmarks.priors.few_rows import SHOWN, Method, compare, figures, hidden, joined, shown, shuffled
from benchmarks.priors.jester import METHODS, as_tasks, split_users, thinned
from tests.families import F64, seed

NUM_JOKES = 30
EYE = torch.eye(NUM_JOKES, dtype=torch.float64)
LEVEL = randn((NUM_JOKES,), like=F64, generator=seed(10))
TASTE = randn((NUM_JOKES, 2), like=F64, generator=seed(11))  # of two kinds of jokes, liked by different users
TRUTHS = {"correlated": 4.0 * TASTE @ TASTE.mT + EYE, "offset": 4.0 + EYE, "independent": 5.0 * EYE}


def table(data: Data) -> torch.Tensor:
    """Ratings `(users, jokes)`, NaN where there is none."""
    found = torch.full((len(data.mask), NUM_JOKES + 1), math.nan, dtype=torch.float64)
    joke = data.x[..., 0].long().where(data.mask, NUM_JOKES)  # padding, to a joke that does not exist
    return found.scatter(1, joke, data.y)[:, :NUM_JOKES]


def rated(cov: torch.Tensor, num_users: int, number: int = 0) -> Data:
    """Nine in ten jokes, rated once each, and little noise; the first user rates seven jokes and the second none."""
    g = seed(number)
    means = LEVEL + randn((num_users, NUM_JOKES), like=F64, generator=g) @ torch.linalg.cholesky(cov).mT
    ratings = means + 0.5 * randn(means.shape, like=F64, generator=g)
    missing = rand(ratings.shape, like=F64, generator=g) < 0.1
    missing[0, 7:], missing[0, :7], missing[1] = True, False, True
    return as_tasks(ratings.masked_fill(missing, math.nan))


def test_ratings_are_read_as_they_are(tmp_path: Path) -> None:
    ratings = np.array([[1.5, np.nan, -9.0], [np.nan, np.nan, 0.0]], dtype=np.float32)
    np.savez(tmp_path / "ratings.npz", ratings=ratings)
    data = jester.read(tmp_path / "ratings.npz")
    assert data.mask.tolist() == [[True, False, True], [False, False, True]]
    assert data.y[data.mask].tolist() == [1.5, -9.0, 0.0]
    assert data.x[..., 0].tolist() == [[0.0, 1.0, 2.0]] * 2


def test_shown_and_hidden_ratings_are_apart() -> None:
    data = rated(TRUTHS["correlated"], 200)
    new = shuffled(data, seed(1))
    rest, before = table(hidden(new)), torch.zeros_like(data.mask)
    for number in SHOWN:
        some = table(shown(new, number))
        assert torch.equal((~some.isnan()).sum(-1), data.count.clamp(max=number))
        assert not (before & some.isnan()).any(), "what was shown is not shown any more"
        before = ~some.isnan()
    assert not (before & ~rest.isnan()).any(), "a rating is both shown and hidden"
    both = some.where(before, rest)
    torch.testing.assert_close(both, data.y.where(data.mask, math.nan), equal_nan=True, rtol=0, atol=0)
    assert rest[:2].isnan().all(), "users with few ratings have none to hide"
    other = ~table(shown(shuffled(data, seed(2)), 5)).isnan()
    assert not torch.equal(other, ~table(shown(new, 5)).isnan()), "ratings are in random order"
    assert other[2:].sum(0).min() > 0, "every joke is shown to some"


def test_users_are_split_and_ratings_kept_at_random() -> None:
    every = as_tasks(torch.arange(100.0).double()[:, None].expand(100, NUM_JOKES))
    past, new = split_users(every, seed(0))
    assert (len(past.mask), len(new.mask)) == (75, 25)
    assert sorted([*past.y[:, 0].tolist(), *new.y[:, 0].tolist()]) == list(range(100))
    kept = thinned(past, 0.2, seed(1))
    assert not (kept.mask & ~past.mask).any()
    assert kept.mask.double().mean().item() == pytest.approx(0.2, abs=5 * (0.16 / kept.mask.numel()) ** 0.5)


def test_nothing_of_new_users_reaches_a_prior() -> None:
    """Ratings that are shown change predictions after they were shown, and none before."""
    past, new = split_users(rated(TRUTHS["correlated"], 100), seed(0))
    new = shuffled(new, seed(1))
    found = compare(METHODS, past, new)
    rows = hidden(new)
    for name, result in found.items():
        by_hand = METHODS[name](past).predict(rows.x).log_prob(rows.y) * rows.mask
        expected = by_hand.sum(-1) / rows.mask.sum(-1)
        torch.testing.assert_close(result.after[0].log_score.by_task, expected, equal_nan=True)
    y = new.y.clone()
    y[:, : max(SHOWN)] = 50.0
    for name, result in compare(METHODS, past, Data(new.x, y, new.mask)).items():
        same = [result.after[k].log_score.value == found[name].after[k].log_score.value for k in SHOWN]
        assert same[0], f"{name} knows ratings that were not shown"
        assert not any(same[1:]) or name in ("independent", "complete_pooling")


@pytest.mark.parametrize("with_offset", [True, False])
def test_baselines_are_correlated_arms_of_fewer_numbers(with_offset: bool) -> None:
    """Their evidence is that of the family, and no neighbour of them that is of the same kind has much more."""
    past = rated(TRUTHS["offset"], 200)
    prior = jester.offset(past) if with_offset else jester.independent(past)
    total = prior.cov + prior.noise_var * EYE
    offset_var = total[0, 1]
    var = total.diagonal() - offset_var
    torch.testing.assert_close(total, offset_var + var.diag(), rtol=1e-10, atol=1e-10)
    assert (offset_var > 2.0) == with_offset
    evidence = jester.offset_evidence(past.y, past.mask, prior.loc, var, offset_var)
    torch.testing.assert_close(evidence, prior.log_evidence(past), rtol=1e-10, atol=1e-10)
    best = evidence.sum()
    for step in (0.9, 1.1):
        for level, spread, shared in ((1.0, step, 1.0), (1.0, 1.0, step), (step, 1.0, 1.0)):
            near = jester.offset_evidence(past.y, past.mask, level * prior.loc, spread * var, shared * offset_var)
            # levels are shrunk to their mean, which costs a little evidence; an error of a tenth would cost 5 or more
            assert near.sum() < best + 1.0 or (shared != 1.0 and not with_offset)


def test_few_ratings_of_a_joke_leave_a_baseline_finite() -> None:
    past = rated(TRUTHS["offset"], 200)
    mask = past.mask.clone()
    mask[5:, 3], mask[4:, 4] = False, False
    for learn in (jester.offset, jester.independent):
        prior = learn(Data(past.x, past.y, mask))
        var = prior.predict(past.x[0]).variance
        assert 0.3 < var.min() / var.median() < var.max() / var.median() < 3.0


def gain(found: dict[str, Method], better: str, worse: str, number: int) -> TaskMean:
    a, b = (found[name].after[number].log_score.by_task for name in (better, worse))
    return TaskMean(a - b)


@pytest.mark.parametrize("truth", TRUTHS)
def test_the_prior_that_the_truth_has_wins(truth: str) -> None:
    """And none loses much by being able to say more. It loses little to the truth itself, and is not too sure."""
    every = rated(TRUTHS[truth], 600)
    past, new = split_users(every, seed(0))
    known = CorrelatedArms(LEVEL, torch.linalg.cholesky(TRUTHS[truth]), F64 + 0.25)
    found = compare({**METHODS, "known": lambda _: known}, past, shuffled(new, seed(1)))
    order = ["correlated", "offset", "independent"]
    for number in SHOWN:
        for worse in order[order.index(truth) + 1 :]:
            difference = gain(found, truth, worse, number)
            if number:
                assert difference.value > 0.05 + 5 * difference.standard_error, (number, worse)
            else:
                assert abs(difference.value) < 0.12, ".05 +- .0125 over data sets, and .3 or more once rows are shown"
        for richer in order[: order.index(truth)]:
            assert gain(found, truth, richer, number).value < 0.1
        assert abs(gain(found, "correlated", "correlated_from_offset", number).value) < 0.05
    within = found[truth].after[20].coverage
    assert within.value - 0.9 > -0.02 - 5 * within.standard_error
    if truth == "correlated":  # its hyperprior, which is of as many tasks as jokes, widens: 0.95 are within
        assert gain(found, "known", truth, 20).value < 0.12, "0.043 in the mean over data sets, sd 0.014"
    else:
        assert within.value - 0.9 < 0.02 + 5 * within.standard_error
    alone = found["independent"].after
    torch.testing.assert_close(alone[20].log_score.by_task, alone[0].log_score.by_task, equal_nan=True)


def test_figures_say_what_was_found() -> None:
    past, new = split_users(rated(TRUTHS["correlated"], 100), seed(0))
    results = compare(METHODS, past, shuffled(new, seed(1)))
    found = {figure.name: figure.value for figure in figures("jester", results, beside="correlated")}
    each = results["offset"].after[5]
    assert found["jester/offset/log_score/5"] == each.log_score.value
    assert found["jester/offset/rmse/5"] == pytest.approx(each.squared_error.value**0.5)
    assert found["jester/offset/coverage/5"] == each.coverage.value
    assert found["jester/correlated/log_score_difference_se/5"] == 0.0
    assert all(math.isfinite(value) for value in found.values())


def test_folds_are_joined_task_by_task() -> None:
    past, new = split_users(rated(TRUTHS["correlated"], 100), seed(0))
    new = shuffled(new, seed(1))
    some = {name: METHODS[name] for name in ("offset", "independent")}
    whole, parts = compare(some, past, new), [compare(some, past, new[part]) for part in (slice(10), slice(10, None))]
    for name, result in joined(parts).items():
        for number in SHOWN:
            ours, theirs = result.after[number], whole[name].after[number]
            for field in ("log_score", "squared_error", "coverage"):
                torch.testing.assert_close(getattr(ours, field).by_task, getattr(theirs, field).by_task, equal_nan=True)


def test_complete_pooling_has_the_mean_of_each_joke() -> None:
    past = rated(TRUTHS["independent"], 100)
    prior = METHODS["complete_pooling"](past)
    assert isinstance(prior, CorrelatedArms)
    rows = arm_statistics(past, NUM_JOKES)
    mean = (past.y * past.mask).sum(0) / rows.count.sum(0)
    torch.testing.assert_close(prior.loc, mean, rtol=1e-12, atol=1e-12)
    error = ((past.y - mean) * past.mask).square().sum() / past.mask.sum()
    torch.testing.assert_close(prior.noise_var, error, rtol=1e-10, atol=1e-12)
