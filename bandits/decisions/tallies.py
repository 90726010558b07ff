"""How often each task decided, and how often each of its arms was rewarded."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bandits.prospects.prospects import History

__all__ = ["Tallies"]


class Tallies:
    """Counts of all tasks, none so far; see `History` for what each is."""

    def __init__(self, tasks: int, arms: int) -> None:
        self.pulls = np.zeros((tasks, arms), np.int64)
        self.rounds, self.rewards = np.zeros(tasks, np.int64), np.zeros(tasks, np.int64)

    @property
    def history(self) -> History:
        return History(self.pulls, self.rounds, self.rewards)

    def decided(self, task: Tensor | int) -> None:
        """One decision in each task that is named, which may be more than once."""
        if isinstance(task, int):
            self.rounds[task] += 1
        else:
            np.add.at(self.rounds, task.numpy(), 1)

    def rewarded(self, task: np.ndarray, arm: np.ndarray) -> None:
        """One reward of each task and arm, `(m,)` each."""
        np.add.at(self.pulls, (task, arm), 1)
        np.add.at(self.rewards, task, 1)

    def add_arm(self) -> None:
        self.pulls = np.pad(self.pulls, ((0, 0), (0, 1)))

    def keep_arms(self, positions: list[int]) -> None:
        self.pulls = self.pulls[:, positions]

    def copy_arm(self, to: int, source: int) -> None:
        self.pulls[:, to] = self.pulls[:, source]

    def state_dict(self) -> dict[str, Any]:
        return {name: torch.from_numpy(array) for name, array in self.history._asdict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pulls, self.rounds = state["pulls"].numpy().copy(), state["rounds"].numpy().copy()
        # earlier versions did not keep it, and arms had no pulls but their own
        self.rewards = state["rewards"].numpy().copy() if "rewards" in state else self.pulls.sum(-1)
