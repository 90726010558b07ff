r"""Log evidence of many small regressions at once: by quadrature up to four weights, corrected Laplace from five on.

The quadrature is the product rule of `bayesmeta.approximations.posterior_axes`. Its points are constants where
derivatives are taken: those of the log of a weighted sum of densities, which are as exact as the sum, of every order.

From five weights on Laplace's approximation has the terms of next order in one over the number of rows,

$$ \tfrac18 \sum \ell_{iijj} + \tfrac18 \sum \ell_{iij} \ell_{jkk} + \tfrac1{12} \sum \ell_{ijk}^2, $$

where $\ell$ are third and fourth derivatives of the log likelihood in units of the posterior's curvature. A correction
c that is large is none any more, and goes in as $c / \sqrt{1 + c^2}$.

Source: Shun and McCullagh, Laplace approximation of high dimensional integrals (1995), equation 3; Tierney and Kadane,
Accurate approximations for posterior moments and marginal densities (1986).
"""

import math
from typing import Any

import torch
from torch import Tensor

from bayesmeta.approximations.laplace import Rows, differentiable, factor, fit_mode, laplace_evidence
from bayesmeta.approximations.likelihoods import Likelihood
from bayesmeta.approximations.posterior_axes import Around, Memory, around, product_rule
from bayesmeta.numerics.linalg import differentiated, log_det

__all__ = ["log_evidence"]

KNOTS = {1: 14, 2: 6, 3: 3, 4: 2}  # on either side of the mode, by the number of weights
CHUNK = 4_000_000  # numbers of the largest tensor, so that it stays near the processor


def log_evidence(
    likelihood: Likelihood, rows: Rows, loc: Tensor, precision: Tensor, memory: Memory | None = None
) -> Tensor:
    """Log evidence of each task, differentiable by the priors' `loc` `(tasks, d)` and `precision`, and by the offset.

    Args:
        memory: of a search, which this reads and writes.
    """
    fixed = Rows(rows.x, rows.y, rows.offset.detach(), rows.trials)
    memory = Memory() if memory is None else memory
    shift = fit_mode(likelihood, fixed, loc.detach(), precision.detach(), memory.weights)
    memory.weights = loc.detach() + shift
    if loc.shape[-1] in KNOTS:
        return _by_quadrature(likelihood, rows, loc, precision, shift, memory)
    if differentiated(loc, precision, rows.offset):
        shift = differentiable(likelihood, rows, loc, precision, shift)
    evidence, hessian = laplace_evidence(likelihood, rows, loc, precision, shift)
    correction = _second_order(likelihood, rows, loc + shift, hessian)
    return evidence + correction / (1.0 + correction.square()).sqrt()


def _by_quadrature(
    likelihood: Likelihood, rows: Rows, loc: Tensor, precision: Tensor, shift: Tensor, memory: Memory
) -> Tensor:
    d, knots = loc.shape[-1], KNOTS[loc.shape[-1]]
    size = max(1, CHUNK // ((2 * knots) ** d * max(1, d * d)))
    index = torch.arange(len(loc), device=loc.device).split(size)
    if len(index) == 1:
        parts = [_at_points(likelihood, rows, loc, precision, shift, memory)]
    else:
        parts = [_at_points(likelihood, rows[i], loc[i], precision[i], shift[i], Memory()) for i in index]
    normaliser = 0.5 * (log_det(factor(precision)) - d * math.log(2.0 * math.pi))
    return torch.cat(parts) + normaliser


def _at_points(
    likelihood: Likelihood, rows: Rows, loc: Tensor, precision: Tensor, shift: Tensor, memory: Memory
) -> Tensor:
    """Log of the sum over points of likelihood times prior, without the prior's normaliser."""
    constant = Rows(rows.x, rows.y, rows.offset.detach(), rows.trials)
    posterior = around(likelihood, constant, loc.detach(), precision.detach(), shift)
    points, volume, drop = product_rule(posterior, KNOTS[loc.shape[-1]], memory)
    weights = shift[:, None] + points @ posterior.axes.mT  # less loc
    at_mode = likelihood.log_prob(posterior.eta, rows.y, rows.trials).sum(-1)
    distance = (shift * (precision.detach() @ shift[..., None])[..., 0]).sum(-1)
    top = at_mode - 0.5 * distance + torch.linalg.slogdet(posterior.axes).logabsdet
    log_density = volume - drop
    if differentiated(rows.offset):
        log_density = log_density + _by_offset(posterior, points, rows.offset)
    moved, change = loc - loc.detach(), precision - precision.detach()
    pull = (precision @ moved[..., None])[..., 0]
    total: Tensor = _LogSum.apply(log_density, weights, pull, change)
    # where numbers beyond all others leave no point, Laplace's approximation
    total = total.where(total.isfinite(), 0.5 * loc.shape[-1] * math.log(2.0 * math.pi))
    return top + total - 0.5 * (moved * pull).sum(-1)


def _by_offset(posterior: Around, points: Tensor, offset: Tensor) -> Tensor:
    """Zeros `(tasks, k)` that have the derivatives of the log likelihood at the points by the offset."""
    more = offset - offset.detach()
    eta = posterior.eta[:, None] + points @ posterior.moves
    rise = posterior.likelihood.partition(eta + more[:, None]) - posterior.likelihood.partition(eta)
    return (more * posterior.rows.y).sum(-1)[:, None] - (rise @ posterior.rows.trials[..., None])[..., 0]


class _LogSum(torch.autograd.Function):
    """log of the sum of exp(log_density + w'pull - w'change w / 2) over points w, where pull and change are zero.

    By those the first derivatives are moments, which take less time than what depends on them point by point.
    """

    @staticmethod
    def forward(ctx: Any, log_density: Tensor, weights: Tensor, pull: Tensor, change: Tensor) -> Tensor:
        ctx.save_for_backward(log_density, weights, pull, change)
        return log_density.logsumexp(-1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        log_density, weights, pull, change = ctx.saved_tensors
        if torch.is_grad_enabled():  # derivatives of these are asked for
            linear = (weights @ pull[..., None])[..., 0]
            log_density = log_density + linear - 0.5 * ((weights @ change) * weights).sum(-1)
        share = log_density.softmax(-1) * gradient[:, None]
        of_pull = (share[:, None] @ weights)[:, 0]
        of_change = -0.5 * (weights.mT * share[:, None]) @ weights
        return share, None, of_pull, of_change


def _second_order(likelihood: Likelihood, rows: Rows, weights: Tensor, hessian: Tensor) -> Tensor:
    """What Laplace's approximation lacks, to the next order `(tasks,)`."""
    eta = rows.times(weights) + rows.offset
    third, fourth = rows.trials * likelihood.third(eta), rows.trials * likelihood.fourth(eta)
    inputs = torch.linalg.solve_triangular(factor(hessian), rows.x, upper=False)
    var = inputs.square().sum(1)  # of the predictors
    quartic = -(fourth * var.square()).sum(-1)
    through = (inputs @ (third * var)[..., None])[..., 0].square().sum(-1)
    n, d = rows.y.shape[-1], rows.x.shape[1]
    if n <= d * d:
        cubes = ((inputs.mT @ inputs) ** 3 @ third[..., None])[..., 0]
        across = (third * cubes).sum(-1)
    else:
        pairs = (inputs[:, :, None] * inputs[:, None, :]).flatten(1, 2)
        across = (pairs @ (third[:, None] * inputs).mT).square().sum((1, 2))
    return quartic / 8.0 + through / 8.0 + across / 12.0
