"""Input that is wrong, or says next to nothing: a clear error, or the Gaussian prior, and never silent nonsense."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from bayesmeta import Data, Statistics
from bayesmeta.diffusion.denoising import learning
from bayesmeta.diffusion.denoising.calibration import shrunk_covariance
from bayesmeta.diffusion.denoising.learning import DiffusionSchedule
from bayesmeta.diffusion.denoising.worth import LEAST_TASKS, lowest_level
from bayesmeta.diffusion.prior import DiffusionPrior
from bayesmeta.diffusion.sampling.tempering import TemperedWarning
from bayesmeta.networks.learning.ascent import DivergedWarning
from bayesmeta.random import randn
from tests.families import F64, seed

K = 3
SHORT = DiffusionSchedule(num_steps=40, num_vectors=16, num_draws=2, num_particles=16, num_rounds=1)


def arms(num: int) -> torch.Tensor:
    return torch.arange(num, dtype=torch.float64)[:, None]


def past(num: int, number: int = 1, num_arms: int = K) -> Data:
    noise = randn((2, num, num_arms), like=F64, generator=seed(number))
    return Data.of(arms(num_arms).expand(num, num_arms, 1), noise[0] + 0.5 * noise[0, :, :1] + 0.1 * noise[1])


def initial(tasks: Any, **options: Any) -> DiffusionPrior:
    return DiffusionPrior.initial(
        tasks, **{"width": 8, "num_layers": 1, "num_particles": 40, "num_levels": 4, **options}
    )


def learned(tasks: Data, **options: Any) -> DiffusionPrior:
    return initial(tasks, **options).fit(tasks, schedule=SHORT, progress=False)


def require_gaussian(prior: DiffusionPrior, tasks: Data) -> None:
    torch.testing.assert_close(prior.log_evidence(tasks), prior.arms.log_evidence(tasks), rtol=1e-6, atol=1e-6)


def require_hardly_worse(prior: DiffusionPrior, tasks: Data) -> None:
    """Than the Gaussian prior, which by chance is not always left."""
    loss = prior.arms.log_evidence(tasks) - prior.log_evidence(tasks)
    assert loss.mean() < 0.5 + 5.0 * loss.std() / len(loss) ** 0.5


def without_rows(tasks: Data, keep: int) -> Data:
    """With the rows of the first tasks alone."""
    mask = tasks.mask.clone()
    mask[keep:] = False
    return Data(tasks.x, tasks.y, mask)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (past(4)[:0], "fit needs at least one row; got 0 tasks"),
        (past(1), "at least two tasks with rows, on one axis; got 1"),
        (past(1)[0], "at least two tasks with rows, on one axis; got 1"),
        (without_rows(past(5), 0), "fit needs at least one row; got 5 tasks, all empty"),
        (without_rows(past(5), 1), "at least two tasks with rows, on one axis; got 1"),
    ],
    ids=["no tasks", "one task", "one task alone", "no rows", "rows of one task"],
)
def test_too_few_tasks(tasks: Data, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initial(tasks).fit(tasks, progress=False)


@pytest.mark.parametrize("num", [2, 3, 8, 12])
def test_a_handful_of_tasks_leaves_the_gaussian_prior(num: int) -> None:
    tasks = past(num)
    require_gaussian(learned(tasks), past(20, 5))
    require_gaussian(learned(without_rows(past(20), num)), past(20, 5))


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_tasks_that_do_not_differ(value: float) -> None:
    same = Data.of(arms(K).expand(20, K, 1), torch.full((20, K), value, dtype=torch.float64))
    marginal = learned(same).marginal(arms(K))
    assert ((marginal.mean - value).abs() < 5.0 * marginal.stddev).all()
    one = past(1)
    twins = learned(Data.of(one.x.expand(20, K, 1), one.y.expand(20, K))).marginal(arms(K))
    assert ((twins.mean - one.y[0]).abs() < 5.0 * twins.stddev).all()


def test_tasks_of_one_arm() -> None:
    prior, new = learned(past(30, num_arms=1)), past(20, 5, num_arms=1)
    require_hardly_worse(prior, new)
    assert prior.condition(new).marginal(arms(1)).mean.shape == (20, 1)


def test_arms_that_no_task_shows() -> None:
    prior = learned(past(10), num_arms=K + 2)
    after = prior.condition(past(1, 5))
    found, exact = after.marginal(arms(K + 2)), prior.arms.condition(past(1, 5)).marginal(arms(K + 2))
    assert ((found.mean - exact.mean).abs() / exact.stddev).max() < 5.0 / 40**0.5
    assert (found.variance[0, K:] > found.variance[0, :K].max()).all()


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_noise_that_cannot_be(value: float) -> None:
    prior = initial(past(10))
    with pytest.raises(ValueError, match="noise_var must be finite and above zero"):
        replace(prior, arms=replace(prior.arms, noise_var=F64 + value))


@pytest.mark.parametrize("arm", [3.0, -1.0, 0.5])
def test_arms_that_do_not_exist(arm: float) -> None:
    prior, x = initial(past(10)), torch.tensor([[arm]], dtype=torch.float64)
    row, message = Data.of(x, F64[None]), "does not exist: there are 3 arms|must hold whole numbers"
    calls: list[Callable[[], Any]] = [
        lambda: prior.condition(row),
        lambda: prior.predict(x),
        lambda: prior.joint(x),
        lambda: prior.sample(2, generator=seed(1))(x),
        lambda: prior.log_evidence(row),
        lambda: prior.online((2,)).add((torch.tensor([0]),), x, F64[None]),
    ]
    for call in calls:
        with pytest.raises((IndexError, ValueError), match=message):
            call()


def test_rows_that_no_draw_explains_warn_at_the_line_that_asked() -> None:
    prior = initial(past(10))
    weights = {name: value + 0.1 for name, value in prior.network.weights.items()}
    prior = replace(prior, network=prior.network.with_weights(weights), gates=torch.full((4, K), 0.5).double())
    after = prior.condition(Data.of(arms(K), torch.full((K,), 1e30, dtype=torch.float64)))
    with pytest.warns(TemperedWarning, match="in the units of the past tasks") as told:
        assert after.marginal(arms(K)).mean.isfinite().all()
    assert "functools" not in told[0].filename


@pytest.mark.parametrize("num_good", [0, 10])
def test_a_denoiser_that_diverges_stops_and_says_so(num_good: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, calls = learning.VectorLearner.loss, []

    def diverging(*args: Any) -> torch.Tensor:
        calls.append(1)
        return loss(*args) * (1.0 if len(calls) <= num_good else torch.nan)

    monkeypatch.setattr(learning.VectorLearner, "loss", diverging)
    tasks, new = past(40), past(50, 5)
    with pytest.warns(DivergedWarning) as told:
        prior = initial(tasks).fit(tasks, schedule=replace(SHORT, num_rounds=3), progress=False)
    assert sum("the best network that it met" in str(warning.message) for warning in told) == 1
    require_hardly_worse(prior, new)


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_a_huge_rate_does_no_harm(rate: float) -> None:
    tasks = past(40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DivergedWarning)
        prior = initial(tasks).fit(tasks, schedule=replace(SHORT, rate=rate), progress=False)
    require_hardly_worse(prior, past(50, 5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_levels": 0}, "num_levels must be at least 1; got 0"),
        ({"num_levels": 2.5}, "num_levels must be a whole number"),
        ({"num_particles": 0}, "num_particles must be at least 1; got 0"),
        ({"num_particles": -1}, "num_particles must be at least 1; got -1"),
        ({"num_arms": 0}, "num_arms must be at least 1; got 0"),
        ({"num_arms": 2}, "arm 2 does not exist: there are 2 arms"),
        ({"width": 0}, "width must be at least 1; got 0"),
        ({"num_layers": 0}, "num_layers must be at least 1; got 0"),
    ],
)
def test_sizes_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        initial(past(10), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({name: 0}, f"{name} must be at least 1")
            for name in ("num_steps", "num_vectors", "num_draws", "num_rounds")
        ),
        ({"num_particles": 0}, "num_particles must be at least 1"),
        ({"rate": 0.0}, "rate must be finite and above zero; got 0"),
        ({"rate": float("nan")}, "rate must be finite and above zero; got nan"),
        ({"average": 1.0}, "average must be a weight from 0 to below 1; got 1"),
    ],
)
def test_schedules_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionSchedule(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda prior: {"num_particles": 0}, "num_particles must be at least 1"),
        (lambda prior: {"noises": prior.noises.flip(0)}, "noises must rise"),
        (lambda prior: {"noises": 0.0 * prior.noises}, "noises must be finite and above zero"),
        (
            lambda prior: {"gates": prior.gates + torch.nan},
            r"gates must be from 0 to 1; got \[nan, nan, nan\]",
        ),
        (lambda prior: {"gates": prior.gates - 1.0}, r"gates must be from 0 to 1; got \[-1.0, -1.0, -1.0\] at level 0"),
        (lambda prior: {"residual_cov": -prior.residual_cov}, "residual_cov .* is not positive definite"),
        (lambda prior: {"arms": initial(past(10, num_arms=K + 1)).arms}, r"basis must have shape \(4, 3\)"),
        (lambda prior: {"arms": prior.arms.expand((2,))}, r"without a batch; got batch_shape \(2,\)"),
    ],
)
def test_parts_that_do_not_fit(change: Callable[[DiffusionPrior], dict[str, Any]], message: str) -> None:
    prior = initial(past(10))
    with pytest.raises(ValueError, match=message):
        replace(prior, **change(prior))


@pytest.mark.parametrize("num_particles", [1, 2, 3, 7])
@pytest.mark.parametrize("num_levels", [1, 2])
def test_few_particles_and_levels_are_still_a_posterior(num_particles: int, num_levels: int) -> None:
    prior = initial(past(10), num_particles=num_particles, num_levels=num_levels)
    after = prior.condition(past(2, 5))
    torch.testing.assert_close(after.ess, torch.full((2,), float(num_particles)).double(), rtol=1e-6, atol=0.0)
    require_gaussian(prior, past(2, 5))


def test_one_task_then_many_and_the_other_way_round() -> None:
    prior, tasks = initial(past(10)), past(4, 5)
    both = [
        prior.condition(tasks[0]).condition(tasks),
        prior.condition(tasks).condition(tasks[0]),
        prior.expand((4,)).condition(tasks).condition(tasks[:1]),
    ]
    expected = prior.arms.condition(tasks).condition(tasks[0]).marginal(arms(K))
    for after in both:
        error = (after.marginal(arms(K)).mean - expected.mean) / expected.stddev
        assert error.abs().max() < 5.0 / 40**0.5
    with pytest.raises(ValueError, match=r"tasks that the posterior is of, \(4,\); got \(3,\)"):
        prior.condition(tasks).condition(tasks[:3])


def test_indices_and_batches() -> None:
    after = initial(past(10)).condition(past(4, 5))
    for wrong in ((0, 1), 9):
        with pytest.raises(IndexError):
            after[wrong]
    assert after[:, None].batch_shape == (4, 1)
    assert torch.equal(after[..., 2].marginal(arms(K)).mean, after.marginal(arms(K)).mean[2])
    for shape in ((3,), ()):
        with pytest.raises(ValueError, match=r"batch_shape \(4,\) does not broadcast to"):
            after.expand(shape)


def test_no_tasks_have_a_posterior() -> None:
    prior = initial(past(10))
    after = prior.condition(past(4, 5)[:0])
    assert after.ess.shape == (0,)
    assert after.marginal(arms(K)).mean.shape == (0, K)
    assert after.sample(5, generator=seed(1))(arms(K)).shape == (5, 0, K)
    assert prior.log_evidence(past(4, 5)[:0]).shape == (0,)


def test_statistics_of_the_wrong_kind() -> None:
    prior = initial(past(10))
    with pytest.raises(ValueError, match="statistics must be of each arm"):
        prior.condition(Statistics.of(Data.of(None, F64[None])))
    with pytest.raises(ValueError, match="needs second moments"):
        prior.condition(Statistics.zeros((K,), 0, 1, order=1))


@pytest.mark.parametrize("unit", [1e12, 1e-12, 1e100])
def test_units_do_not_matter(unit: float) -> None:
    def said(unit: float) -> tuple[torch.Tensor, torch.Tensor]:
        tasks, new = past(40), past(3, 5)
        prior = learned(Data.of(tasks.x, unit * tasks.y))
        new = Data.of(new.x, unit * new.y)
        return prior.condition(new).marginal(arms(K)).mean / unit, prior.log_evidence(new) + K * F64.add(unit).log()

    for found, expected in zip(said(unit), said(1.0), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_number_is_asked_of_all_arms() -> None:
    predicted = initial(past(10)).condition(past(4, 5)).predict(arms(K))
    for ask in (predicted.icdf, predicted.cdf, predicted.log_prob):
        assert torch.equal(ask(F64 + 0.3), ask(torch.full((4, K), 0.3, dtype=torch.float64)))


def test_one_task_says_nothing_of_a_covariance() -> None:
    one = randn((1, 8, 5), like=F64, generator=seed(1))
    torch.testing.assert_close(shrunk_covariance(one, 0.7), 0.7 * torch.eye(5).double())


def test_levels_are_worth_what_held_out_tasks_gain() -> None:
    gaussian, noise = torch.zeros(20).double(), 0.1 * randn((3, 20), like=F64, generator=seed(1))
    noise = noise - noise.mean(-1, keepdim=True)
    worth = torch.tensor([[1.0], [1.0], [0.5]]).double()
    assert lowest_level(noise + worth, gaussian) == 1
    assert lowest_level(noise - worth, gaussian) is None
    assert lowest_level(noise, gaussian) is None
    assert lowest_level((noise + worth)[:, : LEAST_TASKS - 1], gaussian[: LEAST_TASKS - 1]) is None
    assert lowest_level(noise + worth * torch.nan, gaussian) is None
