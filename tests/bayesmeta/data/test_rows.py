"""Data: rows go in and come out as they were, and every bad row is named."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayesmeta import Data, DirichletCategorical, NormalInverseWishart

NAN = float("nan")


def ragged() -> Data:
    return Data.pad([([[1.0], [2.0]], [1.0, 2.0]), ([[3.0]], [3.0]), (torch.zeros(0, 1), [])], task_x=[[1.0], [2], [3]])


def rows_of(data: Data) -> list[list[tuple[float, ...]]]:
    """The real rows of each task."""
    return [
        [(*x.tolist(), y.item()) for x, y, real in zip(data.x[i], data.y[i], data.mask[i], strict=True) if real]
        for i in range(len(data.mask))
    ]


def test_pad_keeps_rows_and_masks_the_rest() -> None:
    data = ragged()
    assert (data.x.shape, data.y.shape, data.batch_shape, data.event_shape) == ((3, 2, 1), (3, 2), (3,), ())
    assert data.count.tolist() == [2, 1, 0]
    assert rows_of(data) == [[(1.0, 1.0), (2.0, 2.0)], [(3.0, 3.0)], []]
    assert data.task_x is not None
    assert data.task_x.tolist() == [[1.0], [2.0], [3.0]]


@pytest.mark.parametrize(
    ("y", "dtype"),
    [
        ([1, 2], torch.float64),
        ([1.0, 2.0], torch.float64),
        (torch.tensor([1, 2]), torch.float64),
        (torch.tensor([True, False]), torch.float64),
        (torch.tensor([1.0, 2.0]), torch.float32),
        (np.array([1.0, 2.0]), torch.float64),
        (np.array([1.0, 2.0], dtype=np.float32), torch.float32),
    ],
)
def test_pad_takes_what_people_have(y: object, dtype: torch.dtype) -> None:
    data = Data.pad([([1, 2], y), (np.ones(1), [3])])
    assert data.y.dtype == data.x.dtype == dtype or dtype == torch.float32
    assert Data.pad([(None, y)]).x.shape == (1, 2, 0)
    assert Data.pad([(None, y)]).y.dtype == dtype
    assert Data.pad([([1, 2], y)], dtype=torch.float16).x.dtype == torch.float16


def test_vector_outputs() -> None:
    data = Data.pad([(None, [[1.0, 2.0]]), (None, [[3.0, 4.0], [5.0, 6.0]])])
    assert data.event_shape == (2,)
    assert data.rows(slice(1, 2)).y.tolist() == [[[0.0, 0.0]], [[5.0, 6.0]]]
    assert Data.of(None, torch.ones(3, 4, 2), event_dim=1).batch_shape == (3,)
    assert Data.of(None, torch.ones(3, 4)).event_shape == ()
    assert Data.of(torch.ones(3, 4, 2), torch.ones(3, 4, 1), event_dim=1).event_shape == (1,)


@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4), more=st.integers(0, 3))
def test_plus_concatenates_rows_task_by_task(lengths: list[int], more: int) -> None:
    a = Data.pad([(torch.full((n, 1), float(i)), torch.arange(float(n))) for i, n in enumerate(lengths)])
    b = Data.pad([(torch.full((more, 1), -1.0), torch.full((more,), float(i))) for i in range(len(lengths))])
    assert rows_of(a + b) == [left + right for left, right in zip(rows_of(a), rows_of(b), strict=True)]


def test_plus_broadcasts_tasks_and_keeps_their_features() -> None:
    both = ragged() + Data.of(torch.full((1, 1), 9.0), torch.full((1,), 9.0))
    assert rows_of(both) == [[*rows, (9.0, 9.0)] for rows in rows_of(ragged())]
    assert both.task_x is not None
    with pytest.raises(ValueError, match=r"the same tasks, or one of them one; got \(3,\) and \(2,\)"):
        ragged() + ragged()[:2]
    with pytest.raises(ValueError, match=r"the same features and event_shape; got \(1, \(\)\) and \(2, \(\)\)"):
        Data.of(torch.ones(2, 1), torch.ones(2)) + Data.of(torch.ones(2, 2), torch.ones(2))


def test_indexing_takes_tasks() -> None:
    data = ragged()
    assert rows_of(data[1:]) == [[(3.0, 3.0)], []]
    assert data[0].batch_shape == ()
    assert data[torch.tensor([True, False, True])].count.tolist() == [2, 0]
    assert data[[2, 0]].task_x.tolist() == [[3.0], [1.0]]
    with pytest.raises(IndexError, match="one task"):
        data[0][0]


def test_rows_takes_rows_of_every_task() -> None:
    data = ragged()
    assert rows_of(data.rows(slice(0, 1))) == [[(1.0, 1.0)], [(3.0, 3.0)], []]
    assert rows_of(data.rows(torch.tensor([1, 0]))) == [[(2.0, 2.0), (1.0, 1.0)], [(3.0, 3.0)], []]
    assert data.rows(slice(0, 0)).count.tolist() == [0, 0, 0]
    assert data.rows(slice(0, 1)).task_x is not None


def test_moving_keeps_the_mask() -> None:
    moved = ragged().to(torch.float32)
    assert (moved.x.dtype, moved.y.dtype, moved.mask.dtype) == (torch.float32, torch.float32, torch.bool)
    assert moved.task_x is not None
    assert moved.task_x.dtype == torch.float32


def test_masked_rows_may_hold_anything() -> None:
    x, mask = torch.tensor([[1.0], [NAN]]), torch.tensor([True, False])
    assert Data(x, torch.tensor([1.0, float("inf")]), mask).count.item() == 1


# ---- what is refused

ONE, THREE = torch.ones(3, 1), torch.ones(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Data.of(ONE, None), "needs y; got None"),
        (lambda: Data.of(THREE, THREE), r"x must have shape \(\.\.\., n, d\); got \(3,\)\. Try x\.unsqueeze\(-1\)"),
        (lambda: Data.of(ONE, ONE), r"y must have shape \(3,\), one value per row of x; got \(3, 1\)\. Try y\.squeeze"),
        (lambda: Data.of(ONE, torch.ones(4)), r"y must have shape \(3,\), one value per row of x; got \(4,\)"),
        (lambda: Data.of(ONE, torch.ones(3, 2, 2)), r"must be a number or a vector; got y of shape \(3, 2, 2\)"),
        (lambda: Data.of(ONE, THREE, event_dim=1), r"y must have 2 axes; got shape \(3,\)"),
        (lambda: Data.pad([]), "at least one"),
        (lambda: Data.pad([(None, [1.0]), (None, [[1.0]])]), r"y of task 1 has shape \(1, 1\), that of task 0 \(1,\)"),
        (
            lambda: Data.pad([(ONE, THREE), (torch.ones(3, 2), THREE)]),
            r"x of task 1 has shape \(3, 2\), that of",
        ),
        (
            lambda: Data.pad([(ONE, THREE), (ONE, [1.0])]),
            r"x of task 1 must have shape \(1, d\), one row per",
        ),
        (lambda: Data.pad([(None, 1.0)]), r"y of task 0 must have shape \(n,\) or \(n, k\); got \(\)"),
        (lambda: Data.pad([(None, [1.0, NAN])]), r"y must be finite where mask is true; .* in task 0, row 1"),
        (
            lambda: Data.pad([([1.0, -float("inf")], [1, 1])]),
            r"x must be finite where .* in task 0, row 1",
        ),
        (lambda: Data.pad([(None, [1.0])], task_x=[[NAN]]), "task_x must be finite"),
        (lambda: Data.of(None, torch.tensor([NAN, NAN])), "2 rows are not, the first is in row 0"),
        (lambda: Data.of(None, torch.full((2, 2, 2), NAN)), r"8 rows are not, the first is in task \(0, 0\), row 0"),
        (lambda: Data.of(None, torch.full((2, 2), NAN), event_dim=1), "2 rows are not, the first is in row 0"),
    ],
)
def test_bad_rows_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("y", [[0, 1, 1], np.array([0, 1, 1]), torch.tensor([0, 1, 1]), [False, True, True]])
@pytest.mark.parametrize("x", [[[0], [1], [2]], np.arange(3)[:, None], torch.arange(3)[:, None]])
def test_numbers_of_any_type(x: object, y: object) -> None:
    for data in (Data.of(x, y), Data(x, y, [1, 1, 1]), Data.pad([(x, y)])[0], Data(x, y, np.ones(3, bool), [1, 2])):
        assert data.x.dtype == data.y.dtype == torch.float64
        assert data.mask.dtype == torch.bool
        assert rows_of(Data(data.x[None], data.y[None], data.mask[None])) == [[(0.0, 0.0), (1.0, 1.0), (2.0, 1.0)]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_x_has_the_dtype_of_y(dtype: torch.dtype) -> None:
    y = torch.ones(3, dtype=dtype)
    for x in (torch.ones(3, 1, dtype=torch.float64), torch.ones(3, 1).bool(), np.ones((3, 1), np.uint8), [[1.0]] * 3):
        data = Data(x, y, [True] * 3, [1, 2])
        assert data.x.dtype == data.y.dtype == data.task_x.dtype == dtype
    assert Data.of(None, [1, 2], dtype=dtype).y.dtype == dtype


@pytest.mark.parametrize(
    "array",
    [
        np.arange(3.0)[::-1],
        np.arange(3).astype(">f8"),
        np.broadcast_to(np.float64(1.0), 3),
        np.arange(3, dtype=np.longdouble),
        np.arange(3, dtype=np.uint32),
    ],
)
def test_arrays_that_torch_would_not_take(array: np.ndarray) -> None:
    assert Data.of(None, array).y.tolist() == array.tolist()


def test_rows_of_two_dtypes_are_joined() -> None:
    a, b = Data.of(None, torch.ones(2)), Data.of(None, torch.arange(2))
    assert (a + b).y.tolist() == (b + a).y.tolist()[::-1] or (a + b).y.tolist() == [1.0, 1.0, 0.0, 1.0]
    assert (a + b).y.dtype == (a + b).x.dtype == torch.float64
    assert Data.pad([(None, np.ones(2, np.float32)), (None, [1, 2, 3])]).y.dtype == torch.float64


@pytest.mark.parametrize(
    "wrong", ["abc", [[1.0], [1.0, 2.0]], [None, 1.0], torch.ones(3) * 1j, np.array(["a"]), {"a": 1}, object()]
)
def test_what_holds_no_numbers(wrong: object) -> None:
    for make in (Data.of, lambda x, y: Data(x, y, [1]), lambda x, y: Data.pad([(x, y)])):
        with pytest.raises(TypeError, match=r"y.* must (be a tensor, an array or a list of numbers|hold real numbers)"):
            make(None, wrong)


def test_a_mask_of_other_numbers() -> None:
    with pytest.raises(ValueError, match="mask must be true where a row is real"):
        Data(torch.ones(2, 1), torch.ones(2), [1, 2])


def test_length_is_that_of_the_axis_of_tasks() -> None:
    data = ragged()
    assert len(data) == 3
    assert len(list(data)) == 3
    assert len(Data.of(None, torch.ones(2, 3, 4))) == 2
    with pytest.raises(TypeError, match=r"one task and has no axis of tasks; data.count is its number of rows"):
        len(data[0])
    assert data[0]
    assert Data.of(None, torch.ones(0, 3))


def test_padding_that_would_take_gigabytes_is_refused_before_it_is_made() -> None:
    tasks = [(None, [1.0])] * 20_000 + [(None, np.ones(200_000))]
    with pytest.raises(ValueError, match=r"20001 tasks to the 200000 rows of task 20000 takes 32 GB.*Statistics.from_"):
        Data.pad(tasks)


@pytest.mark.parametrize("family", [NormalInverseWishart, DirichletCategorical])
def test_vectors_given_as_tasks_are_told_of_event_dim(family: Any) -> None:
    y = torch.eye(3).repeat(4, 1).expand(5, 12, 3)
    for call in (family.initial, family.initial(Data.of(None, y, event_dim=1)).condition):
        with pytest.raises(ValueError, match=r"Data.of\(None, y, event_dim=1\)"):
            call(Data.of(None, y))
