"""Episodes of past tasks and of streams: which rows are known, which are asked about, and never both."""

from typing import Any

import pytest
import torch
from torch import Generator

from bayesmeta import Data
from bayesmeta.neural_processes.episodes import Episode, PastEpisodes, PriorTasks, StreamedEpisodes, TaskStream
from tests.families import FAMILIES
from tests.seeds import seed


def numbered(lengths: list[int]) -> Data:
    """Rows whose y is their task times 100 plus their place, and pads that must not be taken."""
    most = max(lengths)
    mask = torch.arange(most) < torch.tensor(lengths)[:, None]
    y = 100.0 * torch.arange(len(lengths))[:, None] + torch.arange(most)
    y = y.double().where(mask, -1.0)
    return Data(y[..., None] + 0.5, y, mask)


def of_task(episode: Episode, task: int) -> tuple[set[float], set[float]]:
    known, asked = episode.y[task][episode.mask[task]], episode.y_asked[task][episode.mask_asked[task]]
    assert len(known) + len(asked) == len(set(known.tolist()) | set(asked.tolist())), "a row is known or asked about"
    return set(known.tolist()), set(asked.tolist())


@pytest.mark.parametrize("num_known", [0, 3, 7, 20])
def test_rows_of_a_past_task_are_known_or_asked_about(num_known: int) -> None:
    tasks, most = numbered([9, 4, 1, 6]), 20
    for number in range(20):
        episode = PastEpisodes(tasks, 8, 5, most).draw(num_known, seed(number))
        assert episode.x_asked.shape == (8, episode.y_asked.shape[1], 1)
        torch.testing.assert_close(episode.x[..., 0], episode.y + 0.5)
        for task in range(8):
            known, asked = of_task(episode, task)
            every = known | asked
            assert min(every) >= 0.0
            assert len({value // 100 for value in every}) == 1, "of one task"
            count = int(tasks.count[int(min(every)) // 100])
            assert len(asked) >= 1
            assert len(known) <= min(num_known, count - 1)
            assert len(known) == min(int(num_known / most * count), num_known, count - 1)
        assert episode.mask.shape[1] <= num_known


def test_every_row_is_known_at_some_time_and_asked_about_at_another() -> None:
    tasks = numbered([6, 6])
    known, asked = set(), set()
    for number in range(60):
        episode = PastEpisodes(tasks, 4, 2, 6).draw(3, seed(number))
        known |= set(episode.y[episode.mask].tolist())
        asked |= set(episode.y_asked[episode.mask_asked].tolist())
    assert known == asked == set(tasks.y.flatten().tolist())


class Counted:
    """A stream whose tasks have numbers that never come again."""

    def __init__(self) -> None:
        self.num = 0

    def draw(self, num_tasks: int, num_rows: int, *, generator: torch.Generator) -> Data:
        y = self.num + torch.arange(num_tasks * num_rows).reshape(num_tasks, num_rows).double()
        self.num += num_tasks * num_rows
        return Data.of(y[..., None], y)


def test_a_stream_never_shows_a_task_twice() -> None:
    episodes = StreamedEpisodes(Counted(), 3, 2)
    seen: list[float] = []
    for number in range(5):
        episode = episodes.draw(number, seed(number))
        assert episode.mask.shape == (3, number)
        assert episode.y_asked.shape == (3, 2)
        assert episode.moments is None
        seen += episode.y.flatten().tolist() + episode.y_asked.flatten().tolist()
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("name", ["linear_gaussian", "gaussian_process", "beta_bernoulli", "normal_inverse_wishart"])
def test_a_prior_draws_the_tasks_that_it_expects(name: str) -> None:
    """Rows of a task have its predictive moments, and share what tasks differ in."""
    family = FAMILIES[name]
    x = family.draw_x(3, seed(3))
    stream = PriorTasks(family.prior, lambda tasks, rows, _: x[:rows].expand(tasks, -1, -1))
    tasks = stream.draw(4000, 3, generator=seed(4))
    assert isinstance(stream, TaskStream)
    assert tasks.batch_shape == (4000,)
    assert tasks.event_shape == family.prior.event_shape
    expected = family.prior.predict(x)
    error = (expected.variance / 4000).sqrt()
    assert ((tasks.y.mean(0) - expected.mean).abs() < 5 * error + 1e-12).all()
    again = stream.draw(4000, 3, generator=seed(4))
    assert torch.equal(again.y, tasks.y)
    if family.num_inputs:  # rows of one task vary together
        joint = family.prior.joint(x).covariance_matrix[0, 1]
        both = (tasks.y - tasks.y.mean(0))[:, :2].prod(1)
        assert abs(both.mean() - joint) < 5 * both.std() / 4000**0.5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda data: data.y, TypeError, r"draw must return Data; got Tensor. Make it by Data\.of\(x, y\)"),
        (lambda data: data[1:], ValueError, r"was asked for 4 tasks of 5 rows; got shape \(3, 5\)"),
        (lambda data: data.rows(slice(0, 2)), ValueError, r"was asked for 4 tasks of 5 rows; got shape \(4, 2\)"),
    ],
)
def test_what_a_stream_returns_is_checked(change: Any, error: type[Exception], message: str) -> None:
    class Broken(Counted):
        def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Any:
            return change(super().draw(num_tasks, num_rows, generator=generator))

    with pytest.raises(error, match=message):
        StreamedEpisodes(Broken(), 4, 2).draw(3, seed(1))
