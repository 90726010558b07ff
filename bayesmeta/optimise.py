"""Climb a smooth function of a few unconstrained numbers: how closed-form families maximise their summed evidence."""

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from bayesmeta.gradients import with_gradients

__all__ = ["maximise"]

MAX_STEPS = 1000
MEMORY = 30  # steps whose curvature is kept: with as many as there are entries, half the steps of the usual ten
GRADIENT_TOLERANCE = 1e-9
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
    return torch.as_tensor(found.x, device=start.device)
