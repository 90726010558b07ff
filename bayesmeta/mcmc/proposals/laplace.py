r"""Proposals from modes: a Student t about each, with the curvature there as its scale.

A component's weight is Laplace's evidence of its mode, $p(\hat x) |H|^{-1/2}$, so that modes stand in their proportion.

Source: Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 13.3.
"""

import math

import torch
from torch import Tensor

from bayesmeta.mcmc.proposals.modes import Modes
from bayesmeta.mcmc.proposals.student import DEGREES, StudentMixture

__all__ = ["best_mode", "distinct_modes", "log_evidence"]

SAME = 0.25  # a squared distance, in units of the curvature, below which two climbs have found one mode
LEAST_EVIDENCE = -12.0  # log evidence of a mode, less that of the best: below, it holds less than a hundred-thousandth


def best_mode(modes: Modes, *, df: float = DEGREES) -> StudentMixture:
    """A Student t about the mode of the largest evidence of each task."""
    best = log_evidence(modes).argmax(0)
    tasks = torch.arange(len(best), device=best.device)
    root = modes.precision_tril[best, tasks]
    return StudentMixture(torch.zeros_like(root[:, :1, 0]), modes.loc[best, tasks][:, None], _scale(root)[:, None], df)


def distinct_modes(modes: Modes, *, df: float = DEGREES) -> StudentMixture:
    """A Student t about each mode, those found twice being one. Tasks with fewer modes have components of no weight."""
    evidence = log_evidence(modes)
    order = evidence.argsort(0, descending=True)
    tasks = torch.arange(evidence.shape[1], device=evidence.device)
    loc, root, logits = modes.loc[order, tasks], modes.precision_tril[order, tasks], evidence.gather(0, order)
    for i in range(1, len(logits)):
        offset = loc[:i] - loc[i]
        distance = (root[:i].mT @ offset[..., None])[..., 0].square().sum(-1)
        again = ((distance < SAME) & (logits[:i] > -torch.inf)).any(0)
        logits[i] = logits[i].where(~again, -torch.inf)
    logits = logits.where(logits >= logits[0] + LEAST_EVIDENCE, -torch.inf)
    order = logits.sort(dim=0, descending=True, stable=True).indices
    most = max(1, int((logits > -torch.inf).sum(0).max()))
    order = order[:most]
    return StudentMixture(
        logits.gather(0, order).mT.contiguous(),
        loc[order, tasks].movedim(0, 1).contiguous(),
        _scale(root[order, tasks]).movedim(0, 1).contiguous(),
        df,
    )


def log_evidence(modes: Modes) -> Tensor:
    """Laplace's log of the mass about each mode `(S, T)`."""
    volume = 0.5 * modes.loc.shape[-1] * math.log(2.0 * math.pi)
    return modes.log_density - modes.precision_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1) + volume


def _scale(precision_tril: Tensor) -> Tensor:
    """Lower factors of the inverses of L L'."""
    return torch.linalg.cholesky(torch.cholesky_inverse(precision_tril))
