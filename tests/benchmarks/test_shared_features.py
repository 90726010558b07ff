"""The benchmark of learned features: which rows and tasks a prior sees, and who wins where the truth is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bayesmeta import Data, LinearGaussian
from bayesmeta.checks.predictive_checks import TaskMean
from bayesmeta.random import rand, randn
from benchmarks.priors import shared_features
from benchmarks.priors.few_rows import SHOWN, hidden
from benchmarks.priors.shared_features import NUM_FOLDS, WithIntercept, held_out, read, some_rows, with_intercept
from tests.families import F64, seed


def waves(num_tasks: int, num_rows: int) -> Data:
    """Amplitude, phase and level are the task's own: no line fits, and a few features do."""
    g = seed(0)
    x = 4.0 * rand((num_tasks, num_rows, 1), like=F64, generator=g) - 2.0
    a, b = 1.0 + 0.3 * randn((num_tasks, 1), like=F64, generator=g), randn((num_tasks, 1), like=F64, generator=g)
    y = a * torch.sin(2.0 * x[..., 0] + rand((num_tasks, 1), like=F64, generator=g)) + b
    return Data.of(x, y + 0.1 * randn(y.shape, like=F64, generator=g))


def test_parameters_are_placed_between_their_bounds(tmp_path: Path) -> None:
    names = list(shared_features.BOUNDS)[::-1]
    ends = np.array([[shared_features.BOUNDS[name][i] for name in names] for i in (0, 1)])
    middle = [
        np.sqrt(a * b) if shared_features.BOUNDS[n][2] else (a + b) / 2 for n, a, b in zip(names, *ends, strict=True)
    ]
    accuracy = np.array([[10.0, 50.0, 100.0], [0.0, 1.0, 2.0]])
    np.savez(tmp_path / "runs.npz", X=np.vstack([ends, middle]), Y=accuracy, names=np.array(names))
    tasks = read(tmp_path / "runs.npz")
    expected = torch.tensor([0.0, 1.0, 0.5]).double()[:, None].expand(2, 3, 7)
    torch.testing.assert_close(tasks.x, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(tasks.y, accuracy / 100.0)


def test_past_rows_are_drawn_from_each_task_apart() -> None:
    tasks = waves(10, 40)
    some = some_rows(tasks, 15, seed(1))
    where = (some.x == tasks.x.mT).long()  # (tasks, drawn, rows)
    assert torch.equal(where.sum(-1), torch.ones(10, 15).long()), "each drawn row is one of the task"
    assert where.sum(-2).max() == 1, "without replacement"
    torch.testing.assert_close((where * tasks.y[:, None, :]).sum(-1), some.y)
    assert not torch.equal(where[0], where[1])


def test_every_task_is_predicted_once_by_a_prior_that_never_saw_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The level of a task is its number, and a prior that predicts at random records which levels it met."""
    tasks = waves(12, 30)
    tasks = replace(tasks, y=torch.arange(12.0).double()[:, None].expand(12, 30))
    past: list[set[float]] = []
    now: list[float] = []

    class Recorder:
        batch_shape = event_shape = torch.Size()

        def condition(self, data: Data) -> "Recorder":
            if data.mask.shape[-1] == max(SHOWN):
                now.extend(data.y[:, 0].tolist())
                assert not past[-1] & set(data.y[:, 0].tolist())
            return self

        def predict(self, x: torch.Tensor) -> Any:
            return torch.distributions.Normal(torch.zeros(x.shape[:-1]).double(), 1.0)

    def learn(rows: Data) -> Recorder:
        assert rows.mask.shape[-1] == 25
        past.append(set(rows.y.flatten().tolist()))
        return Recorder()

    monkeypatch.setattr(shared_features, "METHODS", {"recorder": learn})
    found = held_out(tasks, 25, NUM_FOLDS, seed(0))["recorder"].after[5]
    assert sorted(now) == list(range(12))
    assert all(len(seen) >= 12 - 3 for seen in past)
    torch.testing.assert_close(found.squared_error.by_task, torch.tensor(now).double().square())


def test_an_intercept_is_a_column_of_ones() -> None:
    tasks = waves(20, 15)
    rows = with_intercept(tasks)
    assert torch.equal(rows.x[..., 1], torch.ones(20, 15).double())
    prior = shared_features.linear(tasks)
    direct = LinearGaussian.initial(rows).fit(rows)
    assert isinstance(prior, WithIntercept)
    new, both = tasks.rows(slice(5)), rows.rows(slice(5))
    for a, b in ((prior, direct), (prior.condition(new), direct.condition(both))):
        torch.testing.assert_close(a.predict(tasks.x).mean, b.predict(rows.x).mean)
        assert a.batch_shape == b.batch_shape


def test_features_beat_lines_on_waves() -> None:
    tasks = waves(25, 40)
    found = held_out(tasks, 20, 1, seed(0))
    assert len(found["linear"].after[0].log_score.by_task) == 5
    for number in SHOWN[1:]:
        best, line = (found[name].after[number].log_score for name in ("learned_features", "linear"))
        gain = TaskMean(best.by_task - line.by_task)
        assert gain.value > 0.4  # about 1.5 +- .2 after five rows, and 1.8 +- .1 after twenty
        process = found["gaussian_process"].after[number]
        assert process.squared_error.value < found["linear"].after[number].squared_error.value
    assert hidden(tasks).mask.shape == (25, 40 - max(SHOWN))
