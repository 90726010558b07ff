r"""Exact weights where rows are not linear in theta with normal noise: zeros and ones, or counts.

The filter is run with rows that are: at the most probable weights under the Gaussian prior, those with the same slope
and curvature. Each particle then draws theta, and its weight is multiplied by

$$ p(y \mid \theta) / N(\tilde y; H \theta, I), $$

$\tilde y$ being what stood for the rows. So the mean weight stays an estimate of the evidence without bias, and `ess`
says how well those rows stand for the others.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesmeta.approximations.laplace import Rows, fit_mode
from bayesmeta.approximations.likelihoods import Likelihood
from bayesmeta.diffusion.sampling.chain import Chain
from bayesmeta.diffusion.sampling.gaussians import Sampler, WeightedGaussians
from bayesmeta.diffusion.sampling.noise import ParticleNoise
from bayesmeta.diffusion.sampling.observations import Functionals, Observations

__all__ = ["StandIns", "of_draws"]


@dataclass(frozen=True)
class StandIns(Functionals):
    """Rows with normal noise that stand for others.

    Args:
        likelihood, others: those that they stand for.
        loc: mean of theta `(k,)`.
    """

    likelihood: Likelihood
    others: Rows
    loc: Tensor

    @classmethod
    def at_mode(cls, likelihood: Likelihood, rows: Rows, loc: Tensor, precision: Tensor) -> "StandIns":
        """Of the same slope and curvature at the mode under a Gaussian prior, `(k,)` and `(k, k)`."""
        num = len(rows.y)
        shift = fit_mode(likelihood, rows, loc.expand(num, -1), precision.expand(num, -1, -1))
        eta = rows.times(loc + shift) + rows.offset
        curvature = (rows.trials * likelihood.curvature(eta)).clamp(min=torch.finfo(eta.dtype).tiny)
        root, real = curvature.sqrt(), rows.trials > 0.0
        y = (root * rows.times(shift) + likelihood.slope(eta, rows.y, rows.trials) / root).where(real, 0.0)
        matrix = (rows.x * root[:, None]).mT.where(real[..., None], 0.0)
        normal = Functionals.in_units_of_noise(matrix, y, real.sum(-1))
        return cls(normal.matrix, normal.y, normal.log_unit, likelihood, rows, loc)

    def left_out(self, theta: Tensor) -> Tensor:
        """Log density of the other rows over that of these: theta `(b, n, k)`; `(b, n)`."""
        rows = self.others
        eta = (self.loc + theta) @ rows.x + rows.offset[:, None]
        each = self.likelihood.log_prob(eta, rows.y[:, None], rows.trials[:, None])
        exact = each.where(rows.trials[:, None] > 0.0, 0.0).sum(-1)
        return exact - (self.log_unit[:, None] - 0.5 * (self.y[:, None] - self.of(theta)).square().sum(-1))


def of_draws(sampler: Sampler, *, is_weighted: bool) -> Sampler:
    """Posteriors whose particles are draws of theta, weighted by the rows that others stood for.

    Args:
        sampler: of Gaussians, from which theta is drawn once for each.
        is_weighted: false for a sampler of equal weights, which stay equal.
    """

    def sample(chain: Chain, rows: Observations, noise: ParticleNoise) -> WeightedGaussians:
        found = sampler(chain, rows, noise)
        theta = found.mean + noise.normal() @ found.root.mT
        drawn = replace(found, mean=theta, cov=torch.zeros_like(found.cov))
        if not is_weighted:
            return drawn
        log_weights = found.log_weights + rows.left_out(theta)
        log_evidence = found.log_evidence + log_weights.logsumexp(-1)
        return replace(drawn, log_weights=log_weights.log_softmax(-1), log_evidence=log_evidence)

    return sample
