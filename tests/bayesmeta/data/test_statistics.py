"""Statistics add, whatever the order, the padding, or how far the rows sit from zero."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bayesmeta import Data, Statistics
from bayesmeta.random import randn
from tests.families import F64, FAMILIES, seed


def tasks(lengths: list[int], number: int = 0, offset: float = 0.0, d: int = 2) -> Data:
    """Ragged tasks with rows near `offset`, in other places for other tasks."""
    g = seed(number)
    pairs = []
    for i, n in enumerate(lengths):
        z = randn((n, d + 1), like=F64, generator=g) + offset * (1.0 + i)
        pairs.append((z[:, :-1], z[:, -1]))
    return Data.pad(pairs)


def by_hand(data: Data, i: int) -> tuple[Tensor, Tensor]:
    """Mean and scatter of one task, by two passes over its rows."""
    z = torch.cat([data.x[i], data.y[i, :, None]], -1)[data.mask[i]]
    mean = z.mean(0)
    return mean, (z - mean).mT @ (z - mean)


def close(a: Statistics, b: Statistics, rtol: float = 1e-10) -> None:
    assert torch.equal(a.count, b.count)
    torch.testing.assert_close(a.mean[a.count > 0], b.mean[b.count > 0], rtol=1e-14, atol=1e-10)
    assert (a.second is None) == (b.second is None)
    if a.second is not None:
        torch.testing.assert_close(a.scatter, b.scatter, rtol=rtol, atol=rtol)


lengths = st.lists(st.integers(0, 5), min_size=3, max_size=3)
offsets = st.sampled_from([0.0, 1e6])


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_those_of_the_rows(offset: float) -> None:
    data = tasks([5, 9, 1], offset=offset)
    stats = Statistics.of(data)
    for i in range(3):
        mean, scatter = by_hand(data, i)
        torch.testing.assert_close(stats.mean[i], mean, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(stats.scatter[i], scatter, rtol=1e-10, atol=1e-10)
    z = torch.cat([data.x, data.y[..., None]], -1)
    torch.testing.assert_close(stats.raw_second, z.mT @ z, rtol=1e-12, atol=1e-12)
    assert stats.num_inputs == 2


@given(a=lengths, b=lengths, number=st.integers(0, 10**6), offset=offsets, order=st.sampled_from([1, 2]))
@settings(max_examples=50)
def test_statistics_add(a: list[int], b: list[int], number: int, offset: float, order: int) -> None:
    first, second = tasks(a, number, offset), tasks(b, number + 1, offset)
    both = Statistics.of(first, order=order) + Statistics.of(second, order=order)
    close(both, Statistics.of(first + second, order=order))
    close(Statistics.of(second, order=order) + Statistics.of(first, order=order), both)


@given(a=lengths, offset=offsets, far=st.floats(-1e3, 1e3))
@settings(max_examples=30)
def test_another_origin_is_the_same_statistics(a: list[int], offset: float, far: float) -> None:
    stats = Statistics.of(tasks(a, 1, offset))
    moved = stats.about(stats.origin + far)
    close(moved, stats, rtol=1e-7)  # about a point 1e3 away six digits of the second moment cancel
    close(moved.about(stats.origin), stats, rtol=1e-7)


@given(a=lengths, number=st.integers(0, 10**6))
@settings(max_examples=30)
def test_pooling_equals_one_task_with_all_rows(a: list[int], number: int) -> None:
    data = tasks(a, number)
    pooled = Data(data.x.reshape(-1, 2), data.y.reshape(-1), data.mask.reshape(-1))
    close(Statistics.of(data).sum(), Statistics.of(pooled))
    close(Statistics.of(data).sum(-1), Statistics.of(pooled))


def test_pooling_names_a_missing_axis() -> None:
    with pytest.raises(IndexError, match=r"task axis 1 does not exist: batch_shape is \(3,\)"):
        Statistics.of(tasks([1, 2, 3])).sum(1)


@given(
    steps=st.lists(st.tuples(st.lists(st.integers(0, 3), unique=True, min_size=1), st.integers(0, 3)), max_size=5),
    offset=offsets,
    order=st.sampled_from([1, 2]),
)
@settings(max_examples=50)
def test_adding_in_place_equals_a_batch(steps: list[tuple[list[int], int]], offset: float, order: int) -> None:
    stats = Statistics.zeros((4,), 2, 1, order=order)
    memory = stats.count.data_ptr(), stats.origin.data_ptr(), stats.first.data_ptr()
    rows: list[list[tuple[Tensor, Tensor]]] = [[(F64.new_zeros(0, 2), F64.new_zeros(0))] for _ in range(4)]
    for number, (index, n) in enumerate(steps):
        new = tasks([n] * len(index), number, offset)
        others = [i for i in range(4) if i not in index]
        before = [t[others].clone() for t in (stats.count, stats.origin, stats.first)]
        stats.add_at(torch.tensor(index), new)
        for left, right in zip(before, (stats.count, stats.origin, stats.first), strict=True):
            assert torch.equal(left, right[others])
        for place, i in enumerate(index):
            rows[i].append((new.x[place], new.y[place]))
    assert memory == (stats.count.data_ptr(), stats.origin.data_ptr(), stats.first.data_ptr())
    whole = Data.pad([tuple(torch.cat(part) for part in zip(*task, strict=True)) for task in rows])
    # rows of one task may now sit up to 3e6 apart, and their scatter is held to its own size
    expected = Statistics.of(whole, order=order)
    assert torch.equal(stats.count, expected.count)
    torch.testing.assert_close(
        stats.mean, expected.mean.where(expected.count[:, None] > 0, stats.origin), rtol=1e-12, atol=1e-9
    )
    if order == 2:
        size = 1.0 + expected.scatter.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None]
        assert ((stats.scatter - expected.scatter).abs() <= 1e-10 * size).all()


def test_add_at_takes_whole_numbers_and_two_axes() -> None:
    stats = Statistics.zeros((2, 3), 0, 1)
    stats.add_at((1, 2), Data.of(None, torch.tensor([1.0, 2.0])))
    assert stats.count.tolist() == [[0, 0, 0], [0, 0, 2]]
    stats.add_at((torch.tensor([0, 1]), torch.tensor([0, 2])), Data.of(None, torch.tensor([[5.0], [6.0]])))
    assert stats.count.tolist() == [[1, 0, 0], [0, 0, 3]]
    assert stats.mean[..., 0].tolist() == [[5.0, 0.0, 0.0], [0.0, 0.0, 3.0]]


def test_add_at_refuses_a_task_named_twice() -> None:
    stats = Statistics.zeros((3,), 0, 1)
    with pytest.raises(ValueError, match="task 1 is named more than once"):
        stats.add_at(torch.tensor([1, 1]), Data.of(None, torch.ones(2, 1)))
    assert stats.count.sum() == 0


def test_a_sum_of_different_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="same tasks, inputs and outputs"):
        Statistics.of(tasks([2])) + Statistics.of(tasks([2], d=3))


def test_order_one_has_no_second_moments() -> None:
    stats = Statistics.of(tasks([2, 0]), order=1)
    assert stats.second is None
    with pytest.raises(ValueError, match="got statistics of order 1"):
        _ = stats.scatter
    # a sum knows what both sides know
    assert (stats + Statistics.of(tasks([2, 0]))).second is None
    assert stats.sum().second is None


def test_half_precision_rows_are_summed_in_double() -> None:
    stats = Statistics.of(tasks([3, 2]).to(torch.float32))
    assert stats.count.dtype == stats.mean.dtype == stats.scatter.dtype == torch.float64


def test_statistics_pass_through_and_leave_the_rows_alone() -> None:
    data = tasks([3, 2])
    before = data.y.clone()
    stats = Statistics.of(data)
    assert Statistics.of(stats) is stats
    assert torch.equal(data.y, before)
    alone = Data.of(None, torch.ones(2, 3, dtype=torch.float64))
    Statistics.of(alone)
    assert (alone.y == 1.0).all()


REDUCED = [
    "beta_bernoulli",
    "dirichlet_categorical",
    "gamma_exponential",
    "gamma_poisson",
    "linear_gaussian",
    "linear_normal_inverse_gamma",
    "matrix_normal_inverse_wishart",
    "normal_inverse_gamma",
    "normal_inverse_wishart",
]


@pytest.mark.parametrize("name", REDUCED)
def test_a_prior_is_learned_from_statistics_as_from_rows(name: str) -> None:
    """What `from_parquet` gives is enough: where the search starts, and where it ends, are the same."""
    family = FAMILIES[name]
    data = family.tasks([7, 9, 12, 8, 10])
    stats, kind = Statistics.of(data), type(family.prior)
    by_rows, by_statistics = kind.initial(data), kind.initial(stats)
    for a, b in ((by_rows, by_statistics), (by_rows.fit(data), by_statistics.fit(stats))):
        for field in dataclasses.fields(a):
            value = getattr(a, field.name)
            if isinstance(value, Tensor):
                torch.testing.assert_close(value, getattr(b, field.name), rtol=1e-6, atol=1e-8)
