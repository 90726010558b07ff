"""Random parts of tasks: real rows, each at most once, with what belongs to them."""

from dataclasses import replace

import pytest
import torch

from bayesmeta import Data
from bayesmeta.data.samples import share_inputs, some_rows, some_tasks
from bayesmeta.random import randn
from tests.families import F64, seed


def ragged(*outputs: int) -> Data:
    """20 tasks of 1 to 96 rows; each row of y starts with the first input."""
    x = randn((20, 100, 3), like=F64, generator=seed(1))
    y = (
        x[..., 0]
        if not outputs
        else torch.cat([x[..., :1], randn((20, 100, *outputs), like=F64, generator=seed(2))], -1)
    )
    return Data(x, y, torch.arange(100) < torch.arange(1, 101, 5)[:, None], torch.arange(20, dtype=F64.dtype)[:, None])


@pytest.mark.parametrize("outputs", [(), (2,)])
def test_rows_are_real_and_taken_once(outputs: tuple[int, ...]) -> None:
    tasks = ragged(*outputs)
    part = some_rows(tasks, 64, seed(0))
    assert part.mask.shape == (20, 64)
    assert part.event_shape == tasks.event_shape
    assert torch.equal(part.count, tasks.count.clamp(max=64))
    for task in range(20):
        chosen = part.x[task, :, 0][part.mask[task]]
        assert torch.isin(chosen, tasks.x[task, :, 0][tasks.mask[task]]).all()
        assert len(chosen.unique()) == len(chosen)
    first = part.y[..., 0] if outputs else part.y
    assert torch.equal(first[part.mask], part.x[..., 0][part.mask]), "outputs stay with their inputs"
    assert not torch.equal(part.x[-1], some_rows(tasks, 64, seed(1)).x[-1])


def test_few_rows_stay_as_they_are() -> None:
    tasks = ragged()
    assert some_rows(tasks, 100, seed(0)) is tasks


def test_tasks_come_in_random_order() -> None:
    tasks = ragged()
    some = some_tasks(tasks, 8, seed(0))
    assert some.task_x is not None
    numbers = some.task_x[:, 0].long()
    assert len(numbers.unique()) == 8
    assert torch.equal(some.x, tasks.x[numbers])
    assert sorted(some_tasks(tasks, 50, seed(0)).count.tolist()) == tasks.count.tolist()


def test_inputs_are_shared_where_all_are_the_same() -> None:
    tasks = ragged()
    alike = Data.of(tasks.x[:1].expand(20, -1, -1), tasks.y)
    assert share_inputs(alike)
    assert not share_inputs(replace(alike, mask=tasks.mask))
    assert not share_inputs(Data.of(tasks.x, tasks.y))
