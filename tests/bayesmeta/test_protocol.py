"""What the protocols promise is what families have, and what callers rely on."""

from typing import Any

import pytest
import torch
from torch import Tensor

from bayesmeta import CorrelatedArms, Data, GaussianProcess, Mixture
from bayesmeta.protocol import Additive, ArmsByNumber, Batched, Evidence, Marginal, Weighable
from tests.families import F64, FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_families_can_be_components_of_mixtures(name: str) -> None:
    prior: Any = FAMILIES[name].prior
    assert isinstance(prior, Batched)
    assert isinstance(prior, Evidence) == isinstance(prior, Weighable)
    posterior = prior.condition(FAMILIES[name].tasks([3, 0, 2]))
    assert posterior[torch.tensor([2, 0])].batch_shape[:1] == (2,)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_task_alone_is_a_batch_of_one_to_the_last_digits(name: str) -> None:
    """Half of a count is in float32, and times a variance without axes remains so: no batch may lose digits by that."""
    prior: Any = FAMILIES[name].prior
    tasks, x = FAMILIES[name].tasks([5]), FAMILIES[name].inputs(3, 1)
    alone = numbers_of(prior, tasks[0], x)
    # components of a mixture have a batch already
    for each in (prior,) if isinstance(prior, Mixture) else (prior, prior.expand((1,))):
        for found, expected in zip(numbers_of(each, tasks, x[None]), alone, strict=True):
            torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=1e-12)


def numbers_of(prior: Any, tasks: Data, x: Tensor) -> list[Tensor]:
    """Evidence, if there is any, and moments of predictions."""
    after = prior.condition(tasks).predict(x)
    evidence = [prior.log_evidence(tasks)] if isinstance(prior, Evidence) else []
    return [*evidence, after.mean, after.variance]


def test_protocols_tell_families_apart() -> None:
    process = GaussianProcess(F64[None] + 1.0, F64 + 1.0, F64 + 0.1)
    arms = CorrelatedArms.initial(FAMILIES["correlated_arms"].tasks([3, 4]), num_arms=3)
    assert isinstance(arms, Additive)
    assert isinstance(arms, ArmsByNumber)
    assert not isinstance(process, Additive)
    assert not isinstance(process, ArmsByNumber)
    assert isinstance(process, Marginal)
    assert isinstance(Mixture.uniform(process.expand((2,))), Marginal)
