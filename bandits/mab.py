"""The interface of MABWiser over our policies, so that its users switch by changing an import.

    from bandits.mab import MAB, LearningPolicy

    mab = MAB(["a", "b"], LearningPolicy.LinTS(alpha=1.0))
    mab.fit(decisions, rewards, contexts)
    mab.predict(contexts)

In place of one of its learning policies, a function from arms and a seed to any of ours starts from what was learned:

    MAB(arms, lambda arms, seed: bandits.ThompsonSampling(prior, arms, seed=seed))

Policies and estimates are those of MABWiser. What differs: an arm without rewards comes first for `UCB1`, not last;
contexts are not scaled; there are no neighbourhood policies.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

from bandits.averages import Averages
from bandits.policies import UCB1, EpsilonGreedy, LinUCB, ThompsonSampling, UniformlyRandom
from bandits.policy import Policy
from bayesmeta.conjugate import BetaBernoulli
from bayesmeta.describe import Described, listed, plural
from bayesmeta.linear import LinearGaussian

__all__ = ["MAB", "LearningPolicy"]

Arm = Hashable
Maker = Callable[[Sequence[Arm], int], Policy]
Binarizer = Callable[[Arm, Any], Any]


class LearningPolicy:
    """MABWiser's learning policies by name; each makes one of ours for arms, a seed and the width of contexts."""

    @dataclass(frozen=True)
    class EpsilonGreedy:
        """The arm of the greatest mean, but any with probability `epsilon`."""

        epsilon: float = 0.1

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            return EpsilonGreedy(Averages.none().to(torch.float64), arms, epsilon=self.epsilon, seed=seed)

    @dataclass(frozen=True)
    class LinGreedy:
        """Ridge regression for each arm, and any arm with probability `epsilon`."""

        epsilon: float = 0.1
        l2_lambda: float = 1.0

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            return EpsilonGreedy(_ridge(width, self.l2_lambda, 1.0), arms, epsilon=self.epsilon, seed=seed)

    @dataclass(frozen=True)
    class LinTS:
        """Weights of each arm drawn from N(ridge regression, alpha^2 A^-1)."""

        alpha: float = 1.0
        l2_lambda: float = 1.0

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            return ThompsonSampling(_ridge(width, self.l2_lambda, self.alpha), arms, seed=seed)

    @dataclass(frozen=True)
    class LinUCB:
        """Ridge regression for each arm, plus alpha standard deviations."""

        alpha: float = 1.0
        l2_lambda: float = 1.0

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            return LinUCB(_ridge(width, self.l2_lambda, 1.0), arms, width=self.alpha, seed=seed)

    @dataclass(frozen=True)
    class Random:
        """Any arm."""

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            return UniformlyRandom(arms, seed=seed)

    @dataclass(frozen=True)
    class ThompsonSampling:
        """Draws from the Beta posterior of each arm.

        Args:
            binarizer: of an arm and its reward, true or false, where rewards are not 0 or 1.
        """

        binarizer: Binarizer | None = None

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            one = torch.ones((), dtype=torch.float64)
            return ThompsonSampling(BetaBernoulli(one, one), arms, seed=seed)

    @dataclass(frozen=True)
    class UCB1:
        """The mean plus alpha sqrt(2 log t / n)."""

        alpha: float = 1.0

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            return UCB1(arms, width=self.alpha, seed=seed)


CONTEXTUAL = (LearningPolicy.LinGreedy, LearningPolicy.LinTS, LearningPolicy.LinUCB)


class MAB(Described):
    """A multi-armed bandit.

    Args: arms: at least one, of different names. learning_policy: one of `LearningPolicy`, or a function from arms and
    a seed to one of our policies for one task. neighborhood_policy: must be None. seed: of the random numbers. n_jobs:
    has no effect: decisions are computed together.

    Raises:
        TypeError: `learning_policy` is neither.
        ValueError: a neighbourhood policy is asked for.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        learning_policy: Any,
        neighborhood_policy: Any = None,
        seed: int = 123456,
        n_jobs: int = 1,
    ) -> None:
        if neighborhood_policy is not None:
            raise ValueError(
                "there are no neighbourhood policies here; a GaussianProcess over contexts does their work"
            )
        if not (hasattr(learning_policy, "policy") or callable(learning_policy)):
            raise TypeError(
                "learning_policy must be one of LearningPolicy, or a function of arms and a seed; "
                f"got {learning_policy!r}"
            )
        self.learning_policy, self.seed = learning_policy, seed
        self._arms = list(arms)
        self._policy: Policy | None = None if self.is_contextual else self._made(0)
        self._trained: set[Arm] = set()
        self._warm: set[Arm] = set()

    def _title(self) -> str:
        return f"over {plural(len(self.arms), 'arm')}: {listed(self.arms)}"

    def _parts(self) -> dict[str, Any]:
        return {"learning_policy": self.learning_policy, "policy": self._policy or "made by the first fit"}

    @property
    def arms(self) -> list[Arm]:
        """Their names."""
        return list(self._arms if self._policy is None else self._policy.arms)

    @property
    def is_contextual(self) -> bool:
        """Whether the learning policy is one of those that need contexts."""
        return isinstance(self.learning_policy, CONTEXTUAL)

    @property
    def cold_arms(self) -> list[Arm]:
        """Those without rewards, and without a warm start."""
        return [arm for arm in self.arms if arm not in self._trained | self._warm]

    @property
    def policy(self) -> Policy:
        """The policy inside.

        Raises:
            ValueError: contexts have not been seen yet, and their width is not known.
        """
        if self._policy is None:
            raise ValueError("call fit before predict: the width of contexts is not known yet")
        return self._policy

    def fit(self, decisions: Any, rewards: Any, contexts: Any = None) -> None:
        """Forget everything, and learn from decisions.

        Args:
            decisions: names of arms, n in all.
            rewards: one for each.
            contexts: `(n, d)`, for contextual policies.
        """
        rows = _rows(contexts)
        self._require_contexts(rows)
        policy = self._made(0 if rows is None else rows.shape[1])
        self._learn(policy, decisions, rewards, rows)
        self._policy, self._trained, self._warm = policy, set(_names(decisions)), set()

    def partial_fit(self, decisions: Any, rewards: Any, contexts: Any = None) -> None:
        """Learn from more decisions; the first time, the same as `fit`."""
        rows = _rows(contexts)
        self._require_contexts(rows)
        policy = self._made(rows.shape[1]) if self._policy is None and rows is not None else self.policy
        self._learn(policy, decisions, rewards, rows)
        self._policy = policy
        self._trained |= set(_names(decisions))

    def predict(self, contexts: Any = None) -> Any:
        """The arm to choose; a list of them for several contexts."""
        chosen = self.policy.choose(**self._asked(contexts), propensities=False)
        return chosen.arms[0] if len(chosen) == 1 else chosen.arms

    def predict_expectations(self, contexts: Any = None) -> Any:
        """What the policy compares: a draw, an upper bound, or a mean of each arm, by name; a list where contexts are
        several."""
        scores = self.policy.scores(**self._asked(contexts))
        each = [dict(zip(self.arms, row, strict=True)) for row in scores.tolist()]
        return each[0] if len(each) == 1 else each

    def add_arm(self, arm: Arm, binarizer: Binarizer | None = None) -> None:
        """A new arm, cold."""
        if self._policy is None:
            self._arms.append(arm)
        else:
            self._policy.add_arm(arm)
        if binarizer is not None:
            self.learning_policy = LearningPolicy.ThompsonSampling(binarizer)

    def remove_arm(self, arm: Arm) -> None:
        """Take an arm away."""
        if self._policy is None:
            self._arms.remove(arm)
        else:
            self._policy.remove_arm(arm)
        self._trained.discard(arm)
        self._warm.discard(arm)

    def warm_start(self, arm_to_features: Mapping[Arm, Sequence[float]], distance_quantile: float) -> None:
        """Cold arms start from what the nearest trained arm has shown.

        Args:
            arm_to_features: of every arm.
            distance_quantile: of the distances of arms to their nearest; farther than that an arm stays cold.

        Raises:
            ValueError: features are not of all arms, or `distance_quantile` is not from 0 to 1.
        """
        if set(arm_to_features) != set(self.arms):
            raise ValueError("arm_to_features must have the features of every arm, and of no other")
        if not 0.0 <= distance_quantile <= 1.0:
            raise ValueError(f"distance_quantile must be from 0 to 1; got {distance_quantile}")
        for cold, warm in _nearest(self.arms, arm_to_features, distance_quantile, self.cold_arms, self._trained):
            self.policy.copy_arm(cold, warm)
            self._warm.add(cold)

    def _made(self, width: int) -> Policy:
        arms = self.arms if hasattr(self, "_policy") else self._arms
        if hasattr(self.learning_policy, "policy"):
            policy: Policy = self.learning_policy.policy(arms, self.seed, width)
            return policy
        made: Policy = self.learning_policy(arms, self.seed)
        return made

    def _learn(self, policy: Policy, decisions: Any, rewards: Any, rows: Tensor | None) -> None:
        names = _names(decisions)
        binarizer = getattr(self.learning_policy, "binarizer", None)
        values = np.asarray(rewards, dtype=float).reshape(-1)
        if binarizer is not None:
            values = np.array([float(binarizer(*pair)) for pair in zip(names, values.tolist(), strict=True)])
        policy.learn(names, torch.tensor(values), context=rows if self._takes_contexts else None)

    @property
    def _takes_contexts(self) -> bool:
        """A policy of our own may; MABWiser's others ignore contexts, and only count them."""
        return self.is_contextual or not hasattr(self.learning_policy, "policy")

    def _asked(self, contexts: Any) -> dict[str, Any]:
        """What to ask the policy for: always several decisions, so that the answer has one form."""
        rows = _rows(contexts)
        self._require_contexts(rows)
        if rows is not None and self._takes_contexts:
            return {"context": rows}
        return {"num": 1 if rows is None else len(rows)}

    def _require_contexts(self, rows: Tensor | None) -> None:
        if self.is_contextual and rows is None:
            raise ValueError(f"{type(self.learning_policy).__name__} needs contexts (n, d); got none")


def _ridge(width: int, l2_lambda: float, alpha: float) -> LinearGaussian:
    """Whose posterior is N(ridge regression, alpha^2 A^-1)."""
    precision = torch.eye(width, dtype=torch.float64) * (l2_lambda / alpha**2)
    return LinearGaussian(torch.zeros(width, dtype=torch.float64), precision, torch.tensor(alpha**2).double())


def _rows(contexts: Any) -> Tensor | None:
    """`(n, d)` from nested lists, NumPy or a frame."""
    if contexts is None:
        return None
    rows = torch.from_numpy(np.array(contexts, dtype=float))
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2:
        raise ValueError(f"contexts must have shape (n, d); got {tuple(rows.shape)}")
    return rows


def _names(decisions: Any) -> list[Arm]:
    return decisions.tolist() if hasattr(decisions, "tolist") else list(decisions)


def _nearest(
    arms: Sequence[Arm],
    features: Mapping[Arm, Sequence[float]],
    quantile: float,
    cold: Sequence[Arm],
    trained: set[Arm],
) -> Iterator[tuple[Arm, Arm]]:
    """Each cold arm that is near enough to a trained one, and that one; distances are of cosines."""
    place = {arm: i for i, arm in enumerate(arms)}
    matrix = np.array([features[arm] for arm in arms], dtype=float)
    distance = cdist(matrix, matrix, "cosine")
    apart = distance + np.diag(np.full(len(arms), np.inf))
    threshold = np.quantile(apart.min(1), quantile)
    warm = [arm for arm in arms if arm in trained]
    for arm in cold if warm else []:
        best = min(warm, key=lambda other: distance[place[arm], place[other]])
        if distance[place[arm], place[best]] <= threshold:
            yield arm, best
