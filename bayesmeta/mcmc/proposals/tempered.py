r"""Particles that go from a reference to a target by way of $r(x)^{1 - \beta} p(x)^\beta$, and a mixture of them.

Each task takes the steps of beta that leave half of its particles effective, so modes that many particles pass through
get their share, however far apart they are.

Source: Del Moral, Doucet and Jasra, Sequential Monte Carlo samplers (2006); Jasra et al., Inference for Levy-driven
stochastic volatility models via adaptive sequential Monte Carlo (2011), for the choice of the steps.
"""

import math

import torch
from torch import Generator, Tensor

from bayesmeta.mcmc.kernels.independence import acceptance
from bayesmeta.mcmc.proposals.modes import uphill_factor
from bayesmeta.mcmc.proposals.student import DEGREES, StudentMixture
from bayesmeta.mcmc.targets import Targets, evaluate
from bayesmeta.random import rand, randn

__all__ = ["fitted_mixture", "spread_out", "tempered_particles"]

NUM_PARTICLES = 512
KEPT = 0.5  # share of the particles that a step of beta leaves effective
BISECTIONS = 30
MOVES = 5  # of each particle after a step
MOST_STEPS = 200
USUAL_RATE = 0.3  # of acceptance, which the size of the moves is steered to
SMALLEST = 1e-3  # share of the particles' spread that is added to a component


@torch.no_grad()
def tempered_particles(targets: Targets, *, num: int = NUM_PARTICLES, generator: Generator | None = None) -> Tensor:
    """Particles `(num, T, d)` that are distributed as the targets, approximately."""
    x = targets.reference.sample_params(num, generator=generator).double()
    log_r, log_p = targets.reference.log_prob(x), evaluate(targets, x)
    beta = x.new_zeros(x.shape[1])
    size = x.new_full(beta.shape, 2.4 / math.sqrt(x.shape[-1]))
    for _ in range(MOST_STEPS):
        rise = log_p - log_r
        step = _step(rise, beta)
        weights = (step * rise).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        weights = weights.where((weights > -torch.inf).any(0), 0.0).softmax(0)
        beta = beta + step
        chosen = _systematic(weights, generator)
        x = x.gather(0, chosen[..., None].expand_as(x))
        log_r, log_p = log_r.gather(0, chosen), log_p.gather(0, chosen)
        root = _spread(x)
        for _ in range(MOVES):
            noise = (root @ randn(x.shape, like=x, generator=generator)[..., None])[..., 0]
            new = x + size[:, None] * noise
            new_r, new_p = targets.reference.log_prob(new), evaluate(targets, new)
            rate = acceptance(_along(new_r, new_p, beta), _along(log_r, log_p, beta))
            taken = rand(rate.shape, like=rate, generator=generator) < rate
            x = torch.where(taken[..., None], new, x)
            log_r, log_p = torch.where(taken, new_r, log_r), torch.where(taken, new_p, log_p)
            size = (size * (rate.mean(0) - USUAL_RATE).exp()).clamp(min=1e-4, max=10.0)
        if bool((beta >= 1.0).all()):
            break
    return x


def _along(log_r: Tensor, log_p: Tensor, beta: Tensor) -> Tensor:
    """Log density on the way; minus infinity where either is, but at beta = 0."""
    return torch.where(beta > 0, beta * log_p, 0.0) + torch.where(beta < 1, (1.0 - beta) * log_r, 0.0)


def _step(rise: Tensor, beta: Tensor) -> Tensor:
    """The largest steps of beta that leave the share `KEPT` of the particles effective, by bisection."""
    rise = rise.nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    low, high = torch.zeros_like(beta), 1.0 - beta

    def enough(step: Tensor) -> Tensor:
        w = torch.where(step > 0, step * rise, 0.0).softmax(0).nan_to_num()
        # particles that have no density at all are lost at any step
        alive = (rise > -torch.inf).sum(0).clamp(min=1)
        return 1.0 / w.square().sum(0).clamp(min=1e-12) >= KEPT * alive

    whole = enough(high)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        good = enough(middle)
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return torch.where(whole, 1.0 - beta, low)


def _systematic(weights: Tensor, generator: Generator | None) -> Tensor:
    """Indices `(n, T)` of particles, each as often as its weight says but for one."""
    n, tasks = weights.shape
    u = rand((tasks, 1), like=weights, generator=generator)
    at = (torch.arange(n, dtype=weights.dtype, device=weights.device) + u) / n
    edges = weights.cumsum(0).mT.contiguous()
    return torch.searchsorted(edges, at.contiguous()).clamp(max=n - 1).mT


def _spread(x: Tensor) -> Tensor:
    """Factors of the covariances of particles `(n, T, d)`."""
    centred = (x - x.mean(0)).movedim(0, -1)
    return uphill_factor(centred @ centred.mT / len(x))[0]


@torch.no_grad()
def fitted_mixture(
    x: Tensor, *, num_components: int = 4, steps: int = 15, df: float = DEGREES, generator: Generator | None = None
) -> StudentMixture:
    """A mixture for particles `(n, T, d)`, by expectation maximisation of normals from centres that lie apart."""
    n, tasks, d = x.shape
    spread = _spread(x)
    scaled = torch.linalg.solve_triangular(spread, x.movedim(0, -1), upper=False)  # (T, d, n): white as a whole
    centres = _apart(scaled, num_components, generator)  # (T, K, d)
    share = x.new_full((tasks, num_components), 1.0 / num_components)
    eye = torch.eye(d, dtype=x.dtype, device=x.device)
    root = (0.5 * eye).expand(tasks, num_components, d, d)
    for _ in range(steps):
        logits = torch.stack(
            [
                share[:, k, None].log()
                - root[:, k].diagonal(dim1=-2, dim2=-1).log().sum(-1)[:, None]
                - 0.5
                * torch.linalg.solve_triangular(root[:, k], scaled - centres[:, k, :, None], upper=False)
                .square()
                .sum(-2)
                for k in range(num_components)
            ],
            1,
        )  # (T, K, n)
        each = logits.softmax(1)
        mass = each.sum(-1)
        centres = (each @ scaled.mT) / mass[..., None].clamp(min=1e-8)
        parts = [scaled - centres[:, k, :, None] for k in range(num_components)]
        cov = torch.stack([(part * each[:, k, None]) @ part.mT for k, part in enumerate(parts)], 1)
        # as though d + 1 particles more lay about each centre
        cov = (cov + SMALLEST * (d + 1.0) * eye) / (mass[..., None, None] + 1e-8)
        root = uphill_factor(cov)[0]
        share = (mass / n).clamp(min=1e-8)
    loc = (spread[:, None] @ centres[..., None])[..., 0]
    return StudentMixture(share.log(), loc, spread[:, None] @ root, df)


@torch.no_grad()
def spread_out(x: Tensor, num: int, generator: Generator | None = None) -> Tensor:
    """Some of the particles, `(num, T, d)`, that lie apart: of each mode, where there are no more than `num`."""
    spread = _spread(x)
    scaled = torch.linalg.solve_triangular(spread, x.movedim(0, -1), upper=False)
    return (spread[:, None] @ _apart(scaled, num, generator)[..., None])[..., 0].movedim(1, 0)


def _apart(scaled: Tensor, num: int, generator: Generator | None) -> Tensor:
    """Particles `(T, num, d)`, each chosen in proportion to its squared distance from those before: k-means++."""
    tasks, d, n = scaled.shape
    distance = scaled.new_full((tasks, n), 1.0)
    found = []
    for _ in range(num):
        index = torch.multinomial(distance + 1e-12, 1, generator=generator)
        centre = scaled.gather(-1, index[:, None].expand(tasks, d, 1))
        found.append(centre[..., 0])
        nearest = (scaled - centre).square().sum(1)
        distance = nearest if len(found) == 1 else torch.minimum(distance, nearest)
    return torch.stack(found, 1)
