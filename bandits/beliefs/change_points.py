r"""Rewards that change at unknown times: partition tree weighting over when the present stretch of a task began.

Time is a binary tree of $2^{\text{depth}}$ rows. A node of it, a stretch of $2^i$ rows, either did not change, or is
two halves, each of which did or did not, both with probability one half:

$$ w_{node} = \tfrac12\, p(\text{rows in it}) + \tfrac12\, w_{left}\, w_{right}. $$

Only the nodes that hold the present matter, one per level: a row costs O(depth), and what lies before is one number per
level. A draw takes a level as often as the present stretch is probably its node, and then all arms from the rows in it.

Source: Veness, White, Bowling and György, Partition tree weighting (2013); Veness et al., Partition tree weighting for
non-stationary stochastic bandits (2025), whose ActivePTW this is for Bernoulli arms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bandits.beliefs.alternatives import OnlineAlternatives
from bandits.beliefs.wrapped import WeighableSums, Wrapped, turns
from bayesmeta.online.protocol import Index, State
from bayesmeta.online.sums import RowStatistics

__all__ = ["ChangePoints"]


@dataclass(frozen=True, eq=False)
class ChangePoints(Wrapped):
    """A task whose arms all begin anew, from the prior, at times that nobody tells.

    Args:
        prior: of a stretch without change, with additive statistics and `log_evidence`.
        depth: of the tree: after 2^depth rows of a task all before is forgotten.

    Raises:
        ValueError: `depth` is not from 1 to 40.
    """

    prior: WeighableSums
    depth: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.depth <= 40:
            raise ValueError(f"depth must be from 1 to 40; got {self.depth}")

    def online(self, batch_shape: Sequence[int]) -> "OnlineChangePoints":
        return OnlineChangePoints(self, batch_shape)


class OnlineChangePoints(OnlineAlternatives):
    """For each task and level: the rows since its node began, their evidence, and the weight of its ended left half."""

    def __init__(self, prior: ChangePoints, batch_shape: Sequence[int]) -> None:
        self.batch_shape = torch.Size(batch_shape)
        tasks, *rest = self.batch_shape
        self._levels = prior.depth + 1
        self._prior = prior.prior.expand((tasks, self._levels, *rest))
        self._rows = RowStatistics(self._prior)
        self._evidence = torch.zeros(tasks, self._levels, *rest, dtype=torch.float64)
        self._left = torch.zeros(tasks, self._levels, dtype=torch.float64)
        self._clock = torch.zeros(tasks, dtype=torch.long)

    def add(self, index: Index, x: Tensor, y: Tensor) -> None:
        self._rows.require(x, y)
        for turn in turns(index[0]):
            self._step(tuple(part[turn] for part in index), x[turn], y[turn])

    def state_dict(self) -> State:
        rows = self._rows.state_dict()
        moved = None if rows is None else {name: _arms_second(value) for name, value in rows.items()}
        if self._evidence.ndim == 2:
            moved = rows
        evidence = self._evidence if self._evidence.ndim == 2 else _arms_second(self._evidence)
        return {"rows": moved, "evidence": evidence, "whole": {"left": self._left, "clock": self._clock}}

    def load_state_dict(self, state: State) -> None:
        rows, evidence, whole = state["rows"], state["evidence"].clone(), state["whole"]
        if self._evidence.ndim > 2:
            rows = None if rows is None else {name: _arms_second(value) for name, value in rows.items()}
            evidence = _arms_second(evidence)
        self._rows.load_state_dict(rows)
        self._evidence, self._left, self._clock = evidence, whole["left"].clone(), whole["clock"].clone()

    def _step(self, entry: Index, x: Tensor, y: Tensor) -> None:
        """One row of each of some tasks."""
        task, rest = entry[0], entry[1:]
        level = torch.arange(self._levels)
        at = (task[:, None], level, *(part[:, None] for part in rest))
        flat = tuple(part.expand(len(task), self._levels).reshape(-1) for part in at)
        self._rows.add(flat, x.repeat_interleave(self._levels, 0), y.repeat_interleave(self._levels, 0))
        self._evidence[at] = self._prior[at].log_evidence(self._rows[at]).double()
        weight = self._weights(task)
        self._clock[task] += 1
        # nodes that end now: as many levels as the number of rows has zeros at its end, and the one of single rows
        ended = (self._clock[task][:, None] & ((1 << level) - 1)) == 0
        last = ended.sum(-1) - 1
        whole = weight.gather(1, last[:, None])[:, 0]
        which, where = torch.where(ended)
        self._left[task[which], where] = 0.0
        self._evidence[task[which], where] = 0.0
        self._rows.clear((task[which], where))
        goes_on = last + 1 < self._levels
        self._left[task[goes_on], last[goes_on] + 1] = whole[goes_on]

    def _weights(self, task: Any) -> Tensor:
        """log w of the node of each level `(n, levels)`."""
        stays, left = self._stays(task), self._left[task]
        weight = [stays[:, 0]]
        for i in range(1, self._levels):
            weight.append(torch.logaddexp(stays[:, i], left[:, i] + weight[-1]) - math.log(2.0))
        return torch.stack(weight, -1)

    def _stays(self, task: Any) -> Tensor:
        """log evidence of the rows in the node of each level, of all arms."""
        evidence = self._evidence[task]
        return evidence.flatten(2).sum(-1) if evidence.ndim > 2 else evidence

    def _log_weights(self, index: Any) -> Tensor:
        """That the next row's stretch is the node of each level, from the root down."""
        weight, stays, left = self._weights(index), self._stays(index), self._left[index]
        stops = stays - math.log(2.0) - weight
        stops[:, 0] = 0.0
        goes_down = left[:, 1:] + weight[:, :-1] - math.log(2.0) - weight[:, 1:]
        above = goes_down.flip(-1).cumsum(-1).flip(-1)
        stops[:, :-1] += above
        return stops.log_softmax(-1)

    def _given(self, index: Any, which: Tensor) -> Any:
        task = torch.arange(len(self._clock))[index]
        prior = self._prior[task, which]
        return prior if self._rows.are_none else prior.condition(self._rows[task, which])

    def _each(self, index: Any) -> Any:
        prior = self._prior[index]
        return prior if self._rows.are_none else prior.condition(self._rows[index])


def _arms_second(value: Any) -> Any:
    """The axes of levels and arms exchanged, of a tensor; anything else as it is."""
    return value.transpose(1, 2) if isinstance(value, Tensor) else value
