"""Pyro models, data for them, and the log densities that Pyro itself gives them."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor

from bayesmeta.pyro_models.reading.sites import Structure, in_float64
from bayesmeta.random import seeded
from tests.seeds import seed

__all__ = ["MODELS", "drift", "eight_schools", "logistic", "noise", "normal", "pyro_log_density", "regression"]


def noise(*shape: int, number: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seed(number), dtype=torch.float64)


def logistic(x: Tensor, y: Tensor | None = None) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("rows", x.shape[-2]):
        pyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


def poisson(x: Tensor, y: Tensor | None = None) -> None:
    w = pyro.sample("w", dist.Normal(0.1, 0.3).expand([x.shape[-1]]).to_event(1))
    with pyro.plate("rows", x.shape[-2]):
        pyro.sample("y", dist.Poisson((x @ w).exp()), obs=y)


def normal(x: Tensor, y: Tensor | None = None) -> None:
    m = pyro.sample("m", dist.Normal(0.0, 3.0))
    with pyro.plate("rows", x.shape[-2]):
        pyro.sample("y", dist.Normal(m, 1.0), obs=y)


def regression(x: Tensor, y: Tensor | None = None) -> None:
    """Its scale is unknown, within bounds."""
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[-1]]).to_event(1))
    scale = pyro.sample("scale", dist.Uniform(0.1, 2.0))
    with pyro.plate("rows", x.shape[-2]):
        pyro.sample("y", dist.Normal(x @ w, scale), obs=y)


def weights(x: Tensor, y: Tensor | None = None) -> None:
    p = pyro.sample("p", dist.Dirichlet(torch.full((x.shape[-1],), 0.7)))
    scale = pyro.sample("scale", dist.HalfCauchy(1.0))
    with pyro.plate("rows", x.shape[-2]):
        pyro.sample("y", dist.StudentT(4.0, x @ p, scale), obs=y)


def groups(x: Tensor, y: Tensor | None = None) -> None:
    """Plates inside one data set, and one observed number besides the rows."""
    with pyro.plate("group", 3):
        mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
        spread = pyro.sample("spread", dist.Gamma(2.0, 1.0))
        with pyro.plate("member", 2):
            effect = pyro.sample("effect", dist.Normal(mean, spread))
    level = pyro.deterministic("level", effect.mean())
    pyro.sample("total", dist.Normal(level, 1.0), obs=torch.tensor(0.3))
    with pyro.plate("rows", x.shape[-2]):
        pyro.sample("y", dist.Normal(effect.sum() * x[..., 0], 1.0), obs=y)


def correlated(x: Tensor, y: Tensor | None = None) -> None:
    root = pyro.sample("root", dist.LKJCholesky(3, 2.0))
    scale = pyro.sample("scale", dist.LogNormal(torch.zeros(3), 0.5).to_event(1))
    w = pyro.sample("w", dist.MultivariateNormal(torch.zeros(3), scale_tril=scale[:, None] * root))
    with pyro.plate("rows", x.shape[-2]):
        pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


def eight_schools(sigma: Tensor, y: Tensor | None = None) -> None:
    """A site inside the data plate."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", sigma.shape[-1]):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def drift(x: Tensor, y: Tensor | None = None) -> None:
    """What it does depends on a value: it cannot run for many data sets at once."""
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    scale = 1.0 if float(x.sum()) > 0 else 2.0
    with pyro.plate("rows", x.shape[-2]):
        pyro.sample("y", dist.Normal(m, scale), obs=y)


def rows(event: Callable[[Tensor], Tensor], tasks: int = 4, n: int = 6) -> dict[str, Tensor]:
    x = noise(tasks, n, 3, number=1)
    return {"x": x, "y": event(x.sum(-1) + noise(tasks, n, number=2))}


MODELS: dict[str, tuple[Callable[..., None], dict[str, Tensor]]] = {
    "logistic": (logistic, rows(lambda y: (y > 0).double())),
    "poisson": (poisson, rows(lambda y: y.abs().floor())),
    "regression": (regression, rows(lambda y: y)),
    "weights": (weights, rows(lambda y: y)),
    "groups": (groups, rows(lambda y: y)),
    "correlated": (correlated, rows(lambda y: y)),
    "eight_schools": (eight_schools, {"sigma": noise(4, 8).abs() + 0.5, "y": noise(4, 8, number=3)}),
}


def pyro_log_density(model: Callable[..., None], data: dict[str, Tensor], structure: Structure, at: Tensor) -> Tensor:
    """Of one data set at one position `(d,)`, by the potential that Pyro's own samplers use."""
    with in_float64(), seeded(seed(9)):
        _, potential, _, _ = initialize_model(model, model_kwargs=data)
        values: dict[str, Any] = {site.name: site.of(at) for site in structure.latent}
        return -potential(values)
