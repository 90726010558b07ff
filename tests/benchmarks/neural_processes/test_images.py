"""Images of the benchmark of neural processes: what is read, exact Bayes under past images, and that it runs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.neural_processes import run
from benchmarks.neural_processes.sections import image_baselines, images
from benchmarks.neural_processes.sections.image_baselines import Frequencies, SmoothedImages
from benchmarks.neural_processes.sections.image_data import Images, ImageStream, asked_about, omniglot
from benchmarks.neural_processes.sections.images import ImageBudget
from tests.seeds import seed, shifted

SIDE = 4


def some(num: int, groups: int = 5) -> Images:
    ink = (torch.rand(num, SIDE * SIDE, generator=seed(0)) < 0.3).double()
    return Images(ink, torch.arange(num) % groups, SIDE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of alphabets that are made up."""
    (tmp_path / "omniglot").mkdir()
    random = np.random.default_rng(shifted(1))
    pixels = np.where(random.random((60, 2 * SIDE, 2 * SIDE)) < 0.2, 255, 0).astype(np.uint8)
    alphabet = np.arange(60, dtype=np.uint8) % 5
    np.savez(tmp_path / "omniglot" / "omniglot_background_28.npz", images=pixels, alphabet=alphabet)
    return tmp_path


def test_pixels_are_halved_and_alphabets_held_out(folder: Path) -> None:
    every = omniglot(folder / "omniglot")
    with np.load(folder / "omniglot" / "omniglot_background_28.npz") as arrays:
        pixels = arrays["images"]
    has_ink = pixels.reshape(60, SIDE, 2, SIDE, 2).max((2, 4)) > 0  # one of four pixels is enough
    np.testing.assert_array_equal(every.ink.numpy(), has_ink.reshape(60, -1))
    past, new = every.split(seed(2))
    assert len(new.ink) == 12
    assert not set(past.group.tolist()) & set(new.group.tolist())


def test_a_stream_draws_pixels_of_images() -> None:
    every = some(20)
    tasks = ImageStream(every).draw(7, 10, generator=seed(3))
    at = (tasks.x * (SIDE - 1)).round().long()
    pixel = SIDE * at[..., 0] + at[..., 1]
    for task in range(7):
        assert len(pixel[task].unique()) == 10
        assert bool((every.ink[:, pixel[task]] == tasks.y[task]).all(1).any())


def test_past_images_are_weighed_by_bayes() -> None:
    past, asked = some(6), asked_about(some(9), 3, 5, seed(4))
    learned = SmoothedImages.of(past, 0.3)
    found = learned.log_prob(asked)
    assert found.shape == (3, 11)
    p = 0.3 * Frequencies.learned(past).ink + 0.7 * past.ink
    for image in range(3):
        known, rest = asked.order[image, :5], asked.order[image, 5:]
        ink = asked.ink[image]
        likelihood = torch.where(ink == 1.0, p, 1.0 - p)
        weight = likelihood[:, known].prod(1)
        for k, pixel in enumerate(rest.tolist()):
            expected = (weight * likelihood[:, pixel]).sum() / weight.sum()
            assert float(found[image, k]) == pytest.approx(float(expected.log()), abs=1e-10)


def test_it_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(images.BUDGETS, "quick", ImageBudget(3, 0.0))
    monkeypatch.setattr(images, "KNOWN", (2, 8, 100))  # there are fewer than the last
    monkeypatch.setattr(image_baselines, "NUM_TUNING", 5)
    monkeypatch.setattr(image_baselines, "NUM_FIT", 5)
    monkeypatch.setattr(image_baselines, "FIT_ROWS", 6)
    out = folder / "neural.json"
    members = "transformer,transformer_anywhere,conditional,attentive"
    run.main(["--sections", "images", "--methods", members, "--data", str(folder), "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    for known in (2, 8):
        for method in (*members.split(","), "frequencies", "past_images", "gaussian_process"):
            assert -20.0 < figures[f"log_prob/images/{known}/{method}"] < 0.0
            assert math.isfinite(figures[f"log_prob_half/images/{known}/{method}"])
    assert "log_prob/images/100/transformer" not in figures
    assert figures["train_cpu_min/images/attentive"] > 0.0
