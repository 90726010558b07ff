"""What an expert's choices say, against quadrature; and that it helps as much as the expert knows."""

import math
from typing import Any

import pytest
import scipy.stats
import torch
from torch import Tensor

import bandits
from bayesmeta import Data, LinearGaussian
from tests.families import F64, seed
from tests.seeds import shifted

EYE = torch.eye(4).double()


@pytest.mark.parametrize("rewarded", [False, True])
def test_the_mixture_is_the_posterior_by_quadrature(rewarded: bool) -> None:
    """One weight and three arms: an integral over what the expert thinks, knows and does."""
    features = torch.tensor([[-1.0], [0.3], [1.0]]).double()
    chosen = torch.tensor([2, 2, 1, 2, 2, 0, 2])
    rewards = torch.tensor([0.9, 0.2, 0.1, 1.5, 0.4, -0.1, 0.6]).double() if rewarded else None
    prior = LinearGaussian(torch.zeros(1).double(), torch.ones(1, 1).double(), F64 + 0.8)
    expert: dict[str, Any] = {
        "deliberateness": bandits.LogNormal(2.0, 1.0),
        "knowledge": bandits.LogNormal(1.5, 0.7),
    }
    theta = torch.linspace(-4, 4, 321).double()
    grid = torch.linspace(-4.0, 4.0, 33).double()
    thinks = torch.linspace(-7, 7, 281).double()
    beta, lambda_ = 2.0 * grid.exp(), 1.5 * (0.7 * grid).exp()
    log_weight = -0.5 * grid.square()
    logits = beta[:, None, None] * (thinks[:, None] * features[:, 0])
    says = (logits.log_softmax(-1)[:, :, chosen].sum(-1) + log_weight[:, None]).logsumexp(0)  # of each thought
    distance = lambda_[:, None, None] * (thinks[:, None] - theta)
    knows = (lambda_.log() + log_weight)[:, None, None] - 0.5 * distance.square()
    log_density = (knows.logsumexp(0) + says[:, None]).logsumexp(0) - 0.5 * theta.square()
    if rewards is not None:
        log_density = log_density - 0.5 * (rewards - theta[:, None] * features[chosen, 0]).square().sum(-1) / 0.8
    density = log_density.softmax(0)
    mean = (density * theta).sum()
    var = (density * theta.square()).sum() - mean**2
    informed = bandits.informed_prior(prior, features, chosen, rewards, num_draws=3000, generator=seed(1), **expert)
    each = informed.prior
    each_mean, each_var = each.loc[:, 0], 1.0 / each.precision[:, 0, 0]
    error = float(each_mean.std()) / math.sqrt(3000)
    assert abs(float(each_mean.mean() - mean)) < 5 * error
    second = each_var + each_mean.square()
    exact = var + mean**2
    assert abs(float(second.mean() - exact)) < 5 * float(second.std()) / math.sqrt(3000)


ARMS, NOISE_SD = 12, 2.0
PLAIN = LinearGaussian(torch.zeros(4).double(), EYE, F64 + NOISE_SD**2)


def regrets(prior_of: Any, beta: float, *, tasks: int = 36, rounds: int = 25) -> Tensor:
    """Of each task after ten demonstrations by an expert who knows the weights, and acts on it by `beta`."""
    total = torch.zeros(tasks)
    for task in range(tasks):
        generator = seed(task)
        features = torch.randn(ARMS, 4, generator=generator).double()
        mean = features @ torch.randn(4, generator=generator).double()
        chosen = torch.multinomial((beta * mean).softmax(0), 10, replacement=True, generator=generator)
        rewards = mean[chosen] + NOISE_SD * torch.randn(10, generator=generator).double()
        noise = NOISE_SD * torch.randn(rounds, generator=generator).double()
        prior = prior_of(features, chosen, rewards, generator)
        arms = bandits.Joined(tuple(range(ARMS)), features)
        policy = bandits.ThompsonSampling(prior, arms, seed=shifted(task), propensities=False)
        for t in range(rounds):
            choice = policy.choose()
            total[task] += float(mean.max() - mean[choice.arm])
            policy.update(choice, float(mean[choice.arm] + noise[t]))
    return total


def informed(features: Tensor, chosen: Tensor, rewards: Tensor, generator: torch.Generator) -> Any:
    return bandits.informed_prior(PLAIN, features, chosen, rewards, num_draws=50, generator=generator)


def rewards_only(features: Tensor, chosen: Tensor, rewards: Tensor, generator: torch.Generator) -> Any:
    return PLAIN.condition(Data.of(features[chosen], rewards))


def test_regret_falls_as_competence_rises_and_no_expert_does_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over tasks of the logarithm, for some tasks have great regrets; differences are of five standard errors."""
    monkeypatch.setattr("bandits.beliefs.demonstrations.NUM_SWEEPS", 40)
    able, fair, poor = (regrets(informed, beta).log1p() for beta in (20.0, 0.5, 0.0))
    able_rewards, poor_rewards = (regrets(rewards_only, beta).log1p() for beta in (20.0, 0.0))
    ignored = regrets(lambda *_: PLAIN, 20.0).log1p()
    for worse in (fair, poor, able_rewards, ignored):
        assert able.mean() < worse.mean()
    # an expert who chose at random is found out: not clearly worse than what the rewards say
    assert scipy.stats.ttest_rel(poor, poor_rewards, alternative="greater").pvalue > 1e-6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": torch.tensor([0, 7])}, r"choices must be of arms 0 to 2; got \[0, 7\]"),
        ({"chosen": torch.tensor([0.0, 1.0])}, "chosen must be whole numbers of shape"),
        ({"features": torch.ones(3, 2).double()}, r"features must have shape \(arms, 1\) or \(2, arms, 1\)"),
        ({"features": torch.full((3, 1), math.nan).double()}, "features must be finite"),
        ({"rewards": torch.ones(3).double()}, "rewards must be finite, one for each of 2 choices"),
        ({"prior": LinearGaussian(torch.zeros(2, 1), torch.ones(2, 1, 1), torch.ones(2))}, "prior must have no batch"),
    ],
)
def test_bad_demonstrations(changes: dict[str, Any], message: str) -> None:
    good = {
        "prior": LinearGaussian(torch.zeros(1).double(), torch.ones(1, 1).double(), F64 + 1.0),
        "features": torch.tensor([[0.0], [1.0], [2.0]]).double(),
        "chosen": torch.tensor([0, 1]),
    }
    with pytest.raises(ValueError, match=message):
        bandits.informed_prior(**{**good, **changes})


def test_bad_competence() -> None:
    with pytest.raises(ValueError, match="median must be above 0"):
        bandits.LogNormal(0.0, 1.0)
