"""bandits: posterior-sampling policies that start from a learned prior, run many tasks at once, and log honestly."""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = [
    "UCB1",
    "AdaTS",
    "BayesUCB",
    "ChangePoints",
    "Choice",
    "Choices",
    "Crossed",
    "DiagLinUCB",
    "DiagonalWeights",
    "EdgeSums",
    "EpsilonGreedy",
    "Forgetting",
    "FromPrior",
    "HierTS",
    "Hybrid",
    "Hypotheses",
    "Joined",
    "LinUCB",
    "LogNormal",
    "MarginalThompson",
    "MetaTS",
    "Numbered",
    "Policy",
    "Run",
    "Scene",
    "Separate",
    "SlidingWindow",
    "TableReplay",
    "ThompsonSampling",
    "TopTwoThompson",
    "UniformlyRandom",
    "Wheel",
    "bayes_optimal_value",
    "compare",
    "expected_reward",
    "gittins_index",
    "informed_prior",
    "linear_contextual",
    "plot_regret",
    "running_together",
    "simulate",
]

if TYPE_CHECKING:
    from bandits.arms import Crossed, Hybrid, Joined, Numbered, Separate
    from bandits.bayes_optimal import bayes_optimal_value, expected_reward
    from bandits.demonstrations import LogNormal, informed_prior
    from bandits.diagonal import DiagLinUCB, DiagonalWeights, EdgeSums
    from bandits.environments import FromPrior, Scene, TableReplay, Wheel, linear_contextual
    from bandits.forgetting import Forgetting
    from bandits.gittins import gittins_index
    from bandits.hierarchical import AdaTS, HierTS, MetaTS, running_together
    from bandits.hypotheses import Hypotheses
    from bandits.partition_tree import ChangePoints
    from bandits.plots import plot_regret
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
    from bandits.simulation import Run, compare, simulate
    from bandits.window import SlidingWindow
else:
    __getattr__ = lazily(
        __name__,
        {
            "AdaTS": "hierarchical",
            "BayesUCB": "policies",
            "ChangePoints": "partition_tree",
            "Choice": "policy",
            "Choices": "policy",
            "Crossed": "arms",
            "DiagLinUCB": "diagonal",
            "DiagonalWeights": "diagonal",
            "EdgeSums": "diagonal",
            "EpsilonGreedy": "policies",
            "Forgetting": "forgetting",
            "FromPrior": "environments",
            "HierTS": "hierarchical",
            "Hybrid": "arms",
            "Hypotheses": "hypotheses",
            "Joined": "arms",
            "LinUCB": "policies",
            "LogNormal": "demonstrations",
            "MarginalThompson": "policies",
            "MetaTS": "hierarchical",
            "Numbered": "arms",
            "Policy": "policy",
            "Run": "simulation",
            "Scene": "environments",
            "Separate": "arms",
            "SlidingWindow": "window",
            "TableReplay": "environments",
            "ThompsonSampling": "policies",
            "TopTwoThompson": "policies",
            "UCB1": "policies",
            "UniformlyRandom": "policies",
            "Wheel": "environments",
            "bayes_optimal_value": "bayes_optimal",
            "compare": "simulation",
            "expected_reward": "bayes_optimal",
            "gittins_index": "gittins",
            "informed_prior": "demonstrations",
            "linear_contextual": "environments",
            "plot_regret": "plots",
            "running_together": "hierarchical",
            "simulate": "simulation",
        },
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
