"""Weighted points: moments of the points, and quantiles that are continuous between them."""

import pytest
import torch
from scipy import stats

from bayesmeta.distributions.weighted_points import LOG, LOGIT, Link, WeightedPoints
from bayesmeta.random import rand, randn, seeded
from tests.families import F64, seed


def points(n: int, *batch: int, link: Link = LOGIT) -> WeightedPoints:
    log_weights = randn((*batch, n), like=F64, generator=seed(1)).log_softmax(-1)
    return WeightedPoints(log_weights, randn((*batch, n), like=F64, generator=seed(2)), link)


def test_moments_are_those_of_the_points() -> None:
    found = points(7, 3, 2)
    weights, values = found.log_weights.exp(), found.predictor.sigmoid()
    torch.testing.assert_close(found.mean, (weights * values).sum(-1))
    torch.testing.assert_close(found.variance, (weights * (values - found.mean[..., None]).square()).sum(-1))
    assert found.batch_shape == (3, 2)
    with seeded(seed(3)):
        assert found.sample((4,)).shape == (4, 3, 2)


def test_quantiles_are_the_inverse_of_probabilities() -> None:
    found, level = points(7, 3, 2), rand((5, 3, 2), like=F64, generator=seed(3))
    torch.testing.assert_close(found.cdf(found.icdf(level)), level, rtol=0.0, atol=1e-12)
    torch.testing.assert_close(found.link().icdf(level).sigmoid(), found.icdf(level))
    for end in (0.0, 1.0):
        torch.testing.assert_close(found.cdf(torch.tensor(end).double()), torch.full((3, 2), end).double())


def test_many_points_have_the_quantiles_of_what_they_were_drawn_from() -> None:
    n = 100_000
    drawn = randn((n,), like=F64, generator=seed(4))
    proposed = WeightedPoints((0.5 * drawn - 0.125).sub(torch.tensor(n).log()).log_softmax(-1), drawn)
    level = torch.tensor([0.05, 0.3, 0.5, 0.9]).double()
    expected = torch.from_numpy(stats.norm(0.5).ppf(level.numpy()))  # weights move the mean by a half
    torch.testing.assert_close(proposed.icdf(level), expected, rtol=0.0, atol=0.04)


def test_a_single_point_and_equal_ones() -> None:
    for values in (torch.tensor([0.3]), torch.tensor([0.3, 0.3, 0.3])):
        found = WeightedPoints(torch.zeros_like(values).log_softmax(-1), values)
        torch.testing.assert_close(found.icdf(torch.tensor([0.1, 0.9])), torch.tensor([0.3, 0.3]))
        assert found.variance == 0.0


@pytest.mark.parametrize("link", [LOG, LOGIT])
def test_the_density_is_the_slope_of_the_probabilities(link: Link) -> None:
    found, level = points(7, 3, link=link), rand((40, 3), like=F64, generator=seed(3))
    at, step = found.icdf(level), 1e-7
    slope = (found.cdf(at + step) - found.cdf(at - step)) / (2.0 * step)
    close = (slope / found.log_prob(at).exp() - 1.0).abs() < 1e-4
    assert close.double().mean() > 0.98  # but for steps across an edge
    assert found.log_prob(link.number(torch.tensor(30.0).double())).isinf().all()
    one_more = found.with_axis()
    torch.testing.assert_close(one_more.cdf(at[..., None])[..., 0], found.cdf(at))
