r"""The probability that each arm is the best under a posterior, which is how often Thompson sampling chooses it.

Where arms are independent it is an integral over one number, the best reward v:

$$ p_a = \int f_a(v) \prod_{b \ne a} F_b(v)\, dv, $$

by Gauss-Legendre between the quantiles of all arms, from where the best cannot be less, on the scale of their link, on
which densities have no poles. Two dependent arms that are jointly normal differ by a normal variable. All others, and
arms that average over many hypotheses each, are drawn, and the standard error is returned with the estimate.

Of an arm that was chosen an estimate p must not be zero, and should make 1/p right: the draw that chose it is one of
those that p is averaged over. Draws are exchangeable, so that E[1{A = a} / p] is the probability that p is above
zero. Where arms are jointly normal (`bandits.prospects.lines`), each draw counts by the probability of the arm given
all of the draw but one direction.
"""

from typing import NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor
from torch.distributions import Distribution, Normal

from bandits.prospects.capabilities import Alternatives, JointlyNormal, has_alternatives, is_jointly_normal
from bandits.prospects.log_concave import is_log_concave
from bandits.prospects.prospects import Prospects
from bandits.prospects.zoom import chance_of_chosen
from bayesmeta.distributions.link_marginals import on_link
from bayesmeta.online.protocol import NoMarginalError

__all__ = ["Propensities", "best_of_independent", "of_best", "of_chosen"]

NUM_DRAWS = 1000  # for arms that are not independent
NEVER = 1e-10  # beyond the quantile of this an arm is taken not to be
LEVELS = (NEVER, 1e-5, 1e-3, 0.02, 0.15, 0.5, 0.85, 0.98, 0.999, 1 - 1e-5, 1 - NEVER)  # where intervals end
SURE = 1e-9  # a difference of two values of F that is larger has digits enough
NUM_NODES = 6  # in each interval
CHUNK = 4_000_000  # numbers that are held at once
DRAWS_AT_ONCE = 4000  # functions, of all decisions together: one of a Gaussian process is ten thousand numbers
ROUGH_STEPS = 8  # of bisection, for where intervals end
AFFORDABLE = 4_000_000  # evaluations, of which SciPy does some million a second


class Propensities(NamedTuple):
    """Probabilities that each arm is chosen `(n, arms)`, or of the one that was `(n,)`, and their standard errors.

    Errors are None where probabilities are exact.
    """

    probability: Tensor
    error: Tensor | None

    def of(self, arm: Tensor) -> "Propensities":
        """Probability and error of one arm for each decision, `(n,)`; at least `NEVER`, as for what was chosen."""
        index = arm[:, None]
        chance = self.probability.expand(len(arm), -1).gather(1, index)[:, 0].clamp(min=NEVER)
        return Propensities(
            chance, None if self.error is None else self.error.expand(len(arm), -1).gather(1, index)[:, 0]
        )


@runtime_checkable
class Mixed(Protocol):
    """A distribution that averages over several, and whose quantiles take a search."""

    @property
    def num_components(self) -> int: ...

    @property
    def batch_shape(self) -> torch.Size: ...

    def icdf_bounds(self, value: Tensor, num_steps: int) -> tuple[Tensor, Tensor]: ...


def _is_mixed(marginal: Distribution) -> TypeGuard[Mixed]:
    return hasattr(marginal, "icdf_bounds")


def of_best(prospects: Prospects, generator: Generator, *, num_draws: int = NUM_DRAWS) -> Propensities:
    """How probable it is that each arm is the best of those available, `(n, arms)`."""
    if prospects.are_alike:
        best, error = of_best(prospects.some(slice(0, 1)), generator, num_draws=num_draws)
        shape = (len(prospects.x), -1)
        return Propensities(best.expand(shape), None if error is None else error.expand(shape))
    if prospects.separate:
        exact = _best_if_affordable(prospects)
        if exact is not None:
            return Propensities(exact, None)
    if is_jointly_normal(prospects.online) and prospects.x.shape[1] == 2:
        return Propensities(_better_of_two(prospects, prospects.online), None)
    best = torch.cat([_best_of_draws(part, num_draws, generator) for part in _parts(prospects, num_draws)])
    error = _standard_error(best, num_draws)
    if prospects.available is not None:
        error = error.where(prospects.available, 0.0)
    return Propensities(best, error)


def of_chosen(
    prospects: Prospects,
    arm: Tensor,
    generator: Generator,
    *,
    at: Tensor | None = None,
    marginal: Distribution | None = None,
    num_draws: int = NUM_DRAWS,
) -> Propensities:
    """How probable the arm that was chosen at each decision was, `(n,)`.

    Args:
        arm: positions `(n,)`, each the best of a draw.
        at: what was drawn of it, on the scale of its link `(n,)`; None where that is not known.
        marginal: of the arms, where it is known already.
    """
    if prospects.separate:
        if not (prospects.are_alike and len(arm) > prospects.num_arms):
            zoomed = _by_zooming(prospects, arm, at, marginal)
            if zoomed is not None:
                return Propensities(zoomed, None)
        one = prospects.some(slice(0, 1)) if prospects.are_alike else prospects
        exact = _best_if_affordable(one)
        if exact is not None:
            return Propensities(exact, None).of(arm)
    if is_jointly_normal(prospects.online) and prospects.x.shape[1] == 2:
        return Propensities(_better_of_two(prospects, prospects.online), None).of(arm)
    one = prospects.some(slice(0, 1)) if prospects.are_alike else prospects
    others = torch.cat([_best_of_draws(part, num_draws, generator) for part in _parts(one, num_draws)])
    others = others.expand(len(arm), -1)
    share = (others.gather(1, arm[:, None])[:, 0] * num_draws + 1.0) / (num_draws + 1)
    return Propensities(share, _standard_error(share, num_draws + 1))


def best_of_independent(marginal: Distribution, available: Tensor | None = None) -> Tensor:
    """Probabilities `(n, arms)` that each of independent variables is the greatest.

    Args:
        marginal: of batch_shape `(n, arms, 1)`, with `log_prob`, `cdf` and `icdf`.
        available: which take part, `(n, arms)`; None for all.
    """
    dtype, marginal = marginal.mean.dtype, on_link(_in_float64(marginal))
    n, arms, _ = marginal.batch_shape
    ends = _ends(marginal, torch.tensor(LEVELS, dtype=torch.float64).expand(n, arms, -1))
    if available is not None:
        ends = ends.masked_fill(~available[..., None], -torch.inf)
    largest = torch.finfo(torch.float64).max
    lowest = ends[..., 0].amax(-1, keepdim=True).clamp(min=-largest)  # the best is not below
    highest = ends[..., -1].amax(-1, keepdim=True).clamp(max=largest)
    ends = ends.flatten(1).clamp(lowest, highest).sort(-1).values
    start, width = _used_intervals(ends[:, :-1], ends.diff(dim=-1))
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(NUM_NODES))
    total = torch.zeros(n, arms, dtype=torch.float64)
    step = max(1, CHUNK // (n * arms * NUM_NODES))
    for i in range(0, start.shape[1], step):
        left, size = start[:, i : i + step, None], width[:, i : i + step, None]
        at = (left + 0.5 * size * (nodes + 1.0)).flatten(1)[:, None]
        log_cdf = marginal.cdf(at).clamp(min=torch.finfo(torch.float64).tiny).log()
        if available is not None:
            log_cdf = log_cdf.masked_fill(~available[..., None], 0.0)
        others = log_cdf.sum(1, keepdim=True) - log_cdf
        mass = marginal.log_prob(at).exp() * (0.5 * size * weights).flatten(1)[:, None]
        by_interval = (mass * others.exp()).unflatten(-1, (-1, NUM_NODES)).sum(-1)
        # an interval has the mass that F says, also where the density has a pole at its end
        mass = mass.unflatten(-1, (-1, NUM_NODES)).sum(-1)
        exact = marginal.cdf((left + size)[..., 0][:, None]) - marginal.cdf(left[..., 0][:, None])
        total += torch.where((exact > SURE) & (mass > 0), by_interval * exact / mass, by_interval).sum(-1)
    if available is not None:
        total = total * available
    return (total / total.sum(-1, keepdim=True)).to(dtype)


def _best_if_affordable(prospects: Prospects) -> Tensor | None:
    """By quadrature, unless arms average over so many hypotheses each that it would take longer than draws.

    None too where the family can be drawn from, and no more.
    """
    if has_alternatives(prospects.online):
        return _best_of_alternatives(prospects, prospects.online)
    try:
        marginal = prospects.marginal()
    except NoMarginalError:
        return None
    if _is_mixed(marginal) and _evaluations(marginal) * marginal.num_components > AFFORDABLE:
        return None
    return best_of_independent(marginal, prospects.available)


def _by_zooming(prospects: Prospects, arm: Tensor, at: Tensor | None, marginal: Distribution | None) -> Tensor | None:
    """At a tenth of the cost of all arms, where integrands are log-concave."""
    if has_alternatives(prospects.online):
        return None
    try:
        marginal = prospects.marginal() if marginal is None else marginal
    except NoMarginalError:
        return None
    line = on_link(marginal)
    return chance_of_chosen(line, arm, prospects.available, at) if is_log_concave(line) else None


def _evaluations(marginal: Mixed) -> int:
    """Of F and of the density, that the integrals of batch_shape `(..., arms, 1)` take."""
    return marginal.batch_shape.numel() * marginal.batch_shape[-2] * NUM_NODES * (len(LEVELS) - 1)


def _ends(marginal: Distribution, levels: Tensor) -> Tensor:
    """Where intervals end: quantiles, which need not be right to the last digit, but outwards."""
    if not _is_mixed(marginal):
        return marginal.icdf(levels)
    low, high = marginal.icdf_bounds(levels, ROUGH_STEPS)
    return torch.where(levels < 0.5, low, high)


def _used_intervals(start: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Those that are not empty come first; the others, where a decision has more of them, stay empty."""
    order = (width > 0).int().argsort(dim=-1, descending=True, stable=True)
    most = int((width > 0).sum(-1).max())
    return start.gather(-1, order[:, :most]), width.gather(-1, order[:, :most])


def _in_float64(marginal: Distribution) -> Distribution:
    names = list(marginal.arg_constraints)
    if not names or marginal.mean.dtype == torch.float64:
        return marginal
    parameters = {name: getattr(marginal, name).double() for name in names}
    return type(marginal)(**parameters, validate_args=False)


def _best_of_alternatives(prospects: Prospects, online: Alternatives) -> Tensor:
    log_weights, each = online.alternatives(prospects.x, prospects.task)
    if isinstance(each, list):
        bests = torch.stack([best_of_independent(one, prospects.available).double() for one in each], 1)
        return (log_weights.exp().double()[..., None] * bests).sum(1)
    n, hypotheses, arms, _ = each.batch_shape
    parameters = {name: getattr(each, name).expand(each.batch_shape).flatten(0, 1) for name in each.arg_constraints}
    available = prospects.available
    if available is not None:
        available = available[:, None].expand(n, hypotheses, arms).flatten(0, 1)
    best = best_of_independent(type(each)(**parameters, validate_args=False), available).unflatten(0, (n, hypotheses))
    return (log_weights.exp().to(best)[..., None] * best).sum(1)


def _better_of_two(prospects: Prospects, online: JointlyNormal) -> Tensor:
    mean, root = online.joint(prospects.x, prospects.task)
    gap, scale = (mean[:, 0] - mean[:, 1]).double(), (root[:, 0] - root[:, 1]).double().norm(dim=-1)
    gap, scale = torch.broadcast_tensors(gap, scale.clamp(min=torch.finfo(torch.float64).tiny))
    first = Normal(torch.zeros_like(gap), scale).cdf(gap)
    both = torch.stack([first, 1.0 - first], -1).to(mean)
    if prospects.available is None:
        return both
    only = prospects.available.to(mean)
    return torch.where(prospects.available.all(-1, keepdim=True), both, only)


def _standard_error(share: Tensor, num_draws: int) -> Tensor:
    """Of a share of draws, with a draw more of each sort: where all agree, the next one might not."""
    likely = (share * num_draws + 1.0) / (num_draws + 2.0)
    return (likely * (1.0 - likely) / num_draws).sqrt()


def _parts(prospects: Prospects, num_draws: int) -> list[Prospects]:
    """Decisions in groups whose draws fit into memory."""
    n, arms = len(prospects.x), prospects.x.shape[1]
    fitting = min(CHUNK // (num_draws * max(prospects.x[0].numel(), arms)), DRAWS_AT_ONCE // num_draws)
    size = max(1, fitting)
    return [prospects.some(slice(i, i + size)) for i in range(0, n, size)] if size < n else [prospects]


def _best_of_draws(prospects: Prospects, num_draws: int, generator: Generator) -> Tensor:
    draws = prospects.compared_draws(num_draws, generator)
    best = prospects.best(draws.flatten(0, 1), generator).unflatten(0, draws.shape[:2])
    counts = torch.zeros(draws.shape[1:], dtype=draws.dtype)
    return counts.scatter_add(-1, best.mT, torch.ones_like(best.mT, dtype=draws.dtype)) / num_draws
