"""Small grouped data sets: is a network of any use where tasks are a few dozen?

Tables of the folder `hierarchical` that have 15 groups or more, a measurement as y (no count, choice or mark of few
values), and a numeric input that differs within groups; each data set once. Groups are tasks and are split into five
folds. Of each held-out group half of the rows, drawn at random, are known; the score is the log density of the others,
in nats per row, a mean over rows and then over groups. All is learned from groups of the other folds alone.

- `linear_gaussian`: `LinearGaussian` of an intercept and the inputs; `gaussian_process`: `GaussianProcess`.
- `transformer`, `conditional`: networks that learn from past groups alone.
- `transformer_after_prior`: a network that learns from tasks of the fitted linear prior, and then from past groups.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Generator, Tensor

from bayesmeta import ConditionalNeuralProcess, Data, GaussianProcess, TransformerNeuralProcess
from bayesmeta.neural_processes import PriorTasks, Schedule
from benchmarks.neural_processes.sections.folders import folder_of
from benchmarks.neural_processes.sections.scores import Rows, as_figures, as_rows, as_table
from benchmarks.pieces import Pieces
from benchmarks.priors.hierarchical import split_rows
from benchmarks.priors.shared_features import linear, with_intercept
from benchmarks.report import Figure

__all__ = ["BUDGETS", "DATA_SETS", "GroupBudget", "LinearTasks", "Table", "hierarchical", "read", "shown"]

NUM_FOLDS = 5
BESIDE = "linear_gaussian"


@dataclass(frozen=True)
class Table:
    """A file, and its columns of groups, of y, and of inputs."""

    file: str
    group: str
    y: str
    inputs: tuple[str, ...]


DATA_SETS = {
    "sleepstudy": Table("lme4_sleepstudy", "Subject", "Reaction", ("Days",)),
    "oxboys": Table("nlme_Oxboys", "Subject", "height", ("age",)),
    "bodyweight": Table("nlme_BodyWeight", "Rat", "weight", ("Time",)),
    "chickweight": Table("datasets_ChickWeight", "Chick", "weight", ("Time",)),
    "radon": Table("HLMdiag_radon", "county", "log.radon", ("basement",)),
    "gcsemv": Table("mlmRev_Gcsemv", "school", "course", ("written",)),
    "exam": Table("mlmRev_Exam", "school", "normexam", ("standLRT",)),
    "hsb82": Table("mlmRev_Hsb82", "school", "mAch", ("cses",)),
}


@dataclass(frozen=True)
class GroupBudget:
    """Data sets, and the steps of a network, of past groups and of tasks of a prior."""

    data_sets: tuple[str, ...]
    steps_past: int
    steps_prior: int


BUDGETS = {"quick": GroupBudget(("sleepstudy", "oxboys"), 10, 10), "full": GroupBudget(tuple(DATA_SETS), 200, 400)}


@dataclass(frozen=True)
class LinearTasks:
    """Tasks of a linear prior with an intercept, at inputs of past rows, as tasks without an intercept."""

    prior: Any
    rows: Tensor

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        tasks = PriorTasks(self.prior, self._inputs).draw(num_tasks, num_rows, generator=generator)
        return replace(tasks, x=tasks.x[..., :-1])

    def _inputs(self, num_tasks: int, num_rows: int, generator: Generator) -> Tensor:
        return self.rows[torch.randint(len(self.rows), (num_tasks, num_rows), generator=generator)]


def hierarchical(
    pieces: Pieces, budget: Any, members: Sequence[str], _kernels: Sequence[str], say: Callable[[str], None]
) -> tuple[list[Figure], Rows]:
    """`log_prob/hierarchical/<data set>/<method>`, gaps to the linear prior and their mean, and the rows of a table."""
    of_groups, folder = BUDGETS[pieces.budget], folder_of("hierarchical", budget.data)
    taken = [name for name in METHODS if name.split("_")[0] in members or name in (BESIDE, "gaussian_process")]
    found: dict[str, dict[str, Any]] = {}
    for data_set in of_groups.data_sets:
        data = read(folder, DATA_SETS[data_set])
        for name in taken:
            say(f"{data_set}: {name}")
            each = pieces.numbers(f"hierarchical/{data_set}/{name}", partial(_held_out, data, METHODS[name], of_groups))
            whole = found.setdefault(name, {"minutes": 0.0, "scores": {"log_prob": {}}})
            whole["minutes"] += each["minutes"]
            whole["scores"]["log_prob"][data_set] = each["log_prob"]
    rows = as_rows("hierarchical", found, beside=BESIDE)
    rows += [_mean(rows, name) for name in taken]
    return as_figures(rows, {"log_prob": "nats per row"}), rows


def read(folder: Path, table: Table) -> Data:
    """Groups as tasks.

    Raises:
        FileNotFoundError: the table is not in the folder.
    """
    columns = pl.read_parquet(folder / f"{table.file}.parquet").drop_nulls([table.y, *table.inputs])
    groups = [group for _, group in sorted(columns.group_by(table.group), key=lambda pair: str(pair[0][0]))]
    numbers = [(group.select(table.inputs).to_numpy(), group[table.y].to_numpy()) for group in groups]
    return Data.pad([(x.astype(float), y.astype(float)) for x, y in numbers])


def _held_out(data: Data, method: Callable[[Data, GroupBudget], Any], budget: GroupBudget) -> dict[str, Any]:
    """CPU-minutes of all folds, and the score of each group that has rows to ask about."""
    generator = Generator().manual_seed(0)
    fold = torch.randperm(len(data), generator=generator) % NUM_FOLDS
    seen, hidden = split_rows(data, generator)
    scores, start = torch.zeros(len(data), dtype=torch.float64), time.process_time()
    for k in range(NUM_FOLDS):
        now = (fold == k).nonzero()[:, 0]
        prior = method(data[(fold != k).nonzero()[:, 0]], budget)
        with torch.no_grad():
            log_prob = prior.condition(seen[now]).predict(hidden.x[now]).log_prob(hidden.y[now])
        scores[now] = (log_prob * hidden.mask[now]).sum(-1) / hidden.mask[now].sum(-1)
    return {"minutes": (time.process_time() - start) / 60.0, "log_prob": scores.tolist()}


def _mean(rows: Rows, method: str) -> dict[str, Any]:
    """Over data sets, of how far a method is behind."""
    gaps = [row["log_prob_gap"] for row in rows if row["method"] == method]
    half = math.sqrt(sum(half**2 for _, half in gaps)) / len(gaps)
    minutes = next(row["minutes"] for row in rows if row["method"] == method)
    gap = [sum(mean for mean, _ in gaps) / len(gaps), half]
    return {"section": "hierarchical", "setting": "mean", "method": method, "minutes": minutes, "log_prob_gap": gap}


def _gaussian_process(past: Data, _budget: GroupBudget) -> Any:
    return GaussianProcess.initial(past).fit(past)


def _linear(past: Data, _budget: GroupBudget) -> Any:
    return linear(past)


def _transformer(past: Data) -> TransformerNeuralProcess:
    sizes: dict[str, Any] = {"width": 32, "num_layers": 3, "num_heads": 4, "linear_width": 8, "hidden": 64}
    return TransformerNeuralProcess.initial(past, knows_stationarity=False, **sizes)


def _conditional(past: Data) -> ConditionalNeuralProcess:
    return ConditionalNeuralProcess.initial(past, width=64, num_layers=2)


def _from_past(initial: Callable[[Data], Any], past: Data, budget: GroupBudget) -> Any:
    return _fitted(initial(past), past, budget.steps_past)


def _after_prior(past: Data, budget: GroupBudget) -> Any:
    stream = LinearTasks(linear(past).linear, with_intercept(past).x[past.mask])
    begun = _fitted(_transformer(past), stream, budget.steps_prior)
    return _fitted(begun, past, budget.steps_past, rate=5e-4)


def _fitted(start: Any, tasks: Any, num_steps: int, rate: float = 4e-3) -> Any:
    schedule = Schedule(num_steps, rate=rate, average=0.98)
    return start.fit(tasks, schedule=schedule, generator=Generator().manual_seed(0), progress=False)


METHODS: Mapping[str, Callable[[Data, GroupBudget], Any]] = {
    "linear_gaussian": _linear,
    "gaussian_process": _gaussian_process,
    "transformer": partial(_from_past, _transformer),
    "conditional": partial(_from_past, _conditional),
    "transformer_after_prior": _after_prior,
}

shown = as_table("groups: nats per row after half of them; gaps are behind the linear prior")
