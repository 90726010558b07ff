r"""Learning a Gaussian-process prior from past tasks.

Three steps, each on the summed log evidence of the tasks:

1. one Matern-5/2 kernel, level and noise for all tasks, by maximum a posteriori;
2. under that kernel, each task's posterior mean function, and of these the mean and the leading principal directions;
3. how far a *new* task is explained by those: `past_weight`, `past_var`, `outputscale`, `constant_var` and `noise_var`
   maximise the evidence of each task under the past functions of all the others. Judged on the tasks they were made
   of, past functions would explain everything.

Sources: Wang et al., Pre-trained Gaussian processes for Bayesian optimization (2024), for steps 1 and 2 together; step
3 is empirical Bayes with the task itself left out.
"""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from bayesmeta.data import Data
from bayesmeta.fields import LearnedFrom
from bayesmeta.gp import GaussianProcess, with_noise
from bayesmeta.linalg import cholesky, log_det
from bayesmeta.optimise import maximise
from bayesmeta.past_functions import PastFunctions, matern52
from bayesmeta.validation import require_columns, require_enough_tasks

__all__ = ["pretrain"]

MAX_TASKS, MAX_ROWS = 64, 128  # of the evidence in steps 1 and 3: more change the kernel little and cost much
MAX_POINTS = 512  # on which past functions are written
MAX_DIRECTIONS = 32
CHUNK = 64  # tasks conditioned at once
JITTER = 1e-6  # relative to the prior variance: past points may lie close together
TOLERANCE = 1e-6  # relative, of the evidence per row: hyperparameters need no more digits
PRIOR_WIDTH = 1.5  # standard deviation of log hyperparameters about their start: a factor of 4.5 is one sigma


def pretrain(start: GaussianProcess, tasks: Data, *, generator: Generator | None = None) -> GaussianProcess:
    """Learn from `tasks`, starting from the hyperparameters of `start`.

    Args:
        start: a prior without batch, as `GaussianProcess.initial(tasks)` gives.
        tasks: at least two tasks with rows, on one axis.
        generator: chooses rows and tasks where there are more than are needed; None takes a fixed choice.
    """
    require_columns(tasks, num_inputs=start.lengthscale.shape[-1], event_shape=())
    require_enough_tasks(tasks.count, start.batch_shape)
    generator = generator or torch.Generator(device=tasks.y.device).manual_seed(0)
    like = start.lengthscale
    tasks, start = tasks[tasks.count > 0].to(torch.float64), start.to(torch.float64)
    some, own = _subset(tasks, generator)
    kernel = _fit_kernel(start, some)
    points = _choose_points(tasks, kernel, generator)
    weights = _past_weights(tasks, kernel, points)
    learned = _fit_strength(kernel, some, own, points, weights)
    past = _summarise(points, kernel.lengthscale, weights)
    return replace(learned, past=past, learned_from=LearnedFrom.counts(tasks.count)).to(like)


def _subset(tasks: Data, generator: Generator) -> tuple[Data, Tensor]:
    """At most MAX_TASKS tasks of at most MAX_ROWS real rows each, and which tasks they are."""
    num_tasks, num_rows = tasks.mask.shape
    own = torch.randperm(num_tasks, generator=generator, device=generator.device)[:MAX_TASKS]
    tasks = tasks[own]
    if num_rows <= MAX_ROWS:
        return tasks, own
    # random keys, pads last: the first entries of the sorted order are a random choice of real rows
    keys = torch.rand(tasks.mask.shape, generator=generator, device=generator.device).masked_fill(~tasks.mask, 2.0)
    keep = keys.argsort(-1)[..., :MAX_ROWS]
    x = tasks.x.gather(-2, keep[..., None].expand(*keep.shape, tasks.x.shape[-1]))
    return Data(x, tasks.y.gather(-1, keep), tasks.mask.gather(-1, keep)), own


def _fit_kernel(start: GaussianProcess, tasks: Data) -> GaussianProcess:
    """Step 1: log lengthscales, outputscale, noise and level variance, and the level's mean."""
    var = start.outputscale
    level_var = torch.maximum(start.constant_var, 1e-3 * var)
    origin = torch.cat([start.lengthscale, torch.stack([var, start.noise_var, level_var])]).log()

    def process(vector: Tensor) -> GaussianProcess:
        positive = (origin + vector[:-1]).exp()
        scale, noise, level = positive[-3:]
        mean = start.constant + vector[-1] * var.sqrt()
        return replace(
            start, lengthscale=positive[:-3], outputscale=scale, noise_var=noise, constant=mean, constant_var=level
        )

    def objective(vector: Tensor) -> Tensor:
        evidence = process(vector).log_evidence(tasks).sum() - 0.5 * (vector / PRIOR_WIDTH).square().sum()
        return evidence / tasks.count.sum()

    best = maximise(
        objective, torch.zeros(len(origin) + 1), limit=torch.full((len(origin) + 1,), 7.0), tolerance=TOLERANCE
    )
    return process(best)


def _choose_points(tasks: Data, kernel: GaussianProcess, generator: Generator) -> Tensor:
    """At most MAX_POINTS of the distinct inputs, those that tell most about the rest: pivoted Cholesky.

    Source: Burt et al., Convergence of sparse variational inference in Gaussian processes regression (2020).
    """
    points = tasks.x[tasks.mask].unique(dim=0)
    if len(points) <= MAX_POINTS:
        return points
    pool = points[torch.randperm(len(points), generator=generator, device=generator.device)[: 8 * MAX_POINTS]]
    left = pool.new_ones(len(pool))  # what the chosen points leave unexplained of each
    factor = pool.new_zeros(MAX_POINTS, len(pool))
    chosen = torch.zeros(MAX_POINTS, dtype=torch.long, device=pool.device)
    for i in range(MAX_POINTS):
        chosen[i] = at = left.argmax()
        row = matern52(pool[at][None], pool, kernel.lengthscale)[0] - factor[:i, at] @ factor[:i]
        factor[i] = row / left[at].sqrt().clamp(min=1e-8)
        left = (left - factor[i].square()).clamp(min=0.0)
    return pool[chosen]


def _past_weights(tasks: Data, kernel: GaussianProcess, points: Tensor) -> Tensor:
    """Step 2: each task's posterior mean, less its level, as weights on `points`: `(points, tasks)`.

    Exact where every input is among the points, else interpolated from its values there.
    """
    values = []
    for start in range(0, len(tasks.mask), CHUNK):
        chunk = tasks[start : start + CHUNK]
        values.append(kernel.condition(chunk).residual_process_at(points))
    gram = matern52(points, points, kernel.lengthscale)
    factor = cholesky(gram + JITTER * torch.eye(len(points)).to(gram), "kernel of past points")
    return torch.cholesky_solve(torch.cat(values).mT, factor)


def _fit_strength(
    kernel: GaussianProcess, tasks: Data, own: Tensor, points: Tensor, weights: Tensor
) -> GaussianProcess:
    """Step 3: `own[t]` is the column of `weights` that was made of task t, and which task t may not see."""
    values = matern52(tasks.x, points, kernel.lengthscale) @ weights
    others = torch.ones(len(own), weights.shape[1], device=weights.device).scatter(1, own[:, None], 0.0).to(values)
    num_others = weights.shape[1] - 1
    mean = (values @ others[..., None])[..., 0] / num_others
    spread = (values - mean[..., None]) * others[:, None, :] / math.sqrt(num_others)
    past_cov = spread @ spread.mT
    correlation = matern52(tasks.x, tasks.x, kernel.lengthscale)
    origin = torch.stack([torch.ones_like(kernel.noise_var), kernel.outputscale, kernel.constant_var, kernel.noise_var])

    def strength(vector: Tensor) -> GaussianProcess:
        past_var, outputscale, level_var, noise_var = origin * vector[:4].exp()
        weight, constant = 1.0 + vector[4], kernel.constant + vector[5] * kernel.outputscale.sqrt()
        return replace(
            kernel,
            past_var=past_var,
            outputscale=outputscale,
            constant_var=level_var,
            noise_var=noise_var,
            past_weight=weight,
            constant=constant,
        )

    def objective(vector: Tensor) -> Tensor:
        new = strength(vector)
        cov = new.past_var * past_cov + new.outputscale * correlation + new.constant_var
        factor = cholesky(with_noise(cov, new.noise_var, tasks.mask), "covariance of rows")
        centred = (tasks.y - new.constant - new.past_weight * mean) * tasks.mask
        whitened = torch.linalg.solve_triangular(factor, centred[..., None], upper=False)
        evidence = -0.5 * (whitened.square().sum() + log_det(factor).sum())
        return (evidence - 0.5 * (vector / PRIOR_WIDTH).square().sum()) / tasks.count.sum()

    return strength(maximise(objective, torch.zeros(6), limit=torch.full((6,), 7.0), tolerance=TOLERANCE))


def _summarise(points: Tensor, lengthscale: Tensor, weights: Tensor) -> PastFunctions:
    """The mean of the past functions, and the principal directions of their values on `points`."""
    mean = weights.mean(-1)
    centred = (weights - mean[:, None]) / math.sqrt(max(weights.shape[1] - 1, 1))
    values = matern52(points, points, lengthscale) @ centred
    rotation = torch.linalg.svd(values, full_matrices=False).Vh[:MAX_DIRECTIONS].mT
    return PastFunctions(points, lengthscale, mean, centred @ rotation)
