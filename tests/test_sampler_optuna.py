"""Optuna's own test cases for samplers, on priors over the parameters that they use."""

from collections.abc import Callable

import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing import pytest_samplers

from bayesmeta import GaussianProcess
from bo import MetaSampler, SearchSpace, TuningPrior

Make = Callable[[], MetaSampler]

NUMBERS: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-10.0, 10.0),
    "y": IntDistribution(-10, 10),
    "z": FloatDistribution(-1.0, 1.0),
}
CATEGORIES: dict[str, BaseDistribution] = {
    "x": CategoricalDistribution((1, 10, 100)),
    "y": CategoricalDistribution(("a", "b")),
    "category": CategoricalDistribution(("x", "y")),
}
SPACES = {"numbers": NUMBERS, "categories": CATEGORIES, "others": {"other": FloatDistribution(0.0, 1.0)}}


def prior(space: dict[str, BaseDistribution]) -> TuningPrior:
    known = SearchSpace(space)
    process = GaussianProcess(torch.full((known.num_columns,), 0.5), torch.ones(()), torch.full((), 0.1))
    return TuningPrior(known, "minimize", process)


@pytest.fixture(params=SPACES.values(), ids=SPACES)
def sampler(request: pytest.FixtureRequest) -> Make:
    return lambda: MetaSampler(prior(request.param), seed=0)


class TestOptunasCases(
    pytest_samplers.BasicSamplerTestCase,
    pytest_samplers.RelativeSamplerTestCase,
    pytest_samplers.SingleOnlySamplerTestCase,
):
    @pytest.fixture(params=SPACES.values(), ids=SPACES)
    def sampler(self, request: pytest.FixtureRequest) -> Make:
        return lambda: MetaSampler(prior(request.param), seed=0)
