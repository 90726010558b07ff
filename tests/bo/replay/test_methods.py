"""Replaying methods on finished tables: what they may know, and how they are judged."""

from dataclasses import replace

import pytest
import torch

from bo import SearchSpace, TuningPrior
from bo.replay.methods import METHODS, greedy_list, learned
from bo.replay.pool import Method, Pool, regret, scaled_regret
from tests.bo import past
from tests.families import seed
from tests.seeds import shifted

SPACE = SearchSpace(past.SPACE)
X = SPACE.sobol(40, generator=seed(0))
PARAMS = SPACE.from_unit(X)
NUM = 9


def pool(shift: float = 0.0) -> Pool:
    losses = torch.tensor([past.loss(params, shift) for params in PARAMS], dtype=torch.float64)
    return Pool(SPACE, PARAMS, X, -losses)


def prior(direction: str) -> TuningPrior:
    return past.learned(direction)


ALL: dict[str, object] = {
    **{name: lambda name=name: METHODS[name] for name in METHODS},
    "learned to minimize": lambda: learned(prior("minimize")),
    "learned to maximize": lambda: learned(prior("maximize")),
    "list": lambda: greedy_list(torch.stack([scaled_regret(p, p.y) for p in (pool(-0.2), pool(0.2))])),
}
every_method = pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())


@every_method
def test_methods_choose_without_repeating_and_repeat_themselves(make) -> None:
    method: Method = make()
    chosen = method(pool(), [], NUM, shifted(0))
    assert len(set(chosen)) == len(chosen) == NUM
    assert all(0 <= index < len(X) for index in chosen)
    assert method(pool(), [], NUM, shifted(0)) == chosen


@every_method
def test_rows_given_are_not_chosen_again(make) -> None:
    method: Method = make()
    given = [3, 17, 8, 25, 30]
    chosen = method(pool(), given, NUM, shifted(0))
    assert len(set(chosen) | set(given)) == NUM + len(given)


@every_method
def test_unseen_values_are_not_used(make) -> None:
    """With the values of all but the given rows and the first chosen ones hidden, the next choice stays what it was."""
    method: Method = make()
    for given in ([], [3, 17, 8, 25, 30]):
        chosen = method(pool(), given, NUM, shifted(0))
        seen = given + chosen[:-1]
        y = torch.full_like(pool().y, torch.nan)
        y[seen] = pool().y[seen]
        y[chosen[-1]] = 0.0  # told to a method after its last choice
        assert method(replace(pool(), y=y), given, NUM, shifted(0)) == chosen


@every_method
def test_the_whole_pool_can_be_tried(make) -> None:
    small = Pool(SPACE, PARAMS[:7], X[:7], pool().y[:7])
    method: Method = greedy_list(scaled_regret(small, small.y)[None]) if make is ALL["list"] else make()
    chosen = method(small, [], 7, shifted(0))
    assert sorted(chosen) == list(range(7))
    assert regret(small, chosen)[-1] == 0.0


def test_both_directions_choose_alike() -> None:
    one, other = (learned(prior(direction))(pool(), [], NUM, shifted(0)) for direction in ("minimize", "maximize"))
    assert one == other


def test_seeds_matter_to_all_that_draw() -> None:
    for method in METHODS.values():
        first = method(pool(), [], NUM, shifted(0))
        assert any(method(pool(), [], NUM, shifted(i)) != first for i in range(1, 6))  # two can agree


def test_the_past_helps() -> None:
    def mean_regret(method: Method, trials: int, num: int) -> float:
        return sum(regret(pool(), method(pool(), [], trials, shifted(s)))[-1] for s in range(num)) / num

    assert mean_regret(learned(prior("minimize")), 3, 5) < mean_regret(METHODS["random"], 9, 100)


def test_regret_is_one_at_the_median_and_zero_at_the_best() -> None:
    y = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0], dtype=torch.float64)
    five = Pool(SPACE, PARAMS[:5], X[:5], y)
    assert regret(five, [1, 0, 2, 4, 3]) == [2.0, 1.0, 1.0, 0.5, 0.0]


def test_the_list_takes_the_best_on_average_first() -> None:
    past_regret = torch.stack([scaled_regret(p, p.y) for p in (pool(-0.3), pool(0.3))])
    assert greedy_list(past_regret)(pool(), [], 1, shifted(0)) == [int(past_regret.sum(0).argmin())]


def test_the_list_goes_on_with_what_complements_it() -> None:
    """Second comes what helps where the first does not, though another is better on average."""
    past_regret = torch.tensor([[0.0, 0.1, 0.9, 0.2], [0.3, 0.3, 0.0, 0.3]])
    assert greedy_list(past_regret)(pool(), [], 3, shifted(0))[:2] == [0, 2]
    assert greedy_list(past_regret)(pool(), [0, 2], 2, shifted(0)) == [1, 3]


def test_the_list_starts_again_when_nothing_is_left_to_gain() -> None:
    past_regret = torch.tensor([[0.0, 0.6, 0.2, 0.4], [0.0, 0.0, 0.2, 0.1]])
    assert greedy_list(past_regret)(pool(), [], 4, shifted(0)) == [0, 2, 1, 3]
