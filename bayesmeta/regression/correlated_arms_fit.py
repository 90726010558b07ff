r"""The most probable Gaussian over arm means, given tasks that each show some of the arms.

The hyperprior of `loc`, `cov` and `noise_var`, given the prior `centre` where a search starts, is

$$ \text{cov} \sim \text{InverseWishart}(\nu, (\nu + 1)\, \text{cov}_0), \quad
\text{loc} \mid \text{cov} \sim N(\text{loc}_0, \text{cov} / \kappa), \quad
\log \text{noise\_var} \sim N(\log \text{noise\_var}_0, 2^2), $$

with $\nu = K + 2$, the least whole number for which the covariance has a mean, and $\kappa = 1/4$. Its most probable
value is the centre itself. Modes are of densities relative to the measure $|\text{cov}|^{-(K+1)/2} d\text{cov}$, the
one that neither the units nor the order of the arms change: it is the Lebesgue measure of the coordinates

$$ \text{cov} = R T (R T)^\top, \quad T = \text{diag}(e^s) (I + N), \quad N \text{ strictly lower triangular}, $$

for any reference factor R. So `fit` climbs in units of the covariance that EM has found, and finds the mode that the
hyperposterior has in units of the centre.

Sources: Dempster, Laird and Rubin (1977), section 4.1, for EM; the measure is that of Muirhead, Aspects of Multivariate
Statistical Theory (1982), section 2.1.
"""

import math
from collections.abc import Callable, Iterator
from itertools import accumulate, islice, pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from bayesmeta.data.statistics import Statistics
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.hyperparameters.vector import Hyperparameter, Hyperparameters
from bayesmeta.numerics.linalg import cholesky, log_det, solve

__all__ = ["Arms", "expectation_maximisation", "most_probable_arms", "unknown_arms"]

LOC_PSEUDO_COUNT = 0.25  # tasks that the level of the centre is worth
NOISE_WIDTH = 2.0  # standard deviation of log noise_var
NUM_EM_STEPS = 10  # the first ones gain most; a quasi-Newton method needs fewer for the rest
MAX_NEWTON_STEPS = 100
ROUNDING = 1e-14  # of the covariance, which EM without a hyperprior could lose in a direction
CHUNK = 2**20  # numbers in the matrices that are held at once
LARGEST_LOG = math.log(1e4)  # a standard deviation that ends as far from where the search starts is zero, or endless
SAME_REWARD = "tasks do not differ in a combination of arms by more than chance, or differ in it without end"
NO_NOISE = "the arms explain every row, or nothing explains any"


class Arms(NamedTuple):
    """The numbers of `CorrelatedArms`: means, the Cholesky factor of their covariance, the variance of a reward."""

    loc: Tensor
    scale_tril: Tensor
    noise_var: Tensor


def most_probable_arms(centre: Arms, stats: Statistics, hyperprior_weight: float) -> Arms:
    """The mode: EM steps that never lose, then a quasi-Newton method in the units that they found."""
    seen = _Seen.of(stats)
    prior, _ = next(islice(expectation_maximisation(centre, seen, hyperprior_weight), NUM_EM_STEPS, None))

    def total(loc: Tensor, scale_tril: Tensor, noise_var: Tensor) -> Tensor:
        evidence: Tensor = _TotalEvidence.apply(loc, scale_tril, noise_var, seen)
        return evidence[None]

    unknown = unknown_arms(centre, prior, Arms, total, seen.num_rows)
    # the numbers alone: the class that wraps them is made of this function's answer
    return cast(Arms, unknown.build(most_probable(unknown, hyperprior_weight=hyperprior_weight)))


def unknown_arms(
    centre: Arms,
    reference: Arms,
    build: Callable[[Tensor, Tensor, Tensor], Any],
    log_evidence: Callable[[Tensor, Tensor, Tensor], Tensor],
    num_rows: float,
) -> Hyperparameters:
    """The hyperparameters in units of `reference`, under the hyperprior about `centre`; both float64.

    Args:
        build, log_evidence: of loc `(*draws, k)`, scale_tril `(*draws, k, k)` and noise_var `(*draws,)`.
    """
    k = len(centre.loc)
    row, column = torch.tril_indices(k, k, -1)

    def natural(vector: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        loc = reference.loc + (reference.scale_tril @ vector[..., :k, None])[..., 0]
        rows = torch.eye(k).to(vector).expand(*vector.shape[:-1], k, k).clone()
        rows[..., row, column] = vector[..., 2 * k : -1]
        factor = vector[..., k : 2 * k].exp()[..., None] * rows
        return loc, reference.scale_tril @ factor, centre.noise_var * vector[..., -1].exp(), factor

    df, root = k + 2.0, torch.linalg.solve_triangular(centre.scale_tril, reference.scale_tril, upper=False)

    def log_hyperprior(vector: Tensor) -> Tensor:
        loc, _, _, factor = natural(vector)
        standard = torch.linalg.solve_triangular(centre.scale_tril, (loc - centre.loc)[..., None], upper=False)
        whole = root @ factor
        both = torch.cat([standard, torch.eye(k).to(vector).expand_as(whole)], -1)
        white = torch.linalg.solve_triangular(whole, both, upper=False)
        distance = LOC_PSEUDO_COUNT * white[..., 0].square().sum(-1) + (df + 1.0) * white[..., 1:].square().sum(
            (-2, -1)
        )
        of_arms = -0.5 * (distance + (df + 1.0) * log_det(whole)) + _log_normaliser(k, df)
        return of_arms - 0.5 * (vector[..., -1] / NOISE_WIDTH).square() - math.log(NOISE_WIDTH * math.sqrt(2 * math.pi))

    width = 1.0 / math.sqrt(df + 1.0)
    largest = LARGEST_LOG
    below = [f"below_diagonal[{i}]" for i in range(len(row))]
    log_noise = (reference.noise_var / centre.noise_var).log().item()
    entries = [
        *(Hyperparameter(f"loc[{i}]", 0.0, LOC_PSEUDO_COUNT**-0.5) for i in range(k)),
        *(Hyperparameter(f"log_scale[{i}]", 0.0, width / math.sqrt(2.0), largest, SAME_REWARD) for i in range(k)),
        *(Hyperparameter(name, 0.0, width) for name in below),
        Hyperparameter("log_noise_var", log_noise, NOISE_WIDTH, 2.0 * largest, NO_NOISE),
    ]
    return Hyperparameters(
        entries,
        lambda vector: log_evidence(*natural(vector)[:3]),
        lambda vector: build(*natural(vector)[:3]),
        num_rows,
        log_hyperprior,
    )


def expectation_maximisation(centre: Arms, seen: "_Seen", hyperprior_weight: float) -> Iterator[tuple[Arms, float]]:
    """Priors, each with its log hyperposterior up to a constant: the centre, then steps that never lose."""
    at = centre
    while True:
        moments = _expectation(*at, seen)
        yield at, (moments.log_evidence + hyperprior_weight * _penalty(centre, at)).item()
        at = _maximise(centre, at, moments, seen, hyperprior_weight)


class _Seen(NamedTuple):
    """Tasks that have rows, each reduced to the arms it shows: at most m, the others padded with a count of zero.

    `arm`, `num` (rows) and `mean` are `(tasks, m)`; `scatter` is that of all rows about the mean of their task and arm.
    `alike` are stretches of tasks that show the same arms in as many rows and so share all matrices; `others` are what
    fits into cache of those after them.
    """

    arm: Tensor
    num: Tensor
    mean: Tensor
    scatter: Tensor
    num_rows: float
    alike: list[slice]
    others: list[slice]

    @classmethod
    def of(cls, stats: Statistics) -> "_Seen":
        used = stats.count.sum(-1) > 0
        count, mean = stats.count[used], stats.mean[used][..., 0]
        most = int((count > 0).sum(-1).max())
        order, sizes = _by_counts(count)
        count, mean = count[order], mean[order]
        arm = (count > 0).double().argsort(dim=-1, descending=True, stable=True)[:, :most]
        chunk = max(CHUNK // most**2, 1)
        ends = [0, *accumulate(size for size in sizes if size > chunk // 4)]
        others = [slice(start, start + chunk) for start in range(ends[-1], len(count), chunk)]
        alike = [slice(start, end) for start, end in pairwise(ends)]
        scatter, num_rows = stats.scatter[used].sum(), float(count.sum())
        return cls(arm, count.gather(-1, arm), mean.gather(-1, arm), scatter, num_rows, alike, others)


def _by_counts(count: Tensor) -> tuple[Tensor, list[int]]:
    """An order of tasks `(tasks, k)` by how many others have the same counts, the most first, and those numbers."""
    _, which, sizes = torch.unique(count, dim=0, return_inverse=True, return_counts=True)
    order = (sizes[which] * len(sizes) + which).argsort(descending=True, stable=True)
    return order, sizes.sort(descending=True).values.tolist()


class _Moments(NamedTuple):
    """What the E step says, with D the roots of the rows' precisions, M = I + D cov D and z = D (mean - loc).

    `pull` is D M^-1 z by task `(tasks, k)`, `shrink` the sum over tasks of D M^-1 D `(k, k)`, and `noise` the expected
    sum of squares of all rows about their arms' mean rewards.
    """

    log_evidence: Tensor
    pull: Tensor
    shrink: Tensor
    noise: Tensor


def _expectation(loc: Tensor, scale_tril: Tensor, noise_var: Tensor, seen: _Seen) -> _Moments:
    k, (num_tasks, most) = len(loc), seen.arm.shape
    cov, eye = scale_tril @ scale_tril.mT, torch.eye(most).to(loc)
    pull, shrink = loc.new_zeros(num_tasks, k), loc.new_zeros(k * k)
    log_evidence = -0.5 * (seen.num_rows * (2.0 * math.pi * noise_var).log() + seen.scatter / noise_var)
    noise = seen.scatter.clone()
    for part, is_alike in [*((part, True) for part in seen.alike), *((part, False) for part in seen.others)]:
        shift, some = seen.mean[part] - loc[seen.arm[part]], slice(0, 1 if is_alike else None)
        arm, root = seen.arm[part][some], (seen.num[part][some] / noise_var).sqrt()
        between = cov[arm[:, :, None], arm[:, None, :]]
        factor = cholesky(root[:, :, None] * between * root[:, None, :] + eye, "covariance of the means of arms")
        shift, sharing = root * shift, len(shift) / len(arm)
        white = torch.cholesky_solve(shift.mT, factor[0]).mT if is_alike else solve(factor, shift)
        inverse = torch.cholesky_inverse(factor)
        pull[part] = pull[part].scatter(1, seen.arm[part], root * white)
        flat = (arm[:, :, None] * k + arm[:, None, :]).flatten()
        shrink.index_add_(0, flat, sharing * (root[:, :, None] * inverse * root[:, None, :]).flatten())
        log_evidence = log_evidence - 0.5 * (sharing * log_det(factor).sum() + (shift * white).sum())
        left = sharing * (1.0 - inverse.diagonal(dim1=-2, dim2=-1)).sum()
        noise += noise_var * (white.square().sum() + left)
    return _Moments(log_evidence, pull, shrink.reshape(k, k), noise)


def _maximise(centre: Arms, at: Arms, moments: _Moments, seen: _Seen, weight: float) -> Arms:
    """The M step, in units where the covariance is I: there a task's mean is `pull` and its covariance I - `shrink`."""
    loc, scale_tril, _ = at
    k, num_tasks = len(loc), len(seen.arm)
    means = moments.pull @ scale_tril
    origin = torch.linalg.solve_triangular(scale_tril, (centre.loc - loc)[:, None], upper=False)[:, 0]
    pseudo = weight * LOC_PSEUDO_COUNT
    step = (pseudo * origin + means.sum(0)) / (pseudo + num_tasks)
    spread = means - step
    scatter = spread.mT @ spread + num_tasks * torch.eye(k).to(loc) - scale_tril.mT @ moments.shrink @ scale_tril
    start = torch.linalg.solve_triangular(scale_tril, centre.scale_tril, upper=False)
    df = weight * (k + 3.0)
    scatter = scatter + df * start @ start.mT + pseudo * torch.outer(origin - step, origin - step)
    cov = scatter / (df + num_tasks) + ROUNDING * torch.eye(k).to(loc)
    new_noise = _most_probable_noise(centre.noise_var, moments.noise, seen.num_rows, weight)
    return Arms(loc + scale_tril @ step, scale_tril @ cholesky(cov, "covariance of arms"), new_noise)


def _most_probable_noise(centre: Tensor, squares: Tensor, num_rows: float, weight: float) -> Tensor:
    """Newton's method on the log of the variance, from the side on which it never overshoots."""
    limit = 2.0 * LARGEST_LOG
    ratio = squares / (num_rows * centre)
    log_ratio = ratio.clamp(math.exp(-limit), math.exp(limit)).log()
    if not weight:
        return centre * log_ratio.exp()
    rate = weight / (0.5 * num_rows * NOISE_WIDTH**2)
    point = log_ratio.clamp(max=0.0)
    for _ in range(MAX_NEWTON_STEPS):
        pull = ratio * (-point).exp()
        step = (pull - 1.0 - rate * point) / (pull + rate)
        point = (point + step).clamp(-limit, limit)
        if abs(step) < 1e-14:
            break
    return centre * point.exp()


def _penalty(centre: Arms, at: Arms) -> Tensor:
    """The log hyperprior less that of the centre."""
    loc, scale_tril, noise_var = at
    both = torch.cat([(loc - centre.loc)[:, None], centre.scale_tril], -1)
    white = torch.linalg.solve_triangular(scale_tril, both, upper=False).square()
    df = len(loc) + 3.0
    volume = log_det(scale_tril) - log_det(centre.scale_tril)
    distance = LOC_PSEUDO_COUNT * white[:, 0].sum() + df * (white[:, 1:].sum() - len(loc) + volume)
    return -0.5 * distance - 0.5 * ((noise_var / centre.noise_var).log() / NOISE_WIDTH).square()


class _TotalEvidence(torch.autograd.Function):
    """The summed log evidence, whose gradient is what the E step knows already (Fisher's identity)."""

    @staticmethod
    def forward(ctx: Any, loc: Tensor, scale_tril: Tensor, noise_var: Tensor, seen: _Seen) -> Tensor:
        moments = _expectation(loc, scale_tril, noise_var, seen)
        of_cov = moments.pull.mT @ moments.pull - moments.shrink
        of_noise = 0.5 * (moments.noise / noise_var - seen.num_rows) / noise_var
        ctx.save_for_backward(moments.pull.sum(0), of_cov @ scale_tril, of_noise)
        return moments.log_evidence

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        of_loc, of_factor, of_noise = ctx.saved_tensors
        return grads[0] * of_loc, grads[0] * of_factor, grads[0] * of_noise, None


def _log_normaliser(k: int, df: float) -> float:
    """Log normaliser of the hyperprior of loc and covariance, in the search's coordinates and the centre's units."""
    of_loc = 0.5 * k * math.log(LOC_PSEUDO_COUNT / (2.0 * math.pi))
    gammas = float(torch.mvlgamma(torch.tensor(0.5 * df, dtype=torch.float64), k))
    return of_loc + 0.5 * k * df * math.log(0.5 * (df + 1.0)) - gammas + k * math.log(2.0)
