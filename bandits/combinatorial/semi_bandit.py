"""Semi-bandits: a decision is a set of arms, which an oracle chooses, and each arm of the set shows its reward.

The sets may be paths, slates, rankings or whatever else an oracle finds the best one of. Arms are known as in any other
policy: by a posterior each, or by one over all of them, from which the values of all arms are drawn together.

Source: Wen, Kveton and Ashkan, Efficient learning in large-scale combinatorial semi-bandits (2015).
"""

import threading
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bandits.combinatorial.oracles import Oracle
from bandits.combinatorial.sets import SetChoices, ids_and_rewards, sets_of
from bandits.decisions import saving
from bandits.decisions.learner import Learner, Learns
from bandits.decisions.numbers import require_number
from bandits.decisions.policy import alone, streams_of
from bandits.decisions.posterior import require_prior
from bandits.decisions.request import Request, TaskNumbers
from bandits.decisions.saving import PolicyState
from bandits.prospects.prospects import TOO_LARGE
from bayesmeta.doors import counted
from bayesmeta.numerics.gradients import outside_inference

__all__ = ["SemiBandit"]

S = TypeVar("S", bound="SemiBandit")
WAYS = ("draws", "means", "bounds")


class SemiBandit(Learns):
    """Chooses the set of arms that is the best for values of all arms, and learns from the rewards of its arms.

    Args:
        prior: of the arms, as any policy takes it.
        oracle: takes values `(n, arms)` of n decisions and returns the best set of each: a mask `(n, arms)`, or a list
            of positions for each, as `top_k` and `shortest_path` do. `each_decision` makes one of a function of one
            decision.
        arms: names; features by name; or `bandits.decisions.arms`.
        tasks: how many tasks are run at once; None for one.
        seed: of the policy's own stream of random numbers; None takes one from the system.
        by: the values: "draws" from the posterior, all arms together (Thompson sampling); posterior "means" (greedy);
            or "bounds", means and some standard deviations.
        num_deviations: of "bounds"; below zero where values are costs.
        max_pending: chosen arms that are remembered at most, the latest.

    Raises:
        TypeError: the oracle cannot be called, or the prior is none.
        ValueError: the prior does not fit the arms, or there is no such `by`.
    """

    @counted(tasks=1)
    @outside_inference
    def __init__(
        self,
        prior: Any,
        oracle: Any,
        arms: Any,
        *,
        tasks: int | None = None,
        seed: Any = None,
        by: str = "draws",
        num_deviations: Any = 2.0,
        max_pending: Any = 1_000_000,
    ) -> None:
        require_prior(prior, type(self).__name__)
        if by not in WAYS:
            raise ValueError(f"by must be one of {', '.join(map(repr, WAYS))}; got {by!r}")
        self.oracle, self.by = _callable(oracle), by
        self.num_deviations = require_number("num_deviations", num_deviations, -torch.inf)
        self._lock = threading.RLock()
        self._learner = Learner(prior, arms, TaskNumbers(tasks or 1, tasks is None), max_pending)
        self._generator = streams_of(seed)[0]

    @alone
    def choose(self, context: Any = None, *, task: Any = None, num: int | None = None) -> Any:
        """Choose a set of arms for each decision.

        Args:
            context: `(c,)` for one decision, `(n, c)` for n; None where arms need none.
            task: of each decision: a whole number, or `(n,)` of them. By default that of a policy for one task, and
                one decision for each task otherwise.
            num: of decisions of one task without contexts.

        Returns:
            A `SetChoice` for one decision, else `SetChoices`.

        Raises:
            TypeError: the oracle returned neither masks nor positions.
            ValueError: it returned another number of sets, an empty one, or an arm twice; or a context does not fit.
            IndexError: it named an arm that does not exist, or a task does not exist.
        """
        request = self._learner.request(context, task, num, None)
        values, x = self._values(request)
        decision, arm = sets_of(self.oracle(values), request.num, len(self.arms))
        tasks, roster = request.task_of_each, self._learner.roster
        rows = x[decision, 0, 0] if roster.separate else x[decision, arm]
        first = self._learner.pending.begin(tasks[decision], roster.keys(arm), rows)
        self._learner.tallies.decided(tasks)
        chosen = SetChoices(torch.arange(first, first + len(arm)), arm, decision, tasks, roster.names)
        return chosen[0] if request.is_one else chosen

    @alone
    def update(self, choice: Any, rewards: Any) -> None:
        """Learn from the rewards of chosen arms, which may come late, in any order, or never.

        Args:
            choice: what `choose` returned, or some of its `ids`.
            rewards: one for each chosen arm, in the order of `choice.arm`; for several decisions, one after another, or
                a list of those of each. `choices.pick(table)` takes them from a table of all arms.

        Raises:
            ValueError: there are not as many rewards as arms, one is none that the prior can have, or an arm has had
                its reward; then nothing has changed.
        """
        self._learner.update(*ids_and_rewards(choice, rewards))

    @alone
    def learn(self, arms: Any, rewards: Any, *, context: Any = None, task: Any = None) -> None:
        """Learn from rewards of arms that were chosen elsewhere; see `Policy.learn`."""
        self._learner.learn(arms, rewards, context, task)

    @alone
    def scores(self, context: Any = None, *, task: Any = None, num: int | None = None) -> Tensor:
        """What the oracle would be asked about at decisions such as `choose` takes, `(n, arms)`."""
        return self._values(self._learner.request(context, task, num, None))[0]

    @alone
    def expected_rewards(self, context: Any = None, *, task: Any = None, num: int | None = None) -> Tensor:
        """Posterior means of all arms at decisions such as `choose` takes, `(n, arms)`."""
        prospects = self._learner.prospects(self._learner.request(context, task, num, None), self._generator)
        return prospects.mean().to(self._learner.posterior.dtype)

    @alone
    def posterior(self, arms: Any = None, *, task: Any = None) -> Any:
        """What is known now, as a frozen posterior that later rewards do not change; see `Policy.posterior`."""
        return self._learner.frozen(arms, task)

    @alone
    def save(self, path: str | Path) -> None:
        """Write all but the oracle to one file, the stream of random numbers too; see `load`."""
        saving.save(self.state(), path)

    @alone
    def state(self) -> PolicyState:
        """All but the oracle, sharing its tensors."""
        return saving.state_of(
            self._learner,
            saving.key_of(type(self)),
            {"by": self.by, "num_deviations": self.num_deviations},
            {"generator": self._generator.get_state()},
        )

    @classmethod
    def load(cls: type[S], path: str | Path, oracle: Any) -> S:
        """The policy that `save` wrote, which goes on as it would have.

        Args:
            oracle: the one that it had: a function is no part of a file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or holds something else.
        """
        _callable(oracle)
        return saving.load(path, lambda state: cls.from_state(state, oracle))

    @classmethod
    def from_state(cls: type[S], state: PolicyState, oracle: Any) -> S:
        """The policy again, with copies of the tensors."""
        policy: S = saving.class_of(state.kind, cls)(
            state.prior,
            oracle,
            saving.arms_of(state),
            tasks=state.numbers["tasks"],
            seed=0,
            max_pending=state.pending["capacity"],
            **state.settings,
        )
        saving.load_state(policy._learner, state)
        policy._generator.set_state(state.numbers["generator"])
        return policy

    def _parts(self) -> dict[str, Any]:
        return {"prior": self.prior, "oracle": self.oracle, "by": self.by, "pulls": self.pulls}

    def _values(self, request: Request) -> tuple[Tensor, Tensor]:
        """Values of all arms at each decision `(n, arms)`, and the rows of the arms."""
        prospects = self._learner.prospects(request, self._generator)
        if self.by == "draws":
            values = prospects.draw(self._generator)
        else:
            values = prospects.mean() if self.by == "means" else prospects.upper(float(self.num_deviations))
        if not bool(values.isfinite().all()):
            raise ValueError(f"what the posterior says of the arms is not a number. {TOO_LARGE}")
        return values.to(self._learner.posterior.dtype), prospects.x


def _callable(oracle: Any) -> Oracle:
    if not callable(oracle):
        raise TypeError(f"the oracle must be a function of values (n, arms); got {type(oracle).__name__}")
    return oracle
