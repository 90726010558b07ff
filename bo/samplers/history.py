"""The trials of a running study as rows of numbers, each of them read once.

What a trial says depends on how it ended:

- completed: its objective, one that is infinitely good counting as the best finite one;
- pruned: as bad as the worst completed trial, which is no claim about how bad;
- failed, which it also is where the objective was NaN or infinitely bad: as bad as that too where most trials nearby
  failed, and two at least, for a sampler that kept to such a place would never leave it. Elsewhere a machine may have
  been at fault, and nothing is known but that it was tried;
- running: that it was tried.

Where trials failed, and which constraints they violated, says besides how probable it is that others succeed: see
`bo.single_study.feasibility`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from bo.past_tasks.scores import finite_values
from bo.space.search_space import SearchSpace
from bo.space.study_space import shares, to_numbers

__all__ = ["TURN", "History"]

TURN = "bayesmeta:turn"  # the system attribute of a trial that says how its suggestion was made
NEAR = 0.2  # in the unit cube
PATIENCE = 3  # failures without a completed trial


class History:
    """What the trials of a study say, in terms of a known space: see `bo.space.study_space`.

    Optuna never changes a finished trial, so a second look is at those alone that were not finished at the first. A
    trial without any known parameter is left out. Rows are in the order of trials.

    Args:
        known: the space that rows are in terms of.
        maximize: whether more is better.

    Attributes:
        asked: known parameters as trials asked for them, the latest distribution of each.
        asked_by_finished: the names among them that a finished trial had.
        running: the trials that have not finished, by number.
        turns: how the suggestions of trials were made, by number, where it was by a sampler that says so.
    """

    def __init__(self, known: SearchSpace, *, maximize: bool) -> None:
        self.known = known
        self.maximize = maximize
        self.asked: dict[str, BaseDistribution] = {}
        self.asked_by_finished: set[str] = set()
        self.running: dict[int, FrozenTrial] = {}
        self.turns: dict[int, str] = {}
        self._rows = to_numbers(known, [])
        self._values = torch.empty(0, dtype=torch.float64)  # NaN where a trial was not completed
        self._states = torch.empty(0, dtype=torch.long)
        self._numbers = torch.empty(0, dtype=torch.long)
        self._says_how_good = self._completed = torch.empty(0, dtype=torch.bool)
        self._constraints: list[dict[str, float]] = []
        self._num_seen = 0

    def read(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what is new in `trials`, which are all trials of the study by number."""
        new = [trials[number] for number in (*self.running, *range(self._num_seen, len(trials)))]
        self._num_seen = len(trials)
        self.running = {trial.number: trial for trial in new if not trial.state.is_finished()}
        self.turns |= {trial.number: trial.system_attrs[TURN] for trial in new if TURN in trial.system_attrs}
        finished = []
        for trial in new:
            shared = {name: d for name, d in trial.distributions.items() if shares(self.known, name, d)}
            self.asked.update(shared)
            if shared and trial.state.is_finished():
                self.asked_by_finished.update(shared)
                finished.append(trial)
        if finished:
            self._append(finished)

    def evaluated(self) -> tuple[Float[Tensor, "n p"], Float[Tensor, " n"]]:
        """Rows whose objective is known, or is as bad as any; and their objectives."""
        values = finite_values(self._values[self._completed])
        if not len(values):
            return self._rows[:0], values
        y = torch.full_like(self._values, float(values.min() if self.maximize else values.max()))
        y[self._completed] = values
        return self._rows[self._says_how_good], y[self._says_how_good]

    @property
    def feasible(self) -> Bool[Tensor, " n"] | None:
        """Which of the rows of `evaluated` met all constraints; None where all did. One without constraints did."""
        met = torch.tensor([all(value <= 0.0 for value in each.values()) for each in self._constraints])
        return None if bool(met.all()) or not self._completed.any() else met[self._says_how_good]

    def constraints(self, expected: Iterable[str]) -> Iterator[tuple[str, Float[Tensor, "n p"], Float[Tensor, " n"]]]:
        """Each constraint that some trial had, the rows of those trials, and its values, above zero if violated.

        Args:
            expected: constraints that a study has until a completed trial shows whether it does.
        """
        if not self._completed.any():
            yield from ((name, self._rows[:0], self._values[:0]) for name in expected)
            return
        for name in dict.fromkeys(name for each in self._constraints for name in each):
            values = torch.tensor([each.get(name, math.nan) for each in self._constraints], dtype=torch.float64)
            known = ~values.isnan()
            if bool(known.any()):
                yield name, self._rows[known], values[known]

    def outcomes(self) -> tuple[Float[Tensor, "n p"], Bool[Tensor, " n"], Float[Tensor, " n"]] | None:
        """Rows of finished trials, which of them succeeded, and how much each says; None where all did.

        A pruned trial is half of a failure, since it was poor, or pruned too early; where none was completed, there was
        none that it could be poorer than, and it is a whole one.
        """
        if bool(self._completed.all()):
            return None
        is_half = (self._states == TrialState.PRUNED) & self._completed.any()
        return self._rows, self._completed, torch.where(is_half, 0.5, 1.0).double()

    @property
    def unevaluated(self) -> Float[Tensor, "n p"]:
        """Rows of finished trials that were tried and say no more."""
        return self._rows[~self._says_how_good]

    @property
    def only_fails(self) -> bool:
        """Whether several trials failed or were pruned, and none was completed.

        Then what is believed of this study is wrong.
        """
        return not self._completed.any() and len(self._states) >= PATIENCE

    def _append(self, finished: Sequence[FrozenTrial]) -> None:
        rows = to_numbers(self.known, [(trial.params, trial.distributions) for trial in finished])
        states = [self._ending(trial) for trial in finished]
        values = [
            trial.value if state == TrialState.COMPLETE else math.nan
            for trial, state in zip(finished, states, strict=True)
        ]
        self._rows = torch.cat([self._rows, rows])
        self._values = torch.cat([self._values, torch.tensor(values, dtype=torch.float64)])
        self._states = torch.cat([self._states, torch.tensor(states)])
        self._numbers, order = torch.cat([self._numbers, torch.tensor([trial.number for trial in finished])]).sort()
        self._rows, self._values, self._states = self._rows[order], self._values[order], self._states[order]
        constraints = self._constraints + [trial.constraints for trial in finished]
        self._constraints = [constraints[place] for place in order.tolist()]
        self._completed = self._states == TrialState.COMPLETE
        bad = (self._states == TrialState.PRUNED) | self._fails_nearby()
        # beside nothing, none is the worst
        self._says_how_good = self._completed | (bad & self._completed.any())

    def _ending(self, trial: FrozenTrial) -> TrialState:
        worst = -math.inf if self.maximize else math.inf
        return TrialState.FAIL if trial.state == TrialState.COMPLETE and trial.value == worst else trial.state

    def _fails_nearby(self) -> Bool[Tensor, " n"]:
        """Whether a row failed, most rows nearby did too, and two at least."""
        failed = self._states == TrialState.FAIL
        if not failed.any():
            return failed
        x = self.known.encode(self._rows)
        near = torch.cdist(x[failed], x) < NEAR
        num_failed = (near & failed).sum(-1)
        found = torch.zeros_like(failed)
        found[failed] = (num_failed >= 2) & (2 * num_failed > near.sum(-1))
        return found
