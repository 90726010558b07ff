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
    "Explicit",
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
    from bandits.policies.explicit import EpsilonGreedy, Explicit, UniformlyRandom
    from bandits.policies.hierarchical import AdaTS, HierTS, MetaTS, running_together
    from bandits.policies.thompson import MarginalThompson, ThompsonSampling
    from bandits.policies.top_two import TopTwoThompson
    from bandits.policies.upper_bounds import UCB1, BayesUCB, LinUCB
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "UCB1": "upper_bounds",
            "AdaTS": "hierarchical",
            "BayesUCB": "upper_bounds",
            "DiagLinUCB": "diagonal",
            "DiagonalWeights": "diagonal",
            "EdgeSums": "diagonal",
            "EpsilonGreedy": "explicit",
            "Explicit": "explicit",
            "HierTS": "hierarchical",
            "LinUCB": "upper_bounds",
            "MarginalThompson": "thompson",
            "MetaTS": "hierarchical",
            "ThompsonSampling": "thompson",
            "TopTwoThompson": "top_two",
            "UniformlyRandom": "explicit",
            "running_together": "hierarchical",
        },
    )
