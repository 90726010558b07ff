"""The benchmark of neural processes runs, goes on where it was, and has exact answers beside it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bayesmeta import Data
from benchmarks.neural_processes import regression, run
from benchmarks.neural_processes.exact import exact_sawtooth
from benchmarks.neural_processes.processes import NOISE, STREAMS, MixedStream, SawtoothStream
from benchmarks.neural_processes.regression import Budget
from benchmarks.neural_processes.wheel import WheelBudget
from tests.seeds import seed

TINY = Budget(0.0, num_tasks=3, step=20, wheel=WheelBudget(2, 3, 0.0))


def test_teeth_are_known_as_by_quadrature() -> None:
    """Of few rows, whose posterior is wide: the same sum over a grid of other points."""
    tasks = SawtoothStream((1.0, 1.2)).draw(2, 3, generator=seed(1))
    x, y = tasks.x[..., 0], tasks.y
    noise = 0.1  # wide enough for a coarse grid
    found = exact_sawtooth((1.0, 1.2), noise, (x[:, :2], y[:, :2]), (x[:, 2:], y[:, 2:]))
    number = 1.0 + 0.2 * (torch.arange(400, dtype=torch.float64)[:, None] + 0.61) / 400.0
    shift = (torch.arange(2000, dtype=torch.float64) + 0.37) / 2000.0
    for task in range(2):
        up = (number[..., None] * x[task] + shift[:, None]) % 1.0 - 0.5  # (numbers, shifts, rows)
        means = torch.stack([up, -up]).flatten(0, 2)
        density = torch.distributions.Normal(means, noise).log_prob(y[task])
        weight = density[:, :2].sum(1).softmax(0)
        middle = (weight * means[:, 2]).sum()
        sd = ((weight * (means[:, 2] - middle).square()).sum() + noise**2).sqrt()
        normal = torch.distributions.Normal(middle, sd).log_prob(y[task, 2])
        assert float(found.normal[task, 0]) == pytest.approx(float(normal), abs=0.05)
        alone = (weight.log() + density[:, 2]).logsumexp(0)
        assert float(found.alone[task, 0]) == pytest.approx(float(alone), abs=0.05)
        assert float(found.together[task]) == pytest.approx(float(found.alone[task, 0]), abs=1e-9)  # one row


def test_exact_bayes_beats_whoever_guesses() -> None:
    """On average over tasks: it would not, were its prior or its noise another than that of the tasks."""
    tasks = STREAMS["sawtooth"].draw(40, 12, generator=seed(3))
    x, y = tasks.x[..., 0], tasks.y
    found = STREAMS["sawtooth"].exact((x[:, :8], y[:, :8]), (x[:, 8:], y[:, 8:]))
    uniform = 0.0  # the log density of y before any row, but for the noise
    assert float(found.alone.mean()) > uniform
    assert float(found.alone.mean()) >= float(found.normal.mean())
    ceiling = -0.5 * math.log(2.0 * math.pi * math.e * NOISE**2)
    assert float(found.alone.mean()) < ceiling + 5 * 0.71 / (40 * 4) ** 0.5


def test_a_mixed_stream_draws_each_kind() -> None:
    stream = MixedStream(tuple(STREAMS.values()))
    tasks, moments = stream.draw_with_moments(16, 5, 4, generator=seed(4))
    assert tasks.y.shape == (16, 9)
    assert moments.mean.shape == moments.var.shape == (16, 4, 6)
    assert stream.draw(7, 3, generator=seed(5)).batch_shape == (7,)
    # of the last rows given the first, y is about as far from the mean as the variance says
    z = (tasks.y[:, 5:, None] - moments.mean) / moments.var.sqrt()
    assert float(z.square().mean()) == pytest.approx(1.0, abs=5 * (2.0 / 16) ** 0.5)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.BUDGETS, "quick", TINY)
    monkeypatch.setattr(regression, "num_steps", lambda *_: 4)
    monkeypatch.setattr(run, "num_steps", lambda *_: 4)
    monkeypatch.setattr(run, "STREAMS", {name: STREAMS[name] for name in ("rbf", "sawtooth")})


@pytest.mark.usefixtures("tiny")
def test_it_runs_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    out = tmp_path / "neural.json"
    run.main(["--methods", "transformer,conditional", "--sections", "regression", "--out", str(out)])
    figures = json.loads(out.read_text())["figures"]
    for name in ("gap", "joint_gap", "coverage", "train_cpu_min", "predict_ms"):
        for of in ("rbf/transformer", "rbf/conditional", "sawtooth/transformer", "sawtooth/transformer_of_mixture"):
            assert math.isfinite(figures[f"{name}/{of}"])
    assert "sawtooth/conditional" not in str(figures)
    shown = capsys.readouterr().out
    assert "behind exact Bayes" in shown
    assert "stationary" in shown

    def again(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was learned before")

    monkeypatch.setattr(run, "prior_of", again)
    (tmp_path / "neural.pieces" / "quick.regression.rbf.transformer.json").unlink()  # as if it had been cut short
    run.main(["--methods", "transformer,conditional", "--sections", "regression", "--out", str(out)])
    once_more = json.loads(out.read_text())["figures"]
    assert once_more["gap/rbf/transformer"] == pytest.approx(figures["gap/rbf/transformer"], rel=1e-9)


@pytest.mark.usefixtures("tiny")
def test_a_run_of_less_keeps_the_rest(tmp_path: Path) -> None:
    out = tmp_path / "neural.json"
    run.main(["--methods", "transformer,conditional", "--sections", "regression", "--out", str(out)])
    before = json.loads(out.read_text())
    (tmp_path / "neural.pieces" / "quick.regression.rbf.conditional.json").write_text(
        json.dumps(before["tables"]["regression"][1] | {"minutes": 7.0})
    )
    run.main(["--methods", "conditional", "--kernels", "rbf", "--sections", "regression", "--out", str(out)])
    after = json.loads(out.read_text())
    changed = "train_cpu_min/rbf/conditional"
    assert after["figures"] == before["figures"] | {changed: 7.0}
    assert [(row["kernel"], row["member"]) for row in after["tables"]["regression"]] == [
        ("rbf", "transformer"),
        ("rbf", "conditional"),
        ("rbf", "transformer_of_mixture"),
        ("sawtooth", "transformer"),
        ("sawtooth", "transformer_of_mixture"),
        ("sawtooth", "transformer_of_rbf"),
    ]
    assert after["tables"]["regression"][1]["minutes"] == 7.0


def test_what_is_not_there_is_said(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        run.main(["--methods", "transformer,oracle", "--out", str(tmp_path / "x.json")])
    assert "there is no method 'oracle'; there are transformer" in capsys.readouterr().err


def test_scores_of_a_member_that_is_exact_have_no_gap() -> None:
    """A Gaussian process with the lengthscale and scale of all tasks, which then is exact Bayes."""
    from bayesmeta import GaussianProcess
    from benchmarks.neural_processes.processes import ProcessStream

    stream = ProcessStream("matern52", (0.3, 0.3), (0.7, 0.7))
    one = torch.ones((), dtype=torch.float64)
    process = GaussianProcess(one[None] * 0.3, 0.49 * one, NOISE**2 * one, 0.0 * one)
    parts = list(regression.evaluation(stream, TINY, seed(6)))
    assert [part.num_known for part in parts] == [3, 23, 43]
    scores = regression.scores_of(process, parts)
    assert float(scores.gap.abs().max()) < 1e-3
    assert float(scores.joint_gap.abs().max()) < 1e-3
    assert isinstance(parts[0].known, Data)
