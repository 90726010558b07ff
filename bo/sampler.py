"""An Optuna sampler that starts from what past studies taught."""

import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from torch import Generator, Tensor

from bayesmeta.data import Data
from bo.acquisition import expected_improvement
from bo.prior import TuningPrior
from bo.scores import finite_values, normal_scores
from bo.search import Value, climb
from bo.space import SearchSpace

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["MetaSampler", "PointSampler", "acquisition"]

NUM_SOBOL = 512


class PointSampler(BaseSampler):
    """A sampler that proposes one point of a known search space per trial; subclasses say which by `_propose`.

    The point is chosen when a trial asks for its first parameter, and each parameter is then fitted to what the trial
    allows: clipped to its range, rounded to its step. A parameter that the space does not have, or a category that the
    trial does not allow, is sampled at random.
    """

    def __init__(self, space: SearchSpace, *, seed: int | None = None) -> None:
        self.space = space
        self._independent = RandomSampler(seed=seed)
        self._proposals: dict[int, dict[str, Any]] = {}
        self._seed(seed)

    def reseed_rng(self) -> None:
        """Called by Optuna in each worker, so that workers differ."""
        self._seed(None)
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: "Study", trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: what a trial will ask for is not known before it asks, and the past's ranges may differ."""
        return {}

    def sample_relative(
        self, study: "Study", trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: "Study", trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if param_name in self.space.distributions:
            if trial.number not in self._proposals:
                rows, taken = self._rows(study)
                self._proposals[trial.number] = self.space.from_unit(self._propose(rows, taken)[None])[0]
            value = _fitted(self._proposals[trial.number][param_name], param_distribution)
            if value is not None:
                return value
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: "Study", trial: FrozenTrial, state: TrialState, values: Iterable[float] | None
    ) -> None:
        self._proposals.pop(trial.number, None)

    @abstractmethod
    def _propose(self, rows: Data, taken: Tensor) -> Tensor:
        """The next point `(d,)`, given the completed trials and the points that are taken."""

    def _seed(self, seed: int | None) -> None:
        seed = int.from_bytes(os.urandom(7)) if seed is None else seed
        self._generator = Generator().manual_seed(seed)
        self._sobol = self.space.sobol(NUM_SOBOL, generator=self._generator)

    def _rows(self, study: "Study") -> tuple[Data, Tensor]:
        """Completed trials as rows, and the points that completed and running trials have taken."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        known = [t for t in trials if _has_any(t.params, self.space.names) and self.space.contains(t.params)]
        x = self.space.to_unit([t.params for t in known])
        done = torch.tensor([t.state == TrialState.COMPLETE for t in known], dtype=torch.bool)
        y = finite_values(t.value for t in known if t.value is not None)
        return Data.of(x[done], y), x


class MetaSampler(PointSampler):
    """Suggests the configuration of greatest expected improvement under a prior learned from past studies.

    The first suggestion needs no data. With rows of the running study the prior's hypotheses about how far the past
    applies are weighted by their evidence, so a past that misleads loses its say.

    Args:
        prior: what `from_studies`, `bayesmeta fit` or `bayesmeta.load` gave.
        seed: of the candidates and of random parameters.

    Raises:
        TypeError: `prior` has no search space.
    """

    def __init__(self, prior: TuningPrior, *, seed: int | None = None) -> None:
        if not isinstance(prior, TuningPrior):
            raise TypeError(
                f"MetaSampler needs a prior with a search space, a bo.TuningPrior; got {type(prior).__name__}. "
                "Wrap it: bo.TuningPrior(space, direction, prior, scores=False)"
            )
        self.prior = prior
        super().__init__(prior.space, seed=seed)

    @classmethod
    def from_studies(cls, studies: Iterable["Study"], *, seed: int | None = None) -> "MetaSampler":
        """Learn a prior from finished studies, each of them a task: see `TuningPrior.from_studies`."""
        return cls(TuningPrior.from_studies(studies), seed=seed)

    def before_trial(self, study: "Study", trial: FrozenTrial) -> None:
        """Refuse a study of the other direction before it wastes a trial."""
        wanted = study.direction.name.lower()
        if wanted != self.prior.direction:
            raise ValueError(
                f"this prior was learned to {self.prior.direction} and the study is to {wanted}; "
                f'create it with direction="{self.prior.direction}"'
            )

    def _propose(self, rows: Data, taken: Tensor) -> Tensor:
        starts = self._sobol if self.prior.starts is None else torch.cat([self._sobol, self.prior.starts])
        better = rows.y if self.prior.direction == "maximize" else -rows.y
        value = acquisition(self.prior, rows)
        return climb(value, self.space, starts, rows.x, better, taken, generator=self._generator)


def acquisition(prior: TuningPrior, rows: Data) -> Value:
    """How much points promise: their mean while there are no rows, then their expected improvement."""
    maximize = prior.scores or prior.direction == "maximize"
    functions = prior.functions if len(rows.y) >= 2 or prior.opening is None else prior.opening
    if not len(rows.y):
        sign = 1.0 if maximize else -1.0
        return lambda x: sign * functions.marginal(x).mean
    y = rows.y
    if prior.scores:
        y = normal_scores(y if prior.direction == "maximize" else -y, rows.mask)
    posterior = functions.condition(Data.of(rows.x, y))
    best = y.max() if maximize else y.min()
    return lambda x: expected_improvement(posterior.marginal(x), best, maximize=maximize)


def _has_any(params: Mapping[str, Any], names: Iterable[str]) -> bool:
    return any(name in params for name in names)


def _fitted(value: Any, distribution: BaseDistribution) -> Any:
    """The nearest value that `distribution` allows, None where there is none."""
    if isinstance(distribution, CategoricalDistribution):
        return value if value in distribution.choices else None
    if isinstance(value, str | bool) or not isinstance(distribution, FloatDistribution | IntDistribution):
        return None
    low, high, step = distribution.low, distribution.high, distribution.step
    value = min(max(value, low), high)
    if step:
        value = min(low + round((value - low) / step) * step, high)
    return value
