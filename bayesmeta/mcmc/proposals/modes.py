"""Modes of many tasks from many starts at once, by Newton's method with steps that never go downhill.

Source: Nocedal and Wright, Numerical Optimization, 2nd ed. (2006), sections 3.1 and 3.4.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesmeta.mcmc.targets import Targets

__all__ = ["Modes", "climb", "uphill_factor"]

MAX_STEPS = 100
CLOSE = 1e-6  # squared Newton decrement: a thousandth of a standard deviation from the mode
SUFFICIENT = 1e-4  # of the gain that the slope promises
SHORTER = 0.25
SHORTEST = 1e-9  # a length below which rounding hides any gain
LEAST_CURVATURE = 1e-8  # of an axis, as a share of the largest


@dataclass(frozen=True)
class Modes:
    """Where climbs from S starts in T tasks ended.

    Args:
        loc: `(S, T, d)`.
        log_density: there `(S, T)`; minus infinity where a start had no density.
        precision_tril: factor of minus the Hessian `(S, T, d, d)`, made positive definite.
        concave: whether it was positive definite `(S, T)`.
        converged: whether the climb ended at a mode `(S, T)`.
    """

    loc: Tensor
    log_density: Tensor
    precision_tril: Tensor
    concave: Tensor
    converged: Tensor

    @classmethod
    def none(cls, like: Tensor) -> "Modes":
        """No climbs, in the tasks of positions `(..., T, d)`."""
        tasks, d = like.shape[-2:]
        empty = like.new_empty(0, tasks)
        return cls(like.new_empty(0, tasks, d), empty, like.new_empty(0, tasks, d, d), empty.bool(), empty.bool())

    def __add__(self, other: "Modes") -> "Modes":
        """Both climbs."""
        return Modes(*(torch.cat(pair) for pair in zip(self._parts, other._parts, strict=True)))

    @property
    def _parts(self) -> tuple[Tensor, ...]:
        return self.loc, self.log_density, self.precision_tril, self.concave, self.converged


@torch.no_grad()
def climb(targets: Targets, starts: Tensor, *, max_steps: int = MAX_STEPS) -> Modes:
    """Newton's method from `starts` `(S, T, d)`. A task's climbs depend on nothing but that task.

    Each step evaluates a point. Where it gains what the slope promises it is taken; else the step is shortened. Where
    the density is not concave, the step goes along axes of absolute curvature, which is uphill too.
    """
    loc = starts.clone()
    value, slope, minus_hessian = _numbers(*targets.derivatives(starts))
    root, concave = uphill_factor(minus_hessian)
    step, gain = _step(root, slope)
    length = torch.ones_like(value)
    done = ~(value > -torch.inf)
    converged = torch.zeros_like(done)
    for _ in range(max_steps):
        arrived = concave & (gain <= CLOSE) & ~done
        converged, done = converged | arrived, done | arrived | (length < SHORTEST)
        active = (~done).any(0).nonzero()[:, 0]
        if not len(active):
            break
        some = targets if len(active) == targets.num_tasks else targets[active]
        tried = loc[:, active] + length[:, active, None] * step[:, active]
        found = _numbers(*some.derivatives(tried))
        better = found[0] >= value[:, active] + SUFFICIENT * length[:, active] * gain[:, active]
        better &= ~done[:, active]
        new_root, new_concave = uphill_factor(found[2])
        new_step, new_gain = _step(new_root, found[1])
        for old, new in (
            (loc, tried),
            (value, found[0]),
            (root, new_root),
            (concave, new_concave),
            (step, new_step),
            (gain, new_gain),
            (length, torch.ones_like(found[0])),
        ):
            mask = better.reshape(*better.shape, *[1] * (new.ndim - 2))
            kept = old[:, active] * SHORTER if old is length else old[:, active]
            old[:, active] = torch.where(mask, new, kept)
    return Modes(loc, value, root, concave, converged)


def _numbers(value: Tensor, slope: Tensor, minus_hessian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with minus infinity, and no slope, where any of them is not a number."""
    good = (value < torch.inf) & slope.isfinite().all(-1) & minus_hessian.flatten(-2).isfinite().all(-1)
    eye = torch.eye(slope.shape[-1], dtype=slope.dtype, device=slope.device)
    return (
        value.where(good, -torch.inf),
        slope.where(good[..., None], 0.0),
        torch.where(good[..., None, None], minus_hessian, eye),
    )


def uphill_factor(minus_hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factors of minus Hessians, of their absolute values where they are not positive definite, and which are.

    The absolute value of a symmetric matrix has its axes and the absolute values of its eigenvalues.
    """
    root, info = torch.linalg.cholesky_ex(minus_hessian)
    concave = info == 0
    if not bool(concave.all()):
        bad = ~concave
        size, axes = torch.linalg.eigh(minus_hessian[bad])
        size = size.abs()
        least = LEAST_CURVATURE * size.amax(-1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny ** 0.5)
        size = torch.maximum(size, least)
        root[bad] = torch.linalg.cholesky((axes * size[..., None, :]) @ axes.mT)
    return root, concave


def _step(root: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Newton steps `(S, T, d)` and what the slope gains along them `(S, T)`."""
    step = torch.cholesky_solve(slope[..., None], root)[..., 0]
    return step, (slope * step).sum(-1)
