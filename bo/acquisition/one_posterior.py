"""Expected improvement under one posterior at each trial, without turns and so without a guard against a past that
misleads: any family as a prior for tuning."""

from dataclasses import dataclass
from typing import Any

import torch

from bayesmeta.data.rows import Data
from bayesmeta.fields import TensorFields
from bo.acquisition.improvement import believing, improvement
from bo.acquisition.suggester import StudyState, Suggestion, TaskModel
from bo.past_tasks.scores import normal_scores
from bo.single_study.process import some_rows
from bo.values import Value

__all__ = ["MAX_ROWS", "Learned", "OnePosterior", "learned_from_study"]

MAX_ROWS = 64  # that a posterior is conditioned on


@dataclass(frozen=True, eq=False)
class OnePosterior(TensorFields):
    """Suggests by one posterior.

    Args:
        functions: with `condition` and `marginal`: see `TaskModel`.
        scores: whether they are over normal scores of a study's rows, more being better, or over the objective in its
            own units.
    """

    functions: Any
    scores: bool = True

    def suggest(self, study: StudyState) -> Suggestion:
        functions = self.functions
        gains = isinstance(functions, TensorFields) and functions.gains_from_float64
        if gains and functions.dtype != torch.float64:
            return self.to(torch.float64).suggest(study.double())
        return Suggestion("mixture", learned_from_study(self.functions, study, scores=self.scores).improvement())


@dataclass(frozen=True, eq=False)
class Learned:
    """A posterior after a study's rows and what is believed of its pending points.

    Args:
        functions: the posterior.
        y: the targets of all of these, in the units of the posterior.
        maximize: whether more is better in these units.
        feasible: which of them can be improved upon; None where all can.
    """

    functions: TaskModel
    y: torch.Tensor
    maximize: bool
    feasible: torch.Tensor | None

    def improvement(self, functions: TaskModel | None = None) -> Value:
        """What is expected to be gained on the best, under some of the hypotheses or all."""
        functions = self.functions if functions is None else functions
        return improvement(functions, self.y, maximize=self.maximize, feasible=self.feasible)


def learned_from_study(functions: TaskModel, study: StudyState, *, scores: bool) -> Learned:
    """A posterior that has learned from at most `MAX_ROWS` rows of a study, the best and a share of the rest."""
    y = normal_scores(study.better, study.rows.mask) if scores else study.rows.y
    kept = some_rows(study.better, MAX_ROWS)
    functions, y = believing(functions, Data.of(study.rows.x[kept], y[kept]), study.pending)
    feasible = study.feasible
    if feasible is not None:  # what is believed of pending points counts as feasible
        feasible = torch.cat([feasible[kept], torch.ones(len(y) - len(kept), dtype=torch.bool)])
    return Learned(functions, y, scores or study.maximize, feasible)
