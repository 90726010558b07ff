"""The list of configurations by the values of past tasks that share them."""

import math
from pathlib import Path

import optuna
import pytest
import scipy.stats
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data
from bo import MetaSampler, SearchSpace, TuningPrior
from bo.past_tasks.regrets import PastRegrets
from tests.bo import past
from tests.families import seed
from tests.seeds import shifted

X = torch.rand(30, 3, generator=seed(0), dtype=torch.float64)
Y = torch.randn(5, 30, generator=seed(1), dtype=torch.float64)


def of_table(y: Tensor) -> PastRegrets:
    regrets = PastRegrets.of(Data(X.expand(len(y), -1, -1), y, y.isfinite()))
    assert regrets is not None
    return regrets


def regret_of(values: list[float]) -> list[float]:
    """From 0 for the best to 1 for the worst, or 10 times as far below the best as the median is."""
    best, worst, median = max(values), min(values), sorted(values)[14]
    worst = max(worst, best - 10 * (best - median))
    return [min((best - value) / (best - worst), 1.0) for value in values]


def test_the_list_is_the_greedy_one() -> None:
    regrets = of_table(Y)
    table = torch.tensor([regret_of(row) for row in Y.tolist()], dtype=torch.float64)
    chosen: list[int] = []
    for _ in range(4):

        def mean_of_best(index: int) -> float:
            return float(table[:, [*chosen, index]].amin(1).mean())

        best = min(mean_of_best(index) for index in range(30) if index not in chosen)
        point = regrets.next_point(X[chosen])
        index = int((point == X).all(-1).nonzero())  # one of the stored ones; several may be as good
        assert index not in chosen
        assert mean_of_best(index) == pytest.approx(best, rel=1e-12)
        chosen.append(index)


def test_the_list_ends_where_nothing_is_gained() -> None:
    first = torch.linspace(1.0, 0.0, 30, dtype=torch.float64)
    regrets = of_table(torch.stack([first, 10.0 * first]))  # the first configuration is the best of both
    assert torch.equal(regrets.next_point(X[1:3]), X[0])
    assert regrets.next_point(X[:1]) is None
    # what a study rounds on its way is the same configuration still
    assert regrets.next_point(X[:1] + 1e-9) is None
    # of one task out of many a gain may be too small for a trial, which would be bad on all others
    second = first.clone()
    second[1] = 1.0 + 1e-4
    regrets = of_table(torch.stack([first, second, first.flip(0)]))
    assert not torch.equal(regrets.next_point(X[:1]), X[1])


def test_tasks_that_rank_what_was_tried_as_the_new_one_does_count_for_more() -> None:
    regrets, rows = of_table(Y), [3, 8, 11, 20]
    y = Y[2] + 0.01
    new, each = ranks(y[rows].tolist()), [ranks([-v for v in regrets_of(row, rows)]) for row in Y.tolist()]
    likeness = [math.exp(-sum((a - b) ** 2 for a, b in zip(new, old, strict=True)) / (2 * 0.5**2)) for old in each]
    expected = torch.tensor([value / sum(likeness) for value in likeness], dtype=torch.float64)
    weights = regrets.likeness(X[rows], y[rows])
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(weights[2], weights.max())  # another task may rank them so too
    # in any units, and whatever else was tried
    elsewhere = torch.full((2, 3), 0.123, dtype=torch.float64)
    again = regrets.likeness(torch.cat([elsewhere, X[rows]]), torch.cat([y[:2], 1e3 * y[rows] - 7.0]))
    torch.testing.assert_close(again, weights)
    torch.testing.assert_close(regrets.likeness(X[:1], y[:1]), torch.full((5,), 0.2).double())


def regrets_of(values: list[float], rows: list[int]) -> list[float]:
    every = regret_of(values)
    return [every[row] for row in rows]


def ranks(values: list[float]) -> list[float]:
    """Normal scores; values at the limit of regrets share their mean rank."""
    n = len(values)
    quantiles = [(sum(b < a for b in values) + sum(b <= a for b in values)) / (2 * n) for a in values]
    return scipy.stats.norm.ppf(quantiles).tolist()


def test_weights_choose_for_whom_the_list_is() -> None:
    regrets = of_table(Y)
    alone = torch.zeros(5, dtype=torch.float64)
    alone[3] = 1.0
    assert torch.equal(regrets.next_point(X[:0], alone), X[Y[3].argmax()])


def test_points_that_the_past_lacks_say_nothing() -> None:
    regrets = of_table(Y)
    assert torch.equal(regrets.next_point(X[:0]), regrets.next_point(0.5 + 0.01 * X[:4]))


@pytest.mark.parametrize("far", [-1e3, -1e300])
def test_a_diverged_run_does_not_make_all_others_equal(far: float) -> None:
    diverged = Y.clone()
    diverged[0, Y[0].argmin()] = far
    table = torch.tensor([regret_of(row) for row in diverged.tolist()], dtype=torch.float64)
    assert float(table[0].sort().values[15]) == pytest.approx(0.1)  # the upper of the two in the middle
    regrets = of_table(diverged)
    torch.testing.assert_close(regrets.regrets, table.mT[order_of(regrets.points)])


def order_of(points: Tensor) -> list[int]:
    return [X.tolist().index(point) for point in points.tolist()]


def test_a_task_with_ties_at_the_top_still_says_what_is_bad() -> None:
    tied = torch.ones(2, 30, dtype=torch.float64)
    tied[:, 4] = 0.0
    assert of_table(tied).regrets.sum(0).tolist() == [1.0, 1.0]


def test_missing_entries_are_the_mean_of_others() -> None:
    y = Y.clone()
    y[1, 3] = torch.nan
    whole, gap = of_table(Y).regrets, of_table(y).regrets
    others = [0, 2, 3, 4]
    at = X.unique(dim=0).tolist().index(X[3].tolist())
    torch.testing.assert_close(gap[at, 1], whole[at, others].mean())
    torch.testing.assert_close(gap[at, others], whole[at, others])


def test_repeated_rows_are_averaged() -> None:
    twice = Data(torch.cat([X, X]).expand(5, -1, -1), torch.cat([Y, Y], 1), torch.ones(5, 60, dtype=torch.bool))
    regrets = PastRegrets.of(twice)
    assert regrets is not None
    once = of_table(Y)
    assert torch.equal(regrets.points, once.points)
    # quantiles of few rows differ a little
    torch.testing.assert_close(regrets.regrets, once.regrets, atol=0.2, rtol=0.0)


def test_tasks_with_configurations_of_their_own_have_none() -> None:
    own = torch.rand(5, 30, 3, generator=seed(2), dtype=torch.float64)
    assert PastRegrets.of(Data(own, Y, torch.ones(5, 30, dtype=torch.bool))) is None
    some = torch.where((torch.arange(30) < 14)[:, None], X, own)
    assert PastRegrets.of(Data(some, Y, torch.ones(5, 30, dtype=torch.bool))) is None
    most = torch.where((torch.arange(30) < 16)[:, None], X, own)
    regrets = PastRegrets.of(Data(most, Y, torch.ones(5, 30, dtype=torch.bool)))
    assert regrets is not None
    assert len(regrets.points) == 16


NUM_TASKS = 9


def grid_prior() -> TuningPrior:
    space = SearchSpace(past.SPACE)
    x = space.sobol(24, generator=seed(0))
    shifts = torch.linspace(-2.0, 2.0, NUM_TASKS).tolist()
    y = [[past.loss(params, shift) for params in space.from_unit(x)] for shift in shifts]
    return TuningPrior.fit(
        space,
        Data(x.expand(NUM_TASKS, -1, -1), torch.tensor(y).double(), torch.ones(NUM_TASKS, 24).bool()),
        "minimize",
    )


def test_a_study_begins_with_configurations_that_the_past_shares(tmp_path: Path) -> None:
    bm.save(grid_prior(), tmp_path / "prior")
    prior = bm.load(tmp_path / "prior")
    study = optuna.create_study(sampler=MetaSampler(prior, seed=shifted(0)))
    study.optimize(past.objective(0), n_trials=5)
    chosen = prior.space.to_unit(trial.params for trial in study.trials)
    rows = -torch.tensor([trial.value for trial in study.trials]).double()
    is_listed = [trial.system_attrs["bayesmeta:turn"] == "list" for trial in study.trials]
    assert is_listed[0]
    for n in range(5):
        listed = prior.suggester.regrets.next_point(chosen[:n], prior.suggester.regrets.likeness(chosen[:n], rows[:n]))
        assert is_listed[n] is (listed is not None)  # else expected improvement climbs
        if listed is not None:
            torch.testing.assert_close(chosen[n], listed, atol=1e-6, rtol=0.0)


def test_past_studies_that_agree_are_not_repeated() -> None:
    """All past studies used one seed, so that they share configurations of which none is good for the new one."""
    priors = []
    for task in range(6):
        study = optuna.create_study(study_name=f"past {task}", sampler=optuna.samplers.RandomSampler(seed=shifted(7)))
        study.optimize(past.objective(task), n_trials=12)
        priors.append(study)
    prior = TuningPrior.from_studies(priors)
    assert prior.suggester.regrets is not None
    study = optuna.create_study(sampler=MetaSampler(prior, seed=shifted(0)))
    study.optimize(past.objective(1), n_trials=12)
    tried = prior.space.to_unit(trial.params for trial in study.trials)
    repeated = (torch.cdist(tried, prior.suggester.regrets.points) < 1e-6).any(-1)
    assert repeated.sum() <= 5
    assert not repeated[6:].any()


def test_a_pool_is_searched_for_it() -> None:
    prior = grid_prior()
    none = Data.of(prior.suggester.regrets.points[:0], prior.suggester.regrets.points[:0, 0])
    turn, value = prior.suggest(none)
    assert turn == "list"
    pool = torch.cat([torch.rand(50, 6, generator=seed(3)).double(), prior.suggester.regrets.points])
    assert torch.equal(pool[value(pool).argmax()], prior.suggester.regrets.next_point(pool[:0]))


def turns_of(prior: TuningPrior, y: Tensor, num_trials: int) -> list[str]:
    """Of a study that chooses among the configurations of the past."""
    x = prior.suggester.regrets.points
    seen, turns = list[int](), list[str]()
    for _ in range(num_trials):
        turn, value = prior.suggest(Data.of(x[seen], y[seen]), turns=turns)
        worth = value(x)
        worth[seen] = -torch.inf
        seen.append(int(worth.argmax()))
        turns.append(turn)
    return turns


def test_it_goes_on_for_ten_rows_if_any_past_task_agrees() -> None:
    """And as long as there is something to gain."""
    prior = grid_prior()
    losses = torch.tensor(
        [past.loss(params) for params in prior.space.from_unit(prior.suggester.regrets.points)]
    ).double()
    turns = turns_of(prior, losses, 14)
    num_listed = (*turns, "").index(next(turn for turn in (*turns, "") if turn != "list"))
    assert num_listed >= 2
    assert set(turns[num_listed:]) <= {"list", "mixture", "past", "plain", "explore"}
    assert "list" not in turns_of(prior, -losses, 10)[6:]


def test_agreement_is_a_ratio_of_densities() -> None:
    regrets, rows = of_table(Y), [3, 8, 11, 20]
    y = Y[2, rows]
    new = ranks(y.tolist())
    each = [ranks([-v for v in regrets_of(row, rows)]) for row in Y.tolist()]
    some = sum(math.prod(scipy.stats.norm.pdf(a, b, 0.5) for a, b in zip(new, old, strict=True)) for old in each) / 5
    none = math.prod(scipy.stats.norm.pdf(new))
    assert regrets.agreement(X[rows], y) == pytest.approx(some / (some + none))
    assert regrets.agreement(X[:0], y[:0]) == 0.5


def test_a_past_that_is_the_contrary_does_not_agree() -> None:
    regrets = of_table(Y[:1].expand(2, -1))
    assert regrets.agreement(X[:8], Y[0, :8]) > 0.9
    assert regrets.agreement(X[:8], -Y[0, :8]) < 0.01
