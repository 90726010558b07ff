"""A policy that people run: arms by name, choices by number, rewards that come late, state that survives.

A subclass says how it chooses from what the posterior says of the arms (`Prospects`), and how probable each arm was.
Everything else is here: which arms there are, which choices wait for their reward, the posterior in place, the log.
"""

import secrets
import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

import torch
from torch import Generator, Tensor

from bandits.decisions import saving
from bandits.decisions.learner import Learner, Learns
from bandits.decisions.numbers import require_seed
from bandits.decisions.posterior import require_prior
from bandits.decisions.request import Request, TaskNumbers
from bandits.decisions.saving import PolicyState
from bandits.prospects.propensity import Propensities
from bandits.prospects.prospects import Prospects
from bayesmeta.doors import counted
from bayesmeta.numerics.gradients import outside_inference

__all__ = ["Policy", "alone", "streams_of"]

P = TypeVar("P", bound="Policy")
L = TypeVar("L", bound="Locked")
R = TypeVar("R")
Arguments = ParamSpec("Arguments")


@runtime_checkable
class Locked(Protocol):
    """What threads take turns at."""

    @property
    def _lock(self) -> AbstractContextManager[Any]: ...


def alone(method: Callable[Concatenate[L, Arguments], R]) -> Callable[Concatenate[L, Arguments], R]:
    """The method, which no other thread enters at the same time on the same policy."""
    ordinarily = outside_inference(method)

    @wraps(method)
    def call(self: L, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> R:
        with self._lock:
            return ordinarily(self, *args, **kwargs)

    return call


class Policy(Learns):
    """Chooses among arms, and learns from the rewards.

    Threads may share one: each call waits for those of the others to end.

    Args:
        prior: what is known of a task before its first reward: any posterior that can be sampled from.
        arms: names; features by name; or `bandits.decisions.arms`. Names have a posterior each, unless the prior is
            about all of them together (`CorrelatedArms`); arms with features share one.
        tasks: how many tasks are run at once; None for one, whose contexts and rewards have no axis of tasks.
        seed: of the policy's own stream of random numbers; None takes one from the system.
        propensities: whether choices carry the probability that they had, unless `choose` says otherwise.
        max_pending: choices that are remembered at most, the latest.

    Raises:
        TypeError: `seed` or `max_pending` is no whole number, or `prior` no prior.
        ValueError: the prior does not fit the arms.
    """

    @counted(tasks=1)
    @outside_inference
    def __init__(
        self,
        prior: Any,
        arms: Any,
        *,
        tasks: int | None = None,
        seed: Any = None,
        propensities: bool = True,
        max_pending: Any = 1_000_000,
    ) -> None:
        require_prior(prior, type(self).__name__)
        self.propensities = propensities
        self._lock = threading.RLock()
        self._learner = Learner(prior, arms, TaskNumbers(tasks or 1, tasks is None), max_pending)
        self._generator, self._log_generator = streams_of(seed)

    def _parts(self) -> dict[str, Any]:
        return {
            "prior": self.prior,
            **self._settings(),
            "rewards": f"{int(self._learner.tallies.rewards.sum())} so far, {self.num_pending} choices wait for theirs",
            "pulls": self.pulls,
        }

    @alone
    def choose(
        self,
        context: Any = None,
        *,
        task: Any = None,
        num: int | None = None,
        available: Any = None,
        propensities: bool | None = None,
    ) -> Any:
        """Choose an arm for each decision.

        Args:
            context: `(c,)` for one decision, `(n, c)` for n; None where arms need none.
            task: of each decision: a whole number, or `(n,)` of them. By default that of a policy for one task, and
                one decision for each task otherwise.
            num: of decisions of one task without contexts.
            available: names of the arms that can be chosen, or a mask `(arms,)` or `(n, arms)`, an array, series or
                lists of True and False.
            propensities: whether to compute the probability that each choice had; None takes the policy's way.

        Returns:
            A `Choice` for one decision, else `Choices`.

        Raises:
            ValueError: a context is missing, not finite, or of another width than before; no arm is available.
            IndexError: a task does not exist.
        """
        request = self._learner.request(context, task, num, available)
        prospects = self._prospects(request)
        wanted = self.propensities if propensities is None else propensities
        return self._learner.record(request, prospects.x, *self._decide(prospects, wanted))

    @alone
    def probabilities(
        self, context: Any = None, *, task: Any = None, num: int | None = None, available: Any = None
    ) -> Propensities:
        """How probable each arm is at decisions such as `choose` takes, `(n, arms)`; nothing is chosen."""
        return self._probabilities(self._asked(context, task, num, available), self._log_generator)

    @alone
    def expected_rewards(
        self, context: Any = None, *, task: Any = None, num: int | None = None, available: Any = None
    ) -> Tensor:
        """Posterior means of all arms at decisions such as `choose` takes, `(n, arms)`; -inf where not available."""
        return (
            self._prospects(self._learner.request(context, task, num, available))
            .mean()
            .to(self._learner.posterior.dtype)
        )

    @alone
    def scores(self, context: Any = None, *, task: Any = None, num: int | None = None, available: Any = None) -> Tensor:
        """What the policy compares at decisions such as `choose` takes, `(n, arms)`: draws, upper bounds or means."""
        return self._scores(self._prospects(self._learner.request(context, task, num, available))).to(
            self._learner.posterior.dtype
        )

    @alone
    def update(self, choice: Any, reward: Any) -> None:
        """Learn from rewards, which may come late, in any order, or never.

        Args:
            choice: what `choose` returned, or its number, or several numbers.
            reward: one number, or one for each choice.

        Raises:
            ValueError: a choice was never made or has had its reward, or a reward is none that the prior can have; then
                nothing has changed.
        """
        self._learner.update(choice, reward)

    @alone
    def learn(self, arms: Any, rewards: Any, *, context: Any = None, task: Any = None) -> None:
        """Learn from decisions that were made elsewhere, such as those of a log.

        Args:
            arms: names of the arms that were chosen, m in all.
            rewards: one for each, `(m,)`.
            context: `(m, c)`; None where arms need none.
            task: of each, a whole number, or `(m,)` of them; not needed where there is one task.

        Raises:
            ValueError: an arm is unknown, shapes do not fit, or a reward is none that the prior can have; then nothing
                has changed.
        """
        self._learner.learn(arms, rewards, context, task)

    @alone
    def add_arm(self, name: Hashable, *, features: Any = None, prior: Any = None) -> None:
        """A new arm: what the posterior says of its features, or where arms have a posterior each, the prior.

        Args:
            name: of the arm.
            features: of an arm that shares a posterior with the others, of their width; the number of the arm of a
                prior that knows arms by number.
            prior: of an arm with a posterior of its own, such as `prior.given(features)`; by default the policy's.

        Raises:
            ValueError: there is such an arm, or what it needs is missing or does not fit.
        """
        self._learner.add_arm(name, features, prior)

    @alone
    def remove_arm(self, name: Hashable) -> None:
        """Take an arm away; choices of it that wait for their reward are forgotten.

        Raises:
            ValueError: there is no such arm, or no other.
        """
        self._learner.remove_arm(name)

    @alone
    def copy_arm(self, name: Hashable, like: Hashable) -> None:
        """Let an arm with a posterior of its own start from what another has shown.

        Raises:
            ValueError: an arm is unknown, or all arms share one posterior.
        """
        self._learner.copy_arm(name, like)

    @alone
    def posterior(self, arms: Any = None, *, task: Any = None) -> Any:
        """What is known now, as a frozen posterior that later rewards do not change.

        Args:
            arms: names of some of the arms, where arms have a posterior each; by default all.
            task: one of the tasks; by default all of them, or the only one.

        Raises:
            IndexError: the task does not exist.
        """
        return self._learner.frozen(arms, task)

    @alone
    def to(self: P, dtype: torch.dtype) -> P:
        """This policy, with prior and answers in `dtype` from now on; inside, numbers are float64 in any case.

        Raises:
            TypeError: `dtype` is not of floating-point numbers.
        """
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise TypeError(f"a policy takes a dtype of floating-point numbers, such as torch.float32; got {dtype!r}")
        self._learner.posterior.to(dtype)
        return self

    @alone
    def save(self, path: str | Path) -> None:
        """Write all of the policy, its stream of random numbers too, to one file; see `Policy.load`."""
        saving.save(self.state(), path)

    @alone
    def state(self) -> PolicyState:
        """All of the policy, sharing its tensors; see `Policy.from_state`.

        Raises:
            TypeError: a name of an arm is no string, number, or tuple of them.
        """
        return saving.state_of(
            self._learner,
            saving.key_of(type(self)),
            self._settings(),
            {
                "propensities": self.propensities,
                "generator": self._generator.get_state(),
                "log_generator": self._log_generator.get_state(),
            },
        )

    @staticmethod
    def from_state(state: PolicyState) -> "Policy":
        """The policy again, of the class that it was of, with copies of the tensors."""
        kind, numbers = saving.class_of(state.kind, Policy), state.numbers
        policy: Policy = kind.__new__(kind)
        Policy.__init__(
            policy,
            state.prior,
            saving.arms_of(state),
            tasks=numbers["tasks"],
            seed=0,
            propensities=numbers["propensities"],
            max_pending=state.pending["capacity"],
        )
        for name, value in state.settings.items():
            setattr(policy, name, value)
        saving.load_state(policy._learner, state)
        policy._generator.set_state(numbers["generator"])
        policy._log_generator.set_state(numbers["log_generator"])
        return policy

    @classmethod
    def load(cls: type[P], path: str | Path) -> P:
        """The policy that `save` wrote, which goes on as it would have.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or holds another kind of policy.
        """
        policy = saving.load(path, Policy.from_state)
        if not isinstance(policy, cls):
            raise ValueError(f"{path} holds a {type(policy).__name__}, not a {cls.__name__}")
        return policy

    def _decide(self, prospects: Prospects, wanted: bool) -> tuple[Tensor, Propensities | None]:
        """Position of the arm at each decision, and where that is wanted, how probable it was, `(n,)` each."""
        arm = self._choose(prospects, self._generator)
        return arm, self._probabilities(prospects, self._log_generator).of(arm) if wanted else None

    def _scores(self, prospects: Prospects) -> Tensor:
        """What is compared; means, unless a policy says otherwise."""
        return prospects.mean()

    def _choose(self, prospects: Prospects, generator: Generator) -> Tensor:
        """Position of the arm at each decision, `(n,)`."""
        raise TypeError("each policy says how it chooses")

    def _probabilities(self, prospects: Prospects, generator: Generator) -> Propensities:
        """How probable `_choose` makes each arm."""
        raise TypeError("each policy says how probable its choices are")

    def _settings(self) -> dict[str, Any]:
        """What the constructor of a subclass takes beside what every policy does."""
        return {}

    def _prospects(self, request: Request) -> Prospects:
        return self._learner.prospects(request, self._generator)

    def _asked(self, context: Any, task: Any, num: int | None, available: Any) -> Prospects:
        return self._prospects(self._learner.request(context, task, num, available))

    def _rounded(self, values: Tensor) -> Tensor:
        """In the dtype of the prior."""
        return values.to(self._learner.posterior.dtype)


def streams_of(seed: Any) -> tuple[Generator, Generator]:
    """Random numbers for choices, and for what a log says of them: its Monte Carlo does not change what is chosen."""
    number = secrets.randbits(62) if seed is None else require_seed(seed)
    return Generator().manual_seed(number), Generator().manual_seed(number + 1)
