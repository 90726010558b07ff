"""The interface of MABWiser over our policies, so that its users switch by changing an import.

    from bandits.mab import MAB, LearningPolicy

    mab = MAB(["a", "b"], LearningPolicy.LinTS(alpha=1.0))
    mab.fit(decisions, rewards, contexts)
    mab.predict(contexts)

In place of one of its learning policies, a function from arms and a seed to any of ours starts from what was learned:

    MAB(arms, lambda arms, seed: bandits.ThompsonSampling(prior, arms, seed=seed))

Policies, estimates and types of errors are those of MABWiser. What differs:

- an arm without rewards comes first for `UCB1`, not last;
- `LinUCB` with `l2_lambda` other than 1: the bonus of an arm without rewards is alpha |x| / sqrt(l2_lambda), as of all
  arms, where MABWiser takes l2_lambda to be 1 until the arm's first reward;
- `l2_lambda` must be above 0: with 0 the weights have no posterior before there are as many rows;
- decisions of unknown arms are refused, not passed over;
- contexts are not scaled, and there are no neighbourhood policies, and neither Softmax nor Popularity.
"""

from typing import TYPE_CHECKING

from bayesmeta.lazy import lazily

__all__ = ["MAB", "LearningPolicy", "NoDirectionWarning"]

if TYPE_CHECKING:
    from bandits.mab.bandit import MAB
    from bandits.mab.learning_policies import LearningPolicy
    from bandits.mab.warm_start import NoDirectionWarning
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "MAB": "bandit",
            "LearningPolicy": "learning_policies",
            "NoDirectionWarning": "warm_start",
        },
    )
