"""The device check asks what it says it asks, and constants follow a prior to a GPU that is pretended."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import bayesmeta.neural_processes.transformer.causal  # noqa: F401 - imported here, since a pretence changes what is imported
from benchmarks import device_check
from benchmarks.device_check import Checks
from tests.pretended_gpu import pretended_gpu

# BoTorch moves modules by a function of C++, which cannot be pretended
NOT_PRETENDED = ("laws/", "speed_up/", "suggestion/acquisition")


def questions(device: torch.device) -> list[Any]:
    return [each for each in Checks(device, 100) if not each.name.startswith(NOT_PRETENDED)]


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    with pretended_gpu() as device:
        yield device


def test_tensors_are_where_they_are_put(gpu: torch.device) -> None:
    here, there = torch.ones(3), torch.ones(3, device=gpu)
    assert there.device == there[:2].device == (2.0 * there).device == here.to(gpu).device == gpu
    assert here.device == there.cpu().device == there.to("cpu").device == torch.device("cpu")
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device=gpu, generator=torch.Generator())
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


def test_every_answer_follows_a_prior_to_a_gpu(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    # a few steps and looks go where all would
    monkeypatch.setattr("bayesmeta.networks.deep_kernel_fit.NUM_STEPS", 20)
    monkeypatch.setattr("bayesmeta.numerics.optimise.MAX_STEPS", 10)
    failed = []
    for question in questions(gpu):
        try:
            question.ask()
        except Exception as error:
            failed.append(f"{question.name}: {error}")
    assert not failed, "\n".join(failed)


def test_it_says_what_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "check.json"
    monkeypatch.setattr(sys, "argv", ["", "--device", "cpu", "--only", "in_place/gamma", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        device_check.main()
    assert ended.value.code == 0
    assert json.loads(out.read_text())["failed"] == {}

    def wrong(*_: Any) -> float:
        raise AssertionError("another number")

    monkeypatch.setattr(Checks, "_in_place", wrong)
    with pytest.raises(SystemExit) as ended:
        device_check.main()
    assert ended.value.code == 1
    assert "FAILED in_place/gamma_poisson: AssertionError: another number" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["failed"]) == 3


def test_a_policy_says_that_it_decides_on_the_cpu(gpu: torch.device) -> None:
    next(each for each in questions(gpu) if each.name == "suggestion/bandit").ask()
