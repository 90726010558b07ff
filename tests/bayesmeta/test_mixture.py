"""Mixtures: weights by evidence, the mixture distribution against torch and Monte Carlo, mixtures of mixtures."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from bayesmeta import Data, LinearGaussian, Mixture
from bayesmeta.checks.calibration import sbc_ranks
from bayesmeta.distributions.mixture import MixtureDistribution
from bayesmeta.protocol import Evidence
from bayesmeta.random import categorical, rand, randn, seeded
from tests.families import F64, FAMILIES, seed

WEIGHTS = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
FAMILY = FAMILIES["mixture"]
PRIOR, NESTED = FAMILY.prior, FAMILIES["nested_mixture"].prior
X = FAMILY.draw_x(5, seed(1))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def normals(*batch: int) -> Normal:
    """Three components on the axis before the last."""
    loc = randn((*batch, 3, 4), like=F64, generator=seed(0))
    return Normal(loc, rand((*batch, 3, 4), like=F64, generator=seed(1)) + 0.2)


def by_torch(components: Normal) -> MixtureSameFamily:
    last = Normal(components.loc.mT, components.scale.mT)
    return MixtureSameFamily(Categorical(WEIGHTS.expand(last.batch_shape)), last)


@pytest.mark.parametrize("batch", [(), (2,)])
def test_distribution_matches_torch(batch: tuple[int, ...]) -> None:
    components = normals(*batch)
    ours, theirs = MixtureDistribution(WEIGHTS.log()[:, None], components, -2), by_torch(components)
    value = randn((7, *batch, 4), like=F64, generator=seed(2))
    assert ours.batch_shape == theirs.batch_shape == (*batch, 4)
    close(ours.mean, theirs.mean)
    close(ours.variance, theirs.variance)
    close(ours.log_prob(value), theirs.log_prob(value))
    close(ours.cdf(value), theirs.cdf(value))
    close(ours.expectation(lambda each: each.mean.square()), (WEIGHTS[:, None] * components.mean**2).sum(-2))


def test_distribution_of_vectors_matches_torch() -> None:
    loc = randn((2, 3, 4), like=F64, generator=seed(0))
    root = randn((2, 3, 4, 4), like=F64, generator=seed(1))
    each = MultivariateNormal(loc, root @ root.mT + torch.eye(4, dtype=torch.float64))
    ours = MixtureDistribution(WEIGHTS.log(), each, -1)
    theirs = MixtureSameFamily(Categorical(WEIGHTS.expand(2, 3)), each)
    value = randn((7, 2, 4), like=F64, generator=seed(2))
    assert (ours.batch_shape, ours.event_shape) == ((2,), (4,))
    close(ours.mean, theirs.mean)
    close(ours.variance, theirs.variance)
    close(ours.log_prob(value), theirs.log_prob(value))
    with seeded(seed(3)):
        assert ours.sample((5, 2)).shape == (5, 2, 2, 4)


def test_samples_follow_the_distribution() -> None:
    mixture, n = MixtureDistribution(WEIGHTS.log()[:, None], normals(2), -2), 20_000
    with seeded(seed(3)):
        draws = mixture.sample((n,))
    below = (draws < mixture.mean).double().mean(0)
    expected = mixture.cdf(mixture.mean)
    assert ((below - expected).abs() < 5 * (expected * (1 - expected) / n).sqrt()).all()
    assert ((draws.mean(0) - mixture.mean).abs() < 5 * draws.std(0) / n**0.5).all()


def test_weights_follow_the_evidence() -> None:
    """By hand: two opinions about the level, and one row."""
    prior = LinearGaussian(torch.tensor([[0.0], [3.0]]).double(), torch.ones(2, 1, 1).double(), torch.ones(2).double())
    mixture = Mixture(prior, torch.tensor([0.25, 0.75]).double().log())
    row = Data.of(torch.ones(1, 1).double(), torch.tensor([1.0]).double())
    first, second = (math.exp(-((1.0 - loc) ** 2) / 4) / math.sqrt(4 * math.pi) for loc in (0.0, 3.0))
    total = 0.25 * first + 0.75 * second
    assert mixture.log_evidence(row).item() == pytest.approx(math.log(total), rel=1e-12)
    posterior = mixture.condition(row)
    close(posterior.weights, torch.tensor([0.25 * first, 0.75 * second], dtype=torch.float64) / total)
    mean = (0.25 * first * 0.5 + 0.75 * second * 2.0) / total
    assert posterior.predict(torch.ones(1, 1).double()).mean.item() == pytest.approx(mean, rel=1e-12)


def test_a_mixture_of_mixtures_is_a_flat_mixture() -> None:
    inner = NESTED.components.components  # (structures, scales)
    flat_fields = {
        "past_weight": inner.past_weight.expand(2, 3).reshape(6),
        "scale": inner.scale.expand(2, 3).reshape(6),
    }
    flat, data = Mixture.uniform(replace(inner, **flat_fields)), FAMILY.rows(6)
    nested, flat_posterior = NESTED.condition(data), flat.condition(data)
    close(NESTED.log_evidence(data), flat.log_evidence(data))
    joint_weights = nested.weights[:, None] * nested.components.weights
    close(joint_weights.reshape(6), flat_posterior.weights)
    for name in ("predict", "marginal"):
        ours, theirs = getattr(nested, name)(X), getattr(flat_posterior, name)(X)
        close(ours.mean, theirs.mean)
        close(ours.variance, theirs.variance)
        close(ours.log_prob(X[:, 0]), theirs.log_prob(X[:, 0]))
        close(ours.cdf(X[:, 0]), theirs.cdf(X[:, 0]))


@pytest.mark.parametrize("prior", [PRIOR, NESTED], ids=["flat", "nested"])
def test_tasks_each_have_weights_of_their_own(prior: Mixture) -> None:
    tasks = FAMILY.tasks([3, 8, 0])
    posterior = prior.condition(tasks)
    close(posterior.weights[2], prior.weights)
    for i in range(3):
        alone = prior.condition(tasks[i])
        close(posterior.weights[i], alone.weights)
        close(prior.log_evidence(tasks)[i], prior.log_evidence(tasks[i]))
        close(posterior.predict(X).variance[i], alone.predict(X).variance)
        close(posterior.joint(X).mean[i], alone.joint(X).mean)
    assert posterior.sample(2, generator=seed(0))(X).shape == (2, 3, 5)
    assert posterior.sample(2, generator=seed(0)).predict(X).variance.shape == (2, 3, 5)


def test_each_draw_is_of_one_hypothesis() -> None:
    """Levels ten apart, known to a hundredth: draws fall near one of them, as often as it is likely."""
    loc, n = torch.tensor([[0.0], [10.0], [20.0]]).double(), 5000
    each = LinearGaussian(loc, torch.full((3, 1, 1), 1e4).double(), torch.ones(3).double())
    f = Mixture(each, WEIGHTS.log()).sample(n, generator=seed(0))(torch.ones(2, 1).double())
    close(f[:, 0], f[:, 1])
    hypothesis = (f[:, 0] / 10).round()
    assert (f[:, 0] - 10 * hypothesis).abs().max() < 0.1
    share = torch.bincount(hypothesis.long(), minlength=3) / n
    assert ((share - WEIGHTS).abs() < 5 * (WEIGHTS * (1 - WEIGHTS) / n).sqrt()).all()


@pytest.mark.parametrize("name", [name for name, f in FAMILIES.items() if isinstance(f.prior, Evidence)])
def test_draws_predict_as_their_hypothesis(name: str) -> None:
    """Whatever the parameters that the family's distribution is told, and whether or not draws can be selected."""
    family = FAMILIES[name]
    each = family.prior.condition(family.tasks([3, 5, 0]))
    mixture, x = Mixture.uniform(each), family.draw_x(4, seed(1))
    num = 20  # of so many draws at least two are of different hypotheses
    f = mixture.sample(num, generator=seed(0))
    generator = seed(0)
    index = categorical(num, mixture.log_weights, generator=generator)
    every = each.sample(num, generator=generator)
    ours, theirs, values = f.predict(x), every.predict(x.unsqueeze(-3)), every(x.unsqueeze(-3))
    assert len(index.unique()) > 1
    for i, hypothesis in enumerate(index.tolist()):
        close(f(x)[i], values[i, hypothesis])
        close(ours.mean[i], theirs.mean[i, hypothesis])
        close(ours.variance[i], theirs.variance[i, hypothesis])


@pytest.mark.slow
def test_calibration() -> None:
    ranks = sbc_ranks(PRIOR, X[:3], num_tasks=1000, num_draws=9, generator=seed(0))
    for each in ranks.T:
        assert scipy.stats.chisquare(np.bincount(each, minlength=10)).pvalue > 1e-6


def test_float32_components_give_float32_predictions() -> None:
    mixture = Mixture.uniform(PRIOR.components.to(torch.float32))
    data, x = FAMILY.rows(6), X.float()
    posterior = mixture.condition(data.to(torch.float32))
    expected = Mixture.uniform(PRIOR.components).condition(data)
    for name in ("predict", "marginal"):
        ours, theirs = getattr(posterior, name)(x), getattr(expected, name)(X)
        for value, reference in (
            (ours.mean, theirs.mean),
            (ours.variance, theirs.variance),
            (ours.log_prob(x[:, 0]), theirs.log_prob(X[:, 0])),
        ):
            assert value.dtype == torch.float32
            close(value.double(), reference, 1e-4)
    close(posterior.weights.double(), expected.weights, 1e-4)
    assert posterior.sample(2, generator=seed(0))(x).dtype == torch.float32


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"one entry per component; got \(2,\) for components of batch_shape \(3,\)"):
        Mixture(PRIOR.components, WEIGHTS[:2].log())
    with pytest.raises(ValueError, match=r"these add to 2. Try log_weights.log_softmax\(-1\)"):
        Mixture(PRIOR.components, (2 * WEIGHTS).log())
    with pytest.raises(ValueError, match=r"components of batch_shape \(\)"):
        Mixture.uniform(FAMILIES["gaussian_process"].prior)
    with pytest.raises(ValueError, match="axis is counted from the right end of the batch and so negative; got 0"):
        MixtureDistribution(WEIGHTS.log(), normals(), 0)
    with pytest.raises(ValueError, match="x must have 2 columns; got 3"):
        PRIOR.condition(Data.of(torch.zeros(4, 3).double(), torch.zeros(4).double()))
