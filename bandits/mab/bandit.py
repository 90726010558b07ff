"""MABWiser's bandit, with one of our policies inside."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bandits.decisions.arms import Separate
from bandits.decisions.choices import names_of
from bandits.decisions.numbers import numbers_of, require_number, require_seed
from bandits.decisions.policy import Policy
from bandits.mab.learning_policies import CONTEXTUAL, Arm, Binarizer, LearningPolicy, MakesPolicy, require_binarizer
from bandits.mab.warm_start import nearest
from bayesmeta.describe import Described, listed, plural

__all__ = ["MAB"]


class MAB(Described):
    """A multi-armed bandit.

    Args:
        arms: at least one, of different names, none of them None, not a number or infinite.
        learning_policy: one of `LearningPolicy`, or a function from arms and a seed to a policy for one task.
        neighborhood_policy: must be None.
        seed: of the random numbers, a whole number.
        n_jobs, backend: have no effect: decisions are computed together.

    Raises:
        TypeError: `learning_policy` is neither, or another argument is of the wrong type.
        ValueError: arms are wrong, `n_jobs` is 0, or a neighbourhood policy is asked for.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        learning_policy: Any,
        neighborhood_policy: Any = None,
        seed: Any = 123456,
        n_jobs: int = 1,
        backend: str | None = None,
    ) -> None:
        if neighborhood_policy is not None:
            raise ValueError(
                "there are no neighbourhood policies here; a GaussianProcess over contexts does their work"
            )
        if isinstance(learning_policy, type) or not (
            isinstance(learning_policy, MakesPolicy) or callable(learning_policy)
        ):
            raise TypeError(
                "learning_policy must be one of LearningPolicy, or a function of arms and a seed; "
                f"got {learning_policy!r}"
            )
        _require_settings(n_jobs, backend)
        self._arms = _checked_arms(arms)
        self.learning_policy, self.seed = learning_policy, require_seed(seed)
        self.neighborhood_policy, self.n_jobs, self.backend = neighborhood_policy, n_jobs, backend
        self._policy: Policy | None = None
        if not self.is_contextual:
            self._policy = self._made(0)
        self._trained: set[Arm] = set()
        self._warm: set[Arm] = set()
        self._has_fitted = False

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
        rows = self._fitted_rows(contexts, decisions)
        policy = self._made(0 if rows is None else rows.shape[1])
        self._learn(policy, decisions, rewards, rows)
        self._policy, self._trained, self._warm, self._has_fitted = policy, set(names_of(decisions)), set(), True

    def partial_fit(self, decisions: Any, rewards: Any, contexts: Any = None) -> None:
        """Learn from more decisions; the first time, the same as `fit`."""
        rows = self._fitted_rows(contexts, decisions)
        policy = self._made(rows.shape[1]) if self._policy is None and rows is not None else self.policy
        self._learn(policy, decisions, rewards, rows)
        self._policy, self._has_fitted = policy, True
        self._trained |= set(names_of(decisions))

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
        """A new arm, cold.

        Raises:
            ValueError: there is such an arm, it is None, not a number or infinite, or a binarizer is given to another
                policy than `LearningPolicy.ThompsonSampling`.
        """
        if binarizer is not None:
            if not isinstance(self.learning_policy, LearningPolicy.ThompsonSampling):
                raise ValueError(
                    f"a binarizer is of LearningPolicy.ThompsonSampling; this policy is {self.learning_policy!r}"
                )
            require_binarizer(binarizer)
        _checked_arms([*self.arms, arm])
        if self._policy is None:
            self._arms.append(arm)
        else:
            self._policy.add_arm(arm)
        if binarizer is not None:
            self.learning_policy = LearningPolicy.ThompsonSampling(binarizer)

    def remove_arm(self, arm: Arm) -> None:
        """Take an arm away.

        Raises:
            ValueError: there is no such arm.
        """
        if arm not in self.arms:
            raise ValueError(f"there is no arm {arm!r}; there are {listed(self.arms)}")
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
            TypeError: features are not by arm, or `distance_quantile` is no number.
            ValueError: features are not of all arms, or `distance_quantile` is not from 0 to 1.
        """
        if not isinstance(arm_to_features, Mapping):
            raise TypeError(f"arm_to_features must have the features of each arm by its name; got {arm_to_features!r}")
        require_number("distance_quantile", distance_quantile, 0.0, 1.0)
        if set(arm_to_features) != set(self.arms):
            raise ValueError("arm_to_features must have the features of every arm, and of no other")
        for cold, warm in nearest(self.arms, arm_to_features, distance_quantile, self.cold_arms, self._trained):
            self.policy.copy_arm(cold, warm)
            self._warm.add(cold)

    def _made(self, width: int) -> Policy:
        if isinstance(self.learning_policy, MakesPolicy):
            return self.learning_policy.policy(self.arms, self.seed, width)
        made: Policy = self.learning_policy(self.arms, self.seed)
        return made

    def _learn(self, policy: Policy, decisions: Any, rewards: Any, rows: Tensor | None) -> None:
        names = names_of(decisions)
        is_of_coins = isinstance(self.learning_policy, LearningPolicy.ThompsonSampling)
        binarizer = self.learning_policy.binarizer if is_of_coins else None
        values = numbers_of(rewards, "rewards").reshape(-1).numpy()
        if len(names) != len(values):
            raise ValueError(f"decisions and rewards must be as many; got {len(names)} and {len(values)}")
        if not np.isfinite(values).all():
            raise TypeError(f"rewards must be finite; got {values[~np.isfinite(values)][0]}")
        if binarizer is not None:
            values = np.array([float(binarizer(*pair)) for pair in zip(names, values.tolist(), strict=True)])
        policy.learn(names, torch.tensor(values), context=rows if self._takes_contexts else None)

    @property
    def _takes_contexts(self) -> bool:
        """A policy of our own may; MABWiser's others ignore contexts, and only count them."""
        return self.is_contextual or not isinstance(self.learning_policy, MakesPolicy)

    def _asked(self, contexts: Any) -> dict[str, Any]:
        """What to ask the policy for: always several decisions, so that the answer has one form."""
        if isinstance(self.learning_policy, MakesPolicy) and not self._has_fitted:
            raise ValueError("call fit before predict: nothing has been learned yet")
        rows = _rows(contexts, self._width)
        if self.is_contextual and rows is None:
            raise ValueError(f"{type(self.learning_policy).__name__} needs contexts (n, d); got none")
        if rows is not None and self._takes_contexts:
            return {"context": rows}
        return {"num": 1 if rows is None else len(rows)}

    @property
    def _width(self) -> int | None:
        """Of the contexts so far."""
        return None if self._policy is None else self._policy._learner.posterior.width

    def _fitted_rows(self, contexts: Any, decisions: Any) -> Tensor | None:
        """Contexts to learn from.

        Raises:
            TypeError: they are missing, or of no use.
        """
        if self.is_contextual and contexts is None:
            raise TypeError(f"{type(self.learning_policy).__name__} needs contexts (n, d); got none")
        if contexts is not None and not self._takes_contexts:
            raise TypeError(f"{type(self.learning_policy).__name__} takes no contexts; got some")
        num = len(names_of(decisions))
        rows = _rows(contexts, 1 if num > 1 else None)
        if rows is not None and len(rows) != num:
            raise ValueError(f"each decision needs its context; got {num} and {len(rows)}")
        return rows


def _checked_arms(arms: Any) -> list[Arm]:
    """The names of arms.

    Raises:
        TypeError: they are no list.
        ValueError: one is None, not a number or infinite, or two are equal.
    """
    if isinstance(arms, str | Mapping) or not isinstance(arms, Sequence):
        raise TypeError(f"arms must be a list of names; got {arms!r}")
    for arm in arms:
        if arm is None or (isinstance(arm, float) and not math.isfinite(arm)):
            raise ValueError(f"an arm cannot be {arm!r}; give each a name")
    return list(Separate(tuple(arms)).names)


def _require_settings(n_jobs: Any, backend: Any) -> None:
    if not isinstance(n_jobs, int):
        raise TypeError(f"n_jobs must be a whole number; got {n_jobs!r}")
    if n_jobs == 0:
        raise ValueError("n_jobs cannot be 0; 1 is the default")
    if backend is not None and not isinstance(backend, str):
        raise TypeError(f"backend must be a name; got {backend!r}")


def _rows(contexts: Any, width: int | None) -> Tensor | None:
    """`(n, d)` from nested lists, NumPy, a frame or a series.

    Args:
        contexts: a series is one context, or a column of them where they are known to be one number each.
        width: of a context, where it is known.
    """
    if contexts is None:
        return None
    rows = numbers_of(contexts, "contexts")
    if rows.ndim == 1 and hasattr(contexts, "to_numpy"):
        rows = rows[:, None] if width == 1 else rows[None]
    if rows.ndim != 2:
        raise TypeError(f"contexts must have shape (n, d), or be a series; got {tuple(rows.shape)}")
    return rows
