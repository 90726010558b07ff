"""Normal scores against scipy, and what must not change them."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bo import normal_scores
from bo.past_tasks.scores import finite_values

values = st.lists(st.integers(-5, 5) | st.floats(-1e6, 1e6), min_size=1, max_size=12)


def scores(y: list[float]) -> torch.Tensor:
    target = torch.tensor(y, dtype=torch.float64)
    return normal_scores(target, torch.ones(len(y), dtype=torch.bool))


@given(values)
def test_they_are_quantiles_of_mean_ranks(y: list[float]) -> None:
    expected = stats.norm.ppf((stats.rankdata(y) - 0.5) / len(y))
    torch.testing.assert_close(scores(y), torch.from_numpy(expected), rtol=1e-10, atol=1e-12)


@given(values)
def test_order_is_all_that_matters(y: list[float]) -> None:
    whole = [round(v) for v in y]  # so that cubes keep every tie
    torch.testing.assert_close(scores([float(v) ** 3 for v in whole]), scores([float(v) for v in whole]))
    torch.testing.assert_close(scores([-v for v in y]), -scores(y), atol=1e-12, rtol=0)


def test_pads_are_invisible_and_zero() -> None:
    y = torch.tensor([[3.0, 1.0, 2.0, 1e6], [5.0, 5.0, 1e6, -1e6], [1e6, 1e6, 1e6, 1e6]])
    mask = torch.tensor([[True] * 3 + [False], [True] * 2 + [False] * 2, [False] * 4])
    result = normal_scores(y, mask)
    torch.testing.assert_close(result[0, :3], scores([3.0, 1.0, 2.0]))
    assert (result[~mask] == 0).all()
    assert (result[1:] == 0).all()


def test_one_row_and_equal_rows_score_zero() -> None:
    assert scores([7.0]).tolist() == [0.0]
    assert scores([2.0, 2.0, 2.0]).tolist() == [0.0, 0.0, 0.0]


def test_infinite_values_count_as_the_most_extreme_finite_ones() -> None:
    assert finite_values([1.0, float("inf"), -2.0, float("-inf")]).tolist() == [1.0, 1.0, -2.0, -2.0]
    assert finite_values([float("inf")]).tolist() == [0.0]
    assert finite_values([]).tolist() == []
