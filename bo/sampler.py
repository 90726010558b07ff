"""An Optuna sampler that starts from what past studies taught."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import optuna
import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from torch import Generator, Tensor

from bayesmeta.data import Data
from bo.acquisition import expected_improvement
from bo.prior import TuningPrior
from bo.scores import normal_scores

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["MetaSampler", "acquire"]

NUM_SOBOL = 512
NUM_LOCAL = 5  # best rows, and best candidates, around which more candidates are tried
NUM_NEIGHBOURS = 32
STEPS = (0.1, 0.03)  # sizes of the two rounds of local moves


class MetaSampler(BaseSampler):
    """Suggests the configuration of greatest expected improvement under a prior learned from past studies.

    The first suggestion needs no data. With rows of the running study the prior's hypotheses about how far the past
    applies are weighted by their evidence, so a past that misleads loses its say.

    Parameters that the prior does not know, and values outside of what the study allows, are sampled at random.

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
        self._independent = RandomSampler(seed=seed)
        self._seed(seed)

    @classmethod
    def from_studies(cls, studies: Iterable["Study"], *, seed: int | None = None) -> "MetaSampler":
        """Learn a prior from finished studies, each of them a task: see `TuningPrior.from_studies`."""
        return cls(TuningPrior.from_studies(studies), seed=seed)

    def reseed_rng(self) -> None:
        """Called by Optuna in each worker, so that workers differ."""
        self._seed(None)
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: "Study", trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All of the prior's parameters, from the first trial on: those that a trial does not ask for do no harm."""
        return {name: dist for name, dist in self.prior.space.distributions.items() if not dist.single()}

    def sample_relative(
        self, study: "Study", trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next configuration of the prior's space."""
        wanted = study.direction.name.lower()
        if wanted != self.prior.direction:
            raise ValueError(
                f"this prior was learned to {self.prior.direction} and the study is to {wanted}; "
                f'create it with direction="{self.prior.direction}"'
            )
        rows, taken = self._rows(study)
        candidate = propose(self.prior, rows, taken, sobol=self._sobol, generator=self._generator)
        params = self.prior.space.from_unit(candidate[None])[0]
        return {name: params[name] for name in search_space}

    def sample_independent(
        self, study: "Study", trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _seed(self, seed: int | None) -> None:
        seed = int.from_bytes(os.urandom(7)) if seed is None else seed
        self._generator = Generator().manual_seed(seed)
        self._sobol = self.prior.space.sobol(NUM_SOBOL, generator=self._generator)

    def _rows(self, study: "Study") -> tuple[Data, Tensor]:
        """Completed trials as rows, and the points that completed and running trials have taken."""
        space = self.prior.space
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        known = [t for t in trials if t.params and space.contains(t.params)]
        x = space.to_unit([t.params for t in known])
        done = torch.tensor([t.state == TrialState.COMPLETE for t in known], dtype=torch.bool)
        y = torch.tensor([t.value for t in known if t.state == TrialState.COMPLETE], dtype=torch.float64)
        return Data.of(x[done], y), x


def propose(
    prior: TuningPrior, rows: Data, taken: Tensor, *, sobol: Tensor, generator: Generator | None = None
) -> Tensor:
    """The point to try next, `(d,)`: Sobol points, past winners and neighbours of good rows, then two local rounds."""
    space = prior.space
    sets = [sobol] if prior.starts is None else [sobol, prior.starts]
    if len(rows.y):
        top = rows.y.topk(min(NUM_LOCAL, len(rows.y)), largest=prior.direction == "maximize").indices
        sets.append(space.neighbours(rows.x[top], NUM_NEIGHBOURS, STEPS[0], generator=generator).flatten(0, 1))
    candidates = torch.cat(sets)
    value = acquire(prior, rows, candidates, taken)
    for step in STEPS:
        best = candidates[value.topk(NUM_LOCAL).indices]
        near = space.neighbours(best, NUM_NEIGHBOURS, step, generator=generator).flatten(0, 1)
        candidates = torch.cat([best, near])
        value = acquire(prior, rows, candidates, taken)
    return candidates[value.argmax()]


def acquire(prior: TuningPrior, rows: Data, candidates: Tensor, taken: Tensor) -> Tensor:
    """How much each candidate promises: its mean while there are no rows, then its expected improvement.

    Candidates that equal a point of `taken` get -inf, unless all do.
    """
    maximize = prior.scores or prior.direction == "maximize"
    if len(rows.y):
        y = rows.y
        if prior.scores:
            y = normal_scores(y if prior.direction == "maximize" else -y, rows.mask)
        posterior = prior.functions.condition(Data.of(rows.x, y))
        best = y.max() if maximize else y.min()
        value = expected_improvement(posterior.marginal(candidates), best, maximize=maximize)
    else:
        mean = prior.functions.marginal(candidates).mean
        value = mean if maximize else -mean
    if not len(taken):
        return value
    repeated = torch.cdist(candidates, taken).amin(-1) < 1e-9
    return value if bool(repeated.all()) else value.masked_fill(repeated, -torch.inf)


def load_studies(storage: str) -> list["Study"]:
    """All studies of an Optuna storage."""
    summaries = optuna.get_all_study_summaries(storage)
    return [optuna.load_study(study_name=s.study_name, storage=storage) for s in summaries]
