r"""Exact weights where rows are not linear in theta with normal noise: zeros and ones, or counts.

The filter is run with rows that are: at the most probable weights under the Gaussian prior, those with the same slope
and curvature. Each particle then draws theta, and its weight is multiplied by

$$ p(y \mid \theta) / N(\tilde y; H \theta, I), $$

$\tilde y$ being what stood for the rows. So the mean weight stays an estimate of the evidence without bias, and `ess`
says how well those rows stand for the others.
"""

from dataclasses import replace

import torch
from torch import Tensor

from bayesmeta.approximations.laplace import Rows, fit_mode
from bayesmeta.approximations.likelihoods import Likelihood
from bayesmeta.diffusion.sampling.gaussians import WeightedGaussians
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Functionals

__all__ = ["corrected", "normal_rows"]


def normal_rows(likelihood: Likelihood, rows: Rows, loc: Tensor, precision: Tensor) -> Functionals:
    """Rows with normal noise that stand for others, about the mean of theta.

    Args:
        loc, precision: of the Gaussian prior `(d,)` and `(d, d)`.
    """
    num = len(rows.y)
    shift = fit_mode(likelihood, rows, loc.expand(num, -1), precision.expand(num, -1, -1))
    eta = rows.times(loc + shift) + rows.offset
    curvature = (rows.trials * likelihood.curvature(eta)).clamp(min=torch.finfo(eta.dtype).tiny)
    root, real = curvature.sqrt(), rows.trials > 0.0
    y = (root * rows.times(shift) + likelihood.slope(eta, rows.y, rows.trials) / root).where(real, 0.0)
    matrix = (rows.x * root[:, None]).mT.where(real[..., None], 0.0)
    return Functionals.in_units_of_noise(matrix, y, real.sum(-1))


def corrected(
    found: WeightedGaussians,
    likelihood: Likelihood,
    rows: Rows,
    stand_in: Functionals,
    loc: Tensor,
    noise: ParticleNoise,
) -> WeightedGaussians:
    """Draws of theta, one for each particle, weighted by the rows themselves.

    Args:
        found: by the rows that stood for them, about the mean of theta.
    """
    theta = found.mean + noise.normal() @ found.root.mT
    eta = (loc + theta) @ rows.x + rows.offset[:, None]
    each = likelihood.log_prob(eta, rows.y[:, None], rows.trials[:, None])
    exact = each.where(rows.trials[:, None] > 0.0, 0.0).sum(-1)
    assumed = stand_in.log_unit[:, None] - 0.5 * (stand_in.y[:, None] - stand_in.of(theta)).square().sum(-1)
    log_weights = found.log_weights + exact - assumed
    return replace(
        found,
        mean=theta,
        cov=torch.zeros_like(found.cov),
        log_weights=log_weights.log_softmax(-1),
        log_evidence=found.log_evidence + log_weights.logsumexp(-1),
    )
