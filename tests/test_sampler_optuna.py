"""Optuna's own test cases for samplers, with priors that know the parameters of these cases, as they are or not."""

from collections.abc import Callable

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing import pytest_samplers
from torch import Tensor
from torch.distributions import Normal

import bo.question
import bo.search
from bayesmeta import Data
from bo import MetaSampler, SearchSpace, TuningPrior
from tests.seeds import shifted

pytestmark = [
    pytest.mark.slow,
    # most cases ask for another x or y than the prior knows, which one warning per study says
    pytest.mark.filterwarnings("ignore:study .* is not like the past:UserWarning"),
]

SPACES: dict[str, dict[str, BaseDistribution]] = {
    "numbers": {"x": FloatDistribution(-10.0, 10.0), "y": IntDistribution(-10, 10), "z": FloatDistribution(-1.0, 1.0)},
    "categories": {
        "x": CategoricalDistribution((1, 10, 100)),
        "y": CategoricalDistribution(("a", "b")),
        "category": CategoricalDistribution(("x", "y")),
    },
}


class Level:
    """The least that a sampler asks of a posterior: the same everywhere, whatever was seen."""

    def condition(self, data: Data) -> "Level":
        return self

    def marginal(self, x: Tensor) -> Normal:
        return Normal(x.new_zeros(len(x)), x.new_ones(len(x)), validate_args=False)


class TestOptunasCases(
    pytest_samplers.BasicSamplerTestCase,
    pytest_samplers.RelativeSamplerTestCase,
    pytest_samplers.SingleOnlySamplerTestCase,
):
    @pytest.fixture(params=SPACES)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], MetaSampler]:
        return lambda: MetaSampler(
            TuningPrior(SearchSpace(SPACES[request.param]), "minimize", Level()), seed=shifted(0)
        )

    @pytest.fixture(autouse=True)
    def _few_candidates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """These cases are about how a sampler speaks with Optuna, not about what it finds."""
        monkeypatch.setattr(bo.question, "NUM_SOBOL", 8)
        monkeypatch.setattr(bo.search, "STEPS", (0.1,))
