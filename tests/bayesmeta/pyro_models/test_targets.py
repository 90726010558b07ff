"""Densities of many data sets at once, against those that Pyro gives each alone."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from bayesmeta import from_pyro
from bayesmeta.mcmc.targets import Targets
from bayesmeta.pyro_models.reading.sites import in_float64
from bayesmeta.warning_kinds import BayesmetaWarning
from tests.bayesmeta.pyro_models.models import MODELS, drift, logistic, noise, pyro_log_density
from tests.seeds import seed


@pytest.mark.parametrize("name", MODELS)
def test_density_is_that_of_pyro(name: str) -> None:
    model, data = MODELS[name]
    targets = from_pyro(model).targets(data)
    assert isinstance(targets, Targets)
    structure = targets.program.structure
    assert not targets.program.looped
    position = 0.5 * noise(3, targets.num_tasks, structure.d, number=5)
    found = targets.log_density(position)
    for task in range(targets.num_tasks):
        one = {name: value[task] for name, value in data.items()}
        expected = torch.stack([pyro_log_density(model, one, structure, at) for at in position[:, task]])
        torch.testing.assert_close(found[:, task], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_derivatives_are_those_of_one_data_set(name: str) -> None:
    model, data = MODELS[name]
    targets = from_pyro(model).targets(data)
    structure = targets.program.structure
    position = 0.5 * noise(2, targets.num_tasks, structure.d, number=6)
    _, slope, minus_hessian = targets.derivatives(position)
    one = {name: value[1] for name, value in data.items()}

    def density(at: Tensor) -> Tensor:
        return pyro_log_density(model, one, structure, at)

    with in_float64():
        at = position[0, 1].clone().requires_grad_()
        (expected,) = torch.autograd.grad(density(at), at)
        hessian = torch.autograd.functional.hessian(density, position[0, 1])
    torch.testing.assert_close(slope[0, 1], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(minus_hessian[0, 1], -hessian, rtol=1e-9, atol=1e-9)


def test_padding_is_invisible() -> None:
    model, data = MODELS["logistic"]
    lengths = [6, 2, 4, 1]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    wild = {name: value.clone() for name, value in data.items()}
    wild["x"][~mask] = 1e6
    padded = from_pyro(model).targets({**wild, "mask": mask})
    position = noise(2, 4, padded.program.structure.d)
    found = padded.log_density(position)
    for task, n in enumerate(lengths):
        bare = from_pyro(model).targets({name: value[task : task + 1, :n] for name, value in data.items()})
        torch.testing.assert_close(found[:, task], bare.log_density(position[:, [task]])[:, 0], rtol=1e-10, atol=0.0)
    listed = [{name: value[task, :n] for name, value in data.items()} for task, n in enumerate(lengths)]
    torch.testing.assert_close(from_pyro(model).targets(listed).log_density(position), found)


def test_some_of_the_data_sets() -> None:
    targets = from_pyro(logistic).targets(MODELS["logistic"][1])
    position = noise(2, 4, targets.program.structure.d)
    index = torch.tensor([3, 1])
    torch.testing.assert_close(
        targets[index].log_density(position[:, index]), targets.log_density(position)[:, index], rtol=1e-12, atol=0.0
    )


def test_a_model_that_looks_at_values_runs_in_a_loop_and_says_so() -> None:
    data = {"x": noise(3, 4, 1), "y": noise(3, 4, number=1)}
    with pytest.warns(BayesmetaWarning, match=r"runs in a loop"):
        targets = from_pyro(drift).targets(data)
    position = noise(2, 3, 1, number=2)
    found = targets.log_density(position)
    for task in range(3):
        one = {name: value[task] for name, value in data.items()}
        expected = [pyro_log_density(drift, one, targets.program.structure, at) for at in position[:, task]]
        torch.testing.assert_close(found[:, task], torch.stack(expected), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_draws_of_the_prior_have_its_density(name: str) -> None:
    """Under any density p of u, the mean of the slope of log p is zero, and that of u times the slope is minus one."""
    model, data = MODELS[name]
    reference = from_pyro(model).targets(data).reference[[0]]
    x = reference.sample_params(4000, generator=seed(11)).requires_grad_()
    (slope,) = torch.autograd.grad(reference.log_prob(x).sum(), x)
    x = x.detach()
    for values, mean in ((slope, 0.0), (x * slope, -1.0)):
        error = values.std(0) / 4000**0.5
        assert bool(((values.mean(0) - mean).abs() < 5.0 * error + 1e-9).all())


def test_a_support_that_depends_on_another_site() -> None:
    def model(y: Tensor) -> None:
        low = pyro.sample("low", dist.Exponential(1.0))
        high = pyro.sample("high", dist.Uniform(low, low + 2.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(high, 1.0), obs=y)

    y = noise(2, 3)
    targets = from_pyro(model).targets({"y": y})
    position = noise(2, 2, 2, number=1)
    low, share = position[..., 0].exp(), position[..., 1].sigmoid()
    high = low + 2.0 * share
    prior = -low + position[..., 0] + (share * (1.0 - share)).log()  # two and its reciprocal cancel
    rows = torch.distributions.Normal(high[..., None], torch.ones(()).double()).log_prob(y).sum(-1)
    torch.testing.assert_close(targets.log_density(position), prior + rows, rtol=1e-10, atol=1e-10)
