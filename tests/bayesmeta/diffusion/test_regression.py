"""Regressions: without a network the Gaussian prior's exact answers, and the rows themselves weigh zeros and counts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import bayesmeta as bm
from bandits import BayesUCB, Hypotheses, MarginalThompson, ThompsonSampling
from bayesmeta import Data, DiffusionRegression, LinearGaussian, LogisticGaussian, PoissonGaussian
from bayesmeta.diffusion import DiffusionSchedule
from bayesmeta.diffusion.online import STALE
from bayesmeta.random import rand, randn
from tests.families import F64, seed
from tests.seeds import shifted

D, NUM = 2, 4000
KINDS = ["normal", "bernoulli", "poisson"]


def tasks(kind: str, num: int, n: int, number: int) -> Data:
    x = randn((num, n, D), like=F64, generator=seed(number))
    w = 0.7 * randn((num, D, 1), like=F64, generator=seed(number + 1)) + torch.tensor([[0.5], [-0.3]]).double()
    eta, noise = (x @ w)[..., 0], rand((num, n), like=F64, generator=seed(number + 2))
    if kind == "normal":
        return Data.of(x, eta + 0.3 * randn((num, n), like=F64, generator=seed(number + 2)))
    if kind == "bernoulli":
        return Data.of(x, (noise < eta.sigmoid()).double())
    return Data.of(x, torch.poisson(eta.exp(), generator=seed(number + 2)))


def plain(kind: str, num_particles: int = NUM) -> DiffusionRegression:
    """Without a network."""
    cov = torch.tensor([[0.6, 0.2], [0.2, 0.5]]).double()
    loc, precision = torch.tensor([0.5, -0.3]).double(), torch.linalg.inv(cov)
    gaussian: Any = {
        "normal": lambda: LinearGaussian(loc, precision, F64 + 0.09),
        "bernoulli": lambda: LogisticGaussian(loc, precision),
        "poisson": lambda: PoissonGaussian(loc, precision),
    }[kind]()
    start = DiffusionRegression.initial(tasks(kind, 3, 4, 90), y=kind, num_particles=num_particles, num_levels=4)
    return replace(start, weights=gaussian)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 6])
def test_without_a_network_it_is_the_gaussian_prior(kind: str, n: int) -> None:
    prior, some = plain(kind), tasks(kind, 5, n, 1)
    after, exact = prior.condition(some), prior.weights.condition(some)
    x = randn((4, D), like=F64, generator=seed(9))
    found, expected = after.predict(x), exact.predict(x)
    # errors of weighted particles, some of which have most of the weight
    error = 5.0 * expected.variance.sqrt() / after.ess.min() ** 0.5 + 1e-9
    assert ((found.mean - expected.mean).abs() < error).all()
    evidence = prior.log_evidence(some) - prior.weights.log_evidence(some)
    assert evidence.abs().max() < (1e-8 if kind == "normal" else 10.0 / float(after.ess.min()) ** 0.5)
    assert after.ess.min() > 0.2 * NUM
    assert after.sample(3, generator=seed(1))(x).shape == (3, 5, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_at_once_or_one_by_one_in_a_batch_or_alone(kind: str) -> None:
    prior, some = plain(kind, 200), tasks(kind, 3, 5, 1)
    x = randn((4, D), like=F64, generator=seed(9))
    whole = prior.condition(some).predict(x).mean
    in_parts = prior.condition(some.rows(slice(0, 2))).condition(some.rows(slice(2, None))).predict(x).mean
    torch.testing.assert_close(in_parts, whole, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(prior.condition(some[1]).predict(x).mean, whole[1], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_decides(kind: str) -> None:
    past = tasks(kind, 30, 6, 1)
    prior = DiffusionRegression.initial(past, y=kind, num_particles=30, num_levels=3, width=8, num_layers=1)
    learned = prior.fit(past, progress=False)
    assert "30 tasks" in repr(learned)
    arms = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0, 1.0]), "c": torch.tensor([1.0, 1.0])}
    for prior in (learned, Hypotheses.of([learned, learned.weights])):
        for kind_of_policy in (ThompsonSampling, MarginalThompson, BayesUCB):
            policy = kind_of_policy(prior, arms, tasks=2, seed=shifted(0))
            for _ in range(3):
                policy.update(policy.choose(), torch.ones(2))
            assert (policy.probabilities().probability.sum(-1) - 1.0).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_chances_of_arms_are_those_of_draws(kind: str) -> None:
    arms = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.0, 1.0]), "c": torch.tensor([1.0, 1.0])}
    policy = MarginalThompson(plain(kind, 50), arms, seed=shifted(0))
    policy.update(policy.choose(), 1.0)
    chance, num = policy.probabilities().probability.flatten(), 1000
    chosen = list(policy.choose(num=num).arms)
    share = torch.tensor([chosen.count(name) / num for name in arms])
    assert ((share - chance).abs() < 5.0 * (chance * (1.0 - chance) / num).sqrt() + 3e-3).all()


def test_batches_are_indexed_and_expanded() -> None:
    some, x = tasks("bernoulli", 3, 5, 1), randn((4, D), like=F64, generator=seed(9))
    after = plain("bernoulli", 50).condition(some)
    torch.testing.assert_close(after[1].predict(x).mean, after.predict(x).mean[1])
    wide = after.expand((2, 3))
    assert wide.batch_shape == (2, 3)
    torch.testing.assert_close(wide.predict(x).mean[1], after.predict(x).mean)
    assert plain("normal", 50).expand((2,)).batch_shape == (2,)
    with pytest.raises(IndexError, match="no batch"):
        plain("normal", 50)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_files_keep_rows(kind: str, tmp_path: Path) -> None:
    after = plain(kind, 50).condition(tasks(kind, 3, 5, 1))
    bm.save(after, tmp_path / "prior.safetensors")
    x = randn((4, D), like=F64, generator=seed(9))
    assert torch.equal(bm.load(tmp_path / "prior.safetensors").predict(x).mean, after.predict(x).mean)


@pytest.mark.slow
def test_weights_of_two_kinds_are_learned_from_rows() -> None:
    def draw(num: int, number: int) -> Data:
        side = 2.0 * (rand((num, 1), like=F64, generator=seed(number)) < 0.5).double() - 1.0
        w = 1.5 * side * torch.tensor([1.0, 1.0]).double() + 0.1 * randn((num, 2), like=F64, generator=seed(number + 1))
        x = randn((num, 8, 2), like=F64, generator=seed(number + 2))
        return Data.of(x, (x @ w[..., None])[..., 0] + 0.3 * randn((num, 8), like=F64, generator=seed(number + 3)))

    past, new = draw(300, 10), draw(100, 20)
    schedule = DiffusionSchedule(num_steps=600, num_rounds=1)
    learned = DiffusionRegression.initial(past, width=32, num_layers=2).fit(past, schedule=schedule, progress=False)
    gain = learned.log_evidence(new) - learned.weights.log_evidence(new)
    assert gain.mean() > 0.5


def test_bad_input() -> None:
    some = tasks("bernoulli", 3, 4, 1)
    with pytest.raises(ValueError, match="'normal', 'bernoulli', 'poisson'; got 'gamma'"):
        DiffusionRegression.initial(some, y="gamma")
    with pytest.raises(ValueError, match="y must be 0 or 1"):
        plain("bernoulli").condition(tasks("normal", 3, 4, 1))
    with pytest.raises(ValueError, match="columns"):
        plain("normal").condition(Data.of(some.x[..., :1], some.y))
    roles = LinearGaussian.initial(tasks("normal", 3, 4, 1), offset=1)
    with pytest.raises(ValueError, match="basis must have shape"):
        replace(plain("normal"), weights=roles)


@pytest.mark.parametrize("kind", KINDS)
def test_particles_in_place_agree_with_the_posterior_of_all_rows(kind: str) -> None:
    """As they are weighed, and after they were looked at anew."""
    prior, some = plain(kind, NUM), tasks(kind, 3, 40, 1)
    state = prior.online((3,))
    x = randn((3, 4, D), like=F64, generator=seed(9))
    every = torch.arange(3)
    for i in range(40):
        state.add((every,), some.x[:, i], some.y[:, i])
        if i in (0, 4, 39):
            found, expected = state.marginal(x), state.posterior().marginal(x)
            error = 7.0 * expected.variance.sqrt() / (STALE * NUM) ** 0.5
            assert ((found.mean - expected.mean).abs() < error).all()
            evidence = prior.log_evidence(some.rows(slice(0, i + 1)))
            assert (state.log_evidence - evidence).abs().max() < 10.0 / (STALE * NUM) ** 0.5
    assert (state.ess >= STALE * NUM).all()
    assert (state.num_reruns <= 8).all()
