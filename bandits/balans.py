"""Balans, whose search over large neighbourhoods of a mixed-integer program is driven by one of our policies.

    from bandits.balans import Balans

    search = Balans(policy=lambda arms: bandits.ThompsonSampling(prior, arms), destroy_ops=[...],
    stop=MaxIterations(100)) result = search.solve("instance.mps")

Balans chooses how to destroy and repair a solution, again and again, and rewards the choice by what came of it. Arms
are named after the operators, so that a prior learned on past programs knows them: `search.rows` is what a search
showed.

Balans drops operators that a program has no use for, and then puts a selector of its own in place of any other: here
the policy goes on, without the arms that were dropped.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bandits.decisions.choices import Choice
from bandits.decisions.policy import Policy
from bandits.policies.thompson import ThompsonSampling
from bayesmeta.conjugate.normal import NormalInverseGamma

try:
    from alns.select import MABSelector
    from balans.solver import Balans as PlainBalans
    from mabwiser.mab import LearningPolicy
except ImportError as error:
    raise ImportError("this needs Balans: pip install bayesmeta[balans]") from error

__all__ = ["SCORES", "Balans", "PolicySelector"]

SCORES = (8.0, 4.0, 2.0, 1.0)  # a new best, better than before, accepted, rejected

Maker = Callable[[Sequence[str]], Policy]


def default_policy(arms: Sequence[str]) -> Policy:
    """Thompson sampling on normal scores of unknown variance, weakly centred on those that are usual."""
    mean, var = float(np.mean(SCORES)), float(np.var(SCORES))
    loc, one, two, rate = (torch.tensor(value).double() for value in (mean, 1.0, 2.0, 2.0 * var))
    prior = NormalInverseGamma(loc, one, two, rate)
    return ThompsonSampling(prior, arms, seed=0, propensities=False)


class PolicySelector(MABSelector):
    """A selector of operators, for Balans and for ALNS alone.

    Args:
        policy: over `names`, for one task.
        names: of the pairs of operators, those of the first destroy operator first.
        num_destroy, num_repair: operators.
        scores: rewards of a new best, of a better, an accepted and a rejected solution.

    Raises:
        ValueError: names are not as many as pairs, or the policy has other arms.
    """

    def __init__(
        self,
        policy: Policy,
        names: Sequence[str],
        num_destroy: int,
        num_repair: int,
        scores: Sequence[float] = SCORES,
    ) -> None:
        if len(names) != num_destroy * num_repair:
            raise ValueError(f"names must be of {num_destroy * num_repair} pairs of operators; got {len(names)}")
        if set(policy.arms) != set(names):
            raise ValueError(f"the policy must have the arms {list(names)}; it has {list(policy.arms)}")
        # what the base class asks MABWiser for is not used: the policy stands in its place
        super().__init__(list(scores), num_destroy, num_repair, LearningPolicy.Random())
        self._mab = _AsMAB(policy, names, num_repair)

    @property
    def policy(self) -> Policy:
        return self._mab.policy

    @property
    def rows(self) -> list[tuple[str, float]]:
        """Operators and scores so far."""
        return self._mab.rows

    def restricted(self, kept: Sequence[int]) -> "PolicySelector":
        """The same policy over some of the destroy operators; the others' arms are removed from it."""
        names = [name for d in kept for name in self._mab.names[d * self.num_repair : (d + 1) * self.num_repair]]
        for name in self._mab.names:
            if name not in names:
                self.policy.remove_arm(name)
        restricted = PolicySelector(self.policy, names, len(kept), self.num_repair, self.scores)
        restricted.rows.extend(self.rows)
        return restricted


class _AsMAB:
    """What the selector asks of MABWiser: arms are "d_r", numbers of a destroy and a repair operator."""

    _is_initial_fit = True  # a prior decides from the first
    is_contextual = False
    learning_policy = LearningPolicy.Random()  # where Balans copies it into a selector of its own

    def __init__(self, policy: Policy, names: Sequence[str], num_repair: int) -> None:
        self.policy, self.names, self._num_repair = policy, list(names), num_repair
        self.rows: list[tuple[str, float]] = []
        self._choice: Choice | None = None

    def predict(self, contexts: None = None) -> str:
        self._choice = self.policy.choose()
        destroy, repair = divmod(self.names.index(str(self._choice.arm)), self._num_repair)
        return f"{destroy}_{repair}"

    def partial_fit(self, arms: Sequence[str], scores: Sequence[float], contexts: None = None) -> None:
        for arm, score in zip(arms, scores, strict=True):
            destroy, repair = map(int, arm.split("_"))
            name = self.names[destroy * self._num_repair + repair]
            if self._choice is not None and self._choice.arm == name:
                self.policy.update(self._choice, float(score))
            else:
                self.policy.learn([name], [float(score)])
            self._choice = None
            self.rows.append((name, float(score)))


class Balans(PlainBalans):
    """Balans with a policy; a new one for each program that is solved.

    Args:
        policy: makes a policy for one task of the names of its arms; by default `default_policy`.
        scores: see `PolicySelector`.
        options: of `balans.solver.Balans`, such as `destroy_ops`, `repair_ops`, `accept`, `stop` and `seed`.

    Raises:
        TypeError: a selector is given too.
    """

    def __init__(self, *, policy: Maker = default_policy, scores: Sequence[float] = SCORES, **options: Any) -> None:
        if options.get("selector") is not None:
            raise TypeError("the policy is the selector: give one or the other")
        super().__init__(**options)
        self._make, self._scores = policy, scores
        self.selector = self._new_selector()

    @property
    def policy(self) -> Policy:
        """Of the latest program."""
        return self.selector.policy

    @property
    def rows(self) -> list[tuple[str, float]]:
        """Operators and their scores on the latest program, in order: what a prior for the next one is learned from."""
        return self.selector.rows

    def solve(self, instance_path: str, index_to_val: Any = None) -> Any:
        """See `balans.solver.Balans.solve`."""
        self.selector = self._new_selector()
        return super().solve(instance_path, index_to_val)

    def _set_alns_operators(self) -> bool:
        selector = self.selector
        ready = bool(super()._set_alns_operators())
        names = [operator.__name__ for operator in self.destroy_ops]
        kept = {name for name, _ in self.alns.destroy_operators}
        self.selector = selector.restricted([d for d, name in enumerate(names) if name in kept]) if ready else selector
        return ready

    def _new_selector(self) -> PolicySelector:
        destroy, repair = ([operator.__name__ for operator in part] for part in (self.destroy_ops, self.repair_ops))
        names = [d if len(repair) == 1 else f"{d} {r}" for d in destroy for r in repair]
        return PolicySelector(self._make(names), names, len(destroy), len(repair), self._scores)
