"""Rows of arms and of linear functions: the same rows say the same either way."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from bayesmeta import Data
from bayesmeta.diffusion.sampling.observations import ArmRows, Functionals
from bayesmeta.diffusion.sampling.twists import Twist
from bayesmeta.random import randn
from bayesmeta.regression.arms_by_number import arm_statistics
from tests.families import F64, seed

SIZE = 4


def root() -> torch.Tensor:
    return torch.eye(SIZE).double() + 0.3 * randn((SIZE, SIZE), like=F64, generator=seed(1))


@pytest.mark.parametrize("num_rows", [1, 3, 9])
def test_rows_of_arms_are_functionals_of_one_value_each(num_rows: int) -> None:
    loc, noise_var = randn((SIZE,), like=F64, generator=seed(2)), F64 + 0.2
    arm = torch.randint(SIZE, (2, num_rows), generator=seed(3))
    y = randn((2, num_rows), like=F64, generator=seed(4))
    mask = torch.ones(2, num_rows, dtype=torch.bool)
    mask[1, num_rows // 2 :] = False
    one_hot, cov = torch.nn.functional.one_hot(arm, SIZE).double(), root() @ root().mT
    by_arm = ArmRows.of_statistics(arm_statistics(Data(arm[..., None].double(), y, mask), SIZE), loc, noise_var)
    by_function = Functionals.of_rows(one_hot, y, mask, loc, noise_var)
    mean = randn((2, 5, SIZE), like=F64, generator=seed(5))
    found = [Twist(rows, cov) for rows in (by_arm, by_function)]
    densities = [twist.log_prob(mean) + twist.rows.log_unit[:, None] for twist in found]
    torch.testing.assert_close(*densities, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(*(twist.given(mean) for twist in found), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(*(twist.cov_given() for twist in found), rtol=1e-9, atol=1e-9)
    task, real = 1, int(mask[1].sum())
    matrix = one_hot[task, :real]
    total = matrix @ cov @ matrix.mT + noise_var * torch.eye(real).double()
    if real:
        exact = MultivariateNormal(matrix @ (loc + mean[task, 0]), total).log_prob(y[task, :real])
        torch.testing.assert_close(densities[0][task, 0], exact, rtol=1e-9, atol=1e-9)


def test_noise_turns_with_the_rows_whatever_their_order_and_pads() -> None:
    noise, loc = randn((1, 6, SIZE), like=F64, generator=seed(6)), torch.zeros(SIZE).double()
    x, y = randn((2, 3, SIZE), like=F64, generator=seed(7)), randn((2, 3), like=F64, generator=seed(8))
    x[1, :, 0] = 0.0  # as of a column that no row has
    mask = torch.tensor([[True, True, True], [False, True, True]])
    both = Functionals.of_rows(x, y, mask, loc, F64 + 0.2)
    found, eye = both.among(noise), torch.eye(SIZE).double()[None]
    torch.testing.assert_close(both.among(eye)[0].mT @ both.among(eye)[0], torch.eye(3).double())
    alone = Functionals.of_rows(x[1:, 1:], y[1:, 1:], mask[1:, 1:], loc, F64 + 0.2)
    torch.testing.assert_close(found[1, :, 1:], alone.among(noise)[0])
    assert found[1, :, 0].abs().max() < 1e-12
    order = torch.tensor([2, 0, 1])
    other = Functionals.of_rows(x[:, order], y[:, order], mask[:, order], loc, F64 + 0.2)
    torch.testing.assert_close(other.among(noise), found[..., order])
