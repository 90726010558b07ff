"""Any family that can be learned from tasks as a prior for tuning, where `TuningPrior.fit` learns one of its own.

    prior = fit_family(space, tasks, "maximize", lambda scores: LearnedFeatures.initial(scores).fit(scores))

Every suggestion is then the expected improvement under what was learned, without turns: right for comparing families,
and without the guard that `TuningPrior.fit` has against a past that misleads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from bayesmeta.data.rows import Data
from bayesmeta.doors import require_rows
from bayesmeta.fields import LearnedFrom
from bayesmeta.numerics.gradients import with_gradients
from bo.acquisition.one_posterior import OnePosterior
from bo.acquisition.suggester import TaskModel
from bo.past_tasks.scores import normal_scores
from bo.priors.tuning_prior import TuningPrior, require_direction, starts_of
from bo.space.search_space import SearchSpace

__all__ = ["fit_family", "fit_of", "varying_tasks"]


@with_gradients
def fit_family(space: SearchSpace, tasks: Data, direction: str, learn: Callable[[Data], TaskModel]) -> TuningPrior:
    """A prior over normal scores by any family with `condition` and `marginal`.

    Args:
        space: of all tasks.
        tasks: `x` encoded by `space`, `y` the objective in its own units.
        direction: of the objective.
        learn: from tasks whose targets are normal scores, more being better, to the family's prior.

    Raises:
        ValueError: no task has a target that varies, or `direction` is none.
    """
    raw = varying_tasks(tasks, direction)
    scores = replace(raw, y=normal_scores(raw.y, raw.mask))
    suggester = OnePosterior(learn(scores))
    return TuningPrior(space, direction, suggester, starts_of(scores), LearnedFrom.counts(scores.count))


def fit_of(family: Any) -> Callable[..., TuningPrior]:
    """How `TuningPrior.from_studies` and `from_table` learn a prior of a family: as their argument `fit`.

        TuningPrior.from_studies(studies, fit=fit_of(bayesmeta.TransformerNeuralProcess))

    Neural processes learn from simulated objectives first (`bo.priors.networks`), others from past tasks alone.

    Args:
        family: with `initial(tasks)` and `fit(tasks)`, whose priors have `condition` and `marginal`.

    Raises:
        TypeError: it has not.
    """
    needs = ("initial", "fit", "condition", "marginal")
    missing = [name for name in needs if not callable(getattr(family, name, None))]
    if missing or not isinstance(family, type):
        name = getattr(family, "__name__", type(family).__name__)
        raise TypeError(f"a prior for tuning needs a class with {', '.join(needs)}; {name} has no {missing or 'class'}")

    learner: Any = family

    def fit(
        space: SearchSpace,
        tasks: Data,
        direction: str,
        *,
        task_names: Sequence[str] | None = None,
        feature_names: Sequence[str] | None = None,
        constraints: Mapping[str, Any] | None = None,
    ) -> TuningPrior:
        if feature_names:
            raise ValueError(f"{family.__name__} learns from rows alone, and cannot take features of tasks")
        if constraints:
            raise ValueError(f"{family.__name__} knows no constraints, and past trials have {sorted(constraints)}")
        return fit_family(space, tasks, direction, lambda scores: _learned(learner, space, scores))

    return fit


def _learned(family: Any, space: SearchSpace, scores: Data) -> TaskModel:
    from bayesmeta.neural_processes.base import NeuralProcess

    if issubclass(family, NeuralProcess):
        from bo.priors.networks import learn_network

        learned: TaskModel = learn_network(family, space, scores)
        return learned
    plain: TaskModel = family.initial(scores).fit(scores)
    return plain


def varying_tasks(tasks: Data, direction: str) -> Data:
    """Those whose target varies, in float64, signed so that more is better.

    Raises:
        ValueError: there is none, or `direction` is none.
    """
    require_rows("a prior for tuning", tasks, statistics=False)
    require_direction(direction)
    y = tasks.y.double() if direction == "maximize" else -tasks.y.double()
    greatest, least = (sign * (sign * y).masked_fill(~tasks.mask, -torch.inf).amax(-1) for sign in (1.0, -1.0))
    varies = greatest > least
    if not bool(varies.any()):
        raise ValueError(
            f"a prior needs a task whose target varies; got none of {len(varies)}. Check the target column"
        )
    return Data(tasks.x.double(), y, tasks.mask)[varies]
