"""Policies and models of rewards along a log: what they say of its decisions, and what a policy learns from them.

`replay` is for policies that learn: decisions on which policy and log agree are kept, the others never happened.

Source: Li et al., Unbiased offline evaluation of contextual-bandit-based news article recommendation algorithms (2011).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from bandits.decisions.policy import Policy
from bandits.evaluation.estimates import Estimate, estimate_from, require_decisions
from bandits.evaluation.logs import Log
from bandits.policies.thompson import ThompsonSampling
from bayesmeta.describe import Described
from bayesmeta.doors import require_count

__all__ = ["Replayed", "fitted_rewards", "policy_probabilities", "replay"]

CHUNK = 10_000  # decisions whose probabilities are computed at once


@dataclass(frozen=True, eq=False)
class Replayed(Described):
    """A policy that learned along a log.

    Args:
        estimate: its mean reward over the decisions that were kept.
        rewards: of these, in order.
        kept: their places in the log.
    """

    estimate: Estimate
    rewards: Tensor
    kept: Tensor


def fitted_rewards(log: Log, prior: Any, *, folds: Any = 5, seed: int = 0) -> Tensor:
    """Expected rewards of every arm at each decision, `(n, arms)`, each by a model of the other folds.

    Args:
        prior: of the rewards of an arm, or of arms by number, as of a policy.
        folds: into which decisions are dealt at random, at least 2, and no more than decisions.

    Raises:
        TypeError: `folds` is no whole number.
        ValueError: there are too few of them, or fewer decisions.
    """
    folds = require_count("folds", folds, 2)
    require_decisions(log)
    if folds > len(log):
        raise ValueError(f"each of {folds} folds needs a decision; the log has {len(log)}. Try folds={len(log)}")
    fold = torch.randperm(len(log), generator=Generator().manual_seed(seed)) % folds
    predicted = torch.zeros(len(log), log.num_arms, dtype=torch.float64)
    for k in range(folds):
        model = ThompsonSampling(prior, log.names, seed=0, propensities=False)
        seen, left = (fold != k).nonzero()[:, 0], (fold == k).nonzero()[:, 0]
        context = None if log.context is None else log.context[seen]
        model.learn([log.names[i] for i in log.arm[seen].tolist()], log.reward[seen], context=context)
        at = None if log.context is None else log.context[left]
        predicted[left] = model.expected_rewards(at, num=None if at is not None else len(left)).double()
    return predicted


def policy_probabilities(policy: Policy, log: Log) -> Tensor:
    """How probable each of the log's arms is under a policy as it is now, `(n, arms)`.

    Raises:
        ValueError: the policy has other arms than the log.
    """
    if set(policy.arms) != set(log.names):
        raise ValueError(f"the policy must have the arms of the log, {log.names[:10]}; it has {policy.arms[:10]}")
    order = torch.tensor([policy.arms.index(name) for name in log.names])
    if log.context is None:
        return policy.probabilities().probability[:, order].expand(len(log), -1)
    parts = [policy.probabilities(rows).probability for rows in log.context.split(CHUNK)]
    return torch.cat(parts)[:, order]


def replay(policy: Policy, log: Log, *, seed: int = 0) -> Replayed:
    """Let a policy for one task decide along the log, and learn from the decisions on which both agree.

    Where propensities differ, a decision is kept with a probability that makes up for it, so that what is kept is as if
    the log had chosen at random. The policy is changed.

    Raises:
        ValueError: the policy is for several tasks, the log is empty, or they agree on no decision.

    Warns:
        FewSamplesWarning: less than 30 decisions were kept, or all of them paid the same.
    """
    require_decisions(log)
    if policy.num_tasks != 1:
        raise ValueError(f"replay is of a policy for one task; this one has {policy.num_tasks}")
    chance = log.propensity.min() / log.propensity
    lucky = torch.rand(len(log), generator=Generator().manual_seed(seed), dtype=torch.float64) < chance
    kept: list[int] = []
    for i in lucky.nonzero()[:, 0].tolist():
        context = None if log.context is None else log.context[i]
        choice = policy.choose(context, propensities=False)
        if choice.arm == log.names[int(log.arm[i])]:
            policy.update(choice, float(log.reward[i]))
            kept.append(i)
    places = torch.tensor(kept, dtype=torch.long)
    rewards = log.reward[places]
    if not kept:
        raise ValueError("policy and log agree on no decision: the log says nothing of the policy")
    value = rewards.mean()
    return Replayed(estimate_from(value, rewards - value, torch.ones(len(kept)), None), rewards, places)
