"""Climb a smooth function of a few unconstrained numbers: how closed-form families maximise their summed evidence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from bayesmeta.gradients import with_gradients

__all__ = ["maximise"]

MAX_STEPS = 1000
MEMORY = 30  # steps whose curvature is kept: with as many as there are entries, half the steps of the usual ten
GRADIENT_TOLERANCE = 1e-9
MAX_POLISH = 30  # steps after the search, each a gradient
POLISHED = 1e-10  # the largest entry of a gradient that is zero but for rounding
ROUGHER = 2.0  # a step after which the gradient is larger by more is shortened
LENGTHS = (1.0, 0.1, 1e-3)
VALUE_TOLERANCE = 1e-15  # relative, between two steps: what float64 can still tell apart


@with_gradients
def maximise(
    objective: Callable[[Tensor], Tensor], start: Tensor, *, limit: Tensor, tolerance: float = VALUE_TOLERANCE
) -> Tensor:
    """The float64 vector near `start` where `objective` is greatest, by L-BFGS on its gradient.

    Args:
        objective: a differentiable function of one float64 vector, of order one so that the tolerances fit.
        start: the vector to begin with.
        limit: bound on the absolute value of each entry, infinite where there is none.
        tolerance: relative change of the objective at which the search stops.

    Raises:
        ValueError: the objective is not finite at the best vector found, as it grows without bound.
    """

    def loss(vector: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.as_tensor(vector, device=start.device).requires_grad_()
        value = -objective(point)
        (gradient,) = torch.autograd.grad(value, point)
        return value.item(), gradient.cpu().numpy()

    bounds = [(-bound, bound) for bound in limit.tolist()]
    # scipy stops with a complaint where rounding leaves nothing to gain: what counts is the value reached
    found = minimize(
        loss,
        start.double().clamp(-limit, limit).cpu().numpy(),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": MAX_STEPS, "maxcor": MEMORY, "ftol": tolerance, "gtol": GRADIENT_TOLERANCE},
    )
    if not np.isfinite(found.fun) or not np.isfinite(found.x).all():
        raise ValueError(
            "the evidence of these tasks grows without bound, so no prior fits them best; add rows or tasks"
        )
    return torch.as_tensor(_polished(loss, found, limit.cpu().numpy()), device=start.device)


def _polished(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], found: Any, limit: np.ndarray) -> np.ndarray:
    """The point where the gradient is smallest, by the curvature that the search has learned and goes on to learn.

    Along flat directions values are equal to the last digit long before the gradient is zero: where the search stops on
    the way there depends on rounding. The gradient still knows the way.
    """
    free = np.abs(found.x) < limit
    point, slope, inverse = found.x, np.where(free, found.jac, 0.0), found.hess_inv.todense()
    best, least = point, _size(slope)
    for _ in range(MAX_POLISH):
        if least <= POLISHED:
            break
        step = np.where(free, -inverse @ slope, 0.0)
        for length in LENGTHS:
            moved = np.clip(point + length * step, -limit, limit)
            value, new = loss(moved)
            new = np.where(free, new, 0.0)
            if np.isfinite(value) and _size(new) <= ROUGHER * least:
                break
        else:
            break
        inverse = _secant(inverse, moved - point, new - slope)
        point, slope = moved, new
        if _size(slope) < least:
            best, least = point, _size(slope)
    return best


def _secant(inverse: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The BFGS update of an inverse Hessian `(h, h)`."""
    along = float(step @ change)
    if not along > 0.0:
        return inverse
    left = np.eye(len(step)) - np.outer(step, change) / along
    return left @ inverse @ left.T + np.outer(step, step) / along


def _size(slope: np.ndarray) -> float:
    return float(np.abs(slope).max(initial=0.0))
