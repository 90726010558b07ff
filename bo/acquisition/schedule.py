"""The schedule of acquisition functions: what the next suggestion maximises.

A model that weighs hypotheses by evidence still errs in the same direction from trial to trial: where the past misleads
in the one region that matters, evidence from elsewhere keeps it there. So suggestions take turns between acquisition
functions:

- `list`: the zero-shot portfolio of the past tasks. Each next point raises the mean over past tasks of the best so far
  the most. It gives the first two suggestions of a study, and all until a trial has finished, since the first rows of a
  task say little about what applies. When the portfolio ends, which is at once if past tasks agree, `mixture` takes its
  place. A portfolio of smooth functions goes on once a trial has finished: what is left of it explores.
- `mixture`: the expected improvement under all hypotheses, while there are few rows.
- `past`: the expected improvement under the hypotheses that trust the past.
- `plain`: the expected improvement under a Gaussian process fitted to this study alone. From six rows on, `past` and
  `plain` alternate. Late in a study three turns of four are `plain`. Where evidence is against the past, `plain` takes
  the turns of `past` too.
- `explore`: a space-filling point. It takes a turn of `plain` where the last trials gained nothing and fewer than five
  points were chosen without the past, since any Gaussian process without a past starts from such points.

Where past tasks share their configurations, their values are known and need no model. The portfolio is then made of
these values, and past tasks that rank the tried configurations as the new task does count for more in it
(`bo.past_tasks.regrets`). It goes on for ten rows, and takes every other turn of `past` afterwards, as long as some
past task does so, evidence is not against the past, and there is something to gain. It ends where no configuration
takes away a hundredth of the regret that is left. From there expected improvement climbs from the best configuration,
if the space allows it.

After the first six to ten suggestions, at least every second one is thus `plain` or `explore`: no past can mislead it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from bayesmeta.data.rows import Data
from bayesmeta.fields import TensorFields
from bayesmeta.gp.past_functions import PastFunctions
from bayesmeta.gp.transfer import TRUSTING, TransferHypotheses, transfer_hypotheses
from bo.acquisition.improvement import believing, log_expected_improvement
from bo.acquisition.one_posterior import learned_from_study
from bo.acquisition.suggester import StudyState, Suggestion
from bo.past_tasks.regrets import PastRegrets
from bo.past_tasks.weights_by_features import TaskFeatures
from bo.single_study.process import plain_gp, some_rows
from bo.space.search_space import SearchSpace
from bo.values import Expected, InOwnSpace, Near, Value

__all__ = ["Turns"]

NUM_LIST = 2  # first suggestions, all from the portfolio
MIN_ROWS = 6  # before a plain Gaussian process has a turn
MIN_LISTED = 10  # the same, where past tasks share their configurations
LATE = 22  # suggestions, from which it has three turns of four: what the past knows was tried by then
NUM_EXPLORED = 5  # points chosen without the past, after which none is explored
MIN_STALLED = 4  # rows before a study can have stalled
PATIENCE = 2  # trials without a gain in one that has
MAX_PLAIN_ROWS = 400  # that a plain Gaussian process is conditioned on
NUM_CANDIDATES = 256  # to see whether the portfolio goes on
LEAST_GAIN = 0.01  # of its next point, as a share of what the best adds to an average point


@dataclass(frozen=True, eq=False)
class Turns(TensorFields):
    """Suggests by acquisition functions that take turns, of which no past can mislead every second one.

    Args:
        hypotheses: how far the past applies, over normal scores.
        past: the functions of past tasks.
        task_weights: how much each past task counts, together one.
        regrets: of past tasks on the configurations that they share, by which the first suggestions are chosen; None
            where they share few, and `past` stands in.
        features: by which past tasks count for a task whose features are known; None if the past tasks had none.
    """

    hypotheses: TransferHypotheses
    past: PastFunctions
    task_weights: Float[Tensor, " tasks"]
    regrets: PastRegrets | None = None
    features: TaskFeatures | None = None

    scores: ClassVar[bool] = True  # what the hypotheses are over

    @property
    def functions(self) -> TransferHypotheses:
        return self.hypotheses

    @property
    def feature_names(self) -> tuple[str, ...]:
        return () if self.features is None else self.features.names

    def given(self, task_x: Mapping[str, float]) -> "Turns":
        """For a task with these features: past tasks like it count for more.

        Raises:
            ValueError: the past tasks had no features, one is missing, or is not a finite number.
        """
        if self.features is None:
            raise ValueError("this prior was learned without features of tasks; give their names when it is learned")
        weights = self.features.weights(task_x)
        hypotheses = transfer_hypotheses(self.features.learned, weights)
        return replace(self, hypotheses=hypotheses, task_weights=weights.to(self.past.mean))

    def suggest(self, study: StudyState) -> Suggestion:
        """The turn of the next suggestion, and how much points, in float64, promise for it."""
        if self.dtype != torch.float64:
            return self.to(torch.float64).suggest(study.double())
        turn = self._next_turn(study)
        listed = self._list_value(study) if turn == "list" else None
        if turn == "list" and listed is None:
            turn = self._next_turn(study, has_list=False)
        if listed is not None and len(study.better) < MIN_ROWS:
            return Suggestion(turn, listed)
        if turn == "explore":
            space = study.as_the_study_has_it.space
            point = _sobol(space, study.turns.count("explore") + 1)[-1]
            return Suggestion(turn, InOwnSpace(Near(point)))
        if turn == "plain":
            return Suggestion(turn, _plain_value(study))
        learned = learned_from_study(self.hypotheses, study, scores=True)
        hypotheses = cast(TransferHypotheses, learned.functions)
        if turn == "mixture":
            return Suggestion(turn, learned.improvement(hypotheses.leading()))
        if hypotheses.probability(*TRUSTING) < 0.5:
            return Suggestion("plain", _plain_value(study))
        if listed is not None:
            return Suggestion(turn, listed)
        return Suggestion(turn, learned.improvement(hypotheses.given(*TRUSTING).leading()))

    def _next_turn(self, study: StudyState, *, has_list: bool = True) -> str:
        n, num_suggested = len(study.better), len(study.turns)
        if has_list and (num_suggested < NUM_LIST or not n):
            return "list"
        shared = self.regrets if has_list else None
        agrees = shared is not None and (n < MIN_ROWS or shared.agreement(study.rows.x, study.better) >= 0.5)
        if agrees and n < MIN_LISTED:
            return "list"
        is_plain = (num_suggested - NUM_LIST) % (2 if num_suggested < LATE else 4) != 0
        explored = n + len(study.pending) - num_suggested + study.turns.count("explore")
        stalled = n >= MIN_STALLED and bool(study.better[:-PATIENCE].max() >= study.better.max())
        if is_plain and stalled and explored < NUM_EXPLORED:
            return "explore"
        if n < MIN_ROWS:
            return "mixture"
        if is_plain:
            return "plain"
        return "list" if agrees and num_suggested // 2 % 2 == 0 else "past"

    def _list_value(self, study: StudyState) -> Value | None:
        """Mean over past tasks of the best so far, were a point added to those that were tried; None where none adds,
        and nothing is known of the task."""
        tried, weights = torch.cat([study.rows.x, study.pending]), self.task_weights
        if self.regrets is not None:
            likeness = self.regrets.likeness(study.rows.x, study.better)
            point = self.regrets.next_point(tried, likeness * weights / (likeness @ weights))
            return None if point is None else Near(point)
        each = self.past.each(torch.cat([self.past.points, _sobol(study.space, NUM_CANDIDATES)]))
        best = self.past.each(tried).amax(0) if len(tried) else torch.full_like(each[0], -torch.inf)
        gain = ((each - best).clamp(min=0.0) @ weights).max()
        if not len(study.better) and gain <= LEAST_GAIN * ((best - each) @ weights).mean():
            return None
        return lambda x: torch.maximum(self.past.each(x), best) @ weights


def _sobol(space: SearchSpace, num: int) -> Tensor:
    return space.sobol(num, generator=Generator().manual_seed(0))


def _plain_value(study: StudyState) -> Value:
    own, better = study.as_the_study_has_it, study.better
    posterior = plain_gp(own.x, better, max_rows=MAX_PLAIN_ROWS)
    y = cast(Data, posterior.rows).y
    y = y if study.feasible is None else y[study.feasible[some_rows(better, MAX_PLAIN_ROWS)]]
    if not len(y):
        return InOwnSpace(Expected(lambda points: points.new_zeros(len(points)), is_log=True))
    posterior, believed = believing(posterior, Data.of(own.x[:0], better[:0]), own.pending)
    best = torch.cat([y, believed]).max()
    return InOwnSpace(Expected(lambda points: log_expected_improvement(posterior.marginal(points), best), is_log=True))
