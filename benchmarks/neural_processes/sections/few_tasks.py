"""What changed copies of past tasks are worth where past tasks are few, and what learning from another prior first is.

Past tasks have `NUM_ROWS` rows each, of the RBF setting of `processes`. A small transformer learns from them by the
loop that every user has (a fifth held out, then all), with one option of `Augmentation` at a time, with all, and after
it has learned from a stream of Matern-5/2 tasks. It is asked about half of the rows of other tasks given the rest, and
its gap to exact Bayes is in nats per row. A replication has past tasks of its own, the same for all options.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Generator, Tensor

from bayesmeta import Data, TransformerNeuralProcess
from bayesmeta.neural_processes import Augmentation, Schedule
from benchmarks.neural_processes.processes import STREAMS
from benchmarks.neural_processes.sections.scores import Rows, interval
from benchmarks.pieces import Pieces
from benchmarks.report import Figure

__all__ = ["BUDGETS", "OPTIONS", "FewBudget", "few_tasks", "shown"]

NUM_ROWS, NUM_KNOWN = 24, 12
SIZES: dict[str, Any] = {"width": 32, "num_layers": 3, "num_heads": 4, "linear_width": 16, "hidden": 64}


class FewBudget(NamedTuple):
    """How much of it.

    Args:
        nums: of past tasks.
        replications: sets of past tasks.
        num_tasks: that are asked about.
        num_steps: of learning, at most.
    """

    nums: Sequence[int]
    replications: int
    num_tasks: int
    num_steps: int


BUDGETS = {"quick": FewBudget((20,), 1, 50, 100), "full": FewBudget((20,), 1, 400, 800)}
OPTIONS: dict[str, Augmentation | None] = {
    "as_they_are": None,
    "interpolation": Augmentation(interpolation=0.5),
    "jitter": Augmentation(jitter=0.02),
    "scale_and_shift": Augmentation(log_scale=0.3, shift=0.3),
    "all": Augmentation(interpolation=0.5, jitter=0.02, log_scale=0.3, shift=0.3),
}


def few_tasks(
    pieces: Pieces, _budget: Any, _members: Sequence[str], _kernels: Sequence[str], say: Callable[[str], None]
) -> tuple[list[Figure], Rows]:
    """`few_tasks/<past tasks>/<option>`: mean gap in nats per row, and half of its interval of 95%."""
    size = BUDGETS[pieces.budget]

    def first() -> Any:
        return pieces.learned("prior/few_tasks", size.num_steps, lambda _: learned_first(size.num_steps))[0]

    rows = []
    for num in size.nums:
        found: dict[str, list[float]] = {}
        for replication in range(size.replications):
            say(f"transformers learn from {num} tasks, time {replication + 1}")
            name = f"few_tasks/{num}/{replication}"
            gaps = pieces.numbers(name, lambda num=num, time=replication: gaps_of(num, time, size, first))
            for option, each in gaps.items():
                found.setdefault(option, []).extend(each)
        for option, each in found.items():
            rows.append({"setting": str(num), "method": option, "gap": interval(torch.tensor(each))})
    return [figure for row in rows for figure in _figures(row)], rows


def shown(rows: Rows) -> Table:
    table = Table(title="few past tasks: gap to exact Bayes, nats per row, with intervals of 95% over tasks")
    for column in ("past tasks", "option", "gap"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["setting"], row["method"], f"{row['gap'][0]:.3f} ± {row['gap'][1]:.3f}")
    return table


def _figures(row: dict[str, Any]) -> list[Figure]:
    of = f"{row['setting']}/{row['method']}"
    return [
        Figure(f"few_tasks/{of}", row["gap"][0], "nats per row behind exact Bayes"),
        Figure(f"few_tasks_half/{of}", row["gap"][1], "half of its interval of 95%"),
    ]


def learned_first(num_steps: int) -> Any:
    """A transformer that has learned from Matern-5/2 tasks, to go on from."""
    stream = STREAMS["matern52"]
    tasks = stream.draw(200, 64, generator=Generator().manual_seed(0)).to(torch.float32)
    start = TransformerNeuralProcess.initial(tasks, **SIZES)
    schedule = Schedule(num_steps, most_known=NUM_ROWS, num_asked=NUM_KNOWN)
    return start.fit(stream, schedule=schedule, generator=Generator().manual_seed(1), progress=False)


def gaps_of(num_past: int, replication: int, budget: FewBudget, first: Callable[[], Any]) -> dict[str, list[float]]:
    """Gaps of each option `(num_tasks,)`, by its name.

    Args:
        first: what `learned_first` returned.
    """
    generator = Generator().manual_seed(100 + replication)
    past = STREAMS["rbf"].draw(num_past, NUM_ROWS, generator=generator).to(torch.float32)
    tasks = STREAMS["rbf"].draw(budget.num_tasks, NUM_ROWS, generator=generator)
    x, y = tasks.x[..., 0], tasks.y
    exact = STREAMS["rbf"].exact((x[:, :NUM_KNOWN], y[:, :NUM_KNOWN]), (x[:, NUM_KNOWN:], y[:, NUM_KNOWN:])).normal

    def gap(start: Any, augmentation: Augmentation | None, rate: float) -> list[float]:
        schedule = Schedule(budget.num_steps, most_known=NUM_ROWS - 2, num_asked=NUM_KNOWN, rate=rate)
        prior = start.fit(
            past, schedule=schedule, generator=Generator().manual_seed(2), augmentation=augmentation, progress=False
        )
        return _gap(prior, tasks, exact).tolist()

    start = TransformerNeuralProcess.initial(past, **SIZES)
    found = {name: gap(start, augmentation, 4e-3) for name, augmentation in OPTIONS.items()}
    another = first()
    found["another_prior"] = _gap(another, tasks, exact).tolist()
    found["another_prior_first"] = gap(another, None, 1e-3)
    return found


@torch.no_grad()
def _gap(prior: Any, tasks: Data, exact: Tensor) -> Tensor:
    tasks = tasks.to(prior.dtype)
    known, asked = tasks.rows(slice(0, NUM_KNOWN)), tasks.rows(slice(NUM_KNOWN, None))
    return (exact - prior.condition(known).predict(asked.x).log_prob(asked.y)).mean(1)
