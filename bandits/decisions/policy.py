"""A policy that people run: arms by name, choices by number, rewards that come late, state that survives.

A subclass says how it chooses from what the posterior says of the arms (`Prospects`), and how probable each arm was.
Everything else is here: which arms there are, which choices wait for their reward, the posterior in place, the log.
"""

import contextlib
import dataclasses
import secrets
import threading
from collections.abc import Callable, Hashable
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Generator, Tensor

from bandits.decisions import saving
from bandits.decisions.arms import arms_of
from bandits.decisions.choices import Choice, Choices, ids_of, names_of, rewards_of
from bandits.decisions.pending import Pending
from bandits.decisions.request import Request, TaskNumbers, one_task
from bandits.prospects.propensity import Propensities
from bandits.prospects.prospects import History, Prospects
from bayesmeta.describe import Described, listed, plural
from bayesmeta.doors import counted, require_count
from bayesmeta.fields import TensorFields
from bayesmeta.numerics.gradients import ordinary, outside_inference
from bayesmeta.online.protocol import Begins, InPlace, NoMarginalError, Online
from bayesmeta.online.start import online

__all__ = ["Policy", "require_seed"]

P = TypeVar("P", bound="Policy")
R = TypeVar("R")
Arguments = ParamSpec("Arguments")


def alone(method: Callable[Concatenate[P, Arguments], R]) -> Callable[Concatenate[P, Arguments], R]:
    """The method, which no other thread enters at the same time on the same policy."""
    ordinarily = outside_inference(method)

    @wraps(method)
    def call(self: P, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> R:
        with self._lock:
            return ordinarily(self, *args, **kwargs)

    return call


class Policy(Described):
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
        if isinstance(prior, type) or not (hasattr(prior, "condition") or isinstance(prior, InPlace)):
            what = f"the class {prior.__name__}" if isinstance(prior, type) else type(prior).__name__
            raise TypeError(f"{type(self).__name__} needs a prior, such as BetaBernoulli.initial(tasks); got {what}")
        if getattr(prior, "event_shape", ()):
            raise ValueError(
                f"a reward is one number; this prior is of vectors, event_shape {tuple(prior.event_shape)}"
            )
        prior = ordinary(prior)  # what was made under inference_mode could not be changed in place
        self.prior, self.propensities, self._dtype = prior, propensities, _dtype_of(prior)
        self._lock = threading.RLock()
        self._arms = arms_of(arms, prior)
        self._is_single = tasks is None
        self._num_tasks = tasks or 1
        self._state = self._begin(prior, self._num_tasks, len(self._arms.names))
        self._begins = self._state if isinstance(self._state, Begins) else None
        self._generator, self._log_generator = Generator(), Generator()
        seed = secrets.randbits(62) if seed is None else require_seed(seed)
        self._generator.manual_seed(seed)
        self._log_generator.manual_seed(seed + 1)  # a log's Monte Carlo does not change what is chosen
        self._pending = Pending(max_pending)
        self._width: int | None = None  # of the rows of arms, from the first decision on
        self._keys = list(range(len(self._arms.names)))  # of arms, never used again
        self._next_key = len(self._keys)
        self._pulls = np.zeros((self._num_tasks, len(self._keys)), np.int64)
        self._rounds = np.zeros(self._num_tasks, np.int64)
        self._rewards = np.zeros(self._num_tasks, np.int64)

    def _begin(self, prior: Any, tasks: int, arms: int) -> Online:
        # in float64 whatever the prior is in: contexts such as seconds since 1970 leave no digits in float32
        exact: Any = prior.to(torch.float64) if isinstance(prior, TensorFields) else prior
        return online(exact, (tasks, arms) if self._arms.separate else (tasks,))

    @property
    def arms(self) -> tuple[Hashable, ...]:
        """Names of the arms there are."""
        return self._arms.names

    @property
    def num_tasks(self) -> int:
        return self._num_tasks

    def _title(self) -> str:
        return f"for {plural(self._num_tasks, 'task')} over {plural(len(self.arms), 'arm')}: {listed(self.arms)}"

    def _parts(self) -> dict[str, Any]:
        return {
            "prior": self.prior,
            **self._settings(),
            "rewards": f"{int(self._rewards.sum())} so far, {self.num_pending} choices wait for theirs",
            "pulls": self.pulls,
        }

    @property
    def pulls(self) -> Tensor:
        """Rewards that each arm of each task has had, `(tasks, arms)`; `(arms,)` for one task.

        An arm that `copy_arm` let start from another has those of the other too.
        """
        return torch.from_numpy((self._pulls[0] if self._is_single else self._pulls).copy())

    @property
    def num_pending(self) -> int:
        """Choices that wait for their reward."""
        return self._pending.num_open

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
        request = self._request(context, task, num, available)
        prospects = self._prospects(request)
        wanted = self.propensities if propensities is None else propensities
        return self._record(request, prospects, *self._decide(prospects, wanted))

    @alone
    def probabilities(
        self, context: Any = None, *, task: Any = None, num: int | None = None, available: Any = None
    ) -> Propensities:
        """How probable each arm is at decisions such as `choose` takes, `(n, arms)`; nothing is chosen."""
        prospects = self._prospects(self._request(context, task, num, available))
        return self._probabilities(prospects, self._log_generator)

    @alone
    def expected_rewards(
        self, context: Any = None, *, task: Any = None, num: int | None = None, available: Any = None
    ) -> Tensor:
        """Posterior means of all arms at decisions such as `choose` takes, `(n, arms)`; -inf where not available."""
        return self._prospects(self._request(context, task, num, available)).mean().to(self._dtype)

    @alone
    def scores(self, context: Any = None, *, task: Any = None, num: int | None = None, available: Any = None) -> Tensor:
        """What the policy compares at decisions such as `choose` takes, `(n, arms)`: draws, upper bounds or means."""
        return self._scores(self._prospects(self._request(context, task, num, available))).to(self._dtype)

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
        ids, rewards = ids_of(choice), rewards_of(reward)
        if len(ids) != len(rewards):
            raise ValueError(f"each choice has one reward; got {len(ids)} choices and {len(rewards)} rewards")
        if not len(ids):
            return
        places = self._pending.places(ids)
        task, key, x = self._pending.rows(places)
        arm = self._positions(key)
        index = (torch.from_numpy(task), torch.from_numpy(arm))
        self._learn(index, x, rewards.double())
        self._pending.end(places)
        self._count(task, arm)

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
        values = rewards_of(rewards)
        position = torch.tensor([self._position(name) for name in names_of(arms)], dtype=torch.long)
        if len(position) != len(values):
            raise ValueError(f"each decision has one reward; got {len(position)} arms and {len(values)} rewards")
        if not len(position):
            return
        if task is None and not self._is_single:
            raise ValueError(f"this policy has {self._num_tasks} tasks: say which by task")
        asked = Request.of(self._tasks, context, task, None if context is not None else len(position))
        if asked.num != len(position):
            raise ValueError(f"each decision needs its context; got {asked.num} contexts for {len(position)} arms")
        of_task = asked.task if isinstance(asked.task, Tensor) else torch.full((asked.num,), asked.task or 0)
        x = self._rows(asked.context, asked.num)
        x = x[:, 0, 0] if self._arms.separate else x[torch.arange(asked.num), position]
        self._learn((of_task, position), x, values.double())
        self._count(of_task.numpy(), position.numpy())

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
        if name in self._arms.names:
            raise ValueError(f"there is an arm {name!r} already")
        rows = None if features is None else torch.as_tensor(features, dtype=torch.get_default_dtype())
        arms = self._arms.with_arm(name, rows)
        if self._arms.separate:
            self._rearrange(list(range(len(self._keys))), prior)
        elif prior is not None:
            raise ValueError("all arms share one posterior here: give features of the new one, not a prior")
        self._arms = arms
        self._keys.append(self._next_key)
        self._next_key += 1
        self._pulls = np.pad(self._pulls, ((0, 0), (0, 1)))

    @alone
    def remove_arm(self, name: Hashable) -> None:
        """Take an arm away; choices of it that wait for their reward are forgotten.

        Raises:
            ValueError: there is no such arm, or no other.
        """
        position = self._position(name)
        if len(self._keys) == 1:
            raise ValueError(f"{name!r} is the only arm left")
        arms = self._arms.without(position)
        keep = [i for i in range(len(self._keys)) if i != position]
        if self._arms.separate:
            self._rearrange(keep, None, removed=True)
        self._arms = arms
        self._pending.forget_arm(self._keys.pop(position))
        self._pulls = self._pulls[:, keep]

    @alone
    def copy_arm(self, name: Hashable, like: Hashable) -> None:
        """Let an arm with a posterior of its own start from what another has shown.

        Raises:
            ValueError: an arm is unknown, or all arms share one posterior.
        """
        to, source = self._position(name), self._position(like)
        if not self._arms.separate:
            raise ValueError("all arms share one posterior here: an arm is known by its features")
        self._rearrange([source if i == to else i for i in range(len(self._keys))], None, removed=True)
        self._pulls[:, to] = self._pulls[:, source]

    @alone
    def posterior(self, arms: Any = None, *, task: Any = None) -> Any:
        """What is known now, as a frozen posterior that later rewards do not change.

        Args:
            arms: names of some of the arms, where arms have a posterior each; by default all.
            task: one of the tasks; by default all of them, or the only one.

        Raises:
            IndexError: the task does not exist.
        """
        first: Any = one_task(self._tasks, task) if task is not None else 0 if self._is_single else slice(None)
        index: Any = first
        if arms is not None:
            if not self._arms.separate:
                raise ValueError("all arms share one posterior here: ask it at the rows of some of them")
            index = (first, torch.tensor([self._position(name) for name in names_of(arms)]))
        posterior = self._state.posterior(index)
        return posterior.to(self._dtype) if isinstance(posterior, TensorFields) else posterior

    @alone
    def to(self: P, dtype: torch.dtype) -> P:
        """This policy, with prior and answers in `dtype` from now on; inside, numbers are float64 in any case.

        Raises:
            TypeError: `dtype` is not of floating-point numbers.
        """
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise TypeError(f"a policy takes a dtype of floating-point numbers, such as torch.float32; got {dtype!r}")
        self.prior, self._dtype = self.prior.to(dtype), dtype
        return self

    @alone
    def save(self, path: str | Path) -> None:
        """Write all of the policy, its stream of random numbers too, to one file; see `Policy.load`."""
        saving.save(self, path)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes, which have a lock of their own."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.RLock())

    @classmethod
    def load(cls: type[P], path: str | Path) -> P:
        """The policy that `save` wrote, which goes on as it would have.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or holds another kind of policy.
        """
        policy = saving.load(path, Policy)
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

    def _learn(self, index: tuple[Tensor, Tensor], x: Tensor, rewards: Tensor) -> None:
        self._state.add(index if self._arms.separate else index[:1], x, rewards)

    def _count(self, task: np.ndarray, arm: np.ndarray) -> None:
        np.add.at(self._pulls, (task, arm), 1)
        np.add.at(self._rewards, task, 1)

    @property
    def _tasks(self) -> TaskNumbers:
        return TaskNumbers(self._num_tasks, self._is_single)

    def _request(self, context: Any, task: Any, num: int | None, available: Any) -> Request:
        asked = Request.of(self._tasks, context, task, num)
        return asked if available is None else asked.among(available, self._arms.names, self._position)

    def _prospects(self, request: Request) -> Prospects:
        if self._begins is not None:
            every = torch.arange(self._num_tasks)
            self._begins.begin(
                every if request.task is None else torch.as_tensor(request.task).reshape(-1), self._generator
            )
        x = self._rows(request.context, request.num)
        history = History(self._pulls, self._rounds, self._rewards)
        return Prospects(self._state, x, request.task, self._arms.separate, request.available, history)

    def _rows(self, context: Tensor | None, n: int) -> Tensor:
        """Inputs of all arms at n decisions, as wide as those before."""
        x = self._arms.rows(context, n)
        x = x.double() if x.is_floating_point() else x
        width = x.shape[-1] if self._width is None else self._width
        if x.shape[-1] != width:
            raise ValueError(
                f"contexts must be as wide as those before: rows of arms have {x.shape[-1]} columns, and had {width}"
            )
        if self._width is None:
            self._require_fitting(x[:1])
            self._width = width
        return x

    def _require_fitting(self, x: Tensor) -> None:
        """Ask the state about one decision, to find out before anything depends on it whether it takes such rows."""
        try:
            with contextlib.suppress(NoMarginalError):
                self._state.marginal(x, 0)
        except Exception as error:  # families differ in what they raise
            columns = f"rows of arms have {x.shape[-1]} columns, which the prior does not take"
            hint = "Give a context" if not x.shape[-1] else "Contexts must be as wide as those that it was learned from"
            raise ValueError(f"{columns}: {error}. {hint}") from error

    def _record(self, request: Request, prospects: Prospects, arm: Tensor, propensities: Propensities | None) -> Any:
        n, index = len(arm), request.task
        if request.is_one:
            position = int(arm)
            row = prospects.x[0, 0, 0] if self._arms.separate else prospects.x[0, position]
            task = index if isinstance(index, int) else 0
            id = self._pending.begin(task, self._keys[position], row)
            self._rounds[task] += 1
            if propensities is None:
                return Choice(id, self._arms.names[position], task)
            error = None if propensities.error is None else float(propensities.error[0])
            return Choice(id, self._arms.names[position], task, float(propensities.probability[0]), error)
        if index is None:
            tasks = torch.arange(n)
        elif isinstance(index, int):
            tasks = torch.full((n,), index)
        else:
            tasks = index
        rows = prospects.x[:, 0, 0] if self._arms.separate else prospects.x[torch.arange(n), arm]
        first = self._pending.begin(tasks, torch.tensor(self._keys)[arm], rows)
        np.add.at(self._rounds, tasks.numpy(), 1)
        ids = torch.arange(first, first + n)
        if propensities is None:
            return Choices(ids, arm, tasks, self._arms.names)
        return Choices(ids, arm, tasks, self._arms.names, *propensities)

    def _position(self, name: Hashable) -> int:
        try:
            return self._arms.names.index(name)  # a scalar of NumPy is the name that it equals
        except ValueError:
            known = ", ".join(map(repr, self._arms.names[:10])) + (", ..." if len(self._keys) > 10 else "")
            raise ValueError(f"there is no arm {name!r}; there are {known}") from None

    def _positions(self, key: np.ndarray) -> np.ndarray:
        """Where arms are now: they move to the left when one before them is removed."""
        if self._next_key == len(self._keys):  # none was removed
            return key
        return np.searchsorted(np.asarray(self._keys), key)

    def _rearrange(self, keep: list[int], prior: Any, *, removed: bool = False) -> None:
        """Separate arms: those that stay, and one new unless one was `removed`."""
        from bandits.decisions.joining import joined_prior, joined_state

        old = self._state.state_dict()
        whole, new = joined_prior(self.prior, keep, prior, adds=not removed)
        num = len(keep) + (not removed)
        state = self._begin(whole, self._num_tasks, num)
        fresh = None if removed else self._begin(new, self._num_tasks, 1).state_dict()
        state.load_state_dict(joined_state(old, torch.tensor(keep), fresh, adds=not removed))
        self.prior, self._state = whole, state
        self._begins = state if isinstance(state, Begins) else None


def require_seed(seed: Any) -> int:
    """A seed as generators of torch take it.

    Raises:
        TypeError: it is no whole number.
        ValueError: it has more than 64 bits.
    """
    number = require_count("seed", seed, -(2**63))
    if number >= 2**64 - 1:  # a policy seeds another stream by the number after it
        raise ValueError(f"seed must be below 2^64 - 1; got {number}")
    return number


def _dtype_of(prior: Any) -> torch.dtype:
    """Of the numbers of a prior, which may be inside others."""
    for field in dataclasses.fields(prior):
        value = getattr(prior, field.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.dtype
        if dataclasses.is_dataclass(value) and dataclasses.fields(value):
            return _dtype_of(value)
    return torch.get_default_dtype()
