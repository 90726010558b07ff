"""bandits: posterior-sampling policies that start from a learned prior, run many tasks at once, and log honestly."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "UCB1",
    "BayesUCB",
    "Choice",
    "Choices",
    "Crossed",
    "EpsilonGreedy",
    "Hybrid",
    "Joined",
    "LinUCB",
    "MarginalThompson",
    "Numbered",
    "Policy",
    "Separate",
    "ThompsonSampling",
    "TopTwoThompson",
    "UniformlyRandom",
]

if TYPE_CHECKING:
    from bandits.arms import Crossed, Hybrid, Joined, Numbered, Separate
    from bandits.policies import (
        UCB1,
        BayesUCB,
        EpsilonGreedy,
        LinUCB,
        MarginalThompson,
        ThompsonSampling,
        TopTwoThompson,
        UniformlyRandom,
    )
    from bandits.policy import Choice, Choices, Policy
else:
    __getattr__ = lazily(
        __name__,
        {
            "BayesUCB": "policies",
            "Choice": "policy",
            "Choices": "policy",
            "Crossed": "arms",
            "EpsilonGreedy": "policies",
            "Hybrid": "arms",
            "Joined": "arms",
            "LinUCB": "policies",
            "MarginalThompson": "policies",
            "Numbered": "arms",
            "Policy": "policy",
            "Separate": "arms",
            "ThompsonSampling": "policies",
            "TopTwoThompson": "policies",
            "UCB1": "policies",
            "UniformlyRandom": "policies",
        },
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
