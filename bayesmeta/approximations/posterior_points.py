r"""Points with weights that stand for posteriors of many small regressions, and independent draws of them.

A product rule along the axes of `bayesmeta.approximations.posterior_axes` is near exact where few weights vary. Where
its points have uneven weights, as far from the mode the weights of the regression depend on each other, and where those
are many, points are quasi-random: of a Student t with the posterior's moments, with importance weights.

Constrained modes along a predictor (Tierney and Kadane) would need a search for each point of each predictor that is
asked for, and have an error of their own; these points are found once, and serve every predictor.

Source: Geweke, Bayesian inference in econometric models using Monte Carlo integration (1989); Owen, Scrambling Sobol'
and Niederreiter-Xing points (1998).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from scipy import special
from torch import Generator, Tensor

from bayesmeta.approximations.laplace import Rows, factor, fit_mode
from bayesmeta.approximations.likelihoods import Likelihood
from bayesmeta.approximations.posterior_axes import Around, around, knots, product_rule
from bayesmeta.numerics.gauss import half_normal_rule
from bayesmeta.numerics.monotone import Increasing
from bayesmeta.random import categorical, gamma, rand, randn

__all__ = ["Cloud", "Use", "draws", "each_cloud", "importance_draws", "quantiles"]

KNOTS = {1: 14, 2: 8, 3: 4, 4: 2, 5: 2}  # of the product rule, on either side of the mode, by the number of weights
LEAST_SHARE = {1: 0.0, 2: 0.5, 3: 0.5, 4: 0.95, 5: 0.95}  # of equal weights, that those of a product rule are worth
DF = 7.0  # tails heavier than those of any posterior with a normal prior
LEAST_LOG = -1e300  # of weights, so that they have shares where all are zero
NARROWEST = 1e-4  # variance of a proposal, in units of the curvature, which few points might miss
WIDER = 1.2  # than the posterior, in variance
STAGES = (1024, 4096)  # quasi-random points, of which each have the moments that those before found
CHUNK = 4_000_000  # numbers of the largest tensor, so that it stays near the processor
MARGIN = 1.1  # above the greatest ratio of densities that was seen at a point
MAX_ROUNDS = 50
SORTED = 1024  # points by which quantiles are found
MILD = 0.4  # skewness and excess up to which quantiles follow from four moments, to .006 standard deviations
FINE = 1.0 / 16.0  # step of the trapezoidal rule


@dataclass(frozen=True)
class Cloud:
    """Points that stand for posteriors.

    Args:
        points: t `(tasks, k, d)`.
        log_weights: `(tasks, k)`; weights add to the density's integral, in units of its value at the mode and of t.
        log_density: there, less that at the mode.
    """

    points: Tensor
    log_weights: Tensor
    log_density: Tensor

    def __getitem__(self, index: Tensor) -> "Cloud":
        return Cloud(self.points[index], self.log_weights[index], self.log_density[index])

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean `(tasks, d)` and covariance of t."""
        share = self.log_weights.softmax(-1)[..., None]
        mean = (share * self.points).sum(1)
        centred = self.points - mean[:, None]
        return mean, (share * centred).mT @ centred


@torch.no_grad()
def _product(posterior: Around, num_knots: int) -> tuple[Cloud, Tensor]:
    """Points of the product rule, and tasks that it does not fit."""
    d = posterior.prior.shape[-1]
    points, volume, drop = product_rule(posterior, num_knots)
    # where rounding of numbers beyond all others makes nonsense, there is no point
    sound = volume.isfinite() & (drop > -1.0) & points.isfinite().all(-1)
    drop, volume = drop.where(sound, math.inf), volume.where(sound, 0.0)
    points = points.where(sound[..., None], 0.0)
    scores = 0.5 * _squared_scores(num_knots, d).to(volume)
    base, log_ratio = (volume - scores).softmax(-1), scores - drop
    ratio = (log_ratio - log_ratio.amax(-1, keepdim=True)).exp()
    share = (base * ratio).sum(-1).square() / (base * ratio.square()).sum(-1)
    return Cloud(points, (volume - drop).clamp(min=LEAST_LOG), -drop), ~(share >= LEAST_SHARE[d])


@cache
def _squared_scores(num: int, d: int) -> Tensor:
    half, _ = half_normal_rule(num)
    s = torch.cat([half.flip(0), half]).square()
    return torch.cartesian_prod(*[s] * d).reshape(-1, d).sum(-1)


@torch.no_grad()
def _refined(posterior: Around, cloud: Cloud) -> Cloud:
    """Quasi-random points with the moments of those given, twice."""
    for num in STAGES:
        cloud = _student(posterior, *cloud.moments, num)
    return cloud


def _root(cov: Tensor | None, like: Tensor) -> Tensor:
    """Scale of a Student t whose covariance is a little wider than `cov`, the identity unless given."""
    eye = torch.eye(like.shape[-1]).to(like).expand(*like.shape, -1)
    cov = eye if cov is None else cov + NARROWEST * eye
    return factor(cov) * math.sqrt(WIDER * (DF - 2.0) / DF)


def _student(posterior: Around, mean: Tensor, cov: Tensor | None, num: int) -> Cloud:
    root = _root(cov, mean)
    scores = _student_scores(mean.shape[-1], num).to(mean)
    points = mean[:, None] + scores @ root.mT
    log_density = -posterior.drop(points)
    log_weights = log_density - _log_student(points, mean, root) - math.log(num)
    return Cloud(points, log_weights.clamp(min=LEAST_LOG), log_density)


@cache
def _student_scores(d: int, num: int) -> Tensor:
    """Quasi-random draws of a standard Student t `(num, d)`."""
    uniform = torch.quasirandom.SobolEngine(d + 1, scramble=True, seed=0).draw(num, dtype=torch.float64)
    uniform = uniform.clamp(1e-12, 1.0 - 1e-12)
    chi_squared = 2.0 * torch.from_numpy(special.gammaincinv(0.5 * DF, uniform[:, d].numpy()))
    return torch.special.ndtri(uniform[:, :d]) * (DF / chi_squared).sqrt()[:, None]


def _log_student(points: Tensor, mean: Tensor, root: Tensor) -> Tensor:
    """Log density of points `(tasks, k, d)` under Student t distributions."""
    d = mean.shape[-1]
    scores = torch.linalg.solve_triangular(root, (points - mean[:, None]).mT, upper=False)
    constant = math.lgamma(0.5 * (DF + d)) - math.lgamma(0.5 * DF) - 0.5 * d * math.log(DF * math.pi)
    volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return constant - volume[:, None] - 0.5 * (DF + d) * torch.log1p(scores.square().sum(1) / DF)


Use = Callable[[Around, Tensor, Cloud], tuple[Tensor, ...]]


@torch.no_grad()
def each_cloud(
    likelihood: Likelihood,
    rows: Rows,
    loc: Tensor,
    precision: Tensor,
    use: Use,
    *,
    width: int = 1,
    rough: bool = False,
) -> tuple[Tensor, ...]:
    """What `use` makes of the points of each task, task by task in the first axis.

    Args:
        loc, precision: of the priors, `(tasks, d)` and `(tasks, d, d)`.
        use: given posteriors, which tasks these are, and their points, tensors with as many tasks.
        width: numbers per point of the largest tensor that it makes.
        rough: by fewer points, where moments are all that is asked for.
    """
    shift = fit_mode(likelihood, rows, loc, precision)
    tasks, d = loc.shape
    width = max(width, rows.y.shape[-1], d)
    num_knots = KNOTS.get(d, 0) if not rough else (KNOTS.get(d, 0) + 1) // 2
    num_points = (2 * num_knots) ** d if num_knots else STAGES[0]
    results: list[tuple[Tensor, tuple[Tensor, ...]]] = []
    for index in torch.arange(tasks, device=loc.device).split(max(1, CHUNK // (num_points * width))):
        posterior = around(likelihood, rows[index], loc[index], precision[index], shift[index])
        if num_knots:
            cloud, hard = _product(posterior, num_knots)
        else:
            cloud = _student(posterior, torch.zeros_like(posterior.prior), None, STAGES[0])
            hard = torch.ones(len(index), dtype=torch.bool, device=loc.device)
        easy, left = (~hard).nonzero()[:, 0], hard.nonzero()[:, 0]
        if len(easy) == len(index):
            results.append((index, use(posterior, index, cloud)))
            continue
        if len(easy):
            results.append((index[easy], use(posterior[easy], index[easy], cloud[easy])))
        for part in left.split(max(1, CHUNK // (STAGES[-1] * width))):
            some = posterior[part]
            results.append((index[part], use(some, index[part], _refined(some, cloud[part]))))
    order = torch.cat([index for index, _ in results]).argsort()
    return tuple(torch.cat(parts)[order] for parts in zip(*(values for _, values in results), strict=True))


@torch.no_grad()
def draws(posterior: Around, cloud: Cloud, num: int, generator: Generator | None) -> Tensor:
    """Independent draws of t `(tasks, num, d)`, by rejection from a Student t with the moments of the points.

    The bound of the ratio of both densities is its greatest value at a point, and a little more.
    """
    mean, cov = cloud.moments
    root, (tasks, d) = _root(cov, mean), mean.shape
    bound = (cloud.log_density - _log_student(cloud.points, mean, root)).amax(-1) + math.log(MARGIN)
    found, have = torch.empty(tasks, num, d).to(mean), torch.zeros(tasks, dtype=torch.long, device=mean.device)
    left = torch.arange(tasks, device=mean.device)
    for _ in range(MAX_ROUNDS):
        size = min(max(4, 2 * int(num - have.min())), max(4, CHUNK // (len(left) * max(posterior.eta.shape[-1], d))))
        tried = _student_draws(mean[left], root[left], size, generator)
        some = posterior if len(left) == tasks else posterior[left]
        ratio = -some.drop(tried) - _log_student(tried, mean[left], root[left]) - bound[left, None]
        accepted = rand(ratio.shape, like=mean, generator=generator).log() < ratio
        place = have[left, None] + accepted.cumsum(-1) - 1
        task, which = (accepted & (place < num)).nonzero().unbind(-1)
        found[left[task], place[task, which]] = tried[task, which]
        have[left] = (have[left] + accepted.sum(-1)).clamp(max=num)
        left = (have < num).nonzero()[:, 0]
        if not len(left):
            return found
    # next to no mass where the proposal has it: the points themselves, by weight
    index = categorical(num, cloud.log_weights[left], generator=generator).mT
    found[left] = cloud.points[left].gather(1, index[..., None].expand(-1, -1, d))
    return found


@torch.no_grad()
def importance_draws(posterior: Around, cloud: Cloud, num: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """Draws of t `(tasks, num, d)` from a Student t with the moments of the points, and log importance weights."""
    mean, cov = cloud.moments
    root = _root(cov, mean)
    tried = _student_draws(mean, root, num, generator)
    return tried, -posterior.drop(tried) - _log_student(tried, mean, root)


def _student_draws(mean: Tensor, root: Tensor, num: int, generator: Generator | None) -> Tensor:
    tasks, d = mean.shape
    half = torch.full((), 0.5 * DF).to(mean)
    noise = randn((tasks, num, d), like=mean, generator=generator)
    noise = noise * (half / gamma((tasks, num, 1), half, generator=generator)).sqrt()
    return mean[:, None] + noise @ root.mT


@torch.no_grad()
def quantiles(posterior: Around, cloud: Cloud, inputs: Tensor, scores: Tensor) -> Tensor:
    """Quantiles `(tasks, q, scores)` of predictors less those at the mode, at normal scores; inputs `(tasks, q, d)`.

    Of one weight they follow from its density; of more, from four moments, or where those are not enough from
    quasi-random points, which are then given mean and variance of the points.
    """
    slopes = inputs @ posterior.axes
    if inputs.shape[-1] == 1:
        of_weight = _quantiles_of_one(posterior, scores)[:, None]
        # scores lie about zero: turned round, quantiles are those of the other sign
        return torch.where(slopes > 0, slopes * of_weight, slopes * of_weight.flip(-1))
    mean, cov = cloud.moments
    eta = slopes @ (cloud.points - mean[:, None]).mT
    centre, var = (slopes @ mean[..., None])[..., 0], ((slopes @ cov) * slopes).sum(-1)
    share = cloud.log_weights.softmax(-1)[:, None]
    found, mild = _cornish_fisher(eta, share, var, scores)
    found = centre[..., None] + found
    task, row = (~mild).nonzero().unbind(-1)
    if len(task):
        hard = task.unique()
        many = cloud[hard]
        if many.points.shape[1] < STAGES[-1]:
            many = _student(posterior[hard], mean[hard], cov[hard], SORTED)
        place = torch.searchsorted(hard, task)
        at = (many.points[place] @ slopes[task, row, :, None])[..., 0]
        exact = _by_sorting(at, many.log_weights.softmax(-1)[place], scores)
        found[task, row] = _with_moments(exact, scores, centre[task, row], var[task, row])
    normal = centre[..., None] + var[..., None].sqrt() * scores.to(centre)
    rising = found.isfinite().all(-1) & (found.diff(dim=-1) >= 0.0).all(-1)  # false where numbers ran over
    return found.where(rising[..., None], normal)


def _cornish_fisher(eta: Tensor, share: Tensor, var: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles of centred predictors `(tasks, q, k)` by their first four moments, and where those are enough.

    Source: Abramowitz and Stegun, Handbook of mathematical functions (1964), 26.2.49.
    """
    sd = var.clamp(min=1e-300).sqrt()
    third = (share * eta**3).sum(-1) / sd**3
    fourth = (share * eta**4).sum(-1) / var.clamp(min=1e-300) ** 2 - 3.0
    z, skew, excess = scores.to(eta), third[..., None], fourth[..., None]
    stretched = z + (z**2 - 1.0) * skew / 6.0 + (z**3 - 3.0 * z) * excess / 24.0
    stretched = stretched - (2.0 * z**3 - 5.0 * z) * skew.square() / 36.0
    mild = (third.abs() < MILD) & (fourth.abs() < MILD) & (stretched.diff(dim=-1) > 0.0).all(-1)
    return sd[..., None] * stretched, mild | (var <= 0.0)


def _by_sorting(eta: Tensor, share: Tensor, scores: Tensor) -> Tensor:
    """Quantiles `(rows, scores)` of weighted points `(rows, k)`."""
    eta, order = eta.sort(-1)
    share = share.gather(-1, order)
    below = share.cumsum(-1) - 0.5 * share
    level = torch.special.ndtr(scores).to(eta).expand(*eta.shape[:-1], -1).contiguous()
    at = torch.searchsorted(below, level).clamp(1, eta.shape[-1] - 1)
    (left, right), (low, high) = ((v.gather(-1, at - 1), v.gather(-1, at)) for v in (below, eta))
    return low + (high - low) * ((level - left) / (right - left).clamp(min=1e-300)).clamp(0.0, 1.0)


def _with_moments(found: Tensor, scores: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Quantiles shifted and stretched, so that what is interpolated between them has mean and variance as given."""
    fine = torch.arange(-7.0, 7.01, 0.125, dtype=torch.float64, device=found.device)
    weight = (-0.5 * fine.square()).softmax(0)
    values, _ = Increasing.through(scores.to(found), found[..., None, :])(fine.expand(*found.shape[:-1], -1))
    centre = (values * weight).sum(-1)
    stretch = (var / ((values - centre[..., None]).square() * weight).sum(-1).clamp(min=1e-300)).sqrt()
    return mean[..., None] + (found - centre[..., None]) * stretch[..., None]


def _quantiles_of_one(posterior: Around, scores: Tensor) -> Tensor:
    """Quantiles of t `(tasks, scores)` where one weight is unknown, by the corrected trapezoidal rule."""
    s, t, slope = knots(posterior, KNOTS[1])
    zero = torch.zeros_like(t[:, 0, :1])
    middle = len(s) // 2
    s = torch.cat([s[:middle], s.new_zeros(1), s[middle:]])
    t, slope = (torch.cat([v[:, 0, :middle], one, v[:, 0, middle:]], -1) for v, one in ((t, zero), (slope, zero + 1.0)))
    fine = torch.arange(-8.0, 8.0 + 0.5 * FINE, FINE, dtype=torch.float64, device=t.device)
    at, width = Increasing(s, t[:, None], slope[:, None])(fine.expand(len(t), -1))
    density = width * (-posterior.drop(at[..., None])).exp()
    change = torch.gradient(density, spacing=FINE, dim=-1)[0]
    steps = FINE * (0.5 * (density[:, 1:] + density[:, :-1]) - FINE / 12.0 * change.diff(dim=-1))
    below = torch.cat([zero, steps.cumsum(-1)], -1)
    score = torch.special.ndtri((below / below[:, -1:]).clamp(1e-16, 1.0 - 1e-16))
    place = torch.searchsorted(score.contiguous(), scores.to(score).expand(len(t), -1).contiguous())
    place = place.clamp(1, len(fine) - 1)
    (left, right), (low, high) = ((v.gather(-1, place - 1), v.gather(-1, place)) for v in (score, at))
    return low + (high - low) * (scores.to(score) - left) / (right - left).clamp(min=1e-300)
