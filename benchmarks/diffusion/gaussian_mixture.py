"""A mixture of Gaussian priors over arms, learned from past tasks by expectation-maximisation.

`bayesmeta.fit_kinds` searches all numbers of every kind together, which takes hours with as many arms as here; this is
the same prior, a `Mixture` of `CorrelatedArms`, found faster. Covariances of kinds are drawn to the one that they share
within, as if that had been seen in K + 3 more tasks of each, and that one to its diagonal. The number of kinds is that
which says most of a fifth of the tasks that were left out.

Source: Dempster, Laird and Rubin, Maximum likelihood from incomplete data via the EM algorithm (1977).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from bayesmeta import CorrelatedArms, Mixture, Statistics
from bayesmeta.random import randint

__all__ = ["learn_mixture"]

NUMBERS = (1, 2, 3, 4, 6, 8, 12, 16)  # of kinds
PATIENCE = 1  # numbers without a gain
NUM_STARTS, FIRST_STEPS, NUM_STEPS = 3, 3, 12  # of each start, and of the best one
TOLERANCE = 1e-3  # nats of a task
SEARCHED = 400  # past tasks at most by which the number of kinds is chosen
MOST = 2**18  # numbers that are held at once
HELD_OUT = 5  # one of so many tasks
SEEDING = 1e-9


@dataclass(frozen=True)
class _Kinds:
    """Means `(c, k)`, covariances `(c, k, k)` and log shares `(c,)`."""

    loc: Tensor
    cov: Tensor
    log_shares: Tensor


class _Rows:
    """Means of arms of tasks, in groups that have as many rows of each arm.

    Args:
        statistics: of arms `(tasks, k)`.
        noise_var: of one row.
    """

    def __init__(self, statistics: Statistics, noise_var: Tensor) -> None:
        self.mean = statistics.mean[..., 0].double()
        counts, group = statistics.count.double().unique(dim=0, return_inverse=True)
        self.roots = (counts / noise_var.double()).sqrt()  # of the precision of means `(groups, k)`
        sizes = torch.bincount(group, minlength=len(counts))
        self.is_task = torch.arange(int(sizes.max())) < sizes[:, None]
        self.task = torch.zeros(self.is_task.shape, dtype=torch.long)  # of each group, `(groups, m)` with pads
        self.task[self.is_task] = group.argsort(stable=True)

    def __len__(self) -> int:
        return len(self.mean)

    def log_evidence(self, kinds: _Kinds) -> Tensor:
        """Of each task under each kind, short of what does not depend on kinds: `(tasks, c)`."""
        found = self.mean.new_empty(len(self.mean), len(kinds.loc))
        for part in self._parts():
            is_task, task, root = self.is_task[part], self.task[part], self.roots[part]
            for i, (loc, cov) in enumerate(zip(kinds.loc, kinds.cov, strict=True)):
                factor = _factor(cov, root)
                left = root[:, None] * (self.mean[task] - loc)
                white = torch.linalg.solve_triangular(factor, left.mT, upper=False)
                volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
                found[task[is_task], i] = (-0.5 * white.square().sum(-2) - volume[:, None])[is_task]
        return found

    def moments(self, loc: Tensor, cov: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior means under one kind `(tasks, k)`, and the weighted sum of posterior covariances `(k, k)`."""
        mean, total = torch.empty_like(self.mean), torch.zeros_like(cov)
        for part in self._parts():
            is_task, task, root = self.is_task[part], self.task[part], self.roots[part]
            seen = root[..., None] * cov
            gain = torch.cholesky_solve(seen, _factor(cov, root))  # (groups, k, k)
            given = loc + (root[:, None] * (self.mean[task] - loc)) @ gain
            mean[task[is_task]] = given[is_task]
            shares = (weight[task] * is_task).sum(-1)
            total += shares.sum() * cov - (shares[:, None, None] * seen).flatten(0, 1).mT @ gain.flatten(0, 1)
        return mean, total

    def _parts(self) -> Iterator[slice]:
        """Groups, some at a time."""
        step = max(1, MOST // self.roots.shape[-1] ** 2)
        return (slice(i, i + step) for i in range(0, len(self.roots), step))


def _factor(cov: Tensor, root: Tensor) -> Tensor:
    return torch.linalg.cholesky(torch.eye(len(cov)).to(cov) + root[..., None] * cov * root[..., None, :])


def learn_mixture(gaussian: CorrelatedArms, statistics: Statistics, generator: Generator) -> Mixture:
    """A mixture whose noise, and whose one kind if there is but one, are those of a Gaussian prior.

    Args:
        gaussian: learned from the same tasks.
        statistics: of each arm of past tasks `(tasks, k)`.
    """
    order = torch.randperm(len(statistics.count), generator=generator)
    num_held_out = max(1, len(order) // HELD_OUT)
    noise_var = gaussian.noise_var
    held_out, rest = (
        _Rows(statistics[part], noise_var) for part in (order[:num_held_out], order[num_held_out:][:SEARCHED])
    )
    one = _Kinds(gaussian.loc.double()[None], gaussian.cov.double()[None], torch.zeros(1).double())
    best_num, best, since = 1, -math.inf, 0
    for num in NUMBERS:
        if num > len(rest) // 4 or since == PATIENCE:
            break
        kinds = one if num == 1 else _learned(rest, one, num, generator)
        worth = float(_total(held_out, kinds).mean())
        best_num, best, since = (num, worth, 0) if worth > best else (best_num, best, since + 1)
    chosen = one if best_num == 1 else _learned(_Rows(statistics, noise_var), one, best_num, generator)
    return _as_prior(chosen, gaussian)


def _as_prior(kinds: _Kinds, gaussian: CorrelatedArms) -> Mixture:
    components = CorrelatedArms(
        kinds.loc, torch.linalg.cholesky(kinds.cov), gaussian.noise_var.double().expand(len(kinds.loc))
    )
    return Mixture(components, kinds.log_shares.log_softmax(-1))


def _total(rows: _Rows, kinds: _Kinds) -> Tensor:
    return (rows.log_evidence(kinds) + kinds.log_shares).logsumexp(-1)


def _learned(rows: _Rows, one: _Kinds, num: int, generator: Generator) -> _Kinds:
    """The best of several starts."""
    alike = _Kinds(one.loc.expand(num, -1), one.cov.expand(num, -1, -1), one.log_shares.expand(num))
    starts = [_improved(rows, _start(rows, one, num, generator), alike) for _ in range(NUM_STARTS)]
    runs = [_climb(rows, start, FIRST_STEPS) for start in starts]
    return _climb(rows, max(runs, key=lambda kinds: float(_total(rows, kinds).mean())), NUM_STEPS)


def _start(rows: _Rows, one: _Kinds, num: int, generator: Generator) -> Tensor:
    """Shares of kinds in tasks: near which of some tasks, chosen far from each other, each is."""
    theta, _ = rows.moments(one.loc[0], one.cov[0], rows.mean.new_zeros(len(rows)))
    chosen = [int(randint(len(theta), (1,), generator=generator))]
    for _ in range(num - 1):
        nearest = torch.cdist(theta, theta[chosen]).square().amin(-1) + SEEDING
        chosen.append(int(torch.multinomial(nearest, 1, generator=generator)))
    near = torch.cdist(theta, theta[chosen]).argmin(-1)
    return torch.nn.functional.one_hot(near, num).double()


def _climb(rows: _Rows, kinds: _Kinds, num_steps: int) -> _Kinds:
    before = -math.inf
    for _ in range(num_steps):
        joint = rows.log_evidence(kinds) + kinds.log_shares
        now = float(joint.logsumexp(-1).mean())
        if now - before < TOLERANCE:
            break
        before, kinds = now, _improved(rows, joint.softmax(-1), kinds)
    return kinds


def _improved(rows: _Rows, shares: Tensor, kinds: _Kinds) -> _Kinds:
    """Moments of what is known of theta in the tasks of each kind, covariances drawn together."""
    size, k = shares.sum(0), rows.mean.shape[-1]
    loc, scatter = torch.empty_like(kinds.loc), torch.empty_like(kinds.cov)
    for i, share in enumerate(shares.mT):
        theta, cov = rows.moments(kinds.loc[i], kinds.cov[i], share)
        loc[i] = (share @ theta) / size[i].clamp(min=1e-9)
        about = theta - loc[i]
        scatter[i] = cov + (share[:, None] * about).mT @ about
    num, more = float(size.sum()), k + 3.0
    shared = scatter.sum(0)
    diagonal = (shared.diagonal() / num).diag()
    within = (shared + more * diagonal) / (num + more)
    cov = (scatter + more * within) / (size[:, None, None] + more)
    return _Kinds(loc, cov, ((size + 1.0) / (num + len(size))).log())
