"""Logs of decisions: what another policy can be judged by later.

A row is a decision that had its reward: the context, the arm, the probability that the arm had, and the reward. With
these four, the value of a policy that never ran can be estimated (`bandits.evaluation`).
"""

import io
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from bandits.choices import Choice, Choices
from bayesmeta.data import Data
from bayesmeta.describe import Described, listed, plural
from bayesmeta.frames import read_frame
from bayesmeta.io import write_whole
from bayesmeta.warning_kinds import BayesmetaWarning, warn

__all__ = ["Log", "LogWriter", "UnusableRowsWarning"]

CONTEXT = "context_"  # columns of a table, with a number


class UnusableRowsWarning(BayesmetaWarning):
    """A log leaves decisions out, as what is known of them cannot be used."""


@dataclass(frozen=True, eq=False)
class Log(Described):
    """Decisions with their rewards, n in all.

    Args:
        arm: position of each chosen arm among `names`, `(n,)`.
        reward: `(n,)`.
        propensity: the probability that the chosen arm had, above 0 and at most 1, `(n,)`.
        names: of the arms.
        context: `(n, c)`, None where there was none.
        task: of each, None where there was one.
        position: of each in the list that was shown, where several arms were shown at once.

    Raises: ValueError: shapes differ, an arm is none of the names, a reward is not finite, or a propensity is no
    probability.
    """

    arm: Tensor
    reward: Tensor
    propensity: Tensor
    names: tuple[Hashable, ...]
    context: Tensor | None = None
    task: Tensor | None = None
    position: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.arm)
        for name in ("reward", "propensity", "context", "task", "position"):
            value = getattr(self, name)
            if value is not None and len(value) != n:
                raise ValueError(f"{name} must have a row for each of {n} decisions; got {len(value)}")
        self._require((self.arm < 0) | (self.arm >= len(self.names)), "arm", f"of {len(self.names)} arms")
        self._require(~self.reward.isfinite(), "reward", "finite: leave decisions without a reward out")
        bad = ~((self.propensity > 0) & (self.propensity <= 1))
        self._require(bad, "propensity", "above 0 and at most 1: log choices with their propensities")
        if self.context is not None:
            self._require(~self.context.isfinite().all(-1), "context", "finite")

    @property
    def num_arms(self) -> int:
        return len(self.names)

    def _title(self) -> str:
        tasks = "" if self.task is None else f" of {plural(len(self.task.unique()), 'task')}"
        return f"of {plural(len(self), 'decision')}{tasks} among {plural(self.num_arms, 'arm')}: {listed(self.names)}"

    def _parts(self) -> dict[str, Any]:
        if not len(self):
            return {}
        context = None if self.context is None else f"{self.context.shape[-1]} numbers"
        parts = {"mean reward": float(self.reward.double().mean()), "propensity": self.propensity, "context": context}
        return {name: part for name, part in parts.items() if part is not None}

    def __len__(self) -> int:
        return len(self.arm)

    def __getitem__(self, index: Any) -> "Log":
        """Some of the decisions."""
        context, task, position = (v if v is None else v[index] for v in (self.context, self.task, self.position))
        return Log(self.arm[index], self.reward[index], self.propensity[index], self.names, context, task, position)

    def to_tasks(self) -> Data:
        """Rewards by task, with the number of the arm as the first input, and the context after it.

        What priors are learned from: by `CorrelatedArms`, or with `bandits.prior_of_each_arm` and `arms_as_tasks`.
        """
        arm = self.arm.double()[:, None]
        x = arm if self.context is None else torch.cat([arm, self.context.double()], -1)
        task = torch.zeros(len(self), dtype=torch.long) if self.task is None else self.task
        rows = [task == number for number in task.unique().tolist()]
        return Data.pad([(x[row], self.reward[row].double()) for row in rows])

    def to_obp(self) -> dict[str, Any]:
        """As the Open Bandit Pipeline's estimators take it: its `BanditFeedback`, in NumPy."""
        return {
            "n_rounds": len(self),
            "n_actions": self.num_arms,
            "context": None if self.context is None else self.context.numpy(),
            "action_context": None,
            "action": self.arm.numpy(),
            "position": None if self.position is None else self.position.numpy(),
            "reward": self.reward.numpy(),
            "pscore": self.propensity.numpy(),
        }

    @classmethod
    def from_obp(cls, feedback: Mapping[str, Any], names: Sequence[Hashable] | None = None) -> "Log":
        """From its `BanditFeedback`.

        Args:
            names: of the arms, by default their numbers.

        Raises:
            ValueError: something that a log needs is missing.
        """
        missing = [key for key in ("action", "reward", "pscore", "n_actions") if feedback.get(key) is None]
        if missing:
            raise ValueError(
                f"feedback must have action, reward, pscore and n_actions; {', '.join(missing)} is missing"
            )
        context, position = (feedback.get(key) for key in ("context", "position"))
        return cls(
            torch.as_tensor(np.asarray(feedback["action"])).long(),
            torch.as_tensor(np.asarray(feedback["reward"])).double(),
            torch.as_tensor(np.asarray(feedback["pscore"])).double(),
            tuple(range(int(feedback["n_actions"])) if names is None else names),
            None if context is None else torch.as_tensor(np.asarray(context)).double(),
            None,
            None if position is None else torch.as_tensor(np.asarray(position)).long(),
        )

    @classmethod
    def from_open_bandit(cls, source: Any) -> "Log":
        """From a table of the Open Bandit Dataset: `item_id`, `click`, `propensity_score` and `position`.

        Args:
            source: a frame, or the path of a CSV or Parquet file.

        Raises:
            ValueError: a column is missing.
        """
        frame = read_frame(source)
        _require_columns(frame.columns, ["item_id", "click", "propensity_score", "position"])
        item, click, propensity, position = (
            torch.as_tensor(frame[name].to_numpy().astype(float))
            for name in ("item_id", "click", "propensity_score", "position")
        )
        names = tuple(range(int(item.max()) + 1))
        return cls(item.long(), click, propensity, names, None, None, position.long() - int(position.min()))

    def save(self, path: str | Path) -> None:
        """Write a Parquet file with a row for each decision; whatever stood there stays until it is complete."""
        columns: dict[str, Any] = {
            "arm": [self.names[i] for i in self.arm.tolist()],
            "reward": self.reward.numpy(),
            "propensity": self.propensity.numpy(),
        }
        for name in ("task", "position"):
            if getattr(self, name) is not None:
                columns[name] = getattr(self, name).numpy()
        if self.context is not None:
            columns |= {f"{CONTEXT}{i}": column.numpy() for i, column in enumerate(self.context.unbind(-1))}
        buffer = io.BytesIO()
        pl.DataFrame(columns).write_parquet(buffer)
        write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path, names: Sequence[Hashable] | None = None) -> "Log":
        """The log in a table that `save` wrote, or that has its columns.

        Args:
            names: of the arms; by default those that the log names, in order.

        Raises:
            ValueError: a column is missing, or the table names an arm that `names` does not.
        """
        frame = read_frame(path)
        _require_columns(frame.columns, ["arm", "reward", "propensity"])
        arms = frame["arm"].to_list()
        known = sorted(set(arms), key=lambda name: (str(type(name)), name)) if names is None else list(names)
        number = {name: i for i, name in enumerate(known)}
        unknown = next((arm for arm in arms if arm not in number), None)
        if unknown is not None:
            raise ValueError(f"{path} has a decision for arm {unknown!r}, which names do not have")
        reward, propensity = (
            torch.as_tensor(frame[name].to_numpy().astype(float)) for name in ("reward", "propensity")
        )
        wide = [name for name in frame.columns if name.startswith(CONTEXT)]
        context = torch.as_tensor(frame.select(wide).to_numpy().astype(float)) if wide else None
        task, position = (
            torch.as_tensor(frame[name].to_numpy().astype(np.int64)) if name in frame.columns else None
            for name in ("task", "position")
        )
        arm = torch.tensor([number[arm] for arm in arms])
        return cls(arm, reward, propensity, tuple(known), context, task, position)

    def _require(self, bad: Tensor, name: str, what: str) -> None:
        if bool(bad.any()):
            row = int(bad.nonzero()[0, 0])
            raise ValueError(f"{name} must be {what}; that of decision {row} is {getattr(self, name)[row].tolist()}")


class LogWriter(Described):
    """Gathers decisions while a policy runs, and their rewards when they come.

    Args:
        names: of the arms, `policy.arms`.
        max_pending: decisions that wait for a reward at most, the latest; the others are left out of the log.
    """

    def __init__(self, names: Sequence[Hashable], *, max_pending: int = 1_000_000) -> None:
        if max_pending < 1:
            raise ValueError(f"at least one decision must be remembered; got {max_pending}")
        self.names, self.max_pending = tuple(names), max_pending
        self._waiting: dict[int, tuple[int, int, float, Tensor | None]] = {}
        self._rows: list[tuple[int, int, float, Tensor | None, float]] = []
        self._ids: list[int] = []  # of the rows

    @property
    def num_pending(self) -> int:
        """Decisions that wait for their reward."""
        return len(self._waiting)

    def _title(self) -> str:
        of = f"{plural(len(self._rows), 'decision')} with a reward, {self.num_pending} that wait"
        return f"of {of}, among {plural(len(self.names), 'arm')}: {listed(self.names)}"

    def record(self, choice: Choice | Choices, context: Any = None) -> None:
        """Decisions, as `choose` returned them, with the context that it was given.

        Raises:
            ValueError: the choices carry no propensities, or name an arm that is unknown here.
        """
        choices = [choice] if isinstance(choice, Choice) else list(choice)
        rows = None if context is None else torch.as_tensor(context).double().reshape(len(choices), -1)
        number = {name: i for i, name in enumerate(self.names)}
        for i, one in enumerate(choices):
            if one.propensity is None:
                raise ValueError("choices must carry their propensities: leave propensities=True")
            if one.arm not in number:
                raise ValueError(f"there is no arm {one.arm!r} in this log; begin a new one when arms come")
            self._waiting[one.id] = (number[one.arm], one.task, one.propensity, None if rows is None else rows[i])
        while len(self._waiting) > self.max_pending:
            del self._waiting[next(iter(self._waiting))]  # the first that came

    def reward(self, choice: Any, reward: Any) -> None:
        """Their rewards, in any order; a reward for a decision that does not wait for one is refused."""
        ids = (
            [choice.id]
            if isinstance(choice, Choice)
            else choice.ids.tolist()
            if isinstance(choice, Choices)
            else choice
        )
        values = torch.as_tensor(reward).double().reshape(-1).tolist()
        ids = [ids] if isinstance(ids, int) else list(ids)
        if len(ids) != len(values):
            raise ValueError(f"each decision has one reward; got {len(ids)} decisions and {len(values)} rewards")
        unknown = next((id for id in ids if id not in self._waiting), None)
        if unknown is not None:
            raise ValueError(f"decision {unknown} does not wait for a reward: it was not recorded, or has had it")
        for id, value in zip(ids, values, strict=True):
            self._rows.append((*self._waiting.pop(id), value))
            self._ids.append(id)

    @property
    def unusable(self) -> dict[int, str]:
        """Decisions with a reward that `log` leaves out, by their number, and why."""
        rows = zip(self._ids, self._rows, strict=True)
        return {id: why for id, row in rows if (why := _why_unusable(row[2], row[4])) is not None}

    def log(self) -> Log:
        """Those that have had their reward and can be used; see `unusable` for the others.

        Raises:
            ValueError: there are none.

        Warns:
            UnusableRowsWarning: some cannot be used.
        """
        if not self._rows:
            raise ValueError("no decision has had its reward yet")
        usable = [row for row in self._rows if _why_unusable(row[2], row[4]) is None]
        if len(usable) < len(self._rows):
            first, why = next(iter(self.unusable.items()))
            text = (
                f"{len(self._rows) - len(usable)} of {plural(len(self._rows), 'decision')} cannot be used, of which "
                f"the first is decision {first}: {why}"
            )
            if not usable:
                raise ValueError(text)
            warn(f"{text}; `unusable` has them all", UnusableRowsWarning)
        arm, task, propensity, context, reward = zip(*usable, strict=True)
        rows = None if any(row is None for row in context) else torch.stack(context)
        return Log(
            torch.tensor(arm),
            torch.tensor(reward).double(),
            torch.tensor(propensity).double(),
            self.names,
            rows,
            torch.tensor(task),
        )


def _why_unusable(propensity: float, reward: float) -> str | None:
    if not 0.0 < propensity <= 1.0:
        return f"its propensity is {propensity}, and must be above 0 and at most 1"
    if not math.isfinite(reward):
        return f"its reward is {reward}, and must be finite"
    return None


def _require_columns(columns: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ValueError(f"the table must have columns {', '.join(needed)}; {', '.join(missing)} is missing")
