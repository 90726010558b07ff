"""A neural process as a prior for tuning: what it learns from, in which order, and that it suggests."""

from typing import Any

import pytest
import torch

from bayesmeta import ConditionalNeuralProcess, Data, TransformerNeuralProcess, load, save
from bayesmeta.neural_processes.base import NeuralProcess
from bo import SearchSpace, SimulatedStudies, TuningPrior, fit_of
from tests.bo import past
from tests.bo.short import learn_shortly
from tests.seeds import seed

SPACE = SearchSpace(past.SPACE)
X = SPACE.sobol(24, generator=seed(0))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    learn_shortly(monkeypatch)


def tasks() -> Data:
    losses = torch.tensor([past.loss(params) for params in SPACE.from_unit(X)], dtype=torch.float64)
    return Data.pad([(X[:20], losses[:20]), (X[8:], 1e3 * losses[8:])])


def test_it_learns_from_simulated_objectives_and_then_from_past_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, Any]] = []
    real = NeuralProcess.fit

    def watched(self: Any, learned_from: Any, **how: Any) -> Any:
        told.append((learned_from, how.get("augmentation")))
        return real(self, learned_from, **how)

    monkeypatch.setattr(NeuralProcess, "fit", watched)
    fit_of(TransformerNeuralProcess)(SPACE, tasks(), "minimize")
    (first, nothing), (then, augmentation) = told
    assert isinstance(first, SimulatedStudies)
    assert nothing is None
    valid = SPACE.snap(first.points)
    torch.testing.assert_close(valid, first.points, msg="objectives are simulated where trials can be")
    assert isinstance(then, Data)
    assert len(then) == 2
    assert augmentation.shift > 0.0


@pytest.mark.parametrize("family", [TransformerNeuralProcess, ConditionalNeuralProcess])
def test_it_suggests_and_is_saved(family: Any, tmp_path: Any) -> None:
    prior = fit_of(family)(SPACE, tasks(), "minimize")
    assert prior.suggester.functions.dtype == torch.float32
    save(prior, tmp_path / "prior.safetensors")
    again = load(tmp_path / "prior.safetensors")
    assert isinstance(again, TuningPrior)
    rows = Data.of(X[:6], torch.arange(6.0, dtype=torch.float64))
    for each in (prior, again):
        value = each.suggest(rows, X[6:8], ["mixture"] * 6)[1](X)
        assert value.shape == (len(X),)
        assert bool((value >= 0.0).all())
    torch.testing.assert_close(
        prior.suggest(rows, X[:0], [])[1](X), again.suggest(rows, X[:0], [])[1](X), rtol=1e-4, atol=1e-7
    )
