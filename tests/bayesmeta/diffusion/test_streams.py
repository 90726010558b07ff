"""Diffusion priors learn from streams: of new tasks each time, with theta or without, and of nothing but tasks."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from bayesmeta import Data, DiffusionPrior, DiffusionRegression
from bayesmeta.diffusion import DiffusionSchedule, KnowsTheta
from bayesmeta.diffusion.denoising import streamed_learning
from bayesmeta.diffusion.denoising.learning import VectorLearner
from bayesmeta.networks.learning.ascent import DivergedWarning
from bayesmeta.networks.learning.task_streams import TaskStream
from bayesmeta.random import categorical, rand, randint, randn
from tests.families import F64, seed

K, NOISE_SD = 4, 0.2
SHORT = DiffusionSchedule(
    num_steps=20, num_vectors=16, num_draws=2, num_particles=16, num_rounds=2, num_tasks=300, num_rows=6
)
MODES = 2.0 * torch.tensor([[1.0, 1.0, -1.0, 0.0], [-1.0, 1.0, 1.0, 0.0], [0.0, -1.0, 0.0, 1.0]], dtype=torch.float64)


@dataclass
class Rows:
    """Rows of random arms; theta is normal about one of three modes. It keeps all theta that it has drawn."""

    modes: Tensor = field(default_factory=lambda: MODES)
    within: float = 0.3
    seen: list[Tensor] = field(default_factory=list)
    num_rows: int = 0

    def _theta(self, num_tasks: int, generator: Generator) -> Tensor:
        mode = categorical(num_tasks, torch.zeros(len(self.modes)).double(), generator=generator)
        noise = randn((num_tasks, self.modes.shape[-1]), like=F64, generator=generator)
        self.seen.append(self.modes[mode] + self.within * noise)
        return self.seen[-1]

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
        theta = self._theta(num_tasks, generator)
        arm = randint(theta.shape[-1], (num_tasks, num_rows), generator=generator)
        noise = randn(arm.shape, like=F64, generator=generator)
        self.num_rows += arm.numel()
        return Data.of(arm[..., None].double(), theta.gather(1, arm) + NOISE_SD * noise)


class RowsAndTheta(Rows):
    """The same, which says what theta is."""

    def draw_theta(self, num_tasks: int, *, generator: Generator) -> Tensor:
        return self._theta(num_tasks, generator)


def initial(num_particles: int = 40, width: int = 8, **options: Any) -> DiffusionPrior:
    first = Rows().draw(50, 8, generator=seed(90))
    return DiffusionPrior.initial(first, num_arms=K, num_particles=num_particles, width=width, num_layers=1, **options)


def learned(stream: Any, number: int = 1, schedule: DiffusionSchedule = SHORT) -> DiffusionPrior:
    return initial(num_levels=4).fit(stream, schedule=schedule, generator=seed(number), progress=False)


@pytest.fixture(autouse=True)
def few_tasks_calibrate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_learning, "NUM_CALIBRATING", 200)


@pytest.mark.parametrize("kind", [Rows, RowsAndTheta])
def test_no_task_is_seen_twice_and_all_are_counted(kind: Any) -> None:
    stream = kind()
    assert isinstance(stream, TaskStream)
    assert isinstance(stream, KnowsTheta) == (kind is RowsAndTheta)
    found = learned(stream).learned_from
    theta = torch.cat(stream.seen)
    assert len(theta.unique(dim=0)) == len(theta)
    assert found is not None
    assert (found.tasks, found.rows) == (len(theta), stream.num_rows)


@pytest.mark.parametrize("kind", [Rows, RowsAndTheta])
def test_a_generator_says_all(kind: Any) -> None:
    tasks = Rows().draw(5, 6, generator=seed(7))
    once = replace(SHORT, num_rounds=1)
    first, again, other = (learned(kind(), number, once).log_evidence(tasks) for number in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", [Rows, RowsAndTheta])
def test_the_gaussian_prior_has_the_moments_of_the_tasks(kind: Any) -> None:
    num = 4000
    found = learned(kind(), schedule=replace(SHORT, num_steps=1, num_rounds=1, num_tasks=num)).arms
    between = MODES - MODES.mean(0)
    cov = between.mT @ between / 3.0 + 0.3**2 * torch.eye(K).double()
    error = (cov.diagonal() / num).sqrt()
    assert ((found.loc - MODES.mean(0)) / error).abs().max() < 6.0  # of rows a little more
    sd = cov.diagonal().sqrt()
    assert ((found.cov - cov) / (sd * sd[:, None])).abs().max() < 8.0 / num**0.5
    assert found.noise_var.item() == pytest.approx(NOISE_SD**2, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Rows, RowsAndTheta])
def test_it_finds_the_modes(kind: Any) -> None:
    """Its draws are nearer to a mode than those of the Gaussian prior, no mode is missed, and new tasks gain."""
    schedule = DiffusionSchedule(num_steps=250, num_vectors=96, num_rounds=1, num_tasks=2000, num_rows=12)
    prior = initial(200, 32).fit(kind(), schedule=schedule, generator=seed(3), progress=False)
    each = [torch.cdist(one.sample_params(2000, generator=seed(9)).double(), MODES) for one in (prior, prior.arms)]
    near, far = (distance.amin(-1) for distance in each)
    error = ((near.var() + far.var()) / 2000) ** 0.5
    assert near.mean() < far.mean() - 5.0 * error
    assert torch.bincount(each[0].argmin(-1), minlength=3).min() > 0.2 * 2000
    tasks = Rows().draw(200, 4, generator=seed(5))
    gain = prior.log_evidence(tasks) - prior.arms.log_evidence(tasks)
    assert gain.mean() > 5.0 * gain.std() / 200**0.5


@pytest.mark.parametrize("y", ["normal", "bernoulli"])
@pytest.mark.parametrize("knows_theta", [False, True])
def test_regressions_learn_from_streams(y: str, knows_theta: bool) -> None:
    class Answers:
        num = 0

        def _weights(self, num_tasks: int, generator: Generator) -> Tensor:
            self.num += num_tasks
            return torch.tensor([1.0, -0.5]).double() + 0.5 * randn((num_tasks, 2), like=F64, generator=generator)

        def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Data:
            x = randn((num_tasks, num_rows, 2), like=F64, generator=generator)
            eta = (x @ self._weights(num_tasks, generator)[..., None])[..., 0]
            if y == "normal":
                return Data.of(x, eta + NOISE_SD * randn(eta.shape, like=F64, generator=generator))
            return Data.of(x, (rand(eta.shape, like=F64, generator=generator) < eta.sigmoid()).double())

    class AnswersAndWeights(Answers):
        def draw_theta(self, num_tasks: int, *, generator: Generator) -> Tensor:
            return self._weights(num_tasks, generator)

    stream: Any = AnswersAndWeights() if knows_theta else Answers()
    sizes: dict[str, Any] = {"width": 8, "num_layers": 1, "num_levels": 3, "num_particles": 40}
    start = DiffusionRegression.initial(stream.draw(50, 6, generator=seed(1)), y=y, **sizes)
    prior = start.fit(stream, schedule=SHORT, generator=seed(2), progress=False)
    assert prior.learned_from is not None
    assert prior.learned_from.tasks == stream.num - 50
    cov = torch.linalg.inv(prior.weights.precision)
    if y == "normal":
        assert prior.weights.noise_var.item() == pytest.approx(NOISE_SD**2, rel=0.3)
    if y == "normal" or knows_theta:
        assert (prior.weights.loc - torch.tensor([1.0, -0.5]).double()).abs().max() < 8.0 * 0.5 / 300**0.5
        assert cov.diagonal().sqrt().numpy() == pytest.approx([0.5, 0.5], rel=0.3)


class Broken(RowsAndTheta):
    """What `rows` and `theta` return."""

    def __init__(self, rows: Any = None, theta: Any = None) -> None:
        super().__init__()
        self._rows_are, self._theta_is = rows, theta

    def draw(self, num_tasks: int, num_rows: int, *, generator: Generator) -> Any:
        data = super().draw(num_tasks, num_rows, generator=generator)
        return data if self._rows_are is None else self._rows_are(data)

    def draw_theta(self, num_tasks: int, *, generator: Generator) -> Any:
        theta = super().draw_theta(num_tasks, generator=generator)
        return theta if self._theta_is is None else self._theta_is(theta)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (lambda data: data.y, TypeError, r"Broken\.draw must return Data; got Tensor"),
        (
            lambda data: data[1:],
            ValueError,
            r"Broken\.draw was asked for 10922 tasks of 6 rows; got shape \(10921, 6\)",
        ),
        (lambda data: data.rows(slice(0, 3)), ValueError, r"tasks of 6 rows; got shape \(10922, 3\)"),
        (lambda data: Data.of(data.x + 1.0, data.y), IndexError, "arm 4 does not exist: there are 4 arms"),
        (lambda data: Data.of(data.x, data.y.log()), ValueError, "y must be finite"),
        (lambda data: Data.of(data.x.expand(-1, -1, 2), data.y), ValueError, "x must have 1 column"),
    ],
)
def test_rows_of_a_stream_are_checked(rows: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        learned(Broken(rows=rows))


@pytest.mark.parametrize(
    ("theta", "error", "message"),
    [
        (
            lambda theta: theta[:, :3],
            ValueError,
            r"Broken\.draw_theta must return theta of shape \(2, 4\).*got \(2, 3\)",
        ),
        (
            lambda theta: theta[1:],
            ValueError,
            r"must return theta of shape \(2, 4\), for each of 2 tasks.*got \(1, 4\)",
        ),
        (lambda theta: theta.log(), ValueError, r"theta of Broken\.draw_theta must be finite; got nan"),
        (lambda theta: theta.tolist(), TypeError, "must return a tensor of floating-point numbers; got list"),
        (lambda theta: theta.long(), TypeError, r"must return a tensor of floating-point numbers; got torch\.int64"),
        (lambda theta: 0.0 * theta, ValueError, "theta of Broken must vary between tasks; all of 300 are alike"),
    ],
)
def test_theta_of_a_stream_is_checked(theta: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        learned(Broken(theta=theta))


def test_a_posterior_learns_from_no_stream_and_a_schedule_counts() -> None:
    posterior = initial().condition(Rows().draw(3, 2, generator=seed(1)))
    with pytest.raises(ValueError, match="fit starts from a prior"):
        posterior.fit(Rows(), progress=False)
    with pytest.raises(ValueError, match="num_rows must be at least 1; got 0"):
        DiffusionSchedule(num_rows=0)
    with pytest.raises(ValueError, match="num_tasks must be at least 2; got 1"):
        DiffusionSchedule(num_tasks=1)


def test_theta_in_a_plane() -> None:
    """Its covariance is singular, and a Gaussian prior's is not."""
    prior = learned(RowsAndTheta(within=0.0))
    tasks = Rows().draw(20, 4, generator=seed(5))
    assert prior.log_evidence(tasks).isfinite().all()


def test_it_learns_under_inference_mode_and_shows_that_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.inference_mode():
        prior = initial(num_levels=3).fit(RowsAndTheta(), schedule=SHORT, generator=seed(1))
    assert prior.log_evidence(Rows().draw(3, 4, generator=seed(2))).isfinite().all()
    assert "diverged" not in capsys.readouterr().out


def test_learning_that_diverges_stops_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        VectorLearner, "loss", lambda _self, weights, _look: torch.nan * sum(v.sum() for v in weights.values())
    )
    with pytest.warns(DivergedWarning) as told:
        prior = learned(RowsAndTheta())
    assert sum("the network of its last look" in str(warning.message) for warning in told) == 1
    tasks = Rows().draw(20, 4, generator=seed(5))
    torch.testing.assert_close(prior.log_evidence(tasks), prior.arms.log_evidence(tasks), rtol=1e-6, atol=1e-6)
