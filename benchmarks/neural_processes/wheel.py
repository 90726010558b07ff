"""Regret on the wheel bandit of what was learned from past wheels, in percent of that of a random arm.

Members learn from `WheelStream` and decide by the greatest expected reward plus some standard deviations of it, from
the rows that told them something (`FewRows`). In the same rounds play:

- `exact`: the greatest expected reward of exact Bayes over delta, which knows the form of rewards; `exact_thompson`:
  Thompson sampling of it. Thompson sampling tries an arm as often as it is the best one, however little it costs to
  find out, and is far from the best policy here.
- `linear_thompson`: Thompson sampling of a linear regression for each arm, whose prior is learned from past wheels.
- `uniform`: any arm, by its expectation: what regrets are divided by.

The ratio is of sums over seeds, which are tasks of one policy; its 95% interval is by resampling of seeds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

import bandits
from bayesmeta import ConditionalNeuralProcess, Data, LinearGaussian, TransformerNeuralProcess
from bayesmeta.neural_processes import GaussianHead, Schedule
from benchmarks.neural_processes.few_rows import FewRows
from benchmarks.neural_processes.wheel_exact import RULES, exact_regret, uniform_regret
from benchmarks.neural_processes.wheel_stream import ARMS, WheelStream
from benchmarks.report import Figure

__all__ = [
    "BUDGETS",
    "DELTAS",
    "MEMBERS",
    "Member",
    "Row",
    "WheelBudget",
    "in_percent",
    "learned",
    "num_steps",
    "play",
    "wheel",
]

DELTAS = (0.7, 0.9, 0.95, 0.99, 0.995)
LEAST = 2.0  # by which a reward has to be uncertain for its row to be kept: as 50 of probability 1 in 600
NUM_RESAMPLES = 2000
NUM_PAST = 400  # tasks by which scales are set, and from which the linear prior is learned
MASKED, FILLED = WheelStream(), WheelStream(filled=True)


@dataclass(frozen=True)
class WheelBudget:
    """How much is played and learned.

    Args:
        seeds, rounds: of each delta.
        effort: share of the steps of a member.
    """

    seeds: int
    rounds: int
    effort: float


BUDGETS = {"quick": WheelBudget(5, 200, 0.02), "full": WheelBudget(50, 2000, 1.0)}


@dataclass(frozen=True)
class Member:
    """A neural process, how it learns, and how it decides.

    Args:
        start: makes one that has learned nothing, from tasks of the stream.
        schedule: of learning; as many rows are kept at decisions as are known in learning.
        width: standard deviations that are added to expected rewards.
        stream: what it learns from.
    """

    start: Callable[[Data], Any]
    schedule: Schedule
    width: float
    stream: WheelStream = MASKED


class Row(NamedTuple):
    """Of a table: percent of the uniform regret and its interval, and decisions of a task that were wrong.

    Args:
        missed: in which the arm that paid 50 was not chosen.
        vain: in which an arm of 1.0 was chosen and the first was the best.
    """

    delta: float
    member: str
    percent: float
    low: float
    high: float
    missed: float
    vain: float


def _transformer(tasks: Data) -> TransformerNeuralProcess:
    sizes: dict[str, Any] = {"width": 48, "num_layers": 4, "num_heads": 4, "linear_width": 8, "hidden": 96}
    return TransformerNeuralProcess.initial(
        tasks, head=GaussianHead, knows_stationarity=False, categories={2: ARMS}, **sizes
    )


def _conditional(tasks: Data) -> ConditionalNeuralProcess:
    return ConditionalNeuralProcess.initial(tasks, head=GaussianHead, categories={2: ARMS}, width=128, num_layers=3)


def _schedule(num_steps: int, most_known: int = 64) -> Schedule:
    return Schedule(num_steps, num_tasks=16, most_known=most_known, num_asked=48, average=0.998)


MEMBERS = {
    "transformer": Member(_transformer, _schedule(2500), width=0.1),
    "conditional": Member(_conditional, _schedule(12_000), width=0.1),
    "conditional_filled": Member(_conditional, _schedule(4000, 32 * ARMS), width=0.1, stream=FILLED),
}


def wheel(
    members: Mapping[str, Any], budget: WheelBudget, *, deltas: Sequence[float] = DELTAS, seed: int = 0
) -> tuple[list[Figure], list[Row]]:
    """`wheel/<delta>/<member>`: percent of the uniform regret; and the rows of a table.

    Args:
        members: by name, a `Member`, which learns here, or a pair of it and the process that `learned` made of it.
        seed: of what is played.
    """
    ready = {
        name: each if isinstance(each, tuple) else (each, learned(each, budget.effort))
        for name, each in members.items()
    }
    rows = [row for delta in deltas for row in _at(delta, ready, budget, seed)]
    return [_figure(row, budget) for row in rows], rows


def learned(member: Member, effort: float = 1.0, checkpoint: Path | None = None) -> Any:
    """The process of a member after a share of its steps."""
    schedule = member.schedule
    tasks = member.stream.draw(NUM_PAST, schedule.most_known, generator=Generator().manual_seed(1))
    shorter = replace(schedule, num_steps=num_steps(member, effort))
    return member.start(tasks).fit(
        member.stream, schedule=shorter, generator=Generator().manual_seed(2), checkpoint=checkpoint, progress=False
    )


def num_steps(member: Member, effort: float) -> int:
    """Of a share of those of a member."""
    return max(1, round(effort * member.schedule.num_steps))


def play(process: Any, member: Member, environment: bandits.Wheel, rounds: int, *, seed: int = 0) -> Tensor:
    """Regret `(tasks, rounds)` of a learned process in every task of an environment."""
    filled = ARMS if member.stream.filled else None
    prior = FewRows(process.to(torch.float32), member.schedule.most_known, LEAST, filled)
    arms = bandits.Joined(environment.arms.names, torch.arange(ARMS).double()[:, None])
    policy = bandits.LinUCB(prior, arms, width=member.width, tasks=environment.num_tasks, seed=seed, propensities=False)
    return bandits.simulate(policy, environment, rounds, progress=False).regret


def in_percent(regret: Tensor, uniform: Tensor) -> tuple[float, float, float]:
    """Of the total of one in that of the other, `(seeds,)` each, and the ends of its interval."""
    at = torch.randint(len(regret), (NUM_RESAMPLES, len(regret)), generator=Generator().manual_seed(0))
    ratios = regret[at].sum(-1) / uniform[at].sum(-1)
    low, high = torch.quantile(ratios, torch.tensor([0.025, 0.975]).to(ratios)).tolist()
    return 100.0 * float(regret.sum() / uniform.sum()), 100.0 * low, 100.0 * high


def _at(delta: float, members: Mapping[str, tuple[Member, Any]], budget: WheelBudget, seed: int) -> Iterator[Row]:
    environment = bandits.Wheel(budget.seeds, delta, seed=seed)
    uniform = uniform_regret(environment, budget.rounds).double().sum(-1)
    for name, rule in RULES.items():
        yield _row(delta, name, exact_regret(environment, budget.rounds, rule, seed=seed), uniform)
    yield _row(delta, "linear_thompson", _linear(delta, budget, seed), uniform)
    for name, (member, process) in members.items():
        yield _row(delta, name, play(process, member, environment, budget.rounds, seed=seed), uniform)


def _row(delta: float, name: str, regret: Tensor, uniform: Tensor) -> Row:
    missed, vain = (part.double().sum(-1).mean().item() for part in (regret > 10.0, (regret > 0.1) & (regret < 10.0)))
    return Row(delta, name, *in_percent(regret.double().sum(-1), uniform), missed, vain)


def _figure(row: Row, budget: WheelBudget) -> Figure:
    meaning = (
        f"% of the regret of a random arm, 95% interval {row.low:.3g} to {row.high:.3g}; "
        f"{budget.seeds} seeds of {budget.rounds} rounds, {row.missed:.1f} missed and {row.vain:.1f} tried in vain"
    )
    return Figure(f"wheel/{row.delta:g}/{row.member}", row.percent, meaning)


class _WithConstant(bandits.Wheel):
    """Contexts have a one in front."""

    def scene(self, t: int) -> bandits.Scene:
        scene = super().scene(t)
        assert scene.context is not None
        return bandits.Scene(scene.means, scene.rewards, _with_constant(scene.context))


def _with_constant(context: Tensor) -> Tensor:
    return torch.cat([torch.ones_like(context[..., :1]), context], -1)


def _linear(delta: float, budget: WheelBudget, seed: int) -> Tensor:
    past = MASKED.draw(NUM_PAST, 64, generator=Generator().manual_seed(1))
    arm = past.x[..., 2]
    x = _with_constant(past.x[..., :2])
    tasks = Data(x.repeat(ARMS, 1, 1), past.y.repeat(ARMS, 1), torch.cat([arm == number for number in range(ARMS)]))
    prior = LinearGaussian.initial(tasks).fit(tasks)
    environment = _WithConstant(budget.seeds, delta, seed=seed)
    policy = bandits.ThompsonSampling(prior, environment.arms.names, tasks=budget.seeds, seed=seed, propensities=False)
    return bandits.simulate(policy, environment, budget.rounds, progress=False).regret
