"""Are learned features worth their time? Real tuning runs: data sets are tasks, configurations inputs, accuracy y.

LCBench has 35 data sets, each with the same 2000 configurations of 7 parameters, all of them real runs without gaps: so
every task has the same number of rows, and those of a new task that are not shown all count. A fifth of the tasks at a
time is held out, and priors are learned from some rows of each of the others, drawn at random for each task:

- `learned_features`: `LearnedFeatures`, 32 features and a constant.
- `linear`: `LinearGaussian` on the parameters and an intercept.
- `gaussian_process`: `GaussianProcess`, with the mean and the directions of past functions.

All see the same numbers. Parameters are placed between their bounds in the search space, on a log scale where the space
has one, and y is the share of right answers: nothing is standardised by rows, and so not by those held out.

Source: Zimmer, Lindauer and Hutter, Auto-PyTorch tabular: multi-fidelity metalearning for efficient and robust AutoDL
(2021).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.distributions import Normal

from bayesmeta import Data, GaussianProcess, LearnedFeatures, LinearGaussian
from benchmarks.priors.few_rows import Method, compare, joined, shuffled

__all__ = ["METHODS", "NUM_FOLDS", "held_out", "read", "some_rows"]

NUM_FOLDS = 5
# of the published search space: lower and upper bound, and whether it is searched on a log scale
BOUNDS = {
    "batch_size": (16.0, 512.0, True),
    "learning_rate": (1e-4, 0.1, True),
    "max_dropout": (0.0, 1.0, False),
    "max_units": (64.0, 1024.0, True),
    "momentum": (0.1, 0.99, False),
    "num_layers": (1.0, 5.0, False),
    "weight_decay": (1e-5, 0.1, False),
}


def read(file: Path) -> Data:
    """Data sets as tasks, with all configurations in the order of the file; y between 0 and 1."""
    with np.load(file) as arrays:
        names, values = [str(name) for name in arrays["names"]], torch.from_numpy(arrays["X"]).double()
        accuracy = torch.from_numpy(arrays["Y"]).double() / 100.0
    unit = torch.stack([_between(values[:, i], *BOUNDS[name]) for i, name in enumerate(names)], -1)
    return Data.of(unit.expand(len(accuracy), *unit.shape), accuracy)


def held_out(tasks: Data, num_rows: int, num_folds: int, generator: Generator) -> dict[str, Method]:
    """Every method on the tasks of the first folds, each predicted by priors that never saw it.

    Args:
        num_rows: of each past task.
        num_folds: of NUM_FOLDS.
    """
    fold = torch.randperm(len(tasks.mask), generator=generator) % NUM_FOLDS
    past, new = some_rows(tasks, num_rows, generator), shuffled(tasks, generator)
    return joined([compare(METHODS, past[fold != i], new[fold == i]) for i in range(num_folds)])


def some_rows(tasks: Data, number: int, generator: Generator) -> Data:
    """Rows of each task, drawn at random without replacement."""
    return shuffled(tasks, generator).rows(slice(number))


@dataclass(frozen=True)
class WithIntercept:
    """`LinearGaussian` of inputs to which a column of ones is added, for data without one."""

    linear: LinearGaussian

    @property
    def batch_shape(self) -> torch.Size:
        return self.linear.batch_shape

    @property
    def event_shape(self) -> torch.Size:
        return self.linear.event_shape

    def condition(self, data: Data) -> "WithIntercept":
        return WithIntercept(self.linear.condition(with_intercept(data)))

    def predict(self, x: Tensor) -> Normal:
        return self.linear.predict(_add_ones(x))


def with_intercept(data: Data) -> Data:
    return replace(data, x=_add_ones(data.x))


def linear(past: Data) -> WithIntercept:
    rows = with_intercept(past)
    return WithIntercept(LinearGaussian.initial(rows).fit(rows))


METHODS: dict[str, Callable[[Data], Any]] = {
    "learned_features": lambda past: LearnedFeatures.initial(past).fit(past, progress=False),
    "linear": linear,
    "gaussian_process": lambda past: GaussianProcess.initial(past).fit(past),
}


def _add_ones(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[..., :1])], -1)


def _between(values: Tensor, low: float, high: float, log: bool) -> Tensor:
    """0 at the lower bound, 1 at the upper one."""
    ends = torch.tensor([low, high], dtype=values.dtype)
    if log:
        values, ends = values.log(), ends.log()
    return (values - ends[0]) / (ends[1] - ends[0])
