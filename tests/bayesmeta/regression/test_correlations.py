"""Covariances as scales and what correlates them."""

import math

import pytest
import torch

from bayesmeta.random import randn
from bayesmeta.regression.correlations import pack_scales, scale_tril
from tests.families import F64, seed


def test_scales_are_apart_from_correlations() -> None:
    log_scale, below = (randn((3, n), like=F64, generator=seed(n)) for n in (4, 6))
    root = scale_tril(log_scale, below)
    torch.testing.assert_close(root, root.tril())
    torch.testing.assert_close(torch.linalg.vector_norm(root, dim=-1), log_scale.exp(), rtol=1e-14, atol=0)
    row, column = torch.tril_indices(4, 4, -1)
    torch.testing.assert_close((root / root.diagonal(dim1=-2, dim2=-1)[..., None])[..., row, column], below)
    torch.testing.assert_close(pack_scales(root), torch.cat([log_scale, below], -1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("below", "correlation"), [(0.0, 0.0), (0.75, 0.6), (-0.75, -0.6), (1e3, 1.0 - 5e-7)])
def test_two_weights_correlate(below: float, correlation: float) -> None:
    """By b / sqrt(1 + b^2), and their standard deviations of 2 and 5 stay what they are."""
    root = scale_tril(torch.tensor([2.0, 5.0], dtype=torch.float64).log(), F64[None] + below)
    expected = torch.tensor([[4.0, 10.0 * correlation], [10.0 * correlation, 25.0]], dtype=torch.float64)
    torch.testing.assert_close(root @ root.mT, expected, rtol=1e-11, atol=0)


def test_one_weight_has_a_scale_alone() -> None:
    assert scale_tril(F64[None] + 0.5, F64.new_empty(0)).item() == pytest.approx(math.exp(0.5))
