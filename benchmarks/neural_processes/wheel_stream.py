"""The wheel bandit as a stream of tasks: rows of a context and an arm, with the reward.

A task has a radius delta, uniform on (0, 1). Arm 0 pays 1.2 on average. The others pay 1, but one of them, the *right*
arm of the context's quadrant, pays 50 where the context lies beyond delta. So delta is all there is to learn, and what
is known of it is an interval: from the farthest context whose right arm paid 1 to the nearest one where it paid 50.

Sources: Riquelme, Tucker and Snoek, Deep Bayesian bandits showdown (2018), section 5.4; Nguyen and Grover, Transformer
neural processes (2022), section 5.3.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from bayesmeta import Data
from bayesmeta.neural_processes.episodes import Moments
from bayesmeta.random import rand, randint, randn

__all__ = ["ARMS", "FAR_MEAN", "NEAR_MEAN", "SAFE_MEAN", "Interval", "WheelStream", "right_arm"]

ARMS = 5
SAFE_MEAN, NEAR_MEAN, FAR_MEAN = 1.2, 1.0, 50.0
NOISE_SD = 0.01
SHARE_PLAYED = 0.5  # of tasks, whose known rows are as a bandit meets them
SHARE_RIGHT = 0.8  # of their rows, in which the right arm was chosen
LEAST_MARGIN, MOST_MARGIN = 0.002, 0.3  # of contexts about the interval, in their radius
LEAST_RIM = 1e-3  # distance from the rim of half of the rows that are asked about
LIKE = torch.zeros(0, dtype=torch.float64)


class Interval(NamedTuple):
    """Between which radii delta is known to be, `(...)` each; it is uniform there."""

    low: Tensor
    high: Tensor

    def share_below(self, radius: Tensor) -> Tensor:
        """Probability that delta is less."""
        return ((radius - self.low) / (self.high - self.low)).clamp(0.0, 1.0)

    def given(self, radius: Tensor, is_far: Tensor, is_right: Tensor) -> "Interval":
        """After the reward of the right arm at a context, where `is_right`."""
        low = torch.where(is_right & ~is_far, torch.maximum(self.low, radius), self.low)
        high = torch.where(is_right & is_far, torch.minimum(self.high, radius), self.high)
        return Interval(low, high)


class Rows(NamedTuple):
    """Contexts by radius and angle, and arms, `(tasks, rows)` each."""

    radius: Tensor
    angle: Tensor
    arm: Tensor

    @property
    def x(self) -> Tensor:
        """Two columns of the context and one of the arm."""
        return torch.stack([self.radius * self.angle.cos(), self.radius * self.angle.sin(), self.arm.to(LIKE)], -1)

    @property
    def is_right(self) -> Tensor:
        return self.arm == right_arm(self.x)

    def means(self, is_far: Tensor) -> Tensor:
        near = torch.where(self.arm == 0, SAFE_MEAN, NEAR_MEAN).to(LIKE)
        return torch.where(is_far & self.is_right, FAR_MEAN, near)


def right_arm(context: Tensor) -> Tensor:
    """Which arm can pay 50, by the signs of the first two columns."""
    return 1 + (context[..., 0] < 0).long() * 2 + (context[..., 1] < 0).long()


@dataclass(frozen=True)
class WheelStream:
    """Tasks of the wheel, with the exact moments of what is asked about.

    Contexts and arms of known rows are chosen in two ways. In half of the tasks contexts are uniform in the disc, and
    arms at random. In the others they are as a bandit meets those that teach it something: contexts are uniform where
    delta may still be, given the rows before, and in a margin about it whose width differs between tasks; the right arm
    is chosen in four of five, and else any. Choices depend on rows before and never on delta itself, so that exact
    Bayes is the same in both.

    Rows that are asked about do not depend on known ones: half of their contexts are uniform in the disc, and the
    distances of the others from the rim are uniform on a logarithmic scale; the arm is the right one in half of the
    rows, and else any.

    Args:
        filled: the published setting, in which a round gives all five rewards and those of arms that were not chosen
            are standard normal noise. Members take one number for each row, so that a round is five rows one after
            another, of which four hold noise, and which they are is not said. Moments are then those of a learner that
            can tell noise from rewards.
    """

    filled: bool = False

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        """Known rows in random order: x `(num_tasks, num_rows, 3)`, float64."""
        delta = rand((num_tasks, 1), like=LIKE, generator=generator)
        _, known = self._known(delta, num_rows, generator)
        order = rand((num_tasks, num_rows), like=LIKE, generator=generator).argsort(-1)
        return Data.of(known.x.take_along_dim(order[..., None], 1), known.y.gather(1, order))

    def draw_with_moments(
        self, num_tasks: int, num_known: int, num_asked: int, *, generator: Generator
    ) -> tuple[Data, Moments]:
        delta = rand((num_tasks, 1), like=LIKE, generator=generator)
        intervals, known = self._known(delta, num_known, generator)
        rows = _asked(num_tasks, num_asked, generator)
        y = _rewards(rows.means(rows.radius > delta), generator)
        moments = _moments(rows, intervals)
        return Data.of(torch.cat([known.x, rows.x], 1), torch.cat([known.y, y], 1)), moments

    def _known(self, delta: Tensor, num_rows: int, generator: Generator) -> tuple[Interval, Data]:
        """Known rows in the order in which they were chosen, and intervals `(tasks, num_rows + 1)` before and after."""
        num_rounds = -(-num_rows // ARMS) if self.filled else num_rows
        rows, intervals = _chosen(delta, num_rounds, generator)
        y = _rewards(rows.means(rows.radius > delta), generator)
        if not self.filled:
            return intervals, Data.of(rows.x, y)
        num_tasks = len(delta)
        order = rand((num_tasks, num_rounds, ARMS), like=LIKE, generator=generator).argsort(-1)
        radius, angle = (part[..., None].expand_as(order).flatten(1) for part in (rows.radius, rows.angle))
        every = Rows(radius, angle, order.flatten(1))
        chosen = order == rows.arm[..., None]
        noise = randn(order.shape, like=LIKE, generator=generator)
        values = torch.where(chosen, y[..., None], noise).flatten(1)
        # a reward counts from its own row on
        num_seen = torch.nn.functional.pad(chosen.flatten(1).cumsum(-1), (1, 0))[:, : num_rows + 1]
        after = Interval(*(part.gather(1, num_seen) for part in intervals))
        return after, Data.of(every.x[:, :num_rows], values[:, :num_rows])


def _chosen(delta: Tensor, num: int, generator: Generator) -> tuple[Rows, Interval]:
    """Contexts and arms of so many rounds of each task, and intervals `(tasks, num + 1)`."""
    num_tasks = len(delta)

    def uniform(*shape: int) -> Tensor:
        return rand(shape, like=LIKE, generator=generator)

    played = uniform(num_tasks) < SHARE_PLAYED
    margin = LEAST_MARGIN * (MOST_MARGIN / LEAST_MARGIN) ** uniform(num_tasks)
    place, angle = uniform(num_tasks, num), 2.0 * math.pi * uniform(num_tasks, num)
    any_arm = randint(ARMS, (num_tasks, num), generator=generator)
    right = right_arm(torch.stack([angle.cos(), angle.sin()], -1))
    arm = torch.where(played[:, None] & (uniform(num_tasks, num) < SHARE_RIGHT), right, any_arm)
    interval = Interval(torch.zeros(num_tasks).to(LIKE), torch.ones(num_tasks).to(LIKE))
    intervals, radii = [interval], []
    for i in range(num):
        inner = torch.where(played, (interval.low - margin).clamp(min=0.0), 0.0).square()
        outer = torch.where(played, (interval.high + margin).clamp(max=1.0), 1.0).square()
        radius = (inner + (outer - inner) * place[:, i]).sqrt()
        interval = interval.given(radius, radius > delta[:, 0], arm[:, i] == right[:, i])
        intervals.append(interval)
        radii.append(radius)
    radius = torch.stack(radii, 1) if radii else place
    return Rows(radius, angle, arm), Interval(*(torch.stack(part, 1) for part in zip(*intervals, strict=True)))


def _asked(num_tasks: int, num: int, generator: Generator) -> Rows:
    place, angle, kind, choice = rand((4, num_tasks, num), like=LIKE, generator=generator).unbind(0)
    radius = torch.where(kind < 0.5, place.sqrt(), 1.0 - LEAST_RIM**place)
    angle = 2.0 * math.pi * angle
    right = right_arm(torch.stack([angle.cos(), angle.sin()], -1))
    any_arm = randint(ARMS, (num_tasks, num), generator=generator)
    return Rows(radius, angle, torch.where(choice < 0.5, right, any_arm))


def _moments(rows: Rows, intervals: Interval) -> Moments:
    """Of rewards at rows `(tasks, t)`, for each of the intervals `(tasks, k + 1)`."""
    share = Interval(*(part[:, None] for part in intervals)).share_below(rows.radius[..., None])
    near, far = (rows.means(torch.full_like(rows.arm, is_far, dtype=torch.bool))[..., None] for is_far in (0, 1))
    gain = far - near
    return Moments(near + gain * share, gain.square() * share * (1.0 - share) + NOISE_SD**2)


def _rewards(means: Tensor, generator: Generator) -> Tensor:
    return means + NOISE_SD * randn(means.shape, like=LIKE, generator=generator)
