"""The search for the best point: it climbs, it stays valid, it avoids what is taken."""

import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Tensor

from bo import SearchSpace
from bo.acquisition.search import climb
from bo.samplers.request import distance
from tests.families import seed

SPACE = SearchSpace(
    {"a": FloatDistribution(0, 1), "b": IntDistribution(1, 9), "c": CategoricalDistribution(("x", "y", "z"))}
)
TARGET = SPACE.to_unit([{"a": 0.37, "b": 4, "c": "y"}])[0]
NONE = torch.empty(0, SPACE.num_columns, dtype=torch.float64)


def value(points: Tensor) -> Tensor:
    return -(points - TARGET).square().sum(-1)


def search(good: Tensor = NONE, taken: Tensor = NONE, number: int = 0) -> Tensor:
    generator = seed(number)
    starts = SPACE.sobol(64, generator=generator)
    return climb(
        lambda x: value(x).where(distance(x, taken) > 1e-9, -torch.inf), SPACE, starts, good, generator=generator
    )


def test_it_comes_close_to_the_top_and_stays_valid() -> None:
    for number in range(5):
        found = search(number=number)
        assert value(found[None]).item() > -1e-3
        torch.testing.assert_close(SPACE.snap(found), found)
        assert SPACE.from_unit(found[None])[0]["c"] == "y"


def test_good_points_bring_it_closer() -> None:
    near = SPACE.to_unit([{"a": 0.38, "b": 4, "c": "y"}])
    assert value(search(torch.cat([SPACE.sobol(3, generator=seed(9)), near]))[None]).item() > -1e-4


def test_taken_points_are_avoided() -> None:
    first = search()
    again = search(taken=first[None])
    assert not torch.equal(first, again)


def test_equal_seeds_find_equal_points() -> None:
    assert torch.equal(search(number=3), search(number=3))


def test_distance_is_to_the_nearest() -> None:
    points = torch.tensor([[0.0, 0.0], [0.3, 0.4], [1.0 + 1e-12, 1.0]], dtype=torch.float64)
    others = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    assert distance(points, others).tolist() == pytest.approx([0.0, 0.5, 0.0], abs=1e-7)
    assert distance(points, others[:0]).tolist() == [torch.inf] * 3


def test_a_small_space_can_be_exhausted() -> None:
    tiny = SearchSpace({"c": CategoricalDistribution(("x", "y"))})
    every = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    found = climb(lambda x: torch.full_like(x[:, 0], -torch.inf), tiny, every, every, generator=seed(0))
    assert found.item() in (0.0, 1.0)


def test_points_without_a_number_are_passed_over() -> None:
    starts = SPACE.sobol(64, generator=seed(0))
    left = SPACE.slices()["a"].start
    found = climb(lambda x: value(x).where(x[:, left] > 0.5, torch.nan), SPACE, starts, NONE, generator=seed(1))
    assert found[left] > 0.5
    with pytest.raises(ArithmeticError, match="no point has a value that is a number"):
        climb(lambda x: torch.nan * value(x), SPACE, starts, NONE, generator=seed(1))
