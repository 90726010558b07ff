"""A proposal moved towards its target by weighted draws, once, before any draw is kept."""

import torch
from torch import Tensor

from bayesmeta.mcmc.proposals.modes import uphill_factor
from bayesmeta.mcmc.proposals.student import StudentMixture

__all__ = ["adapted"]

TRUST = 2.0  # draws per dimension that what the proposal was counts for


@torch.no_grad()
def adapted(proposal: StudentMixture, draws: Tensor, log_weights: Tensor) -> StudentMixture:
    """`proposal` with the means and covariances of weighted draws, drawn towards what they were where these are few.

    Each component takes its share of a draw, as in a step of expectation maximisation. Its own count is the effective
    number of its draws.

    Args:
        draws: of the proposal `(n, T, d)`.
        log_weights: target over proposal `(n, T)`, up to a constant for each task.
    """
    weights = log_weights.nan_to_num(nan=-torch.inf).movedim(0, -1).softmax(-1).nan_to_num()[:, None]
    x = draws.movedim(0, -1)  # (T, d, n)
    shares = weights * _responsibilities(proposal, x) if proposal.num_components > 1 else weights
    parts = [_component(proposal, k, x, shares[:, k, None]) for k in range(proposal.num_components)]
    loc, scale_tril, mass = (torch.stack(part, 1) for part in zip(*parts, strict=True))
    sure = (1.0 / weights.square().sum(-1).clamp(min=1e-12)).where(weights.sum(-1) > 0, 0.0)
    sure = sure / (sure + TRUST * draws.shape[-1])
    mixed = sure * mass + (1.0 - sure) * proposal.logits.softmax(-1)
    logits = mixed.log().where(proposal.logits > -torch.inf, -torch.inf)
    return StudentMixture(logits, loc, scale_tril, proposal.df)


def _component(proposal: StudentMixture, k: int, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Location, factor of the scale, and share of one component, by the weights of draws `(T, 1, n)` in it."""
    loc, root = proposal.loc[:, k], proposal.scale_tril[:, k]
    mass = w.sum(-1)[:, 0]
    count = mass.square() / w.square().sum(-1)[:, 0].clamp(min=torch.finfo(w.dtype).tiny)
    sure = (count / (count + TRUST * loc.shape[-1])).nan_to_num()
    w = w / mass.clamp(min=torch.finfo(w.dtype).tiny)[:, None, None]
    mean = (x @ w.mT)[..., 0]
    centred = x - mean[..., None]
    cov = (centred * w) @ centred.mT
    scale = sure[:, None, None] * cov + (1.0 - sure[:, None, None]) * (root @ root.mT)
    moved = loc + sure[:, None] * (mean - loc)
    return moved, uphill_factor(scale)[0], mass


def _responsibilities(proposal: StudentMixture, x: Tensor) -> Tensor:
    """Probabilities `(T, K, n)` that draws `(T, d, n)` came from each component."""
    logits = proposal.logits.log_softmax(-1)
    at = x.movedim(-1, 0)
    each = [logits[:, k, None] + _alone(proposal, k).log_prob(at).mT for k in range(proposal.num_components)]
    return torch.stack(each, 1).softmax(1).nan_to_num()


def _alone(proposal: StudentMixture, k: int) -> StudentMixture:
    part = slice(k, k + 1)
    zero = torch.zeros_like(proposal.logits[:, part])
    return StudentMixture(zero, proposal.loc[:, part], proposal.scale_tril[:, part], proposal.df)
