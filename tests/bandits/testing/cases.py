"""Every kind of policy and of state, for the laws."""

from typing import Any

import torch

import bandits
from bandits.testing import Case
from bayesmeta import (
    BetaBernoulli,
    CorrelatedArms,
    GammaPoisson,
    Hyperposterior,
    LinearGaussian,
    LinearHyperposterior,
    LinearNormalInverseGamma,
    LogisticGaussian,
    NormalInverseGamma,
)
from tests.families import F64, FAMILIES
from tests.seeds import seed, shifted

ARMS = ["a", "b", "c"]
FEATURES = {"a": [1.0, 0.0, 1.0], "b": [0.0, 1.0, 1.0], "c": [0.5, 0.5, 1.0]}
COIN = BetaBernoulli(F64 + 1.0, F64 + 1.0)
EYE = torch.eye(3, dtype=torch.float64)
LINEAR = LinearGaussian(EYE[0] * 0.0, EYE, F64 + 1.0)
OTHER = LinearGaussian(EYE.sum(0), EYE, F64 + 1.0)
NOISY = LinearNormalInverseGamma(LINEAR.loc, EYE, F64 + 2.0, F64 + 1.0)
ORDER = "rewards_come_late_and_in_any_order"
GOES = "an_arm_that_goes_leaves_the_others_as_they_were"
LOOP = "a_batch_of_tasks_equals_a_loop"
ELSEWHERE = "what_was_decided_elsewhere_is_learned_as_what_was_chosen"


def case(kind: Any, *args: Any, exempt: tuple[str, ...] = (), **options: Any) -> Case:
    of_case = {name: options.pop(name) for name in ("width", "new_arm", "bad_rewards", "rtol") if name in options}
    return Case(
        lambda **others: kind(*args, **options, **others), exempt=frozenset(exempt), shift=shifted(0), **of_case
    )


def coin_belief() -> Hyperposterior:
    past = FAMILIES["beta_bernoulli"].tasks([6, 4, 8, 5, 7, 3])
    return Hyperposterior.fit(BetaBernoulli.initial(past), past, num_draws=200, generator=seed(0))


CASES: dict[str, Case] = {
    "coins": case(bandits.ThompsonSampling, COIN, ARMS, bad_rewards=(0.5, -1.0, 2.0)),
    "counts": case(bandits.ThompsonSampling, GammaPoisson(F64 + 1.0, F64 + 1.0), ARMS, bad_rewards=(0.5, -1.0)),
    "linear": case(bandits.ThompsonSampling, LINEAR, ARMS, width=3),
    "shared": case(bandits.ThompsonSampling, LINEAR, FEATURES, new_arm={"features": [0.0, 0.0, 1.0]}),
    "single precision": case(bandits.ThompsonSampling, LINEAR.to(torch.float32), ARMS, width=3, rtol=1e-4),
    "hybrid": case(
        bandits.LinUCB,
        LinearGaussian(torch.zeros(8).double(), torch.eye(8).double(), F64 + 1.0),
        bandits.Hybrid(("a", "b"), torch.eye(2)),
        width=2,
        new_arm=None,
    ),
    "numbers": case(
        bandits.ThompsonSampling,
        CorrelatedArms(EYE[0], torch.eye(3, dtype=torch.float64), F64 + 1.0),
        ARMS,
        new_arm={"features": 1},
    ),
    "marginal": case(bandits.MarginalThompson, LINEAR, FEATURES, new_arm={"features": [0.0, 0.0, 1.0]}),
    "top two": case(bandits.TopTwoThompson, LINEAR, ARMS, width=3, share=0.7),
    "bayes ucb": case(
        bandits.BayesUCB, NormalInverseGamma(F64, F64 + 1.0, F64 + 2.0, F64 + 1.0), ARMS, horizon=50, power=1.0
    ),
    "linucb": case(bandits.LinUCB, NOISY, ARMS, width=3),
    "epsilon greedy": case(
        bandits.EpsilonGreedy, LogisticGaussian(LINEAR.loc, EYE), ARMS, width=3, epsilon=0.5, bad_rewards=(2.0,)
    ),
    "ucb1": case(bandits.UCB1, ARMS),
    "random": case(bandits.UniformlyRandom, ARMS),
    "diagonal": case(bandits.DiagLinUCB, ARMS, 3, width=3),
    "process": case(
        bandits.BayesUCB,
        FAMILIES["gaussian_process"].prior,
        {name: row[:2] for name, row in FEATURES.items()},
        new_arm={"features": [0.2, 0.7]},
    ),
    # rewards change with time
    "forgetting": case(bandits.ThompsonSampling, bandits.Forgetting(LINEAR, 0.9), ARMS, width=3, exempt=(ORDER,)),
    "window": case(bandits.ThompsonSampling, bandits.SlidingWindow(LINEAR, 5), ARMS, width=3, exempt=(ORDER,)),
    "change points": case(
        bandits.ThompsonSampling, bandits.ChangePoints(LINEAR, 4), ARMS, width=3, exempt=(ORDER, GOES)
    ),
    # an arm that goes takes along what it said of the task
    "hypotheses": case(bandits.ThompsonSampling, bandits.Hypotheses.of([LINEAR, OTHER]), ARMS, width=3, exempt=(GOES,)),
    "families": case(bandits.ThompsonSampling, bandits.Hypotheses.of([OTHER, NOISY]), ARMS, width=3, exempt=(GOES,)),
    # tasks learn from each other
    "hierarchical": case(bandits.HierTS, LinearHyperposterior(LINEAR, EYE), ARMS, width=3, exempt=(LOOP,)),
    "hierarchical coins": case(bandits.HierTS, coin_belief(), ARMS, exempt=(LOOP,), bad_rewards=(0.5,)),
    # only before they begin
    "ada": case(bandits.AdaTS, LinearHyperposterior(LINEAR, EYE), ARMS, width=3),
    # and each draws what it keeps when it begins
    "meta": case(bandits.MetaTS, LinearHyperposterior(LINEAR, EYE), ARMS, width=3, exempt=(LOOP, ELSEWHERE)),
}
