r"""Laplace's approximation for many small regressions at once: modes by Newton's method, and evidence.

For each task, with rows (x, y), a concave log-likelihood $\ell(y \mid \eta)$ of the predictor $\eta = x^\top w$ +
offset, and a prior $w \sim N(m, P^{-1})$, let $\hat w$ be the posterior mode and H minus the Hessian there. Then

$$ w \mid D \approx N(\hat w, H^{-1}), \quad \log p(D) \approx \sum \ell(y \mid \hat\eta)
   - \tfrac12 (\hat w - m)^\top P (\hat w - m) + \tfrac12 \log|P| - \tfrac12 \log|H|. $$

Source: Bishop, Pattern Recognition and Machine Learning (2006), section 4.4.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from bayesmeta.approximations.likelihoods import Likelihood
from bayesmeta.numerics.linalg import cholesky, log_det, solve, symmetric, unravel

__all__ = [
    "Rows",
    "differentiable",
    "factor",
    "fit_mode",
    "laplace_evidence",
    "positive_definite",
]

MAX_STEPS = 300
CONVERGED = 1e-15  # of the squared Newton decrement: the step after it is exact, as convergence is quadratic
SMALL = 1e-6  # a squared decrement that no longer falls is rounding from here on, which huge predictors magnify
STALLED = 0.25  # of the decrement before: convergence is quadratic and leaves less, so that more is rounding
PATIENCE = 50  # steps after which only the rounding of badly scaled columns is left
ROUGH = 1e-3  # the squared decrement accepted from then on: within .03 standard deviations of the mode
GOOD_SLOPE = 0.25  # a full step is taken if it leaves at most this share of the slope along it
STEPS = 2.0 ** torch.arange(-40, 11, dtype=torch.float64)  # brackets for the length of a step that is not good
BISECTIONS = 30


@dataclass(frozen=True)
class Rows:
    """Rows of T tasks on one axis, float64; a row that is not real is zero, and so are its trials: it says nothing.

    Inputs are transposed, because sums over the last axis are the fast ones.
    """

    x: Float64[Tensor, "tasks d n"]
    y: Float64[Tensor, "tasks n"]
    offset: Float64[Tensor, "tasks n"]
    trials: Float64[Tensor, "tasks n"]

    def __getitem__(self, index: Tensor) -> "Rows":
        return Rows(self.x[index], self.y[index], self.offset[index], self.trials[index])

    def times(self, weights: Tensor) -> Tensor:
        """x'w `(tasks, n)`."""
        return (weights[:, None] @ self.x)[:, 0]


def positive_definite(matrix: Tensor, rounding: float | None = None) -> Tensor:
    """`matrix`, its diagonal raised by rounding (that of its dtype, unless given) where that has left it singular.

    Weights that rows say all but nothing of, beside others that they fix, would otherwise have no factor.
    """
    _, info = torch.linalg.cholesky_ex(matrix)
    if not bool(info.any()):
        return matrix
    jitter = 10.0 * matrix.shape[-1] * (rounding or torch.finfo(matrix.dtype).eps)
    return matrix + torch.diag_embed(jitter * matrix.diagonal(dim1=-2, dim2=-1) * (info > 0)[..., None])


def factor(matrix: Tensor, rounding: float | None = None) -> Tensor:
    """Cholesky factors of `positive_definite(matrix)`."""
    found, info = torch.linalg.cholesky_ex(matrix)
    return cholesky(positive_definite(matrix, rounding), "precision") if bool(info.any()) else found


@torch.no_grad()
def fit_mode(likelihood: Likelihood, rows: Rows, loc: Tensor, precision: Tensor, start: Tensor | None = None) -> Tensor:
    """The most probable weights less `loc`, `(tasks, d)`: Newton's method until each task has converged.

    A task's steps depend on nothing but that task. A full step that is too long or too short is replaced by the
    best one along it, so separable classes and predictions that are wrong by orders of magnitude converge as well.

    Args:
        loc: prior means `(tasks, d)`, float64.
        precision: prior precisions `(tasks, d, d)`, float64.
        start: weights `(tasks, d)` near the modes, such as those of a similar prior.

    Raises:
        ValueError: a task has not converged; the message names it.
    """
    base = rows.times(loc) + rows.offset
    if start is None:
        weight, weighted = likelihood.guess(rows.y, rows.trials)
        shift = _newton_step(rows.x, weight, weighted - weight * base, precision)
    else:
        shift = start - loc

    found, before = torch.empty_like(loc), torch.full_like(loc[:, 0], math.inf)
    left = torch.arange(len(loc), device=loc.device)
    for steps in range(MAX_STEPS):
        eta = base + rows.times(shift)
        slope = likelihood.slope(eta, rows.y, rows.trials)
        pull = (precision @ shift[..., None])[..., 0]
        gradient = (rows.x @ slope[..., None])[..., 0] - pull
        hessian = _hessian(likelihood, rows, eta, precision)
        root = factor(hessian) if steps < PATIENCE else _factor_by_rows(likelihood, rows, eta, precision)
        step = solve(root, gradient)
        move, decrement = rows.times(step), (gradient * step).sum(-1)
        done = _has_converged(decrement, before, steps)
        remaining = (likelihood.slope(eta + move, rows.y, rows.trials) * move).sum(-1)
        remaining = remaining - (step * (precision @ (shift + step)[..., None])[..., 0]).sum(-1)
        length = torch.ones_like(decrement)
        hard = (~done & ~(remaining.abs() <= GOOD_SLOPE * decrement)).nonzero()[:, 0]
        if len(hard):
            length[hard] = _best_length(
                likelihood, rows[hard], move[hard], eta[hard], shift[hard], step[hard], precision[hard]
            )
            done = done | (length < STEPS[0])  # rounding hides any further gain
        shift = shift + length[:, None] * step
        if bool(done.any()):
            found[left[done]] = shift[done]
            keep = (~done).nonzero()[:, 0]
            if not len(keep):
                return found
            left, rows, base, shift, precision = left[keep], rows[keep], base[keep], shift[keep], precision[keep]
            decrement = decrement[keep]
        before = decrement
    task = unravel(int(left[0]), (len(found),))
    raise ValueError(
        f"the most probable weights of task {task} were not found in {MAX_STEPS} steps; "
        "bring the columns of x to one scale"
    )


def _has_converged(decrement: Tensor, before: Tensor, steps: int) -> Tensor:
    """Whether the step is exact, or rounding is all that is left."""
    small = SMALL if steps < PATIENCE else ROUGH
    return (decrement <= CONVERGED) | ((decrement <= small) & (decrement > STALLED * before))


def laplace_evidence(
    likelihood: Likelihood, rows: Rows, loc: Tensor, precision: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Laplace's log evidence `(tasks,)`, and H `(tasks, d, d)`, at modes `loc + shift`.

    Derivatives by `loc` and `precision` follow where `shift` has been through `differentiable`.
    """
    eta = rows.times(loc + shift) + rows.offset
    hessian = _hessian(likelihood, rows, eta, precision)
    fit = likelihood.log_prob(eta, rows.y, rows.trials).sum(-1)
    distance = (shift * (precision @ shift[..., None])[..., 0]).sum(-1)
    volume = log_det(factor(hessian)) - log_det(factor(precision))
    return fit - 0.5 * (distance + volume), hessian


def differentiable(likelihood: Likelihood, rows: Rows, loc: Tensor, precision: Tensor, shift: Tensor) -> Tensor:
    """The same modes as functions of `loc` and `precision`: two Newton steps that change no value.

    After one step from the mode, first derivatives are those of the mode; after two, second and third ones as well.
    """
    base = rows.times(loc) + rows.offset
    for _ in range(2):
        eta = base + rows.times(shift)
        slope = likelihood.slope(eta, rows.y, rows.trials)
        gradient = (rows.x @ slope[..., None])[..., 0] - (precision @ shift[..., None])[..., 0]
        shift = shift + solve(factor(_hessian(likelihood, rows, eta, precision)), gradient)
    return shift


def _hessian(likelihood: Likelihood, rows: Rows, eta: Tensor, precision: Tensor) -> Tensor:
    weight = likelihood.curvature(eta) * rows.trials
    return symmetric(precision + (rows.x * weight[:, None]) @ rows.x.mT)


def _factor_by_rows(likelihood: Likelihood, rows: Rows, eta: Tensor, precision: Tensor) -> Tensor:
    """The factor of `_hessian` up to signs, by QR of its rows.

    To form the Hessian would round the prior away where rows are 1e8 times as informative.
    """
    weight = likelihood.curvature(eta) * rows.trials
    stacked = torch.cat([rows.x * weight.sqrt()[:, None], factor(precision)], -1)
    return torch.linalg.qr(stacked.mT, mode="r").R.mT


def _newton_step(x: Tensor, weight: Tensor, slope: Tensor, precision: Tensor) -> Tensor:
    hessian = symmetric(precision + (x * weight[:, None]) @ x.mT)
    return solve(factor(hessian), (x @ slope[..., None])[..., 0])


def _best_length(
    likelihood: Likelihood, rows: Rows, move: Tensor, eta: Tensor, shift: Tensor, step: Tensor, precision: Tensor
) -> Tensor:
    """The length where the log posterior density is greatest along the step, which its falling slope brackets."""
    pull = (precision @ step[..., None])[..., 0]
    start, bend = (shift * pull).sum(-1), (step * pull).sum(-1)

    def slope(length: Tensor) -> Tensor:
        """`(tasks, lengths)`."""
        at = eta[:, None] + length[..., None] * move[:, None]
        of_rows = likelihood.slope(at, rows.y[:, None], rows.trials[:, None])
        return (of_rows * move[:, None]).sum(-1) - start[:, None] - length * bend[:, None]

    tried = STEPS.to(eta.device)
    first_fall = (slope(tried.expand(len(eta), -1)) > 0).sum(-1)
    upper = tried[first_fall.clamp(max=len(tried) - 1)]
    lower = torch.where(first_fall > 0, tried[(first_fall - 1).clamp(min=0)], 0.0)
    for _ in range(BISECTIONS):
        middle = 0.5 * (lower + upper)
        rising = slope(middle[:, None])[:, 0] > 0
        lower, upper = middle.where(rising, lower), upper.where(rising, middle)
    return upper
