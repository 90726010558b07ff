"""Posteriors that no sampler can draw from, found before one tries."""

import torch

from bayesmeta.mcmc.proposals.modes import climb
from bayesmeta.pyro_models.targets import ModelTargets

__all__ = ["require_proper"]

FLAT = 1e-10  # curvature along an axis, as a share of the largest, which rounding makes


@torch.no_grad()
def require_proper(targets: ModelTargets) -> None:
    """Where the prior of a site is improper, the rows of each data set must say something of it.

    Raises:
        ValueError: a posterior is flat, or rises without end; the message names the data set and the site.
    """
    latent = targets.program.structure.latent
    if all(site.proper for site in latent):
        return
    start = targets.reference.sample_params(1, generator=torch.Generator().manual_seed(0))
    modes = climb(targets, start)
    _, _, curvature = targets.derivatives(modes.loc)
    size, axes = torch.linalg.eigh(curvature[0].nan_to_num())
    flat = size[:, 0] <= FLAT * size[:, -1].clamp(min=1e-300)
    bad = (flat | ~modes.converged[0]).nonzero()[:, 0]
    if not len(bad):
        return
    task = int(bad[0])
    along = axes[task, :, 0].abs()
    site = max(latent, key=lambda site: float(along[site.start : site.stop].amax()) if not site.proper else -1.0)
    raise ValueError(
        f"the posterior of task {task} is improper: its density is flat, or rises without end, along site "
        f"{site.name!r}. Give the site a prior that can be drawn from, or more rows to the data set"
    )
