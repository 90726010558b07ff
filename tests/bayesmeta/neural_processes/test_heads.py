"""Heads: each is a distribution in the units of y, of which a network can say anything, and nothing below the floor."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bayesmeta import Data, one_hot
from bayesmeta.neural_processes.heads import (
    FLOOR,
    BernoulliHead,
    CategoricalHead,
    CountHead,
    GaussianHead,
    Head,
    HistogramHead,
    MixtureHead,
    RealHead,
    StudentHead,
)
from bayesmeta.random import rand, randn
from tests.families import F64, seed

REAL = (GaussianHead, StudentHead, MixtureHead, HistogramHead)
N = 60


def rows(kind: type[Head]) -> Data:
    if issubclass(kind, RealHead):
        y = 5.0 + 3.0 * randn((N,), like=F64, generator=seed(1))
    elif kind is BernoulliHead:
        y = (rand((N,), like=F64, generator=seed(1)) < 0.3).double()
    elif kind is CountHead:
        y = (9.0 * rand((N,), like=F64, generator=seed(1))).floor()
    else:
        y = one_hot(torch.randint(3, (N,), generator=seed(1)), 3)
    return Data.of(torch.zeros(N, 1).double(), y, event_dim=y.ndim - 1)


def outputs(head: Head, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * randn((*shape, head.num_outputs), like=F64, generator=seed(2))


every = pytest.mark.parametrize("kind", [*REAL, BernoulliHead, CategoricalHead, CountHead])


@every
def test_any_answer_is_a_distribution_that_rows_have_a_probability_under(kind: type[Head]) -> None:
    data, head = rows(kind), kind.initial(rows(kind))
    for scale in (0.0, 1.0, 100.0):
        found = head.distribution(outputs(head, N, scale=scale))
        assert found.batch_shape == (N,)
        assert found.event_shape == head.event_shape
        assert found.log_prob(data.y).shape == (N,)
        assert not found.log_prob(data.y).isnan().any()
        assert found.mean.isfinite().all()
    assert head.seen(data.y).shape == (N, head.num_y)
    assert 0 <= head.num_locations <= head.num_outputs


@every
def test_what_a_head_knows_is_in_the_units_of_y(kind: type[Head]) -> None:
    """Ten times as large: densities are a tenth, and probabilities of what is counted are the same."""
    head = kind.initial(rows(kind))
    standard, answer = head.in_standard_units(), outputs(head, N)
    y = rows(kind).y + (1e-3 if isinstance(head, RealHead) else 0.0)  # rows are edges of a histogram, on neither side
    moved = head.distribution(answer).log_prob(y)
    plain = standard.distribution(answer).log_prob(head.standardised(y))
    size = head.scale.log() if isinstance(head, RealHead) else 0.0
    torch.testing.assert_close(moved, plain - size)


@pytest.mark.parametrize("kind", REAL)
def test_no_spread_is_below_the_floor(kind: type[RealHead]) -> None:
    head = kind.initial(rows(kind))
    found = head.distribution(torch.full((1, head.num_outputs), -50.0, dtype=torch.float64))
    assert float(found.stddev) >= 0.999 * FLOOR * float(head.scale)


@pytest.mark.parametrize("kind", [*REAL, BernoulliHead, CategoricalHead])
def test_a_temperature_widens(kind: type[Head]) -> None:
    head = kind.initial(rows(kind))
    answer = outputs(head, 40)
    warm = replace(head, temperature=2.0)
    if isinstance(head, GaussianHead | StudentHead):
        ratio = warm.distribution(answer).stddev / head.distribution(answer).stddev
        torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0))
    elif not isinstance(head, RealHead):
        assert (warm.distribution(answer).entropy() >= head.distribution(answer).entropy() - 1e-12).all()
    else:
        assert (warm.distribution(answer).variance > head.distribution(answer).variance).double().mean() > 0.5
    with pytest.raises(ValueError, match="temperature must be above zero"):
        replace(head, temperature=0.0)


def test_a_count_can_be_poisson() -> None:
    head = CountHead.initial(rows(CountHead))
    found = head.distribution(torch.tensor([[0.3, 100.0]], dtype=torch.float64))
    mean = float(found.mean)
    assert float(found.variance) == pytest.approx(mean, rel=0.01 + mean * 1e-3)


def test_the_function_has_what_the_noise_leaves() -> None:
    head = replace(GaussianHead.initial(rows(GaussianHead)), noise_var=F64 + 0.25)
    prediction = head.distribution(outputs(head, 30))
    found = head.noise_free(prediction)
    assert torch.equal(found.mean, prediction.mean)
    left = (prediction.variance - 0.25).clamp(min=0.0)
    assert ((found.variance - left).abs() <= 1e-4 * prediction.variance + 1e-12).all()
    with pytest.raises(TypeError, match="this is BernoulliHead"):
        BernoulliHead.initial(rows(BernoulliHead)).noise_free(prediction)


@pytest.mark.parametrize(
    ("kind", "y", "message"),
    [
        (BernoulliHead, [0.0, 0.5], "0 or 1"),
        (CountHead, [1.0, -1.0], "whole number"),
        (CountHead, [1.0, 1.5], "whole number"),
        (CategoricalHead, [[1.0, 1.0], [0.0, 1.0]], "one in one place|ones? "),
    ],
)
def test_rows_that_a_head_has_no_probability_for_are_refused(kind: type[Head], y: list, message: str) -> None:
    data = Data.of(torch.zeros(2, 1).double(), torch.tensor(y).double(), event_dim=torch.tensor(y).ndim - 1)
    with pytest.raises(ValueError, match=message):
        kind.initial(data)


@pytest.mark.parametrize("kind", REAL)
def test_y_that_does_not_vary_has_a_scale(kind: type[Head]) -> None:
    head = kind.initial(Data.of(torch.zeros(5, 1).double(), torch.full((5,), 7.0).double()))
    assert head.distribution(outputs(head, 5)).log_prob(F64 + 7.0).isfinite().all()
