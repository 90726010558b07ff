"""Off-policy estimates on the Open Bandit Dataset: what one logged policy says of the other, and of one of ours.

Each campaign was logged by two policies, one that chose at random and one by Bernoulli Thompson sampling. So the value
of the random one, which is the mean of its own log, can be estimated from the other's log, and the estimates checked.
`ours` is Thompson sampling on a prior learned from the first half of the random log, judged on the second.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import bandits
from bandits import FewSamplesWarning, Log
from bayesmeta import BetaBernoulli, Data
from benchmarks.report import Figure

__all__ = ["CAMPAIGNS", "open_bandit"]

CAMPAIGNS = ("all", "men", "women")


def open_bandit(folder: Path) -> Iterator[Figure]:
    """`value/open_bandit_<campaign>/<policy>/<estimator>` in clicks per thousand, and standard errors."""
    for campaign in CAMPAIGNS:
        files = [folder / f"{policy}_{campaign}.parquet" for policy in ("random", "bts")]
        if not all(file.exists() for file in files):
            continue
        random, thompson = (Log.from_open_bandit(file) for file in files)
        name = f"value/open_bandit_{campaign}"
        own = 1000 * random.reward
        yield Figure(f"{name}/random/on_policy", float(own.mean()), "clicks per thousand, its own log")
        yield Figure(f"{name}_se/random/on_policy", float(own.std()) / len(own) ** 0.5, "standard error")
        even = torch.full((thompson.num_arms,), 1.0 / thompson.num_arms, dtype=torch.float64)
        yield from _estimates(f"{name}", "random", thompson, even)
        half = len(random) // 2
        past, future = random[:half], random[half:]
        yield from _estimates(f"{name}", "ours", future, _ours(past))


def _ours(past: Log) -> Tensor:
    """How probable each arm is under Thompson sampling after `past`, arms exchangeable beforehand."""
    arm = [past.reward[past.arm == a] for a in range(past.num_arms)]
    tasks = Data.pad([(y.new_zeros(len(y), 0), y) for y in arm])
    prior = BetaBernoulli.initial(tasks).fit(tasks)
    policy = bandits.ThompsonSampling(prior, past.names, seed=0)
    policy.learn([past.names[i] for i in past.arm.tolist()], past.reward)
    return policy.probabilities().probability[0]


def _estimates(name: str, policy: str, log: Log, probabilities: Tensor) -> Iterator[Figure]:
    one = torch.ones((), dtype=torch.float64)
    predicted = bandits.fitted_rewards(log, BetaBernoulli(one, 100.0 * one))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewSamplesWarning)  # their number is a figure of its own
        estimates = {
            "ips": bandits.ips(log, probabilities),
            "snips": bandits.snips(log, probabilities),
            "doubly_robust": bandits.doubly_robust(log, probabilities, predicted),
        }
    for estimator, estimate in estimates.items():
        yield Figure(f"{name}/{policy}/{estimator}", 1000 * estimate.value, "clicks per thousand")
        yield Figure(f"{name}_se/{policy}/{estimator}", 1000 * estimate.standard_error, "standard error")
    yield Figure(f"{name}_effective/{policy}", estimates["ips"].effective, "decisions that the log is worth")
