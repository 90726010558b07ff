"""The Gauss rule for the half normal, against the moments of one and a skew integral that SciPy's quadrature gives."""

import math

import pytest
import torch
from scipy import integrate

from bayesmeta.numerics.gauss import half_normal_rule


@pytest.mark.parametrize("num", [1, 2, 5, 12])
def test_moments_are_exact_up_to_twice_the_number_of_nodes(num: int) -> None:
    nodes, weights = half_normal_rule(num)
    for power in range(2 * num):
        moment = 2.0 ** ((power - 1) / 2) * math.gamma((power + 1) / 2)
        assert float((weights * nodes**power).sum()) == pytest.approx(moment, rel=1e-11)


def test_a_smooth_function_is_integrated_to_many_digits() -> None:
    nodes, weights = half_normal_rule(16)
    expected, _ = integrate.quad(lambda s: math.exp(-0.5 * s * s - math.exp(-s)), 0.0, math.inf, epsabs=1e-14)
    assert float((weights * torch.exp(-torch.exp(-nodes))).sum()) == pytest.approx(expected, rel=1e-10)
