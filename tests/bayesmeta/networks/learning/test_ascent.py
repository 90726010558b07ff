"""Steps up an objective: where they end, what they average, what they do without numbers, and how they go on."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from bayesmeta.networks.learning.ascent import MAX_FALLS, Ascent, DivergedWarning, Steps
from bayesmeta.networks.learning.checkpoints import Checkpoint, read_numbers
from tests.families import F64
from tests.seeds import seed

START = {"a": F64 + 1.0, "b": torch.zeros(2).to(F64)}


def hill(values: Mapping[str, Tensor]) -> Tensor:
    """Highest at a = 3, b = -1."""
    return -(values["a"] - 3.0).square() - (values["b"] + 1.0).square().sum()


def never(_: Mapping[str, Tensor]) -> bool:
    return False


def noisy(generator: Generator):
    def objective(values: Mapping[str, Tensor]) -> Tensor:
        return hill(values) + values["b"].sum() * torch.randn((), generator=generator, dtype=torch.float64)

    return objective


def test_steps_climb_and_leave_their_start_alone() -> None:
    seen: list[dict[str, Tensor]] = []

    def enough(values: dict[str, Tensor]) -> bool:
        seen.append(values)
        return len(seen) == 50

    found = Ascent(START, hill, Steps(1000, {"a": 0.3, "b": 0.1})).run(enough, interval=10)
    assert len(seen) == 50
    assert all(torch.equal(found[name], seen[-1][name]) for name in found)
    assert abs(float(found["a"]) - 3.0) < 0.05
    assert (found["b"] + 1.0).abs().max() < 0.05
    assert float(START["a"]) == 1.0
    assert not torch.equal(seen[0]["a"], seen[1]["a"]), "copies, which later steps do not change"
    assert Ascent(START, hill, Steps(20)).run(never, interval=10).keys() == START.keys()


def test_the_rate_rises_then_falls_along_a_cosine() -> None:
    steps = Steps(100, warm_up=0.1)
    assert steps.share(0) == pytest.approx(0.1)
    assert steps.share(9) == 1.0
    assert steps.share(55) == pytest.approx(0.5)
    assert steps.share(100) == pytest.approx(0.0, abs=1e-12)


def test_without_averaging_or_decay_steps_are_those_of_adam() -> None:
    found = Ascent(START, hill, Steps(30, 0.05)).run(never, interval=10)
    values = [value.clone().requires_grad_() for value in START.values()]
    optimiser = torch.optim.Adam(values, lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 30)
    for _ in range(30):
        optimiser.zero_grad()
        (-hill(dict(zip(START, values, strict=True)))).backward()
        optimiser.step()
        schedule.step()
    for mine, theirs in zip(found.values(), values, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-9, atol=1e-12)


def test_the_average_is_nearer_than_the_last_step() -> None:
    start = torch.zeros(400, 2).to(F64)  # of as many searches: Adam moves each number alone
    errors: dict[float, float] = {}
    for average in (0.0, 0.99):
        generator = seed(0)

        def objective(values: Mapping[str, Tensor], generator: Generator = generator) -> Tensor:
            noise = torch.randn(400, 1, generator=generator, dtype=torch.float64)
            return (values["b"] * noise - (values["b"] + 1.0).square()).sum()

        ascent = Ascent({"b": start}, objective, Steps(10**6, 0.05, average=average))
        for _ in range(400):
            ascent._take_step()
        errors[average] = float((ascent.learned()["b"] + 1.0).square().mean())
    assert errors[0.99] < 0.5 * errors[0.0]  # .27


def test_long_gradients_are_shortened() -> None:
    ascent = Ascent({"a": F64 + 0.0}, lambda values: 1e6 * values["a"], Steps(10, longest=2.0))
    ascent._take_step()
    assert float(ascent.values["a"].grad.norm()) == pytest.approx(2.0)


def test_a_value_that_is_no_number_sends_the_search_back_with_half_the_rate() -> None:
    calls = []

    def objective(values: Mapping[str, Tensor]) -> Tensor:
        calls.append(1)
        return hill(values) * (math.nan if len(calls) == 35 else 1.0)

    ascent = Ascent(START, objective, Steps(600, 0.1))
    looks: list[dict[str, Tensor]] = []
    with pytest.warns(DivergedWarning, match="no number in step 35"):
        found = ascent.run(lambda values: looks.append(values) or False, interval=10)
    assert ascent.num_falls == 1
    assert abs(float(found["a"]) - 3.0) < 0.1
    assert all(value.isfinite().all() for value in found.values())


def test_a_search_that_always_diverges_says_so() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergedWarning)
        with pytest.raises(ValueError, match=f"no numbers {MAX_FALLS + 1} times"):
            Ascent(START, lambda values: values["a"] * math.nan, Steps(100)).run(never, interval=10)


@pytest.mark.parametrize("stops", [[20], [10, 30, 40]])
def test_a_search_goes_on_to_the_last_bit(stops: list[int], tmp_path: Path) -> None:
    steps = Steps(60, 0.05, warm_up=0.1, average=0.9, decay=0.01)

    def ascent(generator: Generator, file: Checkpoint | None, objective: Any = noisy) -> Ascent:
        return Ascent(START, objective(generator), steps, generator=generator, checkpoint=file)

    def dies_after(num: int) -> Any:
        def objective(generator: Generator) -> Any:
            left, inner = iter(range(num)), noisy(generator)
            return lambda values: inner(values) if next(left, None) is not None else pytest.fail("killed")

        return objective

    whole = ascent(seed(1), None).run(never, interval=10)
    file, done = Checkpoint(tmp_path / "search.safetensors"), 0
    for stop in stops:
        # steps after the last look are lost, as by kill -9
        search = ascent(seed(99 if done else 1), file, dies_after(stop + 3 - done))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            search.run(never, interval=10)
        done = stop
    assert read_numbers(file.path)["step"] == done
    found = ascent(seed(99), file).run(never, interval=10)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_search_that_has_ended_stays_at_its_end(tmp_path: Path) -> None:
    file = Checkpoint(tmp_path / "search.safetensors")
    search = Ascent(START, hill, Steps(60, 0.05), checkpoint=file)
    found = search.run(lambda _: search.step >= 20, interval=10)
    again = Ascent(START, lambda _: pytest.fail("it has ended"), Steps(60, 0.05), checkpoint=file).run(
        never, interval=10
    )
    assert all(torch.equal(again[name], found[name]) for name in found)


def test_checkpoints_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.safetensors"
    file = Checkpoint(path)
    Ascent(START, hill, Steps(20), checkpoint=file).run(never, interval=10)
    with pytest.raises(ValueError, match=r"of another network: value.b has shape \(3,\) here and \(2,\) there"):
        Ascent({**START, "b": torch.zeros(3).to(F64)}, hill, Steps(20), checkpoint=file)
    with pytest.raises(ValueError, match="a search of 20 steps, and this one has 30"):
        Ascent(START, hill, Steps(30), checkpoint=file)
    whole = path.read_bytes()
    for raw in (b"", b"no checkpoint", whole[:-7], whole[: len(whole) // 2]):
        path.write_bytes(raw)
        with pytest.raises(ValueError, match="is no checkpoint, or is cut short"):
            Ascent(START, hill, Steps(20), checkpoint=file)
