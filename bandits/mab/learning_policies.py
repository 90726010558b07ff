"""MABWiser's learning policies, and which of ours each of them is."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from bandits.decisions.numbers import require_number
from bandits.decisions.policy import Policy
from bandits.policies.averages import Averages
from bandits.policies.explicit import EpsilonGreedy, UniformlyRandom
from bandits.policies.thompson import ThompsonSampling
from bandits.policies.upper_bounds import UCB1, LinUCB
from bayesmeta.conjugate.bernoulli import BetaBernoulli
from bayesmeta.regression.linear import LinearGaussian

__all__ = ["CONTEXTUAL", "Arm", "Binarizer", "LearningPolicy", "MakesPolicy", "require_binarizer"]

Arm = Hashable
Binarizer = Callable[[Arm, Any], Any]


@runtime_checkable
class MakesPolicy(Protocol):
    """What each learning policy does."""

    def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
        """One of ours for one task, with contexts of some width."""
        ...


class LearningPolicy:
    """MABWiser's learning policies by name; each makes one of ours for arms, a seed and the width of contexts."""

    @dataclass(frozen=True)
    class EpsilonGreedy:
        """The arm of the greatest mean, but any with probability `epsilon`."""

        epsilon: float = 0.1

        def __post_init__(self) -> None:
            require_number("epsilon", self.epsilon, 0.0, 1.0)

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            return EpsilonGreedy(Averages.none(), arms, epsilon=self.epsilon, seed=seed)

    @dataclass(frozen=True)
    class LinGreedy:
        """Ridge regression for each arm, and any arm with probability `epsilon`."""

        epsilon: float = 0.1
        l2_lambda: float = 1.0
        scale: bool = False

        def __post_init__(self) -> None:
            require_number("epsilon", self.epsilon, 0.0, 1.0)
            _require_regression(self.l2_lambda, self.scale)

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            return EpsilonGreedy(_ridge(width, self.l2_lambda, 1.0), arms, epsilon=self.epsilon, seed=seed)

    @dataclass(frozen=True)
    class LinTS:
        """Weights of each arm drawn from N(ridge regression, alpha^2 A^-1)."""

        alpha: float = 1.0
        l2_lambda: float = 1.0
        scale: bool = False

        def __post_init__(self) -> None:
            require_number("alpha", self.alpha, 0.0, above=True)
            _require_regression(self.l2_lambda, self.scale)

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            return ThompsonSampling(_ridge(width, self.l2_lambda, self.alpha), arms, seed=seed)

    @dataclass(frozen=True)
    class LinUCB:
        """Ridge regression for each arm, plus alpha standard deviations."""

        alpha: float = 1.0
        l2_lambda: float = 1.0
        scale: bool = False

        def __post_init__(self) -> None:
            require_number("alpha", self.alpha, 0.0)
            _require_regression(self.l2_lambda, self.scale)

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

        def __post_init__(self) -> None:
            require_binarizer(self.binarizer)

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            one = torch.ones((), dtype=torch.float64)
            return ThompsonSampling(BetaBernoulli(one, one), arms, seed=seed)

    @dataclass(frozen=True)
    class UCB1:
        """The mean plus alpha sqrt(2 log t / n)."""

        alpha: float = 1.0

        def __post_init__(self) -> None:
            require_number("alpha", self.alpha, 0.0)

        def policy(self, arms: Sequence[Arm], seed: int, width: int) -> Policy:
            return UCB1(arms, width=self.alpha, seed=seed)


CONTEXTUAL = (LearningPolicy.LinGreedy, LearningPolicy.LinTS, LearningPolicy.LinUCB)


def _require_regression(l2_lambda: Any, scale: Any) -> None:
    require_number("l2_lambda", l2_lambda, 0.0, above=True)
    if not isinstance(scale, bool):
        raise TypeError(f"scale must be True or False; got {scale!r}")
    if scale:
        raise ValueError("contexts are not scaled here: scale them before, or leave scale=False")


def require_binarizer(binarizer: Any) -> None:
    if binarizer is not None and not callable(binarizer):
        raise TypeError(f"a binarizer is a function of an arm and its reward, true or false; got {binarizer!r}")


def _ridge(width: int, l2_lambda: float, alpha: float) -> LinearGaussian:
    """Whose posterior is N(ridge regression, alpha^2 A^-1)."""
    precision = torch.eye(width, dtype=torch.float64) * (l2_lambda / alpha**2)
    return LinearGaussian(torch.zeros(width, dtype=torch.float64), precision, torch.tensor(alpha**2).double())
