"""Contexts that lie far from zero, or are multiples of each other: states in place against arithmetic of 80 digits."""

from typing import Any

import mpmath
import pytest
import torch
from torch import Generator, Tensor

import bandits
from bayesmeta import LinearGaussian, LinearNormalInverseGamma
from bayesmeta.online.start import online
from bayesmeta.random import randn
from tests.families import F64, seed
from tests.seeds import shifted

DIGITS = 80
ONE = torch.ones(())
KNOWN = LinearGaussian(torch.zeros(2), torch.eye(2), ONE)  # in float32, as torch makes it
UNKNOWN = LinearNormalInverseGamma(torch.zeros(2), torch.eye(2), 2.0 * ONE, ONE)


def seconds(i: int, generator: Generator) -> list[float]:
    """A one, and the time since 1970."""
    return [1.0, 1.7e9 + 3600.0 * i]


def twice(i: int, generator: Generator) -> list[float]:
    """A number and its double."""
    x = 1e6 + 1e3 * randn((), like=F64, generator=generator).item()
    return [x, 2.0 * x]


def small_and_large(i: int, generator: Generator) -> list[float]:
    a, b = randn((2,), like=F64, generator=generator).tolist()
    return [1e-5 * a, 1e6 * b]


def exact(x: list[list[float]], y: list[float], at: list[float]) -> tuple[float, float]:
    """Mean and standard deviation of f at a row, under `KNOWN`."""
    with mpmath.workdps(DIGITS):
        precision, moment = mpmath.eye(2), mpmath.matrix(2, 1)
        for row, value in zip(x, y, strict=True):
            column = mpmath.matrix(row)
            precision += column * column.T
            moment += column * value
        new = mpmath.matrix(at)
        mean, var = new.T * mpmath.lu_solve(precision, moment), new.T * mpmath.lu_solve(precision, new)
        return float(mean[0]), float(mpmath.sqrt(var[0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [seconds, twice, small_and_large])
@pytest.mark.parametrize(("arms", "prior"), [("own", KNOWN), ("shared", KNOWN), ("own", UNKNOWN)])
def test_what_is_expected_is_right(arms: str, prior: Any, make: Any, dtype: torch.dtype) -> None:
    names = ("a", "b")
    some = bandits.Crossed(names, torch.ones(2, 1)) if arms == "shared" else names
    policy = bandits.ThompsonSampling(prior, some, seed=shifted(0), propensities=False)
    generator = seed(1)
    rows: dict[str, list[list[float]]] = {name: [] for name in names}
    rewards: dict[str, list[float]] = {name: [] for name in names}

    def context(i: int) -> Tensor:
        return torch.tensor(make(i, generator), dtype=dtype)

    for i in range(200):
        x = context(i)
        choice = policy.choose(x)
        reward = float(choice.arm == "a") + randn((), like=F64, generator=generator).item()
        policy.update(choice, reward)
        for name in names if arms == "shared" else (choice.arm,):
            rows[name].append(x.double().tolist())
            rewards[name].append(reward)
    new = context(200)
    got = policy.expected_rewards(new)[0].double().tolist()
    sd = policy._prospects(policy._learner.request(new, 0, None, None)).marginal().stddev.flatten().tolist()
    for i, name in enumerate(names):
        mean, deviation = exact(rows[name], rewards[name], new.double().tolist())
        assert got[i] == pytest.approx(mean, abs=1e-4 * deviation)
        if prior is KNOWN:
            assert sd[i] == pytest.approx(deviation, rel=1e-5)


def test_what_is_no_number_is_refused() -> None:
    policy = bandits.ThompsonSampling(KNOWN, ["a", "b"], seed=shifted(0), propensities=False)
    for bad in ([1.0, float("nan")], [float("inf"), 1.0]):
        with pytest.raises(ValueError, match="contexts must be finite"):
            policy.choose(bad)
    choice = policy.choose([1.0, 1e200])
    with pytest.raises(ValueError, match="rows are so large that what they say overflows"):
        policy.update(choice, 1.0)
    policy.update(policy.choose([1.0, 2.0]), 1.0)
    assert int(policy.pulls.sum()) == 1


@pytest.mark.parametrize("shape", [(1,), (1, 1)])
def test_tens_of_thousands_of_rows_one_by_one(shape: tuple[int, ...]) -> None:
    """A minute each, since 1970: sums of whole numbers are exact, and so is what 80 digits make of them."""
    n, state = 30_000, online(KNOWN, shape)
    index = tuple(torch.zeros(1, dtype=torch.long) for _ in shape)
    times = [1_700_000_000 + 60 * i for i in range(n + 1)]
    x = torch.tensor([[1.0, time] for time in times], dtype=torch.float64)
    # in 2^-40, so that they are whole numbers too
    rewards = (2**40 * (randn((n,), like=F64, generator=seed(0)) + 0.3)).round().long().tolist()
    for i, reward in enumerate(rewards):
        state.add(index, x[i : i + 1], torch.tensor([reward / 2**40], dtype=torch.float64))
    with mpmath.workdps(DIGITS):
        seen = times[:n]
        precision = mpmath.matrix([[1 + n, sum(seen)], [sum(seen), 1 + sum(time * time for time in seen)]])
        total = [sum(rewards), sum(time * reward for time, reward in zip(seen, rewards, strict=True))]
        at = mpmath.matrix([1, times[n]])
        mean = (at.T * mpmath.lu_solve(precision, mpmath.matrix([mpmath.mpf(each) / 2**40 for each in total])))[0]
        sd = mpmath.sqrt((at.T * mpmath.lu_solve(precision, at))[0])
        found = state.marginal(x[n].reshape(1, *[1] * len(shape), 2), 0)
        assert abs(mpmath.mpf(found.mean.item()) - mean) < 1e-7 * sd
        assert float(found.stddev.item() / sd) == pytest.approx(1.0, abs=1e-7)
