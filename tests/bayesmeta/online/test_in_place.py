"""Posteriors that are updated in place are those of `condition`, for every family, and nothing else is touched."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from bayesmeta import BetaBernoulli, CorrelatedArms, Data, LinearGaussian
from bayesmeta.online.kept_rows import OnlineRows
from bayesmeta.online.process import OnlineProcess
from bayesmeta.online.protocol import Online
from bayesmeta.online.start import online
from bayesmeta.online.weights import BLOCK, FEW_TURNS, OnlineArmWeights, OnlineWeights
from bayesmeta.protocol import Marginal, Posterior
from bayesmeta.random import randn
from tests.families import F64, FAMILIES, Family, seed

# what a policy can use: numbers as rewards, and draws; not the one whose rows need something that a row lacks
USABLE = {
    name: family
    for name, family in FAMILIES.items()
    if isinstance(family.prior, Posterior) and not family.prior.event_shape and name != "normal_known_variances"
}
KEEPS_ROWS = {name for name, family in USABLE.items() if isinstance(online(family.prior, (1,)), OnlineRows)}
OF_ALL_ARMS = {"correlated_arms", "diffusion", "diffusion_on_a_grid"}  # which are about all arms of a task
ARM_NAMES = sorted(set(USABLE) - OF_ALL_ARMS)
MARGINAL = [name for name in sorted(USABLE) if isinstance(USABLE[name].prior, Marginal)]
IN_LAW = {
    "diffusion",
    "diffusion_on_a_grid",
    "diffusion_linear",
    "diffusion_logistic",
    "diffusion_poisson",
}  # its particles in place are other ones than those of the posterior


def entries(shape: tuple[int, ...], num: int, number: int) -> tuple[Tensor, ...]:
    generator = seed(number)
    return tuple(torch.randint(size, (num,), generator=generator) for size in shape)


def filled(name: str, shape: tuple[int, ...], num: int = 30) -> tuple[Online, tuple[Tensor, ...], Data]:
    """Rows of random entries, added one by one, then some together, in which entries repeat."""
    family = USABLE[name]
    state, index, rows = online(family.prior, shape), entries(shape, num, 1), family.rows(num, 2)
    for i in range(num // 2):
        state.add(tuple(part[i : i + 1] for part in index), rows.x[i : i + 1], rows.y[i : i + 1])
    rest = slice(num // 2, None)
    state.add(tuple(part[rest] for part in index), rows.x[rest], rows.y[rest])
    return state, index, rows


def conditioned(family: Family, shape: tuple[int, ...], index: tuple[Tensor, ...], rows: Data) -> Any:
    """The same by `condition` of all rows of each entry."""
    flat = torch.zeros(len(rows.y), dtype=torch.long)
    for part, size in zip(index, shape, strict=True):
        flat = flat * size + part
    every = [flat == entry for entry in range(torch.Size(shape).numel())]
    padded = Data.pad([(rows.x[here], rows.y[here]) for here in every])
    n = padded.mask.shape[-1]
    data = Data(padded.x.reshape(*shape, n, -1), padded.y.reshape(*shape, n), padded.mask.reshape(*shape, n))
    return family.prior.condition(data)


@pytest.mark.parametrize("name", sorted(USABLE))
def test_rows_added_in_place_are_those_conditioned_on(name: str) -> None:
    family, shape = USABLE[name], (4,)
    state, index, rows = filled(name, shape)
    expected = conditioned(family, shape, index, rows)
    x = family.draw_x(5, seed(3)).expand(4, -1, -1)
    for posterior in (state.posterior(), state.posterior(torch.arange(4))):
        torch.testing.assert_close(posterior.predict(x).mean, expected.predict(x).mean, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(posterior.predict(x).variance, expected.predict(x).variance, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ARM_NAMES)
def test_arms_of_tasks_have_posteriors_of_their_own(name: str) -> None:
    family, shape = USABLE[name], (3, 2)
    state, index, rows = filled(name, shape)
    expected = conditioned(family, shape, index, rows)
    x = family.draw_x(1, seed(3)).expand(3, 2, -1, -1)
    posterior = state.posterior(...)
    torch.testing.assert_close(posterior.predict(x).mean, expected.predict(x).mean, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(posterior.predict(x).variance, expected.predict(x).variance, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", sorted(set(MARGINAL) - IN_LAW))
@pytest.mark.parametrize("of_arms", [False, True])
def test_marginals_are_those_of_the_posterior_however_tasks_are_named(name: str, of_arms: bool) -> None:
    if of_arms and name not in ARM_NAMES:
        return
    family, shape = USABLE[name], (3, 2) if of_arms else (3,)
    state = filled(name, shape)[0]
    q = 1 if of_arms else 4
    x = torch.stack([family.draw_x(q, seed(i)) for i in range(3)])
    x = x[:, None] if of_arms else x
    expected = state.posterior().marginal(x)
    close = {"rtol": 1e-8, "atol": 1e-10}
    for task in (None, torch.arange(3)):
        torch.testing.assert_close(state.marginal(x, task).mean, expected.mean, **close)
        torch.testing.assert_close(state.marginal(x, task).variance, expected.variance, **close)
    for task in range(3):
        torch.testing.assert_close(state.marginal(x, task).mean[task], expected.mean[task], **close)
    swapped = torch.tensor([2, 0])
    torch.testing.assert_close(state.marginal(x[swapped], swapped).variance, expected.variance[swapped], **close)


@pytest.mark.parametrize("name", sorted(set(MARGINAL) - {"mixture", "nested_mixture"}))
@pytest.mark.parametrize("of_arms", [False, True])
def test_draws_have_the_moments_of_the_marginals(name: str, of_arms: bool) -> None:
    if of_arms and name not in ARM_NAMES:
        return
    family, num = USABLE[name], 200 if name in KEEPS_ROWS else 4000
    if name in {"attentive_neural_process", "latent_neural_process"}:
        return  # their marginals are of a few fixed draws
    state = filled(name, (3, 2) if of_arms else (3,), 12)[0]
    x = family.draw_x(1, seed(0)) if of_arms else family.draw_x(3, seed(0))
    if "draws_follow_the_marginal" in family.exempt:
        x = x[:1]  # later rows of a chain follow them as far as the network has learned
    x = x.expand(num, 1, -1, -1) if of_arms else x.expand(num, -1, -1)
    draws, expected = state.draw(x, 1, generator=seed(4)), state.marginal(x[:1], 1)
    error = 5 * draws.std(0) / num**0.5
    assert (draws.mean(0) - expected.mean[0]).abs().le(error).all()
    squares = (draws - expected.mean[0]).square()
    spread = torch.maximum(squares.std(0), spread_of_squares(expected.mean[0], expected.variance[0], draws))
    assert (squares.mean(0) - expected.variance[0]).abs().le(5 * spread / num**0.5).all()
    by_name = state.draw(x, torch.ones(num, dtype=torch.long), generator=seed(5))
    assert (by_name.mean(0) - expected.mean[0]).abs().le(error).all()


def spread_of_squares(mean: Tensor, var: Tensor, draws: Tensor) -> Tensor:
    """Standard deviation of squares, which few draws of a rate underrate.

    Draws are taken for log-normal where all are positive, and for normal elsewhere.
    """
    ratio = 1.0 + torch.where((draws > 0).all(0), var / mean.square(), 0.0)
    kurtosis = ratio**4 + 2 * ratio**3 + 3 * ratio**2 - 3
    return var * (kurtosis - 1).sqrt()


@pytest.mark.parametrize("name", ["linear_gaussian", "correlated_arms", "gaussian_process"])
def test_a_draw_is_one_function_at_all_rows(name: str) -> None:
    """Covariance between rows is that of the joint: marginal draws would have none."""
    family, num = USABLE[name], 400 if name in KEEPS_ROWS else 20_000
    state = filled(name, (2,), 8)[0]
    x = family.draw_x(3, seed(1))
    draws = state.draw(x.expand(num, -1, -1), 0, generator=seed(2))
    expected = state.posterior(torch.tensor([0])).joint(x[None]).covariance_matrix[0]
    centred = draws - draws.mean(0)
    products = centred[:, :, None] * centred[:, None, :]
    assert (products.mean(0) - expected).abs().le(5 * products.std(0) / num**0.5 + 1e-9).all()


@pytest.mark.parametrize("name", sorted(USABLE))
def test_a_copy_does_not_change(name: str) -> None:
    family = USABLE[name]
    state = filled(name, (2,))[0]
    x = family.draw_x(3, seed(1)).expand(2, -1, -1)
    copied = state.posterior()
    before = copied.predict(x).mean.clone()
    rows = family.rows(2, 7)
    state.add((torch.tensor([0, 1]),), rows.x, rows.y)
    assert torch.equal(copied.predict(x).mean, before)
    assert not torch.allclose(state.posterior().predict(x).mean, before)


@pytest.mark.parametrize("name", sorted(USABLE))
def test_state_is_restored_to_the_last_bit(name: str) -> None:
    family = USABLE[name]
    state = filled(name, (3,))[0]
    other = online(family.prior, (3,))
    other.load_state_dict(copy.deepcopy(state.state_dict()))
    rows, x = family.rows(3, 8), family.draw_x(2, seed(1)).expand(3, -1, -1)
    for one in (state, other):
        one.add((torch.arange(3),), rows.x, rows.y)
    assert torch.equal(state.draw(x, generator=seed(1)), other.draw(x, generator=seed(1)))


def test_a_row_that_the_family_cannot_have_changes_nothing() -> None:
    state = online(BetaBernoulli(F64 + 1, F64 + 1), (2, 3))
    state.add((torch.tensor([0]), torch.tensor([1])), torch.zeros(1, 0), torch.ones(1))
    before = copy.deepcopy(state.state_dict())
    with pytest.raises(ValueError, match="y must be 0 or 1"):
        state.add((torch.tensor([0, 1]), torch.tensor([1, 1])), torch.zeros(2, 0), torch.tensor([1.0, 3.5]))
    after = state.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def float32_prior(d: int) -> LinearGaussian:
    return LinearGaussian(torch.zeros(d), torch.eye(d), torch.tensor(0.5))


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_rounding_of_many_steps_does_not_add_up(shape: tuple[int, ...]) -> None:
    d, num = 5, 20_000
    state = online(float32_prior(d), shape)
    assert isinstance(state, OnlineWeights | OnlineArmWeights)
    index = tuple(torch.zeros(1, dtype=torch.long) for _ in shape)
    x = randn((num, d), like=torch.zeros(()), generator=seed(1))
    y = x @ torch.arange(5.0) + randn((num,), like=x, generator=seed(2))
    for i in range(num):
        state.add(index, x[i : i + 1], y[i : i + 1])
    exact = float32_prior(d).to(torch.float64).condition(Data.of(x.double(), y.double()))
    at = x[:50].reshape(50, *(1 for _ in shape), d)
    got = state.marginal(at, 0)
    expected = exact.marginal(x[:50].double())
    first = (slice(None), *(0 for _ in shape))
    torch.testing.assert_close(got.mean[first], expected.mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(got.stddev[first], expected.stddev, rtol=1e-10, atol=0)


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
@pytest.mark.parametrize("num", [1, FEW_TURNS, FEW_TURNS + 1, BLOCK + 3])
def test_rows_of_one_entry_may_come_together(shape: tuple[int, ...], num: int) -> None:
    """One after the other, in blocks, and with as many of another entry between them as there happen to be."""
    state, other = online(float32_prior(3), shape), online(float32_prior(3), shape)
    index = entries(shape, num, 1)
    x, y = randn((num, 3), like=F64, generator=seed(2)), randn((num,), like=F64, generator=seed(3))
    state.add(index, x, y)
    for i in range(num):
        other.add(tuple(part[i : i + 1] for part in index), x[i : i + 1], y[i : i + 1])
    at = randn((2, *(1 for _ in shape), 3), like=F64, generator=seed(4))
    torch.testing.assert_close(state.marginal(at).mean, other.marginal(at).mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state.marginal(at).stddev, other.marginal(at).stddev, rtol=1e-10, atol=0)


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_rows_that_overflow_change_nothing(shape: tuple[int, ...]) -> None:
    state = online(float32_prior(2), shape)
    one, two = (tuple(torch.arange(num) for _ in shape) for num in (1, 2))
    state.add(two, torch.ones(2, 2), torch.ones(2))
    before = copy.deepcopy(state.state_dict())
    for index, x, y in (
        (one, torch.full((1, 2), 1e200, dtype=torch.float64), torch.ones(1)),
        (two, torch.full((2, 2), 1e200, dtype=torch.float64), torch.ones(2)),
    ):
        with pytest.raises(ValueError, match="rows are so large that what they say overflows"):
            state.add(index, x, y)
    after = state.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in ("loc", "root"))
    assert torch.equal(after["statistics"]["count"], before["statistics"]["count"])


def test_forgetting_everything_is_the_prior() -> None:
    for shape in ((2,), (2, 3)):
        prior = LinearGaussian(torch.ones(2), 2 * torch.eye(2), torch.tensor(0.5))
        state = online(prior, shape)
        assert isinstance(state, OnlineWeights | OnlineArmWeights)
        state.add(tuple(torch.zeros(1, dtype=torch.long) for _ in shape), torch.ones(1, 2), torch.ones(1))
        state.discount(0.0)
        x = torch.ones(2, *(1 for _ in shape[1:]), 1, 2)
        fresh = online(prior, shape).marginal(x)
        torch.testing.assert_close(state.marginal(x).mean, fresh.mean)
        torch.testing.assert_close(state.marginal(x).stddev, fresh.stddev)


def test_priors_may_differ_between_arms() -> None:
    prior = BetaBernoulli(torch.tensor([1.0, 9.0]), torch.tensor([9.0, 1.0]))
    state = online(prior, (3, 2))
    x = torch.zeros(3, 1, 1, 0)
    torch.testing.assert_close(state.marginal(x).mean[..., 0].float(), torch.tensor([0.1, 0.9]).expand(3, 2))


def test_a_batch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_shape \(2,\) does not broadcast to \(3, 4\)"):
        online(BetaBernoulli(torch.ones(2), torch.ones(2)), (3, 4))
    correlated = CorrelatedArms(torch.zeros(3), torch.eye(3), torch.tensor(1.0))
    assert isinstance(online(correlated, (4,)), OnlineWeights)


@pytest.mark.parametrize("name", ["gaussian_process", "deep_kernel"])
def test_a_process_that_is_extended_is_that_of_all_rows(name: str) -> None:
    """Row by row, whether a decision comes in between or not, and after it was saved."""
    family = USABLE[name]
    state, other = online(family.prior, (2,)), online(family.prior, (2,))
    assert isinstance(state, OnlineProcess)
    rows, task = family.rows(9, number=1), torch.tensor([0, 1, 0, 0, 1, 0, 1, 0, 0])
    x = family.draw_x(4, seed(2))[None]
    for i in range(9):
        state.add((task[i : i + 1],), rows.x[i : i + 1], rows.y[i : i + 1])
        state.marginal(x, int(task[i]))
    other.add((task,), rows.x, rows.y)
    for number in range(2):
        exact = family.prior.condition(Data.of(rows.x[task == number], rows.y[task == number])).marginal(x[0])
        for each in (state, other):
            torch.testing.assert_close(each.marginal(x, number).mean[0], exact.mean)
            torch.testing.assert_close(each.marginal(x, number).stddev[0], exact.stddev)
        assert torch.equal(*(each.draw(x, number, generator=seed(3)) for each in (state, other)))
        alike = state.draw(x.expand(500, -1, -1), number, generator=seed(3))
        error = exact.stddev / 500**0.5
        assert ((alike.mean(0) - exact.mean).abs() < 6 * error).all()
        several = state.marginal(torch.cat([x, x.flip(-2)]), number)
        torch.testing.assert_close(several.mean, torch.stack([exact.mean, exact.mean.flip(0)]))
    fresh = online(family.prior, (2,))
    fresh.load_state_dict(copy.deepcopy(state.state_dict()))
    assert torch.equal(*(each.draw(x, 0, generator=seed(4)) for each in (state, fresh)))
