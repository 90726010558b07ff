r"""Tasks that come in kinds: a mixture of priors learned from tasks, and the number of kinds by evidence.

With kinds $k$ of share $w_k$ and hyperparameters $v_k$,

$$ p(D_s) = \sum_k w_k\, p(D_s \mid v_k), \quad w \sim \text{Dirichlet}(2, ..., 2), \quad v_k \sim \text{hyperprior}. $$

Expectation-maximisation from several starts finds a hill, and L-BFGS its top. The number of kinds is that of the
greatest evidence, by Laplace's approximation at the mode, the K! orders of the kinds counted.

Source: Dempster, Laird and Rubin (1977); MacKay, Information Theory, Inference, and Learning Algorithms (2003), ch. 27.
"""

import dataclasses
import math
from typing import Any

import torch
from torch import Generator, Tensor

from bayesmeta.data import Data
from bayesmeta.fields import LearnedFrom
from bayesmeta.gradients import with_gradients
from bayesmeta.hierarchy import Mixture
from bayesmeta.hyperparameters import Hierarchical, Hyperparameters, most_probable
from bayesmeta.optimise import maximise
from bayesmeta.random import categorical
from bayesmeta.statistics import Statistics

__all__ = ["Kinds", "fit_kinds"]

SHARE_CONCENTRATION = 2.0  # keeps every share above zero at the mode
NUM_STARTS = 5
NUM_STEPS = 3  # of EM per start: it finds the hill, and the best start is climbed to the top by L-BFGS


@dataclasses.dataclass(frozen=True, eq=False)
class Kinds:
    """What `fit_kinds` learned.

    Args:
        prior: one component per kind, weighted by its share of the tasks.
        responsibilities: probability that each past task is of each kind, `(tasks, kinds)`.
        log_evidence: of all tasks for each number of kinds that was tried, by number.
        learned_from: the past tasks.
    """

    prior: Mixture
    responsibilities: Tensor
    log_evidence: dict[int, float]
    learned_from: LearnedFrom

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
        max_kinds: one more kind is tried until the evidence falls, at most this many.
        num_kinds: fixes the number instead.

    Raises:
        ValueError: fewer than one kind is asked for, or more than there are tasks.
    """
    unknown = prior.hyperparameters(tasks)
    num_tasks = tasks.batch_shape.numel()
    for name, value in (("max_kinds", max_kinds), ("num_kinds", num_kinds)):
        if value is not None and not 1 <= value <= num_tasks:
            raise ValueError(f"{name} must be from 1 to the number of tasks, {num_tasks}; got {value}")
    evidence: dict[int, float] = {}
    best: tuple[Tensor, Tensor] | None = None
    for count in range(1, max_kinds + 1) if num_kinds is None else [num_kinds]:
        vectors, log_shares = _fit(unknown, count, generator)
        evidence[count] = _log_evidence(unknown, vectors, log_shares)
        if best is not None and evidence[count] <= evidence[count - 1]:
            break
        best = vectors, log_shares
    assert best is not None  # the loop runs at least once
    return _kinds(unknown, *best, evidence, LearnedFrom.counts(tasks.count))


def _kinds(
    unknown: Hyperparameters, vectors: Tensor, log_shares: Tensor, evidence: dict[int, float], source: LearnedFrom
) -> Kinds:
    mixture = Mixture(unknown.build(vectors), log_shares)
    responsibilities = (unknown.log_evidence(vectors).mT + log_shares).softmax(-1)
    return Kinds(mixture, responsibilities, evidence, source)


def _fit(unknown: Hyperparameters, num_kinds: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
    """The best of several runs: vectors `(kinds, h)` and log shares `(kinds,)`, the largest kind first."""
    single = most_probable(unknown)
    if num_kinds == 1:
        return single[None], single.new_zeros(1)
    alone = _peculiar(unknown, single)
    runs = [_expectation_maximisation(unknown, single, alone, num_kinds, generator) for _ in range(NUM_STARTS)]
    vectors, log_shares = _top(unknown, *max(runs, key=lambda run: _log_density(unknown, *run).item()))
    order = log_shares.argsort(descending=True)
    return vectors[order], log_shares[order]


def _peculiar(unknown: Hyperparameters, single: Tensor) -> Tensor:
    """How each task would move the single prior: its gradient in units of the hyperprior, `(tasks, h)`."""
    jacobian: Any = torch.autograd.functional.jacobian(unknown.log_evidence, single)
    return jacobian * unknown.scale


def _expectation_maximisation(
    unknown: Hyperparameters, single: Tensor, alone: Tensor, num_kinds: int, generator: Generator | None
) -> tuple[Tensor, Tensor]:
    """A few steps, from tasks grouped around some that pull in different directions."""
    shares = _group(alone, num_kinds, generator)
    vectors, log_shares = single.expand(num_kinds, -1), _log_shares(shares)
    for _ in range(NUM_STEPS):
        vectors = torch.stack(
            [most_probable(unknown, task_weights=w, start=v) for w, v in zip(shares.mT, vectors, strict=True)]
        )
        shares = (unknown.log_evidence(vectors).mT + log_shares).softmax(-1)
        log_shares = _log_shares(shares)
    return vectors, log_shares


def _top(unknown: Hyperparameters, vectors: Tensor, log_shares: Tensor) -> tuple[Tensor, Tensor]:
    """The mode near these vectors and shares."""
    num_kinds, h = vectors.shape

    def unpack(point: Tensor) -> tuple[Tensor, Tensor]:
        return point[: num_kinds * h].reshape(num_kinds, h), point[num_kinds * h :].log_softmax(-1)

    start = torch.cat([vectors.flatten(), log_shares])
    limit = torch.cat([unknown.limit.repeat(num_kinds), start.new_full((num_kinds,), torch.inf)])
    return unpack(maximise(lambda p: _log_density(unknown, *unpack(p)) / unknown.num_rows, start, limit=limit))


def _group(points: Tensor, num_groups: int, generator: Generator | None) -> Tensor:
    """Near-certain groups `(tasks, groups)` around tasks drawn far apart, as k-means++ draws them."""
    points = points / points.std(0).clamp(min=1e-12)
    centre = int(categorical(1, points.new_zeros(len(points)), generator=generator))
    distance = (points - points[centre]).square().sum(-1)[:, None]
    for _ in range(num_groups - 1):
        nearest = distance.amin(-1)
        centre = int(categorical(1, nearest.clamp(min=1e-12).log(), generator=generator))
        distance = torch.cat([distance, (points - points[centre]).square().sum(-1)[:, None]], -1)
    certain = torch.nn.functional.one_hot(distance.argmin(-1), num_groups).to(points)
    return 0.9 * certain + 0.1 / num_groups


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
    curvature = torch.linalg.eigvalsh(-hessian * scale[:, None] * scale).clamp(min=0.5)
    volume = scale.log().sum() - 0.5 * curvature.log().sum() + 0.5 * len(point) * math.log(2.0 * math.pi)
    return float(log_density(point) + volume) + math.lgamma(num_kinds + 1)
