"""Normal sites integrated out, against quadrature and closed forms."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from bayesmeta import from_pyro
from bayesmeta.pyro_models.gaussian_layer import gaussian_layer
from tests.bayesmeta.pyro_models.models import MODELS, eight_schools, noise

SCHOOLS = {"sigma": noise(2, 6).abs() + 0.7, "y": 2.0 * noise(2, 6, number=1)}


def grouped(x: Tensor, group: Tensor, y: Tensor | None = None) -> None:
    """Effects of groups with an unknown scale, a slope, and noise of unknown scale."""
    level = pyro.sample("level", dist.Normal(0.0, 3.0))
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    between = pyro.sample("between", dist.HalfNormal(1.0))
    within = pyro.sample("within", dist.HalfNormal(1.0))
    with pyro.plate("groups", 5):
        effect = pyro.sample("effect", dist.Normal(level, between))
    with pyro.plate("rows", x.shape[-1]):
        pyro.sample("y", dist.Normal(effect[..., group] + slope * x, within), obs=y)


GROUPS = torch.arange(30).remainder(5).expand(2, -1)
ROWS = {"x": noise(2, 30), "group": GROUPS, "y": noise(2, 30, number=1) + noise(2, 5, number=2).gather(1, GROUPS)}


def exact_schools(tau: Tensor) -> Tensor:
    """Log density of y and log tau, mu and theta integrated out: y ~ N(0, 25 + tau^2 + sigma^2) with one mu."""
    sigma, y = SCHOOLS["sigma"], SCHOOLS["y"]
    cov = torch.diag_embed(tau[..., None].square() + sigma.square()) + 25.0
    zero = torch.zeros_like(y)
    evidence = torch.distributions.MultivariateNormal(zero, cov).log_prob(y)
    return evidence + math.log(2.0 / (5.0 * math.pi)) - torch.log1p((tau / 5.0).square()) + tau.log()


def test_density_of_scales_is_the_closed_form() -> None:
    layer = gaussian_layer(from_pyro(eight_schools).targets(SCHOOLS))
    assert layer is not None
    assert len(layer.others) == 1
    assert layer.alone == 6
    log_tau = noise(4, 2, 1, number=3)
    torch.testing.assert_close(layer.log_density(log_tau), exact_schools(log_tau[..., 0].exp()), rtol=1e-8, atol=1e-8)


def test_layer_of_several_scales_is_the_integral() -> None:
    """p(l, h | y) is normal in l: its density at any l, divided by that of l given h, is that of h."""
    targets = from_pyro(grouped).targets(ROWS)
    layer = gaussian_layer(targets)
    assert layer is not None
    assert (len(layer.normal), layer.alone) == (7, 5)
    few = 0.5 * noise(3, 2, 2, number=4)
    precision, slope = layer.precisions(few, torch.zeros(7).double())
    mean = torch.linalg.solve(precision, slope[..., None])[..., 0]
    at = mean + 0.3 * noise(7, number=5)
    given = torch.distributions.MultivariateNormal(mean, precision_matrix=precision).log_prob(at)
    whole = torch.zeros(3, 2, 9).double()
    whole[..., layer.normal], whole[..., layer.others] = at, few
    expected = targets.log_density(whole) - given
    torch.testing.assert_close(layer.log_density(few), expected, rtol=1e-8, atol=1e-8)


def test_derivatives_are_close() -> None:
    layer = gaussian_layer(from_pyro(eight_schools).targets(SCHOOLS))
    assert layer is not None
    at = noise(3, 2, 1, number=3).requires_grad_()
    value = exact_schools(at[..., 0].exp())
    (slope,) = torch.autograd.grad(value.sum(), at, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), at)
    found = layer.derivatives(at.detach())
    torch.testing.assert_close(found[1], slope.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[2][..., 0], -second, rtol=1e-2, atol=1e-2)


def test_posteriors_in_layers() -> None:
    """Means and evidence of both, by quadrature over the one scale."""
    posterior = from_pyro(eight_schools).initial(SCHOOLS).condition(SCHOOLS)
    # a scale with a long tail may fail its checks in layers, and all sites are sampled together then
    assert bool(posterior.draws.passed.all())
    grid = torch.linspace(-14.0, 9.0, 4001).double()
    density = exact_schools(grid.exp()[:, None])
    evidence = density.logsumexp(0) + math.log(23.0 / 4000.0)
    value, error = posterior._evidence
    assert bool(((value - evidence).abs() < 5.0 * error).all())
    weights = density.softmax(0)
    mean = (weights * grid[:, None]).sum(0)
    sd = (weights * (grid[:, None] - mean).square()).sum(0).sqrt()
    place = next(site.start for site in posterior.program.structure.latent if site.name == "tau")
    log_tau = posterior.draws.position[..., place]
    size = posterior.draws.ess_bulk[:, place].sqrt()
    assert bool(((log_tau.mean((0, 1)) - mean).abs() < 5.0 * sd / size).all())
    cov = torch.diag_embed(grid.exp()[:, None, None].square() + SCHOOLS["sigma"].square()) + 25.0
    mu = 25.0 * torch.linalg.solve(cov, SCHOOLS["y"].expand(4001, 2, 6)[..., None]).sum((-1, -2))
    expected = (weights * mu).sum(0)
    draws = posterior.params["mu"]
    assert bool(((draws.mean((0, 1)) - expected).abs() < 5.0 * draws.flatten(0, 1).std(0) / 300**0.5).all())


def test_models_without_a_layer() -> None:
    for name in ("logistic", "poisson", "weights"):
        model, data = MODELS[name]
        assert gaussian_layer(from_pyro(model).targets(data)) is None, name
