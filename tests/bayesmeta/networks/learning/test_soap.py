"""SOAP: turned coordinates change nothing, and long valleys are gone down in fewer steps than by Adam."""

import pytest
import torch
from torch import Tensor

from bayesmeta.networks.learning.soap import INTERVAL, Soap
from bayesmeta.random import randn
from tests.families import F64
from tests.seeds import seed

SIDES = (4, 4)  # of one rank, so that gradients have no null space in which a basis is of chance


def drawn(*shape: int, number: int) -> Tensor:
    return randn(shape, like=F64, generator=seed(number))


def path(loss: object, start: Tensor, num: int, **settings: float) -> list[Tensor]:
    """Where steps against the gradient go."""
    value, found = start.clone().requires_grad_(), []
    optimiser = Soap([value], 0.05, **settings)
    for _ in range(num):
        optimiser.zero_grad()
        loss(value).backward()
        optimiser.step()
        found.append(value.detach().clone())
    return found


def test_vectors_take_the_steps_of_adam() -> None:
    start, goal = drawn(4, number=0), drawn(4, number=1)
    value = start.clone().requires_grad_()
    adam = torch.optim.Adam([value], 0.05, betas=(0.95, 0.95), eps=1e-8)
    for there in path(lambda v: (v - goal).pow(4).sum(), start, 20):
        adam.zero_grad()
        (value - goal).pow(4).sum().backward()
        adam.step()
        torch.testing.assert_close(value.detach(), there, rtol=1e-9, atol=1e-12)


def test_it_does_not_matter_in_which_basis_a_matrix_is_written() -> None:
    left, right = (torch.linalg.qr(drawn(side, side, number=2 + i))[0] for i, side in enumerate(SIDES))
    start, goal = drawn(*SIDES, number=4), drawn(*SIDES, number=5)

    def loss(value: Tensor) -> Tensor:
        return (value - goal).square().square().sum() + ((value - goal) @ torch.ones(4, 1).double()).square().sum()

    here = path(loss, start, 2 * INTERVAL + 5)
    there = path(lambda v: loss(left.mT @ v @ right), left @ start @ right.mT, 2 * INTERVAL + 5)
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(left @ a @ right.mT, b, rtol=1e-3, atol=1e-4)


def test_matrices_of_one_shape_do_not_mind_each_other() -> None:
    goals = drawn(3, *SIDES, number=6)
    values = [torch.zeros(SIDES, dtype=torch.float64).requires_grad_() for _ in goals]
    optimiser = Soap(values, 0.05)
    for _ in range(15):
        optimiser.zero_grad()
        sum((v - g).square().sum() for v, g in zip(values, goals, strict=True)).backward()
        optimiser.step()
    for value, goal in zip(values, goals, strict=True):
        alone = path(lambda v, goal=goal: (v - goal).square().sum(), torch.zeros_like(goal), 15)[-1]
        torch.testing.assert_close(value.detach(), alone, rtol=1e-9, atol=1e-12)


def test_a_turned_valley_takes_fewer_steps_than_by_adam() -> None:
    """Long and narrow, across all entries: Adam knows a rate for each entry, SOAP one for each direction."""
    left, right = (torch.linalg.qr(drawn(side, side, number=7 + i))[0] for i, side in enumerate((8, 6)))
    steep = torch.logspace(-2, 2, 8, dtype=torch.float64)[:, None] * torch.logspace(-1, 1, 6, dtype=torch.float64)

    def loss(value: Tensor) -> Tensor:
        return (steep * (left @ value @ right).square()).sum()

    start, ends = drawn(8, 6, number=9), {}
    for kind in (Soap, torch.optim.Adam):
        value = start.clone().requires_grad_()
        optimiser = kind([value], 0.02, betas=(0.95, 0.95))
        for _ in range(300):
            optimiser.zero_grad()
            loss(value).backward()
            optimiser.step()
        ends[kind] = float(loss(value).detach())
    assert ends[Soap] < 0.5 * ends[torch.optim.Adam]


@pytest.mark.parametrize("shape", [(300, 4), (4, 300), (300, 300)])
def test_long_sides_keep_their_basis(shape: tuple[int, int]) -> None:
    ends = path(lambda v: v.square().sum(), torch.ones(shape), 12)
    assert ends[-1].abs().max() < 1.0


def test_no_step_is_long_after_a_basis_is_turned() -> None:
    """Squares belong to the old basis: a mean gradient in a new direction must not be divided by next to nothing."""
    rate, size = 0.1, 6
    value = torch.zeros(size, size, dtype=torch.float64, requires_grad=True)
    optimiser = Soap([value], rate)
    first, then = drawn(size, number=11), drawn(size, number=12)
    then = then - (then @ first) / (first @ first) * first + 1e-3 * first  # next to nothing of it is in the old basis
    for step in range(3 * INTERVAL):
        before = value.detach().clone()
        direction = first if step == 0 else then
        value.grad = torch.outer(direction, direction)
        optimiser.step()
        longest = rate * size  # each entry moves by the rate at most, in whichever basis
        assert float((value.detach() - before).norm()) <= longest * (1.0 + 1e-9), step
