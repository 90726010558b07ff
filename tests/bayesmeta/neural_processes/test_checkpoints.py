"""Learning from past tasks that is killed goes on as if it had not been; checkpoints of anything else are refused."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bayesmeta import ConditionalNeuralProcess, Data, LatentNeuralProcess, TransformerNeuralProcess
from bayesmeta.networks.learning.ascent import Ascent
from bayesmeta.networks.learning.checkpoints import read_numbers
from bayesmeta.neural_processes import Schedule
from bayesmeta.neural_processes import learning as module
from bayesmeta.random import rand, randn
from tests.families import F64, seed

START = {
    "conditional": lambda tasks: ConditionalNeuralProcess.initial(tasks, width=8, num_layers=1),
    "latent": lambda tasks: LatentNeuralProcess.initial(tasks, width=8, num_layers=1, num_latent=3),
    "transformer": lambda tasks: TransformerNeuralProcess.initial(
        tasks, width=8, num_layers=1, num_heads=2, linear_width=4, hidden=8
    ),
}
SCHEDULE = Schedule(15, num_tasks=4, most_known=4, num_asked=3)
INTERVAL = 3  # steps between looks


class Stream:
    def draw(self, num_tasks: int, num_rows: int, *, generator: torch.Generator) -> Data:
        x = rand((num_tasks, num_rows, 1), like=F64, generator=generator)
        level, noise = (randn((num_tasks, n), like=F64, generator=generator) for n in (1, num_rows))
        return Data.of(x, level + 0.3 * noise)


def past() -> Data:
    """Tasks of two to seven rows."""
    tasks = Stream().draw(12, 7, generator=seed(1))
    mask = torch.arange(7) < (2 + torch.arange(12) % 6)[:, None]
    return Data(tasks.x, tasks.y.where(mask, 0.0), mask)


def fit(member: str, path: Path | None, number: int = 2, tasks: Any = None, **options: Any) -> Any:
    tasks = past() if tasks is None else tasks
    options = {"schedule": SCHEDULE, "progress": False} | options
    return START[member](past()).fit(tasks, generator=seed(number), checkpoint=path, **options)


@contextmanager
def killed_after(num_steps: int) -> Iterator[list[int]]:
    """Steps of each search, until it is as if by kill -9: nothing is written after the last look."""
    step, taken, searches = Ascent._take_step, [], []

    def counted(search: Ascent) -> None:
        if sum(taken) == num_steps:
            raise KeyboardInterrupt
        if not searches or searches[-1] is not search:
            searches.append(search)
            taken.append(0)
        taken[-1] += 1
        step(search)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ascent, "_take_step", counted)
        yield taken


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Schedule, "interval", INTERVAL)
    monkeypatch.setattr(module, "PATIENCE", 2)


def goes_on_to_the_last_bit(member: str, schedule: Schedule, folder: Path) -> None:
    """Killed in the first step, before and after looks, between both runs, in the second, and again and again."""
    options = {"schedule": schedule}
    with killed_after(10**6) as taken:
        whole = fit(member, None, **options)
    first, second = taken
    stops = {0, 1, INTERVAL, INTERVAL + 1, first - 1, first, first + 1, first + INTERVAL, first + second - 1}
    for stop in sorted(stop for stop in stops if stop < first + second):
        path = folder / f"{stop}.safetensors"
        with killed_after(stop), pytest.raises(KeyboardInterrupt):
            fit(member, path, **options)
        again = fit(member, path, number=99 if path.exists() else 2, **options)
        assert again.equals(whole, rtol=0.0, atol=0.0), f"killed after {stop} of {first} and {second} steps"
    path = folder / "often.safetensors"
    for _ in range((first + second) // INTERVAL + 1):
        with killed_after(2 * INTERVAL), suppress(KeyboardInterrupt):
            found = fit(member, path, number=99 if path.exists() else 2, **options)
    assert found.equals(whole, rtol=0.0, atol=0.0)


def test_learning_from_past_tasks_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    """Of the one whose losses draw too; all learn by the same steps."""
    goes_on_to_the_last_bit("latent", SCHEDULE, tmp_path)


def test_so_it_does_where_the_steps_end_after_the_last_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 10**6)
    goes_on_to_the_last_bit("conditional", replace(SCHEDULE, num_steps=4 * INTERVAL + 1), tmp_path)


def test_what_has_ended_is_not_learned_again(tmp_path: Path) -> None:
    path = tmp_path / "learning.safetensors"
    whole = fit("conditional", path)
    with killed_after(0):
        again = fit("conditional", path, number=99)
    assert again.equals(whole, rtol=0.0, atol=0.0)


def test_checkpoints_of_anything_else_are_refused(tmp_path: Path) -> None:
    path, tasks = tmp_path / "learning.safetensors", past()
    fit("conditional", path)
    others = {
        "from 12 tasks, and these are 11": {"tasks": tasks[1:]},
        "from 54 rows, and these are 49": {"tasks": tasks[torch.tensor([0, *range(11)])]},
        "from other tasks: these are as many": {"tasks": replace(tasks, y=tasks.y + 1e-6 * tasks.mask)},
        "from past tasks, and this is from a stream": {"tasks": Stream()},
        "with schedule.rate 0.004, and here it is 0.001": {"schedule": replace(SCHEDULE, rate=1e-3)},
    }
    for message, options in others.items():
        with pytest.raises(ValueError, match=message):
            fit("conditional", path, **options)
    with pytest.raises(ValueError, match="that began with another network"):
        fit("transformer", path)
    whole = path.read_bytes()
    for raw in (b"", whole[:-7], whole[: len(whole) // 2]):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match="is no checkpoint, or is cut short"):
            fit("conditional", path)


def test_checkpoints_of_streams_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "learning.safetensors"
    fit("conditional", path, tasks=Stream(), schedule=replace(SCHEDULE, num_steps=INTERVAL))
    assert read_numbers(path)["step"] == INTERVAL
    with pytest.raises(ValueError, match="from a stream, and this is from past tasks"):
        fit("conditional", path)
