"""Few-shot sinusoids of the benchmark of neural processes: the exact answer, MAML, and that it runs."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bayesmeta.neural_processes import KnowsMoments
from benchmarks.neural_processes import run
from benchmarks.neural_processes.sections import sinusoids
from benchmarks.neural_processes.sections.maml import Maml
from benchmarks.neural_processes.sections.sinusoids import SinusoidBudget, SinusoidStream, exact_prediction
from tests.seeds import seed


def test_exact_bayes_is_that_of_a_grid() -> None:
    """Over phase and amplitude, both with other points."""
    tasks = SinusoidStream().draw(3, 5, generator=seed(0))
    known, asked = tasks.rows(slice(0, 3)), tasks.rows(slice(3, None))
    mean, log_prob = exact_prediction(known, asked)
    phase = (torch.arange(1000, dtype=torch.float64) + 0.3) * (math.pi / 1000.0)
    amplitude = 0.1 + 4.9 * (torch.arange(500, dtype=torch.float64) + 0.3) / 500.0
    for task in range(3):
        means = amplitude[:, None, None] * (phase[:, None] + tasks.x[task, :, 0]).sin()  # (amplitudes, phases, rows)
        density = torch.distributions.Normal(means, 0.1).log_prob(tasks.y[task])
        weight = density[..., :3].sum(-1).flatten().log_softmax(0)
        for row in range(2):
            alone = (weight + density[..., 3 + row].flatten()).logsumexp(0)
            assert float(log_prob[task, row]) == pytest.approx(float(alone), abs=0.02)
            expected = (weight.exp() * means[..., 3 + row].flatten()).sum()
            assert float(mean[task, row]) == pytest.approx(float(expected), abs=0.02)


def test_moments_are_of_the_function() -> None:
    stream = SinusoidStream()
    assert isinstance(stream, KnowsMoments)
    tasks, moments = stream.draw_with_moments(400, 5, 10, generator=seed(1))
    z = (tasks.y[:, 5:] - moments.mean[..., 0]) / moments.var[..., 0].sqrt()
    assert abs(float(z.square().mean()) - 1.0) < 5.0 * math.sqrt(2.0 / z.numel())
    assert float(moments.mean.abs().max()) <= 5.0


def test_maml_steps_down_the_gradient_of_a_task() -> None:
    tasks = SinusoidStream().draw(2, 10, generator=seed(2))
    learned = Maml.initial(seed(3)).fit(SinusoidStream(), 2, num_known=5, generator=seed(4))
    found = learned.predict(tasks, tasks.x, steps=1)
    assert found.dtype == torch.float64
    for task in range(2):
        x, y = tasks.x[task].float(), tasks.y[task].float()
        weights = [weight.clone().requires_grad_() for weight in learned.weights]
        error = (network(weights, x) - y).square().mean()
        stepped = [w - 0.01 * g for w, g in zip(weights, torch.autograd.grad(error, weights), strict=True)]
        torch.testing.assert_close(found[task].float(), network(stepped, x).detach(), rtol=1e-3, atol=1e-3)


def network(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(torch.relu(x @ weights[0] + weights[1]) @ weights[2] + weights[3])
    return (hidden @ weights[4] + weights[5])[:, 0]


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sinusoids.BUDGETS, "quick", SinusoidBudget(4, 10, 0.0))
    out = tmp_path / "neural.json"
    run.main(["--sections", "sinusoids", "--methods", "transformer,conditional", "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    for known in (5, 10):
        for method in ("exact", "learned_features", "transformer", "conditional"):
            for name in ("log_prob", "log_prob_half", "log_prob_gap", "mse"):
                assert math.isfinite(figures[f"{name}/sinusoids/{known}/{method}"])
        assert figures[f"log_prob_gap/sinusoids/{known}/exact"] == 0.0
        assert math.isfinite(figures[f"mse/sinusoids/{known}/maml_10"])
        assert f"log_prob/sinusoids/{known}/maml" not in figures
        assert f"mse/sinusoids/{known}/transformer_anywhere" not in figures
    assert figures["train_cpu_min/sinusoids/maml"] > 0.0
    assert "behind exact Bayes" in capsys.readouterr().out
