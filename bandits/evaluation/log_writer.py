"""A log that is written while a policy runs: decisions, and rewards that come later, some of them of no use."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bandits.decisions.choices import Choice, ids_of
from bandits.decisions.numbers import numbers_of
from bandits.evaluation.logs import Log, checked_names
from bayesmeta.describe import Described, listed, plural
from bayesmeta.doors import require_count
from bayesmeta.warning_kinds import BayesmetaWarning, warn

__all__ = ["LogWriter", "UnusableRowsWarning"]


class UnusableRowsWarning(BayesmetaWarning):
    """A log leaves decisions out, as what is known of them cannot be used."""


class LogWriter(Described):
    """Gathers decisions while a policy runs, and their rewards when they come.

    Args:
        names: of the arms, `policy.arms`.
        max_pending: decisions that wait for a reward at most, the latest; the others are left out of the log.

    Raises:
        TypeError: names are no list, or `max_pending` is no whole number.
        ValueError: two arms have one name.
    """

    def __init__(self, names: Any, *, max_pending: Any = 1_000_000) -> None:
        self.names, self.max_pending = checked_names(names), require_count("max_pending", max_pending)
        self._waiting: dict[int, _Decision] = {}
        self._rows: dict[int, tuple[_Decision, float]] = {}  # with their rewards, in the order of these

    @property
    def num_pending(self) -> int:
        """Decisions that wait for their reward."""
        return len(self._waiting)

    def _title(self) -> str:
        of = f"{plural(len(self._rows), 'decision')} with a reward, {self.num_pending} that wait"
        return f"of {of}, among {plural(len(self.names), 'arm')}: {listed(self.names)}"

    def record(self, choice: Any, context: Any = None) -> None:
        """Decisions, as `choose` returned them, with the context that it was given.

        Args:
            choice: a `Choice`, or `Choices`, n in all.
            context: all that `choose` takes: `(c,)` for one decision, `(n, c)` for n.

        Raises:
            TypeError: the choices are none, or contexts are no numbers.
            ValueError: the choices carry no propensities, name an arm that is unknown here, or have had their reward,
                or there is not one context for each; then nothing has changed.
        """
        choices = list(choice) if isinstance(choice, Sequence) else [choice]
        if not all(isinstance(one, Choice) for one in choices):
            raise TypeError(f"record takes what choose returned, a Choice or Choices; got {choice!r}")
        rows = [None] * len(choices) if context is None else _contexts(context, len(choices))
        number = {name: i for i, name in enumerate(self.names)}
        for one in choices:
            self._require_new(one, number)
        for one, row in zip(choices, rows, strict=True):
            self._waiting[one.id] = _Decision(number[one.arm], one.task, one.propensity, row)
        while len(self._waiting) > self.max_pending:
            del self._waiting[next(iter(self._waiting))]  # the first that came

    def reward(self, choice: Any, reward: Any) -> None:
        """Their rewards, in any order.

        Args:
            choice: what `choose` returned, or its number, or several of either, as `Policy.update` takes them.
            reward: one number, or one for each choice.

        Raises:
            TypeError: rewards are no numbers, or the choices are none.
            ValueError: a decision does not wait for a reward, or is given two; then nothing has changed.
        """
        ids, values = ids_of(choice).tolist(), numbers_of(reward, "rewards").reshape(-1).tolist()
        if len(ids) != len(values):
            raise ValueError(f"each decision has one reward; got {len(ids)} decisions and {len(values)} rewards")
        seen: set[int] = set()
        for id in ids:
            if id not in self._waiting:
                raise ValueError(f"decision {id} does not wait for a reward: it was not recorded, or has had it")
            if id in seen:
                raise ValueError(f"decision {id} is given two rewards; each has one")
            seen.add(id)
        for id, value in zip(ids, values, strict=True):
            self._rows[id] = self._waiting.pop(id), value

    @property
    def unusable(self) -> dict[int, str]:
        """Decisions with a reward that `log` leaves out, by their number, and why."""
        width = next((len(row.context) for row, _ in self._rows.values() if row.context is not None), None)
        each = ((id, _why_unusable(row, reward, width)) for id, (row, reward) in self._rows.items())
        return {id: why for id, why in each if why is not None}

    def log(self) -> Log:
        """Those that have had their reward and can be used; see `unusable` for the others.

        Raises:
            ValueError: there are none.

        Warns:
            UnusableRowsWarning: some cannot be used.
        """
        if not self._rows:
            raise ValueError("no decision has had its reward yet")
        unusable = self.unusable
        usable = [row for id, row in self._rows.items() if id not in unusable]
        if unusable:
            first, why = next(iter(unusable.items()))
            text = (
                f"{len(unusable)} of {plural(len(self._rows), 'decision')} cannot be used, of which "
                f"the first is decision {first}: {why}"
            )
            if not usable:
                raise ValueError(text)
            warn(f"{text}; `unusable` has them all", UnusableRowsWarning)
        decisions, rewards = zip(*usable, strict=True)
        arm, task, propensity, context = zip(*decisions, strict=True)
        rows = None if context[0] is None else torch.stack(context)
        return Log(
            torch.tensor(arm),
            torch.tensor(rewards).double(),
            torch.tensor(propensity).double(),
            self.names,
            rows,
            torch.tensor(task),
        )

    def _require_new(self, one: Choice, known: Mapping[Hashable, int]) -> None:
        if one.propensity is None:
            raise ValueError("choices must carry their propensities: leave propensities=True")
        if one.arm not in known:
            raise ValueError(f"there is no arm {one.arm!r} in this log; begin a new one when arms come")
        if one.id in self._rows:
            raise ValueError(
                f"decision {one.id} has had its reward, and a log has each once. Another policy, whose numbers begin "
                "anew, needs a LogWriter of its own"
            )


class _Decision(NamedTuple):
    """One that was recorded: position of the arm, task, propensity, and context `(c,)`."""

    arm: int
    task: int
    propensity: float
    context: Tensor | None


def _why_unusable(row: _Decision, reward: float, width: int | None) -> str | None:
    """What is wrong with a row, None if nothing.

    Args:
        width: of the contexts of the log, None where it has none.
    """
    if not 0.0 < row.propensity <= 1.0:
        return f"its propensity is {row.propensity}, and must be above 0 and at most 1"
    if not math.isfinite(reward):
        return f"its reward is {reward}, and must be finite"
    if width is None:
        return None
    if row.context is None:
        return f"it was recorded without a context, and others have one, of {plural(width, 'number')}"
    if len(row.context) != width:
        return f"its context has {plural(len(row.context), 'number')}, and that of the first has {width}"
    if not bool(row.context.isfinite().all()):
        return f"its context is {row.context.tolist()}, and must be finite"
    return None


def _contexts(context: Any, n: int) -> Sequence[Tensor]:
    """That of each decision, a copy: people fill one array again and again."""
    rows = numbers_of(context, "contexts").detach().clone()
    if rows.ndim < 2:
        rows = rows.reshape(1, -1) if n == 1 else rows.reshape(-1, 1)
    if rows.ndim != 2 or len(rows) != n:
        raise ValueError(f"each of {plural(n, 'decision')} needs its context, shape ({n}, c); got {tuple(rows.shape)}")
    return list(rows)
