"""All of a policy but how it chooses: its arms, the choices that wait for a reward, the posterior, and the counts."""

import threading
from collections.abc import Hashable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Generator, Tensor

from bandits.decisions.arms import Numbered, arms_of, rows_of_chosen
from bandits.decisions.choices import Choice, Choices, ids_of, names_of, rewards_of
from bandits.decisions.pending import Pending
from bandits.decisions.posterior import PolicyPosterior, Prior
from bandits.decisions.request import Request, TaskNumbers, one_task
from bandits.decisions.roster import Roster
from bandits.decisions.tallies import Tallies
from bandits.prospects.propensity import Propensities
from bandits.prospects.prospects import Prospects
from bayesmeta.describe import Described, listed, plural
from bayesmeta.protocol import num_arms_of

__all__ = ["Learner", "Learns"]


class Learner:
    """What learns, and keeps account; its methods and arguments are those of `Policy`, which says more of them."""

    def __init__(self, prior: Prior, arms: Any, tasks: TaskNumbers, max_pending: Any) -> None:
        self.tasks, self.roster = tasks, Roster(arms_of(arms, prior))
        self.posterior = PolicyPosterior(prior, tasks.num, len(self.roster), separate=self.roster.separate)
        self.pending = Pending(max_pending)
        self.tallies = Tallies(tasks.num, len(self.roster))

    def request(self, context: Any, task: Any, num: int | None, available: Any) -> Request:
        asked = Request.of(self.tasks, context, task, num)
        return asked if available is None else asked.among(available, self.roster.names, self.roster.position)

    def prospects(self, request: Request, generator: Generator) -> Prospects:
        """What the posterior says of the arms at some decisions, which tasks may begin by drawing what they keep."""
        if self.posterior.begins is not None:
            self.posterior.begins.begin(request.task_of_each, generator)
        x, online = self._rows(request), self.posterior.online
        return Prospects(online, x, request.task, self.roster.separate, request.available, self.tallies.history)

    def record(self, request: Request, x: Tensor, arm: Tensor, propensities: Propensities | None) -> Any:
        """Remember what was chosen until its reward comes.

        Args:
            x: rows of all arms at each decision.
            arm: positions `(n,)`.

        Returns:
            A `Choice` where one decision was asked for, else `Choices`.
        """
        roster, task = self.roster, request.task
        if request.is_one and isinstance(task, int):  # as numbers: tensors would take as long as the decision
            position = int(arm)
            id = self.pending.begin(task, roster.key(position), x[0, 0, 0] if roster.separate else x[0, position])
            self.tallies.decided(task)
            return Choice.of(id, roster.names[position], task, propensities)
        tasks, rows = request.task_of_each, rows_of_chosen(x, arm, separate=roster.separate)
        first = self.pending.begin(tasks, roster.keys(arm), rows)
        self.tallies.decided(tasks)
        return Choices.of(first, arm, tasks, roster.names, propensities)

    def update(self, choice: Any, reward: Any) -> None:
        ids, rewards = ids_of(choice), rewards_of(reward)
        if len(ids) != len(rewards):
            raise ValueError(f"each choice has one reward; got {len(ids)} choices and {len(rewards)} rewards")
        if not len(ids):
            return
        places = self.pending.places(ids)
        task, key, x = self.pending.rows(places)
        arm = self.roster.positions_of_keys(key)
        self.posterior.learn(torch.from_numpy(task), torch.from_numpy(arm), x, rewards)
        self.pending.end(places)
        self.tallies.rewarded(task, arm)

    def learn(self, arms: Any, rewards: Any, context: Any, task: Any) -> None:
        values, position = rewards_of(rewards), self.roster.positions(names_of(arms))
        if len(position) != len(values):
            raise ValueError(f"each decision has one reward; got {len(position)} arms and {len(values)} rewards")
        if not len(position):
            return
        if task is None and not self.tasks.is_single:
            raise ValueError(f"this policy has {self.tasks.num} tasks: say which by task")
        asked = Request.of(self.tasks, context, task, None if context is not None else len(position))
        if asked.num != len(position):
            raise ValueError(f"each decision needs its context; got {asked.num} contexts for {len(position)} arms")
        x, of_task = rows_of_chosen(self._rows(asked), position, separate=self.roster.separate), asked.task_of_each
        self.posterior.learn(of_task, position, x, values)
        self.tallies.rewarded(of_task.numpy(), position.numpy())

    def add_arm(self, name: Hashable, features: Any, prior: Any) -> None:
        if name in self.roster.names:
            raise ValueError(f"there is an arm {name!r} already")
        rows = None if features is None else torch.as_tensor(features, dtype=torch.get_default_dtype())
        arms = self.roster.arms.with_arm(name, rows)
        known = num_arms_of(self.posterior.prior)
        if isinstance(arms, Numbered) and known is not None and max(arms.numbers) >= known:
            raise ValueError(f"the prior knows arms 0 to {known - 1}; got number {max(arms.numbers)} for {name!r}")
        self.posterior.add_arm(len(self.roster), prior)
        self.roster.added(arms)
        self.tallies.add_arm()

    def remove_arm(self, name: Hashable) -> None:
        position = self.roster.position(name)
        if len(self.roster) == 1:
            raise ValueError(f"{name!r} is the only arm left")
        arms, others = self.roster.arms.without(position), self.roster.others(position)
        self.posterior.take_arms(others)
        self.pending.forget_arm(self.roster.removed(arms, position))
        self.tallies.keep_arms(others)

    def copy_arm(self, name: Hashable, like: Hashable) -> None:
        to, source = self.roster.position(name), self.roster.position(like)
        if not self.roster.separate:
            raise ValueError("all arms share one posterior here: an arm is known by its features")
        self.posterior.take_arms([source if i == to else i for i in range(len(self.roster))])
        self.tallies.copy_arm(to, source)

    def frozen(self, arms: Any, task: Any) -> Any:
        """What is known of some of the arms now."""
        first: Any = one_task(self.tasks, task) if task is not None else 0 if self.tasks.is_single else slice(None)
        if arms is None:
            return self.posterior.frozen(first)
        if not self.roster.separate:
            raise ValueError("all arms share one posterior here: ask it at the rows of some of them")
        return self.posterior.frozen((first, self.roster.positions(names_of(arms))))

    def _rows(self, request: Request) -> Tensor:
        """Inputs of all arms at each decision, as wide as those before."""
        x = self.roster.arms.rows(request.context, request.num)
        x = x.double() if x.is_floating_point() else x
        self.posterior.require_rows(x)
        return x


class Learns(Described):
    """What every policy says of its `Learner`, whether it chooses arms or sets of them."""

    _learner: Learner
    _lock: AbstractContextManager[Any]

    @property
    def prior(self) -> Any:
        """Of its tasks, before their first reward."""
        return self._learner.posterior.prior

    @property
    def arms(self) -> tuple[Hashable, ...]:
        """Names of the arms there are."""
        return self._learner.roster.names

    @property
    def num_tasks(self) -> int:
        return self._learner.tasks.num

    @property
    def num_pending(self) -> int:
        """Choices that wait for their reward; of a set, each of its arms is one."""
        return self._learner.pending.num_open

    @property
    def pulls(self) -> Tensor:
        """Rewards that each arm of each task has had, `(tasks, arms)`; `(arms,)` for one task.

        An arm that `Policy.copy_arm` let start from another has those of the other too.
        """
        pulls = self._learner.tallies.pulls
        return torch.from_numpy((pulls[0] if self._learner.tasks.is_single else pulls).copy())

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes, which have a lock of their own."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    def _title(self) -> str:
        return f"for {plural(self.num_tasks, 'task')} over {plural(len(self.arms), 'arm')}: {listed(self.arms)}"
