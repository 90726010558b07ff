r"""Learning a Gaussian-process prior from past tasks.

Three steps, each on the summed log evidence of the tasks:

1. one Matern-5/2 kernel, level and noise for all tasks, by maximum a posteriori;
2. under that kernel, each task's posterior mean function, and of these the mean and the leading principal directions;
3. how far a *new* task is explained by those: `past_weight`, `past_var`, `outputscale`, `constant_var` and `noise_var`
   maximise the evidence of each task under the past functions of all the others. Judged on the tasks they were made
   of, past functions would explain everything.

All of it happens in units in which a target is of order one, so that the units of y change nothing.

Sources: Wang et al., Pre-trained Gaussian processes for Bayesian optimization (2024), for steps 1 and 2 together; step
3 is empirical Bayes with the task itself left out.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.data.samples import random_order, share_inputs, some_rows
from bayesmeta.gp.covariance import matern52, with_noise
from bayesmeta.gp.past_functions import PastFunctions
from bayesmeta.numerics.linalg import cholesky, log_det
from bayesmeta.numerics.optimise import maximise

__all__ = ["Numbers", "fit_strength", "pretrain"]

MAX_TASKS, MAX_ROWS = 64, 128  # of the evidence in steps 1 and 3: more change the kernel little and cost much
MAX_PAST_ROWS = 1500  # that a past function is made of
MAX_POINTS = 512  # on which past functions are written
MAX_DIRECTIONS = 32
MAX_ENTRIES = 2**24  # of the covariances that are held at once
JITTER = 1e-6  # relative to the prior variance: past points may lie close together
TOLERANCE = 1e-6  # relative, of the evidence per row: hyperparameters need no more digits
LIMIT = 7.0  # of the change of log hyperparameters, so that no search leaves what float64 can factorise
PRIOR_WIDTH = 1.5  # standard deviation of log hyperparameters about their start: a factor of 4.5 is one sigma

ONE = torch.ones(())  # without axes, so that it takes the dtype of what it meets


class Numbers(NamedTuple):
    """The numbers of a Gaussian process, as its fields are called; of past functions their weight and variance."""

    lengthscale: Tensor
    outputscale: Tensor
    noise_var: Tensor
    constant: Tensor
    constant_var: Tensor
    past_weight: Tensor = ONE
    past_var: Tensor = ONE


def pretrain(start: Numbers, tasks: Data, generator: Generator) -> tuple[Numbers, PastFunctions, Tensor]:
    """Learn from `tasks`, in whose units targets are of order one.

    Args:
        start: where the search starts.
        tasks: at least two tasks, all of which have rows, in float64.
        generator: chooses rows and tasks where there are more than are needed.

    Returns:
        The numbers, the past functions, and the variance of a function where these say nothing.
    """
    some, own = _subset(tasks, generator)
    kernel = _fit_kernel(start, some)
    points = _choose_points(tasks, kernel.lengthscale, generator)
    weights = _past_weights(_some_rows(tasks, MAX_PAST_ROWS, generator), kernel, points)
    learned = fit_strength(kernel, some, own, matern52(some.x, points, kernel.lengthscale) @ weights)
    past = _summarise(points, kernel.lengthscale, weights)
    mean, directions = past(points)
    # where the past says nothing, what it would have said is as uncertain as its functions are spread
    spread = learned.past_var * directions.square().sum(-1).mean()
    return learned, past, learned.past_weight.square() * mean.var(correction=0) + spread


def _subset(tasks: Data, generator: Generator) -> tuple[Data, Tensor]:
    """At most MAX_TASKS tasks of at most MAX_ROWS real rows each, and which tasks they are."""
    own = random_order(len(tasks.mask), generator)[:MAX_TASKS]
    return _some_rows(tasks[own], MAX_ROWS, generator), own


def _some_rows(tasks: Data, most: int, generator: Generator) -> Data:
    """At most `most` real rows of each task; the same of all, where all have the same inputs."""
    n = tasks.mask.shape[-1]
    if n > most and share_inputs(tasks):
        return tasks.rows(random_order(n, generator)[:most])
    return some_rows(tasks, most, generator)


def _fit_kernel(start: Numbers, tasks: Data) -> Numbers:
    """Step 1: log lengthscales, outputscale, noise and level variance, and the level's mean."""
    one, noise_var = torch.ones_like(start.outputscale), start.noise_var / start.outputscale
    level_var = (start.constant_var / start.outputscale).clamp(min=1e-3)  # zero has no logarithm
    origin = torch.cat([start.lengthscale, torch.stack([one, noise_var, level_var])]).log()
    x, y, mask = _as_columns(tasks)

    def process(vector: Tensor) -> Numbers:
        positive = (origin + vector[:-1]).exp()
        outputscale, noise_var, level_var = positive[-3:]
        return Numbers(positive[:-3], outputscale, noise_var, vector[-1], level_var)

    def objective(vector: Tensor) -> Tensor:
        new = process(vector)
        cov = new.outputscale * matern52(x, x, new.lengthscale) + new.constant_var
        centred = (y - new.constant) * mask[..., None]
        evidence = _log_density(with_noise(cov, new.noise_var, mask), centred)
        return (evidence - 0.5 * (vector / PRIOR_WIDTH).square().sum()) / tasks.count.sum()

    nothing = origin.new_zeros(len(origin) + 1)
    return process(maximise(objective, nothing, limit=nothing + LIMIT, tolerance=TOLERANCE))


def _as_columns(tasks: Data) -> tuple[Tensor, Tensor, Tensor]:
    """x, y as columns `(groups, n, columns)`, and mask: tasks with the same inputs have one covariance between them."""
    if share_inputs(tasks):
        return tasks.x[:1], tasks.y.mT[None], tasks.mask[:1]
    return tasks.x, tasks.y[..., None], tasks.mask


def _choose_points(tasks: Data, lengthscale: Tensor, generator: Generator) -> Tensor:
    """At most MAX_POINTS of the distinct inputs, those that tell most about the rest: pivoted Cholesky.

    Source: Burt et al., Convergence of sparse variational inference in Gaussian processes regression (2020).
    """
    points = tasks.x[tasks.mask].unique(dim=0)
    if len(points) <= MAX_POINTS:
        return points
    pool = points[random_order(len(points), generator)[: 8 * MAX_POINTS]]
    left = pool.new_ones(len(pool))  # what the chosen points leave unexplained of each
    factor = pool.new_zeros(MAX_POINTS, len(pool))
    chosen = torch.zeros(MAX_POINTS, dtype=torch.long, device=pool.device)
    for i in range(MAX_POINTS):
        chosen[i] = at = left.argmax()
        row = matern52(pool[at][None], pool, lengthscale)[0] - factor[:i, at] @ factor[:i]
        factor[i] = row / left[at].sqrt().clamp(min=1e-8)
        left = (left - factor[i].square()).clamp(min=0.0)
    return pool[chosen]


def _past_weights(tasks: Data, kernel: Numbers, points: Tensor) -> Tensor:
    """Step 2: each task's posterior mean, less its level, as weights on `points`: `(points, tasks)`.

    Exact where every input is among the points, else interpolated from its values there.
    """
    x, y, mask = _as_columns(tasks)
    chunk = max(1, MAX_ENTRIES // x.shape[-2] ** 2)
    values = [
        _residual_processes(kernel, x[i : i + chunk], y[i : i + chunk], mask[i : i + chunk], points)
        for i in range(0, len(x), chunk)
    ]
    gram = matern52(points, points, kernel.lengthscale)
    factor = cholesky(gram + JITTER * torch.eye(len(points)).to(gram), "kernel of past points")
    return torch.cholesky_solve(torch.cat(values).movedim(1, 0).flatten(1), factor)


def _residual_processes(kernel: Numbers, x: Tensor, y: Tensor, mask: Tensor, points: Tensor) -> Tensor:
    """Posterior mean of g alone, without the level, at `points`: `(groups, points, columns)` as of `_as_columns`."""
    cov = kernel.outputscale * matern52(x, x, kernel.lengthscale) + kernel.constant_var
    factor = cholesky(with_noise(cov, kernel.noise_var, mask), "covariance of rows plus noise_var")
    pull = torch.cholesky_solve((y - kernel.constant) * mask[..., None], factor)
    return kernel.outputscale * matern52(points, x, kernel.lengthscale) @ pull


def fit_strength(kernel: Numbers, tasks: Data, own: Tensor, values: Tensor, uncertain: Tensor | float = 0.0) -> Numbers:
    """Step 3: the numbers of a process, with the weight and variance that past functions should have.

    Args:
        kernel: where the search starts.
        tasks: `(tasks, n)` rows.
        own: which past function was made of each task, and is not shown to it.
        values: of past functions at the rows, `(tasks, n, functions)`.
        uncertain: the sum over past functions of the covariances of their values there, `(tasks, n, n)`.
    """
    others = torch.ones(len(own), values.shape[-1]).to(values).scatter(1, own[:, None], 0.0)
    num_others = values.shape[-1] - 1
    mean = (values @ others[..., None])[..., 0] / num_others
    spread = (values - mean[..., None]) * others[:, None, :] / math.sqrt(num_others)
    past_cov = spread @ spread.mT + uncertain / num_others
    correlation = matern52(tasks.x, tasks.x, kernel.lengthscale)
    origin = torch.stack([torch.ones_like(kernel.noise_var), kernel.outputscale, kernel.constant_var, kernel.noise_var])

    def strength(vector: Tensor) -> Numbers:
        past_var, outputscale, level_var, noise_var = origin * vector[:4].exp()
        weight, constant = 1.0 + vector[4], kernel.constant + vector[5] * kernel.outputscale.sqrt()
        return Numbers(
            kernel.lengthscale, outputscale, noise_var, constant, level_var, past_weight=weight, past_var=past_var
        )

    def objective(vector: Tensor) -> Tensor:
        new = strength(vector)
        cov = new.past_var * past_cov + new.outputscale * correlation + new.constant_var
        centred = (tasks.y - new.constant - new.past_weight * mean) * tasks.mask
        evidence = _log_density(with_noise(cov, new.noise_var, tasks.mask), centred[..., None])
        return (evidence - 0.5 * (vector / PRIOR_WIDTH).square().sum()) / tasks.count.sum()

    nothing = origin.new_zeros(6)
    return strength(maximise(objective, nothing, limit=nothing + LIMIT, tolerance=TOLERANCE))


def _summarise(points: Tensor, lengthscale: Tensor, weights: Tensor) -> PastFunctions:
    """The mean of the past functions, and the principal directions of their values on `points`."""
    mean = weights.mean(-1)
    spread = math.sqrt(max(weights.shape[1] - 1, 1))
    centred = (weights - mean[:, None]) / spread
    values = matern52(points, points, lengthscale) @ centred
    rotation = torch.linalg.svd(values, full_matrices=False).Vh[:MAX_DIRECTIONS].mT
    return PastFunctions(points, lengthscale, mean, centred @ rotation, spread * rotation.mT)


def _log_density(cov: Tensor, centred: Tensor) -> Tensor:
    """Sum over tasks and columns of log N(centred; 0, cov), but for the constant.

    Args:
        cov: `(tasks, n, n)`.
        centred: `(tasks, n, columns)`.
    """
    return _LogDensity.apply(cov, centred)


class _LogDensity(torch.autograd.Function):
    """Its gradient is closed form and needs one inverse: a third of the time of going back through the factor."""

    @staticmethod
    def forward(ctx: Any, cov: Tensor, centred: Tensor) -> Tensor:
        factor = cholesky(cov, "covariance of rows plus noise_var")
        pull = torch.cholesky_solve(centred, factor)
        ctx.save_for_backward(factor, pull)
        return -0.5 * ((centred * pull).sum() + centred.shape[-1] * log_det(factor).sum())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        factor, pull = ctx.saved_tensors
        inverse = torch.cholesky_inverse(factor)
        return 0.5 * grads[0] * (pull @ pull.mT - pull.shape[-1] * inverse), -grads[0] * pull
