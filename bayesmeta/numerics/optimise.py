"""Climb a smooth function of a few unconstrained numbers: how closed-form families maximise their summed evidence.

Source: Byrd, Lu, Nocedal and Zhu, A limited memory algorithm for bound constrained optimization (1995).
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import LbfgsInvHessProduct, minimize
from torch import Tensor

from bayesmeta.numerics.gradients import with_gradients

__all__ = ["maximise"]

MAX_STEPS = 1000
MEMORY = 30  # steps whose curvature is kept: with as many as there are entries, half the steps of the usual ten
GRADIENT_TOLERANCE = 1e-9
MAX_POLISH = 30  # steps after the search, each a gradient
POLISHED = 1e-9  # the largest entry of a gradient that is zero but for rounding
ROUGHER = 2.0  # a step after which the gradient is larger by more is shortened
PATIENCE = 4  # steps without a smaller gradient
LENGTHS = (1.0, 0.1, 1e-3)  # of a step, tried in turn
VALUE_TOLERANCE = 1e-15  # relative, between two steps: what float64 can still tell apart


@with_gradients
def maximise(
    objective: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    limit: Tensor,
    tolerance: float = VALUE_TOLERANCE,
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
    loss, reach = _loss(objective, start.device), limit.cpu().numpy()
    bounds = [(-bound, bound) for bound in reach]
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
    # along flat directions values are equal to the last digit long before the gradient is zero, and where the search
    # stops on the way there depends on rounding; the gradient still knows the way
    best = _by_curvature(loss, found.x, found.jac, found.hess_inv, reach)
    return torch.as_tensor(best, device=start.device)


Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]


def _loss(objective: Callable[[Tensor], Tensor], device: torch.device) -> Loss:
    """Minus the objective, and its gradient."""

    def loss(vector: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.as_tensor(vector, device=device).requires_grad_()
        value = -objective(point)
        (gradient,) = torch.autograd.grad(value, point)
        return value.item(), gradient.cpu().numpy()

    return loss


def _by_curvature(
    loss: Loss,
    point: np.ndarray,
    slope: np.ndarray,
    inverse: LbfgsInvHessProduct,
    limit: np.ndarray,
) -> np.ndarray:
    """The point near `point` where the gradient is smallest: full steps by curvature.

    Args:
        slope: gradient at `point`, `(h,)`.
        inverse: estimate of the inverse Hessian, which each step improves. It is a product over steps: as a matrix
            it would cost time as the cube of h.
        limit: bounds; an entry that starts there stays.
    """
    free = np.abs(point) < limit
    slope = np.where(free, slope, 0.0)
    best, least, fruitless = point, _size(slope), 0
    for _ in range(MAX_POLISH):
        if least <= POLISHED or fruitless == PATIENCE:
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
        point, slope, fruitless = moved, new, fruitless + 1
        if _size(slope) < least:
            best, least, fruitless = point, _size(slope), 0
    return best


def _secant(inverse: LbfgsInvHessProduct, step: np.ndarray, change: np.ndarray) -> LbfgsInvHessProduct:
    """The BFGS update of an inverse Hessian."""
    if not float(step @ change) > 0.0:
        return inverse
    return LbfgsInvHessProduct(np.vstack([inverse.sk, step]), np.vstack([inverse.yk, change]))


def _size(slope: np.ndarray) -> float:
    return float(np.abs(slope).max(initial=0.0))
