"""Ways to choose among arms."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "UCB1",
    "AdaTS",
    "BayesUCB",
    "DiagLinUCB",
    "DiagonalWeights",
    "EdgeSums",
    "EpsilonGreedy",
    "HierTS",
    "LinUCB",
    "MarginalThompson",
    "MetaTS",
    "ThompsonSampling",
    "TopTwoThompson",
    "UniformlyRandom",
    "running_together",
]

if TYPE_CHECKING:
    from bandits.policies.diagonal import DiagLinUCB, DiagonalWeights, EdgeSums
    from bandits.policies.hierarchical import AdaTS, HierTS, MetaTS, running_together
    from bandits.policies.thompson import (
        UCB1,
        BayesUCB,
        EpsilonGreedy,
        LinUCB,
        MarginalThompson,
        ThompsonSampling,
        TopTwoThompson,
        UniformlyRandom,
    )
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "UCB1": "thompson",
            "AdaTS": "hierarchical",
            "BayesUCB": "thompson",
            "DiagLinUCB": "diagonal",
            "DiagonalWeights": "diagonal",
            "EdgeSums": "diagonal",
            "EpsilonGreedy": "thompson",
            "HierTS": "hierarchical",
            "LinUCB": "thompson",
            "MarginalThompson": "thompson",
            "MetaTS": "hierarchical",
            "ThompsonSampling": "thompson",
            "TopTwoThompson": "thompson",
            "UniformlyRandom": "thompson",
            "running_together": "hierarchical",
        },
    )
