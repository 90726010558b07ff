"""The loop by which networks learn, on models of a number or two."""

from collections.abc import Callable

import pytest
import torch

from bayesmeta.networks.learning.until_no_gain import Standing, learn_until_no_gain, num_held_out


class Runs:
    """Learning that counts: after look i of a run it knows i, and it writes down which tasks it was given.

    Args:
        known: where its first run goes on.
        num_looks: after so many, in both runs, it is killed.
    """

    def __init__(self, known: int = 0, num_looks: int = 1000) -> None:
        self.known, self.num_looks = known, num_looks
        self.parts: list[slice] = []

    def learn(self, part: slice, enough: Callable[[int], bool]) -> int:
        self.parts.append(part)
        while self.num_looks:
            self.known, self.num_looks = self.known + 1, self.num_looks - 1
            if enough(self.known):
                known, self.known = self.known, 0
                return known
        raise KeyboardInterrupt


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


@pytest.mark.parametrize(("done", "num_runs"), [(0, 2), (4, 2), (11, 2), (12, 1), (15, 1), (18, 1)])
def test_it_goes_on_where_it_stood(done: int, num_runs: int) -> None:
    """After any look, of which its runs have 12 and 7."""
    options = {"patience": 5, "name": "numbers", "progress": False, "standing": Standing()}
    killed = Runs(num_looks=done)
    with pytest.raises(KeyboardInterrupt):
        learn_until_no_gain(killed.learn, lambda known: -abs(known - 7.0), 20, **options)
    later = Runs(killed.known)
    assert learn_until_no_gain(later.learn, lambda known: -abs(known - 7.0), 20, **options) == 7
    assert later.parts == [slice(4, None), slice(None)][-num_runs:]


@pytest.mark.parametrize("worth", [0.0, float("nan")])
def test_without_any_gain_it_ends(worth: float) -> None:
    assert learn_until_no_gain(Runs().learn, lambda _: worth, 2, patience=3, name="nothing", progress=False) == 1


@pytest.mark.parametrize(("num_tasks", "held_out"), [(2, 1), (5, 1), (8, 2), (100, 20)])
def test_a_fifth_of_the_tasks_is_held_out(num_tasks: int, held_out: int) -> None:
    assert num_held_out(num_tasks) == held_out
