"""Factors that name the failing task, and draws that follow their law and their generator."""

import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from bayesmeta.numerics.linalg import cholesky, log_det, log_det_of, pack_tril, solve, unpack_tril
from bayesmeta.random import categorical, gamma, log_gamma, rand, randn, seeded, wishart_tril
from tests.families import F64, seed

EYE = torch.eye(3, dtype=torch.float64)


def test_cholesky_names_the_failing_task() -> None:
    matrices = EYE.repeat(2, 4, 1, 1)
    matrices[1, 2, 0, 0] = -1.0
    with pytest.raises(ValueError, match=r"cov of task \(1, 2\) is not positive definite \(least eigenvalue -1\)"):
        cholesky(matrices, "cov")
    with pytest.raises(ValueError, match=r"cov is not positive definite .*; try float64 or add jitter"):
        cholesky(-EYE.float(), "cov")
    with pytest.raises(ValueError, match=r"cov of task 0 is not positive definite \(it is not finite"):
        cholesky((EYE * torch.nan)[None], "cov")


def test_log_det_and_solve_agree_with_torch() -> None:
    a = randn((4, 3, 3), like=F64, generator=seed(0))
    matrix, vector = a @ a.mT + EYE, a[..., 0]
    factor = cholesky(matrix, "matrix")
    torch.testing.assert_close(log_det(factor), torch.logdet(matrix), rtol=1e-10, atol=0)
    torch.testing.assert_close(solve(factor, vector), torch.linalg.solve(matrix, vector), rtol=1e-10, atol=1e-10)


def test_the_log_determinant_has_exact_first_and_second_derivatives() -> None:
    a = randn((4, 3, 3), like=F64, generator=seed(0)).requires_grad_()

    def of_root(root: torch.Tensor) -> torch.Tensor:
        return log_det_of(root @ root.mT + EYE, "matrix")

    torch.testing.assert_close(of_root(a), torch.logdet(a @ a.mT + EYE), rtol=1e-10, atol=0)
    with seeded(seed(1)):  # they draw directions from the global stream
        assert torch.autograd.gradcheck(of_root, a)
        assert torch.autograd.gradgradcheck(of_root, a)


@given(dim=st.integers(1, 5), number=st.integers(0, 1000))
def test_packing_is_undone_by_unpacking(dim: int, number: int) -> None:
    vector = randn((2, dim * (dim + 1) // 2), like=F64, generator=seed(number))
    factor = unpack_tril(vector, dim)
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert torch.equal(factor, factor.tril())
    torch.testing.assert_close(pack_tril(factor), vector)


@pytest.mark.parametrize("concentration", [0.003, 0.5, 7.0])
def test_log_gamma_follows_its_law(concentration: float) -> None:
    draws = log_gamma((20_000,), F64 + concentration, generator=seed(0))
    assert draws.isfinite().all()
    assert scipy.stats.kstest(draws.numpy(), scipy.stats.loggamma(concentration).cdf).pvalue > 1e-6


def test_gamma_follows_its_law() -> None:
    draws = gamma((20_000,), F64 + 2.5, generator=seed(0))
    assert scipy.stats.kstest(draws.numpy(), scipy.stats.gamma(2.5).cdf).pvalue > 1e-6


def test_wishart_follows_its_law() -> None:
    df, num_draws = 4.5, 20_000
    factor = wishart_tril((num_draws,), F64 + df, 3, generator=seed(0))
    draws = factor @ factor.mT
    # E[W] = df I, and the determinant is a product of independent chi-squared variables
    error = draws.std(0) / num_draws**0.5
    assert ((draws.mean(0) - df * EYE).abs() < 5 * error).all()
    expected = sum(torch.special.digamma(F64 + (df - i) / 2.0) for i in range(3)) + 3 * torch.log(F64 + 2.0)
    logs = log_det(factor)
    assert (logs.mean() - expected).abs() < 5 * logs.std() / num_draws**0.5


def test_categorical_follows_its_probabilities() -> None:
    probs = torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.9, 0.1]], dtype=torch.float64)
    drawn = categorical(20_000, probs.log(), generator=seed(0))
    assert drawn.shape == (20_000, 2)
    share = torch.stack([(drawn == i).double().mean(0) for i in range(3)], -1)
    assert ((share - probs).abs() <= 5 * (probs * (1 - probs) / 20_000).sqrt()).all()


def test_seeded_is_repeatable_and_leaves_the_global_stream() -> None:
    def draw(number: int) -> torch.Tensor:
        with seeded(seed(number)):
            return torch.randn(4)

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_draws_have_the_dtype_of_like() -> None:
    for draw in (rand, randn):
        assert draw((2,), like=torch.zeros(1), generator=seed(0)).dtype == torch.float32
        assert draw((2,), like=F64, generator=seed(0)).dtype == torch.float64
