"""Neural processes under BoTorch's acquisition functions, and as priors for tuning."""

from typing import Any

import optuna
import pytest
import torch
from botorch.acquisition import LogExpectedImprovement, qLogNoisyExpectedImprovement
from botorch.optim import optimize_acqf

import bo
from bayesmeta.random import seeded
from tests.families import FAMILIES, Family, seed
from tests.seeds import shifted

NAMES = ("conditional_neural_process", "transformer_neural_process")
BOX = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)


@pytest.fixture(params=NAMES)
def family(request: Any) -> Family:
    return FAMILIES[request.param]


def test_acquisition_functions_climb_by_slopes_through_the_network(family: Family) -> None:
    model, x = bo.Surrogate(family.prior.condition(family.rows(5))), family.draw_x(5, seed(1))
    with seeded(seed(4)):
        acquisitions = LogExpectedImprovement(model, best_f=0.1), qLogNoisyExpectedImprovement(model, x)
    for acquisition, q in zip(acquisitions, (1, 2), strict=True):
        random = family.draw_x(8 * q, seed(2)).reshape(8, q, 2)
        with seeded(seed(3)):
            point, value = optimize_acqf(acquisition, bounds=BOX, q=q, num_restarts=2, raw_samples=16)
        assert point.shape == (q, 2)
        assert float(value) >= float(acquisition(random).median())


def test_a_study_is_tuned_by_one(family: Family) -> None:
    space = bo.SearchSpace({name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in "ab"})
    prior = bo.TuningPrior(space, "minimize", family.prior)
    study = optuna.create_study(sampler=bo.MetaSampler(prior, seed=shifted(0)))
    study.optimize(lambda trial: trial.suggest_float("a", 0.0, 1.0) + trial.suggest_float("b", 0.0, 1.0), n_trials=8)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 8
