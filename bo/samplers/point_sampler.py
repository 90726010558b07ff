"""An Optuna sampler that proposes all parameters of a trial at once, whatever the trial then asks for.

Optuna does not tell a sampler what a trial will ask for. The first parameter asked for starts a search over all
parameters that finished trials of the study asked for (before there is one: over all known ones). When the trial then
asks for one more, or in another range, or has one set elsewhere (`enqueue_trial`, `PartialFixedSampler`), the rest is
searched again, given what is set. So ranges, choices and conditions may change from trial to trial.
"""

import secrets
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from torch import Generator, Tensor

from bayesmeta.describe import Described, listed, plural
from bayesmeta.numerics.gradients import with_gradients
from bayesmeta.warning_kinds import BayesmetaWarning, warn
from bo.past_tasks.constraints import PastConstraint
from bo.samplers.history import TURN, History
from bo.samplers.request import Chances, Request
from bo.single_study.feasibility import all_of, chance_of_constraint, chance_of_success
from bo.space.choices import as_choice, as_given, same_distribution
from bo.space.conditions import is_ruled_out
from bo.space.search_space import SearchSpace
from bo.space.study_space import Configuration, View, applying_conditions, shares, to_numbers

if TYPE_CHECKING:
    from optuna import Study

__all__ = ["NoSuggestionWarning", "PointSampler"]

NUM_LATE = 64  # trials before one: what runs from before then may have been killed
MAX_GUESSED = 16  # trials that have just begun, for which a later one guesses what they will be given
NEXT = 0x9E3779B97F4A7C15  # between the seeds of two trials: far apart, and never the same again


class NoSuggestionWarning(BayesmetaWarning):
    """The search for a suggestion failed, and the trial was left to another sampler."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """What one trial is to try: known parameters as they were expected to be asked for; none if that failed.

    `turn` is how they were found, see `bo.acquisition.schedule`, if in any.
    """

    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    turn: str = ""

    def answers(self, trial: FrozenTrial, asked: Mapping[str, BaseDistribution]) -> bool:
        """Whether it holds what is asked, and the trial did with its other parameters as was proposed."""
        if not self.params:
            return True
        for name, distribution in asked.items():
            if name not in self.params or not same_distribution(self.distributions[name], distribution):
                return False
        done = trial.params
        return all(as_choice(done[name]) == value for name, value in self.params.items() if name in done)


NOTHING = Proposal({}, {})


class Memory:
    """What a sampler keeps of one study."""

    def __init__(self, space: SearchSpace, *, maximize: bool) -> None:
        self.history = History(space, maximize=maximize)
        self.proposals: dict[int, Proposal] = {}  # of trials that run
        self.guesses: dict[int, Proposal] = {}  # of trials of other workers that run, and have no parameters yet
        self.searched = space  # the space of the last search, which has its tables ready
        self.has_warned_of_failure = False
        self.has_told_differences = False
        self._user_attrs: dict[str, Any] | None = None

    def user_attrs(self, study: "Study") -> dict[str, Any]:
        """As they were when first asked for: reading them costs a storage a query."""
        if self._user_attrs is None:
            # where Hyperband prunes, `study` is one bracket and has none
            self._user_attrs = study._storage.get_study_user_attrs(study._study_id)
        return self._user_attrs

    def forget_finished(self) -> None:
        """Proposals and guesses of trials that do not run any more, or have what was guessed."""
        running = self.history.running
        self.proposals = {number: each for number, each in self.proposals.items() if number in running}
        self.guesses = {number: each for number, each in self.guesses.items() if self.waits(number)}

    def waits(self, number: int) -> bool:
        """Whether a trial runs, and neither has a known parameter yet nor is to be given one by this sampler."""
        trial = self.history.running.get(number)
        if trial is None or self.proposals.get(number, NOTHING).params:
            return False
        return not any(shares(self.history.known, *each) for each in trial.distributions.items())

    def running(self, besides: int) -> dict[int, Configuration]:
        """What each running trial but one was given so far, and what it is to be given."""
        found: dict[int, Configuration] = {}
        for number, trial in self.history.running.items():
            if number != besides:
                to_come = self.guesses.get(number) or self.proposals.get(number, NOTHING)
                params = {**to_come.params, **trial.params}
                found[number] = (params, {**to_come.distributions, **trial.distributions})
        return found

    def turns(self, besides: int) -> list[str]:
        """Those of all trials but one, in the order of trials."""
        turns = {number: guess.turn for number, guess in self.guesses.items() if guess.turn} | self.history.turns
        return [turn for number, turn in sorted(turns.items()) if number != besides]


class PointSampler(Described, BaseSampler):
    """A sampler of known parameters, whose values subclasses choose by `_propose`; others are left to another sampler.

    Args:
        space: the known parameters.
        independent_sampler: for the others. By default Optuna's `TPESampler`, which learns each from the study.
        seed: of all that is drawn. A suggestion depends on it, on the trial's number and on the trials before.
    """

    def __init__(
        self, space: SearchSpace, *, independent_sampler: BaseSampler | None = None, seed: int | None = None
    ) -> None:
        self.space = space
        self._independent = independent_sampler or TPESampler(seed=seed, multivariate=False)
        self._seed = _random_seed() if seed is None else seed
        self._start()

    @property
    def _past_constraints(self) -> Mapping[str, PastConstraint]:
        """What is known beforehand of constraints, by name."""
        return {}

    def _start(self) -> None:
        # Optuna's storages know studies by number; a storage that nobody uses any more takes its studies along
        self._memories: WeakKeyDictionary[Any, dict[int, Memory]] = WeakKeyDictionary()
        self._lock = threading.RLock()

    def _title(self) -> str:
        return f"of {plural(len(self.space.names), 'parameter')}: {listed(self.space.names)}"

    def _parts(self) -> dict[str, Any]:
        return {"other parameters by": str(self._independent), "seed": self._seed}

    def __getstate__(self) -> dict[str, Any]:
        """Without what cannot be copied to another process; a study is read again there."""
        return {name: value for name, value in vars(self).items() if name not in ("_memories", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def reseed_rng(self) -> None:
        """Called by Optuna in each worker, so that workers differ."""
        self._seed = _random_seed()
        self._independent.reseed_rng()

    def infer_relative_search_space(self, study: "Study", trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing, so that parameters are sampled when they are asked for, which is when their ranges are known."""
        self._raise_error_if_multi_objective(study)
        return {}

    def sample_relative(
        self, study: "Study", trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """All parameters of a space at once: for a sampler that contains this one and says what to search."""
        self._raise_error_if_multi_objective(study)
        known = {name: distribution for name, distribution in search_space.items() if self._knows(name, distribution)}
        params = self._proposed(study, trial, known) if known else {}
        return {
            name: as_given(distribution, params[name])
            if name in params
            else self._independent.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def sample_independent(
        self, study: "Study", trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        self._raise_error_if_multi_objective(study)
        if self._knows(param_name, param_distribution):
            params = self._proposed(study, trial, {param_name: param_distribution})
            if param_name in params:
                return as_given(param_distribution, params[param_name])
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: "Study", trial: FrozenTrial) -> None:
        self._raise_error_if_multi_objective(study)
        self._independent.before_trial(study, trial)

    def after_trial(
        self, study: "Study", trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._independent.after_trial(study, trial, state, values)

    @abstractmethod
    def _propose(self, request: Request) -> tuple[Tensor, str]:
        """The next point of `request.view.space`, `(d,)`, and the turn it was (see `bo.acquisition.schedule`), if
        any."""

    def _knows(self, name: str, distribution: BaseDistribution) -> bool:
        return shares(self.space, name, distribution) and not distribution.single()

    def _proposed(self, study: "Study", trial: FrozenTrial, asked: Mapping[str, BaseDistribution]) -> Mapping[str, Any]:
        """Known parameters for a trial that asks for some of them; none where the search failed."""
        with self._lock:
            memory = self._memory(study)
            proposal = memory.proposals.get(trial.number)
            if proposal is None or not proposal.answers(trial, asked):
                proposal = memory.proposals[trial.number] = self._new_proposal(study, memory, trial, asked)
            return proposal.params

    def _memory(self, study: "Study") -> Memory:
        memories = self._memories.setdefault(study._storage, {})
        if study._study_id not in memories:
            maximize = study.direction == StudyDirection.MAXIMIZE
            memories[study._study_id] = Memory(self.space, maximize=maximize)
        return memories[study._study_id]

    @with_gradients
    def _new_proposal(
        self, study: "Study", memory: Memory, trial: FrozenTrial, asked: Mapping[str, BaseDistribution]
    ) -> Proposal:
        history = memory.history
        # all trials of the study: where Hyperband prunes, `study` itself would show those of one bracket alone
        history.read(study._storage.get_all_trials(study._study_id, deepcopy=False))
        memory.forget_finished()
        if history.only_fails:
            return NOTHING
        try:
            self._guess_others(study, memory, trial.number)
            proposal = self._searched(study, memory, trial, asked)
        except Exception as error:
            # a study of hours must not end because a matrix was singular
            self._warn_of_failure(study, memory, error)
            return NOTHING
        if proposal.turn:
            # with the trial, so that other workers, and this study resumed, know whose turn is next
            study._storage.set_trial_system_attr(trial._trial_id, TURN, proposal.turn)
        return proposal

    def _guess_others(self, study: "Study", memory: Memory, number: int) -> None:
        """What trials that began before this one will be given, where their workers are still searching.

        Workers that ask at once know the same, and would all go to the same point.
        """
        earlier = [other for other in memory.history.running if number - NUM_LATE <= other < number]
        for other in sorted(filter(memory.waits, earlier))[-MAX_GUESSED:]:
            if other not in memory.guesses and self._expected(memory.history, memory.history.running[other], {}):
                memory.guesses[other] = self._searched(study, memory, memory.history.running[other], {})

    def _searched(
        self, study: "Study", memory: Memory, trial: FrozenTrial, asked: Mapping[str, BaseDistribution]
    ) -> Proposal:
        distributions = self._expected(memory.history, trial, asked)
        conditions = applying_conditions(self.space, distributions)
        space = SearchSpace(distributions, {name: rule for name, rule in conditions.items() if name not in asked})
        if space == memory.searched and space.names == memory.searched.names:
            space = memory.searched
        memory.searched = space
        point, turn = self._propose(self._request(study, memory, trial, space))
        return Proposal(space.from_unit(point[None])[0], distributions, turn)

    def _expected(
        self, history: History, trial: FrozenTrial, asked: Mapping[str, BaseDistribution]
    ) -> dict[str, BaseDistribution]:
        """The known parameters that the trial will ask for, as far as one can tell, in the order of the known space."""
        expected = {}
        for name, distribution in self.space.distributions.items():
            if name in asked or not history.asked_by_finished or name in history.asked_by_finished:
                latest = {**history.asked, **asked}.get(name, distribution)
                ruled_out = name not in asked and is_ruled_out(name, self.space.conditions, trial.params)
                if name not in trial.params and not ruled_out and self._knows(name, latest):
                    expected[name] = latest
        return expected

    def _request(self, study: "Study", memory: Memory, trial: FrozenTrial, space: SearchSpace) -> Request:
        history = memory.history
        fixed = to_numbers(self.space, [(trial.params, trial.distributions)])[0]
        view = View(self.space, space, fixed)
        others = memory.running(besides=trial.number)
        running = to_numbers(self.space, others.values())
        has_begun = ~running.isnan().all(-1)
        is_late = torch.tensor([number >= trial.number - NUM_LATE for number in others], dtype=torch.bool)
        is_guessed = torch.tensor([number in memory.guesses for number in others], dtype=torch.bool)
        evaluated, y = history.evaluated()
        unevaluated = torch.cat([history.unevaluated, running[has_begun]])
        late, guessed = running[has_begun & is_late], running[is_guessed]
        turns, user_attrs = memory.turns(besides=trial.number), memory.user_attrs(study)
        generator = self._generator(trial)
        return Request(
            view,
            evaluated,
            y,
            unevaluated,
            late,
            guessed,
            history.maximize,
            generator,
            turns,
            history.feasible,
            self._chances(history, view),
            user_attrs,
        )

    def _chances(self, history: History, view: View) -> Chances:
        """That a trial succeeds, and meets all constraints."""
        in_own, in_known = [], []
        if (outcomes := history.outcomes()) is not None:
            rows, succeeded, weight = outcomes
            in_own.append(chance_of_success(view.to_own_from(rows), succeeded, weight, len(view.own.names)))
        for name, rows, values in history.constraints(self._past_constraints):
            if name in self._past_constraints:
                in_known.append(self._past_constraints[name].chance(self.space.encode(rows), values))
            elif (chance := chance_of_constraint(view.to_own_from(rows), values)) is not None:
                in_own.append(chance)
        return Chances(all_of(in_own), all_of(in_known))

    def _generator(self, trial: FrozenTrial) -> Generator:
        """The same for each search of one trial, so that workers of one seed differ and a study can be resumed."""
        return Generator().manual_seed((self._seed + NEXT * trial.number) % 2**63)

    def _warn_of_failure(self, study: "Study", memory: Memory, error: Exception) -> None:
        if memory.has_warned_of_failure:
            return
        memory.has_warned_of_failure = True
        warn(
            f"no suggestion could be made in study {study.study_name!r}: {type(error).__name__}: {error}. The trial's "
            f"parameters are left to {self._independent}, and so are those of later trials that fail like this",
            NoSuggestionWarning,
        )


def _random_seed() -> int:
    return secrets.randbits(56)
