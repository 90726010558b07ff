"""The loop by which networks learn, on models of a number or two."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bayesmeta.networks.training import ascend, learn_until_no_gain, num_held_out
from tests.families import F64


class Runs:
    """Learning that counts: after look i it knows i, and it writes down which tasks it was given."""

    def __init__(self) -> None:
        self.parts: list[slice] = []

    def learn(self, part: slice, enough: Callable[[int], bool]) -> int:
        self.parts.append(part)
        known = 1
        while not enough(known):
            known += 1
        return known


def test_the_second_run_is_as_long_as_the_first_was_at_its_best() -> None:
    runs, looks = Runs(), []

    def value(known: int) -> float:
        assert not torch.is_grad_enabled()
        looks.append(known)
        return -abs(known - 7.0)

    found = learn_until_no_gain(runs.learn, value, 20, patience=5, name="numbers", progress=False)
    assert found == 7
    assert looks == list(range(1, 13)), "five looks after the best one"
    assert runs.parts == [slice(4, None), slice(None)]


@pytest.mark.parametrize("worth", [0.0, float("nan")])
def test_without_any_gain_it_ends(worth: float) -> None:
    assert learn_until_no_gain(Runs().learn, lambda _: worth, 2, patience=3, name="nothing", progress=False) == 1


@pytest.mark.parametrize(("num_tasks", "held_out"), [(2, 1), (5, 1), (8, 2), (100, 20)])
def test_a_fifth_of_the_tasks_is_held_out(num_tasks: int, held_out: int) -> None:
    assert num_held_out(num_tasks) == held_out


def test_steps_climb_and_leave_their_start_alone() -> None:
    start, seen = [F64 + 1.0, torch.zeros(2).to(F64)], []

    def objective(values: list[Tensor]) -> Tensor:
        return -(values[0] - 3.0).square() - (values[1] + 1.0).square().sum()

    def enough(values: list[Tensor]) -> bool:
        seen.append(values)
        return len(seen) == 50

    found = ascend(start, [0.3, 0.1], objective, enough, num_steps=1000, interval=10)
    assert len(seen) == 50
    assert all(torch.equal(a, b) for a, b in zip(found, seen[-1], strict=True))
    assert abs(float(found[0]) - 3.0) < 0.05
    assert (found[1] + 1.0).abs().max() < 0.05
    assert float(start[0]) == 1.0
    assert not torch.equal(seen[0][0], seen[1][0]), "copies, which later steps do not change"
    assert len(ascend(start, [0.3, 0.1], objective, lambda _: False, num_steps=20, interval=10)) == 2
