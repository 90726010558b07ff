"""What past tuning tasks taught, with all that a new study needs: the search space, the direction, the prior."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.data.csv_tables import naming_lines
from bayesmeta.data.rows import Data
from bayesmeta.describe import listed
from bayesmeta.doors import require_rows
from bayesmeta.fields import LearnedFrom, TensorFields
from bayesmeta.gp.past_functions import PastFunctions
from bayesmeta.gp.process import GaussianProcess
from bayesmeta.gp.transfer import TransferHypotheses, transfer_hypotheses
from bayesmeta.numerics.gradients import with_gradients
from bo.acquisition.one_posterior import OnePosterior
from bo.acquisition.schedule import Turns
from bo.acquisition.suggester import (
    EachTask,
    HasPosterior,
    ReadsFeatures,
    RemembersTasks,
    StudyState,
    Suggester,
    Suggestion,
    TaskModel,
)
from bo.past_tasks.constraints import (
    PastConstraint,
    all_met,
    constraints_of,
    learn_constraints,
    require_of_rows,
    worst_unless,
)
from bo.past_tasks.regrets import PastRegrets
from bo.past_tasks.scores import finite_values, normal_scores
from bo.past_tasks.weights_by_features import TaskFeatures
from bo.priors.storage import numbers_of, studies_of
from bo.priors.table_tasks import tasks_of_table
from bo.space.search_space import SearchSpace

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

__all__ = ["TuningPrior", "require_direction", "starts_of"]

MAX_STARTS = 64


@dataclass(frozen=True, eq=False, init=False)
class TuningPrior(TensorFields):
    """A prior over the objectives of one search space, and who suggests by it.

    Args:
        space: the parameters, and their encoding as points of the unit cube.
        direction: "minimize" or "maximize".
        suggester: what turns the rows of a study into suggestions, see `bo.acquisition.suggester`. A posterior on the
            unit cube, with `condition` and `marginal`, is taken as `OnePosterior`.
        starts: configurations that were the best of a past task, encoded; always among the candidates.
        learned_from: past tasks and rows.
        task_names: of the past tasks, in the order of `past`; empty if unknown.
        constraints: what is known of constraints that past tasks had and sometimes violated, by name.
        scores: of a posterior that is given as `suggester`: whether it is over normal scores, where more is better (by
            default), or over the objective in its own units.

    Raises:
        TypeError: `suggester` is neither a suggester nor a posterior.
        ValueError: `direction` is none, `scores` contradict the suggester, or `starts` have another width.
    """

    space: SearchSpace
    direction: str
    suggester: Suggester
    starts: Float[Tensor, "starts d"]
    learned_from: LearnedFrom | None
    task_names: tuple[str, ...]
    constraints: dict[str, PastConstraint]

    def __init__(
        self,
        space: SearchSpace,
        direction: str,
        suggester: Any,
        starts: Float[Tensor, "starts d"] | None = None,
        learned_from: LearnedFrom | None = None,
        task_names: Sequence[str] | None = None,
        constraints: Mapping[str, PastConstraint] | None = None,
        *,
        scores: bool | None = None,
    ) -> None:
        require_direction(direction)
        starts = torch.empty(0, space.num_columns, dtype=torch.float64) if starts is None else starts
        if starts.shape[-1] != space.num_columns:
            raise ValueError(f"starts must have {space.num_columns} columns, as the space has; got {starts.shape[-1]}")
        fields = {
            "space": space,
            "direction": direction,
            "suggester": _as_suggester(suggester, scores),
            "starts": starts,
            "learned_from": learned_from,
            "task_names": tuple(task_names or ()),
            "constraints": dict(constraints or {}),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "TuningPrior":
        return cls(**(_of_earlier(state) if "functions" in state else state))

    @property
    def functions(self) -> TaskModel:
        """What is believed of a new study's objective before its first trial: a posterior on the unit cube.

        Raises:
            ValueError: the suggester has no posterior.
        """
        return self._believed().functions

    @property
    def scores(self) -> bool:
        """Whether `functions` are over normal scores, where more is better, or over the objective in its own units."""
        return self._believed().scores

    def _believed(self) -> HasPosterior:
        if not isinstance(self.suggester, HasPosterior):
            raise ValueError(f"{type(self.suggester).__name__} suggests without a posterior that could be looked at")
        return self.suggester

    @property
    def past(self) -> EachTask | None:
        """The functions of past tasks, `each(x)` giving one column per task; None if the suggester does not know."""
        return self.suggester.past if isinstance(self.suggester, RemembersTasks) else None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Of the features by which `given` tells which past tasks count."""
        return self.suggester.feature_names if isinstance(self.suggester, ReadsFeatures) else ()

    def _title(self) -> str:
        return f"to {self.direction}{super()._title()}"

    def _parts(self) -> dict[str, Any]:
        left_out = ("direction", "task_names", "constraints")
        parts = {name: part for name, part in super()._parts().items() if name not in left_out}
        if self.constraints:
            parts["constraints"] = listed(tuple(self.constraints))
        return {**parts, "past tasks": listed(self.task_names)} if self.task_names else parts

    @classmethod
    @with_gradients
    def fit(
        cls,
        space: SearchSpace,
        tasks: Data,
        direction: str,
        *,
        task_names: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        constraints: Mapping[str, Any] | None = None,
    ) -> "TuningPrior":
        """Learn from past tasks.

        Args:
            space: of all tasks.
            tasks: `x` encoded by `space`, `y` the objective in its own units; at least two tasks that vary. Features of
                tasks, `task_x`, are learned from too.
            direction: of the objective.
            task_names: what plots call the tasks.
            feature_names: what `given` calls the features.
            constraints: by name the values of constraints at each row, violated above zero, NaN where one is unknown.

        Raises:
            TypeError: constraints have no names, or are no numbers.
            ValueError: fewer than two tasks have targets that vary, there are not as many names as tasks or as
                features, a constraint is not of the rows' shape, or `direction` is none.
        """
        require_rows("TuningPrior.fit", tasks, statistics=False)
        require_direction(direction)
        constraints = require_of_rows({} if constraints is None else constraints, tasks)
        if task_names is not None and len(task_names) != len(tasks.y):
            raise ValueError(f"task_names must name {len(tasks.y)} tasks; got {len(task_names)}")
        sign = 1.0 if direction == "maximize" else -1.0
        scores = normal_scores(sign * tasks.y, tasks.mask)
        varies = (scores != 0).any(-1)
        if int(varies.sum()) < 2:
            raise ValueError(
                f"a prior needs two tasks or more whose target varies; got {int(varies.sum())} of {len(varies)}. "
                "Check the target column, or add past tasks"
            )
        raw = Data(tasks.x.double(), sign * tasks.y.double(), tasks.mask)[varies]
        ranked = replace(raw, y=scores[varies])
        met = all_met(constraints, tasks)[varies]
        learned = GaussianProcess.initial(ranked).fit(ranked)
        # tasks that do not vary have taught nothing, and `past` lacks them
        names = None if task_names is None else tuple(compress(task_names, varies.tolist()))
        features = None
        if tasks.task_x is not None:
            known = range(tasks.task_x.shape[-1]) if feature_names is None else feature_names
            features = TaskFeatures.learn(tuple(map(str, known)), learned, tasks.task_x[varies].double())
        past = cast(PastFunctions, learned.past)
        suggester = Turns(
            transfer_hypotheses(learned),
            past,
            equal_weights(past),
            PastRegrets.of(replace(raw, y=worst_unless(met, raw))),
            features,
        )
        return cls(
            space,
            direction,
            suggester,
            starts_of(replace(ranked, y=worst_unless(met, ranked))),
            learned.learned_from,
            names,
            learn_constraints(tasks.x.double(), constraints),
        )

    @with_gradients
    def given(self, task_x: Mapping[str, float]) -> "TuningPrior":
        """The prior of a task with these features: past tasks like it count for more.

        Raises:
            ValueError: the past tasks had no features, one is missing, or is not a finite number.
        """
        if not isinstance(self.suggester, ReadsFeatures):
            raise ValueError("this prior was learned without features of tasks; give their names when it is learned")
        return replace(self, suggester=self.suggester.given(task_x))

    def suggest(
        self,
        rows: Data,
        pending: Float[Tensor, "m d"] | None = None,
        turns: Sequence[str] = (),
        *,
        feasible: Bool[Tensor, " n"] | None = None,
    ) -> Suggestion:
        """What points of the unit cube promise for the next trial of a study: for those who run trials without Optuna.

        Args:
            rows: what was evaluated, encoded by `space`, in the order of the trials, `y` being the objective in its own
                units.
            pending: points that were tried and have no value yet.
            turns: what earlier suggestions said of their turn, in order.
            feasible: which rows met all constraints; None where all did.
        """
        pending = rows.x[:0] if pending is None else pending
        maximize = self.direction == "maximize"
        return self.suggester.suggest(StudyState(self.space, rows, pending, maximize, turns, feasible=feasible))

    @classmethod
    @with_gradients
    def from_studies(
        cls,
        studies: "Iterable[Study] | BaseStorage | str | Path",
        *,
        features: Sequence[str] = (),
        fit: Callable[..., "TuningPrior"] | None = None,
    ) -> "TuningPrior":
        """Learn from finished Optuna studies: each is a task, each completed trial a row.

        Pruned and failed trials are left out here. In a running study they count: see `bo.samplers.history`.

        Constraints of trials are learned from too, by their names.

        Args:
            studies: the studies, or a storage, of which all studies are taken, or its URL, such as
                `sqlite:///studies.db`, or its file, of SQLite or a journal.
            features: user attributes of the studies, numbers such as rows and columns of their data. A study to come
                that has them too starts from past studies like it.
            fit: how it is learned, with the arguments of `TuningPrior.fit`; `bo.fit_of` is that of a family.

        Raises:
            TypeError: `studies` are none.
            ValueError: a study has several objectives or lacks a feature, directions differ, or fewer than two studies
                can be used.
        """
        from optuna.trial import TrialState

        studies = studies_of(studies)
        for study in studies:
            if len(study.directions) > 1:
                raise ValueError(f"study {study.study_name!r} has {len(study.directions)} objectives; one is needed")
        directions = {study.direction.name.lower() for study in studies}
        if len(directions) > 1:
            names = {
                d: next(s.study_name for s in studies if s.direction.name.lower() == d) for d in sorted(directions)
            }
            raise ValueError(f"all studies must have one direction; got {names}. Fit one prior per direction")
        done = [(s, s.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) for s in studies]
        used = [(s, [t for t in trials if t.params]) for s, trials in done]
        used = [(s, trials) for s, trials in used if trials]
        if len(used) < 2:
            raise ValueError(
                f"learning a prior needs at least two studies with completed trials; got {len(used)} of {len(studies)}"
            )
        space = SearchSpace.from_studies(s for s, _ in used)
        x = [space.to_unit(t.params for t in ts) for _, ts in used]
        y = [finite_values(t.value for t in ts if t.value is not None) for _, ts in used]
        task_x = [numbers_of(study.study_name, study.user_attrs, features) for study, _ in used] if features else None
        tasks = Data.pad(list(zip(x, y, strict=True)), task_x=task_x)
        return (fit or cls.fit)(
            space,
            tasks,
            directions.pop(),
            task_names=[study.study_name for study, _ in used],
            feature_names=features,
            constraints=constraints_of([[trial.constraints for trial in trials] for _, trials in used]),
        )

    @classmethod
    @with_gradients
    def from_table(
        cls,
        source: Any,
        *,
        task: str,
        target: str,
        direction: str,
        space: SearchSpace | None = None,
        features: Sequence[str] = (),
        fit: Callable[..., "TuningPrior"] | None = None,
    ) -> "TuningPrior":
        """Learn from a table in long form, one row per evaluated configuration.

        Args:
            source: a dataframe, or the path of a Parquet or CSV file.
            task: the column that names the task.
            target: the column of the objective.
            direction: of the objective.
            space: the parameters; inferred from the remaining columns where it is None.
            features: columns of numbers that say something of the task, the same in all its rows.
            fit: how it is learned, with the arguments of `TuningPrior.fit`; `bo.fit_of` is that of a family.

        Raises:
            ValueError: a column is missing, has two roles, holds something else than it should, or fewer than two tasks
                vary.
        """
        require_direction(direction)
        with naming_lines(source):
            space, data, names = tasks_of_table(source, task, target, features, space)
        return (fit or cls.fit)(space, data, direction, task_names=names, feature_names=features)


def equal_weights(past: PastFunctions) -> Float[Tensor, " tasks"]:
    """All past tasks count alike."""
    each = past.each(past.points[:1])[0]
    return torch.full_like(each, 1.0 / len(each))


def _as_suggester(given: Any, scores: bool | None) -> Suggester:
    if isinstance(given, TuningPrior):
        raise TypeError("a TuningPrior holds a suggester and is none; give prior.suggester")
    if isinstance(given, type):
        raise TypeError(f"a TuningPrior needs a suggester, or a posterior; got the class {given.__name__}")
    if isinstance(given, Suggester):
        if scores is not None and not (isinstance(given, HasPosterior) and given.scores == scores):
            raise ValueError(f"scores={scores} is not what the suggester says; leave it out, or change the suggester")
        return given
    if isinstance(given, TaskModel):
        return OnePosterior(given, scores is None or scores)
    raise TypeError(
        f"a TuningPrior needs a suggester, or a posterior with condition and marginal; got {type(given).__name__}"
    )


def _of_earlier(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a version in which a prior had functions, and the fields of `Turns` beside them."""
    kept = ("space", "direction", "starts", "learned_from", "task_names", "constraints")
    functions, past = state["functions"], state["past"]
    if state["num_trusting"] is None:
        suggester: Suggester = OnePosterior(functions, state["scores"])
    else:
        weights = state["task_weights"]
        suggester = Turns(
            TransferHypotheses.of_earlier(functions),
            past,
            equal_weights(past) if weights is None else weights,
            state["regrets"],
            state["task_features"],
        )
    return {"suggester": suggester, **{name: state[name] for name in kept if name in state}}


def starts_of(tasks: Data) -> Float[Tensor, "starts d"]:
    """Where each task was best, `y` being such that more is better."""
    best = tasks.y.masked_fill(~tasks.mask, -torch.inf).argmax(-1)
    return tasks.x[torch.arange(len(best)), best].unique(dim=0)[:MAX_STARTS]


def require_direction(direction: str) -> None:
    """Raises a ValueError unless it is "minimize" or "maximize"."""
    if direction not in ("minimize", "maximize"):
        raise ValueError(f'direction must be "minimize" or "maximize"; got {direction!r}')
