r"""Tasks that come in kinds: a mixture of priors learned from tasks, and the number of kinds by evidence.

With kinds $k$ of share $w_k$ and hyperparameters $v_k$,

$$ p(D_s) = \sum_k w_k\, p(D_s \mid v_k), \quad w \sim \text{Dirichlet}(2, ..., 2), \quad v_k \sim \text{hyperprior}. $$

Expectation-maximisation from several starts finds a hill, and L-BFGS its top. A start is a grouping of tasks by
k-means, each task known by how it would move the prior that all share, in all hyperparameters or in one that parts
tasks tightly; or kinds found before with one of them split. Every group is fitted alone at first. The number of kinds
is that of the greatest evidence, each further kind half as likely beforehand, by Laplace's approximation at the mode;
the K! orders of the kinds are counted, those of kinds that coincide once.

Source: Dempster, Laird and Rubin (1977); MacKay, Information Theory, Inference, and Learning Algorithms (2003), ch. 27.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import combinations, permutations
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from bayesmeta.data.rows import Data
from bayesmeta.data.statistics import Statistics
from bayesmeta.describe import Described, plural
from bayesmeta.doors import require_hierarchical
from bayesmeta.fields import LearnedFrom
from bayesmeta.hyperparameters.mode import most_probable
from bayesmeta.hyperparameters.vector import Hierarchical, Hyperparameters
from bayesmeta.mixture import Mixture
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.numerics.optimise import VALUE_TOLERANCE, maximise
from bayesmeta.random import categorical
from bayesmeta.warning_kinds import BayesmetaWarning, warn

__all__ = ["Kinds", "StartsDisagreeWarning", "fit_kinds"]

SHARE_CONCENTRATION = 2.0  # keeps every share above zero at the mode
ONE_KIND_MORE = math.log(2.0)  # the evidence that it takes: each further kind is half as likely beforehand
PATIENCE = 2  # numbers of kinds without a gain: of three kinds on a line, two may say less than one
NUM_STARTS = 2  # of each of three sorts
NUM_TRIES = 4  # of k-means, for one start
NUM_STEPS = 2  # of EM per start: it finds the hill, and L-BFGS its top
GROUP_TOLERANCE, START_TOLERANCE = 1e-7, 1e-9  # of the climbs from groups, and of those that are only compared
SAME_EVIDENCE = 1.0  # log evidence of two starts that found the same
MOST_ORDERED = 6  # kinds of which all orders are counted
STEP = 1e-3  # of finite differences, in units of the hyperprior
NUM_LLOYD_STEPS = 10
OUTLIER = 3.0  # standard deviations, farther than which no task pulls a group

A = TypeVar("A")
B = TypeVar("B")


class StartsDisagreeWarning(BayesmetaWarning):
    """One start alone of a search for kinds found the best: there may be a better answer yet."""


@dataclasses.dataclass(frozen=True, eq=False)
class Kinds(Described):
    """What `fit_kinds` learned.

    Args:
        prior: one component per kind, weighted by its share of the tasks.
        responsibilities: probability that each past task is of each kind, `(tasks, kinds)`.
        log_evidence: of all tasks for each number of kinds that was tried, by number.
        learned_from: the past tasks.
        starts: of each number of kinds, the log evidence that each start of the search reached.
    """

    prior: Mixture
    responsibilities: Tensor
    log_evidence: dict[int, float]
    learned_from: LearnedFrom
    starts: dict[int, list[float]]

    def _title(self) -> str:
        return f"of tasks: {self.num_kinds}"

    def _parts(self) -> dict[str, Any]:
        return {
            "shares": self.prior.weights,
            "prior": self.prior,
            "log_evidence": ", ".join(f"{num}: {value:.1f}" for num, value in self.log_evidence.items()),
            "learned from": f"{plural(self.learned_from.tasks, 'task')}, {plural(self.learned_from.rows, 'row')}",
        }

    @property
    def num_kinds(self) -> int:
        return self.responsibilities.shape[-1]


@with_gradients
def fit_kinds(
    prior: Hierarchical,
    tasks: Data | Statistics,
    *,
    max_kinds: int = 4,
    num_kinds: int | None = None,
    generator: Generator | None = None,
) -> Kinds:
    """Learn a mixture of priors from tasks that come in kinds.

    Args:
        prior: `Family.initial(tasks)`, the centre of every kind's hyperprior.
        tasks: at least two tasks with rows, on one axis.
        max_kinds: one more kind is tried until two in a row did not raise the evidence, at most this many. A kind more
                has to gain log 2.
        num_kinds: fixes the number instead.
        generator: of where the search starts.

    Raises:
        ValueError: fewer than one kind is asked for, or more than there are tasks.

    Warns:
        StartsDisagreeWarning: one start alone found these kinds; `Kinds.starts` has the log evidence of all.
    """
    require_hierarchical("fit_kinds", prior)
    unknown = prior.hyperparameters(tasks)
    num_tasks = tasks.batch_shape.numel()
    for name, value in (("max_kinds", max_kinds), ("num_kinds", num_kinds)):
        if value is not None and not 1 <= value <= num_tasks:
            raise ValueError(f"{name} must be from 1 to the number of tasks, {num_tasks}; got {value}")
    single = most_probable(unknown)
    best = found = _Found(single[None], single.new_zeros(1))
    starts = {1: [_log_evidence(unknown, *found)]}

    def worth(count: int) -> float:
        return max(starts[count]) - count * ONE_KIND_MORE

    for count in range(2, (num_kinds or max_kinds) + 1):
        found, starts[count] = _fit(unknown, single, found, generator)
        gains = worth(count) > max(worth(fewer) for fewer in range(1, count))
        if num_kinds is not None or gains:
            best = found
        elif count - len(best.log_shares) == PATIENCE:
            break
    _warn_if_starts_disagree(starts[len(best.log_shares)])
    return _kinds(unknown, best, starts, LearnedFrom.counts(tasks.count))


class _Found(NamedTuple):
    """Hyperparameters of kinds, `(kinds, h)`, and the logs of their shares, `(kinds,)`."""

    vectors: Tensor
    log_shares: Tensor


def _kinds(unknown: Hyperparameters, found: _Found, starts: dict[int, list[float]], source: LearnedFrom) -> Kinds:
    mixture = Mixture(unknown.build(found.vectors), found.log_shares)
    evidence = {count: max(values) for count, values in starts.items()}
    return Kinds(mixture, _responsibilities(unknown, found), evidence, source, starts)


def _responsibilities(unknown: Hyperparameters, found: _Found) -> Tensor:
    return (unknown.log_evidence(found.vectors).mT + found.log_shares).softmax(-1)


def _warn_if_starts_disagree(evidence: list[float]) -> None:
    best = max(evidence)
    alike = sum(value > best - SAME_EVIDENCE for value in evidence)
    if alike == 1 < len(evidence):
        listed = ", ".join(f"{value:.1f}" for value in sorted(evidence, reverse=True))
        text = (
            f"1 of {len(evidence)} starts of the search found these kinds, and no other came within {SAME_EVIDENCE:g} "
            f"of its log evidence: {listed}. There may be better ones yet; try other generators, or fewer kinds"
        )
        warn(text, StartsDisagreeWarning)


def _fit(
    unknown: Hyperparameters, single: Tensor, fewer: _Found, generator: Generator | None
) -> tuple[_Found, list[float]]:
    """One kind more than `fewer`, the largest first, by the best of several runs; and the evidence that each reached.

    Runs start from tasks in groups: of all tasks, or the kinds of `fewer` with one of them split.
    """
    num_fewer = len(fewer.log_shares)
    alone = _peculiar(unknown, single)
    evenly = alone / alone.std(0).clamp(min=1e-12)  # all hyperparameters count alike, or as much as tasks pull them
    groups = [_group(points, num_fewer + 1, generator) for points in (evenly, alone) for _ in range(NUM_STARTS)]
    groups += _by_one(evenly, num_fewer + 1, generator)
    groups += [_split(unknown, fewer, kind, generator) for kind in range(num_fewer if num_fewer > 1 else 0)]
    hills = _one_each(groups, groups, lambda each: _expectation_maximisation(unknown, single, each))
    labels = [_responsibilities(unknown, hill) for hill in hills]
    runs = _one_each(hills, labels, lambda hill: _top(unknown, hill))
    evidence = [value for _, value in runs]
    if not evidence:
        raise ValueError(f"no start of the search for {num_fewer + 1} kinds came to an end; try more tasks or rows")
    top = _climb(unknown, runs[evidence.index(max(evidence))][0])
    order = top.log_shares.argsort(descending=True)
    return _Found(top.vectors[order], top.log_shares[order]), evidence


def _one_each(values: Sequence[A], labels: Sequence[Tensor], function: Callable[[A], B]) -> list[B]:
    """`function` of each value, found once where tasks are grouped alike by `labels` `(tasks, kinds)` in any order.

    Those of which a line search left what float64 can hold, as with a kind of few tasks it may, are left out.
    """
    known: dict[tuple[int, ...], B] = {}
    keys = [_in_order_of_appearance(each.argmax(-1).tolist()) for each in labels]
    for key, value in zip(keys, values, strict=True):
        if key not in known:
            with suppress(ValueError):
                known[key] = function(value)
    return [known[key] for key in keys if key in known]


def _in_order_of_appearance(labels: list[int]) -> tuple[int, ...]:
    number: dict[int, int] = {}
    return tuple(number.setdefault(label, len(number)) for label in labels)


@torch.no_grad()
def _peculiar(unknown: Hyperparameters, vector: Tensor) -> Tensor:
    """How each task would move these hyperparameters: its gradient in units of the hyperprior, `(tasks, h)`."""
    step = (STEP * unknown.scale).diag().to(vector)
    return ((unknown.log_evidence(vector + step) - unknown.log_evidence(vector - step)) / (2.0 * STEP)).mT


def _group(points: Tensor, num_groups: int, generator: Generator | None) -> Tensor:
    """Groups `(tasks, groups)` of points `(tasks, h)`, entries zero or one: the tightest of a few runs of k-means."""
    centred = points - points.mean(0)
    points = centred.clamp(-OUTLIER * points.std(0), OUTLIER * points.std(0))
    runs = [_k_means(points, num_groups, generator) for _ in range(NUM_TRIES)]
    tightest = min(runs, key=lambda centres: float(_distance(points, centres).amin(-1).sum()))
    return _nearest(points, tightest)


def _by_one(points: Tensor, num_groups: int, generator: Generator | None) -> list[Tensor]:
    """Groups `(tasks, groups)` by one column of `points` each, of the few columns that part tasks most tightly.

    Kinds that differ in one hyperparameter are hidden where the others, which all kinds share, count as much.
    """
    columns = points.split(1, -1)
    groups = [_group(column, num_groups, generator) for column in columns]
    # where all tasks are alike in a column, it has no spread to leave: not a number, and sorted last
    left = [_spread(column, each) / _spread(column) for column, each in zip(columns, groups, strict=True)]
    return [groups[i] for i in torch.stack(left).argsort()[:NUM_STARTS].tolist()]


def _spread(points: Tensor, groups: Tensor | None = None) -> Tensor:
    """Sum `()` of the squared distances of points `(tasks, h)` to the centre of their group, or of all."""
    groups = torch.ones_like(points[:, :1]) if groups is None else groups
    centres = groups.mT @ points / groups.sum(0).clamp(min=1.0)[:, None]
    return (points - groups @ centres).square().sum()


def _k_means(points: Tensor, num_groups: int, generator: Generator | None) -> Tensor:
    """Centres `(groups, h)`, from points drawn far apart, as k-means++ draws them."""
    centres = points[categorical(1, points.new_zeros(len(points)), generator=generator)]
    for _ in range(num_groups - 1):
        nearest = _distance(points, centres).amin(-1)
        centres = torch.cat([centres, points[categorical(1, nearest.clamp(min=1e-12).log(), generator=generator)]])
    for _ in range(NUM_LLOYD_STEPS):
        groups = _nearest(points, centres)
        size = groups.sum(0)[:, None]
        centres = (groups.mT @ points / size.clamp(min=1.0)).where(size > 0, centres)
    return centres


def _distance(points: Tensor, centres: Tensor) -> Tensor:
    return (points[:, None] - centres).square().sum(-1)


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return one_hot(_distance(points, centres).argmin(-1), len(centres)).to(points)


def _split(unknown: Hyperparameters, found: _Found, kind: int, generator: Generator | None) -> Tensor:
    """The groups `(tasks, kinds + 1)` of these kinds, one of them parted by how its tasks would move it."""
    num_kinds = len(found.log_shares)
    groups = one_hot(_responsibilities(unknown, found).argmax(-1), num_kinds).to(found.vectors)
    member = groups[:, kind] > 0
    if member.sum() < 2:
        return torch.cat([groups, torch.zeros_like(groups[:, :1])], -1)
    second = torch.zeros_like(groups[:, 0])
    alone = _peculiar(unknown, found.vectors[kind])[member]
    second[member] = _group(alone / alone.std(0).clamp(min=1e-12), 2, generator)[:, 1]
    groups[:, kind] -= second
    return torch.cat([groups, second[:, None]], -1)


def _expectation_maximisation(unknown: Hyperparameters, single: Tensor, groups: Tensor) -> _Found:
    """A few steps from groups `(tasks, kinds)`, each of which is fitted alone at first.

    From kinds that each had a part of all tasks, every one would be as wide as all tasks are, and none would let go.
    """
    num_kinds, h = groups.shape[-1], len(single)
    shares, found = groups, _Found(single.expand(num_kinds, -1), _log_shares(groups))
    for _ in range(NUM_STEPS):

        def objective(point: Tensor, weights: Tensor = shares.mT) -> Tensor:
            vectors = point.reshape(num_kinds, h)
            evidence = (weights * unknown.log_evidence(vectors)).sum()
            return (evidence + unknown.log_hyperprior(vectors).sum()) / unknown.num_rows

        best = maximise(
            objective, found.vectors.flatten(), limit=unknown.limit.repeat(num_kinds), tolerance=GROUP_TOLERANCE
        )
        found = _Found(best.reshape(num_kinds, h), _log_shares(shares))
        shares = _responsibilities(unknown, found)
    return found


def _top(unknown: Hyperparameters, found: _Found) -> tuple[_Found, float]:
    """The mode near these kinds, and the evidence about it."""
    mode = _climb(unknown, found, START_TOLERANCE)
    return mode, _log_evidence(unknown, *mode)


def _climb(unknown: Hyperparameters, found: _Found, tolerance: float = VALUE_TOLERANCE) -> _Found:
    """The mode near these vectors and shares."""
    num_kinds, h = found.vectors.shape

    def unpack(point: Tensor) -> _Found:
        return _Found(point[: num_kinds * h].reshape(num_kinds, h), point[num_kinds * h :].log_softmax(-1))

    def objective(point: Tensor) -> Tensor:
        return _log_density(unknown, *unpack(point)) / unknown.num_rows

    start = torch.cat([found.vectors.flatten(), found.log_shares])
    limit = torch.cat([unknown.limit.repeat(num_kinds), start.new_full((num_kinds,), torch.inf)])
    return unpack(maximise(objective, start, limit=limit, tolerance=tolerance))


def _log_shares(responsibilities: Tensor) -> Tensor:
    counts = responsibilities.sum(0) + SHARE_CONCENTRATION - 1.0
    return (counts / counts.sum()).log()


def _log_density(unknown: Hyperparameters, vectors: Tensor, log_shares: Tensor) -> Tensor:
    """log p(shares, v, D), the shares' density being that on the simplex."""
    of_tasks = (unknown.log_evidence(vectors).mT + log_shares).logsumexp(-1).sum()
    num_kinds = len(log_shares)
    total = torch.tensor(SHARE_CONCENTRATION * num_kinds).lgamma() - num_kinds * math.lgamma(SHARE_CONCENTRATION)
    of_shares = total + (SHARE_CONCENTRATION - 1.0) * log_shares.sum()
    return of_tasks + of_shares + unknown.log_hyperprior(vectors).sum()


def _log_evidence(unknown: Hyperparameters, vectors: Tensor, log_shares: Tensor) -> float:
    """Laplace's approximation of log p(D), over all vectors and the first K - 1 logits of the shares."""
    num_kinds, h = vectors.shape

    def log_density(point: Tensor) -> Tensor:
        logits = torch.cat([point[num_kinds * h :], point.new_zeros(1)])
        shares = logits.log_softmax(-1)
        # from shares to logits: the Jacobian is the product of all shares
        return _log_density(unknown, point[: num_kinds * h].reshape(num_kinds, h), shares) + shares.sum()

    point = torch.cat([vectors.flatten(), log_shares[:-1] - log_shares[-1]]).detach()
    scale = torch.cat([unknown.scale.repeat(num_kinds), torch.ones(num_kinds - 1, dtype=torch.float64)])
    hessian: Any = torch.autograd.functional.hessian(log_density, point)
    curvature, axes = torch.linalg.eigh(-hessian * scale[:, None] * scale)
    curvature = curvature.clamp(min=0.5)
    volume = scale.log().sum() - 0.5 * curvature.log().sum() + 0.5 * len(point) * math.log(2.0 * math.pi)
    root = (axes * curvature.sqrt()) / scale[:, None]
    return float(log_density(point) + volume) + math.lgamma(num_kinds + 1) - _log_overlap(vectors, log_shares, root)


def _log_overlap(vectors: Tensor, log_shares: Tensor, root: Tensor) -> float:
    """Log of how often the K! hills, one for each order of the kinds, count the density at the top of one of them.

    Once where kinds are apart; m! times where m kinds coincide. `root @ root.mT` is the precision of a hill.
    """
    num_kinds = len(log_shares)
    orders = torch.tensor(list(permutations(range(num_kinds))) if num_kinds <= MOST_ORDERED else _exchanges(num_kinds))
    logits = log_shares[orders]
    logits = logits[:, :-1] - logits[:, -1:]
    points = torch.cat([vectors[orders].flatten(1), logits], -1)
    return float((-0.5 * ((points - points[0]) @ root).square().sum(-1)).logsumexp(0))


def _exchanges(number: int) -> list[list[int]]:
    """The order 0, 1, ... and those with two exchanged: nearly all that overlap, where orders are too many."""
    orders = [list(range(number))]
    for i, j in combinations(range(number), 2):
        order = list(range(number))
        order[i], order[j] = j, i
        orders.append(order)
    return orders
