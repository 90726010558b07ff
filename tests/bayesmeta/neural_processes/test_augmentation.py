"""Past tasks that are changed as they are learned from: rows stay rows of one function, and held-out tasks stay."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bayesmeta import ConditionalNeuralProcess, Data
from bayesmeta.networks.embeddings import Inputs
from bayesmeta.neural_processes import Augmentation, BernoulliHead, GaussianHead, Schedule, learning
from bayesmeta.neural_processes.augmentation import Augmented
from bayesmeta.neural_processes.episodes import PastEpisodes
from tests.seeds import seed


def lines(shared: bool) -> Data:
    """Tasks y = a + b x on inputs that are theirs, or shared; the second column is a category, equal to the task."""
    x = torch.rand(1 if shared else 6, 30, 1, generator=seed(0), dtype=torch.float64).expand(6, 30, 1)
    a, b = torch.randn(2, 6, 1, generator=seed(1), dtype=torch.float64)
    kind = torch.arange(6.0).double()[:, None, None].expand(6, 30, 1)
    mask = torch.arange(30) < torch.tensor([30, 20, 30, 10, 30, 25])[:, None]
    return Data(torch.cat([x, kind], -1), (a + b * x[..., 0]).where(mask, 1e6), mask)


def not_on_a_line(x: Tensor, y: Tensor) -> Tensor:
    """How far y is from the line through it, `(*tasks,)`."""
    design = torch.stack([torch.ones_like(x), x], -1)
    line = design @ torch.linalg.lstsq(design, y[..., None]).solution
    return (line[..., 0] - y).abs().amax(-1)


def changed(how: Augmentation, tasks: Data) -> tuple[Tensor, Tensor]:
    augmented = Augmented(how, tasks, Inputs.of(tasks, {1: 6}), GaussianHead.initial(tasks))
    return augmented(tasks.x, tasks.y, seed(2))


def test_nothing_is_changed_unless_asked_for() -> None:
    tasks = lines(shared=False)
    x, y = changed(Augmentation(), tasks)
    assert torch.equal(x, tasks.x)
    assert torch.equal(y, tasks.y)


def test_two_functions_on_shared_inputs_are_mixed_into_another_one() -> None:
    tasks = lines(shared=True)
    tasks = tasks.rows(slice(0, 10))  # which all tasks have
    x, y = changed(Augmentation(interpolation=1.0), tasks)
    assert torch.equal(x, tasks.x)
    assert float(not_on_a_line(x[..., 0], y).max()) < 1e-9
    assert not torch.equal(y, tasks.y)


def test_rows_move_towards_the_nearest_ones_of_the_other_task() -> None:
    tasks = lines(shared=False)
    x, y = changed(Augmentation(interpolation=1.0), tasks)
    real = tasks.mask
    assert bool((x[real] != tasks.x[real]).any())
    assert float((x - tasks.x)[real].abs().mean()) < 0.1, "of 30 rows on (0, 1), some are near"
    assert bool(((x[real][:, 0] >= 0.0) & (x[real][:, 0] <= 1.0)).all())
    assert bool((y[real] <= tasks.y[real].max()).all() & (y[real] >= tasks.y[real].min()).all())


def test_a_share_of_tasks_is_mixed() -> None:
    y = torch.arange(4000.0).double()[:, None].expand(4000, 2)
    tasks = Data.of(torch.zeros(4000, 2, 0), y)
    augmented = Augmented(Augmentation(interpolation=0.3), tasks, Inputs.of(tasks), GaussianHead.initial(tasks))
    _, mixed = augmented(tasks.x, y, seed(3))
    share = (mixed[:, 0] != y[:, 0]).double().mean()
    assert abs(float(share) - 0.3) < 5.0 * (0.21 / 4000) ** 0.5 + 1e-3


def test_x_moves_by_a_part_of_its_standard_deviation() -> None:
    tasks = lines(shared=False)
    x, y = changed(Augmentation(jitter=0.1), tasks)
    moved = (x - tasks.x)[..., 0] / tasks.x[tasks.mask][:, 0].std()
    assert torch.equal(y, tasks.y)
    assert torch.equal(x[..., 1], tasks.x[..., 1]), "categories stay"
    assert abs(float(moved.std()) - 0.1) < 5.0 * 0.1 / (2 * moved.numel()) ** 0.5 + 2e-3


def test_y_of_a_task_is_scaled_and_shifted_as_one() -> None:
    tasks = lines(shared=False)
    head = GaussianHead.initial(tasks)
    x, y = changed(Augmentation(log_scale=0.5, shift=1.0), tasks)
    assert torch.equal(x, tasks.x)
    ratio = (y[:, 1:9] - y[:, :1]) / (tasks.y[:, 1:9] - tasks.y[:, :1])
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
    assert bool((ratio > 0.0).all())
    assert len(set(ratio[:, 0].tolist())) == len(tasks), "each task by its own factor"
    many = Data.of(torch.zeros(20_000, 1, 0), torch.randn(20_000, 1, generator=seed(4), dtype=torch.float64))
    augmented = Augmented(Augmentation(shift=2.0), many, Inputs.of(many), head)
    _, shifted = augmented(many.x, many.y, seed(5))
    by = (shifted - many.y) / head.scale
    assert abs(float(by.std()) - 2.0) < 5.0 * 2.0 / (2 * 20_000) ** 0.5


def test_known_rows_and_those_asked_about_are_of_one_function() -> None:
    """The classic mistake: known rows are changed in one way, and those asked about in another."""
    tasks = lines(shared=False)
    augmented = Augmented(
        Augmentation(log_scale=1.0, shift=3.0), tasks, Inputs.of(tasks, {1: 6}), GaussianHead.initial(tasks)
    )
    episode = PastEpisodes(tasks, 8, 6, 20, augmented).draw(15, seed(6))
    for task in range(8):
        known, asked = episode.mask[task], episode.mask_asked[task]
        x = torch.cat([episode.x[task][known, 0], episode.x_asked[task][asked, 0]])
        y = torch.cat([episode.y[task][known], episode.y_asked[task][asked]])
        assert float(not_on_a_line(x, y)) < 1e-6 * float(y.abs().max()), "still a line"


def test_held_out_tasks_are_judged_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, seen = lines(shared=False), []
    plain = {round(value, 9) for value in tasks.y[tasks.mask].tolist()}
    real = learning.mean_log_prob

    def watched(prior: Any, weights: Any, episode: Any, generator: Any) -> Tensor:
        values = {round(value, 9) for value in episode.y_asked[episode.mask_asked].tolist()}
        seen.append((torch.is_grad_enabled(), values <= plain))
        return real(prior, weights, episode, generator)

    monkeypatch.setattr(learning, "mean_log_prob", watched)
    start = ConditionalNeuralProcess.initial(tasks, categories={1: 6}, width=8, num_layers=1)
    how = Augmentation(log_scale=0.5, shift=0.5)
    start.fit(tasks, schedule=Schedule(num_steps=4), augmentation=how, progress=False)
    assert {as_is for learns, as_is in seen if learns} == {False}
    assert {as_is for learns, as_is in seen if not learns} == {True}


@pytest.mark.parametrize("bad", [{"interpolation": 1.5}, {"jitter": -0.1}, {"shift": float("nan")}])
def test_refuses_what_is_no_augmentation(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Augmentation(**bad)


def test_refuses_to_change_y_that_is_no_real_number() -> None:
    tasks = Data.of(torch.rand(5, 9, 1, generator=seed(0)), torch.ones(5, 9))
    start = ConditionalNeuralProcess.initial(tasks, head=BernoulliHead, width=8, num_layers=1)
    with pytest.raises(ValueError, match="BernoulliHead"):
        start.fit(tasks, augmentation=Augmentation(shift=1.0), progress=False)
    start.fit(tasks, schedule=Schedule(num_steps=2), augmentation=Augmentation(jitter=0.1), progress=False)


def test_refuses_to_augment_a_stream() -> None:
    tasks = lines(shared=False)

    class Stream:
        def draw(self, num_tasks: int, num_rows: int, *, generator: torch.Generator) -> Data:
            return tasks[:num_tasks]

    start = ConditionalNeuralProcess.initial(tasks, width=8, num_layers=1)
    with pytest.raises(ValueError, match="stream"):
        start.fit(Stream(), augmentation=Augmentation(jitter=0.1), progress=False)


def test_a_checkpoint_of_another_augmentation_is_refused(tmp_path: Path) -> None:
    tasks, path = lines(shared=False), tmp_path / "learning.safetensors"
    start = ConditionalNeuralProcess.initial(tasks, width=8, num_layers=1)
    settings: Any = {"schedule": Schedule(num_steps=3), "checkpoint": path, "progress": False}
    start.fit(tasks, augmentation=Augmentation(shift=0.5), **settings)
    with pytest.raises(ValueError, match=r"augmentation\.shift"):
        start.fit(tasks, augmentation=Augmentation(shift=1.0), **settings)
