"""Ranking-weighted ensembles: losses by brute force, weights by hand, and which past is believed."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.fields import LearnedFrom
from bo import SearchSpace, TuningPrior, fit_rgpe
from bo.acquisition.improvement import believing
from bo.priors.rgpe import RankingWeightedEnsemble, misranked_pairs, ranking_weights
from tests.bayesmeta.test_io import same
from tests.bo import past
from tests.families import seed
from tests.seeds import shifted

SPACE = SearchSpace(past.SPACE)
NUM_ROWS = 40


def rows(num: int, number: int, *, shift: float = 0.0, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Inputs and losses of a task."""
    x = SPACE.sobol(num, generator=seed(number))
    return x, torch.tensor([past.loss(params, shift, scale) for params in SPACE.from_unit(x)], dtype=torch.float64)


def noise(num: int, number: int) -> tuple[Tensor, Tensor]:
    """A task in which nothing can be learned of another."""
    x, y = rows(num, number)
    return x, y[torch.randperm(num, generator=seed(number + 1000))]


@cache
def prior(useful: int = 1, useless: int = 0, direction: str = "minimize") -> TuningPrior:
    each = [rows(NUM_ROWS, i) for i in range(useful)] + [noise(NUM_ROWS, i) for i in range(useful, useful + useless)]
    sign = 1.0 if direction == "minimize" else -1.0
    return fit_rgpe(SPACE, Data.pad([(x, sign * y) for x, y in each]), direction, seed=shifted(0))


def after(num: int, **past_tasks: int) -> RankingWeightedEnsemble:
    return prior(**past_tasks).functions.condition(Data.of(*rows(num, 77, scale=50.0)))


@given(number=st.integers(0, 10**6), n=st.integers(1, 6), ties=st.booleans())
@settings(max_examples=30)
def test_losses_by_brute_force(number: int, n: int, ties: bool) -> None:
    generator = seed(number)
    y, f = torch.randn(2, n, generator=generator, dtype=torch.float64)
    others = torch.randn(n, n, generator=generator, dtype=torch.float64)
    if ties:
        y = y.round()
    pairs = [(i, j) for i in range(n) for j in range(n)]
    shared = sum((f[i] < f[j]) ^ (y[i] < y[j]) for i, j in pairs)
    left_out = sum((f[i] < others[i, j]) ^ (y[i] < y[j]) for i, j in pairs)
    assert misranked_pairs(f, f[None], y).item() == shared
    assert misranked_pairs(f.expand(3, -1), others.expand(3, -1, -1), y).tolist() == [left_out] * 3


def test_weights_by_hand() -> None:
    """Nothing is dropped that always beats the target; ties are split."""
    losses = torch.tensor([[0.0, 0.0, 9.0], [1.0, 0.0, 9.0], [2.0, 2.0, 9.0], [0.0, 3.0, 9.0]], dtype=torch.float64)
    weights = ranking_weights(losses, 0.0, generator=seed(0))
    assert weights.tolist() == [0.5, 0.5, 0.0]
    assert ranking_weights(losses, 1.0, generator=seed(0)).tolist() == [0.0, 0.0, 1.0], "the horizon is over"
    never_better = torch.tensor([[5.0, 5.0]] * 3, dtype=torch.float64)
    assert ranking_weights(never_better, 0.0, generator=seed(0)).tolist() == [0.0, 1.0], "a tie with the target"


def test_models_are_dropped_as_often_as_is_said() -> None:
    """It beats the target in 3 of 4 draws, so that with 2/5 of the horizon over it is kept with probability .45."""
    losses = torch.tensor([[1.0, 2.0]] * 3 + [[2.0, 1.0]], dtype=torch.float64)
    num = 4000
    kept = sum(bool(ranking_weights(losses, 0.4, generator=seed(i))[0] > 0) for i in range(num)) / num
    assert abs(kept - 0.45) < 5 * math.sqrt(0.45 * 0.55 / num)


@given(number=st.integers(0, 10**6), elapsed=st.floats(0.0, 2.0))
@settings(max_examples=30)
def test_weights_are_shares(number: int, elapsed: float) -> None:
    losses = torch.randint(5, (16, 7), generator=seed(number)).double()
    weights = ranking_weights(losses, elapsed, generator=seed(number))
    assert (weights >= 0).all()
    assert weights.sum().item() == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("num", [2, 5, 20])
def test_weights_of_a_posterior_sum_to_one(num: int) -> None:
    assert after(num, useful=2, useless=3).weights.sum().item() == pytest.approx(1.0, rel=1e-12)


def test_a_past_like_the_target_dominates_early() -> None:
    """It is dropped at times, as it does not rank five rows better in every draw: so over 40 draws of five rows."""
    functions, weights = prior(useful=4, useless=3).functions, []
    for number in range(40):
        some = torch.tensor([number % 4, 4, 5, 6])  # one that is useful, next to three that are not
        few = replace(functions, sources=functions.sources[some], weights=torch.eye(5)[4].double())
        few = replace(few, seed=shifted(number)).condition(Data.of(*rows(5, 77 + number)))
        weights.append(few.weights[0].item())
    assert sum(weights) / 40 > 0.6  # about .83 +- .04


def test_the_target_dominates_where_the_past_says_nothing() -> None:
    assert after(NUM_ROWS, useful=0, useless=4).weights[-1] > 0.9


def test_useless_tasks_do_not_dilute_the_target() -> None:
    weights = after(NUM_ROWS, useful=0, useless=100).weights
    assert weights[-1] > 0.9
    assert (weights[:-1] > 0).sum() < 10


def test_a_useful_task_is_found_among_useless_ones() -> None:
    """Unless it is dropped: what a past task is dropped by is drawn, once per seed of the ensemble."""
    functions, data = prior(useful=1, useless=100).functions, Data.of(*rows(15, 77, scale=50.0))
    seeds = [replace(functions, seed=shifted(number)) for number in range(30)]
    assert sum(bool(each.condition(data).weights.argmax() == 0) for each in seeds) > 10


def test_moments_are_the_weighted_sums() -> None:
    posterior, x = after(12, useful=2, useless=1), rows(7, 5)[0]
    y = rows(12, 77, scale=50.0)[1]
    each = [posterior.sources.marginal(x), posterior.target.marginal(x)]
    mean, var = (
        torch.cat([m if m.ndim == 2 else m[None] for m in ms])
        for ms in zip(*((f.mean, f.variance) for f in each), strict=True)
    )
    w = posterior.weights[:, None]
    f = posterior.marginal(x)
    # minimised: the processes are of minus the loss
    torch.testing.assert_close(f.mean, y.mean() - y.std(correction=0) * (w * mean).sum(0))
    torch.testing.assert_close(f.variance, y.var(correction=0) * (w.square() * var).sum(0))
    assert (posterior.predict(x).variance > f.variance).all()
    torch.testing.assert_close(posterior.predict(x).mean, f.mean)
    stacked = posterior.marginal(torch.stack([x, x.flip(0)]))
    torch.testing.assert_close(stacked.mean[1].flip(0), f.mean)


def test_left_out_rows_are_predicted_without_them() -> None:
    """One row far off: a process that has seen it ranks it well, and is not allowed to judge itself by that."""
    x, y = rows(12, 77)
    strange = y.clone()
    strange[0] = y.max() + 5.0 * (y.max() - y.min())
    endless = replace(prior(useful=1).functions, horizon=10**9)
    weights = [float(replace(endless, seed=shifted(i)).condition(Data.of(x, strange)).weights[0]) for i in range(20)]
    assert max(weights) > 0.5, "it is dropped as often as it ranks worse than the target: not by every seed"


def test_more_rows_and_their_order() -> None:
    x, y = rows(14, 77)
    whole = prior(useful=2, useless=1).functions.condition(Data.of(x, y))
    start = prior(useful=2, useless=1).functions
    in_parts = start.condition(Data.of(x[:5], y[:5])).condition(Data.of(x[5:], y[5:]))
    order = torch.randperm(14, generator=seed(2))
    shuffled = start.condition(Data.of(x[order], y[order]))
    padded = start.condition(Data(torch.cat([x, x + 1e6]), torch.cat([y, y + 1e6]), torch.arange(28) < 14))
    new = rows(6, 3)[0]
    for other in (in_parts, shuffled, padded):
        torch.testing.assert_close(other.weights, whole.weights)
        torch.testing.assert_close(other.marginal(new).mean, whole.marginal(new).mean)
        torch.testing.assert_close(other.marginal(new).stddev, whole.marginal(new).stddev)
    assert start.condition(Data.of(x[:0], y[:0])) is start


def test_units_and_the_direction_change_nothing_else() -> None:
    x, y = rows(14, 77)
    down, up = (prior(useful=2, useless=1, direction=d).functions for d in ("minimize", "maximize"))
    a, b = down.condition(Data.of(x, 1e3 * y + 5.0)), up.condition(Data.of(x, -y))
    torch.testing.assert_close(a.weights, b.weights)
    torch.testing.assert_close(a.marginal(x).mean, -1e3 * b.marginal(x).mean + 5.0)


def test_few_rows_and_rows_that_are_alike() -> None:
    x, y = rows(4, 77)
    functions = prior(useful=2).functions
    assert functions.weights.tolist() == [0.5, 0.5, 0.0]
    assert functions.condition(Data.of(x[:1], y[:1])).weights.tolist() == [0.5, 0.5, 0.0]
    flat = functions.condition(Data.of(x, torch.full_like(y, 3.0)))
    assert flat.marginal(x).mean.isfinite().all()


def test_it_suggests_for_a_study() -> None:
    """In the middle of a study, with a trial running, the next point is better than most."""
    known = prior(useful=3)
    x, y = rows(8, 77)
    points, losses = rows(64, 5)
    turn, value = known.suggest(Data.of(x, y), x[:1] + 0.01, ["mixture"] * 8)
    assert turn == "mixture"
    assert losses[value(points).argmax()] < losses.quantile(0.1)
    first = known.suggest(Data.of(x[:0], y[:0]))[1](points)
    assert losses[first.argmax()] < losses.quantile(0.1)
    functions, targets = believing(known.functions, Data.of(x, y), points[:2])
    assert len(targets) == len(functions.rows.y) == 10


def test_it_is_saved_and_loaded(tmp_path) -> None:
    known = prior(useful=2, useless=1)
    bm.save(known, tmp_path / "rgpe.safetensors")
    loaded = bm.load(tmp_path / "rgpe.safetensors")
    assert same(loaded, known)
    assert loaded.learned_from == LearnedFrom(3, 3 * NUM_ROWS)
    data = Data.of(*rows(9, 77))
    assert torch.equal(loaded.functions.condition(data).weights, known.functions.condition(data).weights)


def test_wrong_input() -> None:
    functions = prior(useful=2).functions
    with pytest.raises(ValueError, match="an ensemble is of one task"):
        functions.condition(Data.of(torch.zeros(2, 3, SPACE.num_columns), torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="got batch_shape \\(2,\\) and 2 weights"):
        RankingWeightedEnsemble(functions.sources, functions.weights[:2])
    with pytest.raises(ValueError, match="horizon must be at least one row; got 0"):
        RankingWeightedEnsemble(functions.sources, functions.weights, horizon=0)
