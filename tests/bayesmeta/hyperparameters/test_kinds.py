"""Tasks that come in kinds: how many, which, and the evidence that says so."""

import math
import warnings

import pytest
import torch
from scipy import integrate, stats

import bayesmeta as bm
from bayesmeta import Data
from bayesmeta.hyperparameters.kinds import (
    StartsDisagreeWarning,
    _log_density,
    _log_evidence,
    _warn_if_starts_disagree,
    fit_kinds,
)
from bayesmeta.random import rand, randn, seeded
from tests.families import F64, seed


def normal_kinds(means: list[float], num_tasks: int, number: int = 1) -> tuple[Data, torch.Tensor]:
    kind = torch.arange(num_tasks) % len(means)
    centre = torch.tensor(means, dtype=torch.float64)[kind] + 0.5 * randn(
        (num_tasks,), like=F64, generator=seed(number)
    )
    rows = centre[:, None] + randn((num_tasks, 10), like=F64, generator=seed(number + 1))
    return Data.of(None, rows), kind


@pytest.mark.parametrize("means", [[0.0, 9.0], [0.0, 9.0, -10.0]])
def test_evidence_finds_the_number_of_kinds(means: list[float]) -> None:
    tasks, kind = normal_kinds(means, 60)
    found = fit_kinds(bm.NormalInverseGamma.initial(tasks), tasks, generator=seed(0))
    assert found.num_kinds == len(means)
    assert found.learned_from.tasks == 60
    learned = found.prior.components.loc.sort().values
    shown = torch.stack([tasks.y[kind == each].mean() for each in range(len(means))]).sort().values
    assert (learned - shown).abs().max() < 0.2
    # every pair of tasks is together if and only if it is of one kind
    label = found.responsibilities.argmax(-1)
    assert torch.equal(label[:, None] == label, kind[:, None] == kind)


def test_tasks_of_one_kind_are_rarely_taken_for_two() -> None:
    """Under the truth a Bayes factor passes k once in k data sets at most."""
    found = []
    for number in range(8):
        tasks, _ = normal_kinds([0.0], 60, 100 + 2 * number)
        kinds = fit_kinds(bm.NormalInverseGamma.initial(tasks), tasks, max_kinds=2, generator=seed(0))
        assert max(kinds.log_evidence.values()) - kinds.log_evidence[1] < 14.0
        found.append(kinds.num_kinds)
    assert found.count(1) >= 2, found


def numbers(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


EYE = torch.eye(2, dtype=torch.float64)
# priors of kinds that are apart, rows of a task, columns of x (the last of ones)
APART = {
    "rates": (bm.BetaBernoulli(numbers(10.0, 80.0), numbers(90.0, 20.0)), 30, 0),
    "three rates": (bm.BetaBernoulli(numbers(5.0, 50.0, 95.0), numbers(95.0, 50.0, 5.0)), 60, 0),
    "means": (bm.NormalInverseGamma(numbers(0, 5, -6), numbers(4, 4, 4), numbers(5, 5, 5), numbers(5, 5, 5)), 10, 0),
    "variances": (bm.NormalInverseGamma(numbers(0, 0), numbers(4, 4), numbers(8, 8), numbers(8, 200)), 10, 0),
    "counts": (bm.GammaPoisson(numbers(40, 40), numbers(20, 2)), 8, 0),
    "slopes": (bm.LinearGaussian(numbers([2, 0], [-2, 1]), 10.0 * torch.stack([EYE, EYE]), numbers(0.3, 0.3)), 10, 2),
    "correlations": (
        bm.NormalInverseWishart(
            numbers([0, 0], [0, 0]),
            numbers(4, 4),
            numbers(20, 20),
            20.0 * torch.stack([0.9 + 0.1 * EYE, 1.9 * EYE - 0.9]),
        ),
        12,
        0,
    ),
}
ONE = {
    "rates": (bm.BetaBernoulli(numbers(0.5), numbers(0.6)), 30, 0),
    "means": (bm.NormalInverseGamma(numbers(0.0), numbers(0.5), numbers(3.0), numbers(3.0)), 10, 0),
    "counts": (bm.GammaPoisson(numbers(2.0), numbers(1.0)), 8, 0),
}


def kinds_of(prior: bm.BetaBernoulli, num_rows: int, d: int, number: int, num_tasks: int = 60) -> tuple[Data, ...]:
    """Tasks of kinds with equal shares, and the kind of each."""
    generator = seed(number)
    num_kinds, nothing = prior.batch_shape[0], torch.ones(num_tasks, 1, 0).bool()
    x = 2.0 * rand((num_tasks, 1, num_rows, d), like=F64, generator=generator) - 1.0
    x[..., d - 1 :] = 1.0
    empty = Data(x[:, :, :0], F64.new_zeros(num_tasks, 1, 0, *prior.event_shape), nothing)
    functions = prior.condition(empty).sample(1, generator=generator)
    kind = (num_kinds * rand((num_tasks,), like=F64, generator=generator)).long()
    with seeded(generator):
        y = functions.predict(x).sample()[0][torch.arange(num_tasks), kind]
    return Data.of(x[:, 0] if d else None, y, event_dim=len(prior.event_shape)), kind


@pytest.mark.parametrize("case", APART)
def test_kinds_that_are_apart_are_found(case: str) -> None:
    """Never fewer; a kind more than there are is found by chance in a few of a hundred."""
    prior, num_rows, d = APART[case]
    num_kinds, repeats, right = prior.batch_shape[0], 12 if case == "rates" else 2, 0
    for number in range(repeats):
        tasks, kind = kinds_of(prior, num_rows, d, 100 + number, 40 if case == "rates" else 60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StartsDisagreeWarning)  # one start is enough
            start = type(prior).initial(tasks)
            found = fit_kinds(start, tasks, max_kinds=num_kinds + 1, generator=seed(number))
        assert found.num_kinds >= num_kinds
        if found.num_kinds > num_kinds:
            continue
        right += 1
        assert len(found.starts[num_kinds]) > num_kinds
        assert max(found.starts[num_kinds]) == found.log_evidence[num_kinds]
        label = found.responsibilities.argmax(-1)
        together = (label[:, None] == label) == (kind[:, None] == kind)
        assert together.double().mean() > 0.85
        count = kind.bincount(minlength=num_kinds).sort(descending=True).values
        expected = (count + 1.0).double() / (count + 1.0).sum()  # the shares' hyperprior is one task of each
        torch.testing.assert_close(found.prior.weights, expected, rtol=0.0, atol=0.12)
    assert stats.binom.sf(repeats - right - 1, repeats, 0.05) > 1e-6


@pytest.mark.parametrize("case", ONE)
def test_one_kind_is_found_where_there_is_one(case: str) -> None:
    repeats, right = 8, 0
    for number in range(repeats):
        tasks, _ = kinds_of(*ONE[case], 200 + number, 40)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StartsDisagreeWarning)  # where more are found by chance
            found = fit_kinds(type(ONE[case][0]).initial(tasks), tasks, max_kinds=3, generator=seed(number))
        right += found.num_kinds == 1
        assert {1, 2, 3} <= found.log_evidence.keys(), "of three kinds on a line, two may say less than one"
    assert stats.binom.sf(repeats - right - 1, repeats, 0.05) > 1e-6


def test_evidence_counts_kinds_that_coincide_once() -> None:
    """Twice the same kind explains what one does: in place of 2! hills there is one, whose shares say nothing."""
    tasks, _ = kinds_of(bm.BetaBernoulli(numbers(60.0), numbers(90.0)), 60, 0, 5, 100)
    unknown = bm.BetaBernoulli.initial(tasks).hyperparameters(tasks)
    single = fit_kinds(bm.BetaBernoulli.initial(tasks), tasks, num_kinds=1)
    twice = _vector(unknown, single).expand(2, -1)
    halves = numbers(0.5, 0.5).log()
    apart = _log_evidence(unknown, twice + numbers([0.3, 0.0], [-0.3, 0.0]), halves)
    near = _log_evidence(unknown, twice + numbers([1e-6, 0.0], [-1e-6, 0.0]), halves)
    assert near == pytest.approx(_log_evidence(unknown, twice, halves), abs=1e-3)
    assert apart < near < single.log_evidence[1] + math.log(2.0)


def test_starts_that_disagree_are_told() -> None:
    with pytest.warns(StartsDisagreeWarning, match=r"1 of 6 starts .* log evidence: -3\.0, -9\.0"):
        _warn_if_starts_disagree([-9.0, -3.0, -9.0, -9.0, -9.0, -9.0])
    _warn_if_starts_disagree([-9.0, -3.0, -3.5, -9.0, -9.0, -9.0])


def test_kinds_of_rates() -> None:
    often = (rand((100, 1), like=F64, generator=seed(3)) < 0.3).double()
    tasks = Data.of(None, (rand((100, 20), like=F64, generator=seed(4)) < 0.1 + 0.6 * often).double())
    found = fit_kinds(bm.BetaBernoulli.initial(tasks), tasks, generator=seed(0))
    assert found.num_kinds == 2
    # a few of a hundred tasks more or less are often of a kind, and their rows too have rates of their own
    share, kinds = often.mean().item(), (often < 0.5, often > 0.5)
    shown = [tasks.y[kind[:, 0]].mean().item() for kind in kinds]
    assert found.prior.components.predict().mean.squeeze(-1).tolist() == pytest.approx(shown, abs=0.04)  # sd 0.004
    assert found.prior.weights.tolist() == pytest.approx([1.0 - share, share], abs=0.04)  # one task is 0.01
    torch.testing.assert_close(found.responsibilities.sum(-1), torch.ones(100, dtype=torch.float64))


def test_one_kind_less_explains_less_and_other_shares_fit_worse() -> None:
    tasks, _ = normal_kinds([0.0, 6.0], 30)
    prior = bm.NormalInverseGamma.initial(tasks)
    found = fit_kinds(prior, tasks, num_kinds=2, generator=seed(0)).prior
    assert found.log_evidence(tasks).sum() > prior.fit(tasks).log_evidence(tasks).sum() + 5.0

    def penalised(mixture: bm.Mixture) -> torch.Tensor:
        return mixture.log_evidence(tasks).sum() + mixture.log_weights.sum()

    for factor in (0.98, 1.02):
        shares = found.weights * torch.tensor([factor, 1.0])
        assert penalised(bm.Mixture(found.components, shares.log().log_softmax(-1))) < penalised(found)


def test_evidence_of_one_kind_agrees_with_quadrature() -> None:
    tasks = Data.of(None, (rand((30, 20), like=F64, generator=seed(5)) < 0.3).double())
    prior = bm.BetaBernoulli.initial(tasks)
    unknown = prior.hyperparameters(tasks)
    found = fit_kinds(prior, tasks, num_kinds=1)
    grid = torch.stack(
        torch.meshgrid(torch.linspace(-3, 2, 201), torch.linspace(-4, 14, 401), indexing="ij"), -1
    ).double()
    density = _log_density(unknown, grid.reshape(-1, 1, 2)[0], torch.zeros(1, dtype=torch.float64))
    assert density.shape == ()
    log_density = unknown.log_density(grid)
    peak = log_density.max()
    inner = integrate.simpson((log_density - peak).exp().numpy(), x=grid[0, :, 1].numpy())
    exact = math.log(integrate.simpson(inner, x=grid[:, 0, 0].numpy())) + float(peak)
    # Laplace is an approximation: the total's hyperposterior is skew
    assert found.log_evidence[1] == pytest.approx(exact, abs=0.5)
    mode = found.prior.log_weights
    assert _log_evidence(unknown, _vector(unknown, found), mode) == pytest.approx(found.log_evidence[1])


def _vector(unknown: object, found: object) -> torch.Tensor:
    prior = found.prior.components  # type: ignore[attr-defined]
    return torch.stack([(prior.successes / prior.failures).log(), (prior.successes + prior.failures).log()], -1)


@pytest.mark.parametrize(("name", "value"), [("num_kinds", 0), ("max_kinds", 7), ("num_kinds", 7)])
def test_numbers_of_kinds_that_cannot_be(name: str, value: int) -> None:
    tasks, _ = normal_kinds([0.0], 6)
    with pytest.raises(ValueError, match=f"{name} must be from 1 to the number of tasks, 6; got {value}"):
        fit_kinds(bm.NormalInverseGamma.initial(tasks), tasks, **{name: value})
