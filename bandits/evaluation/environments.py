"""Where policies are tried: many tasks at once, and the same luck for every policy.

An environment is a pure function of the round: what each arm of each task would pay in it, whichever policy asks. So
policies that are compared on one environment differ by what they choose, and by nothing else.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from bandits.decisions.arms import Arms, Separate, arms_of
from bayesmeta.data.rows import Data
from bayesmeta.describe import Described, listed, plural
from bayesmeta.doors import counted
from bayesmeta.protocol import Posterior
from bayesmeta.random import rand, randn, seeded
from bayesmeta.regression.linear import LinearGaussian

__all__ = ["Environment", "FromPrior", "Scene", "TableReplay", "Wheel", "linear_contextual"]

Contexts = Callable[[int, Generator], Tensor]


@dataclass(frozen=True, eq=False)
class Scene(Described):
    """One round of all tasks.

    Args:
        means: expected reward of each arm, `(tasks, arms)`.
        rewards: what each arm pays if it is chosen, of the same shape.
        context: `(tasks, c)`, None where there is none.
        available: which arms can be chosen, `(tasks, arms)`; None for all.
    """

    means: Tensor
    rewards: Tensor
    context: Tensor | None = None
    available: Tensor | None = None


@runtime_checkable
class Environment(Protocol):
    """Tasks that run at once."""

    @property
    def num_tasks(self) -> int: ...

    @property
    def arms(self) -> Arms:
        """To be given to a policy."""
        ...

    def scene(self, t: int) -> Scene:
        """Round t, the same whenever it is asked for."""
        ...


class FromPrior(Described):
    """Tasks drawn from a prior, whose model is so the true one.

    Args:
        prior: any posterior, without a batch, or with one entry for each arm where arms have a posterior each.
        arms: as of a policy.
        tasks: how many.
        seed: of tasks, contexts and rewards.
        contexts: draws `(tasks, c)` from a stream of random numbers, or their width, for standard normal ones; None
            where arms need none.
    """

    @counted(tasks=1)
    def __init__(
        self, prior: Posterior, arms: Any, tasks: int, *, seed: int = 0, contexts: Contexts | int | None = None
    ) -> None:
        self.arms, self.num_tasks, self._seed = arms_of(arms, prior), tasks, seed
        self._contexts = partial(_normal_contexts, contexts) if isinstance(contexts, int) else contexts
        self._like = prior.predict(self._rows(0)[1][:1].flatten(0, -3)).mean
        batch = (tasks, len(self.arms.names)) if self.arms.separate else (tasks,)
        d = self._rows(0)[1].shape[-1]
        nothing = Data(
            self._like.new_zeros(*batch, 0, d), self._like.new_zeros(*batch, 0), torch.ones(*batch, 0).bool()
        )
        self._functions = prior.condition(nothing).sample(1, generator=_stream(seed, -1))

    def _title(self) -> str:
        return _tasks_and_arms(self)

    def scene(self, t: int) -> Scene:
        context, x = self._rows(t)
        means, law = self._functions(x)[0], self._functions.predict(x)
        with seeded(_stream(self._seed, 2 * t + 1)):
            rewards = law.sample()[0]
        shape = (self.num_tasks, len(self.arms.names))
        return Scene(means.reshape(shape), rewards.reshape(shape), context)

    def _rows(self, t: int) -> tuple[Tensor | None, Tensor]:
        context = None if self._contexts is None else self._contexts(self.num_tasks, _stream(self._seed, 2 * t))
        x = self.arms.rows(context, self.num_tasks)
        return context, x.expand(-1, len(self.arms.names), 1, -1) if self.arms.separate else x


@counted(tasks=1, arms=1, inputs=1)
def linear_contextual(
    tasks: int, arms: int, inputs: int, *, noise_sd: float = 0.5, spread: float = 1.0, seed: int = 0
) -> FromPrior:
    """Tasks whose arms have weights of their own, drawn from N(0, spread^2 / inputs), and standard normal contexts."""
    precision = torch.eye(inputs) * inputs / spread**2
    prior = LinearGaussian(torch.zeros(inputs), precision, torch.tensor(noise_sd**2))
    return FromPrior(prior, range(arms), tasks, seed=seed, contexts=inputs)


class Wheel(Described):
    """The wheel: five arms, contexts in the unit disc, and a great reward that few contexts offer.

    The first arm always pays 1.2. The others pay 1, but one of them, which depends on the quadrant, pays 50 where the
    context lies beyond `delta`: the closer that is to 1, the more exploration it takes to find out.

    Args:
        tasks: how many, all alike.
        delta: from 0 to 1.
        noise_sd: of rewards.
        seed: of contexts and rewards.

    Source: Riquelme, Tucker and Snoek, Deep Bayesian bandits showdown (2018), section 5.4.
    """

    num_arms, context_width = 5, 2

    @counted(tasks=1)
    def __init__(self, tasks: int, delta: float, *, noise_sd: float = 0.01, seed: int = 0) -> None:
        if not 0.0 <= delta <= 1.0:
            raise ValueError(f"delta must be from 0 to 1; got {delta}")
        self.num_tasks, self.delta, self._noise_sd, self._seed = tasks, delta, noise_sd, seed
        self.arms = Separate(tuple(range(self.num_arms)))

    def _title(self) -> str:
        return _tasks_and_arms(self)

    def scene(self, t: int) -> Scene:
        generator = _stream(self._seed, t)
        like = torch.empty(0)
        radius = rand((self.num_tasks,), like=like, generator=generator).sqrt()
        angle = 2.0 * math.pi * rand((self.num_tasks,), like=like, generator=generator)
        context = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
        means = torch.full((self.num_tasks, self.num_arms), 1.0)
        means[:, 0] = 1.2
        quadrant = 1 + (context[:, 0] < 0).long() * 2 + (context[:, 1] < 0).long()
        far = radius > self.delta
        means[far, quadrant[far]] = 50.0
        noise = randn(means.shape, like=like, generator=generator)
        return Scene(means, means + self._noise_sd * noise, context)


class TableReplay(Described):
    """Tasks whose rewards are all in a table, such as ratings of users.

    Args:
        table: `(tasks, arms)`, NaN where a reward is unknown: that arm is then not available.
        names: of the arms, by default their numbers.

    Raises:
        ValueError: it is no matrix, or a task knows no reward at all.
    """

    def __init__(self, table: Tensor, names: Any = None) -> None:
        if table.ndim != 2:
            raise ValueError(f"a table must have shape (tasks, arms); got {tuple(table.shape)}")
        self._known = ~table.isnan()
        empty = (~self._known.any(-1)).nonzero()
        if len(empty):
            raise ValueError(f"task {int(empty[0])} has no reward in the table; leave such tasks out")
        self._table = table.nan_to_num(nan=-math.inf)
        self.num_tasks = len(table)
        self.arms = Separate(tuple(range(table.shape[1]) if names is None else names))
        if len(self.arms.names) != table.shape[1]:
            raise ValueError(f"names must name {table.shape[1]} arms; got {len(self.arms.names)}")

    def _title(self) -> str:
        return _tasks_and_arms(self)

    def scene(self, t: int) -> Scene:
        return Scene(self._table, self._table, None, self._known)


def _stream(seed: int, number: int) -> Generator:
    """A stream of its own for each seed and number."""
    return Generator().manual_seed((seed + 1) * 1_000_003 + number)


def _normal_contexts(width: int, tasks: int, generator: Generator) -> Tensor:
    return randn((tasks, width), like=torch.empty(0), generator=generator)


def _tasks_and_arms(environment: Environment) -> str:
    names = environment.arms.names
    return f"of {plural(environment.num_tasks, 'task')} with {plural(len(names), 'arm')}: {listed(names)}"
