"""Hyperparameters: the mode that each family's `fit` finds, against a slow reference."""

import dataclasses

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from bayesmeta import Data, LogisticGaussian, PoissonGaussian
from bayesmeta.hyperparameters.vector import Hierarchical, Hyperparameters
from bayesmeta.random import seeded
from tests.families import FAMILIES, Family, seed
from tests.seeds import shifted

ABLE = {name: family for name, family in FAMILIES.items() if isinstance(family.prior, Hierarchical)}
CASES = [
    *(pytest.param(family, 1.0, id=name) for name, family in ABLE.items()),
    pytest.param(FAMILIES["linear_gaussian"], 0.0, id="linear_gaussian by EM"),
]


def tasks_of(family: Family, num_tasks: int, n: int) -> Data:
    """Tasks drawn from the family's own prior, so that they do differ."""
    x = torch.stack([family.draw_x(n, seed(i)) for i in range(num_tasks)])
    functions = family.prior.condition(family.tasks([0] * num_tasks)).sample(1, generator=seed(0))
    with seeded(seed(1)):
        y = functions.predict(x).sample()[0]
    return Data.of(x, y, event_dim=len(family.prior.event_shape))


def reference(unknown: Hyperparameters, hyperprior_weight: float) -> tuple[Tensor, Tensor]:
    """The highest of the tops that scipy's BFGS climbs from several starts, polished by Newton: slow and sure.

    The second is the covariance of the entries there, by Laplace.
    """

    def density(vector: Tensor) -> Tensor:
        return unknown.log_density(vector, hyperprior_weight=hyperprior_weight)

    def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.tensor(v, requires_grad=True)
        (gradient,) = torch.autograd.grad(density(point), point)
        return -density(point).item(), -gradient.numpy()

    centre, noise = unknown.start.numpy(), np.random.default_rng(shifted(0)).normal(size=(1, len(unknown.entries)))
    tops = [scipy.optimize.minimize(loss, start, jac=True) for start in (centre, *(centre + 0.3 * noise))]
    best = torch.as_tensor(min(tops, key=lambda top: top.fun).x)
    for _ in range(2):
        hessian = torch.autograd.functional.hessian(density, best)
        assert torch.linalg.eigvalsh(hessian).max() < 0.0
        best = best - torch.linalg.solve(hessian, torch.autograd.functional.jacobian(density, best))
    return best, torch.linalg.inv(-hessian)


def standard_error(unknown: Hyperparameters, best: Tensor, cov: Tensor, name: str) -> Tensor:
    """Of each element of a field of the prior that `best` builds."""
    slope = torch.autograd.functional.jacobian(lambda vector: getattr(unknown.build(vector), name), best)
    return torch.einsum("...i,ij,...j->...", slope, cov, slope).sqrt()


@pytest.mark.parametrize(("family", "hyperprior_weight"), CASES)
def test_fit_agrees_with_a_slow_reference(family: Family, hyperprior_weight: float) -> None:
    tasks = tasks_of(family, 12, 8) if hyperprior_weight else tasks_of(family, 120, 200)
    unknown = family.prior.hyperparameters(tasks)
    fitted = family.prior.fit(tasks, hyperprior_weight=hyperprior_weight)
    best, cov = reference(unknown, hyperprior_weight)
    expected = unknown.build(best)
    # a search that ends within 1e-8 nats of the top ends within 1.5e-4 standard errors of it; these climb less far
    climbs_less_far = hyperprior_weight == 0 or isinstance(fitted, (LogisticGaussian, PoissonGaussian))
    room = 1e-3 if climbs_less_far else 1.5e-4
    for field in dataclasses.fields(expected):
        value = getattr(expected, field.name)
        if isinstance(value, Tensor):
            off = (getattr(fitted, field.name) - value).abs()
            error = standard_error(unknown, best, cov, field.name)
            assert (off < room * error + 1e-9 * value.abs().max()).all(), (field.name, off / error)
