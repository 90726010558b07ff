"""What the protocols promise is what families have, and what callers rely on."""

from typing import Any

import pytest
import torch

from bayesmeta import CorrelatedArms, GaussianProcess, Mixture
from bayesmeta.protocol import Additive, ArmsByNumber, Batched, Evidence, Marginal, Weighable
from tests.families import F64, FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_families_can_be_components_of_mixtures(name: str) -> None:
    prior: Any = FAMILIES[name].prior
    assert isinstance(prior, Batched)
    assert isinstance(prior, Evidence) == isinstance(prior, Weighable)
    posterior = prior.condition(FAMILIES[name].tasks([3, 0, 2]))
    assert posterior[torch.tensor([2, 0])].batch_shape[:1] == (2,)


def test_protocols_tell_families_apart() -> None:
    process = GaussianProcess(F64[None] + 1.0, F64 + 1.0, F64 + 0.1)
    arms = CorrelatedArms.initial(FAMILIES["correlated_arms"].tasks([3, 4]), num_arms=3)
    assert isinstance(arms, Additive)
    assert isinstance(arms, ArmsByNumber)
    assert not isinstance(process, Additive)
    assert not isinstance(process, ArmsByNumber)
    assert isinstance(process, Marginal)
    assert isinstance(Mixture.uniform(process.expand((2,))), Marginal)
