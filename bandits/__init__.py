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
    "Estimate",
    "FewSamplesWarning",
    "Forgetting",
    "FromPrior",
    "HierTS",
    "Hybrid",
    "Hypotheses",
    "Joined",
    "LinUCB",
    "Log",
    "LogNormal",
    "LogWriter",
    "MarginalThompson",
    "MetaTS",
    "Numbered",
    "Policy",
    "Replayed",
    "Run",
    "Scene",
    "SemiBandit",
    "Separate",
    "SetChoice",
    "SetChoices",
    "SlidingWindow",
    "TableReplay",
    "ThompsonSampling",
    "TopTwoThompson",
    "UniformlyRandom",
    "UnusableRowsWarning",
    "Wheel",
    "arms_as_tasks",
    "bayes_optimal_value",
    "compare",
    "doubly_robust",
    "each_decision",
    "expected_reward",
    "fitted_rewards",
    "gittins_index",
    "grid_edges",
    "informed_prior",
    "ips",
    "linear_contextual",
    "plot_regret",
    "policy_probabilities",
    "prior_of_each_arm",
    "replay",
    "running_together",
    "shortest_path",
    "simulate",
    "snips",
    "top_k",
]

if TYPE_CHECKING:
    from bandits.beliefs.change_points import ChangePoints
    from bandits.beliefs.demonstrations import LogNormal, informed_prior
    from bandits.beliefs.forgetting import Forgetting
    from bandits.beliefs.from_logs import arms_as_tasks, prior_of_each_arm
    from bandits.beliefs.hypotheses import Hypotheses
    from bandits.beliefs.running import running_together
    from bandits.beliefs.window import SlidingWindow
    from bandits.combinatorial.oracles import each_decision, grid_edges, shortest_path, top_k
    from bandits.combinatorial.semi_bandit import SemiBandit
    from bandits.combinatorial.sets import SetChoice, SetChoices
    from bandits.decisions.arms import Crossed, Hybrid, Joined, Numbered, Separate
    from bandits.decisions.choices import Choice, Choices
    from bandits.decisions.policy import Policy
    from bandits.evaluation.along_a_log import Replayed, fitted_rewards, policy_probabilities, replay
    from bandits.evaluation.bayes_optimal import bayes_optimal_value, expected_reward
    from bandits.evaluation.environments import FromPrior, Scene, TableReplay, Wheel, linear_contextual
    from bandits.evaluation.estimates import Estimate, FewSamplesWarning, doubly_robust, ips, snips
    from bandits.evaluation.gittins import gittins_index
    from bandits.evaluation.log_writer import LogWriter, UnusableRowsWarning
    from bandits.evaluation.logs import Log
    from bandits.evaluation.plots import plot_regret
    from bandits.evaluation.simulation import Run, compare, simulate
    from bandits.policies.diagonal import DiagLinUCB, DiagonalWeights, EdgeSums
    from bandits.policies.explicit import EpsilonGreedy, UniformlyRandom
    from bandits.policies.hierarchical import AdaTS, HierTS, MetaTS
    from bandits.policies.thompson import MarginalThompson, ThompsonSampling
    from bandits.policies.top_two import TopTwoThompson
    from bandits.policies.upper_bounds import UCB1, BayesUCB, LinUCB
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "AdaTS": "policies.hierarchical",
            "BayesUCB": "policies.upper_bounds",
            "ChangePoints": "beliefs.change_points",
            "Choice": "decisions.choices",
            "Choices": "decisions.choices",
            "Crossed": "decisions.arms",
            "DiagLinUCB": "policies.diagonal",
            "DiagonalWeights": "policies.diagonal",
            "EdgeSums": "policies.diagonal",
            "EpsilonGreedy": "policies.explicit",
            "Estimate": "evaluation.estimates",
            "FewSamplesWarning": "evaluation.estimates",
            "Forgetting": "beliefs.forgetting",
            "FromPrior": "evaluation.environments",
            "HierTS": "policies.hierarchical",
            "Hybrid": "decisions.arms",
            "Hypotheses": "beliefs.hypotheses",
            "Joined": "decisions.arms",
            "LinUCB": "policies.upper_bounds",
            "Log": "evaluation.logs",
            "LogNormal": "beliefs.demonstrations",
            "LogWriter": "evaluation.log_writer",
            "MarginalThompson": "policies.thompson",
            "MetaTS": "policies.hierarchical",
            "Numbered": "decisions.arms",
            "Policy": "decisions.policy",
            "Replayed": "evaluation.along_a_log",
            "Run": "evaluation.simulation",
            "Scene": "evaluation.environments",
            "SemiBandit": "combinatorial.semi_bandit",
            "Separate": "decisions.arms",
            "SetChoice": "combinatorial.sets",
            "SetChoices": "combinatorial.sets",
            "SlidingWindow": "beliefs.window",
            "TableReplay": "evaluation.environments",
            "ThompsonSampling": "policies.thompson",
            "TopTwoThompson": "policies.top_two",
            "UCB1": "policies.upper_bounds",
            "UniformlyRandom": "policies.explicit",
            "UnusableRowsWarning": "evaluation.log_writer",
            "Wheel": "evaluation.environments",
            "arms_as_tasks": "beliefs.from_logs",
            "bayes_optimal_value": "evaluation.bayes_optimal",
            "compare": "evaluation.simulation",
            "doubly_robust": "evaluation.estimates",
            "each_decision": "combinatorial.oracles",
            "expected_reward": "evaluation.bayes_optimal",
            "fitted_rewards": "evaluation.along_a_log",
            "gittins_index": "evaluation.gittins",
            "grid_edges": "combinatorial.oracles",
            "informed_prior": "beliefs.demonstrations",
            "ips": "evaluation.estimates",
            "linear_contextual": "evaluation.environments",
            "plot_regret": "evaluation.plots",
            "policy_probabilities": "evaluation.along_a_log",
            "prior_of_each_arm": "beliefs.from_logs",
            "replay": "evaluation.along_a_log",
            "running_together": "beliefs.running",
            "shortest_path": "combinatorial.oracles",
            "simulate": "evaluation.simulation",
            "snips": "evaluation.estimates",
            "top_k": "combinatorial.oracles",
        },
    )
