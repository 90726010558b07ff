"""An Optuna sampler that starts from what past studies taught."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from optuna.samplers import BaseSampler
from optuna.samplers._base import _process_constraints_after_trial
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from bayesmeta.io import load
from bayesmeta.warning_kinds import BayesmetaWarning, warn
from bo.acquisition.suggester import ReadsFeatures, Suggester
from bo.past_tasks.constraints import PastConstraint
from bo.priors.storage import numbers_of
from bo.priors.tuning_prior import TuningPrior
from bo.samplers.point_sampler import PointSampler
from bo.samplers.request import Request
from bo.space.search_space import SearchSpace
from bo.space.study_space import differences

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

__all__ = ["MetaSampler", "UnlikePastWarning"]

ConstraintsFunc: TypeAlias = Callable[[FrozenTrial], Sequence[float]]


class UnlikePastWarning(BayesmetaWarning):
    """A study lacks parameters or attributes that the past studies had, or has others: what it has is used."""


class MetaSampler(PointSampler):
    """Suggests what promises most under a prior learned from past studies, and the trials of the running one.

    The first suggestion needs no data. With trials of the running study the prior's hypotheses about how far the past
    applies are weighted by their evidence. Suggestions take turns with those of a Gaussian process fitted to that study
    alone (`bo.acquisition.schedule`), so that a past that misleads costs trials and does not hold the study back. Where
    the prior was learned with features of tasks, user attributes of the study that have their names say which past
    studies count for more; they are read at the first suggestion.

    Args:
        prior: what `from_studies`, `from_table` or `bayesmeta.load` gave, or the path of a file that `bayesmeta fit` or
            `bayesmeta.save` wrote.
        independent_sampler: for parameters that the past studies did not have, or not as the same kind of thing. By
            default Optuna's `TPESampler`, which learns each from the study.
        seed: of all that is drawn.
        constraints_func: constraints of a finished trial, each of them violated above zero, as Optuna's samplers take
            it. `trial.set_constraint` does the same without it. Suggestions are where constraints are probably met.

    Raises:
        TypeError: `prior` has no search space.
        FileNotFoundError, ValueError: there is no prior at the path, as in `bayesmeta.load`.
    """

    def __init__(
        self,
        prior: TuningPrior | str | Path,
        *,
        independent_sampler: BaseSampler | None = None,
        seed: int | None = None,
        constraints_func: ConstraintsFunc | None = None,
    ) -> None:
        if isinstance(prior, str | Path):
            prior = load(prior)
        if not isinstance(prior, TuningPrior):
            raise TypeError(
                f"MetaSampler needs a prior with a search space, a bo.TuningPrior; got {type(prior).__name__}. "
                "Wrap it: bo.TuningPrior(space, direction, prior, scores=False)"
            )
        self.prior = prior
        self._constraints_func = constraints_func
        self._given: tuple[dict[str, float], Suggester] | None = None  # the features of the last study, and for these
        super().__init__(prior.space, independent_sampler=independent_sampler, seed=seed)

    def _parts(self) -> dict[str, Any]:
        return {"prior": self.prior, **super()._parts()}

    @classmethod
    def from_studies(
        cls,
        studies: "Iterable[Study] | BaseStorage | str | Path",
        *,
        features: Sequence[str] = (),
        independent_sampler: BaseSampler | None = None,
        seed: int | None = None,
        constraints_func: ConstraintsFunc | None = None,
    ) -> "MetaSampler":
        """Learn a prior from finished studies, each of them a task: see `TuningPrior.from_studies`.

        A study that this sampler is to continue should not be among them.
        """
        prior = TuningPrior.from_studies(studies, features=features)
        return cls(prior, independent_sampler=independent_sampler, seed=seed, constraints_func=constraints_func)

    @classmethod
    def from_table(
        cls,
        source: Any,
        *,
        task: str,
        target: str,
        direction: str,
        space: SearchSpace | None = None,
        features: Sequence[str] = (),
        independent_sampler: BaseSampler | None = None,
        seed: int | None = None,
        constraints_func: ConstraintsFunc | None = None,
    ) -> "MetaSampler":
        """Learn a prior from a table in long form, a row per evaluated configuration: see `TuningPrior.from_table`."""
        prior = TuningPrior.from_table(
            source, task=task, target=target, direction=direction, space=space, features=features
        )
        return cls(prior, independent_sampler=independent_sampler, seed=seed, constraints_func=constraints_func)

    def before_trial(self, study: "Study", trial: FrozenTrial) -> None:
        """Refuse a study of the other direction before it wastes a trial."""
        super().before_trial(study, trial)
        wanted = study.direction.name.lower()
        if wanted != self.prior.direction:
            raise ValueError(
                f"this prior was learned to {self.prior.direction} and the study is to {wanted}; "
                f'create it with direction="{self.prior.direction}"'
            )

    def after_trial(
        self, study: "Study", trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        if self._constraints_func is not None:
            _process_constraints_after_trial(self._constraints_func, study, trial, state)
        super().after_trial(study, trial, state, values)
        if state == TrialState.COMPLETE:  # others may have ended before they asked for everything
            self._tell_differences(study, trial)

    def _tell_differences(self, study: "Study", trial: FrozenTrial) -> None:
        """Once per study, when its first complete trial has shown what it asks for."""
        with self._lock:
            memory = self._memory(study)
            if memory.has_told_differences:
                return
            memory.has_told_differences = True
        new, missing, other = differences(self.space, trial.params, trial.distributions)
        found = []
        if new:
            found.append(f"the past says nothing of {_listed(new)}, left to {self._independent}")
        if missing:
            found.append(f"the past also had {_listed(missing)}, taken as missing")
        if other:
            found.append(f"of {_listed(other)} the past had other values, and is used as far as it goes")
        unknown = [name for name in self.prior.feature_names if name not in memory.user_attrs(study)]
        if unknown:
            found.append(f"it has no user attributes {_listed(unknown)}, so that all past studies count alike")
        if found:
            warn(f"study {study.study_name!r} is not like the past: {'; '.join(found)}", UnlikePastWarning)

    @property
    def _past_constraints(self) -> Mapping[str, PastConstraint]:
        return self.prior.constraints

    def _propose(self, request: Request) -> tuple[Tensor, str]:
        turn, value = self._suggester_given(request.user_attrs).suggest(request.state)
        return request.climb(value, self.prior.starts), turn

    def _suggester_given(self, user_attrs: Mapping[str, Any]) -> Suggester:
        suggester, names = self.prior.suggester, self.prior.feature_names
        if not isinstance(suggester, ReadsFeatures) or not names or any(name not in user_attrs for name in names):
            return suggester
        task_x = dict(zip(names, numbers_of("that is running", user_attrs, names), strict=True))
        if self._given is None or self._given[0] != task_x:
            self._given = (task_x, suggester.given(task_x))
        return self._given[1]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
