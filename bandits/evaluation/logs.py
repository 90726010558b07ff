"""Logs of decisions: what another policy can be judged by later.

A row is a decision that had its reward: the context, the arm, the probability that the arm had, and the reward. With
these four, the value of a policy that never ran can be estimated (`bandits.evaluation.estimates`).
"""

import io
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from bandits.decisions.arms import require_different
from bandits.decisions.choices import names_of
from bandits.decisions.numbers import numbers_of, whole_numbers_of
from bayesmeta.data.rows import Data
from bayesmeta.data.tables import read_frame
from bayesmeta.describe import Described, listed, plural
from bayesmeta.io import write_whole

__all__ = ["Log", "checked_names"]

CONTEXT = "context_"  # columns of a table, with a number


@dataclass(frozen=True, eq=False, init=False)
class Log(Described):
    """Decisions with their rewards, n in all; tensors, or arrays, series and lists, which become tensors.

    Args:
        arm: position of each chosen arm among `names`, `(n,)`.
        reward: `(n,)`.
        propensity: the probability that the chosen arm had, above 0 and at most 1, `(n,)`.
        names: of the arms.
        context: `(n, c)`, None where there was none.
        task: of each, None where there was one.
        position: of each in the list that was shown, where several arms were shown at once.

    Raises:
        TypeError: something is no number, or no whole number where it must be.
        ValueError: shapes differ, an arm is none of the names, two names are equal, a reward is not finite, or a
            propensity is no probability.
    """

    arm: Tensor
    reward: Tensor
    propensity: Tensor
    names: tuple[Hashable, ...]
    context: Tensor | None = None
    task: Tensor | None = None
    position: Tensor | None = None

    def __init__(
        self,
        arm: Any,
        reward: Any,
        propensity: Any,
        names: Any,
        context: Any = None,
        task: Any = None,
        position: Any = None,
    ) -> None:
        object.__setattr__(self, "names", checked_names(names))
        for name, value in (("arm", arm), ("task", task), ("position", position)):
            object.__setattr__(self, name, None if value is None else whole_numbers_of(value, name))
        for name, value in (("reward", reward), ("propensity", propensity), ("context", context)):
            object.__setattr__(self, name, None if value is None else _floats(value, name))
        self._require_shapes()
        self._require((self.arm < 0) | (self.arm >= len(self.names)), "arm", f"of {len(self.names)} arms")
        self._require(~self.reward.isfinite(), "reward", "finite: leave decisions without a reward out")
        bad = ~((self.propensity > 0) & (self.propensity <= 1))
        self._require(bad, "propensity", "above 0 and at most 1: log choices with their propensities")
        if self.context is not None:
            self._require(~self.context.isfinite().all(-1), "context", "finite")

    def _require_shapes(self) -> None:
        for name in ("arm", "reward", "propensity", "context", "task", "position"):
            value = getattr(self, name)
            if value is None:
                continue
            if value.ndim != (2 if name == "context" else 1):
                shape = "(n, c)" if name == "context" else "(n,)"
                raise ValueError(f"{name} must have shape {shape} for n decisions; got {tuple(value.shape)}")
            if len(value) != len(self):
                raise ValueError(f"{name} must have a row for each of {len(self)} decisions; got {len(value)}")

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
            feedback["action"],
            numbers_of(feedback["reward"], "reward"),
            numbers_of(feedback["pscore"], "pscore"),
            range(int(feedback["n_actions"])) if names is None else names,
            None if context is None else numbers_of(context, "context"),
            None,
            position,
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
        return cls(item, click, propensity, names, None, None, position - position.min())

    def save(self, path: str | Path) -> None:
        """Write a Parquet file with a row for each decision; whatever stood there stays until it is complete.

        Raises:
            TypeError: names are of several kinds, such as strings and numbers, or of one that no table has, such as
                tuples.
        """
        columns: dict[str, Any] = {
            "arm": _column(self.names)[self.arm.numpy()],
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
        arm = torch.tensor([number[arm] for arm in arms], dtype=torch.long)
        return cls(arm, reward, propensity, known, context, task, position)

    def _require(self, bad: Tensor, name: str, what: str) -> None:
        if bool(bad.any()):
            row = int(bad.nonzero()[0, 0])
            raise ValueError(f"{name} must be {what}; that of decision {row} is {getattr(self, name)[row].tolist()}")


def _floats(value: Any, name: str) -> Tensor:
    return value if isinstance(value, Tensor) and value.is_floating_point() else numbers_of(value, name)


def checked_names(names: Any) -> tuple[Hashable, ...]:
    if isinstance(names, str):
        raise TypeError(f"names must be a list of the names of arms; got {names!r}. Try [{names!r}]")
    known = tuple(names_of(names))
    require_different(known)
    return known


def _column(names: Sequence[Hashable]) -> pl.Series:
    """Names as a file keeps them.

    Raises:
        TypeError: it cannot, or would return others.
    """
    try:
        column = pl.Series("arm", list(names))
        is_kept = column.dtype != pl.Object and column.to_list() == list(names)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        is_kept = False
    if not is_kept:
        kinds: dict[str, Hashable] = {}
        for name in names:
            kinds.setdefault(type(name).__name__, name)
        each = ", ".join(f"{name!r} ({kind})" for kind, name in kinds.items())
        raise TypeError(
            f"names of arms in a file must be strings, or numbers, all of one kind; got {each}. Name them anew, such "
            "as by dataclasses.replace(log, names=[str(name) for name in log.names])"
        )
    return column


def _require_columns(columns: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ValueError(f"the table must have columns {', '.join(needed)}; {', '.join(missing)} is missing")
