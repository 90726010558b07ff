import pytest
import torch
from pyro.infer import MCMC

from bayesmeta import from_pyro
from bayesmeta.pyro_models.kernel import IndependenceKernel
from bayesmeta.pyro_models.targets import ModelTargets
from tests.bayesmeta.mcmc.targets import normal_reference
from tests.bayesmeta.pyro_models.models import noise, normal
from tests.seeds import seed

Y = 1.0 + noise(6)
X = torch.zeros(6, 0).double()
VAR = 1.0 / (1.0 / 9.0 + 6.0)


def chain(kernel: IndependenceKernel, num: int) -> torch.Tensor:
    run = MCMC(kernel, num_samples=num, warmup_steps=20, disable_progbar=True)
    run.run(X, Y)
    return run.get_samples()["m"]


def test_draws_of_pyros_own_loop() -> None:
    draws = chain(IndependenceKernel(normal, generator=seed(0)), 600)
    error = VAR**0.5 / 300**0.5
    assert abs(float(draws.mean() - VAR * Y.sum())) < 5.0 * error
    assert abs(float(draws.std()) / VAR**0.5 - 1.0) < 5.0 / 600**0.5


def test_a_proposal_of_ones_own() -> None:
    def proposal(targets: ModelTargets) -> object:
        return normal_reference(targets.num_tasks, targets.program.structure.d, 1.5)

    draws = chain(IndependenceKernel(normal, proposal=proposal, generator=seed(1)), 1500)
    assert abs(float(draws.mean() - VAR * Y.sum())) < 5.0 * VAR**0.5 / 150**0.5


def test_starts_are_its_own() -> None:
    kernel = IndependenceKernel(normal, generator=seed(0))
    with pytest.raises(ValueError, match="finds its own starts"):
        kernel.initial_params = {}
    assert from_pyro(normal).model is normal
