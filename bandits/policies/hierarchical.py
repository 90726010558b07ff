"""Thompson sampling for tasks that run together, or one after another, and learn their prior from each other.

All three start from a hyperposterior, which past tasks or a belief gave, and differ in what a task makes of it.
`HierTS` uses all that every task has shown at each decision, and is exact Bayes. `AdaTS` gives each task the prior with
hyperparameters integrated out, as it was known when the task began; where tasks come one after another it is the same
policy. `MetaTS` gives each task one draw of the prior, which it keeps: cheapest, and a bad draw costs regret for the
whole task.

Source: Hong et al., Hierarchical Bayesian bandits (2022); Basu et al., No regrets for learning the prior in bandits
(2021); Kveton et al., Meta-Thompson sampling (2021).
"""

from typing import Any

from bandits.beliefs.running import running_together
from bandits.policies.thompson import ThompsonSampling

__all__ = ["AdaTS", "HierTS", "MetaTS", "running_together"]


class HierTS(ThompsonSampling):
    """Hyperparameters are drawn given all that every task has shown, then the task given these and its own rewards.

    Args:
        belief: what is known of hyperparameters, see `running_together`.
        arms: as of `Policy`; where arms have a posterior each, hyperparameters are of each arm.
        options: of `Policy`.
    """

    def __init__(self, belief: Any, arms: Any, **options: Any) -> None:
        super().__init__(running_together(belief, "redraw"), arms, **options)


class AdaTS(ThompsonSampling):
    """Each task has the prior that was known when it began, hyperparameters integrated out."""

    def __init__(self, belief: Any, arms: Any, **options: Any) -> None:
        super().__init__(running_together(belief, "marginal"), arms, **options)


class MetaTS(ThompsonSampling):
    """Each task has one prior, drawn from what was known when it began."""

    def __init__(self, belief: Any, arms: Any, **options: Any) -> None:
        super().__init__(running_together(belief, "keep"), arms, **options)
