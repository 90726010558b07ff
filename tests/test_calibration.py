"""Simulation-based calibration: it passes right posteriors, and fails those that are wrong."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from bayesmeta import Data
from bayesmeta.calibration import sbc_ranks
from bayesmeta.protocol import Functions
from tests.families import F64, FAMILIES, Family, seed

NUM_TASKS, NUM_DRAWS, NUM_ROWS = 1000, 99, 5


# of the other families each update costs too much for a thousand tasks
CLOSED_FORM = ["beta_bernoulli", "linear_gaussian", "normal_inverse_gamma", "normal_inverse_wishart"]
closed_form = pytest.mark.parametrize("family", [FAMILIES[name] for name in CLOSED_FORM], ids=CLOSED_FORM)


def uniform_pvalue(ranks: Tensor) -> float:
    assert ranks.min() >= 0
    assert ranks.max() <= NUM_DRAWS
    return scipy.stats.chisquare(np.bincount(ranks.numpy() // 10, minlength=10)).pvalue


def spread(functions: Functions, x: Tensor) -> Tensor:
    """The noise of one row: where a task has its own, this is calibrated too."""
    return functions.predict(x).variance


@closed_form
def test_every_family_is_calibrated(family: Family) -> None:
    x = family.draw_x(NUM_ROWS, seed(1))
    ranks = sbc_ranks(family.prior, x, num_tasks=NUM_TASKS, num_draws=NUM_DRAWS, generator=seed(0))
    assert ranks.shape == (NUM_TASKS, NUM_ROWS, *family.prior.event_shape)
    for each in ranks[:, 0].reshape(NUM_TASKS, -1).T:
        assert uniform_pvalue(each) > 1e-3


@pytest.mark.parametrize("name", ["normal_inverse_gamma", "normal_inverse_wishart"])
def test_noise_is_calibrated(name: str) -> None:
    x = FAMILIES[name].draw_x(NUM_ROWS, seed(1))
    ranks = sbc_ranks(
        FAMILIES[name].prior, x, num_tasks=NUM_TASKS, num_draws=NUM_DRAWS, quantity=spread, generator=seed(0)
    )
    for each in ranks[:, 0].reshape(NUM_TASKS, -1).T:
        assert uniform_pvalue(each) > 1e-3


class Overconfident:
    """Counts every row twice."""

    def __init__(self, prior: Any) -> None:
        self.prior = prior

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prior, name)

    def condition(self, data: Data) -> Any:
        return self.prior.condition(data).condition(data)


@closed_form
def test_an_overconfident_posterior_fails(family: Family) -> None:
    x = family.draw_x(NUM_ROWS, seed(1))
    ranks = sbc_ranks(Overconfident(family.prior), x, num_tasks=NUM_TASKS, num_draws=NUM_DRAWS, generator=seed(0))
    assert uniform_pvalue(ranks.reshape(NUM_TASKS, -1)[:, 0]) < 1e-3


def test_a_batch_of_priors_is_refused() -> None:
    prior = FAMILIES["normal_inverse_gamma"].prior
    batch = dataclasses.replace(prior, loc=torch.zeros(3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"one prior; got batch_shape \(3,\)"):
        sbc_ranks(batch, F64.new_zeros(2, 0), num_tasks=2, num_draws=2)
