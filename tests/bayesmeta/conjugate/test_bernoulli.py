"""Beta-Bernoulli: its maths against scipy and quadrature, its fit against Minka's fixed point, its bad input."""

import math
import warnings

import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from bayesmeta import BetaBernoulli, Data, Statistics
from bayesmeta.random import rand
from bayesmeta.warning_kinds import LimitWarning
from tests.families import F64, seed

A, B = 1.5, 2.5
PRIOR = BetaBernoulli(F64 + A, F64 + B)
Y = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0], dtype=torch.float64)


def simulate(prior: BetaBernoulli, num_tasks: int, num_rows: int, number: int = 1) -> Data:
    probability = prior.constrain(prior.sample_params(num_tasks, generator=seed(number)))["probability"]
    uniform = rand((num_tasks, num_rows), like=F64, generator=seed(number + 1))
    return Data.of(None, (uniform < probability[:, None]).double())


def test_posterior_counts_ones_and_zeros() -> None:
    posterior = PRIOR.condition(Data.of(None, Y))
    assert (posterior.successes.item(), posterior.failures.item()) == pytest.approx((A + 4, B + 3), rel=1e-14)
    assert posterior.predict().mean.item() == pytest.approx((A + 4) / (A + B + 7), rel=1e-12)


def test_evidence_matches_scipy() -> None:
    expected = scipy.stats.betabinom(7, A, B).logpmf(4) - math.log(math.comb(7, 4))
    assert PRIOR.log_evidence(Data.of(None, Y)).item() == pytest.approx(expected, rel=1e-10)


def test_density_matches_scipy_and_integrates_to_one() -> None:
    logits = torch.linspace(-40, 40, 4001, dtype=torch.float64)
    density = PRIOR.log_prob(logits[:, None]).exp()
    assert torch.trapezoid(density, logits).item() == pytest.approx(1.0, rel=1e-10)
    theta = 0.3
    expected = scipy.stats.beta(A, B).logpdf(theta) + math.log(theta * (1 - theta))
    logit = torch.tensor([math.log(theta / (1 - theta))], dtype=torch.float64)
    assert PRIOR.log_prob(logit).item() == pytest.approx(expected, rel=1e-10)
    assert PRIOR.constrain(logit)["probability"].item() == pytest.approx(theta, rel=1e-12)


@pytest.mark.parametrize(("a", "b"), [(1.5, 2.5), (0.02, 0.01)])
def test_draws_follow_the_beta(a: float, b: float) -> None:
    logits = BetaBernoulli(F64 + a, F64 + b).sample_params(20_000, generator=seed(0))[:, 0]
    assert logits.isfinite().all()
    # in logits, because most draws of the second prior round to 0 or 1
    median = scipy.special.logit(scipy.stats.beta(a, b).ppf(0.5)) if a > 1 else 0.0
    share = scipy.stats.beta(a, b).cdf(scipy.special.expit(median))
    assert (logits < median).double().mean().item() == pytest.approx(share, abs=5 * 0.5 / 20_000**0.5)


def test_joint_repeats_one_probability() -> None:
    joint = PRIOR.joint(torch.zeros(3, 0))
    expected = scipy.stats.beta(A, B)
    assert joint.mean.tolist() == pytest.approx([expected.mean()] * 3, rel=1e-12)
    assert joint.variance.tolist() == pytest.approx([expected.var()] * 3, rel=1e-12)


def minka(ones: Tensor, zeros: Tensor) -> tuple[float, float]:
    """Minka, Estimating a Dirichlet distribution (2000), equation 55: slow and sure."""
    a = b = F64 + 1.0
    digamma = torch.special.digamma
    for _ in range(20_000):
        shared = (digamma(ones + zeros + a + b) - digamma(a + b)).sum()
        new_a = a * (digamma(ones + a) - digamma(a)).sum() / shared
        new_b = b * (digamma(zeros + b) - digamma(b)).sum() / shared
        if max(abs(new_a / a - 1.0), abs(new_b / b - 1.0)) < 1e-12:
            break
        a, b = new_a, new_b
    return a.item(), b.item()


def test_fit_agrees_with_minka() -> None:
    tasks = simulate(PRIOR, 300, 8)
    fitted = BetaBernoulli.initial(tasks).fit(tasks, hyperprior_weight=0.0)
    ones = tasks.y.sum(-1)
    expected = minka(ones, 8 - ones)
    assert (fitted.successes.item(), fitted.failures.item()) == pytest.approx(expected, rel=1e-6)


def test_fit_recovers_known_hyperparameters() -> None:
    tasks = simulate(PRIOR, 4000, 20)
    fitted = BetaBernoulli.initial(tasks).fit(tasks)
    assert fitted.successes.item() == pytest.approx(A, rel=0.2)  # about +- .03 of the truth
    assert fitted.failures.item() == pytest.approx(B, rel=0.2)
    assert fitted.learned_from is not None
    assert (fitted.learned_from.tasks, fitted.learned_from.rows) == (4000, 80_000)


def test_fit_of_tasks_that_do_not_differ_keeps_their_rate() -> None:
    tasks = Data.of(None, torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64).expand(30, 4))
    with pytest.warns(LimitWarning, match="log_total ended at its limit, 18.4: tasks do not differ"):
        fitted = BetaBernoulli.initial(tasks).fit(tasks, hyperprior_weight=0.0)
    assert (fitted.successes + fitted.failures).item() > 1e5
    assert fitted.predict().mean.item() == pytest.approx(0.25, rel=1e-3)
    # the hyperprior keeps some doubt
    doubtful = BetaBernoulli.initial(tasks).fit(tasks)
    assert (doubtful.successes + doubtful.failures).item() < 1e4


def test_few_tasks_do_not_collapse() -> None:
    """Of 200 times 5 tasks that do differ, plain empirical Bayes sees no difference in many; the default never."""
    totals: dict[float, list[float]] = {0.0: [], 1.0: []}
    for number in range(200):
        tasks = simulate(PRIOR, 5, 10, number)
        for weight, found in totals.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LimitWarning)
                fitted = BetaBernoulli.initial(tasks).fit(tasks, hyperprior_weight=weight)
            found.append((fitted.successes + fitted.failures).item())
    assert sum(total > 1e4 for total in totals[0.0]) > 5  # about 28 +- 5
    assert max(totals[1.0]) < 200


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_fit_of_rows_that_are_all_alike_is_finite(value: float) -> None:
    tasks = Data.of(None, torch.full((30, 4), value, dtype=torch.float64))
    fitted = BetaBernoulli.initial(tasks).fit(tasks)
    assert fitted.predict().mean.item() == pytest.approx(value, abs=0.01)


def test_ragged_fit_keeps_float32() -> None:
    tasks = Data.pad([(None, Y), (None, Y[:3]), (None, Y[:0]), (None, 1 - Y)], dtype=torch.float32)
    fitted = BetaBernoulli.initial(tasks).fit(tasks)
    assert fitted.successes.dtype == fitted.log_evidence(tasks).dtype == torch.float32
    assert fitted.learned_from is not None
    assert fitted.learned_from.tasks == 3


def test_statistics_stand_for_rows() -> None:
    data = Data.pad([(None, Y), (None, Y[:2])])
    left, right = PRIOR.condition(data), PRIOR.condition(Statistics.of(data))
    torch.testing.assert_close(left.successes, right.successes, rtol=1e-14, atol=0)


def test_a_batch_of_priors_meets_one_task_or_many() -> None:
    batch = BetaBernoulli(torch.arange(1.0, 4.0, dtype=torch.float64), F64 + 1.0)
    assert batch.failures.shape == (3,)
    for data in (Data.of(None, Y), Data.of(None, Y.expand(3, 7))):
        posterior = batch.condition(data)
        assert posterior.batch_shape == (3,)
        assert posterior.predict(torch.zeros(3, 4, 0)).mean.shape == (3, 4)
        assert posterior.sample(2, generator=seed(0))(torch.zeros(3, 4, 0)).shape == (2, 3, 4)
        assert posterior.joint().mean.shape == (3, 1)


def test_rows_must_be_zero_or_one() -> None:
    bad = Data(torch.zeros(2, 3, 0), torch.tensor([[1.0, 0.0, 7.0], [0.0, 2.0, 1.0]]), torch.ones(2, 3).bool())
    bad.mask[0, 2] = False  # padding may hold anything
    with pytest.raises(
        ValueError, match="0 or 1 where mask is true; 1 row is not, it is in task 1, row 1 with value 2"
    ):
        PRIOR.condition(bad)
    with pytest.raises(ValueError, match="y must be 0 or 1; a task has mean 3"):
        PRIOR.condition(Statistics.of(Data.of(None, torch.full((4,), 3.0))))


@pytest.mark.parametrize("name", ["successes", "failures"])
def test_pseudo_counts_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be finite and above zero; got 0"):
        BetaBernoulli(**({"successes": F64 + 1, "failures": F64 + 1} | {name: F64}))


def test_fit_refuses_tasks_that_say_too_little() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        PRIOR.fit(Data.of(None, torch.zeros(3, 0)))
    with pytest.raises(ValueError, match="at least two tasks with rows, on one axis; got 1"):
        PRIOR.fit(Data.of(None, torch.zeros(5)))
    with pytest.raises(ValueError, match="fit learns one prior; self has batch_shape"):
        BetaBernoulli(F64.new_ones(2), F64 + 1).fit(Data.of(None, torch.zeros(3, 5)))
