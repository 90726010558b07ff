r"""Weighted draws from a diffusion prior given rows: a particle filter down the levels of noise.

At each level theta given u is guessed to be N(h, T), and how probable the rows are under the guess is the *twist* of u.
Particles go down by the guess met with the rows, which is a proposal, and their weights make up for what it is not:
going from s to r they are multiplied by

$$ \frac{\operatorname{twist}_r(u_r)}{p(y \mid u_r, u_s)}, $$

whose denominator is Gaussian too. Where theta is Gaussian it is one at each step. Particles are resampled where few of
them have all the weight. The mean weight estimates the evidence without bias.

Source: Wu et al., Practical and asymptotically exact conditional sampling in diffusion models (2023), for twists by the
guess; here guesses have the covariance of their errors, and the steps are those of Gaussian conditioning.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Observations
from bayesmeta.diffusion.sampling.twists import Twist

__all__ = ["FEW", "Layer", "Particles", "effective_size", "filtered", "resampled"]

FEW = 0.5  # share of the particles: fewer effective ones are resampled


@dataclass(frozen=True)
class Layer:
    """Particles at a level, weighed as draws from the prior: what rows say there is still to come.

    The rows that led them there do not matter to that, so they may go on with others.

    Args:
        level: its number.
        u, mean: and the guesses of theta, before the rows are looked at `(b, n, k)`.
        log_weights: `(b, n)`, whose mean is that of one draw.
        ancestor: which of the first particles each comes from `(b, n)`.
    """

    level: int
    u: Tensor
    mean: Tensor
    log_weights: Tensor
    ancestor: Tensor


@dataclass(frozen=True)
class Particles:
    """Draws of u at the lowest level, of tasks `(b,)`.

    Args:
        mean: of theta given u, before the rows are looked at once more `(b, n, k)`.
        log_weights: normalised `(b, n)`.
        log_evidence: of the rows `(b,)`.
        ancestor: which of the first particles each comes from `(b, n)`.
        middle: where they were half way, None where the chain has no middle or they began there.
    """

    mean: Tensor
    log_weights: Tensor
    log_evidence: Tensor
    ancestor: Tensor
    middle: Layer | None

    @property
    def ess(self) -> Tensor:
        """As many equally weighted ones would say as much of a mean, `(b,)`."""
        return effective_size(self.log_weights)

    @property
    def num_ancestors(self) -> Tensor:
        """How many of the first particles are left `(b,)`: where few are, `ess` says too much."""
        ordered = self.ancestor.sort(-1).values
        return 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(-1)


def effective_size(log_weights: Tensor) -> Tensor:
    """Of normalised weights over the last axis."""
    return torch.exp(-torch.logsumexp(2.0 * log_weights, -1))


def filtered(
    chain: Chain, rows: Observations, noise: ParticleNoise, few: float = FEW, start: Layer | None = None
) -> Particles:
    """Particles of each task given its rows.

    Args:
        few: see `resampled`.
        start: where they begin; None is the highest level.
    """
    num, middle, layer = noise.num_particles, None, start or _first(chain, rows, noise)
    u, mean, ancestor, log_weights = layer.u, layer.mean, layer.ancestor, layer.log_weights
    evidence, twist = torch.zeros_like(rows.log_unit), Twist(rows, chain.residual(layer.level))
    log_weights = log_weights + twist.log_prob(mean)
    for level in range(layer.level, 0, -1):
        drawn = noise.step(chain, level)
        (u, mean, ancestor), log_weights, evidence = resampled(
            (u, mean, ancestor), log_weights, evidence, drawn.start, few
        )
        a, b, _ = chain.step(level)
        expected = rows.of(mean)
        moved = torch.add(drawn.u, twist.shift(expected, drawn.theta, drawn.rows), alpha=a)  # from where u was to be
        below = torch.add(moved, mean, alpha=a).add_(u, alpha=b)
        cov, gain = chain.between(level)
        # of theta given both, at the rows alone
        explained = Twist(rows, cov).log_prob_at(expected + moved @ rows.times(gain).mT)
        u, mean, twist = below, chain.denoise(below, level - 1), Twist(rows, chain.residual(level - 1))
        log_weights = log_weights - explained
        if level - 1 == chain.middle:
            middle = Layer(level - 1, u, mean, log_weights + evidence[:, None], ancestor)
        log_weights = log_weights + twist.log_prob(mean)
    evidence = evidence + log_weights.logsumexp(-1) - math.log(num) + rows.log_unit
    return Particles(mean, log_weights.log_softmax(-1), evidence, ancestor, middle)


def _first(chain: Chain, rows: Observations, noise: ParticleNoise) -> Layer:
    """Particles at the highest level, given the rows as if theta were Gaussian; and what weighs against that."""
    top, highest, num = chain.num_levels - 1, float(chain.noises[-1]), noise.num_particles
    prior, drawn = Twist(rows, chain.cov), noise.first(chain)
    nothing = rows.y.new_zeros(len(rows.y), num, len(chain.root))
    theta = prior.draw(nothing, drawn.theta, drawn.rows)
    u = theta + highest * drawn.u
    share = 1.0 / (1.0 + highest * highest)
    explained = Twist(rows, highest * highest * share * chain.cov).log_prob(share * u)
    ancestor = torch.arange(num, device=u.device).expand(len(u), num)
    return Layer(top, u, chain.denoise(u, top), prior.log_prob(nothing) - explained, ancestor)


def resampled(
    parts: tuple[Tensor, ...], log_weights: Tensor, evidence: Tensor, start: Tensor, few: float = FEW
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    """Particles drawn by their weights in those tasks where few have all of it.

    A particle of share w is drawn floor(n w) or ceil(n w) times, n w on average.

    Args:
        parts: of particles `(b, n)` or `(b, n, k)`.
        log_weights, evidence: `(b, n)` and `(b,)`; where particles are drawn their mean weight joins the evidence.
        start: uniform `(#b, 1)`.
        few: share of the particles of which as many must be effective; zero never draws.
    """
    num = log_weights.shape[-1]
    normalised = log_weights.log_softmax(-1)
    drawn = effective_size(normalised) < few * num
    if not bool(drawn.any()):
        return parts, log_weights, evidence
    places = ((start + torch.arange(num).to(start)) / num).expand(len(log_weights), -1).contiguous()
    bounds = normalised.exp().cumsum(-1)
    chosen = torch.searchsorted(bounds / bounds[:, -1:], places).clamp(max=num - 1)
    chosen = chosen.where(drawn[:, None], torch.arange(num, device=chosen.device))
    taken = tuple(part.gather(1, _like(chosen, part)) for part in parts)
    mean_weight = log_weights.logsumexp(-1) - math.log(num)
    evidence = evidence + mean_weight.where(drawn, 0.0)
    return taken, torch.zeros_like(log_weights).where(drawn[:, None], log_weights), evidence


def _like(index: Tensor, part: Tensor) -> Tensor:
    return index if part.ndim == 2 else index[..., None].expand(*index.shape, part.shape[-1])
