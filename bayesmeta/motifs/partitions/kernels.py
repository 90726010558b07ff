"""Markov chains of partitions: points one by one, and moves that split a part in two or merge two of them.

Labels are `(chains, tasks, n)`. In a split or merge two points are drawn: if they share a part it is split, one of them
on each side, else their parts are merged. How the other points are dealt to two sides is proposed without a look at
where they are, so the same distribution serves the move and its reverse:

    log p(split) - log p(merged) - log q(sides)

is the log ratio of a split, and minus the log ratio of a merge.

Source: Jain and Neal, A split-merge Markov chain Monte Carlo procedure for the Dirichlet process mixture model (2004).
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from bayesmeta.mcmc.kernels.protocol import Info, State
from bayesmeta.motifs.partitions.model import Partitions, Sums
from bayesmeta.random import rand

__all__ = ["Deal", "PartitionSweeps", "Sides", "gibbs_sweep", "split_or_merge"]


class Sides(NamedTuple):
    """Parts of two anchors, of each chain and task.

    Args:
        anchors: their points `(..., 2, d)`.
        points: other points of their parts in random order, padded to the most that any has `(..., m, d)`.
        is_there: which are no pads `(..., m)`.
        sides: which are with the second anchor `(..., m)`; false where one part has all.
        is_merged: whether one part has all `(...)`.
    """

    anchors: Tensor
    points: Tensor
    is_there: Tensor
    sides: Tensor
    is_merged: Tensor


@runtime_checkable
class Deal(Protocol):
    """How points are dealt to two sides."""

    def deal(self, model: Partitions, parts: Sides, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Sides of points, drawn where these are merged and as they are elsewhere, and their log probability."""
        ...


@dataclass(frozen=True, eq=False)
class PartitionSweeps:
    """Each step splits or merges `num_moves` times, and then updates each point by itself.

    Args:
        deal: None for single points alone.
    """

    model: Partitions
    deal: Deal | None = None
    num_moves: int = 1

    def init(self, position: Tensor) -> State:
        return State(position, self.model.log_density(position))

    def move(self, labels: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """One step of labels `(chains, tasks, n)`, and rates of splits and merges `(chains, tasks)`."""
        total = torch.zeros(labels.shape[:2], dtype=self.model.points.dtype)
        for _ in range(self.num_moves if self.deal else 0):
            assert self.deal is not None
            labels, rate = split_or_merge(self.model, labels, self.deal, generator)
            total = total + rate / self.num_moves
        return gibbs_sweep(self.model, labels, generator), total if self.deal else total + 1.0

    def step(self, state: State, generator: Generator | None = None) -> tuple[State, Info]:
        labels, rate = self.move(state.position.long(), generator)
        position = labels.to(state.position)
        moved = (position != state.position).any(-1)
        nothing = torch.full_like(rate, torch.nan)
        return State(position, self.model.log_density(position)), Info(rate, moved, nothing)


def gibbs_sweep(model: Partitions, labels: Tensor, generator: Generator | None = None) -> Tensor:
    """Each point goes to a part, or to a new one, given all others."""
    labels = labels.clone()
    points = model.points.expand(*labels.shape, -1)
    sums = Sums.of(points, one_hot(labels, int(labels.max()) + 2).to(points))
    log_alpha = model.concentration.log()[:, None]
    for i in range(labels.shape[-1]):
        most = sums.num.shape[-1]
        sums = sums.shifted(points[..., i, :], -one_hot(labels[..., i], most).to(points))
        is_empty = sums.num < 0.5
        if not bool(is_empty.any(-1).all()):  # a place for a new part in each
            sums, most = _widened(sums), most + 1
            is_empty = sums.num < 0.5
        first = is_empty & (is_empty.cumsum(-1) == 1)
        weight = torch.where(first, log_alpha, sums.num.log()).where(~is_empty | first, -torch.inf)
        below = (weight + model.log_predictive(sums, points[..., i, :])).softmax(-1).cumsum(-1)
        uniform = rand((*below.shape[:-1], 1), like=below, generator=generator) * below[..., -1:]
        labels[..., i] = (uniform >= below).sum(-1).clamp(max=most - 1)
        sums = sums.shifted(points[..., i, :], one_hot(labels[..., i], most).to(points))
    return labels


def _widened(sums: Sums) -> Sums:
    """With one more part, which is empty."""
    wider = torch.nn.functional.pad
    return Sums(wider(sums.num, (0, 1)), wider(sums.total, (0, 0, 0, 1)), wider(sums.square, (0, 0, 0, 1)))


def split_or_merge(
    model: Partitions, labels: Tensor, deal: Deal, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """One move of each chain and task: labels, and the probabilities with which moves were accepted."""
    places, parts = two_parts(model, labels, generator)
    sides, log_q = deal.deal(model, parts, generator)
    ratio = log_split(model, parts, sides) - log_q
    rate = torch.where(parts.is_merged, ratio, -ratio).nan_to_num(nan=-torch.inf).clamp(max=0.0).exp()
    accepted = rand(rate.shape, like=rate, generator=generator) < rate
    # the first anchor's part keeps its label; that of the second anchor takes a new one, or the first one's
    first = labels.gather(-1, places[..., :1])
    every = one_hot(labels, int(labels.max()) + 2).sum(-2)
    label = torch.where(parts.is_merged[..., None], (every == 0).int().argmax(-1, keepdim=True), first)
    second = torch.cat([sides & parts.is_there, torch.ones_like(first, dtype=torch.bool)], -1)
    where = torch.cat([places[..., 2:], places[..., 1:2]], -1)
    old = labels.gather(-1, where)
    return labels.scatter(-1, where, torch.where(second & accepted[..., None], label, old)), rate


def two_parts(model: Partitions, labels: Tensor, generator: Generator | None = None) -> tuple[Tensor, Sides]:
    """Places of two anchors and of the points of their parts `(chains, tasks, 2 + m)`, and what is there."""
    keys = rand(labels.shape, like=model.points, generator=generator)
    order = keys.argsort(-1)
    anchors = order[..., :2]
    mine = labels.gather(-1, anchors)
    inside = (labels == mine[..., :1]) | (labels == mine[..., 1:])
    inside = inside.scatter(-1, anchors, False)
    most = int(inside.sum(-1).max())
    # those inside first, in random order
    others = order.gather(-1, inside.gather(-1, order).to(torch.uint8).argsort(-1, descending=True)[..., :most])
    places = torch.cat([anchors, others], -1)
    points = model.points.expand(*labels.shape, -1)
    there = points.gather(-2, places[..., None].expand(*places.shape, points.shape[-1]))
    is_there = inside.gather(-1, others)
    is_merged = mine[..., 0] == mine[..., 1]
    sides = is_there & (labels.gather(-1, others) == mine[..., 1:]) & ~is_merged[..., None]
    return places, Sides(there[..., :2, :], there[..., 2:, :], is_there, sides, is_merged)


def log_split(model: Partitions, parts: Sides, sides: Tensor) -> Tensor:
    """Log density with two parts less that with one, `(chains, tasks)`."""
    second = (sides & parts.is_there).to(parts.points)
    first = (~sides & parts.is_there).to(parts.points)
    two = Sums.of(parts.points, torch.stack([first, second], -1))
    ends = Sums.of(parts.anchors, torch.eye(2).to(parts.points).expand(*sides.shape[:-1], 2, 2))
    two = Sums(*(a + b for a, b in zip(two, ends, strict=True)))
    one = Sums(two.num.sum(-1, keepdim=True), two.total.sum(-2, keepdim=True), two.square.sum(-2, keepdim=True))
    return model.log_parts(two).sum(-1) - model.log_parts(one)[..., 0]
