"""1-D regression: how far each member is from exact Bayes under the distribution that it was trained on.

Known rows are 3 to 46, each number as often; 3 rows or more are asked about, 49 at most with the known ones. Scores are
in nats per row, means over the rows of a task and then over tasks. A gap is paired: exact Bayes minus the member on the
same rows. Exact Bayes answers in kind: by a normal distribution with its own moments where each row is scored alone.

Source of the setting: Nguyen and Grover, Transformer neural processes (2022).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

import bayesmeta
from bayesmeta import Data
from bayesmeta.neural_processes import Schedule
from benchmarks.neural_processes.exact import Scores
from benchmarks.neural_processes.processes import STREAMS, MixedStream, Stream
from benchmarks.neural_processes.wheel import BUDGETS as WHEELS
from benchmarks.neural_processes.wheel import WheelBudget

__all__ = ["BUDGETS", "MEMBERS", "Budget", "MemberScores", "Part", "evaluation", "num_steps", "prior_of", "scores_of"]

LEAST_KNOWN, MOST_KNOWN, LEAST_ASKED, MOST_ROWS = 3, 46, 3, 49
NUM_ORDERS = 8  # of a joint
ORDERED = range(10, 15)  # known rows where orders are compared
COVERED = 0.9


@dataclass(frozen=True)
class Budget:
    """How much of it.

    Args:
        effort: share of the steps of a member.
        num_tasks: for each number of known rows.
        step: between numbers of known rows.
        wheel: of the wheel bandit.
        data: the folder of real data.
    """

    effort: float
    num_tasks: int
    step: int
    wheel: WheelBudget
    data: Path | None = None


BUDGETS = {"quick": Budget(0.01, 8, 9, WHEELS["quick"]), "full": Budget(1.0, 32, 1, WHEELS["full"])}


@dataclass(frozen=True)
class Member:
    """How one is made, and how long it learns.

    Args:
        initial: of tasks.
        num_steps: about 20 CPU-minutes of a transformer, and 15 of the others.
        knows_stationarity: whether it is built to answer alike wherever rows lie.
    """

    initial: Callable[[Data], Any]
    num_steps: int
    knows_stationarity: bool = False


MEMBERS = {
    "transformer": Member(bayesmeta.TransformerNeuralProcess.initial, 23_000, knows_stationarity=True),
    "transformer_60": Member(bayesmeta.TransformerNeuralProcess.initial, 69_000, knows_stationarity=True),
    "transformer_anywhere": Member(
        lambda tasks: bayesmeta.TransformerNeuralProcess.initial(tasks, knows_stationarity=False), 23_000
    ),
    "conditional": Member(bayesmeta.ConditionalNeuralProcess.initial, 40_000),
    "latent": Member(bayesmeta.LatentNeuralProcess.initial, 20_000),
    "attentive": Member(bayesmeta.AttentiveNeuralProcess.initial, 15_000),
}


class Part(NamedTuple):
    """Tasks with one number of known rows, and what exact Bayes says of them."""

    tasks: Data
    num_known: int
    parameters: Tensor
    exact: Scores

    @property
    def known(self) -> Data:
        return self.tasks.rows(slice(0, self.num_known))

    @property
    def asked(self) -> Data:
        return self.tasks.rows(slice(self.num_known, None))


def prior_of(kernel: str, member: str, effort: float, checkpoint: Any, *, progress: bool = False) -> Any:
    """The member after learning from a stream of the kernel's tasks."""
    stream: Any = STREAMS[kernel] if kernel != "mixture" else MixedStream(tuple(STREAMS.values()))
    scale = stream.draw(500, 64, generator=Generator().manual_seed(1)).to(torch.float32)
    start, schedule = MEMBERS[member].initial(scale), Schedule(num_steps(member, effort))
    return start.fit(
        stream, schedule=schedule, generator=Generator().manual_seed(0), checkpoint=checkpoint, progress=progress
    )


def num_steps(member: str, effort: float) -> int:
    """Of a share of those of a member."""
    return max(round(effort * MEMBERS[member].num_steps), 1)


def evaluation(stream: Stream, budget: Budget, generator: Generator) -> Iterator[Part]:
    """Tasks that no member has seen: other seeds than those of learning."""
    for num_known in range(LEAST_KNOWN, MOST_KNOWN + 1, budget.step):
        num_asked = int(torch.randint(LEAST_ASKED, MOST_ROWS - num_known + 1, (), generator=generator))
        num_rows = num_known + num_asked
        tasks, parameters = stream.draw_with_parameters(budget.num_tasks, num_rows, generator=generator)
        x, y = tasks.x[..., 0], tasks.y
        exact = stream.exact((x[:, :num_known], y[:, :num_known]), (x[:, num_known:], y[:, num_known:]))
        yield Part(tasks, num_known, parameters, exact)


class MemberScores(NamedTuple):
    """Of each task `(tasks,)`, all parts in turn.

    Args:
        num_known: rows.
        parameters: `(tasks, 2)`.
        gap: of rows alone.
        joint_gap: of rows together, each predicted by a look at all before it.
        chain_gap: the same by later rows, for members that have them; else NaN.
        covered: whether the first row that is asked about lies in the interval of 90%.
        spread: standard deviation of the joint per row over orders, NaN where it was not measured.
    """

    num_known: Tensor
    parameters: Tensor
    gap: Tensor
    joint_gap: Tensor
    chain_gap: Tensor
    covered: Tensor
    spread: Tensor


@torch.no_grad()
def scores_of(prior: Any, parts: list[Part]) -> MemberScores:
    """How far a member is from exact Bayes on each task."""
    each = [_scores(prior, part) for part in parts]
    return MemberScores(*(torch.cat(column) for column in zip(*each, strict=True)))


def _scores(prior: Any, part: Part) -> MemberScores:
    known, asked = part.known.to(prior.dtype), part.asked.to(prior.dtype)
    posterior, num = prior.condition(known), asked.mask.shape[-1]
    prediction = posterior.predict(asked.x)
    gap = (part.exact.normal - prediction.log_prob(asked.y)).mean(1)
    joint = (part.exact.together - posterior.log_evidence(asked)) / num
    nothing = torch.full_like(joint, torch.nan)
    chain = (
        (part.exact.together - posterior.chain_log_prob(asked)) / num if hasattr(prior, "chain_log_prob") else nothing
    )
    first = posterior.predict(asked.x[:, :1])
    mean, sd = first.mean[:, 0], first.stddev[:, 0]
    half = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(0.5 + COVERED / 2.0))
    covered = ((asked.y[:, 0] - mean).abs() < half * sd).double()
    counts = torch.full((len(gap),), float(part.num_known))
    spread = _over_orders(posterior, asked) if part.num_known in ORDERED else nothing
    return MemberScores(counts, part.parameters, gap.double(), joint.double(), chain.double(), covered, spread.double())


def _over_orders(posterior: Any, asked: Data) -> Tensor:
    """Standard deviation, over orders of the rows, of their joint log density per row."""
    generator = Generator().manual_seed(5)
    num = asked.mask.shape[-1]
    orders = [torch.randperm(num, generator=generator) for _ in range(NUM_ORDERS)]
    return torch.stack([posterior.log_evidence(asked.rows(order)) / num for order in orders]).std(0)
