r"""A prior from what an expert chose: informed Thompson sampling, for an expert of unknown competence.

Of weights $\theta \sim N$ the expert knows $\vartheta \sim N(\theta, I / \lambda^2)$, and chose among arms with
features $a$ by

$$ p(a) \propto \exp(\beta\, a^\top \vartheta). $$

Knowledge $\lambda$ and deliberateness $\beta$ are log-normal, unknown. Given $\vartheta$ and $\lambda$ the weights are
Gaussian, so what the demonstrations say is a mixture of Gaussians, one for each draw of $(\vartheta, \lambda, \beta)$;
later rewards weigh these by their evidence, as in any mixture. An expert whose choices say nothing is found out, and
does no harm.

The draws come from elliptical slice sampling, in coordinates in which the prior is standard normal: it has nothing to
tune. Chains run side by side, and the likelihood is let in by degrees, so that none is left on a lesser hill.

Source: Hao et al., Leveraging demonstrations to improve online learning: quality matters (2023), whose approximation by
Bayesian bootstrap this replaces; Murray, Adams and MacKay, Elliptical slice sampling (2010).
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bandits.beliefs.hypotheses import Hypotheses
from bayesmeta.data.rows import Data
from bayesmeta.mcmc.kernels.elliptical_slice import elliptical_slice
from bayesmeta.numerics.linalg import cholesky, symmetric
from bayesmeta.random import randn
from bayesmeta.regression.linear import LinearGaussian

__all__ = ["LogNormal", "informed_prior"]

NUM_SWEEPS = 200


@dataclass(frozen=True)
class LogNormal:
    """What is known of a positive number beforehand.

    Args:
        median: of it.
        log_sd: standard deviation of its logarithm; 0 where it is known.
    """

    median: float
    log_sd: float

    def __post_init__(self) -> None:
        if not (self.median > 0 and math.isfinite(self.median) and self.log_sd >= 0):
            raise ValueError(f"median must be above 0 and log_sd not below; got {self.median} and {self.log_sd}")

    def at(self, standard: Tensor) -> Tensor:
        """The number where its logarithm is as many standard deviations from its mean."""
        return self.median * (self.log_sd * standard).exp()


def informed_prior(
    prior: LinearGaussian,
    features: Tensor,
    chosen: Tensor,
    rewards: Tensor | None = None,
    *,
    deliberateness: LogNormal | None = None,
    knowledge: LogNormal | None = None,
    num_draws: int = 200,
    generator: Generator | None = None,
) -> Hypotheses:
    """What demonstrations say of a task, as a prior for any policy over arms with features.

    Args:
        prior: of the weights before, without a batch.
        features: of the arms that the expert chose from, `(arms, d)`, or `(n, arms, d)` where they differ.
        chosen: position of each choice `(n,)`.
        rewards: that the choices had, `(n,)`; None where they are not known.
        deliberateness: beta, per unit of reward; by default vague about one over the prior's spread of rewards.
        knowledge: lambda, per unit of weights; by default vague about ten over the prior's spread of weights: who
            demonstrates mostly knows, and whom rewards contradict is found out.
        num_draws: of what the expert may have thought, each a component of the mixture.

    Raises:
        ValueError: shapes do not fit, a choice is of no arm, or something is not finite.
    """
    offered = _offered(prior, features, chosen)
    start = prior.to(torch.float64)
    around = start.marginal(offered.flatten(0, 1)).variance.mean().sqrt() if len(chosen) else torch.ones(())
    if rewards is not None:
        if rewards.shape != chosen.shape or not bool(rewards.isfinite().all()):
            raise ValueError(f"rewards must be finite, one for each of {len(chosen)} choices, or left out altogether")
        start = start.condition(Data.of(offered[torch.arange(len(chosen)), chosen], rewards.double()))
    values, vectors = torch.linalg.eigh(torch.cholesky_inverse(cholesky(start.precision, "precision")))
    weights_var = prior.precision.double().inverse().diagonal().mean()
    beta = deliberateness or LogNormal(2.0 / float(around), 2.0)
    lambda_ = knowledge or LogNormal(10.0 / math.sqrt(float(weights_var)), 1.5)

    def thought(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the expert thinks `(draws, d)`, knows and does, at points `(draws, d + 2)` of the standard normal."""
        knows, acts = lambda_.at(point[:, -2]), beta.at(point[:, -1])
        scale = (values + knows[:, None].square().reciprocal()).sqrt()
        return start.loc + (point[:, :-2] * scale) @ vectors.mT, knows, acts

    def log_likelihood(point: Tensor) -> Tensor:
        thinks, _, acts = thought(point)
        logits = acts[:, None, None] * torch.einsum("nkd,md->mnk", offered, thinks)
        return logits.log_softmax(-1)[:, torch.arange(len(chosen)), chosen].sum(-1)

    points = randn((num_draws, len(start.loc) + 2), like=start.loc, generator=generator)
    for sweep in range(NUM_SWEEPS):
        let_in = min(1.0, 2.0 * (sweep + 1) / NUM_SWEEPS)
        points = elliptical_slice(points, lambda at, share=let_in: share * log_likelihood(at), generator)  # type: ignore[misc]
    thinks, knows, _ = thought(points)
    return _mixture(prior, start, thinks, knows)


def _mixture(prior: LinearGaussian, start: LinearGaussian, thinks: Tensor, knows: Tensor) -> Hypotheses:
    """Weights given what the expert thinks: an observation of them all, of precision lambda^2."""
    square = knows.square()[:, None]
    precision = symmetric(start.precision + torch.diag_embed(square.expand_as(thinks)))
    shift = start.precision @ start.loc + square * thinks
    loc = torch.cholesky_solve(shift[..., None], cholesky(precision, "precision"))[..., 0]
    components = LinearGaussian(loc, precision, start.noise_var.expand(len(loc))).to(prior.loc)
    return Hypotheses(components, torch.full((len(loc),), -math.log(len(loc)), dtype=torch.float64))


def _offered(prior: LinearGaussian, features: Tensor, chosen: Tensor) -> Tensor:
    d = prior.loc.shape[-1]
    if prior.batch_shape:
        raise ValueError(f"prior must have no batch; got batch_shape {tuple(prior.batch_shape)}")
    if chosen.ndim != 1 or chosen.is_floating_point():
        raise ValueError(f"chosen must be whole numbers of shape (n,); got {chosen.dtype} of {tuple(chosen.shape)}")
    offered = features if features.ndim == 3 else features.expand(len(chosen), *features.shape)
    if offered.ndim != 3 or offered.shape[0] != len(chosen) or offered.shape[2] != d:
        raise ValueError(
            f"features must have shape (arms, {d}) or ({len(chosen)}, arms, {d}); got {tuple(features.shape)}"
        )
    if not bool(offered.isfinite().all()):
        raise ValueError("features must be finite; these are not")
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < offered.shape[1]:
        raise ValueError(f"choices must be of arms 0 to {offered.shape[1] - 1}; got {chosen.unique().tolist()}")
    return offered.double()
