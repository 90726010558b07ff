"""Logistic regressions: five parameters, and the ten of the published amortised workflow."""

from typing import Any

import torch

from bayesmeta import Data, LogisticGaussian
from bayesmeta.glm.targets import RegressionTargets
from benchmarks.mcmc.problems.problem import Problem

__all__ = ["logistic"]


def logistic(name: str, tasks: int, rows: int, dim: int, scale: float, seed: int) -> Problem:
    """Tasks with weights from N(0, scale^2) and standard normal inputs, the first a constant."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(tasks, rows, dim, generator=g, dtype=torch.float64)
    x[..., 0] = 1.0
    w = scale * torch.randn(tasks, dim, generator=g, dtype=torch.float64)
    y = (torch.rand(tasks, rows, generator=g, dtype=torch.float64) < (x @ w[..., None])[..., 0].sigmoid()).double()
    prior = LogisticGaussian(torch.zeros(dim).double(), torch.eye(dim).double() / scale**2)
    rows_of = prior.condition(Data(x, y, torch.ones_like(y, dtype=torch.bool))).as_tasks()

    def jax_density(position: Any, x: Any, y: Any) -> Any:
        import jax

        eta = (2.0 * y - 1.0) * (x @ position)
        return jax.nn.log_sigmoid(eta).sum() - 0.5 * (position / scale) @ (position / scale)

    def pyro_model(x: torch.Tensor, y: torch.Tensor) -> None:
        import pyro
        from pyro import distributions as dist

        w = pyro.sample("w", dist.Normal(x.new_zeros(dim), scale).to_event(1))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)

    setting = f"{tasks} tasks of {rows} rows and {dim} weights from N(0, {scale:g}^2)"
    arrays = {"x": x.numpy(), "y": y.numpy()}
    return Problem(name, RegressionTargets.of(rows_of), arrays, dim, setting, jax_density, pyro_model)
