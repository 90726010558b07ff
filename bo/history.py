"""The trials of a running study as rows of numbers, each of them read once.

What a trial says depends on how it ended:

- completed: its objective, an infinite one counting as the most extreme finite one;
- pruned: as bad as the worst completed trial, which is no claim about how bad;
- failed, which it also is where the objective was NaN: as bad as that too where most trials nearby failed, and two at
  least, for a sampler that kept to such a place would never leave it. Elsewhere a machine may have been at fault, and
  nothing is known but that it was tried;
- running: that it was tried.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from bo.scores import finite_values
from bo.space import SearchSpace
from bo.view import shares, to_numbers

__all__ = ["TURN", "History"]

TURN = "bayesmeta:turn"  # the system attribute of a trial that says how its suggestion was made


class History:
    """What the trials of a study say, in terms of a known space: see `bo.view`.

    Optuna never changes a finished trial, so a second look is at those alone that were not finished at the first. A
    trial without any known parameter is left out.

    Args:
        known: the space that rows are in terms of.

    Attributes:
        asked: known parameters as trials asked for them, the latest distribution of each.
        asked_by_finished: the names among them that a finished trial had.
        running: the trials that have not finished, by number.
        turns: how the suggestions of trials were made, by number, where it was by a sampler that says so.
    """

    def __init__(self, known: SearchSpace) -> None:
        self.known = known
        self.asked: dict[str, BaseDistribution] = {}
        self.asked_by_finished: set[str] = set()
        self.running: dict[int, FrozenTrial] = {}
        self.turns: dict[int, str] = {}
        self._completed = self._pruned = self._failed = to_numbers(known, [])
        self._values = torch.empty(0, dtype=torch.float64)
        self._num_seen = 0

    def read(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what is new in `trials`, which are all trials of the study by number."""
        new = [trials[number] for number in (*self.running, *range(self._num_seen, len(trials)))]
        self._num_seen = len(trials)
        self.running = {trial.number: trial for trial in new if not trial.state.is_finished()}
        found: dict[TrialState, list[FrozenTrial]] = {state: [] for state in TrialState}
        self.turns |= {trial.number: trial.system_attrs[TURN] for trial in new if TURN in trial.system_attrs}
        for trial in new:
            shared = {name: d for name, d in trial.distributions.items() if shares(self.known, name, d)}
            self.asked.update(shared)
            if shared and trial.state.is_finished():
                self.asked_by_finished.update(shared)
                found[trial.state].append(trial)
        self._completed = torch.cat([self._completed, self._rows_of(found[TrialState.COMPLETE])])
        self._pruned = torch.cat([self._pruned, self._rows_of(found[TrialState.PRUNED])])
        self._failed = torch.cat([self._failed, self._rows_of(found[TrialState.FAIL])])
        values = [trial.value for trial in found[TrialState.COMPLETE] if trial.value is not None]
        self._values = torch.cat([self._values, torch.tensor(values, dtype=torch.float64)])

    @property
    def only_fails(self) -> bool:
        """Whether several trials failed, and none was completed: whatever was believed of this study is wrong."""
        return not len(self._values) and len(self._failed) >= PATIENCE

    def evaluated(self, *, maximize: bool) -> tuple[Float[Tensor, "n p"], Float[Tensor, " n"]]:
        """Rows whose objective is known, or is as bad as any; and their objectives."""
        values = finite_values(self._values)
        if not len(values):
            return self._completed, values
        bad = torch.cat([self._pruned, self._failed[self._fails_nearby]])
        worst = values.min() if maximize else values.max()
        return torch.cat([self._completed, bad]), torch.cat([values, worst.expand(len(bad))])

    def unevaluated(self, running: Float[Tensor, "r p"]) -> Float[Tensor, "n p"]:
        """Rows that were tried and say no more, besides those that are running."""
        if len(self._values):
            return torch.cat([running, self._failed[~self._fails_nearby]])
        return torch.cat([running, self._failed, self._pruned])  # beside nothing, none is the worst

    @property
    def _fails_nearby(self) -> Bool[Tensor, " n"]:
        """For each failed row, whether most rows nearby failed, and two at least."""
        failed, ended = (self.known.encode(rows) for rows in (self._failed, torch.cat([self._completed, self._pruned])))
        num_failed = (torch.cdist(failed, failed) < NEAR).sum(-1)
        return (num_failed >= 2) & (num_failed > (torch.cdist(failed, ended) < NEAR).sum(-1))

    def _rows_of(self, trials: Sequence[FrozenTrial]) -> Tensor:
        return to_numbers(self.known, [(trial.params, trial.distributions) for trial in trials])
