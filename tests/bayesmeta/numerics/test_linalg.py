"""Matrices that are positive definite but for the last digit of their dtype."""

import math

import pytest
import torch

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.numerics.linalg import cholesky, log_det_of, rounded, symmetric
from tests.families import seed


def nearly_singular(least: float, number: int, d: int = 4) -> torch.Tensor:
    rotation, _ = torch.linalg.qr(torch.randn(d, d, generator=seed(number), dtype=torch.float64))
    return symmetric((rotation * torch.logspace(0, math.log10(least), d, dtype=torch.float64)) @ rotation.mT)


@pytest.mark.parametrize("least", [1e-6, 1e-7, 1e-8, 1e-12])
def test_rounding_leaves_matrices_that_every_algorithm_factors(least: float) -> None:
    matrices = torch.stack([nearly_singular(least, number) for number in range(200)])
    found = rounded(matrices, torch.float32)
    for each in (found, found.double()):
        assert cholesky(each, "matrix").isfinite().all()
    torch.testing.assert_close(found.double(), matrices, rtol=2e-5, atol=2e-6)
    well = rounded(nearly_singular(1e-4, 0), torch.float32)
    assert torch.equal(well, nearly_singular(1e-4, 0).float()), "what has digits to spare is not touched"


@pytest.mark.parametrize("name", ["LinearGaussian", "LinearNormalInverseGamma", "NormalInverseWishart"])
@pytest.mark.parametrize("least", [1e-6, 1e-8])
def test_priors_near_the_last_digit_of_float32_answer_in_it(name: str, least: float) -> None:
    zero, one = torch.zeros(4, dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for number in range(20):
        matrix, generator = nearly_singular(least, number), seed(100 + number)
        made = {
            "LinearGaussian": lambda m: bm.LinearGaussian(zero, m, one),
            "LinearNormalInverseGamma": lambda m: bm.LinearNormalInverseGamma(zero, m, 2 * one, one),
            "NormalInverseWishart": lambda m: bm.NormalInverseWishart(zero, one, 7 * one, m),
        }
        prior = made[name](matrix).to(torch.float32)
        assert prior.sample_params(2, generator=generator).isfinite().all()
        x, y = torch.randn(3, 4, generator=generator), torch.randn(3, 4, generator=generator)
        data = Data.of(None, y, event_dim=1) if name == "NormalInverseWishart" else Data.of(x, y[:, 0])
        assert prior.condition(data).log_evidence(data).isfinite()


def test_thousands_of_tasks_without_rows() -> None:
    assert cholesky(torch.empty(0, 0, 4000).double().movedim(-1, 0), "nothing").shape == (4000, 0, 0)


def test_the_slope_of_a_determinant_where_elimination_finds_none() -> None:
    """The last pivot is rounded to zero by one way and to a digit by the other, on some processors."""
    top, side, bottom = (
        float.fromhex(text) for text in ("0x1.36e35c5a285dap+4", "0x1.1f3f74ab23d60p+4", "0x1.0967be6b27a05p+4")
    )
    matrix = torch.tensor([[top, side], [side, bottom]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_det_of(matrix, "matrix"), matrix)
    assert slope.isfinite().all()
